//! The logical replication slot on the source: made, examined, dropped.
//!
//! In: a session of the source, opened for replication. Out: a slot with the snapshot that it exported, or what is known of one that is there. What
//! may fail: the server's limits and privileges; a wait for transactions that don't end, which is bounded and names them; and a
//! slot that no longer fits the checkpoint, which is never made anew in silence: changes would be missing.

use std::time::Duration;

use pgstream_proto::lsn::Lsn;
use serde::Deserialize;
use tokio::time::Instant;

use crate::config::{Config, Side};
use crate::error::{Error, Result};
use crate::sql::{ident, literal};
use crate::wire::{Connection, Row, Settings};

/// The name of slot and publication for a migration into the database `database` of the cluster with this system identifier: the same on every run and from
/// every host, and another for every target.
pub fn object_name(target_system_identifier: &str, database: &str) -> String {
    let hash =
        |salt: &str| crc32fast::hash(format!("{salt}{target_system_identifier}/{database}").as_bytes());
    format!("pgstream_{:08x}{:08x}", hash(""), hash("pgstream"))
}

/// What IDENTIFY_SYSTEM says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SystemIdentity {
    /// The cluster's system identifier.
    pub system_identifier: String,
    /// The current timeline.
    pub timeline: u32,
    /// Up to where the log is written.
    pub position: Lsn,
}

/// Who the server is; `connection` is one for replication.
pub async fn identify_system(connection: &mut Connection) -> Result<SystemIdentity> {
    SystemIdentity::of(&connection.simple(IDENTIFY_SYSTEM).await?)
}

pub(super) const IDENTIFY_SYSTEM: &str = "IDENTIFY_SYSTEM";

impl SystemIdentity {
    /// What [`IDENTIFY_SYSTEM`] has answered.
    pub(super) fn of(rows: &[Row]) -> Result<SystemIdentity> {
        let row = rows.first().ok_or_else(|| Error::failed("the source did not answer IDENTIFY_SYSTEM"))?;
        Ok(SystemIdentity {
            system_identifier: row.value(0)?,
            timeline: row.value(1)?,
            position: lsn(&row.value::<String>(2)?)?,
        })
    }
}

pub(super) fn lsn(text: &str) -> Result<Lsn> {
    text.parse().map_err(|e| Error::failed(format!("{e}")))
}

/// A row of pg_replication_slots; columns that a major doesn't have are `None`.
#[derive(Debug, Clone, Deserialize)]
pub struct SlotState {
    /// The output plugin.
    pub plugin: Option<String>,
    /// The database.
    pub database: Option<String>,
    /// Whether someone streams from it.
    pub active: bool,
    /// Who.
    pub active_pid: Option<u32>,
    /// From where on the source keeps its log.
    pub restart_lsn: Option<String>,
    /// Up to where the stream was confirmed.
    pub confirmed_flush_lsn: Option<String>,
    /// `reserved`, `extended`, `unreserved` or `lost` (PostgreSQL 13).
    pub wal_status: Option<String>,
    /// How many bytes may still be written before the slot is in danger (PostgreSQL 13).
    pub safe_wal_size: Option<i64>,
    /// Why it is of no more use (PostgreSQL 17).
    pub invalidation_reason: Option<String>,
    /// Whether recovery took away rows that it needs (PostgreSQL 16).
    pub conflicting: Option<bool>,
}

impl SlotState {
    /// Why the slot can't be streamed from any more; `None` while it can.
    pub fn lost(&self) -> Option<String> {
        if let Some(reason) = &self.invalidation_reason {
            return Some(format!("it was invalidated: {reason}"));
        }
        if self.conflicting == Some(true) {
            return Some("it was invalidated by a conflict with recovery".to_owned());
        }
        match (self.wal_status.as_deref(), &self.restart_lsn) {
            (Some("lost"), _) => {
                Some("write-ahead log that it needs was removed (max_slot_wal_keep_size)".to_owned())
            }
            (_, None) => Some("it holds no write-ahead log".to_owned()),
            _ => None,
        }
    }

