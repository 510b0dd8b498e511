//! One pgstream a target database: session-level advisory locks.
//!
//! The run's own session holds one lock alone; its workers' sessions, on this host and on others, share a second one; a cutover, which may have a run
//! beside it, holds a third. A pgstream that is killed leaves sessions behind,
//! which go on with the statement they are in, an index's build for instance, and even commit it. So who gets the first lock ends whoever still holds the
//! second, takes back the snapshot that they worked under ([`offer`]), and only then looks at what is done.

use std::time::Duration;

use tokio::time::Instant;

use super::offer;
use crate::error::{Error, Result};
use crate::wire::Connection;

/// The key of the lock that a run holds: advisory locks are per database, so one number serves every database.
fn key() -> i64 {
    i64::from(crc32fast::hash(b"pgstream migration"))
}

/// The key of the lock that workers share.
fn worker_key() -> i64 {
    i64::from(crc32fast::hash(b"pgstream worker"))
}

/// The key of the lock that a cutover holds.
fn cutover_key() -> i64 {
    i64::from(crc32fast::hash(b"pgstream cutover"))
}

/// Between two looks at a lock that another session has.
const TICK: Duration = Duration::from_millis(100);

/// The session of a pgstream that was killed holds its lock until the server notices: at once when it is idle, after a second in a statement, or some
/// more on a busy host.
const NOTICED_IDLE: Duration = Duration::from_millis(500);
const NOTICED_ACTIVE: Duration = Duration::from_secs(12);

/// How long sessions that were told to end may take.
const FENCE: Duration = Duration::from_secs(60);

/// Takes the target database for this session, until it ends, and ends what sessions an earlier run has left in it.
///
/// # Errors
/// When another session has it: says which. When an earlier run's session does not end.
pub async fn lock(target: &mut Connection) -> Result<()> {
    acquire(target, key(), "another pgstream is working on").await?;
    offer::end_earlier(target).await
}

/// Makes this session the target's only cutover, until it ends: what one makes read-only, a second that fails would give back.
///
/// # Errors
/// When another session is at it: says which.
pub async fn lock_cutover(target: &mut Connection) -> Result<()> {
    acquire(target, cutover_key(), "another pgstream cuts over").await
}

/// Takes the lock `key`, or says that `other` has the database; the lock of a session that was left over is waited for.
async fn acquire(target: &mut Connection, key: i64, other: &str) -> Result<()> {
    let begun = Instant::now();
    while !try_key(target, key).await? {
        let holders = holders(target, key).await?;
        // A session that may not be seen counts as one that works.
        let active = holders.iter().any(|holder| !holder.idle);
        let limit = if active { NOTICED_ACTIVE } else { NOTICED_IDLE };
        if begun.elapsed() >= limit {
            let mut error = Error::usage(format!("{other} target database \"{}\"", target.config().dbname));
            if let Some(holder) = holders.first() {
                error = error.with_detail(format!("It is {}.", holder.description));
            }
            return Err(
                error.with_hint("Wait for it to end or stop it; `pgstream status` shows what it does.")
            );
        }
        tokio::time::sleep(TICK).await;
    }
    Ok(())
}

/// As [`lock`], for those who can wait: `false` where another session has it.
///
/// # Errors
/// When an earlier run's session does not end.
pub async fn try_lock(target: &mut Connection) -> Result<bool> {
    let taken = try_key(target, key()).await?;
    if taken {
        offer::end_earlier(target).await?;
    }
    Ok(taken)
}

async fn try_key(target: &mut Connection, key: i64) -> Result<bool> {
    let key = key.to_string();
    let row = target.query_one("SELECT pg_catalog.pg_try_advisory_lock($1)", &[Some(&key)]).await?;
    Ok(row.is_true(0))
}

/// Keeps the target for a run whose session `own` (a process ID) took it: a server that restarts forgets its locks. Where that session is gone, this
/// one takes its place; `false` when another pgstream was faster.
pub async fn keep(target: &mut Connection, own: u32) -> Result<bool> {
    let held = |holder: &Holder| u32::try_from(holder.pid) == Ok(own);
    if holders(target, key()).await?.iter().any(held) {
        return Ok(true);
    }
    // A session that has it gets it again.
    try_key(target, key()).await
}

/// Makes this session known as one that works for the run which holds the target.
pub async fn join_run(target: &mut Connection) -> Result<()> {
    target.query(&joins_run(), &[]).await.map(drop)
}

/// The statement by which a session [joins a run](join_run).
pub fn joins_run() -> String {
    format!("SELECT pg_catalog.pg_advisory_lock_shared({})", worker_key())
}

