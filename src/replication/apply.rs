//! Applies transactions to the target: prepared statements, pipelined, one round trip for each group of source transactions.
//!
//! In: [`Event`]s in commit order. Out: rows on the target, and the checkpoint that commits with them. What may fail: a relation that no longer fits
//! ([`Mapped`]), a statement (a constraint, a value), or an UPDATE or DELETE that finds no row. Any failure ends the session, and with it
//! the group that was under way: whoever drives the applier starts again from the checkpoint.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgstream_proto::copy::text;
use pgstream_proto::lsn::Lsn;
use pgstream_proto::pgoutput::{Delete, Insert, OldTuple, Relation, Truncate, Tuple, Update, Value};
use tokio::sync::watch;

use super::assemble::Event;
use super::batch::{Group, Position, Run};
use super::failure::{self, Halt};
use super::filter::{Filter, PartRule, Verdict, key_is_due};
use super::relation::{Key, Mapped};
use super::statement::{self, Row, Shape};
use super::target::TriggerRole;
use crate::catalog::target_table::read_target_table;
use crate::error::{Error, Result};
use crate::progress::StreamProgress;
use crate::state::checkpoint;
use crate::wire::{Answer, Connection, Pipeline};

/// What to do about an UPDATE or DELETE whose row is not on the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnConflict {
    /// Stop and report.
    #[default]
    Stop,
    /// Count, log, and go on.
    Skip,
}

/// Bytes that are queued before they are sent.
const SEND_SIZE: usize = 64 << 10;

/// How long a commit may stay undurable while others follow it.
const DURABLE_WITHIN: Duration = Duration::from_millis(500);

/// Prepared statements of one relation that are kept: with a whole row as its identity, each set of nulls has its own.
const MOST_STATEMENTS: usize = 200;

/// What the next answer of the target is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    pub(super) step: Step,
    /// The relation's OID on the source.
    pub(super) relation: u32,
    /// The commit LSN of the source transaction.
    pub(super) commit: Lsn,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Setting,
    Insert,
    Copy,
    Update,
    Delete,
    Truncate,
    Checkpoint,
    Commit,
}

/// A relation as the stream last described it.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) relation: Relation,
    /// Looked up on the target when the first change comes.
    pub(super) mapped: Option<Mapped>,
}

/// Applies the events of one stream.
#[derive(Debug)]
pub(super) struct Applier {
    pub(super) pipeline: Pipeline,
    /// A second session, which reads catalogs while the first is in the middle of a group.
    lookup: Connection,
    role: TriggerRole,
    on_conflict: OnConflict,
    filter: Filter,
    progress: Arc<StreamProgress>,
    durable: watch::Sender<Lsn>,
    pub(super) known: HashMap<u32, Known>,
    statements: u32,
    expected: VecDeque<Expected>,
    run: Option<Run>,
    group: Option<Group>,
    /// The commit LSN of the source transaction that is being applied.
    transaction: Option<Lsn>,
    /// Source transactions up to this commit LSN are committed one by one, so that a failure is that of one change.
    careful_until: Lsn,
    /// Up to where the stream has been applied or had nothing to apply; committed with the next group.
    position: Position,
    /// What the checkpoint on the target says.
    checkpoint: Lsn,
    made_durable: Instant,
}

/// What an applier is made of.
pub(super) struct Parts {
    pub(super) target: Connection,
    pub(super) lookup: Connection,
    pub(super) role: TriggerRole,
    pub(super) on_conflict: OnConflict,
    pub(super) filter: Filter,
    pub(super) progress: Arc<StreamProgress>,
    pub(super) durable: watch::Sender<Lsn>,
    pub(super) checkpoint: Lsn,
    pub(super) careful_until: Lsn,
}