    /// From its row as JSON; `name` is for the error.
    pub(super) fn parse(json: &str, name: &str) -> Result<SlotState> {
        serde_json::from_str(json).map_err(|e| {
            Error::failed(format!("could not read the state of replication slot \"{name}\": {e}"))
        })
    }

    /// Up to where the stream was confirmed.
    pub fn confirmed(&self) -> Result<Option<Lsn>> {
        self.confirmed_flush_lsn.as_deref().map(lsn).transpose()
    }
}

/// The slot's state, or `None` where there is no such slot. Works on any session of the source, one for replication too.
pub async fn read_slot(connection: &mut Connection, name: &str) -> Result<Option<SlotState>> {
    let sql = format!(
        "SELECT pg_catalog.row_to_json(s) FROM pg_catalog.pg_replication_slots s WHERE s.slot_name = {}",
        literal(name)
    );
    let rows = connection.simple(&sql).await?;
    let Some(text) = rows.first().and_then(|row| row.text(0)) else { return Ok(None) };
    SlotState::parse(text, name).map(Some)
}

/// A slot that was just made.
#[derive(Debug)]
pub struct CreatedSlot {
    /// The session that exported the snapshot: the snapshot ends with its next command, and a temporary slot with the session.
    pub connection: Connection,
    /// The snapshot's name, for other sessions of the same database.
    pub snapshot: String,
    /// The snapshot sees all commits before this position; the stream begins with the first at or after it.
    pub consistent_point: Lsn,
}

/// A transaction that keeps a slot from being made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blocker {
    /// In words: `process 123 of user "app", in a transaction since 2024-05-01 10:00:00+00`.
    pub description: String,
}

/// How a slot is to be made.
#[derive(Debug, Clone)]
pub struct SlotRequest<'a> {
    /// Its name.
    pub name: &'a str,
    /// It ends with its session: for a snapshot alone.
    pub temporary: bool,
    /// How long to wait for transactions that were running before.
    pub timeout: Duration,
}

/// How often one looks who is being waited for.
const LOOK: Duration = Duration::from_secs(1);

/// Makes a logical slot for pgoutput and exports the snapshot of its consistent point. While it waits for transactions of the source to end,
/// `on_wait` is told for whom, about once a second.
///
/// # Errors
/// After `timeout`, with the transactions that were in the way; no slot is left behind then.
pub async fn create_slot(
    source: &Config,
    request: &SlotRequest<'_>,
    mut on_wait: impl FnMut(&[Blocker]),
) -> Result<CreatedSlot> {
    let mut connection = Connection::connect(source, Side::Source, &Settings::replication()).await?;
    let standby = source.primary.is_some();
    // What runs, and makes the slot wait, runs there.
    let writable = source.primary.as_deref().unwrap_or(source);
    let mut observer = Connection::connect(writable, Side::Source, &Settings::session()).await?;
    let temporary = if request.temporary { " TEMPORARY" } else { "" };
    let options = match connection.version() {
        // A slot that standbys keep in step survives a failover of the source; of a slot on a standby there is no copy.
        170_000.. if !request.temporary && !standby => "(SNAPSHOT 'export', FAILOVER)",
        150_000.. => "(SNAPSHOT 'export')",
        _ => "EXPORT_SNAPSHOT",
    };
    let command =
        format!("CREATE_REPLICATION_SLOT {}{temporary} LOGICAL pgoutput {options}", ident(request.name));
    let canceller = connection.canceller();
    let waits = if standby { Waits::OnStandby } else { Waits::Here(connection.pid()) };
    let deadline = Instant::now() + request.timeout;
    let mut blockers = Vec::new();
    let mut cancelled = false;
    let created = {
        let creating = connection.simple(&command);
        tokio::pin!(creating);
        loop {
            tokio::select! {
                created = &mut creating => break created,
                () = tokio::time::sleep_until(deadline), if !cancelled => {
                    cancelled = true;
                    blockers = self::blockers(&mut observer, waits).await.unwrap_or_default();
                    canceller.cancel().await?;
                }
                () = tokio::time::sleep(LOOK) => {
                    if cancelled {
                        // A server that does not react is left: the slot is not kept when its session ends.
                        break Err(Error::failed("the server did not react to a cancel request"));
                    }
                    if standby {
                        log_running_transactions(&mut observer).await?;
                    }
                    on_wait(&self::blockers(&mut observer, waits).await?);
                }
            }
        }
    };
    observer.close().await;
    let rows = created.map_err(|error| {
        if !cancelled {
            return explain(error, request.name);
        }
        let mut error = Error::failed(format!(
            "could not create replication slot \"{}\" within {} s: transactions that were running before have not ended",
            request.name,
            request.timeout.as_secs()
        ))
        .with_hint("End them, or allow more time with --slot-timeout, and run the same command again; no slot was left behind.");
        for blocker in &blockers {
            error = error.with_detail(format!("It waited for {}.", blocker.description));
        }
        error
    })?;
    let row = rows.first().ok_or_else(|| Error::failed("the source did not describe the slot it made"))?;
    let (consistent_point, snapshot) = (lsn(&row.value::<String>(1)?)?, row.value(2)?);
    Ok(CreatedSlot { connection, snapshot, consistent_point })
}

