//! `pgstream migrate`.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::check::Limits;
use super::content::Content;
use super::databases::Databases;
use super::replication::Replication;
use super::roles::Roles;
use super::schema::Section;
use super::value::{duration, size};
use super::windows::Windows;
use crate::migrate;

/// `pgstream migrate`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Migrate {
    /// How the database is moved
    #[arg(long, value_enum, default_value = "auto")]
    pub(in crate::cli) method: Method,
    /// Copy with this many connections to each server [default: the number of processors, at most 4]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(in crate::cli) jobs: Option<u16>,
    /// Make definitions, indexes and constraints with this many connections to the target, and small indexes with two more [default: as --jobs]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(in crate::cli) index_jobs: Option<u16>,
    /// Cut larger tables into parts of about this size (such as 500MB); 0 cuts none
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "1GB")]
    pub(in crate::cli) split_tables_larger_than: u64,
    /// Begin anew: drop what an earlier run of pgstream made in the target, and nothing else
    #[arg(long)]
    pub(in crate::cli) restart: bool,
    /// Take only this part of the migration; may be given several times, and the parts come in this order [default: all]
    #[arg(long, value_enum)]
    pub(in crate::cli) section: Vec<Section>,
    /// Only check, as pgstream check does
    #[arg(long, conflicts_with = "restart")]
    pub(in crate::cli) validate: bool,
    #[command(flatten)]
    pub(in crate::cli) windows: Windows,
    /// Wait at most this long for a lock on a source table (such as 30s; a plain number is milliseconds)
    #[arg(long, value_name = "TIMEOUT", value_parser = duration, default_value = "30s")]
    pub(in crate::cli) lock_wait_timeout: Duration,
    /// When the target refuses an object, leave it out with all that needs it, and go on
    #[arg(long)]
    pub(in crate::cli) keep_going: bool,
    #[command(flatten)]
    pub(in crate::cli) limits: Limits,
    /// Don't create target databases that aren't there
    #[arg(long)]
    pub(in crate::cli) no_create_database: bool,
    #[command(flatten)]
    pub(in crate::cli) databases: Databases,
    #[command(flatten)]
    pub(in crate::cli) roles: Roles,
    #[command(flatten)]
    pub(in crate::cli) replication: Replication,
    #[command(flatten)]
    pub(in crate::cli) content: Content,
}

/// How a database is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Method {
    /// The best method whose preconditions are met
    Auto,
    /// One consistent copy, as pg_dump and pg_restore make it
    Copy,
    /// A copy that is kept in step with the source until cutover
    Replication,
}

impl From<Method> for migrate::Method {
    fn from(method: Method) -> migrate::Method {
        match method {
            Method::Auto => migrate::Method::Auto,
            Method::Copy => migrate::Method::Copy,
            Method::Replication => migrate::Method::Replication,
        }
    }
}
