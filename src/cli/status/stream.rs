//! How far a migration by replication follows its source, and how the slot is.
//!
//! In: the target's state, and the source where it is named and answers. Out: keys of the JSON object, lines of the text.

use std::collections::HashSet;
use std::time::Duration;

use pgstream_proto::lsn::Lsn;
use serde_json::{Value, json};

use super::super::size;
use super::SlotHealth;
use crate::catalog::activity::{Sender, seconds_since, sender};
use crate::catalog::server::current_lsn;
use crate::config::{Config, Side};
use crate::ddl;
use crate::error::Result;
use crate::migrate::later::made_later;
use crate::replication::{SlotState, read_slot};
use crate::state::checkpoint::Checkpoint;
use crate::state::spool::Spool;
use crate::state::{Migration, Phase};
use crate::wire::{Connection, Settings};

/// How long the source may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The stream of one database's migration.
#[derive(Debug, Default)]
pub(super) struct Stream {
    slot: String,
    publication: String,
    cutover: Option<Lsn>,
    checkpoint: Option<Checkpoint>,
    /// Changes that are in files of a host.
    spool: Option<Spool>,
    /// Nobody is to read the slot yet: rows are being copied, and no spool is asked for.
    later: bool,
    source: Option<SourceSide>,
    /// Why nothing is known of the source.
    unknown: Option<String>,
}

/// The tables of a migration, for a look at what the source has besides.
#[derive(Debug)]
pub(super) struct Tables {
    /// OIDs on the source of what is copied.
    pub(super) planned: HashSet<u32>,
    /// What was chosen to be copied.
    pub(super) options: ddl::Options,
}

/// What the source says.
#[derive(Debug)]
struct SourceSide {
    written: Lsn,
    slot: Option<SlotState>,
    sender: Option<Sender>,
    /// Seconds since the last applied transaction was committed.
    since_commit: Option<f64>,
    /// Tables that are neither copied nor followed.
    later: Vec<String>,
}

impl Stream {
    /// Reads it; `None` for a migration without a stream, and once it is cut over. `at_work` says that a run has the target; `tables` are given once they
    /// are all planned.
    pub(super) async fn read(
        migration: &Migration,
        at_work: bool,
        tables: Option<&Tables>,
        checkpoint: Option<Checkpoint>,
        spool: Option<Spool>,
        source: Option<&Config>,
    ) -> Option<Stream> {
        let (slot, publication) = migration.slot.clone().zip(migration.publication.clone())?;
        let applied = checkpoint.as_ref().map(|checkpoint| checkpoint.applied);
        let later = at_work && migration.phase < Phase::CatchUp && spool.is_none();
        // What is applied is not needed any more.
        let spool = spool.filter(|spool| applied.is_some_and(|applied| spool.to > applied));
        let cutover = migration.cutover_lsn;
        let mut stream = Stream { slot, publication, cutover, checkpoint, spool, later, ..Stream::default() };
        let Some(config) = source else {
            stream.unknown = Some("no --source is given".to_owned());
            return Some(stream);
        };
        let committed_at = stream.checkpoint.as_ref().and_then(|c| c.source_committed_at.as_deref());
        match tokio::time::timeout(PATIENCE, read_source(config, &stream, tables, committed_at)).await {
            Ok(Ok(side)) => stream.source = Some(side),
            Ok(Err(error)) => stream.unknown = Some(error.to_string()),
            Err(_) => stream.unknown = Some(format!("it does not answer within {} s", PATIENCE.as_secs())),
        }
        Some(stream)
    }

    fn applied(&self) -> Option<Lsn> {
        self.checkpoint.as_ref().map(|checkpoint| checkpoint.applied)
    }

    fn lag_bytes(&self) -> Option<u64> {
        Some(self.source.as_ref()?.written.0.saturating_sub(self.applied()?.0))
    }

    /// How long ago the source committed what the target doesn't hold yet.
    fn lag_seconds(&self) -> Option<f64> {
        let source = self.source.as_ref()?;
        if self.lag_bytes()? == 0 {
            return Some(0.0);
        }
        match &source.sender {
            // Nothing on its way: what was written since is not for us.
            Some(sender) => Some(sender.lag_seconds.unwrap_or(0.0)),
            None => source.since_commit,
        }
    }

    fn slot(&self) -> Option<&SlotState> {
        self.source.as_ref()?.slot.as_ref()
    }

    /// Bytes of the source's log that the slot keeps from being recycled.
    fn retained(&self) -> Option<u64> {
        let restart: Lsn = self.slot()?.restart_lsn.as_deref()?.parse().ok()?;
        Some(self.source.as_ref()?.written.0.saturating_sub(restart.0))
    }

