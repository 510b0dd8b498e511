//! Rows, and the changes made of them: Insert, Update, Delete and Truncate.

use std::fmt;

use bytes::Bytes;

use crate::cursor::{Cursor, ParseError};

/// A column's value in a tuple.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// NULL. In a key tuple also every column that isn't part of the key: absent, not NULL.
    Null,
    /// A TOASTed value that the UPDATE left as it was; it isn't sent.
    UnchangedToast,
    /// The type's text form.
    Text(&'a [u8]),
    /// The type's binary form, with the option `binary`.
    Binary(&'a [u8]),
}

impl fmt::Debug for Value<'_> {
    /// Shows no values of rows.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("Null"),
            Value::UnchangedToast => f.write_str("UnchangedToast"),
            Value::Text(value) => write!(f, "Text({} bytes)", value.len()),
            Value::Binary(value) => write!(f, "Binary({} bytes)", value.len()),
        }
    }
}

/// A row's values in the order of its relation's columns: the message's bytes, and where in them each stands.
#[derive(Clone)]
pub struct Tuple {
    body: Bytes,
    slots: Box<[Slot]>,
}

#[derive(Clone, Copy)]
enum Slot {
    Null,
    UnchangedToast,
    Text { start: u32, len: u32 },
    Binary { start: u32, len: u32 },
}

impl Tuple {
    /// Reads the tuple at `cursor`, which reads `body`.
    fn parse(cursor: &mut Cursor, body: &Bytes) -> Result<Tuple, ParseError> {
        let count = cursor.u16("number of columns")?;
        // Each column takes a byte at least, so a count that the message can't hold allocates nothing.
        let mut slots = Vec::with_capacity(usize::from(count).min(cursor.remaining()));
        for _ in 0..count {
            slots.push(match cursor.u8("column kind")? {
                b'n' => Slot::Null,
                b'u' => Slot::UnchangedToast,
                b't' => {
                    let (start, len) = value(cursor)?;
                    Slot::Text { start, len }
                }
                b'b' => {
                    let (start, len) = value(cursor)?;
                    Slot::Binary { start, len }
                }
                kind => return Err(cursor.invalid("column kind", kind)),
            });
        }
        Ok(Tuple { body: body.clone(), slots: slots.into() })
    }

    /// The number of columns.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// The length of the message that the tuple keeps in memory.
    pub fn message_len(&self) -> usize {
        self.body.len()
    }

    /// Whether the tuple has no columns.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The value of column `index`, from 0; `None` when there is no such column.
    pub fn get(&self, index: usize) -> Option<Value<'_>> {
        self.slots.get(index).map(|&slot| self.value(slot))
    }

    /// All values, in order.
    pub fn values(&self) -> impl ExactSizeIterator<Item = Value<'_>> {
        self.slots.iter().map(|&slot| self.value(slot))
    }

    /// The bytes of a value of this tuple, shared with the message. `None` for NULL and unchanged TOAST.
    pub fn bytes(&self, index: usize) -> Option<Bytes> {
        match self.get(index)? {
            Value::Text(value) | Value::Binary(value) => Some(self.body.slice_ref(value)),
            Value::Null | Value::UnchangedToast => None,
        }
    }

    fn value(&self, slot: Slot) -> Value<'_> {
        let bytes = |start: u32, len: u32| {
            let start = start as usize;
            // `parse` has checked the range against this very body.
            self.body.get(start..start + len as usize).unwrap_or_default()
        };
        match slot {
            Slot::Null => Value::Null,
            Slot::UnchangedToast => Value::UnchangedToast,
            Slot::Text { start, len } => Value::Text(bytes(start, len)),
            Slot::Binary { start, len } => Value::Binary(bytes(start, len)),
        }
    }
}

/// A value's place in the message; both fit, as a length has 31 bits and a message less than 2 GiB.
fn value(cursor: &mut Cursor) -> Result<(u32, u32), ParseError> {
    let len = cursor.len("value length")?;
    let start = cursor.position();
    cursor.skip(len, "value")?;
    match (u32::try_from(start), u32::try_from(len)) {
        (Ok(start), Ok(len)) => Ok((start, len)),
        _ => Err(cursor.invalid("value length", len as i64)),
    }
}