/// Whom a slot waits for that is being made.
#[derive(Debug, Clone, Copy)]
enum Waits {
    /// Those that block this process.
    Here(u32),
    /// On a standby: any that may have been running when it began, on the primary.
    OnStandby,
}

/// Has the primary write down which transactions run, for which a slot on a standby waits: it does so by itself now and then, if this role may not ask for it.
async fn log_running_transactions(primary: &mut Connection) -> Result<()> {
    match primary.query("SELECT pg_catalog.pg_log_standby_snapshot()", &[]).await {
        Err(error) if primary.is_broken() => Err(error),
        Err(error) => {
            tracing::debug!(%error, "the primary logs running transactions in its own time");
            Ok(())
        }
        Ok(_) => Ok(()),
    }
}

/// The transactions that a slot waits for: of sessions, and prepared ones.
async fn blockers(observer: &mut Connection, waits: Waits) -> Result<Vec<Blocker>> {
    let Waits::Here(pid) = waits else { return writers(observer).await };
    let rows = observer
        .query(
            "SELECT pg_catalog.format('process %s of user %I, in a transaction since %s', a.pid, a.usename, a.xact_start) \
             FROM unnest(pg_catalog.pg_blocking_pids($1::int)) b(pid) JOIN pg_catalog.pg_stat_activity a ON a.pid = b.pid \
             UNION ALL SELECT pg_catalog.format('transaction %L of user %I, prepared %s', p.gid, p.owner, p.prepared) \
             FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_prepared_xacts p ON p.transaction = l.transactionid \
             WHERE l.pid = $1::int AND NOT l.granted",
            &[Some(&pid.to_string())],
        )
        .await?;
    rows.iter().map(|row| Ok(Blocker { description: row.value(0)? })).collect()
}

/// The transactions that write, and have been running for longer than a moment.
async fn writers(primary: &mut Connection) -> Result<Vec<Blocker>> {
    let rows = primary
        .query(
            "SELECT pg_catalog.format('process %s of user %I, in a transaction since %s', a.pid, a.usename, a.xact_start) \
             FROM pg_catalog.pg_stat_activity a WHERE a.backend_xid IS NOT NULL AND a.pid <> pg_catalog.pg_backend_pid() \
               AND a.xact_start < pg_catalog.now() - interval '1 second' \
             UNION ALL SELECT pg_catalog.format('transaction %L of user %I, prepared %s', p.gid, p.owner, p.prepared) \
             FROM pg_catalog.pg_prepared_xacts p",
            &[],
        )
        .await?;
    rows.iter().map(|row| Ok(Blocker { description: row.value(0)? })).collect()
}