impl Applier {
    /// Over fresh sessions of the target, whose checkpoint is durable.
    pub(super) fn new(parts: Parts) -> Result<Applier> {
        let mut pipeline = Pipeline::new(parts.target);
        for (name, sql) in [
            ("begin", "BEGIN"),
            ("commit", "COMMIT"),
            ("wait", "SET LOCAL synchronous_commit = on"),
            ("defer", "SET CONSTRAINTS ALL DEFERRED"),
        ] {
            pipeline.prepare(name, sql, &[])?;
        }
        pipeline.prepare("checkpoint", checkpoint::ADVANCE, checkpoint::ADVANCE_TYPES)?;
        Ok(Applier {
            pipeline,
            lookup: parts.lookup,
            role: parts.role,
            on_conflict: parts.on_conflict,
            filter: parts.filter,
            progress: parts.progress,
            durable: parts.durable,
            known: HashMap::new(),
            statements: 0,
            expected: VecDeque::new(),
            run: None,
            group: None,
            transaction: None,
            careful_until: parts.careful_until,
            position: Position { end: parts.checkpoint, committed_at: None },
            checkpoint: parts.checkpoint,
            made_durable: Instant::now(),
        })
    }

    /// The checkpoint on the target.
    pub(super) fn checkpoint(&self) -> Lsn {
        self.checkpoint
    }

    /// Whether everything up to the checkpoint survives a crash of the target.
    pub(super) fn is_durable(&self) -> bool {
        *self.durable.borrow() >= self.checkpoint
    }

    /// Whether the source transaction that is being applied comes alone.
    fn is_careful(&self) -> bool {
        self.transaction.is_some_and(|lsn| lsn <= self.careful_until)
    }

    /// Up to which commit LSN source transactions come alone.
    pub(super) fn careful_until(&self) -> Lsn {
        self.careful_until
    }

    /// Up to where the stream is applied, or would be if what is under way were committed.
    pub(super) fn position(&self) -> Lsn {
        self.position.end
    }

    /// Whether a source transaction is half applied.
    pub(super) fn is_in_transaction(&self) -> bool {
        self.transaction.is_some()
    }

    /// Whether changes are applied that are not committed.
    pub(super) fn has_group(&self) -> bool {
        self.group.is_some()
    }

    /// Takes the next event, whose message had `size` bytes.
    pub(super) async fn apply(&mut self, event: Event, size: usize) -> Result<(), Halt> {
        match event {
            Event::Begin(begin) => self.transaction = Some(begin.final_lsn),
            Event::Relation(relation) => self.learn(relation)?,
            Event::Insert(insert) => self.insert(insert).await?,
            Event::Update(update) => self.update(update).await?,
            Event::Delete(delete) => self.delete(delete).await?,
            Event::Truncate(truncate) => self.truncate(&truncate).await?,
            Event::Commit(commit) => {
                let careful = self.transaction.take().is_some_and(|lsn| lsn <= self.careful_until);
                self.position = Position { end: commit.end_lsn, committed_at: Some(commit.committed_at) };
                if let Some(group) = &mut self.group {
                    group.transactions += 1;
                    if careful || group.is_full(Instant::now()) {
                        self.commit(false).await?;
                    }
                }
                return Ok(());
            }
            Event::Idle(lsn) => self.position.end = self.position.end.max(lsn),
        }
        if let Some(group) = &mut self.group {
            group.bytes += size;
        }
        if self.pipeline.queued() >= SEND_SIZE { self.send().await } else { Ok(()) }
    }

    /// Sends what is queued, and looks at the answers that have come.
    pub(super) async fn send(&mut self) -> Result<(), Halt> {
        self.pipeline.send().await?;
        while let Some(answer) = self.pipeline.arrived() {
            self.check(answer)?;
        }
        Ok(())
    }

