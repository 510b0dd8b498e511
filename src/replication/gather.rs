//! Gathers changes of a relation and sends them together, where that is the same as sending them one by one.
//!
//! In: changes of relations whose [`Gather`] allows it. Out: COPY for inserts, one UPDATE or DELETE that is joined with the rows' values for
//! many, the usual statements for few. What may fail: as for any change; a statement that does not reach all its rows fails
//! the group, and its source transactions then come one by one, so that the row that is missing is named with its own LSN.
//!
//! What is gathered is sent before the group's commit, before a change of the same relation that can't be gathered, and before anything that
//! could tell in which order changes of different relations came (a TRUNCATE, a table with triggers).

use bytes::{BufMut, BytesMut};
use pgstream_proto::pgoutput::{OldTuple, Tuple, Value};
use pgstream_proto::{Format, binary};

use super::apply::{Applier, Step};
use super::batch::{
    COPY_ROWS, Group, MANY_ROWS, MOST_GATHERED_BYTES, MOST_GATHERED_ROWS, RANGE_KEYS, RANGE_ROWS, Run,
};
use super::change::text_of;
use super::failure::Halt;
use super::pending::{Kind, Pending, Rows, key_of};
use super::relation::{Gather, Mapped};
use super::statement::{self, Many, Reach, Shape};
use crate::error::Result;

/// OIDs of `text` and `text[]`.
const TEXT: u32 = 25;
const TEXT_ARRAY: u32 = 1009;

/// The values of a column, in the binary form of an array.
pub(super) struct Array {
    /// The array's type.
    type_oid: u32,
    bytes: BytesMut,
}

impl Array {
    /// Whether the elements are texts, and not values of the column's type.
    pub(super) fn is_texts(&self) -> bool {
        self.type_oid == TEXT_ARRAY
    }

    /// As a parameter.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Applier {
    /// Whether a change may be gathered: never while source transactions come one by one. `row` has all values that tell its key.
    pub(super) fn may_gather(&self, oid: u32, kind: Kind, row: &Tuple) -> Result<bool> {
        let mapped = self.mapped(oid)?;
        Ok(!self.is_careful()
            && match kind {
                Kind::Insert => mapped.gather != Gather::Nothing,
                Kind::Update => {
                    mapped.gather == Gather::NetEffects
                        && row.values().all(|value| value != Value::UnchangedToast)
                        && key_of(row, mapped.key_columns()).is_some()
                }
                Kind::Delete => {
                    matches!(mapped.gather, Gather::Runs | Gather::NetEffects)
                        && key_of(row, mapped.key_columns()).is_some()
                }
            })
    }

    /// Whether an update leaves the row's key as it was.
    pub(super) fn keeps_key(&self, oid: u32, old: Option<&OldTuple>, new: &Tuple) -> Result<bool> {
        let Some(OldTuple::Key(old) | OldTuple::Full(old)) = old else { return Ok(true) };
        Ok(self.mapped(oid)?.key_columns().iter().all(|&i| old.get(i) == new.get(i)))
    }

    /// Gathers a change that [may be](Self::may_gather). What it doesn't go together with is sent before.
    pub(super) fn gather(&mut self, oid: u32, kind: Kind, row: Tuple) -> Result<()> {
        if self.run.as_ref().is_some_and(|run| run.relation == oid) {
            self.end_run()?;
        }
        self.gathered_bytes += row.message_len();
        let mapped = self.known.get(&oid).and_then(|known| known.mapped.as_ref());
        let added = match (mapped, self.pending.get_mut(&oid)) {
            (Some(mapped), Some(pending)) if mapped.gather == Gather::NetEffects => {
                pending.add_to_net_effect(kind, row, mapped.key_columns())
            }
            (Some(_), Some(pending)) => pending.add_to_run(kind, row),
            _ => Err(row),
        };
        if let Err(row) = added {
            self.send_gathered_of(oid)?;
            self.pending.insert(oid, Pending::of(kind, row));
        }
        if self.gathered_bytes >= MOST_GATHERED_BYTES {
            self.send_gathered()?;
        } else if self.pending.get(&oid).is_some_and(|pending| pending.len() >= MOST_GATHERED_ROWS) {
            self.send_many_of(oid)?;
        }
        Ok(())
    }

