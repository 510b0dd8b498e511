//! Following the source: start from the checkpoint, receive and apply until told to end, and start again when a server goes away.
//!
//! ```text
//! checks ─► spool, as long as there is one ─► read back ─┐
//!    ▲ └──► START_REPLICATION at the checkpoint ─► receive ═ chunks ═► apply ─► Ended
//!    │                                                 └──── any failure ────┐
//!    │   connection lost: again, later and later ◄───────────────────────────┤
//!    └── a group failed: again, one source transaction at a time ◄───────────┘   alone, it fails the run
//! ```
//!
//! Whatever is at work belongs to the task of the [`Following`]: it is joined before another attempt begins, and before that task ends.

mod attempt;
mod drive;
mod start;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pgstream_proto::lsn::Lsn;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::apply::OnConflict;
use super::failure::Halt;
use super::filter::Filter;
use super::stream::{LONGEST_SILENCE, SILENCE};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Result, joined};
use crate::progress::StreamProgress;
use attempt::Attempt;
pub(super) use start::{as_is, start_command};

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
    /// The schema of most of the tables: what they are like on the target is read before their first changes come.
    pub schema: Option<String>,
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
            schema: None,
            on_conflict: OnConflict::Stop,
            streaming: true,
            memory: 8 << 20,
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

/// First and longest wait before another try.
const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How often a change that fails for a passing reason (a deadlock, say) is tried again.
const TRIES: u32 = 5;

/// A source that is being followed, by a task of its own; it is aborted when this is dropped, as if the process had been killed.
#[derive(Debug)]
pub struct Following {
    task: AbortOnDropHandle<Result<Ended>>,
    abandoned: CancellationToken,
}

impl Following {
    /// Follows the source from the target's checkpoint until `stop` is told, or until everything up to the position in `until` is applied (it may be set at
    /// any time), with changes filtered by `filter`. Takes up the stream again when a server goes away.
    pub fn begin(
        options: Options,
        filter: Filter,
        until: watch::Receiver<Option<Lsn>>,
        stop: CancellationToken,
        progress: Arc<StreamProgress>,
    ) -> Following {
        let abandoned = CancellationToken::new();
        let told = abandoned.clone();
        let tasks = TaskTracker::new();
        tasks.close();
        // A task of its own runs where the sockets are watched. Wherever else the caller runs, each answer of the target would wake
        // another thread.
        let task = tokio::spawn(async move {
            let ended = tokio::select! {
                biased;
                () = told.cancelled() => Err(Error::stopped()),
                ended = follow_here(&options, &filter, until, &stop, &progress, &tasks) => ended,
            };
            tasks.wait().await;
            ended
        });
        Following { task: AbortOnDropHandle::new(task), abandoned }
    }

    /// How it ended. May be dropped and asked for again, but not after it was told.
    ///
    /// # Errors
    /// A checkpoint that the slot doesn't fit; a schema that doesn't fit; a change that can't be applied; a server that stays away. The target
    /// holds exactly the changes up to its checkpoint then, and the next call goes on from there.
    pub async fn ended(&mut self) -> Result<Ended> {
        joined("a task of the stream", (&mut self.task).await)
    }

    /// Gives it up in the middle of whatever it does. Its sessions are closed when this returns; what they did not commit is undone by the servers.
    pub async fn abandon(mut self) {
        self.abandoned.cancel();
        let _ = self.ended().await;
    }
}

/// [Follows](Following::begin) the source to the end.
///
/// # Errors
/// As [`Following::ended`].
pub async fn follow(
    options: Options,
    filter: Filter,
    until: watch::Receiver<Option<Lsn>>,
    stop: CancellationToken,
    progress: Arc<StreamProgress>,
) -> Result<Ended> {
    Following::begin(options, filter, until, stop, progress).ended().await
}

async fn follow_here(
    options: &Options,
    filter: &Filter,
    mut until: watch::Receiver<Option<Lsn>>,
    stop: &CancellationToken,
    progress: &Arc<StreamProgress>,
    tasks: &TaskTracker,
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
            tasks,
            careful_until,
            may_go_ahead,
            session: &mut session,
            silence,
        };
        let attempted = Box::pin(attempt.run()).await;
        tasks.wait().await;
        let halt = match attempted {
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

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::sync::mpsc;

    use super::*;
    use crate::config::{Environment, Side, resolve};
    use crate::wire::simulated;

    #[tokio::test]
    async fn nothing_of_it_goes_on_when_it_was_abandoned() {
        let (accepted, mut accepts) = mpsc::unbounded_channel();
        let _network = simulated::install(Box::new(move |_| {
            let (client, server) = tokio::io::duplex(1 << 10);
            let _ = accepted.send(server);
            Ok(client)
        }));
        let config = |side| resolve("host=/s user=u dbname=d", side, &Environment::empty()).unwrap();
        let options =
            Options::new(config(Side::Source), config(Side::Target), "slot".to_owned(), "p".to_owned());
        let (_until, asked) = watch::channel(None);
        let following = Following::begin(
            options,
            Filter::default(),
            asked,
            CancellationToken::new(),
            Arc::<StreamProgress>::default(),
        );
        let mut server = accepts.recv().await.expect("it connects");
        following.abandon().await;
        // Its end is closed by now, and not soon.
        let mut sent = Vec::new();
        let read = tokio::time::timeout(Duration::ZERO, server.read_to_end(&mut sent));
        read.await.expect("the session has ended").unwrap();
    }
}