    /// Commits what is applied with the position it brings the target to. `wait` makes it durable at once, which a commit also is
    /// when the last durable one is some time ago.
    pub(super) async fn commit(&mut self, wait: bool) -> Result<(), Halt> {
        self.end_run()?;
        self.begin()?;
        self.confirm_rows().await?;
        let wait = wait || self.made_durable.elapsed() >= DURABLE_WITHIN;
        if wait {
            self.step("wait", Step::Setting)?;
        }
        let Position { end, committed_at } = self.position;
        let (from, to) = (self.checkpoint.to_string(), end.to_string());
        let committed_at = committed_at.map(|at| at.0.to_string());
        let parameters =
            [Some(from.as_bytes()), Some(to.as_bytes()), committed_at.as_deref().map(str::as_bytes)];
        self.pipeline.run("checkpoint", &[], parameters)?;
        self.expect(Step::Checkpoint, 0);
        self.step("commit", Step::Commit)?;
        self.pipeline.sync();
        self.pipeline.send().await?;
        loop {
            match self.pipeline.answer().await? {
                Answer::Ready(_) => break,
                answer => self.check(answer)?,
            }
        }
        self.checkpoint = end;
        self.progress.set_applied(end, self.position.committed_at);
        if let Some(group) = self.group.take() {
            self.progress.add_applied(group.transactions, group.changes);
        }
        if wait {
            self.made_durable = Instant::now();
            self.progress.set_durable(end);
            self.durable.send_replace(end);
        }
        Ok(())
    }

    /// Waits until every UPDATE and DELETE of the group has told that it found its row: finding none is no error to the server, which would
    /// commit all the same.
    async fn confirm_rows(&mut self) -> Result<(), Halt> {
        let open = |e: &Expected| matches!(e.step, Step::Update | Step::Delete);
        if !self.expected.iter().any(open) {
            return Ok(());
        }
        self.pipeline.flush();
        self.pipeline.send().await?;
        while !self.expected.is_empty() {
            let answer = self.pipeline.answer().await?;
            self.check(answer)?;
        }
        Ok(())
    }

    /// Opens the target's transaction, unless it is open.
    fn begin(&mut self) -> Result<()> {
        if self.group.is_none() {
            self.step("begin", Step::Setting)?;
            if self.role == TriggerRole::Origin {
                self.step("defer", Step::Setting)?;
            }
            self.group = Some(Group::new(Instant::now()));
        }
        Ok(())
    }

    fn step(&mut self, statement: &str, step: Step) -> Result<()> {
        self.pipeline.run(statement, &[], std::iter::empty())?;
        self.expect(step, 0);
        Ok(())
    }

    fn expect(&mut self, step: Step, relation: u32) {
        let commit = self.transaction.unwrap_or(self.position.end);
        self.expected.push_back(Expected { step, relation, commit });
    }

    /// A relation is described anew.
    fn learn(&mut self, relation: Relation) -> Result<()> {
        let oid = relation.oid;
        if self.known.get(&oid).is_some_and(|known| known.relation == relation) {
            return Ok(());
        }
        if self.run.as_ref().is_some_and(|run| run.relation == oid) {
            self.end_run()?;
        }
        if let Some(Known { mapped: Some(mapped), .. }) = self.known.remove(&oid) {
            for name in mapped.prepared.values() {
                self.pipeline.forget(name)?;
            }
        }
        self.known.insert(oid, Known { relation, mapped: None });
        Ok(())
    }

    /// Sees to it that the relation is mapped, and that a transaction is open.
    async fn ready(&mut self, oid: u32) -> Result<(), Halt> {
        let known = self.known.get_mut(&oid).ok_or_else(|| unknown_relation(oid))?;
        if known.mapped.is_none() {
            let Relation { namespace, name, .. } = &known.relation;
            let table = read_target_table(&mut self.lookup, namespace, name).await?;
            let mapped = Mapped::new(&known.relation, table);
            let commit = self.transaction.unwrap_or(self.position.end);
            known.mapped = Some(mapped.map_err(|error| failure::at(error, commit, self.careful_until))?);
        }
        self.begin()?;
        if let Some(group) = &mut self.group {
            group.changes += 1;
        }
        Ok(())
    }

