//! Receives the stream into the spool, as long as rows are copied.
//!
//! In: a [`Request`]. Out: a task that goes on until it is told to end. What may fail: see the module above; a server that is away is waited for, and so is a disk that is full,
//! with a warning: the source keeps its log then, as it does without a spool.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pgstream_proto::lsn::Lsn;
use pgstream_proto::pgoutput::ProtocolVersion;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::directory::Directory;
use super::segment::Identity;
use super::writer::Writer;
use super::{Trouble, check_folder, drain};
use crate::config::{Config, Side};
use crate::error::{Error, ErrorKind, Result, joined};
use crate::fault;
use crate::progress::{Progress, StreamProgress};
use crate::replication::feedback::Feedback;
use crate::replication::resume::{self, Resumable, Resume};
use crate::replication::slot;
use crate::replication::stream::{Chunk, LONGEST_SILENCE, Receiver, SILENCE};
use crate::replication::{failure, follow};
use crate::state::checkpoint::{self, Checkpoint};
use crate::state::{self, spool};
use crate::wire::{Connection, CopyBoth, Settings};

/// What is received, and into what.
#[derive(Debug, Clone)]
pub struct Request {
    /// The source database.
    pub source: Config,
    /// The target database, whose state says what the spool holds.
    pub target: Config,
    /// The slot on the source.
    pub slot: String,
    /// The publication on the source.
    pub publication: String,
    /// The folder that the operator named.
    pub folder: PathBuf,
}

/// A stream that is being received; aborted when dropped, as if the process had been killed.
#[derive(Debug)]
pub struct Spooling {
    task: AbortOnDropHandle<Result<()>>,
    finish: CancellationToken,
}

/// What is in the files is made durable after so many bytes, or so long.
const SYNC_BYTES: usize = 8 << 20;
const SYNC_AFTER: Duration = Duration::from_secs(1);

/// How long an advance without changes waits to be stored.
const IDLE_AFTER: Duration = Duration::from_secs(5);

/// Waits before another try: after a lost connection, first and longest; and for a disk to have room.
const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
const DISK_WAIT: Duration = Duration::from_secs(5);

impl Spooling {
    /// Begins to receive. When it fails in a way that does not pass, `failed` is cancelled; [`Spooling::end`] tells the error.
    ///
    /// # Errors
    /// A folder that can't be used.
    pub fn begin(request: Request, progress: Arc<Progress>, failed: CancellationToken) -> Result<Spooling> {
        check_folder(&request.folder)?;
        let finish = CancellationToken::new();
        let work =
            Spooler { request, progress, finish: finish.clone(), told: String::new(), silence: SILENCE };
        let task = async move {
            let ended = work.run().await;
            if ended.is_err() {
                failed.cancel();
            }
            ended
        };
        Ok(Spooling { task: AbortOnDropHandle::new(tokio::spawn(task)), finish })
    }

    /// Ends it: what was received is recorded.
    ///
    /// # Errors
    /// What had ended it before.
    pub async fn end(self) -> Result<()> {
        self.finish.cancel();
        joined("the task that writes the spool", self.task.await)
    }
}

struct Spooler {
    request: Request,
    progress: Arc<Progress>,
    finish: CancellationToken,
    /// The last trouble with the disk, which is told once.
    told: String,
    /// How long the source may be silent.
    silence: Duration,
}

