//! Applies transactions to the target: prepared statements, pipelined, and no wait from one group of source transactions to the next.
//!
//! In: [`Event`]s in commit order. Out: rows on the target, and the checkpoint that commits with them. What may fail: a relation that no longer fits
//! ([`Mapped`]), a statement (a constraint, a value), or an UPDATE or DELETE that finds no row. Any failure ends the session, and with it
//! the group that was under way: whoever drives the applier starts again from the checkpoint.
//!
//! A commit is [under way](Commit) until the target has answered; the next groups are sent behind it meanwhile. What follows a group that fails can't be
//! applied: its statements find an aborted transaction, or, where it was the commit that failed, a checkpoint that is not where they expect it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use pgstream_proto::Format;
use pgstream_proto::lsn::Lsn;
use pgstream_proto::notice::Notice;
use pgstream_proto::pgoutput::Relation;
use pgstream_proto::timestamp::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

use super::ahead::Ahead;
use super::assemble::Event;
use super::batch::{FEW_UNDERWAY, Group, MOST_UNDERWAY, PACE, Position, Run};
use super::durable;
use super::failure::{self, Halt};
use super::filter::Filter;
use super::lookup::Lookup;
use super::pending::Pending;
use super::relation::Mapped;
use super::statement::Reach;
use super::stream::BEHIND;
use super::target::{self, TriggerRole};
use crate::config::Side;
use crate::error::{Error, Result};
use crate::fault;
use crate::progress::StreamProgress;
use crate::state::checkpoint::{self, Advance};
use crate::wire::{Answer, Connection, Pipeline, violation};

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

/// How long commits may stay undurable until one waits for the disk: as a rule, they are made durable by another session before.
pub(super) const DURABLE_WITHIN: Duration = Duration::from_secs(2);

/// What the next answer of the target is about.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    pub(super) step: Step,
    /// The relation's OID on the source.
    pub(super) relation: u32,
    /// The commit LSN of the source transaction.
    pub(super) commit: Lsn,
    /// How many rows an UPDATE or DELETE must reach, and whether they were gathered, perhaps from several source transactions.
    pub(super) rows: u64,
    pub(super) gathered: bool,
    /// Who looks at that.
    pub(super) reach: Reach,
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

/// The commit of a group that is sent, and not answered yet.
#[derive(Debug, Clone, Copy)]
struct Commit {
    /// What the checkpoint says then.
    position: Position,
    /// Source transactions, and changes of rows.
    transactions: u64,
    changes: u64,
    /// Whether it waits for the disk.
    durable: bool,
    sent: Instant,
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
    lookup: Lookup,
    role: TriggerRole,
    pub(super) on_conflict: OnConflict,
    pub(super) filter: Filter,
    progress: Arc<StreamProgress>,
    /// What the checkpoint on the target says.
    checkpoint: watch::Sender<Lsn>,
    durable: watch::Sender<Lsn>,
    /// Whether the target has so much to do that nothing more is sent to it for now.
    pub(super) is_busy: watch::Sender<bool>,
    pub(super) known: HashMap<u32, Known>,
    pub(super) statements: u32,
    expected: VecDeque<Expected>,
    /// What each Sync that is not answered yet ends: a commit, or what was undone.
    underway: VecDeque<Option<Commit>>,
    /// What moves the checkpoint on, from what it says when all that is under way has committed.
    advance: Advance,
    /// The shortest time from a commit's sending to its answer, if one was awaited: the way there and back, and little more.
    shortest: Option<Duration>,
    /// What waits for more changes of its kind, by the relation's OID on the source, and its messages' bytes.
    pub(super) pending: HashMap<u32, Pending>,
    pub(super) gathered_bytes: usize,
    pub(super) run: Option<Run>,
    pub(super) group: Option<Group>,
    /// The commit LSN of the source transaction that is being applied.
    pub(super) transaction: Option<Lsn>,
    /// What is applied ahead of its commit, as the only thing of the group.
    pub(super) ahead: Option<Ahead>,
    /// Source transactions up to this commit LSN are committed one by one, so that a failure is that of one change.
    careful_until: Lsn,
    /// Up to where the stream has been applied or had nothing to apply; committed with the next group.
    pub(super) position: Position,
    /// The last position that became durable, and since when no later one has.
    made_durable: (Lsn, Instant),
}

