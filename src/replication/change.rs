//! Turns changes of rows into statements.
//!
//! In: an Insert, Update, Delete or Truncate. Out: statements queued in the pipeline, each with what its answer is about. What may fail: a
//! change that does not tell what is needed to find its row, or values that are on neither side ([`Halt::Recopy`]).

use std::sync::Arc;

use pgstream_proto::copy::text;
use pgstream_proto::lsn::Lsn;
use pgstream_proto::pgoutput::{Delete, Insert, OldTuple, Truncate, Tuple, Update, Value};

use super::apply::{Applier, OnConflict, Step, mapped, unknown_relation};
use super::batch::{MOST_LOOKED_AT, Run};
use super::failure::{self, Halt};
use super::filter::{PartRule, Verdict, key_is_due};
use super::pending::Kind;
use super::relation::{Gather, Key, Mapped, Plain};
use super::statement::{self, Reach, Row, Shape};
use crate::error::{Error, Result};

/// Prepared statements of one relation that are kept: with a whole row as its identity, each set of nulls has its own.
const MOST_STATEMENTS: usize = 200;

impl Applier {
    fn verdict(&self, relation: u32) -> Verdict<'_> {
        self.filter.verdict(relation, self.transaction.unwrap_or(Lsn::INVALID))
    }

    pub(super) async fn insert(&mut self, change: Insert) -> Result<(), Halt> {
        let due = match self.verdict(change.relation) {
            Verdict::Apply => true,
            Verdict::Skip => false,
            Verdict::ByKey(column, parts) => self.is_due(change.relation, column, parts, &change.new)?,
        };
        if !due {
            return Ok(());
        }
        let oid = change.relation;
        self.ready(oid).await?;
        let copies = self.run.as_ref().is_some_and(|run| run.relation == oid && run.copied);
        if !copies && self.may_gather(oid, Kind::Insert, &change.new)? {
            return Ok(self.gather(oid, Kind::Insert, change.new)?);
        }
        if !copies {
            self.send_gathered()?;
            self.begin()?;
        }
        Ok(self.add_to_run(oid, change.new)?)
    }

    pub(super) async fn update(&mut self, change: Update) -> Result<(), Halt> {
        let (from, to) = match self.verdict(change.relation) {
            Verdict::Apply => (true, true),
            Verdict::Skip => (false, false),
            Verdict::ByKey(column, parts) => {
                let to = self.is_due(change.relation, column, parts, &change.new)?;
                match &change.old {
                    Some(OldTuple::Key(old) | OldTuple::Full(old)) => {
                        (self.is_due(change.relation, column, parts, old)?, to)
                    }
                    None => (to, to),
                }
            }
        };
        match (from, to, change.old) {
            (false, false, _) => Ok(()),
            // The row leaves a range that is copied for one whose copy already has it.
            (true, false, Some(old)) => self.delete_row(change.relation, old).await,
            // The row comes from a range whose copy no longer has it.
            (false, true, old) => self.insert_moved(change.relation, old, change.new).await,
            (_, _, old) => self.update_row(change.relation, old, change.new).await,
        }
    }

    pub(super) async fn delete(&mut self, change: Delete) -> Result<(), Halt> {
        let (OldTuple::Key(row) | OldTuple::Full(row)) = &change.old;
        let due = match self.verdict(change.relation) {
            Verdict::Apply => true,
            Verdict::Skip => false,
            Verdict::ByKey(column, parts) => self.is_due(change.relation, column, parts, row)?,
        };
        if due { self.delete_row(change.relation, change.old).await } else { Ok(()) }
    }

    /// Whether the row's key falls into a range that was copied before this transaction.
    fn is_due(&self, relation: u32, column: &str, parts: &[PartRule], row: &Tuple) -> Result<bool> {
        let known = self.known.get(&relation).ok_or_else(|| unknown_relation(relation))?;
        let place = known.relation.columns.iter().position(|c| c.name == column);
        let key = place.and_then(|i| row.get(i)).and_then(|value| match value {
            Value::Text(text) => std::str::from_utf8(text).ok()?.parse().ok(),
            _ => None,
        });
        match key {
            Some(key) => Ok(key_is_due(parts, key, self.transaction.unwrap_or(Lsn::INVALID))),
            None => Err(Error::failed(format!(
                "a change of table \"{}.{}\" does not tell column \"{column}\", by which its copy was split",
                known.relation.namespace, known.relation.name
            ))),
        }
    }

    async fn insert_moved(&mut self, oid: u32, old: Option<OldTuple>, new: Tuple) -> Result<(), Halt> {
        self.ready(oid).await?;
        self.make_way(oid)?;
        let old = match &old {
            Some(OldTuple::Full(old)) => Some(old),
            _ => None,
        };
        let value = |i: usize| match (new.get(i), old) {
            (Some(Value::UnchangedToast), Some(old)) => old.get(i),
            (value, _) => value,
        };
        if (0..new.len()).any(|i| value(i) == Some(Value::UnchangedToast)) {
            // What is under way is not to commit while the rows are copied.
            self.settle().await?;
            return Err(Halt::Recopy(oid));
        }
        let name = self.statement(oid, &Shape::Insert)?;
        let mapped = mapped(&self.known, oid).ok_or_else(|| unknown_relation(oid))?;
        let columns = (0..mapped.columns.len()).filter(|&i| mapped.columns[i].is_some());
        let parameters = columns.map(|i| text_of(value(i)));
        self.pipeline.run(&name, &[], parameters)?;
        self.expect(Step::Insert, oid);
        Ok(())
    }

    async fn delete_row(&mut self, oid: u32, old: OldTuple) -> Result<(), Halt> {
        self.ready(oid).await?;
        let (OldTuple::Key(old) | OldTuple::Full(old)) = old;
        if self.may_gather(oid, Kind::Delete, &old)? {
            return Ok(self.gather(oid, Kind::Delete, old)?);
        }
        self.make_way(oid)?;
        Ok(self.delete_at_once(oid, &old)?)
    }

    pub(super) fn delete_at_once(&mut self, oid: u32, old: &Tuple) -> Result<()> {
        let reach = self.reach(oid)?;
        let plain = match self.mapped(oid)?.plain.get(&(Kind::Delete, reach)) {
            Some(plain) => plain.clone(),
            None => {
                let row = self.row(oid, old)?;
                let shape = Shape::Delete { row: row.clone(), reach };
                let plain =
                    Arc::new(Plain { name: self.statement(oid, &shape)?, set: Vec::new(), equal: row.equal });
                if !row.any_one {
                    self.mapped_mut(oid)?.plain.insert((Kind::Delete, reach), plain.clone());
                }
                plain
            }
        };
        self.pipeline.run(&plain.name, &[], plain.equal.iter().map(|&i| text_of(old.get(i))))?;
        self.expect_rows(Step::Delete, oid, reach);
        Ok(())
    }

    async fn update_row(&mut self, oid: u32, old: Option<OldTuple>, new: Tuple) -> Result<(), Halt> {
        self.ready(oid).await?;
        if self.may_gather(oid, Kind::Update, &new)? && self.keeps_key(oid, old.as_ref(), &new)? {
            return Ok(self.gather(oid, Kind::Update, new)?);
        }
        self.make_way(oid)?;
        Ok(self.update_at_once(oid, old, &new)?)
    }

    pub(super) fn update_at_once(&mut self, oid: u32, old: Option<OldTuple>, new: &Tuple) -> Result<()> {
        let old = match old {
            Some(OldTuple::Key(old) | OldTuple::Full(old)) => Some(old),
            None => None,
        };
        let whole = old.is_none() && !new.values().any(|value| value == Value::UnchangedToast);
        let reach = self.reach(oid)?;
        if whole && let Some(plain) = self.mapped(oid)?.plain.get(&(Kind::Update, reach)).cloned() {
            let columns = plain.set.iter().chain(&plain.equal);
            self.pipeline.run(&plain.name, &[], columns.map(|&i| text_of(new.get(i))))?;
            self.expect_rows(Step::Update, oid, reach);
            return Ok(());
        }
        let identity = self.identity_columns(oid, old.as_ref(), new)?;
        let identified = old.as_ref().unwrap_or(new);
        let mut row = self.row(oid, identified)?;
        // Only ALTER TABLE lets such a column change: that it has not, which is nearly certain, is made part of the condition; if it
        // has, no row is found, and the transaction comes again, carefully.
        let (mut altered, mut kept) = (identity.changed, identity.kept);
        if self.is_careful() {
            altered.extend(identity.unsure);
        } else {
            kept.extend(&identity.unsure);
            row.equal.extend(identity.unsure);
        }
        let mapped = self.mapped(oid)?;
        let set: Vec<usize> = (0..new.len())
            .filter(|i| mapped.columns.get(*i).is_some_and(Option::is_some))
            .filter(|i| new.get(*i) != Some(Value::UnchangedToast))
            .filter(|i| !kept.contains(i) && (!row.equal.contains(i) || old.is_some() || altered.contains(i)))
            .collect();
        self.alter_identity(oid, &altered, "BY DEFAULT")?;
        let shape = Shape::Update { set, row, reach };
        let name = self.statement(oid, &shape)?;
        let Shape::Update { set, row, .. } = &shape else { return Ok(()) };
        if whole && !row.any_one && !self.mapped(oid)?.has_identity() {
            let plain = Plain { name: name.clone(), set: set.clone(), equal: row.equal.clone() };
            self.mapped_mut(oid)?.plain.insert((Kind::Update, reach), Arc::new(plain));
        }
        let values = set.iter().map(|&i| text_of(new.get(i)));
        let key = row.equal.iter().map(|&i| {
            let known = old.as_ref().and_then(|old| old.get(i)).filter(|v| *v != Value::Null);
            text_of(known.or_else(|| new.get(i)))
        });
        self.pipeline.run(&name, &[], values.chain(key))?;
        self.expect_rows(Step::Update, oid, reach);
        self.alter_identity(oid, &altered, "ALWAYS")?;
        Ok(())
    }

    /// What is known of `GENERATED ALWAYS` columns in an update.
    fn identity_columns(&self, oid: u32, old: Option<&Tuple>, new: &Tuple) -> Result<Identity> {
        let mapped = self.mapped(oid)?;
        let mut identity = Identity::default();
        for (i, column) in mapped.columns.iter().enumerate() {
            if !column.as_ref().is_some_and(|c| c.identity_always) {
                continue;
            }
            let in_key = matches!(&mapped.key, Key::Columns(key) if key.contains(&i));
            match old.and_then(|old| old.get(i)) {
                None if in_key => identity.kept.push(i),
                None | Some(Value::Null) => identity.unsure.push(i),
                Some(value) if Some(value) == new.get(i) => identity.kept.push(i),
                Some(_) => identity.changed.push(i),
            }
        }
        Ok(identity)
    }

    fn alter_identity(&mut self, oid: u32, columns: &[usize], generated: &str) -> Result<()> {
        if columns.is_empty() {
            return Ok(());
        }
        let mapped = self.mapped(oid)?;
        let actions: Vec<String> = columns
            .iter()
            .filter_map(|&i| mapped.columns.get(i)?.as_ref())
            .map(|c| format!("ALTER COLUMN {} SET GENERATED {generated}", c.name))
            .collect();
        let sql = format!("ALTER TABLE {} {}", mapped.table, actions.join(", "));
        self.pipeline.prepare("", &sql, &[])?;
        self.pipeline.run("", &[], std::iter::empty())?;
        self.expect(Step::Setting, oid);
        Ok(())
    }

    pub(super) async fn truncate(&mut self, change: &Truncate) -> Result<(), Halt> {
        self.send_gathered()?;
        self.end_run()?;
        let mut whole = Vec::new();
        let mut ranges = Vec::new();
        for &oid in &change.relations {
            let due = match self.verdict(oid) {
                Verdict::Apply => None,
                Verdict::Skip => continue,
                Verdict::ByKey(column, parts) => {
                    let commit = self.transaction.unwrap_or(Lsn::INVALID);
                    let due = parts.iter().filter(|part| commit >= part.lsn);
                    Some((column.to_owned(), due.copied().collect::<Vec<_>>()))
                }
            };
            self.ready(oid).await?;
            match due {
                None => whole.push(oid),
                Some((column, parts)) => ranges.push((oid, column, parts)),
            }
        }
        if let Some(name) = self.without_its_tree(&whole)? {
            let error = Error::failed(format!("could not truncate table \"{name}\": it is one partition of a tree"))
                .with_detail("Each server puts rows into these partitions in its own way, so that its rows are in others on the target.")
                .with_hint("Begin anew with --restart.");
            return Err(failure::at(
                error,
                self.transaction.unwrap_or(self.position.end),
                self.careful_until(),
            ));
        }
        let mut statements = Vec::new();
        if !whole.is_empty() {
            let tables = whole.iter().map(|&oid| {
                let mapped = self.mapped(oid)?;
                Ok((mapped.table.as_str(), mapped.partitioned))
            });
            let tables: Vec<_> = tables.collect::<Result<_>>()?;
            statements.push((whole[0], statement::truncate(&tables, change.restart_identity)));
        }
        for (oid, column, parts) in &ranges {
            statements.push((*oid, statement::delete_ranges(&self.mapped(*oid)?.table, column, parts)));
        }
        if !statements.is_empty() {
            self.begin()?;
        }
        for (oid, sql) in statements {
            self.pipeline.prepare("", &sql, &[])?;
            self.pipeline.run("", &[], std::iter::empty())?;
            self.expect(Step::Truncate, oid);
        }
        Ok(())
    }

    /// The name of one of these tables whose rows are in other partitions on the target, and that isn't emptied together with all of them.
    fn without_its_tree(&self, emptied: &[u32]) -> Result<Option<String>> {
        let emptied = emptied.iter().map(|&oid| self.mapped(oid)).collect::<Result<Vec<_>>>()?;
        let alone = |one: &&&Mapped| {
            let mut tree = emptied.iter().filter(|other| other.table == one.table);
            one.one_of.is_some_and(|leaves| tree.clone().count() < leaves)
                && tree.all(|other| other.one_of.is_some())
        };
        Ok(emptied.iter().find(alone).map(|one| one.name.clone()))
    }

    /// Who looks whether the next update or delete of a relation reaches its row. In a small group the statements do, as to wait for their answers
    /// before the commit would take longer than all else; in a large one that wait is nothing. What comes alone is looked at here, to tell exactly what
    /// is wrong, and so is what triggers and rules may act on.
    fn reach(&self, oid: u32) -> Result<Reach> {
        let sure = self.on_conflict == OnConflict::Stop && !self.is_careful();
        let few = self.group.as_ref().is_some_and(|group| group.looked_at < MOST_LOOKED_AT);
        Ok(match sure && few && self.mapped(oid)?.gather != Gather::Nothing {
            true => Reach::Itself,
            false => Reach::Told,
        })
    }

    /// How a row with these values is found.
    fn row(&self, oid: u32, values: &Tuple) -> Result<Row> {
        let mapped = self.mapped(oid)?;
        Ok(match &mapped.key {
            Key::Columns(key) => Row { equal: key.clone(), null: Vec::new(), any_one: false },
            Key::Row => {
                let columns = (0..mapped.columns.len()).filter(|&i| mapped.columns[i].is_some());
                let (null, equal) = columns.partition(|&i| values.get(i) == Some(Value::Null));
                Row { equal, null, any_one: true }
            }
        })
    }

    /// The name of the prepared statement with this shape.
    pub(super) fn statement(&mut self, oid: u32, shape: &Shape) -> Result<Arc<str>> {
        let known = self.known.get_mut(&oid).and_then(|known| known.mapped.as_mut());
        let mapped = known.ok_or_else(|| unknown_relation(oid))?;
        if let Some(name) = mapped.prepared.get(shape) {
            return Ok(name.clone());
        }
        if mapped.prepared.len() >= MOST_STATEMENTS {
            mapped.plain.clear();
            for (_, name) in mapped.prepared.drain() {
                self.pipeline.forget(&name)?;
            }
        }
        self.statements += 1;
        let name: Arc<str> = format!("s{}", self.statements).into();
        let (sql, types) = shape.sql(mapped);
        self.pipeline.prepare(&name, &sql, &types)?;
        mapped.prepared.insert(shape.clone(), name.clone());
        Ok(name)
    }

    /// Adds a row to the inserts that follow each other, which from some length on go by COPY.
    fn add_to_run(&mut self, oid: u32, row: Tuple) -> Result<()> {
        if self.run.as_ref().is_some_and(|run| run.relation != oid) {
            self.end_run()?;
        }
        if self.is_careful() || !self.mapped(oid)?.copy {
            return self.insert_row(oid, &row);
        }
        let run = self.run.get_or_insert_with(|| Run::new(oid));
        if run.copied {
            return self.copy_row(oid, &row);
        }
        run.bytes += row.values().map(|v| text_of(Some(v)).map_or(0, <[u8]>::len)).sum::<usize>();
        run.rows.push(row);
        if !run.is_worth_a_copy() {
            return Ok(());
        }
        let rows = std::mem::take(&mut run.rows);
        run.copied = true;
        let name = self.statement(oid, &Shape::Copy)?;
        self.pipeline.run(&name, &[], std::iter::empty())?;
        rows.iter().try_for_each(|row| self.copy_row(oid, row))
    }

    /// Ends the inserts that follow each other.
    pub(super) fn end_run(&mut self) -> Result<()> {
        let Some(run) = self.run.take() else { return Ok(()) };
        if run.copied {
            self.pipeline.copy_done()?;
            self.expect(Step::Copy, run.relation);
        }
        run.rows.iter().try_for_each(|row| self.insert_row(run.relation, row))
    }

    pub(super) fn insert_row(&mut self, oid: u32, row: &Tuple) -> Result<()> {
        let name = self.statement(oid, &Shape::Insert)?;
        let mapped = mapped(&self.known, oid).ok_or_else(|| unknown_relation(oid))?;
        self.pipeline.run(&name, &[], written(mapped, row))?;
        self.expect(Step::Insert, oid);
        Ok(())
    }

    pub(super) fn copy_row(&mut self, oid: u32, row: &Tuple) -> Result<()> {
        let mapped = mapped(&self.known, oid).ok_or_else(|| unknown_relation(oid))?;
        self.pipeline.copy_data(|out| {
            text::row(written(mapped, row), out);
            Ok(())
        })
    }
}

/// `GENERATED ALWAYS` columns of an update.
#[derive(Debug, Default)]
struct Identity {
    /// Its value changed.
    changed: Vec<usize>,
    /// Its old value isn't told.
    unsure: Vec<usize>,
    /// It isn't to be set.
    kept: Vec<usize>,
}

/// A value's text. The stream was not asked for binary values, and an unchanged TOAST value is left out before.
pub(super) fn text_of(value: Option<Value<'_>>) -> Option<&[u8]> {
    match value {
        Some(Value::Text(text) | Value::Binary(text)) => Some(text),
        Some(Value::Null | Value::UnchangedToast) | None => None,
    }
}

/// The values of the columns that the target doesn't generate itself.
pub(super) fn written<'a>(mapped: &'a Mapped, row: &'a Tuple) -> impl Iterator<Item = Option<&'a [u8]>> {
    row.values()
        .zip(&mapped.columns)
        .filter(|(_, column)| column.is_some())
        .map(|(value, _)| text_of(Some(value)))
}