/// Drops the slot if it is there; whoever streams from it loses its session.
pub async fn drop_slot(connection: &mut Connection, name: &str) -> Result<()> {
    let Some(state) = read_slot(connection, name).await? else { return Ok(()) };
    let name = literal(name);
    if let Some(pid) = state.active_pid {
        connection.simple(&format!("SELECT pg_catalog.pg_terminate_backend({pid})")).await?;
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match connection.simple(&format!("SELECT pg_catalog.pg_drop_replication_slot({name})")).await {
            Ok(_) => return Ok(()),
            Err(e) if e.sqlstate().is_some_and(|s| s.as_str() == "42704") => return Ok(()),
            Err(e) if e.sqlstate().is_some_and(|s| s.as_str() == "55006") && Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(e) => return Err(e.context(format!("could not drop replication slot {name}"))),
        }
    }
}

/// A position past every commit that the source has acknowledged to anyone so far: what `follow` must reach for the target to hold them all.
pub async fn end_position(source: &mut Connection) -> Result<Lsn> {
    // A walsender sends what is flushed. A message in a transaction flushes everything up to its commit, and changes nothing.
    let sql = "SELECT pg_catalog.pg_logical_emit_message(true, 'pgstream', 'end'), pg_catalog.set_config('synchronous_commit', 'local', true)";
    lsn(&source.query_one(sql, &[]).await?.value::<String>(0)?)
}

/// What the source's server says to the user who opens a replication session, if it refuses. The attribute REPLICATION, or membership in a provider's role, is
/// not all that decides it.
///
/// # Errors
/// A server that can't be reached, or is going down.
pub async fn refused_session(source: &Config) -> Result<Option<String>> {
    match Connection::connect(source, Side::Source, &Settings::replication()).await {
        Ok(session) => {
            session.close().await;
            Ok(None)
        }
        Err(error) => match error.notice().filter(|notice| notice.sqlstate().class() != "57") {
            Some(notice) => Ok(Some(notice.message().to_owned())),
            None => Err(error),
        },
    }
}

/// What stands in the way of using a slot, in our words where the server's don't say it.
pub(super) fn explain(error: Error, slot: &str) -> Error {
    let state = error.sqlstate().map(|s| s.as_str().to_owned());
    let error = match error.statement() {
        _ if state.is_none() => return error,
        _ => error.context(format!("could not use replication slot \"{slot}\"")),
    };
    match state.as_deref() {
        Some("53400") => error.with_hint(
            "Drop a slot that is not needed, or raise max_replication_slots on the source and restart it.",
        ),
        Some("42501") => {
            error.with_hint("Grant the source's user the attribute REPLICATION (ALTER ROLE … REPLICATION).")
        }
        Some("55000") => error
            .with_hint("Set wal_level = logical on the source and restart it, if that is what is missing."),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_same_for_the_same_target_and_fits() {
        let name = object_name("7000000000000000001", "app");
        assert_eq!(name, object_name("7000000000000000001", "app"));
        assert_ne!(name, object_name("7000000000000000001", "other"));
        assert!(
            name.len() < 64
                && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        );
    }

    #[test]
    fn a_slot_of_any_major_is_read() {
        let of_10 = r#"{"slot_name":"s","plugin":"pgoutput","slot_type":"logical","database":"app","temporary":false,"active":false,
            "active_pid":null,"restart_lsn":"0/16B3748","confirmed_flush_lsn":"0/16B3780"}"#;
        let state: SlotState = serde_json::from_str(of_10).unwrap();
        assert_eq!(state.lost(), None);
        assert_eq!(state.confirmed().unwrap(), Some(Lsn(0x16B_3780)));
        let lost: SlotState = serde_json::from_str(
            r#"{"active":false,"restart_lsn":null,"wal_status":"lost","confirmed_flush_lsn":"0/1"}"#,
        )
        .unwrap();
        assert!(lost.lost().unwrap().contains("max_slot_wal_keep_size"));
    }
}
