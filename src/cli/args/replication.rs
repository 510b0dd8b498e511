//! What concerns the method replication, while it copies and at its cutover.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::value::{duration, size};
use crate::replication::MissingIdentity;

/// What concerns the method replication.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Replication")]
pub(in crate::cli) struct Replication {
    /// Wait at most this long for transactions of the source that keep the slot from being made (such as 5min)
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10min")]
    pub(in crate::cli) slot_timeout: Duration,
    /// What to do about tables that have no replica identity
    #[arg(long, value_enum, default_value = "error")]
    pub(in crate::cli) replica_identity: ReplicaIdentity,
    /// What to do when the row of an UPDATE or DELETE is not on the target
    #[arg(long, value_enum, default_value = "stop")]
    pub(in crate::cli) on_conflict: OnConflict,
    /// Cut over by itself once the target is close to the source; nothing may write to the source then
    #[arg(long)]
    pub(in crate::cli) stop_when_caught_up: bool,
    /// How close that is, in bytes of write-ahead log (such as 64kB)
    #[arg(long, value_name = "BYTES", value_parser = size, default_value = "0", requires = "stop_when_caught_up")]
    pub(in crate::cli) max_replication_lag: u64,
    /// Folder for transactions that don't fit into memory
    #[arg(long, value_name = "DIR", default_value = "/tmp")]
    pub(in crate::cli) spill_dir: PathBuf,
    /// While rows are copied, keep the changes in files below this folder, so that the source can let go of its log
    #[arg(long, value_name = "DIR")]
    pub(in crate::cli) spool_dir: Option<PathBuf>,
}

/// Tables without replica identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum ReplicaIdentity {
    /// Refuse to begin, and name them
    Error,
    /// Give them REPLICA IDENTITY FULL on the source until the cutover
    Full,
    /// Copy them, and leave out what changes later
    Skip,
}

impl From<ReplicaIdentity> for MissingIdentity {
    fn from(policy: ReplicaIdentity) -> MissingIdentity {
        match policy {
            ReplicaIdentity::Error => MissingIdentity::Error,
            ReplicaIdentity::Full => MissingIdentity::Full,
            ReplicaIdentity::Skip => MissingIdentity::Skip,
        }
    }
}

/// Rows that are not on the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum OnConflict {
    /// Stop before the change
    Stop,
    /// Leave the change out, and count it
    Skip,
}
