//! `pgstream migrate`: checks, moves the database, and says what came of it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::args::{self, Migrate};
use super::{Context, Outcome, check, size, stop, view};
use crate::config::Side;
use crate::error::{Error, ErrorKind, Result};
use crate::migrate::check::{Severity, Wanted};
use crate::migrate::{self, Ended, Method, Options};
use crate::progress::Progress;
use crate::replication::OnConflict;
use crate::state;
use crate::wire::{Connection, Settings};

pub(super) async fn run(context: &Context<'_>, arguments: &Migrate) -> Result<Outcome> {
    let options = resolve(context, arguments)?;
    if arguments.validate {
        let findings =
            check::find(&options.source, &options.target, &wanted(&options, options.method)).await?;
        return check::show(context, &findings);
    }
    let progress = Arc::new(Progress::default());
    let work = async {
        // Only reads, so it is simply given up.
        stop::or_stopped(&context.stop, refuse(context, &options, &progress)).await.map_err(how_to_resume)?;
        migrate::run(&options, &progress, &context.stop).await
    };
    let outcome = view::show(context.ui, &progress, work).await?;
    report(context, &options, &outcome)
}

fn resolve(context: &Context<'_>, arguments: &Migrate) -> Result<Options> {
    let jobs = arguments.jobs.map_or_else(args::default_jobs, usize::from);
    Ok(Options {
        index_jobs: arguments.index_jobs.map_or(jobs, usize::from),
        split_larger_than: arguments.split_tables_larger_than,
        restart: arguments.restart,
        roles: !arguments.no_roles,
        lock_wait: arguments.lock_wait_timeout,
        method: arguments.method.into(),
        ..base(context, &arguments.content, &arguments.replication, jobs)?
    })
}

/// The options that `migrate` and `cutover` share, with the others at their defaults.
pub(super) fn base(
    context: &Context<'_>,
    content: &args::Content,
    replication: &args::Replication,
    jobs: usize,
) -> Result<Options> {
    Ok(Options {
        source: context.servers.needed(Side::Source)?,
        target: context.servers.needed(Side::Target)?,
        jobs,
        index_jobs: jobs,
        split_larger_than: 0,
        restart: false,
        ddl: content.options(),
        roles: false,
        lock_wait: Duration::from_secs(30),
        method: Method::Auto,
        slot_timeout: replication.slot_timeout,
        replica_identity: replication.replica_identity.into(),
        on_conflict: match replication.on_conflict {
            args::OnConflict::Stop => OnConflict::Stop,
            args::OnConflict::Skip => OnConflict::Skip,
        },
        stop_when_caught_up: replication.stop_when_caught_up.then_some(replication.max_replication_lag),
        spill_directory: replication.spill_dir.clone(),
    })
}

fn wanted(options: &Options, method: Method) -> Wanted<'_> {
    Wanted { ddl: &options.ddl, jobs: options.jobs, method, replica_identity: options.replica_identity }
}

fn how_to_resume(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Stopped => {
            error.with_hint("Run the same command again: it goes on where this run stopped.")
        }
        _ => error,
    }
}

/// Makes the same check as `pgstream check` before the first run touches anything; a run that resumes was checked when it began.
async fn refuse(context: &Context<'_>, options: &Options, progress: &Progress) -> Result<()> {
    progress.set_phase("checking");
    let settings = Settings::session();
    let mut target = Connection::connect(&options.target, Side::Target, &settings).await?;
    if state::read(&mut target).await?.is_some() {
        target.close().await;
        return Ok(());
    }
    let mut source = Connection::connect(&options.source, Side::Source, &settings).await?;
    migrate::locks::wait(&mut source, options.lock_wait, progress, &context.stop).await?;
    // What keeps the source from being followed is for the run to find: with the method auto it goes on by another.
    let findings = migrate::check::run(&mut source, &mut target, &wanted(options, Method::Copy)).await?;
    tokio::join!(source.close(), target.close());
    if let Some(refusal) = migrate::check::refusal(&findings) {
        return Err(refusal);
    }
    for finding in findings.iter().filter(|finding| finding.severity == Severity::Warning) {
        context.ui.warning(&format!("{}: {}", finding.object, finding.what), finding.hint.as_deref());
    }
    Ok(())
}

pub(super) fn report(
    context: &Context<'_>,
    options: &Options,
    outcome: &migrate::Outcome,
) -> Result<Outcome> {
    let ui = context.ui;
    let seconds = outcome.elapsed.as_secs_f64();
    if ui.manner().json {
        let left: Vec<_> = outcome
            .omissions
            .iter()
            .map(|left| json!({ "kind": left.kind, "name": left.name, "reason": left.reason }))
            .collect();
        ui.json(&json!({
            "status": if outcome.ended == Ended::HandedOver { "syncing" } else { "done" },
            "method": outcome.method,
            "dbname": options.target.dbname,
            "already_done": outcome.ended == Ended::AlreadyDone,
            "tables": outcome.tables,
            "rows": outcome.rows,
            "bytes": outcome.bytes,
            "seconds": seconds,
            "not_copied": left,
        }))?;
    } else {
        for left in &outcome.omissions {
            ui.warning(
                &format!("not on the target as on the source: {} {}: {}", left.kind, left.name, left.reason),
                None,
            );
        }
        let amount = format!(
            "{}, {}, {}",
            size::count(outcome.tables, "table", "tables"),
            size::count(outcome.rows, "row", "rows"),
            size::bytes(outcome.bytes)
        );
        let (name, time) = (&options.source.dbname, size::seconds(seconds));
        ui.print(&match outcome.ended {
            Ended::AlreadyDone => {
                format!("the migration of database \"{name}\" was done already: {amount}\n")
            }
            Ended::HandedOver => format!("a cutover of database \"{name}\" has taken over\n"),
            Ended::Done => format!("done: database \"{name}\": {amount} in {time}\n"),
        })?;
    }
    // What is left out was said, and counted, by the run that did the work.
    let whole = outcome.ended != Ended::Done || outcome.omissions.is_empty();
    Ok(if whole { Outcome::Done } else { Outcome::Differences })
}
