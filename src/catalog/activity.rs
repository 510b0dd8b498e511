//! What the sessions of a server are doing right now.

use std::collections::{HashMap, HashSet};

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

/// An index that is being built.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct RunningBuild {
    /// Schema of the table.
    pub schema: String,
    /// The table's name; the index itself is seen only once it is there.
    pub table: String,
    /// What the server is at.
    pub phase: String,
    /// How much of that is done, in percent, where the server can tell.
    pub percent: Option<u8>,
}

impl std::fmt::Display for RunningBuild {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "index on {}.{}: {}", self.schema, self.table, self.phase)?;
        match self.percent {
            Some(percent) => write!(f, " {percent} %"),
            None => Ok(()),
        }
    }
}

/// The indexes that are being built in the connected database; servers before 12 don't say.
pub async fn running_builds(connection: &mut Connection) -> Result<Vec<RunningBuild>> {
    if connection.version() < 120_000 {
        return Ok(Vec::new());
    }
    let sql = "SELECT n.nspname AS schema, c.relname AS table, p.phase,
           CASE WHEN p.tuples_total > 0 THEN least(100, p.tuples_done * 100 / p.tuples_total)
                WHEN p.blocks_total > 0 THEN least(100, p.blocks_done * 100 / p.blocks_total) END AS percent
         FROM pg_catalog.pg_stat_progress_create_index p JOIN pg_catalog.pg_class c ON c.oid = p.relid
           JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE p.datname = pg_catalog.current_database() ORDER BY p.pid";
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

/// How many rows of each table of the connected database (OID) have been written so far, as far as sessions have told: they do so within some seconds.
pub async fn rows_written(connection: &mut Connection) -> Result<HashMap<u32, i64>> {
    let sql =
        "SELECT s.relid::int8, s.n_tup_ins + s.n_tup_upd + s.n_tup_del FROM pg_catalog.pg_stat_user_tables s";
    connection.query(sql, &[]).await?.iter().map(|row| Ok((row.value(0)?, row.value(1)?))).collect()
}

/// Tables (schema, name) without statistics, or whose rows have changed so much since that autovacuum with its defaults would collect them again.
pub async fn read_changed(connection: &mut Connection) -> Result<HashSet<(String, String)>> {
    let rows = connection
        .query(
            "SELECT s.schemaname::text, s.relname::text FROM pg_catalog.pg_stat_all_tables s JOIN pg_catalog.pg_class c ON c.oid = s.relid \
             WHERE coalesce(s.last_analyze, s.last_autoanalyze) IS NULL OR s.n_mod_since_analyze > 50 + 0.1 * greatest(c.reltuples, 0)",
            &[],
        )
        .await?;
    rows.iter().map(|row| Ok((row.value(0)?, row.value(1)?))).collect()
}
