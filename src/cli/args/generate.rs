//! `pgstream generate`.

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};

/// `pgstream generate`.
#[derive(Debug, Subcommand)]
pub(in crate::cli) enum Generate {
    /// Write a manual page for pgstream and for each of its commands
    Man {
        /// Folder to write them into
        #[arg(value_name = "DIR", default_value = ".")]
        directory: PathBuf,
    },
    /// Print completions for a shell
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Print the JSON Schema of what a command prints with --json, or of a line of --log-format json
    JsonSchema {
        /// The command, or event
        #[arg(value_enum)]
        of: Printed,
    },
    /// Print a dashboard for Grafana that shows the metrics of --metrics-listen
    Dashboard,
}

/// What has a JSON Schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Printed {
    /// pgstream check
    Check,
    /// pgstream migrate
    Migrate,
    /// pgstream worker
    Worker,
    /// pgstream cutover
    Cutover,
    /// pgstream status
    Status,
    /// pgstream verify
    Verify,
    /// pgstream schema
    Schema,
    /// pgstream cleanup
    Cleanup,
    /// A line of --log-format json
    Event,
}
