//! `pgstream migrate`: checks, moves the database, and says what came of it.

use std::sync::Arc;

use serde_json::json;

use super::args::{self, Method, Migrate};
use super::{Context, Outcome, check, size, view};
use crate::config::Side;
use crate::error::{Error, Result};
use crate::migrate::check::Severity;
use crate::migrate::{self, Options};
use crate::progress::Progress;
use crate::state;
use crate::wire::{Connection, Settings};

pub(super) async fn run(context: &Context<'_>, arguments: &Migrate) -> Result<Outcome> {
    if arguments.method == Method::Replication {
        return Err(Error::usage("this version of pgstream has only the method \"copy\"")
            .with_hint("Use --method copy while nothing writes to the source, or --method auto."));
    }
    let options = resolve(context, arguments)?;
    if arguments.validate {
        let findings = check::find(&options.source, &options.target, &options.ddl, options.jobs).await?;
        return check::show(context, &findings);
    }
    let progress = Arc::new(Progress::default());
    let work = async {
        refuse(context, &options, &progress).await?;
        migrate::run(&options, &progress, &context.stop).await
    };
    let outcome = view::show(context.ui, &progress, work).await?;
    report(context, &options, &outcome)
}

fn resolve(context: &Context<'_>, arguments: &Migrate) -> Result<Options> {
    let jobs = arguments.jobs.map_or_else(args::default_jobs, usize::from);
    Ok(Options {
        source: context.servers.needed(Side::Source)?,
        target: context.servers.needed(Side::Target)?,
        jobs,
        index_jobs: arguments.index_jobs.map_or(jobs, usize::from),
        split_larger_than: arguments.split_tables_larger_than,
        restart: arguments.restart,
        ddl: arguments.content.options(),
        roles: !arguments.no_roles,
        lock_wait: arguments.lock_wait_timeout,
    })
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
    migrate::locks::wait(&mut source, options.lock_wait, progress).await?;
    let findings = migrate::check::run(&mut source, &mut target, &options.ddl, options.jobs).await?;
    tokio::join!(source.close(), target.close());
    if let Some(refusal) = migrate::check::refusal(&findings) {
        return Err(refusal);
    }
    for finding in findings.iter().filter(|finding| finding.severity == Severity::Warning) {
        context.ui.warning(&format!("{}: {}", finding.object, finding.what), finding.hint.as_deref());
    }
    Ok(())
}

fn report(context: &Context<'_>, options: &Options, outcome: &migrate::Outcome) -> Result<Outcome> {
    let ui = context.ui;
    let seconds = outcome.elapsed.as_secs_f64();
    if ui.manner().json {
        let left: Vec<_> = outcome
            .omissions
            .iter()
            .map(|left| json!({ "kind": left.kind, "name": left.name, "reason": left.reason }))
            .collect();
        ui.json(&json!({
            "status": "done",
            "method": "copy",
            "dbname": options.target.dbname,
            "already_done": outcome.already_done,
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
        ui.print(&if outcome.already_done {
            format!("the migration of database \"{}\" was done already: {amount}\n", options.source.dbname)
        } else {
            format!("done: database \"{}\": {amount} in {}\n", options.source.dbname, size::seconds(seconds))
        })?;
    }
    // What is left out was said, and counted, by the run that did the work.
    let whole = outcome.already_done || outcome.omissions.is_empty();
    Ok(if whole { Outcome::Done } else { Outcome::Differences })
}
