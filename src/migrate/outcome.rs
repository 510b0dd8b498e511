//! How a migration ended: what its runs have brought to the target, and what they have left out.
//!
//! In: the state tables, so that the work of earlier runs counts too. Out: an [`Outcome`]. What may fail: the target.

use std::time::{Duration, Instant};

use super::sections::Sections;
use crate::ddl::NotCopied;
use crate::error::Result;
use crate::state::{self, Migration};
use crate::wire::Connection;

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The migration is done.
    Done,
    /// It had been done before; nothing was touched.
    AlreadyDone,
    /// A cutover took over.
    HandedOver,
    /// The sections that were asked for are done; these are left.
    Partly(Sections),
}

/// How a migration ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Whether it is done.
    pub ended: Ended,
    /// `copy` or `replication`.
    pub method: String,
    /// Why the method auto chose `copy`, one full sentence each.
    pub fallback: Vec<String>,
    /// What is not on the target as on the source.
    pub omissions: Vec<NotCopied>,
    /// Tables whose rows are on the target.
    pub tables: u64,
    /// Rows copied, by all runs together.
    pub rows: u64,
    /// Size of the tables on the source, in bytes.
    pub bytes: u64,
    /// Time that this run took.
    pub elapsed: Duration,
}

impl Outcome {
    /// What the state tables hold at the end of a run.
    pub(super) async fn read(target: &mut Connection, ended: Ended, begun: Instant) -> Result<Outcome> {
        let tables = state::part_progress(target).await?;
        let Migration { method, fallback, .. } = state::current(target).await?;
        Ok(Outcome {
            ended,
            method,
            fallback,
            omissions: state::omissions(target).await?,
            tables: tables.len() as u64,
            rows: tables.iter().map(|t| t.rows).sum(),
            bytes: tables.iter().map(|t| t.bytes).sum(),
            elapsed: begun.elapsed(),
        })
    }
}