impl Spooler {
    async fn run(mut self) -> Result<()> {
        let mut wait = WAITS.0;
        let mut best = Lsn::INVALID;
        loop {
            let trouble = match Box::pin(self.attempt()).await {
                Ok(()) => return Ok(()),
                Err(trouble) => trouble,
            };
            let confirmed = self.progress.stream().snapshot().confirmed;
            if confirmed > best {
                (best, wait, self.silence) = (confirmed, WAITS.0, SILENCE);
            }
            let pause = match trouble {
                Trouble::Disk(error) => {
                    self.warn(&error);
                    DISK_WAIT
                }
                Trouble::Other(error) => {
                    let busy = error.sqlstate().is_some_and(|s| s.as_str() == "55006");
                    if error.kind() != ErrorKind::Connection && !busy {
                        return Err(error);
                    }
                    tracing::warn!("{error}; receiving into the spool again in {} ms", wait.as_millis());
                    self.silence = (self.silence * 2).min(LONGEST_SILENCE);
                    let longer = (wait * 2).min(WAITS.1);
                    std::mem::replace(&mut wait, longer)
                }
            };
            tokio::select! {
                () = self.finish.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn warn(&mut self, error: &Error) {
        let text = error.to_string();
        if self.told != text {
            let hint = "Give that disk room, and the spool goes on; until then, the source keeps its write-ahead log.";
            self.progress.warn(text.clone(), Some(hint.to_owned()));
            self.told = text;
        }
    }

    /// One stream, from where the spool ends to whatever ends it; in order only when it is told to finish.
    async fn attempt(&mut self) -> Result<(), Trouble> {
        let request = &self.request;
        let mut session = Connection::connect(&request.target, Side::Target, &Settings::session()).await?;
        state::join_run(&mut session).await?;
        // The source lets go of what is recorded.
        session.execute("SET synchronous_commit = on").await?;
        let Some(checkpoint) = checkpoint::read(&mut session).await? else {
            return Err(Error::failed("the target has no checkpoint to receive the stream from").into());
        };
        let (directory, spool, number) = self.open(&mut session, &checkpoint).await?;
        let start = spool.to;
        let mut source = Connection::connect(&request.source, Side::Source, &Settings::replication()).await?;
        let raw = follow::as_is(&mut source, &mut session).await?;
        let held = Checkpoint { applied: start, ..checkpoint };
        let from = Resume { slot: &request.slot, publication: &request.publication, streaming: false };
        let Resumable { timeline, interval } = resume::check(&mut source, &from, &held).await?;
        checkpoint::make_durable(&mut session, timeline).await?;
        let version = ProtocolVersion::newest_of(source.version());
        let command = follow::start_command(&from, version, start);
        let stream = CopyBoth::start(source, &command).await;
        let stream = stream.map_err(|e| slot::explain(e, &request.slot))?;

        let (durable, durable_seen) = watch::channel(start);
        let (chunks, received) = mpsc::channel(1024);
        let finish = CancellationToken::new();
        // What is durable for it is so in the files, and not on the target.
        let seen = Arc::<StreamProgress>::default();
        let receiver = Receiver {
            stream,
            chunks,
            durable: durable_seen,
            is_busy: watch::Sender::new(false).subscribe(),
            feedback: Feedback::new(start),
            progress: seen.clone(),
            interval,
            silence: self.silence,
            finish: finish.clone(),
        };
        let receiver = AbortOnDropHandle::new(tokio::spawn(receiver.run()));
        let writer = Writer::new(directory, number, start, version, raw);
        let shown = self.progress.stream().clone();
        let kept = Keeper { writer, spool, session, durable, seen, shown, recorded: Instant::now() };
        let kept = kept.run(received, &self.finish).await;
        finish.cancel();
        let received = joined("the receiving task", receiver.await);
        match (kept, received) {
            (Ok(true), _) => Ok(()),
            (Ok(false), Err(error)) => Err(failure::of_source(&request.source, error).await.into()),
            (Ok(false), Ok(())) => Err(Error::connection("the replication stream ended").into()),
            (Err(trouble), _) => Err(trouble),
        }
    }

    /// The folder with what the state says it holds, and the number of its last segment. A spool that holds nothing which is needed gives way to a new one.
    async fn open(
        &self,
        session: &mut Connection,
        checkpoint: &Checkpoint,
    ) -> Result<(Directory, spool::Spool, u64), Trouble> {
        let request = &self.request;
        let recorded = spool::read(session).await?.filter(|spool| spool.to > checkpoint.applied);
        let identity = |spool: &spool::Spool| Identity {
            spool: spool.id.clone(),
            system_identifier: checkpoint.system_identifier.clone(),
            database: request.source.dbname.clone(),
            slot: request.slot.clone(),
        };
        if let Some(spool) = recorded {
            let directory = drain::find(session, &spool, identity(&spool), Some(&request.folder)).await?;
            let entries = directory.hold(checkpoint.applied, spool.to)?;
            let number = entries.last().map_or(0, |last| last.number);
            return Ok((directory, spool, number));
        }
        let folder = super::absolute(&request.folder);
        let (host, name) = (super::host(), folder.to_string_lossy());
        let begin = spool::begin(session, &host, &name, checkpoint.applied);
        let spool = fault::step("spool recorded", begin).await?;
        let directory = Directory::make(&folder, identity(&spool))?;
        directory.hold(spool.from, spool.to)?;
        Ok((directory, spool, 0))
    }
}

/// Writes, syncs, records and confirms.
struct Keeper {
    writer: Writer,
    spool: spool::Spool,
    session: Connection,
    durable: watch::Sender<Lsn>,
    /// Of this stream, and what of it the operator is shown.
    seen: Arc<StreamProgress>,
    shown: Arc<StreamProgress>,
    recorded: Instant,
}

impl Keeper {
    /// Until the stream ends (`false`), or it is told to finish.
    async fn run(
        mut self,
        mut chunks: mpsc::Receiver<Chunk>,
        finish: &CancellationToken,
    ) -> Result<bool, Trouble> {
        let mut unsynced = 0;
        loop {
            let due = if self.writer.end() > self.spool.to {
                self.recorded + SYNC_AFTER
            } else if self.writer.idle().is_some() {
                self.recorded + IDLE_AFTER
            } else {
                // Nothing that could be recorded; it may be soon.
                Instant::now() + SYNC_AFTER
            };
            tokio::select! {
                biased;
                () = finish.cancelled() => {
                    self.record().await?;
                    return Ok(true);
                }
                () = tokio::time::sleep_until(due) => {
                    self.record().await?;
                    unsynced = 0;
                }
                chunk = chunks.recv() => {
                    let Some(chunk) = chunk else { return Ok(false) };
                    for (message, size) in chunk.messages {
                        unsynced += size;
                        self.writer.take(message).await?;
                    }
                    if unsynced >= SYNC_BYTES {
                        self.record().await?;
                        unsynced = 0;
                    }
                }
            }
        }
    }

    /// Steps 2 to 4 of the module above.
    async fn record(&mut self) -> Result<(), Trouble> {
        self.recorded = Instant::now();
        let to = self.writer.sync().await?;
        if to > self.spool.to {
            let advance = spool::advance(&mut self.session, &self.spool, to);
            fault::step("spool advanced", advance).await?;
            self.spool.to = to;
            self.durable.send_replace(to);
            self.shown.set_confirmed(to);
        }
        let seen = self.seen.snapshot();
        self.shown.set_source(seen.source);
        self.shown.set_received(seen.received);
        Ok(())
    }
}
