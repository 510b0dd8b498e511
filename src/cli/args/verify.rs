//! `pgstream verify`.

use std::time::Duration;

use clap::Args;

use super::content::Content;
use super::databases::Databases;
use super::value::{duration, percent};

/// `pgstream verify`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Verify {
    /// Compare this many tables at the same time [default: the number of processors, at most 4]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(in crate::cli) jobs: Option<u16>,
    /// Compare only rows, sequences and large objects
    #[arg(short = 'a', long, conflicts_with = "schema_only")]
    pub(in crate::cli) data_only: bool,
    /// Compare only so many percent of the rows of each table that has a key, chosen anew each time (such as 5 or 0.1)
    #[arg(long, value_name = "PERCENT", value_parser = percent, conflicts_with = "schema_only")]
    pub(in crate::cli) sample: Option<u32>,
    /// Name so many rows of a table that differs by their keys, at most; 0 shows no keys
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u16).range(0..=10_000))]
    pub(in crate::cli) keys: u16,
    /// While a run follows the source: wait at most this long for it to stand still at one position
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "1min")]
    pub(in crate::cli) timeout: Duration,
    #[command(flatten)]
    pub(in crate::cli) databases: Databases,
    #[command(flatten)]
    pub(in crate::cli) content: Content,
}
