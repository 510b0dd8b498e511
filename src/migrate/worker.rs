//! A worker that helps a running copy, from this host or another one.
//!
//! In: source and target of a migration whose `migrate` copies rows just now. Out: parts of tables that are copied and done. What may fail: either server; nothing to join; a
//! snapshot that goes while parts are left, as the run that offered it has ended.
//!
//! A worker is one of the run's own workers in another process. It reads the source under the snapshot that the run offers, as long as the run's session keeps it;
//! it claims parts in the target's tables, each by a row lock that ends with its session; it holds the lock that workers share, so that the next run ends it; and a part of it
//! commits only while its run's offer stands (`state::offer`). So each part is copied by whoever commits it first, and by nobody twice. Everything else is the run's
//! own matter: definitions, indexes, which part is cut how, and what comes after the rows.
//!
//! The run waits for parts that a worker has; when the worker dies, they are free again, for the run or for another worker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::{database, phases, refuse_other_source, scope};
use crate::catalog::server;
use crate::config::{Config, Side};
use crate::copy::{self, Copy, Schedule, SourceTables};
use crate::error::{Error, ErrorKind, Result};
use crate::progress::Progress;
use crate::schema::partition;
use crate::state::{self, Migration, Offer, Phase};
use crate::wire::{Connection, Settings};

/// What a worker is asked to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// The source database.
    pub source: Config,
    /// The target database.
    pub target: Config,
    /// Sessions that move rows, on each side.
    pub jobs: usize,
    /// How long to wait for a copy to begin.
    pub wait: Duration,
}

/// What a worker has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Parts that it copied.
    pub parts: u64,
    /// Their rows.
    pub rows: u64,
    /// Time that it took.
    pub elapsed: Duration,
}

/// How often one looks whether a copy has begun.
const LOOK: Duration = Duration::from_millis(500);

const AGAIN: &str = "Run the same command again while pgstream migrate copies rows.";

/// Helps until no part is left.
///
/// # Errors
/// See the module; [`ErrorKind::Stopped`] where parts are left and this worker can't have them.
pub async fn work(options: &Options, progress: &Arc<Progress>, stop: &CancellationToken) -> Result<Outcome> {
    let begun = Instant::now();
    let outcome = |progress: &Progress| {
        let done = progress.snapshot();
        Outcome { parts: done.parts, rows: done.rows, elapsed: begun.elapsed() }
    };
    progress.set_phase("waiting for a copy to begin");
    loop {
        let reason = tokio::select! {
            reason = attempt(options, progress, stop) => reason?,
            () = stop.cancelled() => return Err(Error::stopped()),
        };
        let Some(reason) = reason else { return Ok(outcome(progress)) };
        // A copy that was joined has ended; another one is another worker's matter, unless there is time left to wait for it.
        if begun.elapsed() >= options.wait {
            return Err(reason);
        }
        tracing::debug!("{reason}: looking again");
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stop.cancelled() => return Err(Error::stopped()),
        }
    }
}

/// One look at the target, and all the help it asks for; `None` when no part is left, or why there is nothing to be done yet, or any more.
async fn attempt(
    options: &Options,
    progress: &Arc<Progress>,
    stop: &CancellationToken,
) -> Result<Option<Error>> {
    let mut target = match Connection::connect(&options.target, Side::Target, &Settings::session()).await {
        Ok(target) => target,
        // The run that is waited for may be the one that creates it.
        Err(error) if database::is_missing(&error) => return Ok(Some(no_migration(&options.target))),
        Err(error) => return Err(error),
    };
    let Some(migration) = state::read(&mut target).await? else {
        return Ok(Some(no_migration(&options.target)));
    };
    let mut source = Connection::connect(&options.source, Side::Source, &Settings::session()).await?;
    refuse_other_source(&migration, &server::identity(&mut source).await?)?;
    source.close().await;
    if is_copied(&mut target, &migration).await? {
        return Ok(None);
    }
    let Some(offer) = state::offered(&mut target).await? else {
        return Ok(Some(nothing_offered(&migration)));
    };
    let source = match copy::join(&options.source, &offer.snapshot).await {
        Ok(source) => source,
        Err(error) if error.kind() == ErrorKind::Connection => return Err(error),
        Err(error) => return Ok(Some(snapshot_gone(error))),
    };
    progress.set_phase("copying rows");
    let helped = help(options, &offer, &migration, source, &mut target, progress, stop).await;
    let Err(error) = helped else { return Ok(None) };
    if stop.is_cancelled() {
        return Err(Error::stopped());
    }
    // The next run ends the sessions of workers; so that is no failure of theirs.
    if error.kind() == ErrorKind::Connection && !still_offered(&options.target, &offer).await? {
        return Ok(Some(copy::ended_elsewhere().with_hint(AGAIN)));
    }
    if error.kind() == ErrorKind::Stopped { Ok(Some(error.with_hint(AGAIN))) } else { Err(error) }
}

