//! `pgstream worker`.

use std::time::Duration;

use clap::Args;

use super::value::duration;

/// `pgstream worker`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Worker {
    /// Copy with this many connections to each server [default: the number of processors, at most 4]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(in crate::cli) jobs: Option<u16>,
    /// Wait at most this long for a copy to begin, or to begin again (such as 10min)
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "0")]
    pub(in crate::cli) wait: Duration,
}
