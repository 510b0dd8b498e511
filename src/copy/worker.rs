//! The workers of a bulk copy: some move rows (`rows`), some make indexes and constraints (`post_data`), all end together.
//!
//! In: the parts and the items that are left, a snapshot. Out: every part done, every item made or recorded as failed. What may fail: any worker; its failure stops the
//! others, and what they have finished stays.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::elsewhere;
use super::failures::Failures;
use super::format::CopyFormat;
use super::part::TableJob;
use super::post_data::{MORE_FOR_CHEAP, make_items, watch_builds};
use super::rows::{Holder, move_rows};
use super::schedule::Schedule;
use super::snapshot::Snapshot;
use crate::config::{Config, Side};
use crate::ddl;
use crate::error::{Error, ErrorKind, Result, joined};
use crate::progress::Progress;
use crate::schema::table::{RelationName, Table};
use crate::state::{self, Offer, Part, Relation};
use crate::wire::{Canceller, Connection, Settings};

/// How many sessions work at once on each server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workers {
    /// Sessions that move rows.
    pub jobs: usize,
    /// Sessions that build large indexes and check large tables.
    pub index_jobs: usize,
}

/// The tables of the source, and how their rows travel.
#[derive(Debug)]
pub struct SourceTables {
    /// Definitions by OID.
    pub tables: HashMap<u32, Table>,
    /// Partitions whose rows are loaded through their root.
    pub through_root: HashMap<u32, RelationName>,
    /// Text is copied without conversion, for two databases in SQL_ASCII.
    pub as_is: bool,
    /// What of the schema is copied, for large objects.
    pub ddl: ddl::Options,
    /// How failures of items are borne.
    pub failures: Arc<Failures>,
}

/// Whether text is copied without conversion between these two databases, as neither has an encoding.
pub fn is_as_is(source: &Connection, target: &Connection) -> bool {
    [source, target].iter().all(|session| session.parameter("server_encoding") == Some("SQL_ASCII"))
}

