//! What comes before a run: its turn among the databases of a server, and the same check as `pgstream check`.

use std::sync::Arc;

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::check::{self, Finding, Report, Severity, Wanted};
use super::database::{self, Opened};
use super::{Method, Options, Outcome, locks};
use crate::config::Side;
use crate::copy::Workers;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::replication::spool;
use crate::state;
use crate::wire::{Connection, Settings};

/// Checks, and then runs a migration, or what an earlier run left of it.
///
/// # Errors
/// What the check finds, nothing touched; then as [`run`](super::run).
pub async fn start(options: &Options, progress: &Arc<Progress>, stop: &CancellationToken) -> Result<Outcome> {
    if let Some(folder) = &options.spool {
        spool::check_folder(folder)?;
    }
    // Only reads, so it is simply given up.
    let checked = tokio::select! {
        checked = first_check(options, progress, stop) => checked,
        () = stop.cancelled() => Err(Error::stopped()),
    };
    super::run(options, checked.map_err(super::explain_stop)?, progress, stop).await
}

/// What a run begins with.
pub(super) struct Start {
    /// Its turn: nobody waits while the check's snapshot is held.
    pub(super) turn: Option<Turn>,
    /// What the check found; `None` for a run that resumes, which was checked when it began, and for one that begins anew, which is checked once the place is
    /// free.
    pub(super) report: Option<Report>,
    /// A session of the target database, where that is there.
    pub(super) target: Option<Connection>,
    /// A session of the source, for a run that resumes.
    pub(super) source: Option<Connection>,
}

/// One of the databases that are copied at the same time.
pub(super) type Turn = OwnedSemaphorePermit;

/// Waits until fewer databases than asked for are being copied.
async fn turn(options: &Options, progress: &Progress, stop: &CancellationToken) -> Result<Option<Turn>> {
    if options.turns.available_permits() == 0 {
        progress.set_phase("waiting for its turn");
    }
    tokio::select! {
        // Nobody closes it.
        permit = options.turns.clone().acquire_owned() => Ok(permit.ok()),
        () = stop.cancelled() => Err(Error::stopped()),
    }
}

/// The check before the first run touches anything.
async fn first_check(options: &Options, progress: &Progress, stop: &CancellationToken) -> Result<Start> {
    let turn = turn(options, progress, stop).await?;
    progress.set_phase("checking");
    let settings = Settings::session();
    let (source, target) =
        tokio::join!(Connection::connect(&options.source, Side::Source, &settings), open_target(options));
    let (mut target, missing, begun) = target?;
    if !begun || options.restart {
        options.sections.refuse_unbegun()?;
    }
    let mut source = source?;
    if begun {
        return Ok(Start { turn, report: None, target: Some(target), source: Some(source) });
    }
    let report = refuse(options, (&mut source, &mut target), missing, progress, stop).await?;
    source.close().await;
    let target = if missing {
        target.close().await;
        None
    } else {
        Some(target)
    };
    Ok(Start { turn, report: Some(report), target, source: None })
}

/// A session of the target's server; whether the database is missing there, and whether it holds a migration.
async fn open_target(options: &Options) -> Result<(Connection, bool, bool)> {
    match database::open(&options.target, options.create_database).await? {
        Opened::There(mut target) => {
            let begun = state::read(&mut target).await?.is_some();
            Ok((target, false, begun))
        }
        Opened::Missing(maintenance) => Ok((maintenance, true, false)),
    }
}

/// Makes the same check as `pgstream check`: the error of what stands in the way, or the report, with its warnings shown. `missing` says that the
/// target database is yet to be created.
pub(super) async fn refuse(
    options: &Options,
    (source, target): (&mut Connection, &mut Connection),
    missing: bool,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<Report> {
    locks::wait(source, options.lock_wait, progress, stop).await?;
    let wanted = Wanted {
        create: missing.then_some(options.target.dbname.as_str()),
        ..wanted(options, options.method)
    };
    let mut report = check::run(source, target, &wanted).await?;
    if let Some(refusal) = check::refusal(&report.findings) {
        report.release().await;
        return Err(refusal);
    }
    for Finding { object, what, hint, .. } in
        report.findings.iter().filter(|finding| finding.severity == Severity::Warning)
    {
        progress.warn(format!("{object}: {what}"), hint.clone());
    }
    Ok(report)
}

/// What a migration with these options is checked for.
pub fn wanted(options: &Options, method: Method) -> Wanted<'_> {
    Wanted {
        ddl: &options.ddl,
        workers: Workers { jobs: options.jobs, index_jobs: options.index_jobs },
        method,
        replica_identity: options.replica_identity,
        roles: options.roles.options(),
        keep_going: options.keep_going,
        limits: options.limits,
        create: None,
    }
}
