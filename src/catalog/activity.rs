//! What the sessions of a server are doing right now.

use serde::Deserialize;

use super::fetch;
use crate::error::Result;
use crate::wire::Connection;

/// A `COPY … FROM` that is running.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct RunningCopy {
    /// Schema of the table; `None` while its transaction is the only one that sees it.
    pub schema: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// Bytes of CopyData taken so far.
    pub bytes: u64,
    /// Rows taken so far.
    pub rows: u64,
}

/// The copies that are running into the connected database; servers before 14 don't say.
pub async fn running_copies(connection: &mut Connection) -> Result<Vec<RunningCopy>> {
    if connection.version() < 140_000 {
        return Ok(Vec::new());
    }
    let sql = "SELECT n.nspname AS schema, c.relname AS name, p.bytes_processed AS bytes, p.tuples_processed AS rows
         FROM pg_catalog.pg_stat_progress_copy p LEFT JOIN pg_catalog.pg_class c ON c.oid = p.relid
           LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE p.datname = pg_catalog.current_database() AND p.command = 'COPY FROM' AND p.type = 'PIPE'
         ORDER BY p.pid";
    fetch(connection, sql).await
}

/// A stream of changes that the server sends.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Sender {
    /// Up to where the receiver has it.
    pub received: Option<String>,
    /// How long the last commits took until the receiver had made them durable, in seconds; `None` when nothing is on its way.
    pub lag_seconds: Option<f64>,
}

/// What the server says of the walsender with this process ID, if it lets the session's role see it.
pub async fn sender(connection: &mut Connection, pid: u32) -> Result<Option<Sender>> {
    let sql = format!(
        "SELECT write_lsn::text AS received, extract(epoch FROM flush_lag)::float8 AS lag_seconds \
         FROM pg_catalog.pg_stat_replication WHERE pid = {pid}"
    );
    Ok(fetch(connection, &sql).await?.pop())
}

/// Seconds from a time, as a server wrote it, to the server's present.
pub async fn seconds_since(connection: &mut Connection, time: &str) -> Result<f64> {
    let sql = "SELECT extract(epoch FROM pg_catalog.clock_timestamp() - $1::timestamptz)::float8";
    connection.query_one(sql, &[Some(time)]).await?.value(0)
}
