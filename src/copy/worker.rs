//! The workers of a bulk copy: some move rows, some make indexes and constraints, all end together.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::apply::{BEGIN, apply_items};
use super::elsewhere;
use super::failures::Failures;
use super::format::CopyFormat;
use super::large_object;
use super::part::{SMALL, SMALL_PARTS, TableJob, copy_parts};
use super::schedule::{Schedule, Work};
use super::snapshot::{self, Snapshot};
use crate::catalog::activity;
use crate::catalog::server::rewritten;
use crate::config::{Config, Side};
use crate::ddl::{self, Item};
use crate::error::{Error, ErrorKind, Result};
use crate::fault;
use crate::progress::Progress;
use crate::schema::table::{RelationName, Table};
use crate::sql::qualified;
use crate::state::{self, LARGE_OBJECTS, Offer, Part, Relation};
use crate::wire::{Canceller, Connection, Settings};

/// How many sessions work at once on each server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Workers {
    /// Sessions that move rows.
    pub jobs: usize,
    /// Sessions that build large indexes and check large tables.
    pub index_jobs: usize,
}

/// So many more sessions make post-data items that read little, if the target has room for them: most of the time of each is a wait for the disk, to which a
/// new index is written at once.
const MORE_FOR_CHEAP: usize = 2;

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
    source: Config,
    pub(super) target: Config,
    pub(super) offer: Offer,
    tables: HashMap<u32, TableJob>,
    ddl: ddl::Options,
    failures: Arc<Failures>,
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
    fn part_is_done(&self, part: &Part) -> bool {
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

/// How often the server is asked how far its indexes are; most are built in less.
const LOOK: Duration = Duration::from_secs(2);

/// Reports how far the indexes are that are being built, until it is told to end or the server can't be asked.
async fn watch_builds(copy: Arc<Copy>, ended: CancellationToken) {
    let mut session: Option<Connection> = None;
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = ended.cancelled() => break,
        }
        if !copy.progress.is_active(&["index", "constraint"]) {
            copy.progress.set_builds(Vec::new());
            continue;
        }
        let builds = async {
            let session = match &mut session {
                Some(session) => session,
                none => {
                    none.insert(Connection::connect(&copy.target, Side::Target, &Settings::session()).await?)
                }
            };
            activity::running_builds(session).await
        };
        match builds.await {
            Ok(builds) => copy.progress.set_builds(builds.iter().map(ToString::to_string).collect()),
            Err(error) => {
                tracing::debug!(%error, "could not see how far indexes are");
                break;
            }
        }
    }
    copy.progress.set_builds(Vec::new());
    if let Some(session) = session {
        session.close().await;
    }
}

