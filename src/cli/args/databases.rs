//! Which databases of two servers a command works on.
//!
//! What may fail: a pattern that is none of a database's name.

use clap::Args;

use super::value::expressions;
use crate::error::Result;

/// Which databases of the servers.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Whole servers")]
pub(in crate::cli) struct Databases {
    /// All databases of the server; --source and --target name any database of each
    #[arg(long)]
    pub(in crate::cli) all_databases: bool,
    /// Leave out databases whose names match a pattern of psql's; a list with commas, and more than once
    #[arg(long, value_name = "PATTERN", requires = "all_databases")]
    pub(in crate::cli) exclude_database: Vec<String>,
    /// Work on this many databases at the same time
    #[arg(long, value_name = "N", requires = "all_databases", default_value = "2", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(in crate::cli) database_jobs: u16,
}

impl Databases {
    /// Regular expressions of the names that are left out.
    pub(in crate::cli) fn excluded(&self) -> Result<Vec<String>> {
        expressions("--exclude-database", &self.exclude_database)
    }
}