    /// The slot's health; `None` where the source doesn't answer.
    pub(super) fn health(&self) -> Option<SlotHealth> {
        self.source.as_ref()?;
        Some(SlotHealth {
            retained_bytes: self.retained().unwrap_or_default(),
            active: self.slot().is_some_and(|slot| slot.active),
            lost: self.slot().is_none_or(|slot| slot.lost().is_some()),
        })
    }

    /// What the operator should look at.
    pub(super) fn warnings(&self) -> Vec<String> {
        let Some(source) = &self.source else {
            let why = self.unknown.as_deref().unwrap_or("it was not asked");
            return vec![format!("nothing is known of the source: {why}")];
        };
        let mut warnings: Vec<String> = source
            .later
            .iter()
            .map(|table| {
                format!("table \"{table}\" was made on the source after the copy, and is not followed")
            })
            .collect();
        let name = &self.slot;
        let Some(slot) = &source.slot else {
            let missing = format!("replication slot \"{name}\" is not on the source");
            warnings.extend(self.checkpoint.as_ref().map(|_| missing));
            return warnings;
        };
        if let Some(reason) = slot.lost() {
            warnings.push(format!("replication slot \"{name}\" is of no more use: {reason}"));
        }
        if let (Some("unreserved" | "extended"), Some(safe)) =
            (slot.wal_status.as_deref(), slot.safe_wal_size)
        {
            let left = size::bytes(u64::try_from(safe).unwrap_or(0));
            warnings.push(format!(
                "replication slot \"{name}\" is lost once {left} more of write-ahead log is written (max_slot_wal_keep_size)"
            ));
        }
        if !slot.active
            && !self.later
            && let Some(bytes) = self.retained()
        {
            let bytes = size::bytes(bytes);
            warnings.push(format!(
                "nobody reads replication slot \"{name}\", and the source keeps {bytes} of write-ahead log for it"
            ));
        }
        warnings
    }

    /// The keys of the JSON object.
    pub(super) fn object(&self) -> Value {
        let source = self.source.as_ref();
        let lsn = |lsn: Option<Lsn>| lsn.map(|lsn| lsn.to_string());
        json!({
            "source_lsn": lsn(source.map(|source| source.written)),
            "received_lsn": source.and_then(|source| source.sender.as_ref()?.received.clone()),
            "applied_lsn": lsn(self.applied()),
            "confirmed_lsn": self.slot().and_then(|slot| slot.confirmed_flush_lsn.clone()),
            "cutover_lsn": lsn(self.cutover),
            "spool": self.spool.as_ref().map(|spool| json!({
                "host": spool.host, "directory": spool.directory, "lsn": spool.to.to_string(),
            })),
            "last_commit_at": self.checkpoint.as_ref().and_then(|c| c.source_committed_at.clone()),
            "lag_bytes": self.lag_bytes(),
            "lag_seconds": self.lag_seconds(),
            "publication": self.publication,
            "slot": {
                "name": self.slot,
                "exists": source.map(|source| source.slot.is_some()),
                "active": self.slot().map(|slot| slot.active),
                "active_pid": self.slot().and_then(|slot| slot.active_pid),
                "restart_lsn": self.slot().and_then(|slot| slot.restart_lsn.clone()),
                "retained_bytes": self.retained(),
                "wal_status": self.slot().and_then(|slot| slot.wal_status.clone()),
                "safe_wal_size": self.slot().and_then(|slot| slot.safe_wal_size),
                "invalidation_reason": self.slot().and_then(SlotState::lost),
            },
            "warnings": self.warnings(),
        })
    }