/// A bulk copy: what all its workers of this process share.
#[derive(Debug)]
pub struct Copy {
    pub(super) source: Config,
    pub(super) target: Config,
    pub(super) offer: Offer,
    pub(super) tables: HashMap<u32, TableJob>,
    pub(super) ddl: ddl::Options,
    pub(super) failures: Arc<Failures>,
    /// Numbers of the parts of each relation that are not done, as far as this process knows.
    pub(super) open: Mutex<HashMap<u32, HashSet<u32>>>,
    pub(super) post_data: Mutex<Schedule>,
    /// Something has been finished that others may wait for.
    pub(super) finished: Notify,
    pub(super) progress: Arc<Progress>,
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A worker that panics ends the run, and the data is whole after every statement.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Copy {
    /// Source and target first. `relations` are those of the state tables, `pending` their parts that are not done.
    pub fn new(
        (source, target): (Config, Config),
        offer: Offer,
        relations: Vec<Relation>,
        pending: Vec<(u32, u32)>,
        mut from: SourceTables,
        post_data: Schedule,
        progress: Arc<Progress>,
    ) -> Copy {
        let mut jobs = HashMap::new();
        let mut open = HashMap::<u32, HashSet<u32>>::new();
        for (relation, number) in pending {
            open.entry(relation).or_default().insert(number);
        }
        for relation in relations {
            if let Some(table) = from.tables.remove(&relation.oid) {
                let format = CopyFormat::of(&table, from.as_is);
                let through_root = from.through_root.remove(&relation.oid);
                jobs.insert(relation.oid, TableJob { table, split: relation.split, format, through_root });
            }
        }
        Copy {
            source,
            target,
            offer,
            tables: jobs,
            ddl: from.ddl,
            failures: from.failures,
            open: Mutex::new(open),
            post_data: Mutex::new(post_data),
            finished: Notify::new(),
            progress,
        }
    }

    /// A part is done; `false` where that was known before.
    pub(super) fn part_is_done(&self, part: &Part) -> bool {
        let mut open = locked(&self.open);
        let Some(left) = open.get_mut(&part.relation) else { return false };
        let news = left.remove(&part.number);
        if left.is_empty() {
            open.remove(&part.relation);
            locked(&self.post_data).complete(part.relation);
            self.finished.notify_waiters();
        }
        news
    }
}

/// Runs the copy to its end: every part is done, here or by workers elsewhere, and every post-data item made or recorded as failed. The snapshot is let go as soon as
/// no part is left.
///
/// # Errors
/// The first failure of a worker; the others are stopped and joined first. [`ErrorKind::Stopped`] when `stop` was asked for. Finished
/// parts and items stay.
pub async fn run(
    copy: Arc<Copy>,
    snapshot: Snapshot,
    workers: Workers,
    stop: &CancellationToken,
) -> Result<()> {
    let abort = stop.child_token();
    let mut items = JoinSet::new();
    let holder = Arc::new(tokio::sync::Mutex::new(snapshot));
    let mut rows = spawn_rows(&copy, workers.jobs, &abort, Some(&holder));
    for number in 0..workers.index_jobs.max(1) + MORE_FOR_CHEAP {
        let is_spare = number >= workers.index_jobs.max(1);
        items.spawn(guarded(copy.clone(), abort.clone(), Kind::Items { is_spare }));
    }
    let watching = abort.child_token();
    let watcher = tokio::spawn(watch_builds(copy.clone(), watching.clone()));
    let mut failure = None;
    {
        let elsewhere = elsewhere::watch(&copy, &abort);
        tokio::pin!(elsewhere);
        tokio::select! {
            () = join(&mut rows, &abort, &mut failure) => {}
            () = &mut elsewhere => {}
        }
    }
    join(&mut rows, &abort, &mut failure).await;
    if failure.is_none() {
        // All parts are done, whoever did them.
        copy.only_pending(Vec::new());
    }
    elsewhere::withdraw(&copy).await;
    // The workers are joined, and their shares of it with them.
    if let Some(snapshot) = Arc::into_inner(holder) {
        snapshot.into_inner().release().await;
    }
    join(&mut items, &abort, &mut failure).await;
    watching.cancel();
    // It only looks; how it ends is nobody's trouble.
    let _ = watcher.await;
    failure.map_or(Ok(()), Err)
}

/// Moves rows of a copy that another process runs, until no part is left.
///
/// # Errors
/// As [`run`]; [`ErrorKind::Stopped`] also when the snapshot is no longer offered.
pub async fn help(copy: Arc<Copy>, jobs: usize, stop: &CancellationToken) -> Result<()> {
    let abort = stop.child_token();
    let mut failure = None;
    join(&mut spawn_rows(&copy, jobs, &abort, None), &abort, &mut failure).await;
    failure.map_or(Ok(()), Err)
}

fn spawn_rows(
    copy: &Arc<Copy>,
    jobs: usize,
    abort: &CancellationToken,
    holder: Option<&Holder>,
) -> JoinSet<Result<()>> {
    let mut rows = JoinSet::new();
    for _ in 0..jobs.max(1) {
        rows.spawn(guarded(copy.clone(), abort.clone(), Kind::Rows(holder.cloned())));
    }
    rows
}

/// Joins every task of a set; the first that fails aborts the others. A failure outranks a stop.
async fn join(set: &mut JoinSet<Result<()>>, abort: &CancellationToken, failure: &mut Option<Error>) {
    while let Some(ended) = set.join_next().await {
        if let Err(error) = joined("a worker", ended) {
            abort.cancel();
            if failure
                .as_ref()
                .is_none_or(|f| f.kind() == ErrorKind::Stopped && error.kind() != ErrorKind::Stopped)
            {
                *failure = Some(error);
            }
        }
    }
}

#[derive(Debug)]
enum Kind {
    /// Without a holder where that is in another process.
    Rows(Option<Holder>),
    /// A spare one ends where the target has no room for its session.
    Items { is_spare: bool },
}

/// Runs a worker until it ends or is aborted; then its statements are cancelled on the servers, so that nothing goes on behind our back.
async fn guarded(copy: Arc<Copy>, abort: CancellationToken, kind: Kind) -> Result<()> {
    let sessions = Mutex::new(Vec::<Canceller>::new());
    let work = async {
        match kind {
            Kind::Rows(holder) => move_rows(&copy, holder.as_ref(), &sessions).await,
            Kind::Items { is_spare } => make_items(&copy, is_spare, &sessions).await,
        }
    };
    let result = tokio::select! {
        result = work => result,
        () = abort.cancelled() => {
            let sessions = std::mem::take(&mut *locked(&sessions));
            for session in sessions {
                // A server that doesn't answer is left alone: its sessions end with their sockets.
                let _ = tokio::time::timeout(Duration::from_secs(2), session.cancel()).await;
            }
            return Err(Error::stopped());
        }
    };
    if result.is_err() {
        abort.cancel();
    }
    result
}

/// A session of the target that works for the run.
pub(super) async fn session(target: &Config) -> Result<Connection> {
    let mut session = Connection::connect(target, Side::Target, &Settings::session()).await?;
    state::join_run(&mut session).await?;
    Ok(session)
}

/// Whether a server refused a session because it, the database or the role has as many as it may.
pub(super) fn is_full(error: &Error) -> bool {
    error.sqlstate().is_some_and(|state| state.as_str() == "53300")
}
