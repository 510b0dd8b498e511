//! The command line's options, as they are typed.
//!
//! In: the process's arguments. Out: [`Arguments`], raw; each command resolves them once. What may fail: an option that isn't known, or whose value
//! can't be read. Names are pg_dump's wherever pg_dump has the option.
//!
//! One file per command, as beside this folder, and one per group of options that several commands share. The order of the fields is that of the help.

mod check;
mod cleanup;
mod content;
mod cutover;
mod databases;
mod generate;
mod migrate;
mod replication;
mod roles;
mod schema;
mod status;
mod value;
mod verify;
mod windows;
mod worker;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub(super) use check::Check;
pub(super) use cleanup::Cleanup;
pub(super) use content::Content;
pub(super) use cutover::Cutover;
pub(super) use databases::Databases;
pub(super) use generate::{Generate, Printed};
pub(super) use migrate::Migrate;
pub(super) use replication::{OnConflict, Replication};
pub(super) use schema::{Schema, Section};
pub(super) use status::Status;
pub(super) use verify::Verify;
pub(super) use worker::Worker;

/// Moves PostgreSQL databases from one server to another.
#[derive(Debug, Parser)]
#[command(
    name = "pgstream",
    version,
    about,
    max_term_width = 100,
    disable_help_subcommand = true,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 done; 1 failed; 2 usage, configuration or a failed check, nothing touched; \
                  3 finished, with differences or skipped objects; 4 stopped, the same command resumes."
)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
    #[command(flatten)]
    pub(super) common: Common,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "General options")]
pub(super) struct Common {
    /// Database to copy from: URI, key=value string or name [env: PGSTREAM_SOURCE]
    #[arg(long, global = true, value_name = "CONNINFO")]
    pub(super) source: Option<String>,
    /// Database to copy to: URI, key=value string or name [env: PGSTREAM_TARGET]
    #[arg(long, global = true, value_name = "CONNINFO")]
    pub(super) target: Option<String>,
    /// Where --source is a standby, its primary, which what must be written goes to [env: PGSTREAM_SOURCE_PRIMARY]
    #[arg(long, global = true, value_name = "CONNINFO")]
    pub(super) source_primary: Option<String>,
    /// File that holds the source's password and nothing else
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) source_password_file: Option<PathBuf>,
    /// File that holds the target's password and nothing else
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) target_password_file: Option<PathBuf>,
    /// Print the result as one JSON object on standard output
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Say more: SQLSTATE and statement of errors, then what is done (-vv: each statement's notices, -vvv: everything)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
    /// Say nothing but errors and results
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(super) quiet: bool,
    /// Append all messages, and progress, to this file, with their times
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) log_file: Option<PathBuf>,
    /// Form of the log file (text, json); without one, of the messages on standard error
    #[arg(long, global = true, value_enum, default_value = "text", hide_possible_values = true)]
    pub(super) log_format: LogFormat,
    /// A name for this migration that stands in every message
    #[arg(long, global = true, value_name = "ID")]
    pub(super) migration_id: Option<String>,
}

/// Form of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object a line
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Copy the source database into the target database; run again, it resumes
    Migrate(Migrate),
    /// Help a migrate that runs elsewhere to copy rows, until no part of a table is left
    Worker(Worker),
    /// Say what would stand in the way of a migration, without touching anything
    Check(Check),
    /// Show how far the migration into the target database is
    Status(Status),
    /// Apply the last changes and end the migration: the target is the database from then on
    Cutover(Cutover),
    /// Compare both databases: definitions, rows, sequences, large objects
    Verify(Verify),
    /// Print the statements that make the source's schema
    Schema(Schema),
    /// Remove what pgstream keeps on the servers for itself
    Cleanup(Cleanup),
    /// Write manual pages, completions of a shell, JSON Schemas, or a dashboard for Grafana
    #[command(subcommand)]
    Generate(Generate),
}

impl Command {
    /// How many threads the command's tasks share: `None` for one on each processor. Where servers do the work, a task that wakes another one on another thread costs
    /// more than to let it wait for its turn, and one thread passes on what two connections copy, or all that a stream brings.
    pub(super) fn threads(&self) -> Option<usize> {
        let jobs = match self {
            Command::Migrate(options) => {
                let databases =
                    if options.databases.all_databases { options.databases.database_jobs } else { 1 };
                jobs(options.jobs) * usize::from(databases)
            }
            Command::Worker(options) => jobs(options.jobs),
            Command::Cutover(_) => 1,
            _ => return None,
        };
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Some(jobs.div_ceil(2).clamp(1, processors))
    }
}

/// The number of connections that was asked for, or the usual one.
pub(super) fn jobs(asked: Option<u16>) -> usize {
    asked.map_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get().min(4)), usize::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_are_consistent() {
        <Arguments as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn global_options_are_taken_after_the_command_too() {
        let arguments =
            Arguments::try_parse_from(["pgstream", "status", "--target", "t", "-vv", "--json"]).unwrap();
        assert_eq!(arguments.common.target.as_deref(), Some("t"));
        assert_eq!(arguments.common.verbose, 2);
        assert!(arguments.common.json);
    }
}
