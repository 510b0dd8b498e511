//! The sessions that move rows: each claims parts, copies them under the snapshot, and marks them done in the transaction that filled them.
//!
//! In: what all workers share ([`Copy`]), and the snapshot's holder where that is in this process. Out: parts that are done. What may fail: either server; a
//! table that was rewritten on the source; a snapshot that is no longer offered.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};

use super::apply::{BEGIN, guarded};
use super::part::{SMALL, SMALL_PARTS, TableJob, copy_parts};
use super::snapshot::{self, Snapshot};
use super::worker::{Copy, locked, session};
use super::{elsewhere, large_object};
use crate::catalog::server::rewritten;
use crate::error::{Error, Result};
use crate::fault;
use crate::schema::table::Table;
use crate::sql::qualified;
use crate::state::{self, LARGE_OBJECTS, Part};
use crate::wire::{Canceller, Connection};

/// The snapshot, with the session that holds a lock on every table.
pub(super) type Holder = Arc<tokio::sync::Mutex<Snapshot>>;

/// Copies parts until none is left that this session, or the holder of the snapshot, can copy. Without a holder where that is in another process.
pub(super) async fn move_rows(
    copy: &Copy,
    holder: Option<&Holder>,
    sessions: &Mutex<Vec<Canceller>>,
) -> Result<()> {
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
            // Registered before looking, so that what is finished in between wakes us.
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
    let lock = [
        format!("SET LOCAL lock_timeout = '{LOCK_WAIT}'"),
        format!("LOCK TABLE {} IN ACCESS SHARE MODE", names.join(", ")),
        "SET LOCAL lock_timeout = 0".to_owned(),
    ];
    let Some(refused) = guarded(source, &lock).await? else {
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
    let waited = refused.sqlstate().is_some_and(|s| s.as_str() == "55P03");
    // Whatever else is wrong with a table, its COPY says better.
    Ok(!waited)
}

fn missing(part: &Part) -> Error {
    Error::failed(format!("table with OID {} is no longer on the source", part.relation))
        .with_hint("It was dropped since the migration began: start anew with --restart.")
}
