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
    let report = checked.map_err(super::explain_stop)?;
    super::run(options, report, progress, stop).await
}

/// Waits until fewer databases than asked for are being copied.
pub(super) async fn turn(
    options: &Options,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<Option<OwnedSemaphorePermit>> {
    if options.turns.available_permits() == 0 {
        progress.set_phase("waiting for its turn");
    }
    tokio::select! {
        // Nobody closes it.
        permit = options.turns.clone().acquire_owned() => Ok(permit.ok()),
        () = stop.cancelled() => Err(Error::stopped()),
    }
}

/// The check before the first run touches anything; a run that resumes was checked when it began, and one that begins anew is checked
/// once the place is free.
async fn first_check(
    options: &Options,
    progress: &Progress,
    stop: &CancellationToken,
) -> Result<Option<Report>> {
    let _turn = turn(options, progress, stop).await?;
    progress.set_phase("checking");
    let (mut target, missing) = match database::open(&options.target, options.create_database).await? {
        Opened::There(target) => (target, false),
        Opened::Missing(maintenance) => (maintenance, true),
    };
    let begun = !missing && state::read(&mut target).await?.is_some();
    if !begun || options.restart {
        options.sections.refuse_unbegun()?;
    }
    if begun {
        target.close().await;
        return Ok(None);
    }
    let mut source = Connection::connect(&options.source, Side::Source, &Settings::session()).await?;
    let report = refuse(options, (&mut source, &mut target), missing, progress, stop).await?;
    tokio::join!(source.close(), target.close());
    Ok(Some(report))
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
    let report = check::run(source, target, &wanted).await?;
    if let Some(refusal) = check::refusal(&report.findings) {
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