impl PartialEq for Tuple {
    /// Equal values; where in a message they stand doesn't matter.
    fn eq(&self, other: &Tuple) -> bool {
        self.values().eq(other.values())
    }
}

impl Eq for Tuple {}

impl fmt::Debug for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.values()).finish()
    }
}

/// A new row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Insert {
    /// The OID of its relation.
    pub relation: u32,
    /// The row.
    pub new: Tuple,
}

/// A changed row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// The OID of its relation.
    pub relation: u32,
    /// What identifies the row; when absent, the key columns of `new` do.
    pub old: Option<OldTuple>,
    /// The row as it is now; unchanged TOAST values are left out.
    pub new: Tuple,
}

/// A removed row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delete {
    /// The OID of its relation.
    pub relation: u32,
    /// What identifies the row.
    pub old: OldTuple,
}

/// What is told of a row before a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OldTuple {
    /// The replica identity's columns; all others are [`Value::Null`], which there means absent.
    /// It comes when a key column changed, and also when a key value is TOASTed.
    Key(Tuple),
    /// The whole row (replica identity FULL).
    Full(Tuple),
}

/// Emptied tables: all of one TRUNCATE that are published, to be emptied by one statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Truncate {
    /// The OIDs of the relations.
    pub relations: Vec<u32>,
    /// It was TRUNCATE CASCADE; `relations` already holds what that reached.
    pub cascade: bool,
    /// It was TRUNCATE RESTART IDENTITY.
    pub restart_identity: bool,
}

impl Insert {
    pub(super) fn parse(cursor: &mut Cursor, body: &Bytes) -> Result<Insert, ParseError> {
        let relation = cursor.u32("relation OID")?;
        match cursor.u8("tuple kind")? {
            b'N' => Ok(Insert { relation, new: Tuple::parse(cursor, body)? }),
            kind => Err(cursor.invalid("tuple kind", kind)),
        }
    }
}

impl Update {
    pub(super) fn parse(cursor: &mut Cursor, body: &Bytes) -> Result<Update, ParseError> {
        let relation = cursor.u32("relation OID")?;
        let mut kind = cursor.u8("tuple kind")?;
        let old = match kind {
            b'N' => None,
            _ => {
                let old = OldTuple::parse(kind, cursor, body)?;
                kind = cursor.u8("new tuple kind")?;
                Some(old)
            }
        };
        match kind {
            b'N' => Ok(Update { relation, old, new: Tuple::parse(cursor, body)? }),
            kind => Err(cursor.invalid("new tuple kind", kind)),
        }
    }
}

impl Delete {
    pub(super) fn parse(cursor: &mut Cursor, body: &Bytes) -> Result<Delete, ParseError> {
        let relation = cursor.u32("relation OID")?;
        let kind = cursor.u8("tuple kind")?;
        Ok(Delete { relation, old: OldTuple::parse(kind, cursor, body)? })
    }
}

impl OldTuple {
    fn parse(kind: u8, cursor: &mut Cursor, body: &Bytes) -> Result<OldTuple, ParseError> {
        match kind {
            b'K' => Ok(OldTuple::Key(Tuple::parse(cursor, body)?)),
            b'O' => Ok(OldTuple::Full(Tuple::parse(cursor, body)?)),
            kind => Err(cursor.invalid("tuple kind", kind)),
        }
    }
}

impl Truncate {
    pub(super) fn parse(cursor: &mut Cursor) -> Result<Truncate, ParseError> {
        let count = cursor.len("number of relations")?;
        let options = cursor.u8("options")?;
        if options & !3 != 0 {
            return Err(cursor.invalid("options", options));
        }
        let mut relations = Vec::with_capacity(count.min(cursor.remaining() / 4));
        for _ in 0..count {
            relations.push(cursor.u32("relation OID")?);
        }
        Ok(Truncate { relations, cascade: options & 1 != 0, restart_identity: options & 2 != 0 })
    }
}