    fn verdict(&self, relation: u32) -> Verdict<'_> {
        self.filter.verdict(relation, self.transaction.unwrap_or(Lsn::INVALID))
    }

    async fn insert(&mut self, change: Insert) -> Result<(), Halt> {
        let due = match self.verdict(change.relation) {
            Verdict::Apply => true,
            Verdict::Skip => false,
            Verdict::ByKey(column, parts) => self.is_due(change.relation, column, parts, &change.new)?,
        };
        if !due {
            return Ok(());
        }
        self.ready(change.relation).await?;
        self.add_to_run(change.relation, change.new)?;
        Ok(())
    }

    async fn update(&mut self, change: Update) -> Result<(), Halt> {
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

    async fn delete(&mut self, change: Delete) -> Result<(), Halt> {
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
        self.end_run()?;
        let old = match &old {
            Some(OldTuple::Full(old)) => Some(old),
            _ => None,
        };
        let value = |i: usize| match (new.get(i), old) {
            (Some(Value::UnchangedToast), Some(old)) => old.get(i),
            (value, _) => value,
        };
        if (0..new.len()).any(|i| value(i) == Some(Value::UnchangedToast)) {
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
        self.end_run()?;
        let (OldTuple::Key(old) | OldTuple::Full(old)) = old;
        let row = self.row(oid, &old)?;
        let shape = Shape::Delete { row };
        let name = self.statement(oid, &shape)?;
        let Shape::Delete { row } = &shape else { return Ok(()) };
        self.pipeline.run(&name, &[], row.equal.iter().map(|&i| text_of(old.get(i))))?;
        self.expect(Step::Delete, oid);
        Ok(())
    }

    async fn update_row(&mut self, oid: u32, old: Option<OldTuple>, new: Tuple) -> Result<(), Halt> {
        self.ready(oid).await?;
        self.end_run()?;
        let old = match old {
            Some(OldTuple::Key(old) | OldTuple::Full(old)) => Some(old),
            None => None,
        };
        let identity = self.identity_columns(oid, old.as_ref(), &new)?;
        let identified = old.as_ref().unwrap_or(&new);
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
        let shape = Shape::Update { set, row };
        let name = self.statement(oid, &shape)?;
        let Shape::Update { set, row } = &shape else { return Ok(()) };
        let values = set.iter().map(|&i| text_of(new.get(i)));
        let key = row.equal.iter().map(|&i| {
            let known = old.as_ref().and_then(|old| old.get(i)).filter(|v| *v != Value::Null);
            text_of(known.or_else(|| new.get(i)))
        });
        self.pipeline.run(&name, &[], values.chain(key))?;
        self.expect(Step::Update, oid);
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

    async fn truncate(&mut self, change: &Truncate) -> Result<(), Halt> {
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
        for (oid, sql) in statements {
            self.pipeline.prepare("", &sql, &[])?;
            self.pipeline.run("", &[], std::iter::empty())?;
            self.expect(Step::Truncate, oid);
        }
        Ok(())
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

    pub(super) fn mapped(&self, oid: u32) -> Result<&Mapped> {
        mapped(&self.known, oid).ok_or_else(|| unknown_relation(oid))
    }

    /// The name of the prepared statement with this shape.
    fn statement(&mut self, oid: u32, shape: &Shape) -> Result<Arc<str>> {
        let known = self.known.get_mut(&oid).and_then(|known| known.mapped.as_mut());
        let mapped = known.ok_or_else(|| unknown_relation(oid))?;
        if let Some(name) = mapped.prepared.get(shape) {
            return Ok(name.clone());
        }
        if mapped.prepared.len() >= MOST_STATEMENTS {
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
        if let Some(copied) = &mut run.copied {
            *copied += 1;
            return self.copy_row(oid, &row);
        }
        run.bytes += row.values().map(|v| text_of(Some(v)).map_or(0, <[u8]>::len)).sum::<usize>();
        run.rows.push(row);
        if !run.is_worth_a_copy() {
            return Ok(());
        }
        let rows = std::mem::take(&mut run.rows);
        run.copied = Some(rows.len() as u64);
        let name = self.statement(oid, &Shape::Copy)?;
        self.pipeline.run(&name, &[], std::iter::empty())?;
        rows.iter().try_for_each(|row| self.copy_row(oid, row))
    }

    /// Ends the inserts that follow each other.
    fn end_run(&mut self) -> Result<()> {
        let Some(run) = self.run.take() else { return Ok(()) };
        if run.copied.is_some() {
            self.pipeline.copy_done()?;
            self.expect(Step::Copy, run.relation);
        }
        run.rows.iter().try_for_each(|row| self.insert_row(run.relation, row))
    }

    fn insert_row(&mut self, oid: u32, row: &Tuple) -> Result<()> {
        let name = self.statement(oid, &Shape::Insert)?;
        let mapped = mapped(&self.known, oid).ok_or_else(|| unknown_relation(oid))?;
        self.pipeline.run(&name, &[], written(mapped, row))?;
        self.expect(Step::Insert, oid);
        Ok(())
    }

    fn copy_row(&mut self, oid: u32, row: &Tuple) -> Result<()> {
        let mapped = mapped(&self.known, oid).ok_or_else(|| unknown_relation(oid))?;
        self.pipeline.copy_data(|out| {
            text::row(written(mapped, row), out);
            Ok(())
        })
    }

    /// Looks at an answer of the target.
    fn check(&mut self, answer: Answer) -> Result<(), Halt> {
        let Some(expected) = self.expected.pop_front() else {
            return Err(Error::connection("unexpected answer from the target").into());
        };
        let rows = match answer {
            Answer::Error(notice) => return Err(self.failed(expected, notice)),
            Answer::Ready(_) => {
                return Err(Error::connection("unexpected ReadyForQuery message from the target").into());
            }
            Answer::Complete(tag) => match expected.step {
                Step::Update | Step::Delete => tag.rows(),
                Step::Commit if tag.as_str() != "COMMIT" => {
                    return Err(Error::failed("the target rolled back instead of committing").into());
                }
                _ => return Ok(()),
            },
        };
        match (rows, self.on_conflict) {
            (Some(1), _) => Ok(()),
            (Some(0), OnConflict::Skip) => {
                self.progress.add_conflicts(1);
                tracing::warn!(lsn = %expected.commit, "{}", self.no_row(expected));
                Ok(())
            }
            (Some(0) | None, _) => Err(self.halt(expected, Error::failed(self.no_row(expected)).with_hint(
                "Compare the two tables with pgstream verify; to go on without such changes, add --on-conflict skip.",
            ))),
            (Some(rows), _) => Err(self.halt(expected, Error::failed(format!(
                "one change of the source reached {rows} rows of the target"
            )).with_hint("The target's table needs the unique index that identifies rows on the source."))),
        }
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

fn mapped(known: &HashMap<u32, Known>, oid: u32) -> Option<&Mapped> {
    known.get(&oid).and_then(|known| known.mapped.as_ref())
}

fn unknown_relation(oid: u32) -> Error {
    Error::connection(format!(
        "protocol violation by the source: a change of relation {oid}, which was not described"
    ))
}

/// A value's text. The stream was not asked for binary values, and an unchanged TOAST value is left out before.
fn text_of(value: Option<Value<'_>>) -> Option<&[u8]> {
    match value {
        Some(Value::Text(text) | Value::Binary(text)) => Some(text),
        Some(Value::Null | Value::UnchangedToast) | None => None,
    }
}

/// The values of the columns that the target doesn't generate itself.
fn written<'a>(mapped: &'a Mapped, row: &'a Tuple) -> impl Iterator<Item = Option<&'a [u8]>> {
    row.values()
        .zip(&mapped.columns)
        .filter(|(_, column)| column.is_some())
        .map(|(value, _)| text_of(Some(value)))
}
