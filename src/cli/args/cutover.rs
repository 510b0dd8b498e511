//! `pgstream cutover`.

use std::time::Duration;

use clap::Args;

use super::content::Content;
use super::databases::Databases;
use super::replication::Replication;
use super::value::{duration, size};
use super::windows::Windows;

/// `pgstream cutover`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Cutover {
    /// Begin once the target is at most this far behind, in bytes of write-ahead log (such as 1MB)
    #[arg(long, value_name = "BYTES", value_parser = size, default_value = "1MB")]
    pub(in crate::cli) max_lag: u64,
    /// Wait at most this long for that
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "5min")]
    pub(in crate::cli) timeout: Duration,
    #[command(flatten)]
    pub(in crate::cli) windows: Windows,
    /// Make the source database read-only first, and end the sessions that others have in it
    #[arg(long)]
    pub(in crate::cli) make_source_read_only: bool,
    /// Refresh materialized views at the end
    #[arg(long)]
    pub(in crate::cli) refresh_materialized_views: bool,
    /// Analyze with this many connections [default: the number of processors, at most 4]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(in crate::cli) jobs: Option<u16>,
    #[command(flatten)]
    pub(in crate::cli) databases: Databases,
    #[command(flatten)]
    pub(in crate::cli) replication: Replication,
    #[command(flatten)]
    pub(in crate::cli) content: Content,
}
