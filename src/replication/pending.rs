//! Changes of one relation that are gathered, so that many rows go by one statement.
//!
//! In: changes in their order. Out: rows to delete, to update and to insert, to be applied in that order; each key is in one list, but that
//! a row may be deleted and another with its key inserted. Pure; nothing fails: a change that does not go together with
//! what is gathered is given back, and fits once that has been sent.
//!
//! Two ways to gather:
//! - **Runs**: inserts alone, or deletes alone, of rows that no other kind of change came between.
//! - **Net effects**: an update replaces an earlier update or insert of the same key, a delete replaces an earlier update. That the rows arrive
//!   in another order changes nothing where a key is all that tells rows apart ([`Gather::NetEffects`](super::relation::Gather)).
//!
//! A delete doesn't take back an insert: if the row was on the target before, which it should not have been, the insert is to tell.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use bytes::{BufMut, Bytes, BytesMut};
use pgstream_proto::pgoutput::Tuple;

/// What is gathered.
#[derive(Debug, Default)]
pub(super) struct Pending {
    /// Rows to delete, as their old tuples.
    deletes: Vec<Tuple>,
    /// Rows to update, as they are in the end; `None` where a delete came after.
    updates: Vec<Option<Tuple>>,
    /// Rows to insert.
    inserts: Vec<Tuple>,
    /// Where each key is. Empty as long as nothing had to be looked up.
    places: HashMap<Bytes, Place>,
}

/// What happens to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// It is new.
    Insert,
    /// All its values are told; its key is what it was.
    Update,
    /// It goes; its old tuple tells the key.
    Delete,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    Deleted,
    Updated(usize),
    Inserted(usize),
}

/// What was gathered, in the order in which it is to be applied.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) deletes: Vec<Tuple>,
    pub(super) updates: Vec<Tuple>,
    pub(super) inserts: Vec<Tuple>,
}

/// The key of a row as bytes, equal for equal keys alone; `None` when one of its values isn't told.
pub(super) fn key_of(row: &Tuple, columns: &[usize]) -> Option<Bytes> {
    if let &[column] = columns {
        return row.bytes(column);
    }
    let mut key = BytesMut::new();
    for &column in columns {
        let value = row.bytes(column)?;
        // A value has less than 2^32 bytes, as its message has.
        key.put_u32(value.len() as u32);
        key.put_slice(&value);
    }
    Some(key.freeze())
}

impl Pending {
    /// The first change.
    pub(super) fn of(kind: Kind, row: Tuple) -> Pending {
        let mut pending = Pending::default();
        match kind {
            Kind::Insert => pending.inserts.push(row),
            Kind::Update => pending.updates.push(Some(row)),
            Kind::Delete => pending.deletes.push(row),
        }
        pending
    }

    /// How many rows there are, at most.
    pub(super) fn len(&self) -> usize {
        self.deletes.len() + self.updates.len() + self.inserts.len()
    }

    /// Whether there are inserts and nothing else.
    pub(super) fn is_inserts(&self) -> bool {
        self.deletes.is_empty() && self.updates.is_empty()
    }

    /// All of it.
    pub(super) fn into_rows(self) -> Rows {
        let Pending { deletes, updates, inserts, .. } = self;
        Rows { deletes, updates: updates.into_iter().flatten().collect(), inserts }
    }

    /// Adds a change to a run of its kind, or gives it back.
    pub(super) fn add_to_run(&mut self, kind: Kind, row: Tuple) -> Result<(), Tuple> {
        match kind {
            Kind::Insert if self.is_inserts() => self.inserts.push(row),
            Kind::Delete if self.updates.is_empty() && self.inserts.is_empty() => self.deletes.push(row),
            _ => return Err(row),
        }
        Ok(())
    }

    /// Adds a change to the net effect, or gives it back; the columns `key` tell rows apart.
    pub(super) fn add_to_net_effect(&mut self, kind: Kind, row: Tuple, key: &[usize]) -> Result<(), Tuple> {
        let row = match self.places.is_empty() {
            // As long as all are of one kind, no two of them can have the same key; updates can.
            true => match self.add_to_run(kind, row) {
                Ok(()) => return Ok(()),
                Err(row) => row,
            },
            false => row,
        };
        if self.places.is_empty() {
            self.places = self.find_places(key);
        }
        let Some(bytes) = key_of(&row, key) else { return Err(row) };
        match (kind, self.places.entry(bytes)) {
            (Kind::Insert, Entry::Vacant(entry)) => {
                entry.insert(Place::Inserted(self.inserts.len()));
                self.inserts.push(row);
            }
            (Kind::Insert, Entry::Occupied(mut entry)) if matches!(entry.get(), Place::Deleted) => {
                entry.insert(Place::Inserted(self.inserts.len()));
                self.inserts.push(row);
            }
            (Kind::Update, Entry::Vacant(entry)) => {
                entry.insert(Place::Updated(self.updates.len()));
                self.updates.push(Some(row));
            }
            (Kind::Update, Entry::Occupied(entry)) => match *entry.get() {
                Place::Updated(at) => self.updates[at] = Some(row),
                Place::Inserted(at) => self.inserts[at] = row,
                Place::Deleted => return Err(row),
            },
            (Kind::Delete, Entry::Vacant(entry)) => {
                entry.insert(Place::Deleted);
                self.deletes.push(row);
            }
            (Kind::Delete, Entry::Occupied(mut entry)) => {
                let Place::Updated(at) = *entry.get() else { return Err(row) };
                self.updates[at] = None;
                entry.insert(Place::Deleted);
                self.deletes.push(row);
            }
            (Kind::Insert, Entry::Occupied(_)) => return Err(row),
        }
        Ok(())
    }