    /// Makes way for a change that is applied at once: sends what has to come before it, and opens the transaction.
    pub(super) fn make_way(&mut self, oid: u32) -> Result<(), Halt> {
        if self.mapped(oid)?.gather == Gather::Nothing {
            self.send_gathered()?;
        } else {
            self.send_gathered_of(oid)?;
        }
        self.end_run()?;
        Ok(self.begin()?)
    }

    /// Queues all that is gathered.
    pub(super) fn send_gathered(&mut self) -> Result<()> {
        let mut relations: Vec<u32> = self.pending.keys().copied().collect();
        relations.sort_unstable();
        relations.into_iter().try_for_each(|oid| self.send_gathered_of(oid))?;
        self.gathered_bytes = 0;
        Ok(())
    }

    /// Queues what is gathered of a relation that has many changes one after the other; its inserts begin a COPY that later ones join.
    fn send_many_of(&mut self, oid: u32) -> Result<()> {
        let copy = self.mapped(oid)?.copy;
        match self.pending.remove(&oid) {
            Some(pending) if copy && pending.is_inserts() => {
                self.begin_copy(oid, &pending.into_rows().inserts)
            }
            Some(pending) => self.send_rows(oid, pending.into_rows()),
            None => Ok(()),
        }
    }

    /// Queues what is gathered of a relation.
    pub(super) fn send_gathered_of(&mut self, oid: u32) -> Result<()> {
        match self.pending.remove(&oid) {
            Some(pending) => self.send_rows(oid, pending.into_rows()),
            None => Ok(()),
        }
    }

    fn send_rows(&mut self, oid: u32, rows: Rows) -> Result<()> {
        let Rows { deletes, updates, inserts } = rows;
        self.end_run()?;
        self.begin()?;
        if deletes.len() >= MANY_ROWS {
            self.many(oid, Step::Delete, &deletes)?;
        } else {
            for row in &deletes {
                self.delete_at_once(oid, row)?;
                self.expected_together();
            }
        }
        if updates.len() >= MANY_ROWS {
            self.many(oid, Step::Update, &updates)?;
        } else {
            for row in &updates {
                self.update_at_once(oid, None, row)?;
                self.expected_together();
            }
        }
        if inserts.len() >= COPY_ROWS && self.mapped(oid)?.copy {
            self.begin_copy(oid, &inserts)?;
            return self.end_run();
        }
        inserts.iter().try_for_each(|row| self.insert_row(oid, row))
    }

    /// One statement for many rows; the values of each column come as one array. It is planned anew each time: that costs less than a few dozen rows,
    /// and the table may have grown since it was planned last.
    fn many(&mut self, oid: u32, step: Step, rows: &[Tuple]) -> Result<()> {
        let mapped = self.mapped(oid)?;
        let keys = range_of(mapped, rows);
        let reach = match self.group.as_ref().is_some_and(Group::is_large) {
            true => Reach::Told,
            false => Reach::Itself,
        };
        let columns = match step {
            Step::Delete => mapped.key_columns().to_vec(),
            _ => statement::key_first(mapped),
        };
        let arrays = arrays(mapped, rows, &columns);
        let many = Many { columns: &columns, arrays: &arrays, count: rows.len(), keys, reach };
        let sql = match step {
            Step::Delete => many.delete(mapped),
            _ => many.update(mapped),
        };
        if keys.is_some() {
            self.step("by range", Step::Setting)?;
        }
        let types: Vec<u32> = arrays.iter().map(|array| array.type_oid).collect();
        self.pipeline.prepare("", &sql, &types)?;
        self.pipeline.run("", &[Format::Binary], arrays.iter().map(|array| Some(array.bytes())))?;
        self.expect_many(step, oid, rows.len() as u64, reach);
        if keys.is_some() {
            self.step("by key", Step::Setting)?;
        }
        Ok(())
    }

