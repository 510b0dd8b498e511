//! Keeps the source's tables as they are while they are copied: ACCESS SHARE, as pg_dump takes it, which only DDL has to wait for.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use crate::catalog::server::{Blocker, blockers, rewritten};
use crate::copy;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::schema::table::Table;
use crate::sql::qualified;
use crate::wire::Connection;

/// Tables named by one LOCK statement.
const BATCH: usize = 200;

/// Between two looks at who is in the way.
const TICK: Duration = Duration::from_millis(100);

/// How long one try waits; then it is said who is in the way.
const TRY: Duration = Duration::from_secs(2);

const COULD_NOT: &str = "could not lock the source's tables for reading";

/// Waits, at most `limit`, until no other session keeps a relation of users locked against everything: reading the definition and the size
/// of such a one would wait without end, and without a word.
///
/// # Errors
/// A relation that stays locked: it is named, with the session. A cancelled `stop`.
pub async fn wait(
    source: &mut Connection,
    limit: Duration,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<()> {
    let begun = Instant::now();
    let mut told = false;
    loop {
        let in_the_way = blockers(source, None).await?;
        if in_the_way.is_empty() {
            return Ok(());
        }
        if begun.elapsed() >= limit {
            let error =
                Error::failed(format!("{COULD_NOT}: canceling after waiting {} ms", limit.as_millis()));
            return Err(timed_out(error, &in_the_way));
        }
        if !told {
            for blocker in &in_the_way {
                progress.note(format!("waiting for a lock on source table \"{}\": {blocker}", blocker.table));
            }
            told = true;
        }
        tokio::select! {
            () = tokio::time::sleep(TICK.min(limit)) => {}
            () = stop.cancelled() => return Err(Error::stopped()),
        }
    }
}

/// Lets the server wait at most `limit` for what is locked after [`wait`] has looked.
pub async fn limit(session: &mut Connection, limit: Duration) -> Result<()> {
    session.execute(&format!("SET lock_timeout = {}", limit.as_millis().max(1))).await
}

/// Locks every table with rows in ACCESS SHARE mode for the transaction of `holder`; `observer` is another session of the source. Waits
/// at most `limit` in all. Names the tables that are no longer, or no longer in the same file, what the holder's snapshot says they are;
/// not all tables may be locked then.
///
/// # Errors
/// A table that another session keeps locked (it is named, with the session), or one without SELECT privilege. A cancelled `stop`.
pub(super) async fn share(
    holder: &mut Connection,
    observer: &mut Connection,
    tables: &[Table],
    limit: Duration,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<Vec<String>> {
    let tables: Vec<&Table> = tables.iter().filter(|table| table.has_rows()).collect();
    let begun = Instant::now();
    for batch in tables.chunks(BATCH) {
        let names: Vec<String> = batch.iter().map(|t| qualified(&t.schema, &t.name)).collect();
        let oids: Vec<u32> = batch.iter().map(|t| t.oid).collect();
        let mut told = false;
        loop {
            let wait = TRY.min(limit).as_millis().max(1);
            let lock = [
                format!("SET LOCAL lock_timeout = {wait}"),
                format!("LOCK TABLE ONLY {} IN ACCESS SHARE MODE", names.join(", ONLY ")),
                "SET LOCAL lock_timeout = 0".to_owned(),
            ];
            let refused = copy::guarded(holder, &lock).await.map_err(|error| error.context(COULD_NOT))?;
            let Some(error) = refused else { break };
            if stop.is_cancelled() {
                return Err(Error::stopped());
            }
            let state = error.sqlstate();
            match state.as_ref().map(|s| s.as_str()) {
                Some("55P03") => {}
                // Dropped or renamed: there is no such table, no such schema, or something else of that name.
                Some("42P01" | "3F000" | "42809") => {
                    let moved = rewritten(holder, &oids).await?;
                    return if moved.is_empty() { Err(explain(error, observer)) } else { Ok(moved) };
                }
                _ => return Err(explain(error, observer)),
            }
            let in_the_way = blockers(observer, Some(&oids)).await?;
            if begun.elapsed() >= limit {
                return Err(timed_out(error.context(COULD_NOT), &in_the_way));
            }
            if !told {
                for blocker in &in_the_way {
                    progress
                        .note(format!("waiting for a lock on source table \"{}\": {blocker}", blocker.table));
                }
                told = true;
            }
        }
    }
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    rewritten(holder, &oids).await
}

fn timed_out(mut error: Error, blockers: &[Blocker]) -> Error {
    for blocker in blockers {
        error = error.with_detail(format!("Table \"{}\": {blocker}.", blocker.table));
    }
    let hint = match blockers.first().and_then(|blocker| blocker.pid) {
        Some(pid) => format!(
            "Wait for it to end, or end it with SELECT pg_terminate_backend({pid}); then run the same command again. --lock-wait-timeout sets how long to wait."
        ),
        None => "Run the same command again; --lock-wait-timeout sets how long to wait.".to_owned(),
    };
    error.with_hint(hint)
}

fn explain(error: Error, observer: &Connection) -> Error {
    let denied = error.sqlstate().is_some_and(|s| s.as_str() == "42501");
    let error = error.context(COULD_NOT);
    if denied {
        let user = crate::sql::ident(&observer.config().user);
        return error.with_hint(format!("Grant it on the source: GRANT SELECT ON that table TO {user};"));
    }
    error
}
