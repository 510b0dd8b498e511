//! `pgstream schema`, and pg_dump's sections, which `migrate` takes too.

use clap::{Args, ValueEnum};

use super::content::Content;

/// `pgstream schema`.
#[derive(Debug, Args)]
pub(in crate::cli) struct Schema {
    /// Print this part alone; may be given several times [default: all]
    #[arg(long, value_enum)]
    pub(in crate::cli) section: Vec<Section>,
    #[command(flatten)]
    pub(in crate::cli) content: Content,
}

/// pg_dump's sections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Section {
    /// What is made before the rows are copied
    PreData,
    /// Rows, large objects, positions of sequences
    Data,
    /// Indexes, constraints, triggers, privileges
    PostData,
}
