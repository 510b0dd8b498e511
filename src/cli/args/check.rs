//! `pgstream check`, and the limits of its check, which `migrate` makes too.

use clap::Args;

use super::content::Content;
use super::databases::Databases;
use super::migrate::Method;
use super::replication::ReplicaIdentity;
use super::roles::Roles;
use super::value::size;
use crate::migrate;

/// `pgstream check`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Check {
    /// How the database would be moved
    #[arg(long, value_enum, default_value = "auto")]
    pub(in crate::cli) method: Method,
    /// What would be done about tables that have no replica identity
    #[arg(long, value_enum, default_value = "error")]
    pub(in crate::cli) replica_identity: ReplicaIdentity,
    /// Connections that the copy would open to each server
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(in crate::cli) jobs: Option<u16>,
    #[command(flatten)]
    pub(in crate::cli) limits: Limits,
    /// Target databases that aren't there would not be created
    #[arg(long)]
    pub(in crate::cli) no_create_database: bool,
    #[command(flatten)]
    pub(in crate::cli) databases: Databases,
    #[command(flatten)]
    pub(in crate::cli) roles: Roles,
    #[command(flatten)]
    pub(in crate::cli) content: Content,
}

/// What a check lets pass.
#[derive(Debug, Clone, Copy, Args)]
pub(in crate::cli) struct Limits {
    /// Refuse a source database that holds more (such as 500GB)
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(in crate::cli) max_total_size: Option<u64>,
    /// Go on although the target is of an older major than the source
    #[arg(long)]
    pub(in crate::cli) allow_older_target: bool,
}

impl From<Limits> for migrate::check::Limits {
    fn from(limits: Limits) -> migrate::check::Limits {
        migrate::check::Limits {
            max_total_size: limits.max_total_size,
            allow_older_target: limits.allow_older_target,
        }
    }
}
