//! One pgstream a target database: a session-level advisory lock.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::wire::Connection;

/// The advisory lock's key: advisory locks are per database, so one number serves every database.
fn key() -> i64 {
    i64::from(crc32fast::hash(b"pgstream migration"))
}

/// How long the session of a run that was killed may still be there: its server notices after a second that nobody listens any more
/// (from PostgreSQL 14), or when its statement ends.
const LINGER: Duration = Duration::from_secs(5);

/// Takes the target database for this session, until it ends. Waits a little for the session of a run that has just ended.
///
/// # Errors
/// When another session has it: says which.
pub async fn lock(target: &mut Connection) -> Result<()> {
    let key = key().to_string();
    let begun = Instant::now();
    loop {
        let row = target.query_one("SELECT pg_catalog.pg_try_advisory_lock($1)", &[Some(&key)]).await?;
        if row.is_true(0) {
            return Ok(());
        }
        if begun.elapsed() >= LINGER {
            break;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let holder = lock_holder(target).await?;
    let error = Error::usage(format!(
        "another pgstream is working on target database \"{}\"",
        target.config().dbname
    ));
    Err(match holder {
        Some(holder) => error.with_detail(format!("It is {holder}.")),
        None => error,
    }
    .with_hint("Wait for it to end or stop it; `pgstream status` shows what it does."))
}

/// Whether this very session holds the target.
pub async fn is_locked_here(target: &mut Connection) -> Result<bool> {
    let key = key();
    let (high, low) = ((key >> 32).to_string(), (key & 0xffff_ffff).to_string());
    let row = target
        .query_one(
            "SELECT EXISTS (SELECT FROM pg_catalog.pg_locks l WHERE l.locktype = 'advisory' AND l.granted \
             AND l.pid = pg_catalog.pg_backend_pid() AND l.classid::int8 = $1 AND l.objid::int8 = $2 AND l.objsubid = 1)",
            &[Some(&high), Some(&low)],
        )
        .await?;
    Ok(row.is_true(0))
}

/// The session that holds the target, in words; `None` when nobody does.
pub async fn lock_holder(target: &mut Connection) -> Result<Option<String>> {
    let key = key();
    let (high, low) = ((key >> 32).to_string(), (key & 0xffff_ffff).to_string());
    let rows = target
        .query(
            "SELECT l.pid, coalesce(a.usename::text, '?'), coalesce(pg_catalog.host(a.client_addr), 'the server''s own host'), \
                    coalesce(a.backend_start::text, '?') \
             FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
             WHERE l.locktype = 'advisory' AND l.granted AND l.classid::int8 = $1 AND l.objid::int8 = $2 AND l.objsubid = 1 \
               AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())",
            &[Some(&high), Some(&low)],
        )
        .await?;
    Ok(rows.first().map(|row| {
        let text = |index| row.text(index).unwrap_or("?");
        format!("process {} of user \"{}\", connected from {} since {}", text(0), text(1), text(2), text(3))
    }))
}