/// What an applier is made of.
pub(super) struct Parts {
    pub(super) target: Connection,
    pub(super) lookup: Lookup,
    pub(super) role: TriggerRole,
    pub(super) on_conflict: OnConflict,
    pub(super) filter: Filter,
    pub(super) progress: Arc<StreamProgress>,
    /// Where the checkpoint is told; it holds what the target has.
    pub(super) checkpoint: watch::Sender<Lsn>,
    pub(super) durable: watch::Sender<Lsn>,
    pub(super) advance: Advance,
    pub(super) careful_until: Lsn,
}

impl Applier {
    /// Over fresh sessions of the target, whose checkpoint is durable.
    pub(super) fn new(parts: Parts) -> Result<Applier> {
        let mut pipeline = Pipeline::new(parts.target);
        for (name, sql) in [
            ("begin", "BEGIN"),
            ("commit", "COMMIT"),
            ("rollback", "ROLLBACK"),
            ("wait", "SET LOCAL synchronous_commit = on"),
            ("defer", "SET CONSTRAINTS ALL DEFERRED"),
            ("by range", target::BY_RANGE),
            ("by key", target::BY_KEY),
        ] {
            pipeline.prepare(name, sql, &[])?;
        }
        pipeline.prepare("checkpoint", checkpoint::ADVANCE, checkpoint::ADVANCE_TYPES)?;
        let checkpoint = *parts.checkpoint.borrow();
        Ok(Applier {
            pipeline,
            lookup: parts.lookup,
            role: parts.role,
            on_conflict: parts.on_conflict,
            filter: parts.filter,
            progress: parts.progress,
            checkpoint: parts.checkpoint,
            durable: parts.durable,
            is_busy: watch::Sender::new(false),
            known: HashMap::new(),
            statements: 0,
            expected: VecDeque::new(),
            underway: VecDeque::new(),
            advance: parts.advance,
            shortest: None,
            pending: HashMap::new(),
            gathered_bytes: 0,
            run: None,
            group: None,
            transaction: None,
            ahead: None,
            careful_until: parts.careful_until,
            position: Position { end: checkpoint, committed_at: None },
            made_durable: (checkpoint, Instant::now()),
        })
    }

    /// The checkpoint on the target, as far as is known.
    pub(super) fn checkpoint(&self) -> Lsn {
        *self.checkpoint.borrow()
    }

    /// Whether everything up to the checkpoint survives a crash of the target.
    pub(super) fn is_durable(&self) -> bool {
        *self.durable.borrow() >= self.checkpoint()
    }

    /// When a commit is to wait for the disk, since nobody else has made the ones before durable.
    pub(super) fn overdue_at(&mut self) -> Instant {
        let durable = *self.durable.borrow();
        if durable > self.made_durable.0 || self.is_durable() {
            self.made_durable = (durable, Instant::now());
        }
        self.made_durable.1 + DURABLE_WITHIN
    }

