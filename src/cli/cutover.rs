//! `pgstream cutover`: the last changes, then the target stands on its own.

use std::sync::Arc;
use std::time::Instant;

use super::args::{self, Cutover};
use super::migrate::{base, report};
use super::{Context, Outcome, dashboard, metrics, server, view};
use crate::error::Result;
use crate::migrate::server::{ServerOutcome, each, for_database, moved};
use crate::migrate::{Method, Options, cutover};
use crate::progress::Progress;

const NEXT: &str = "point the application at the target; pgstream verify compares both, pgstream cleanup removes the migration's record";

pub(super) async fn run(context: &Context<'_>, arguments: &Cutover) -> Result<Outcome> {
    let jobs = args::jobs(arguments.jobs);
    let options = base(context, &arguments.content, &arguments.databases, jobs)?;
    let options = Options { method: Method::Replication, ..arguments.replication.apply(options) };
    let asked = cutover::Cutover {
        max_lag: arguments.max_lag,
        patience: arguments.timeout,
        make_source_read_only: arguments.make_source_read_only,
        refresh_materialized_views: arguments.refresh_materialized_views,
    };
    let progress = Arc::new(Progress::default());
    let windows = arguments.windows;
    let _metrics = metrics::serve(windows.metrics_listen, context.ui, &options, &progress)?;
    let _dashboard = dashboard::serve(windows.dashboard, context.ui, &options, &progress).await?;
    let ended = if arguments.databases.all_databases {
        let excluded = arguments.databases.excluded()?;
        let work = all(context, &options, &excluded, &asked, &progress);
        let outcome = view::show(context.ui, &progress, work).await?;
        server::report(context, &options, outcome)?
    } else {
        let work = cutover::cutover(&options, &asked, &progress, &context.stop);
        let outcome = view::show(context.ui, &progress, work).await?;
        let ended = report(context, &options, &outcome)?;
        if outcome.method == "copy" {
            context
                .ui
                .note("it was copied once and does not follow its source: there was nothing to cut over");
            return Ok(ended);
        }
        ended
    };
    context.ui.note(NEXT);
    Ok(ended)
}

/// Each database of the target that holds a migration.
async fn all(
    context: &Context<'_>,
    options: &Options,
    excluded: &[String],
    asked: &cutover::Cutover,
    progress: &Arc<Progress>,
) -> Result<ServerOutcome> {
    let begun = Instant::now();
    let migrated = server::migrated(&options.target, excluded).await?;
    progress.set_phase("cutting over databases");
    let results = each(&migrated.names, progress, |name, progress| {
        let (options, asked) = (for_database(options, &name), asked.clone());
        let stop = context.stop.clone();
        async move {
            let _turn = options.turns.clone().acquire_owned().await;
            cutover::cutover(&options, &asked, &progress, &stop).await
        }
    })
    .await;
    let databases = moved(results, &options.target).await;
    Ok(ServerOutcome { databases, passed_over: migrated.passed_over, elapsed: begun.elapsed() })
}
