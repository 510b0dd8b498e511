//! What a spool holds of the stream: the one piece of a migration that is neither on the source any more nor on the target yet.
//!
//! The files of a spool are on one host; the row says which, and between which positions they hold every change. It is advanced after the files are durable, and
//! before the source is told that it may let go of its log. Hence, at any moment: confirmed to the source ≤ the larger of checkpoint and `to` ≤ what the files
//! hold. Where `to` isn't past the checkpoint, the files hold nothing that is needed.

use pgstream_proto::lsn::Lsn;

use crate::error::{Error, Result};
use crate::wire::Connection;

/// The spool of a migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spool {
    /// Names it among all that the target has known: it stands in each of the files.
    pub id: String,
    /// The host that has the files.
    pub host: String,
    /// The folder there.
    pub directory: String,
    /// Where it begins: a checkpoint.
    pub from: Lsn,
    /// Up to where its files are durable and complete.
    pub to: Lsn,
}

const TABLE: &str = "CREATE TABLE IF NOT EXISTS pgstream.spool (
        only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
        id text NOT NULL,
        host text NOT NULL,
        directory text NOT NULL,
        held_from pg_lsn NOT NULL,
        held_to pg_lsn NOT NULL,
        updated_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()) WITH (fillfactor = 10)";

/// The spool, or `None` where there has been none.
pub async fn read(target: &mut Connection) -> Result<Option<Spool>> {
    if target.query_one(THERE, &[]).await?.is_true(0) { row(target).await } else { Ok(None) }
}

/// Where [`TABLE`] is there.
pub(super) const THERE: &str = "SELECT pg_catalog.to_regclass('pgstream.spool') IS NOT NULL";

pub(super) async fn row(target: &mut Connection) -> Result<Option<Spool>> {
    let sql = "SELECT id, host, directory, held_from, held_to FROM pgstream.spool";
    let rows = target.query(sql, &[]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let lsn = |text: String| text.parse().map_err(|e| Error::failed(format!("{e}")));
    Ok(Some(Spool {
        id: row.value(0)?,
        host: row.value(1)?,
        directory: row.value(2)?,
        from: lsn(row.value(3)?)?,
        to: lsn(row.value(4)?)?,
    }))
}

/// Records a new spool, in place of one that is used up. It holds nothing yet.
pub async fn begin(target: &mut Connection, host: &str, directory: &str, from: Lsn) -> Result<Spool> {
    target.execute(TABLE).await?;
    // No transaction of a cluster has the number of another one.
    let sql = "INSERT INTO pgstream.spool (id, host, directory, held_from, held_to) \
         VALUES (pg_catalog.txid_current() || '-' || extract(epoch FROM pg_catalog.clock_timestamp()), $1, $2, $3, $3) \
         ON CONFLICT (only_one) DO UPDATE SET id = excluded.id, host = excluded.host, directory = excluded.directory, \
           held_from = excluded.held_from, held_to = excluded.held_to, updated_at = excluded.updated_at RETURNING id";
    let row = target.query_one(sql, &[Some(host), Some(directory), Some(&from.to_string())]).await?;
    Ok(Spool { id: row.value(0)?, host: host.to_owned(), directory: directory.to_owned(), from, to: from })
}

/// Records where the files are now.
pub async fn found(target: &mut Connection, host: &str, directory: &str) -> Result<()> {
    let sql = "UPDATE pgstream.spool SET host = $1, directory = $2 WHERE (host, directory) <> ($1, $2)";
    target.query(sql, &[Some(host), Some(directory)]).await.map(drop)
}

/// Records, durably, that the files hold everything up to `to`.
///
/// # Errors
/// Also where the target has another spool by now.
pub async fn advance(target: &mut Connection, spool: &Spool, to: Lsn) -> Result<()> {
    let sql = "UPDATE pgstream.spool SET held_to = $2, updated_at = pg_catalog.clock_timestamp() WHERE id = $1 AND held_to <= $2 RETURNING 1";
    if target.query(sql, &[Some(&spool.id), Some(&to.to_string())]).await?.is_empty() {
        return Err(Error::failed("another pgstream has taken the spool over in the meantime"));
    }
    Ok(())
}