    fn begin_copy(&mut self, oid: u32, rows: &[Tuple]) -> Result<()> {
        self.end_run()?;
        self.begin()?;
        let name = self.statement(oid, &Shape::Copy)?;
        self.pipeline.run(&name, &[], std::iter::empty())?;
        self.run = Some(Run { copied: true, ..Run::new(oid) });
        rows.iter().try_for_each(|row| self.copy_row(oid, row))
    }
}

/// The first and the last of the rows' keys, where they are integers and rows with most of those between: to read the range once is cheaper than to look for
/// each, then, and there can't be more of it, as a key is one row's.
pub(super) fn range_of(mapped: &Mapped, rows: &[Tuple]) -> Option<(i64, i64)> {
    const INTEGERS: [u32; 3] = [20, 21, 23];
    let &[key] = mapped.key_columns() else { return None };
    let column = mapped.columns.get(key)?.as_ref()?;
    if rows.len() < RANGE_ROWS || !INTEGERS.contains(&column.type_oid) {
        return None;
    }
    let (mut first, mut last) = (i64::MAX, i64::MIN);
    for row in rows {
        let key = std::str::from_utf8(text_of(row.get(key))?).ok()?.parse().ok()?;
        (first, last) = (first.min(key), last.max(key));
    }
    let keys = i128::from(last) - i128::from(first);
    (keys < RANGE_KEYS * rows.len() as i128).then_some((first, last))
}

/// The parameters of a statement for many rows: an array for each of the columns.
pub(super) fn arrays(mapped: &Mapped, rows: &[Tuple], columns: &[usize]) -> Vec<Array> {
    let array_of = |&column: &usize| {
        let type_oid = mapped.columns.get(column).and_then(Option::as_ref).map_or(TEXT, |c| c.type_oid);
        values(rows, column, type_oid).unwrap_or_else(|| texts(rows, column))
    };
    columns.iter().map(array_of).collect()
}

/// Values of a column, in the binary form of its type; `None` where one of them has none that is known.
fn values(rows: &[Tuple], column: usize, type_oid: u32) -> Option<Array> {
    let array = Array { type_oid: binary::array_of(type_oid)?, bytes: header(rows.len(), type_oid) };
    let fill = |mut array: Array, row: &Tuple| {
        let start = array.bytes.len();
        array.bytes.put_i32(-1);
        if let Some(text) = text_of(row.get(column)) {
            binary::append(type_oid, text, &mut array.bytes)?;
            let (len, end) = (array.bytes.len() - start - 4, start + 4);
            array.bytes.get_mut(start..end)?.copy_from_slice(&(len as i32).to_be_bytes());
        }
        Some(array)
    };
    rows.iter().try_fold(array, fill)
}

/// Values of a column as they came.
fn texts(rows: &[Tuple], column: usize) -> Array {
    let mut bytes = header(rows.len(), TEXT);
    for row in rows {
        match text_of(row.get(column)) {
            Some(text) => {
                bytes.put_i32(text.len() as i32);
                bytes.put_slice(text);
            }
            None => bytes.put_i32(-1),
        }
    }
    Array { type_oid: TEXT_ARRAY, bytes }
}

/// The beginning of an array's binary form.
fn header(len: usize, element: u32) -> BytesMut {
    let mut header = BytesMut::with_capacity(20 + len * 16);
    // Dimensions, whether there may be nulls, type; length, lower bound (array_recv in arrayfuncs.c).
    for field in [1, 1, element as i32, len as i32, 1] {
        header.put_i32(field);
    }
    header
}