    fn find_places(&self, key: &[usize]) -> HashMap<Bytes, Place> {
        let deletes = self.deletes.iter().map(|row| (row, Place::Deleted));
        let updates = self.updates.iter().enumerate();
        let updates = updates.filter_map(|(at, row)| Some((row.as_ref()?, Place::Updated(at))));
        let inserts = self.inserts.iter().enumerate().map(|(at, row)| (row, Place::Inserted(at)));
        let all = deletes.chain(updates).chain(inserts);
        all.filter_map(|(row, place)| Some((key_of(row, key)?, place))).collect()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use pgstream_proto::pgoutput::{Decoder, Message, ProtocolVersion};
    use proptest::prelude::*;

    use super::*;

    /// A row of a key and a value.
    fn row(key: u8, value: u32) -> Tuple {
        tuple(&[&key.to_string(), &value.to_string()])
    }

    /// A row of texts, out of an Insert message.
    pub(in super::super) fn tuple(values: &[&str]) -> Tuple {
        let mut message = BytesMut::from(&b"I\0\0\0\x01N"[..]);
        message.put_u16(values.len() as u16);
        for text in values {
            message.put_u8(b't');
            message.put_u32(text.len() as u32);
            message.put_slice(text.as_bytes());
        }
        let mut decoder = Decoder::new(ProtocolVersion::V1);
        let mut begin = BytesMut::from(&b"B"[..]);
        begin.put_bytes(0, 20);
        decoder.decode(begin.freeze()).unwrap();
        match decoder.decode(message.freeze()).unwrap().message {
            Message::Insert(insert) => insert.new,
            other => panic!("unexpected {other:?}"),
        }
    }

    #[derive(Debug, Clone, Copy)]
    enum Change {
        Insert(u8),
        Update(u8),
        Delete(u8),
        Send,
    }

    fn changes() -> impl Strategy<Value = Vec<Change>> {
        let change = prop_oneof![
            3 => (0..6u8).prop_map(Change::Insert),
            4 => (0..6u8).prop_map(Change::Update),
            3 => (0..6u8).prop_map(Change::Delete),
            1 => Just(Change::Send),
        ];
        prop::collection::vec(change, 0..60)
    }

    type Table = BTreeMap<Bytes, Tuple>;

    /// What the target does: each statement must reach its row.
    fn send(pending: &mut Pending, table: &mut Table) {
        let rows = std::mem::take(pending).into_rows();
        for row in rows.deletes {
            assert!(table.remove(&key_of(&row, &[0]).unwrap()).is_some(), "a deleted row is there");
        }
        for row in rows.updates {
            assert!(table.insert(key_of(&row, &[0]).unwrap(), row).is_some(), "an updated row is there");
        }
        for row in rows.inserts {
            assert!(table.insert(key_of(&row, &[0]).unwrap(), row).is_none(), "an inserted row is new");
        }
    }

    proptest! {
        #[test]
        fn the_net_effect_is_that_of_the_changes_one_by_one(changes in changes(), folds in any::<bool>()) {
            let (mut source, mut target) = (Table::new(), Table::new());
            let mut pending = Pending::default();
            for (number, change) in changes.into_iter().enumerate() {
                let new = |key| (row(key, number as u32), key_of(&row(key, 0), &[0]).unwrap());
                let kind = match change {
                    Change::Insert(_) => Kind::Insert,
                    Change::Delete(_) => Kind::Delete,
                    Change::Update(_) | Change::Send => Kind::Update,
                };
                let row = match change {
                    Change::Insert(key) if !source.contains_key(&new(key).1) => {
                        let (row, key) = new(key);
                        source.insert(key, row.clone());
                        row
                    }
                    Change::Update(key) if folds && source.contains_key(&new(key).1) => {
                        let (row, key) = new(key);
                        source.insert(key, row.clone());
                        row
                    }
                    Change::Delete(key) if source.contains_key(&new(key).1) => {
                        let (row, key) = new(key);
                        source.remove(&key);
                        row
                    }
                    Change::Send => {
                        send(&mut pending, &mut target);
                        continue;
                    }
                    _ => continue,
                };
                let added = match folds {
                    true => pending.add_to_net_effect(kind, row, &[0]),
                    false => pending.add_to_run(kind, row),
                };
                if let Err(row) = added {
                    send(&mut pending, &mut target);
                    pending = Pending::of(kind, row);
                }
            }
            send(&mut pending, &mut target);
            prop_assert_eq!(source, target);
        }
    }

    #[test]
    fn a_key_of_several_columns_is_not_mistaken_for_another() {
        let (a, b) = (row(1, 11), row(11, 1));
        assert_ne!(key_of(&a, &[0, 1]), key_of(&b, &[0, 1]));
        assert_eq!(key_of(&a, &[0, 1]), key_of(&row(1, 11), &[0, 1]));
    }

    #[test]
    fn many_updates_of_one_row_are_one() {
        let mut pending = Pending::default();
        for value in 0..100 {
            pending.add_to_net_effect(Kind::Update, row(1, value), &[0]).unwrap();
        }
        assert_eq!(pending.into_rows().updates, [row(1, 99)]);
    }
}
