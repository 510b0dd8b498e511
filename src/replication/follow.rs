//! Following the source: start from the checkpoint, receive and apply until told to end, and start again when a server goes away.
//!
//! ```text
//! checks ─► spool, as long as there is one ─► read back ─┐
//!    ▲ └──► START_REPLICATION at the checkpoint ─► receive ═ chunks ═► apply ─► Ended
//!    │                                                 └──── any failure ────┐
//!    │   connection lost: again, later and later ◄───────────────────────────┤
//!    └── a group failed: again, one source transaction at a time ◄───────────┘   alone, it fails the run
//! ```

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pgstream_proto::lsn::Lsn;
use pgstream_proto::pgoutput::ProtocolVersion;
use pgstream_proto::replication::StreamMessage;
use pgstream_proto::timestamp::Timestamp;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::apply::{Applier, OnConflict, Parts};
use super::assemble::{Assembler, Budget, Event};
use super::durable::Flusher;
use super::failure::{self, Halt};
use super::feedback::Feedback;
use super::filter::Filter;
use super::slot::{self, Resumable};
use super::spool::{self, Drain};
use super::stream::{Chunk, LONGEST_SILENCE, Receiver, SILENCE};
use super::target::{self, TriggerRole};
use crate::config::{Config, Side};
use crate::error::{Error, ErrorKind, Result};
use crate::fault;
use crate::progress::StreamProgress;
use crate::sql::{ident, literal};
use crate::state::{
    self,
    checkpoint::{self, Checkpoint},
};
use crate::wire::{Connection, CopyBoth, Settings};

/// What to follow, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// The source database.
    pub source: Config,
    /// The target database; its schema `pgstream` holds the checkpoint.
    pub target: Config,
    /// The slot on the source.
    pub slot: String,
    /// The publication on the source.
    pub publication: String,
    /// What to do about an UPDATE or DELETE whose row is not on the target.
    pub on_conflict: OnConflict,
    /// Whether large transactions are received while they run, where the source can (PostgreSQL 14).
    pub streaming: bool,
    /// Bytes of unfinished streamed transactions that are kept in memory.
    pub memory: usize,
    /// The folder for the rest of them.
    pub spill_directory: PathBuf,
    /// The folder of the spool, where the operator named one; else it is looked for where the state says it is.
    pub spool: Option<PathBuf>,
    /// How long a server may be gone before following fails.
    pub patience: Duration,
    /// How long the source may be silent before its connection is given up and made again.
    pub silence: Duration,
    /// How long an advance without changes waits to be stored: a quiet database should not make the target write all the time.
    pub idle_advance: Duration,
}

impl Options {
    /// With the usual limits.
    pub fn new(source: Config, target: Config, slot: String, publication: String) -> Options {
        Options {
            source,
            target,
            slot,
            publication,
            on_conflict: OnConflict::Stop,
            streaming: true,
            memory: 16 << 20,
            spill_directory: PathBuf::from("/tmp"),
            spool: None,
            patience: Duration::from_secs(600),
            silence: SILENCE,
            idle_advance: Duration::from_secs(10),
        }
    }
}

/// Why following ended, with nothing wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to stop; the checkpoint stands at this position, durable.
    Stopped(Lsn),
    /// Everything up to the position asked for is applied and durable, and nothing that committed after it.
    Reached(Lsn),
    /// The rows of this relation (its OID on the source) must be copied again under a new snapshot: a row moved between parts that were copied under
    /// different snapshots, and not all of its values are on the target. Nothing of that change is applied.
    Recopy(u32),
}

/// How long a transaction that is applied ahead of its commit may be silent: one that the source is still at work on should not keep locks on the
/// target.
const AHEAD_SILENCE: Duration = Duration::from_secs(1);

/// Bytes of a message from which on it is applied where it holds up no other task: the thread that applies is, as a rule, that which
/// watches the sockets, and the source is to hear from us while a huge row is copied from one buffer to another.
const LARGE: usize = 1 << 20;

/// First and longest wait before another try.
const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How often a change that fails for a passing reason (a deadlock, say) is tried again.
const TRIES: u32 = 5;