    /// The lines of the text.
    pub(super) fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = Vec::new();
        if let Some(checkpoint) = &self.checkpoint {
            let commit = checkpoint.source_committed_at.as_deref();
            let commit = commit.map(|at| format!(", committed {at}")).unwrap_or_default();
            rows.push(("applied", format!("{}{commit}", checkpoint.applied)));
        }
        if let Some(source) = &self.source {
            rows.push(("written", format!("{} on the source", source.written)));
            if let Some(received) = source.sender.as_ref().and_then(|sender| sender.received.as_ref()) {
                rows.push(("received", received.clone()));
            }
        }
        if let Some(spool) = &self.spool {
            let Spool { host, directory, to, .. } = spool;
            rows.push(("spool", format!("up to {to}, in {directory} on host {host}")));
        }
        if let Some(bytes) = self.lag_bytes() {
            let seconds = self.lag_seconds().map(|s| format!(", {}", size::seconds(s))).unwrap_or_default();
            rows.push(("lag", format!("{}{seconds}", size::bytes(bytes))));
        }
        if let Some(slot) = self.slot() {
            let reader = match slot.active_pid {
                Some(pid) => format!("read by process {pid}"),
                None if self.later => "read once the rows are copied".to_owned(),
                None => "nobody reads it".to_owned(),
            };
            let mut text = format!("{}, {reader}", self.slot);
            if let Some(confirmed) = &slot.confirmed_flush_lsn {
                text.push_str(&format!(", confirmed {confirmed}"));
            }
            if let Some(bytes) = self.retained() {
                text.push_str(&format!(", keeps {}", size::bytes(bytes)));
            }
            if let Some(status) = &slot.wal_status {
                text.push_str(&format!(", {status}"));
            }
            rows.push(("slot", text));
        }
        rows.extend(self.cutover.map(|lsn| ("cutover", format!("asked for at {lsn}"))));
        rows.extend(self.warnings().into_iter().map(|warning| ("warning", warning)));
        rows
    }
}

async fn read_source(
    config: &Config,
    stream: &Stream,
    tables: Option<&Tables>,
    committed_at: Option<&str>,
) -> Result<SourceSide> {
    let mut source = Connection::connect(config, Side::Source, &Settings::session()).await?;
    let slot = read_slot(&mut source, &stream.slot).await?;
    let sender = match slot.as_ref().and_then(|slot| slot.active_pid) {
        Some(pid) => sender(&mut source, pid).await?,
        None => None,
    };
    let since_commit = match committed_at {
        Some(time) => Some(seconds_since(&mut source, time).await?),
        None => None,
    };
    let later = match tables {
        Some(Tables { planned, options }) => {
            made_later(&mut source, options, planned, &stream.publication).await?
        }
        None => Vec::new(),
    };
    let side = SourceSide { written: current_lsn(&mut source).await?, slot, sender, since_commit, later };
    source.close().await;
    Ok(side)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(slot: Option<SlotState>) -> Stream {
        Stream {
            slot: "pgstream_1".to_owned(),
            publication: "pgstream_1".to_owned(),
            cutover: None,
            checkpoint: Some(Checkpoint {
                system_identifier: "7".to_owned(),
                timeline: 1,
                slot: "pgstream_1".to_owned(),
                applied: Lsn(1000),
                source_committed_at: None,
                updated_at: String::new(),
                generation: 0,
            }),
            spool: None,
            later: false,
            source: Some(SourceSide {
                written: Lsn(1500),
                slot,
                sender: None,
                since_commit: Some(8.0),
                later: Vec::new(),
            }),
            unknown: None,
        }
    }

    fn slot(wal_status: &str) -> SlotState {
        SlotState {
            plugin: None,
            database: None,
            active: true,
            active_pid: None,
            restart_lsn: Some("0/100".to_owned()),
            confirmed_flush_lsn: Some("0/200".to_owned()),
            wal_status: Some(wal_status.to_owned()),
            safe_wal_size: Some(2048),
            invalidation_reason: None,
            conflicting: None,
        }
    }

    #[test]
    fn the_lag_is_what_is_written_and_not_applied() {
        let object = stream(Some(slot("reserved"))).object();
        assert_eq!((&object["lag_bytes"], &object["lag_seconds"]), (&json!(500), &json!(8.0)));
        assert_eq!(object["slot"]["retained_bytes"], json!(1500 - 0x100));
        assert_eq!(object["warnings"], json!([]));
    }

    #[test]
    fn what_endangers_the_slot_is_warned_of() {
        let warned = |slot| stream(slot).warnings().join("\n");
        assert!(warned(None).contains("not on the source"));
        assert!(warned(Some(slot("lost"))).contains("of no more use"));
        assert!(warned(Some(slot("extended"))).contains("max_slot_wal_keep_size"));
        assert!(warned(Some(SlotState { active: false, ..slot("reserved") })).contains("nobody reads"));
    }

    #[test]
    fn a_slot_that_is_to_be_read_later_is_no_trouble() {
        let unread = SlotState { active: false, ..slot("reserved") };
        let copying = Stream { later: true, ..stream(Some(unread)) };
        assert_eq!(copying.warnings(), Vec::<String>::new());
        let rows = copying.rows();
        assert!(rows.iter().any(|(name, text)| *name == "slot" && text.contains("once the rows are copied")));
    }
}
