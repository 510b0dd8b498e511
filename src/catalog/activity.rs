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