/// Follows the source from the target's checkpoint until `stop` is told, or until everything up to the position in `until` is applied (it may be set at
/// any time), with changes filtered by `filter`. Takes up the stream again when a server goes away. It ends when it is dropped.
///
/// # Errors
/// A checkpoint that the slot doesn't fit; a schema that doesn't fit; a change that can't be applied; a server that stays away. The target
/// holds exactly the changes up to its checkpoint then, and the next call goes on from there.
pub async fn follow(
    options: Options,
    filter: Filter,
    until: watch::Receiver<Option<Lsn>>,
    stop: CancellationToken,
    progress: Arc<StreamProgress>,
) -> Result<Ended> {
    // A task of its own runs where the sockets are watched. Wherever else the caller runs, each answer of the target would wake
    // another thread.
    let following = async move { follow_here(&options, &filter, until, &stop, &progress).await };
    joined(AbortOnDropHandle::new(tokio::spawn(following)).await)
}

async fn follow_here(
    options: &Options,
    filter: &Filter,
    mut until: watch::Receiver<Option<Lsn>>,
    stop: &CancellationToken,
    progress: &Arc<StreamProgress>,
) -> Result<Ended> {
    let mut careful_until = Lsn::INVALID;
    let mut may_go_ahead = true;
    let mut wait = WAITS.0;
    let mut tries = 0;
    let mut gone_since: Option<Instant> = None;
    let mut best = Lsn::INVALID;
    let mut session = None;
    let mut silence = options.silence;
    loop {
        let attempt = Attempt {
            options,
            filter,
            until: &mut until,
            stop,
            progress,
            careful_until,
            may_go_ahead,
            session: &mut session,
            silence,
        };
        let halt = match Box::pin(attempt.run()).await {
            Ok(Some(ended)) => return Ok(ended),
            // The spool is applied; what follows comes from the source.
            Ok(None) => continue,
            Err(halt) => halt,
        };
        let applied = progress.snapshot().applied;
        if applied > best {
            (best, wait, tries, gone_since) = (applied, WAITS.0, 0, None);
            may_go_ahead = true;
            silence = options.silence;
        }
        let error = match halt {
            Halt::Recopy(relation) => return Ok(Ended::Recopy(relation)),
            Halt::Ahead(error) => {
                tracing::info!("{error}: applying the transaction again after its commit");
                may_go_ahead = false;
                continue;
            }
            Halt::Group(error, commit) => {
                tracing::info!("{error}: applying again one transaction at a time up to {commit}");
                careful_until = commit;
                continue;
            }
            Halt::Change(error) => {
                tries += 1;
                let passing = error.sqlstate().is_some_and(|s| s.class() == "40" || s.as_str() == "55P03");
                if !passing || tries >= TRIES {
                    return Err(error);
                }
                error
            }
            Halt::Error(error) => {
                let busy = error.sqlstate().is_some_and(|s| s.as_str() == "55006");
                if error.kind() != ErrorKind::Connection && !busy {
                    return Err(error);
                }
                let since = *gone_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= options.patience {
                    return Err(error);
                }
                error
            }
        };
        progress.add_reconnect();
        tracing::warn!("{error}; trying again in {} ms", wait.as_millis());
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(Ended::Stopped(best)),
            () = tokio::time::sleep(wait) => {}
        }
        wait = (wait * 2).min(WAITS.1);
        silence = (silence * 2).min(LONGEST_SILENCE);
    }
}

/// One stream, from its start to whatever ends it.
struct Attempt<'a> {
    options: &'a Options,
    filter: &'a Filter,
    until: &'a mut watch::Receiver<Option<Lsn>>,
    stop: &'a CancellationToken,
    progress: &'a Arc<StreamProgress>,
    careful_until: Lsn,
    /// Whether large transactions may be applied ahead of their commit.
    may_go_ahead: bool,
    /// The process ID of the session that applied changes last, which the target may not have noticed to be lost.
    session: &'a mut Option<u32>,
    silence: Duration,
}

/// The session that changes are applied in, one to look things up in, and whether triggers are silent in the first.
type Sessions = (Connection, Connection, TriggerRole);

