//! Gathers changes of a relation and sends them together, where that is the same as sending them one by one.
//!
//! In: changes of relations whose [`Gather`] allows it. Out: COPY for inserts, one UPDATE or DELETE that is joined with the rows' values for
//! many, the usual statements for few. What may fail: as for any change; a statement that does not reach all its rows fails
//! the group, and its source transactions then come one by one, so that the row that is missing is named with its own LSN.
//!
//! What is gathered is sent before the group's commit, before a change of the same relation that can't be gathered, and before anything that
//! could tell in which order changes of different relations came (a TRUNCATE, a table with triggers).

use pgstream_proto::Format;
use pgstream_proto::pgoutput::{OldTuple, Tuple, Value};

use super::apply::{Applier, Step};
use super::batch::{COPY_ROWS, Group, MANY_ROWS, MOST_GATHERED_BYTES, MOST_GATHERED_ROWS, Run};
use super::failure::Halt;
use super::many::Many;
use super::pending::{Kind, Pending, Rows, key_of};
use super::relation::Gather;
use super::statement::{Reach, Shape};
use crate::error::Result;

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
        let reach = self.reach_of_many();
        if deletes.len() >= MANY_ROWS {
            self.many(oid, Step::Delete, Many::delete(self.mapped(oid)?, &deletes, reach))?;
        } else {
            for row in &deletes {
                self.delete_at_once(oid, row)?;
                self.expected_together();
            }
        }
        if updates.len() >= MANY_ROWS {
            self.many(oid, Step::Update, Many::update(self.mapped(oid)?, &updates, reach))?;
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

    /// Who looks whether a statement reaches its many rows: in a large transaction to wait for the answers is nothing beside the rest.
    fn reach_of_many(&self) -> Reach {
        match self.group.as_ref().is_some_and(Group::is_large) {
            true => Reach::Told,
            false => Reach::Itself,
        }
    }

    /// Queues a statement for many rows. It is planned anew each time: that costs less than a few dozen rows, and the table may have grown since it was
    /// planned last.
    fn many(&mut self, oid: u32, step: Step, many: Many) -> Result<()> {
        if many.by_range {
            self.step("by range", Step::Setting)?;
        }
        self.pipeline.prepare("", &many.sql, &many.types())?;
        self.pipeline.run("", &[Format::Binary], many.parameters())?;
        self.expect_many(step, oid, many.rows, many.reach);
        if many.by_range {
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