/// Joins every task of a set; the first that fails aborts the others. A failure outranks a stop.
async fn join(set: &mut JoinSet<Result<()>>, abort: &CancellationToken, failure: &mut Option<Error>) {
    while let Some(joined) = set.join_next().await {
        let result = joined.unwrap_or_else(|e| Err(Error::failed(format!("a worker ended abnormally: {e}"))));
        if let Err(error) = result {
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

/// The snapshot, with the session that holds a lock on every table.
type Holder = Arc<tokio::sync::Mutex<Snapshot>>;

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

async fn move_rows(copy: &Copy, holder: Option<&Holder>, sessions: &Mutex<Vec<Canceller>>) -> Result<()> {
    if locked(&copy.open).is_empty() {
        return Ok(());
    }
    let mut source = snapshot::join(&copy.source, &copy.offer.snapshot).await?;
    locked(sessions).push(source.canceller());
    let mut target = session(&copy.target).await?;
    locked(sessions).push(target.canceller());
    // Relations that only the holder can still read.
    let mut left = HashSet::new();
    loop {
        target.pipeline(&BEGIN).await?;
        let parts = state::claim(&mut target, copy.offer.run, &left, SMALL, SMALL_PARTS).await?;
        if parts.is_empty() {
            target.execute("ROLLBACK").await?;
            // Registered before looking, as in `make_items`.
            let finished = copy.finished.notified();
            if locked(&copy.open).is_empty() || !elsewhere::is_worth_waiting(copy, &mut target).await? {
                target.close().await;
                source.close().await;
                return Ok(());
            }
            tokio::select! {
                () = finished => {}
                () = tokio::time::sleep(elsewhere::AGAIN) => {}
            }
            continue;
        }
        // Held until these parts are copied, where the worker's own session has to wait.
        let mut held = None;
        if !share(copy, &parts, &mut source).await? {
            let Some(holder) = holder else {
                target.execute("ROLLBACK").await?;
                left.extend(parts.iter().map(|part| part.relation));
                continue;
            };
            let snapshot = held.insert(holder.lock().await);
            locked(sessions).push(snapshot.connection().canceller());
        }
        let source = held.as_mut().map_or(&mut source, |snapshot| snapshot.connection());
        let (objects, rows): (Vec<&Part>, Vec<&Part>) =
            parts.iter().partition(|part| part.relation == LARGE_OBJECTS);
        let mut jobs: Vec<(&TableJob, &Part)> = Vec::with_capacity(rows.len());
        for part in &rows {
            jobs.push((copy.tables.get(&part.relation).ok_or_else(|| missing(part))?, part));
        }
        let mut copied = copy_parts(&jobs, copy.offer.lsn, source, &mut target, &copy.progress).await?;
        for part in &objects {
            let (content, lsn) = (&copy.ddl, copy.offer.lsn);
            copied.push(
                large_object::copy_part(part, content, lsn, source, &mut target, &copy.progress).await?,
            );
        }
        let mut commit: Vec<&str> = copied.iter().map(|copied| copied.finish.as_str()).collect();
        commit.push("COMMIT");
        fault::step("part commit", async { target.pipeline(&commit).await.map_err(Error::from) }).await?;
        for (part, copied) in rows.iter().chain(&objects).zip(&copied) {
            if copy.part_is_done(part) {
                copy.progress.add_part(copied.rows);
            }
        }
    }
}

/// How long a worker waits for its lock on a table.
const LOCK_WAIT: &str = "500ms";

/// Locks the tables of these parts; `false` where another session's TRUNCATE or ALTER TABLE waits for the snapshot's holder to let them go. The server
/// puts a worker behind it in the queue, and so both would wait for ever; the holder itself, which has the lock, may still read.
///
/// A holder whose session was lost has let go of its locks: that no table was rewritten since is made sure of once more.
async fn share(copy: &Copy, parts: &[Part], source: &mut Connection) -> Result<bool> {
    let tables: Vec<&Table> =
        parts.iter().filter_map(|part| copy.tables.get(&part.relation)).map(|job| &job.table).collect();
    if tables.is_empty() {
        return Ok(true);
    }
    let names: Vec<String> =
        tables.iter().map(|table| format!("ONLY {}", qualified(&table.schema, &table.name))).collect();
    let tried = source
        .pipeline(&[
            "SAVEPOINT locks".to_owned(),
            format!("SET LOCAL lock_timeout = '{LOCK_WAIT}'"),
            format!("LOCK TABLE {} IN ACCESS SHARE MODE", names.join(", ")),
            "SET LOCAL lock_timeout = 0".to_owned(),
            "RELEASE locks".to_owned(),
        ])
        .await;
    let Err(failure) = tried else {
        let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
        return match rewritten(source, &oids).await?.first() {
            None => Ok(true),
            Some(table) => Err(Error::failed(format!(
                "could not copy table \"{table}\": it was truncated, rewritten or renamed on the source after the snapshot was taken"
            ))
            .with_detail("The session that kept it locked was lost.")
            .with_hint("Run the same command again: what is done is kept, and the rest is copied from a new snapshot.")),
        };
    };
    if source.is_broken() {
        return Err(failure.error);
    }
    let waited = failure.error.sqlstate().is_some_and(|s| s.as_str() == "55P03");
    source.execute("ROLLBACK TO locks").await?;
    // Whatever else is wrong with a table, its COPY says better.
    Ok(!waited)
}

fn missing(part: &Part) -> Error {
    Error::failed(format!("table with OID {} is no longer on the source", part.relation))
        .with_hint("It was dropped since the migration began: start anew with --restart.")
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

/// What the progress says of items that are made together: the first index that is built, or else the first item, stands for all.
fn what(items: &[Item]) -> Option<String> {
    let item = items.iter().find(|item| matches!(item.kind, "INDEX" | "CONSTRAINT")).or(items.first())?;
    let more = match items.len() {
        1 => String::new(),
        all => format!(" and {} more", all - 1),
    };
    Some(format!("{} {}{more}", item.kind.to_lowercase(), item.name))
}

async fn make_items(copy: &Copy, is_spare: bool, sessions: &Mutex<Vec<Canceller>>) -> Result<()> {
    let mut target: Option<Connection> = None;
    loop {
        // Registered before looking, so that what is finished in between wakes us.
        let finished = copy.finished.notified();
        let work = locked(&copy.post_data).take();
        let positions = match work {
            Work::Done => break,
            Work::Wait => {
                finished.await;
                continue;
            }
            Work::Make(positions) => positions,
        };
        let session = match &mut target {
            Some(session) => session,
            None => {
                let opened = match session(&copy.target).await {
                    Err(error) if is_spare && is_full(&error) => {
                        locked(&copy.post_data).give_back(&positions);
                        copy.finished.notify_waiters();
                        return Ok(());
                    }
                    opened => opened?,
                };
                locked(sessions).push(opened.canceller());
                target.insert(opened)
            }
        };
        let items: Vec<_> = {
            let post_data = locked(&copy.post_data);
            positions.iter().map(|&position| post_data.item(position).clone()).collect()
        };
        let _active = what(&items).map(|what| copy.progress.begin(what));
        let items: Vec<_> = items.iter().collect();
        apply_items(session, &items, &copy.failures, &copy.progress).await?;
        locked(&copy.post_data).finish(&positions);
        copy.finished.notify_waiters();
    }
    copy.finished.notify_waiters();
    if let Some(session) = target {
        session.close().await;
    }
    Ok(())
}