    /// Whether the source transaction that is being applied comes alone.
    pub(super) fn is_careful(&self) -> bool {
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

    /// Whether what is being applied has not committed on the source, as far as is known.
    pub(super) fn is_ahead(&self) -> bool {
        self.ahead.is_some()
    }

    /// Whether changes are applied that are not committed.
    pub(super) fn has_group(&self) -> bool {
        self.group.is_some()
    }

    /// Whether commits are sent that the target has not answered.
    pub(super) fn is_underway(&self) -> bool {
        !self.underway.is_empty()
    }

    /// Whether commits are under way whose answers nobody waits for.
    pub(super) fn may_rest(&self) -> bool {
        self.is_underway() && !self.has_enough()
    }

    /// When a group may be committed though it is not full: at once while the target has next to nothing to do, or some time after the last one while commits
    /// are on their way; `None` when the target is to answer first.
    pub(super) fn may_commit_at(&self) -> Option<Instant> {
        match self.underway.back() {
            Some(Some(last)) if self.underway.len() >= FEW_UNDERWAY => {
                (!self.has_enough()).then_some(last.sent + PACE)
            }
            _ => Some(Instant::now()),
        }
    }

    /// Whether so many groups are under way that small ones wait for an answer: as many as are sent while one goes there and back, and a few that the target
    /// works on.
    pub(super) fn has_enough(&self) -> bool {
        let on_their_way = self.shortest.unwrap_or_default().as_micros() / PACE.as_micros();
        let most = usize::try_from(on_their_way).map_or(MOST_UNDERWAY, |n| n.saturating_add(FEW_UNDERWAY));
        self.underway.len() >= most.min(MOST_UNDERWAY)
    }

    /// Tells whether the target is busy, where that has changed.
    fn tell_whether_busy(&self) {
        let busy = self.has_enough();
        self.is_busy.send_if_modified(|is_busy| std::mem::replace(is_busy, busy) != busy);
    }

    /// When the group is to be committed at the latest, as soon as no source transaction is half applied.
    pub(super) fn full_at(&self) -> Option<Instant> {
        self.group.as_ref().map(Group::full_at)
    }

    /// Whether what is applied is far behind what the source has sent; `sent_at` is the source's clock, as its commits' times are.
    pub(super) fn is_behind(&self, sent_at: Timestamp) -> bool {
        self.position.committed_at.is_none_or(|at| sent_at.0.saturating_sub(at.0) > BEHIND)
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
            Event::Ahead => self.go_ahead().await?,
            Event::Back => return self.go_back().await,
            Event::Commit(commit) => {
                self.ahead = None;
                let careful = self.transaction.take().is_some_and(|lsn| lsn <= self.careful_until);
                self.position = Position { end: commit.end_lsn, committed_at: Some(commit.committed_at) };
                if let Some(group) = &mut self.group {
                    group.transactions += 1;
                    if careful || group.is_full(Instant::now()) {
                        self.commit(false).await?;
                    }
                }
                return if careful { self.settle().await } else { Ok(()) };
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
        self.look()
    }

    /// Looks at the answers that have come, and is not woken by more of them until one is [awaited](Self::answer).
    pub(super) async fn rest(&mut self) -> Result<(), Halt> {
        self.pipeline.rest().await?;
        self.look()
    }

    fn look(&mut self) -> Result<(), Halt> {
        while let Some(answer) = self.pipeline.arrived() {
            self.check(answer, false)?;
        }
        Ok(())
    }

    /// Sends the commit of what is applied with the position it brings the target to; waits only where too many are under way before it. `wait` makes it
    /// durable at once, which a commit also is when none has become durable for some time.
    pub(super) async fn commit(&mut self, wait: bool) -> Result<(), Halt> {
        fault::before("batch commit")?;
        self.send_gathered()?;
        self.end_run()?;
        self.begin()?;
        self.confirm_rows().await?;
        let durable = wait || self.overdue_at() <= Instant::now();
        if durable {
            self.step("wait", Step::Setting)?;
        }
        let position = self.position;
        let step = self.advance.step(position.end, position.committed_at);
        let parameters = step.iter().map(|parameter| parameter.as_ref().map(|bytes| &bytes[..]));
        self.pipeline.run("checkpoint", &[Format::Binary], parameters)?;
        self.expect(Step::Checkpoint, 0);
        self.step("commit", Step::Commit)?;
        self.pipeline.sync();
        let (transactions, changes) = self.group.take().map_or((0, 0), |g| (g.transactions, g.changes));
        let sent = Instant::now();
        self.underway.push_back(Some(Commit { position, transactions, changes, durable, sent }));
        self.tell_whether_busy();
        self.send().await?;
        while self.underway.len() > MOST_UNDERWAY {
            self.answer().await?;
        }
        Ok(())
    }

    /// Waits until the target has answered every commit.
    pub(super) async fn settle(&mut self) -> Result<(), Halt> {
        self.send().await?;
        while self.is_underway() {
            self.answer().await?;
        }
        Ok(())
    }

    /// Waits for an answer of the target. Cancel safe.
    pub(super) async fn answer(&mut self) -> Result<(), Halt> {
        let answer = self.pipeline.answer().await?;
        self.check(answer, true)
    }

    /// The target has come to the end of what was sent first.
    fn synced(&mut self, awaited: bool) -> Result<()> {
        let Some(ended) = self.underway.pop_front() else {
            return Err(Error::connection("unexpected ReadyForQuery message from the target"));
        };
        self.tell_whether_busy();
        let Some(commit) = ended else { return Ok(()) };
        let Commit { position: Position { end, committed_at }, transactions, changes, durable, sent } =
            commit;
        if awaited {
            let took = sent.elapsed();
            self.shortest = Some(self.shortest.map_or(took, |shortest| shortest.min(took)));
        }
        self.checkpoint.send_replace(end);
        self.progress.set_applied(end, committed_at);
        if transactions > 0 {
            self.progress.add_applied(transactions, changes);
        }
        if durable {
            durable::publish(&self.durable, end);
        }
        fault::after("batch commit")
    }

    /// Waits until every UPDATE and DELETE of the group that doesn't look itself whether it finds its row has told that it did: finding none is no
    /// error to the server, which would commit all the same.
    async fn confirm_rows(&mut self) -> Result<(), Halt> {
        let open = |e: &Expected| matches!(e.step, Step::Update | Step::Delete) && e.reach == Reach::Told;
        if !self.expected.iter().any(open) {
            return Ok(());
        }
        self.pipeline.flush();
        self.pipeline.send().await?;
        while !self.expected.is_empty() {
            self.answer().await?;
        }
        Ok(())
    }

    /// Undoes what the target's transaction has done so far.
    pub(super) async fn roll_back(&mut self) -> Result<(), Halt> {
        self.step("rollback", Step::Setting)?;
        self.pipeline.sync();
        self.underway.push_back(None);
        self.settle().await
    }

    /// Opens the target's transaction, unless it is open.
    pub(super) fn begin(&mut self) -> Result<()> {
        let group = self.group.get_or_insert_with(|| Group::new(Instant::now()));
        if !std::mem::replace(&mut group.begun, true) {
            self.step("begin", Step::Setting)?;
            if self.role == TriggerRole::Origin {
                self.step("defer", Step::Setting)?;
            }
        }
        Ok(())
    }

    pub(super) fn step(&mut self, statement: &str, step: Step) -> Result<()> {
        self.pipeline.run(statement, &[], std::iter::empty())?;
        self.expect(step, 0);
        Ok(())
    }

    pub(super) fn expect(&mut self, step: Step, relation: u32) {
        let commit = self.transaction.unwrap_or(self.position.end);
        self.expected.push_back(Expected {
            step,
            relation,
            commit,
            rows: 1,
            gathered: false,
            reach: Reach::Told,
        });
    }

    /// The statement that was queued last is an UPDATE or DELETE that must reach one row.
    pub(super) fn expect_rows(&mut self, step: Step, relation: u32, reach: Reach) {
        self.expect(step, relation);
        if let (Reach::Itself, Some(expected), Some(group)) =
            (reach, self.expected.back_mut(), &mut self.group)
        {
            expected.reach = reach;
            group.looked_at += 1;
        }
    }

    /// The statement that was queued last is of a gathered change.
    pub(super) fn expected_together(&mut self) {
        if let Some(expected) = self.expected.back_mut() {
            expected.gathered = true;
        }
    }

    /// The statement that was queued last is of so many gathered changes.
    pub(super) fn expect_many(&mut self, step: Step, relation: u32, rows: u64, reach: Reach) {
        self.expect(step, relation);
        if let Some(expected) = self.expected.back_mut() {
            (expected.rows, expected.gathered, expected.reach) = (rows, true, reach);
        }
    }

    /// A relation is described anew.
    fn learn(&mut self, relation: Relation) -> Result<()> {
        let oid = relation.oid;
        if self.known.get(&oid).is_some_and(|known| known.relation == relation) {
            return Ok(());
        }
        self.send_gathered_of(oid)?;
        if self.run.as_ref().is_some_and(|run| run.relation == oid) {
            self.end_run()?;
        }
        let before = self.forget(oid)?;
        if let Some(ahead) = &mut self.ahead {
            ahead.replaced(oid, before);
        }
        self.known.insert(oid, Known { relation, mapped: None });
        Ok(())
    }

    /// Forgets a relation; returns what was known of it.
    pub(super) fn forget(&mut self, oid: u32) -> Result<Option<Relation>> {
        let Some(Known { relation, mapped }) = self.known.remove(&oid) else { return Ok(None) };
        for name in mapped.iter().flat_map(|mapped| mapped.prepared.values()) {
            self.pipeline.forget(name)?;
        }
        Ok(Some(relation))
    }

    /// Sees to it that the relation is mapped, and counts a change.
    pub(super) async fn ready(&mut self, oid: u32) -> Result<(), Halt> {
        let known = self.known.get_mut(&oid).ok_or_else(|| unknown_relation(oid))?;
        if known.mapped.is_none() {
            let Relation { namespace, name, .. } = &known.relation;
            let table = self.lookup.table(namespace, name).await?;
            let mapped = Mapped::new(&known.relation, table, self.role);
            let commit = self.transaction.unwrap_or(self.position.end);
            known.mapped = Some(mapped.map_err(|error| failure::at(error, commit, self.careful_until))?);
        }
        self.group.get_or_insert_with(|| Group::new(Instant::now())).changes += 1;
        Ok(())
    }

    pub(super) fn mapped_mut(&mut self, oid: u32) -> Result<&mut Mapped> {
        let known = self.known.get_mut(&oid).and_then(|known| known.mapped.as_mut());
        known.ok_or_else(|| unknown_relation(oid))
    }

    pub(super) fn mapped(&self, oid: u32) -> Result<&Mapped> {
        mapped(&self.known, oid).ok_or_else(|| unknown_relation(oid))
    }

    /// Looks at an answer of the target, which was awaited or not.
    fn check(&mut self, answer: Answer, awaited: bool) -> Result<(), Halt> {
        let completed = match answer {
            Answer::Complete(tag) => Ok(tag),
            Answer::Error(notice) => Err(notice),
            Answer::Ready(_) => return Ok(self.synced(awaited)?),
        };
        let Some(expected) = self.expected.pop_front() else {
            return Err(Error::connection("unexpected answer from the target").into());
        };
        let rows = match completed {
            Err(notice) if expected.reach == Reach::Itself && found_none_or_several(&notice) => {
                return Err(self.halt(expected, Error::failed(self.no_row(expected))));
            }
            Err(notice) => return Err(self.failed(expected, notice)),
            Ok(tag) => match expected.step {
                Step::Update | Step::Delete if expected.reach == Reach::Told => tag.rows(),
                Step::Commit if tag.as_str() != "COMMIT" => {
                    return Err(Error::failed("the target rolled back instead of committing").into());
                }
                _ => return Ok(()),
            },
        };
        match (rows, self.on_conflict) {
            (Some(rows), _) if rows == expected.rows => Ok(()),
            // Which of them, and of which source transaction, shows when they come one by one.
            _ if expected.gathered => Err(self.halt(expected, Error::failed(self.no_row(expected)))),
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

/// What a statement fails by that is to reach one row. An expression of the table may do the same; its transaction comes alone then, and tells.
fn found_none_or_several(notice: &Notice) -> bool {
    matches!(notice.sqlstate().as_str(), "22012" | "21000")
}

pub(super) fn mapped(known: &HashMap<u32, Known>, oid: u32) -> Option<&Mapped> {
    known.get(&oid).and_then(|known| known.mapped.as_ref())
}

pub(super) fn unknown_relation(oid: u32) -> Error {
    violation(Side::Source, format_args!("a change of relation {oid}, which was not described"))
}
