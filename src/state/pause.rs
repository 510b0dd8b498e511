//! A pause of the stream, asked for by who wants to compare both sides at one position.
//!
//! Whoever asks holds an advisory lock as long as it wants the pause: a comparison that is killed lets the stream go on. The run that
//! follows the source stands still once everything up to the position is applied, and nothing after it.

use pgstream_proto::lsn::Lsn;

use super::lock::is_held;
use crate::error::{Error, Result};
use crate::fault;
use crate::wire::{Connection, Row};

/// A pause that somebody asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    /// Where the stream is to stand still.
    pub wanted: Lsn,
    /// Where it stands, once it does.
    pub reached: Option<Lsn>,
}

/// The key of the lock that whoever wants the pause holds.
fn key() -> i64 {
    i64::from(crc32fast::hash(b"pgstream pause"))
}

/// The pause that is asked for; `None` where nobody wants it any more.
pub async fn pause(target: &mut Connection) -> Result<Option<Pause>> {
    let rows = target.query(ROW, &[]).await?;
    of(target, &rows).await
}

/// The row of a pause, which whoever asked for it may have left behind.
pub(super) const ROW: &str = "SELECT wanted, reached FROM pgstream.pause";

/// What [`ROW`] has found, if it is still wanted.
pub(super) async fn of(target: &mut Connection, rows: &[Row]) -> Result<Option<Pause>> {
    let Some(row) = rows.first() else { return Ok(None) };
    if !is_held(target, key()).await? {
        return Ok(None);
    }
    let lsn = |text: String| text.parse().map_err(|e| Error::failed(format!("{e}")));
    Ok(Some(Pause { wanted: lsn(row.value(0)?)?, reached: row.optional(1)?.map(lsn).transpose()? }))
}

/// Asks the stream to stand still at `wanted`, until this session ends the pause or ends itself.
///
/// # Errors
/// The server's; a usage error where another session wants a pause.
pub async fn request_pause(target: &mut Connection, wanted: Lsn) -> Result<()> {
    let lock = "SELECT pg_catalog.pg_try_advisory_lock($1)";
    if !target.query_one(lock, &[Some(&key().to_string())]).await?.is_true(0) {
        return Err(Error::usage("another comparison has the stream stand still")
            .with_hint("Wait for it to end, then run the same command again."));
    }
    let sql = "INSERT INTO pgstream.pause (wanted) VALUES ($1) \
               ON CONFLICT (only_one) DO UPDATE SET wanted = excluded.wanted, reached = NULL";
    let wanted = wanted.to_string();
    fault::step("pause asked for", async { target.query(sql, &[Some(&wanted)]).await.map(drop) }).await
}

/// Says that the stream stands still.
pub async fn record_pause(target: &mut Connection, reached: Lsn) -> Result<()> {
    let sql = "UPDATE pgstream.pause SET reached = $1";
    let reached = reached.to_string();
    fault::step("pause reached", async { target.query(sql, &[Some(&reached)]).await.map(drop) }).await
}

/// Lets the stream go on.
pub async fn end_pause(target: &mut Connection) -> Result<()> {
    fault::step("pause over", target.execute("DELETE FROM pgstream.pause")).await?;
    // As often as it was taken.
    target.execute("SELECT pg_catalog.pg_advisory_unlock_all()").await
}
