//! The consistent point that all parts of a run are copied at.

use pgstream_proto::lsn::Lsn;

use crate::config::{Config, Side};
use crate::error::{Error, Result};
use crate::sql::literal;
use crate::wire::{Connection, Settings};

/// A snapshot of the source, exported by a session that stays in its transaction as long as other sessions may want it.
#[derive(Debug)]
pub struct Snapshot {
    connection: Connection,
    /// The session that exported the snapshot, where it is another one: it must stay idle.
    exporter: Option<Connection>,
    name: String,
    lsn: Lsn,
}

impl Snapshot {
    /// Takes a snapshot for the method `copy`, on a primary or a standby.
    pub async fn export(source: &Config) -> Result<Snapshot> {
        let mut connection = Connection::connect(source, Side::Source, &Settings::session()).await?;
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        // A position read after the snapshot is taken is at or past it; what matters here is that it isn't before.
        let row = connection
            .query_one(
                "SELECT pg_catalog.pg_export_snapshot(), CASE WHEN pg_catalog.pg_is_in_recovery() \
                 THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_lsn() END",
                &[],
            )
            .await
            .map_err(|e| e.context("could not export a snapshot of the source"))?;
        let lsn = row.value::<String>(1)?.parse().map_err(|e| Error::failed(format!("{e}")))?;
        Ok(Snapshot { name: row.value(0)?, lsn, connection, exporter: None })
    }

    /// Takes over a snapshot that a slot's creation exported at its consistent point `lsn`; `exporter` is the session that made the slot.
    pub async fn adopt(source: &Config, exporter: Connection, name: String, lsn: Lsn) -> Result<Snapshot> {
        let connection = join(source, &name).await?;
        Ok(Snapshot { connection, exporter: Some(exporter), name, lsn })
    }

    /// The session that holds the snapshot: it reads the catalogs at the same point.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// The snapshot's name, for other sessions of the same database.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is a slot's: then it sees exactly the transactions that commit before [`lsn`](Self::lsn).
    pub fn is_exact(&self) -> bool {
        self.exporter.is_some()
    }

    /// The position of the write-ahead log that the snapshot stands at.
    pub fn lsn(&self) -> Lsn {
        self.lsn
    }

    /// Lets the snapshot go.
    pub async fn release(self) {
        self.connection.close().await;
        if let Some(exporter) = self.exporter {
            exporter.close().await;
        }
    }
}

/// Opens a session of the source that sees what the snapshot sees.
///
/// # Errors
/// The server's: the snapshot is gone with the session that exported it, or is another server's.
pub async fn join(source: &Config, snapshot: &str) -> Result<Connection> {
    let mut connection = Connection::connect(source, Side::Source, &Settings::session()).await?;
    let statements = [
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY".to_owned(),
        format!("SET TRANSACTION SNAPSHOT {}", literal(snapshot)),
    ];
    connection
        .pipeline(&statements)
        .await
        .map_err(|e| Error::from(e).context("could not join the snapshot of the source"))?;
    Ok(connection)
}
