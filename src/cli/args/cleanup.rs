//! `pgstream cleanup`.

use clap::Args;

use super::databases::Databases;

/// `pgstream cleanup`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Cleanup {
    /// Don't ask
    #[arg(short, long)]
    pub(in crate::cli) yes: bool,
    #[command(flatten)]
    pub(in crate::cli) databases: Databases,
}
