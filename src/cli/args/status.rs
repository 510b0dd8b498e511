//! `pgstream status`.

use std::time::Duration;

use clap::Args;

use super::databases::Databases;
use super::value::duration;

/// `pgstream status`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Status {
    /// Show it again and again, until the migration is done or has failed
    #[arg(long)]
    pub(in crate::cli) watch: bool,
    /// Time between two looks, with --watch
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "2s", requires = "watch")]
    pub(in crate::cli) interval: Duration,
    #[command(flatten)]
    pub(in crate::cli) databases: Databases,
}