impl Attempt<'_> {
    /// `None` when what there was to apply is applied and was in the spool.
    async fn run(mut self) -> Result<Option<Ended>, Halt> {
        let options = self.options;
        let settings = Settings::session();
        let (mut session, role) = target::open(&options.target, &settings).await?;
        if let Some(lost) = *self.session {
            state::end_lost_session(&mut session, lost).await?;
        }
        *self.session = Some(session.pid());
        let lookup = Connection::connect(&options.target, Side::Target, &settings).await?;
        let Some(checkpoint) = checkpoint::read(&mut session).await? else {
            return Err(Error::failed("the target has no checkpoint to follow the source from").into());
        };
        let spooled =
            spool::pending(&mut session, &options.source, &checkpoint, options.spool.as_deref()).await?;
        match spooled {
            Some(drain) => self.drain(drain, (session, lookup, role), &checkpoint).await,
            None => self.receive((session, lookup, role), &checkpoint).await.map(Some),
        }
    }

    /// Applies what the spool holds past the checkpoint.
    async fn drain(
        &mut self,
        drain: Drain,
        mut sessions: Sessions,
        checkpoint: &Checkpoint,
    ) -> Result<Option<Ended>, Halt> {
        if drain.is_raw() {
            sessions.0.execute(RAW).await?;
        }
        // The last run may have committed without waiting for the disk.
        fault::step("durable checkpoint", checkpoint::make_durable(&mut sessions.0, checkpoint.timeline))
            .await?;
        let (end, version) = (drain.end(), drain.version());
        let (durable, durable_seen) = watch::channel(checkpoint.applied);
        let (chunks, received) = mpsc::channel(1024);
        let (mut applier, _flusher) = self.applier(sessions, checkpoint.applied, durable).await?;
        let assembler = self.assembler(version, checkpoint.applied);
        let reader = AbortOnDropHandle::new(tokio::spawn(drain.run(chunks, durable_seen)));
        let applied = self.apply(&mut applier, assembler, received).await;
        if !matches!(applied, Ok(None)) {
            // The next attempt wants the folder for itself.
            reader.abort();
            let _ = reader.await;
            return applied;
        }
        let drain = joined(reader.await)?;
        self.end(&mut applier, None).await?;
        if applier.checkpoint() < end {
            let (at, what) = (applier.checkpoint(), "the spool did not bring the target to its end");
            return Err(Error::failed(what)
                .with_detail(format!("It stands at {at}, and not at {end}."))
                .into());
        }
        drain.discard().await?;
        Ok(None)
    }

    /// Applies what the source sends from the checkpoint on.
    async fn receive(&mut self, mut sessions: Sessions, checkpoint: &Checkpoint) -> Result<Ended, Halt> {
        let (options, start) = (self.options, checkpoint.applied);
        let mut source = Connection::connect(&options.source, Side::Source, &Settings::replication()).await?;
        as_is(&mut source, &mut sessions.0).await?;
        let Resumable { timeline, interval } =
            slot::check_resume(&mut source, &options.slot, &options.publication, checkpoint).await?;
        // The last run may have committed without waiting for the disk.
        fault::step("durable checkpoint", checkpoint::make_durable(&mut sessions.0, timeline)).await?;
        let version = ProtocolVersion::newest_of(source.version());
        let command = start_command(&options.slot, &options.publication, version, start, options.streaming);
        let stream = CopyBoth::start(source, &command).await.map_err(|e| slot::explain(e, &options.slot))?;

        let (durable, durable_seen) = watch::channel(start);
        let (mut applier, _flusher) = self.applier(sessions, start, durable).await?;
        let (chunks, received) = mpsc::channel(1024);
        let commits = applier.commits.subscribe();
        let finish = CancellationToken::new();
        let receiver = Receiver {
            stream,
            chunks,
            durable: durable_seen,
            commits,
            feedback: Feedback::new(start),
            progress: self.progress.clone(),
            interval,
            silence: self.silence,
            finish: finish.clone(),
        };
        let receiver = AbortOnDropHandle::new(tokio::spawn(receiver.run()));
        let assembler = self.assembler(version, start);
        let applied = self.apply(&mut applier, assembler, received).await;
        drop(applier);
        finish.cancel();
        match (applied, joined(receiver.await)) {
            (Ok(Some(ended)), _) => Ok(ended),
            // The applier ran dry because the receiver had ended.
            (Ok(None), Err(error)) => Err(failure::of_source(&options.source, error).await.into()),
            (Ok(None), Ok(())) => Err(Error::connection("the replication stream ended").into()),
            (Err(halt), _) => Err(halt),
        }
    }

    fn assembler(&self, version: ProtocolVersion, start: Lsn) -> Assembler {
        let Options { memory, spill_directory, .. } = self.options;
        Assembler::new(version, start, Budget { memory: *memory, directory: spill_directory.clone() })
    }

    /// Over sessions whose checkpoint `start` is durable; with it, who makes its commits durable.
    async fn applier(
        &self,
        (target, lookup, role): Sessions,
        start: Lsn,
        durable: watch::Sender<Lsn>,
    ) -> Result<(Applier, AbortOnDropHandle<()>)> {
        self.progress.set_applied(start, None);
        self.progress.set_durable(start);
        let (committed, committed_seen) = watch::channel(start);
        let flusher = Flusher::open(&self.options.target, committed_seen, durable.clone()).await?;
        let flusher = AbortOnDropHandle::new(tokio::spawn(flusher.run()));
        let applier = Applier::new(Parts {
            target,
            lookup,
            role,
            on_conflict: self.options.on_conflict,
            filter: self.filter.clone(),
            progress: self.progress.clone(),
            checkpoint: committed,
            durable,
            careful_until: self.careful_until,
        })?;
        Ok((applier, flusher))
    }

    /// Applies what comes; `None` when nothing comes any more.
    async fn apply(
        &mut self,
        applier: &mut Applier,
        mut assembler: Assembler,
        mut chunks: mpsc::Receiver<Chunk>,
    ) -> Result<Option<Ended>, Halt> {
        let mut idle_stored = Instant::now();
        let mut last_data = Instant::now();
        let mut sent_at = Timestamp(0);
        loop {
            let chunk = match chunks.try_recv() {
                Ok(chunk) => chunk,
                Err(mpsc::error::TryRecvError::Disconnected) => return Ok(None),
                Err(mpsc::error::TryRecvError::Empty)
                    if applier.has_group() && !applier.is_in_transaction() =>
                {
                    // Far behind the source, more will come at once, and few commits do more than early ones.
                    let more = match applier.full_at().filter(|_| applier.is_behind(sent_at)) {
                        Some(full_at) => tokio::time::timeout_at(full_at, chunks.recv()).await,
                        None => Ok(None),
                    };
                    match more {
                        Ok(Some(chunk)) => chunk,
                        _ => {
                            applier.commit(self.stop.is_cancelled()).await?;
                            continue;
                        }
                    }
                }
                Err(mpsc::error::TryRecvError::Empty) => {
                    if applier.has_group() {
                        applier.send().await?;
                    } else if let Some(ended) = self.ended(applier).await? {
                        return Ok(Some(ended));
                    }
                    let due = match applier.is_ahead() {
                        true => Some(last_data + AHEAD_SILENCE),
                        false => self.due(applier, idle_stored),
                    };
                    if due.is_some_and(|due| due <= Instant::now()) {
                        if applier.is_ahead() {
                            assembler.go_back();
                            applier.go_back().await?;
                        } else {
                            applier.commit(true).await?;
                            idle_stored = Instant::now();
                        }
                        continue;
                    }
                    tokio::select! {
                        biased;
                        () = self.stop.cancelled(), if !self.stop.is_cancelled() => continue,
                        Ok(()) = self.until.changed() => continue,
                        chunk = chunks.recv() => match chunk {
                            Some(chunk) => chunk,
                            None => return Ok(None),
                        },
                        () = sleep_until(due) => continue,
                    }
                }
            };
            if let Some(version) = chunk.begins {
                // What was applied ahead comes again.
                applier.go_back().await?;
                assembler = assembler.anew(version);
            }
            if chunk.messages.iter().any(|(message, _)| matches!(message, StreamMessage::XLogData { .. })) {
                last_data = Instant::now();
            }
            if let Some((last, _)) = chunk.messages.last() {
                sent_at = last.sent_at();
            }
            let large = chunk.messages.iter().any(|(_, size)| *size >= LARGE);
            let taken = self.take(applier, &mut assembler, chunk);
            let runtime = Handle::current();
            let ended = match large && runtime.runtime_flavor() == RuntimeFlavor::MultiThread {
                true => tokio::task::block_in_place(|| runtime.block_on(taken)),
                false => taken.await,
            };
            if let Some(ended) = ended? {
                return Ok(Some(ended));
            }
            if (applier.is_ahead() || !applier.is_in_transaction())
                && let Some(ended) = self.ended(applier).await?
            {
                return Ok(Some(ended));
            }
        }
    }

    /// Applies messages that arrived together.
    async fn take(
        &mut self,
        applier: &mut Applier,
        assembler: &mut Assembler,
        chunk: Chunk,
    ) -> Result<Option<Ended>, Halt> {
        for (message, size) in chunk.messages {
            let go_ahead = self.may_go_ahead && applier.may_go_ahead(message.sent_at());
            let mut event = assembler.take(message, go_ahead)?;
            while let Some(next) = event {
                let until = *self.until.borrow();
                let commit = match &next {
                    Event::Begin(begin) => Some(begin.final_lsn),
                    Event::Commit(commit) if applier.is_ahead() => Some(commit.commit_lsn),
                    _ => None,
                };
                if let Some(until) = until.filter(|until| commit.is_some_and(|lsn| lsn >= *until)) {
                    // All that is wanted came before.
                    return self.end(applier, Some(until)).await.map(Some);
                }
                let committed = matches!(next, Event::Commit(_));
                applier.apply(next, size).await?;
                if committed && let Some(ended) = self.ended(applier).await? {
                    return Ok(Some(ended));
                }
                event = assembler.next()?;
            }
        }
        Ok(None)
    }

    /// When something is to be committed though nothing more comes: what is not durable, or an advance without changes.
    fn due(&self, applier: &mut Applier, idle_stored: Instant) -> Option<Instant> {
        if applier.is_in_transaction() {
            None
        } else if !applier.is_durable() {
            Some(applier.overdue_at())
        } else if applier.position() > applier.checkpoint() {
            Some(idle_stored + self.options.idle_advance)
        } else {
            None
        }
    }

    /// Whether following should end here, between two source transactions; what is applied is committed then, durably. A stop in the middle of a
    /// transaction leaves it to the next run.
    async fn ended(&mut self, applier: &mut Applier) -> Result<Option<Ended>, Halt> {
        let reached = self.until.borrow().filter(|lsn| applier.position() >= *lsn);
        if reached.is_none() && !self.stop.is_cancelled() {
            return Ok(None);
        }
        if applier.is_in_transaction() && !applier.is_ahead() {
            return Ok(Some(Ended::Stopped(applier.checkpoint())));
        }
        self.end(applier, reached).await.map(Some)
    }

    /// Commits what is applied, durably; `reached` is the position asked for.
    async fn end(&mut self, applier: &mut Applier, reached: Option<Lsn>) -> Result<Ended, Halt> {
        applier.go_back().await?;
        if applier.has_group() || applier.position() > applier.checkpoint() || !applier.is_durable() {
            applier.commit(true).await?;
        }
        let lsn = applier.checkpoint();
        Ok(match reached {
            Some(until) => Ended::Reached(lsn.max(until)),
            None => Ended::Stopped(lsn),
        })
    }
}

async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// What a task gave.
fn joined<T>(task: Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    match task {
        Ok(done) => done,
        Err(e) => Err(Error::failed(format!("a task of the stream ended unexpectedly: {e}"))),
    }
}

const RAW: &str = "SET client_encoding = 'SQL_ASCII'";

/// Bytes that have no encoding on either side are not converted: they might not be UTF-8. Whether that is so.
pub(super) async fn as_is(source: &mut Connection, target: &mut Connection) -> Result<bool> {
    let raw = [&*source, &*target].iter().all(|s| s.parameter("server_encoding") == Some("SQL_ASCII"));
    if raw {
        source.execute(RAW).await?;
        target.execute(RAW).await?;
    }
    Ok(raw)
}

/// The command that starts a stream.
pub(super) fn start_command(
    slot: &str,
    publication: &str,
    version: ProtocolVersion,
    start: Lsn,
    streaming: bool,
) -> String {
    let streaming = streaming && version >= ProtocolVersion::V2;
    format!(
        "START_REPLICATION SLOT {} LOGICAL {start} (proto_version '{}', publication_names {}{})",
        ident(slot),
        version.number(),
        literal(&ident(publication)),
        if streaming { ", streaming 'on'" } else { "" },
    )
}