/// Ends the sessions of workers whose run is gone, and waits until what they did is committed or undone. `look`, an expression, is told then.
pub(super) async fn end_workers(target: &mut Connection, look: &str) -> Result<bool> {
    let begun = Instant::now();
    let text = worker_key().to_string();
    // Had and let go at once: nobody else is there.
    let sql = format!(
        "SELECT CASE WHEN pg_catalog.pg_try_advisory_lock($1) THEN pg_catalog.pg_advisory_unlock($1) ELSE false END, {look}"
    );
    loop {
        let row = target.query_one(&sql, &[Some(&text)]).await?;
        if row.is_true(0) {
            return Ok(row.is_true(1));
        }
        let left = holders(target, worker_key()).await?;
        if begun.elapsed() >= FENCE {
            let mut error = Error::failed("sessions of an earlier run of pgstream still work on the target");
            for holder in &left {
                error = error.with_detail(format!("It is {}.", holder.description));
            }
            return Err(error.with_hint("Wait for them to end, or end them with pg_terminate_backend; then run the same command again."));
        }
        for holder in &left {
            end(target, holder).await?;
        }
        tokio::time::sleep(TICK).await;
    }
}

/// Ends the session `pid` that this run has lost, where the server hasn't noticed it yet, and waits until what it did is committed or undone: it goes on
/// with what it was sent, be it a COMMIT. It must have [joined the run](join_run).
pub async fn end_lost_session(target: &mut Connection, pid: u32) -> Result<()> {
    let begun = Instant::now();
    let lost = |holder: &Holder| u32::try_from(holder.pid) == Ok(pid);
    while let Some(holder) = holders(target, worker_key()).await?.into_iter().find(lost) {
        if begun.elapsed() >= FENCE {
            return Err(Error::connection("a session that was lost still works on the target")
                .with_detail(format!("It is {}.", holder.description)));
        }
        end(target, &holder).await?;
        tokio::time::sleep(TICK).await;
    }
    Ok(())
}

/// Tells a session to end. Another role's session can't be ended by everyone: it is waited for.
async fn end(target: &mut Connection, holder: &Holder) -> Result<()> {
    let pid = holder.pid.to_string();
    if let Err(error) = target.query("SELECT pg_catalog.pg_terminate_backend($1)", &[Some(&pid)]).await {
        if target.is_broken() {
            return Err(error);
        }
        tracing::debug!(%error, holder.pid, "could not end a session that is left on the target");
    }
    Ok(())
}

/// The session that holds the target, in words; `None` when nobody does.
pub async fn lock_holder(target: &mut Connection) -> Result<Option<String>> {
    Ok(holders(target, key()).await?.into_iter().next().map(|holder| holder.description))
}

/// Whether a session, be it this one, holds the advisory lock `key` of this database.
pub(super) async fn is_held(target: &mut Connection, key: i64) -> Result<bool> {
    let (high, low) = ((key >> 32).to_string(), (key & 0xffff_ffff).to_string());
    let row = target
        .query_one(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.locktype = 'advisory' AND l.granted \
               AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) \
               AND l.classid::int8 = $1 AND l.objid::int8 = $2 AND l.objsubid = 1)",
            &[Some(&high), Some(&low)],
        )
        .await?;
    Ok(row.is_true(0))
}

struct Holder {
    pid: i32,
    /// It waits for its client, in a transaction or not.
    idle: bool,
    description: String,
}

/// The sessions that hold the advisory lock `key` of this database, this one left out.
async fn holders(target: &mut Connection, key: i64) -> Result<Vec<Holder>> {
    let (high, low) = ((key >> 32).to_string(), (key & 0xffff_ffff).to_string());
    let rows = target
        .query(
            "SELECT l.pid, coalesce(a.usename::text, '?'), coalesce(pg_catalog.host(a.client_addr), 'the server''s own host'), \
                    coalesce(a.backend_start::text, '?'), coalesce(a.state LIKE 'idle%', false) \
             FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
             WHERE l.locktype = 'advisory' AND l.granted AND l.classid::int8 = $1 AND l.objid::int8 = $2 AND l.objsubid = 1 \
               AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) \
               AND l.pid <> pg_catalog.pg_backend_pid()",
            &[Some(&high), Some(&low)],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let text = |index| row.text(index).unwrap_or("?");
            Ok(Holder {
                pid: row.value(0)?,
                idle: row.is_true(4),
                description: format!(
                    "process {} of user \"{}\", connected from {} since {}",
                    text(0),
                    text(1),
                    text(2),
                    text(3)
                ),
            })
        })
        .collect()
}