fn no_migration(target: &Config) -> Error {
    Error::usage(format!("target database \"{}\" holds no migration that a worker could help", target.dbname))
        .with_hint("Begin one with pgstream migrate; --wait waits for it.")
}

/// Whether all rows are on the target. Before the copy has begun, parts are still being cut.
async fn is_copied(target: &mut Connection, migration: &Migration) -> Result<bool> {
    Ok(migration.phase >= Phase::Copy && state::pending_parts(target).await?.is_empty())
}

fn nothing_offered(migration: &Migration) -> Error {
    Error::new(ErrorKind::Stopped, "no rows are being copied that a worker could help with")
        .with_detail(format!(
            "The migration is in phase {}, and nobody works on it, or not yet.",
            migration.phase
        ))
        .with_hint(format!("{AGAIN} --wait waits for it."))
}

fn snapshot_gone(error: Error) -> Error {
    error
        .with_kind(ErrorKind::Stopped)
        .with_detail("It ends with the run that offers it, and can be had only from the very server that migrate reads.")
        .with_hint(format!("{AGAIN} --wait waits for it; --source must name the same server as there."))
}

/// How long a new run may take from ending the sessions of workers to taking back what they worked under.
const TAKING_BACK: Duration = Duration::from_secs(5);

/// Whether the offer stands, and goes on to.
async fn still_offered(target: &Config, offer: &Offer) -> Result<bool> {
    let begun = Instant::now();
    loop {
        let mut session = Connection::connect(target, Side::Target, &Settings::session()).await?;
        let now = state::offered(&mut session).await?;
        session.close().await;
        let stands = now.is_some_and(|now| now.run == offer.run);
        if !stands || begun.elapsed() >= TAKING_BACK {
            return Ok(stands);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Copies parts under the offered snapshot, which `source` sees.
async fn help(
    options: &Options,
    offer: &Offer,
    migration: &Migration,
    mut source: Connection,
    target: &mut Connection,
    progress: &Arc<Progress>,
    stop: &CancellationToken,
) -> Result<()> {
    let content = migration.content.clone().unwrap_or_default();
    let selected = scope::read(&mut source, &content).await?.database;
    let tables = SourceTables {
        through_root: partition::loaded_through_root(&selected, phases::encoding(target)),
        tables: selected.tables.into_iter().map(|table| (table.oid, table)).collect(),
        as_is: copy::is_as_is(&source, target),
        ddl: content,
        failures: Arc::default(),
    };
    let relations = state::relations(target).await?;
    progress.set_parts(0, 0, 0, relations.iter().map(|(relation, _, _)| relation.bytes).sum());
    let copy = Copy::new(
        (options.source.clone(), options.target.clone()),
        offer.clone(),
        relations.into_iter().map(|(relation, _, _)| relation).collect(),
        state::pending_parts(target).await?,
        tables,
        Schedule::default(),
        progress.clone(),
    );
    let helped = copy::help(Arc::new(copy), options.jobs, stop).await;
    source.close().await;
    helped
}
