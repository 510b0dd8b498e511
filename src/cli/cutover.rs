//! `pgstream cutover`: the last changes, then the target stands on its own.

use std::sync::Arc;

use super::args::{self, Cutover};
use super::migrate::{base, report};
use super::{Context, Outcome, view};
use crate::error::Result;
use crate::migrate::{Method, Options, cutover};
use crate::progress::Progress;

pub(super) async fn run(context: &Context<'_>, arguments: &Cutover) -> Result<Outcome> {
    let jobs = arguments.jobs.map_or_else(args::default_jobs, usize::from);
    let options = Options {
        method: Method::Replication,
        ..base(context, &arguments.content, &arguments.replication, jobs)?
    };
    let asked = cutover::Cutover {
        max_lag: arguments.max_lag,
        patience: arguments.timeout,
        make_source_read_only: arguments.make_source_read_only,
        refresh_materialized_views: arguments.refresh_materialized_views,
    };
    let progress = Arc::new(Progress::default());
    let work = cutover::cutover(&options, &asked, &progress, &context.stop);
    let outcome = view::show(context.ui, &progress, work).await?;
    let ended = report(context, &options, &outcome)?;
    context.ui.note("point the application at the target; pgstream verify compares both, pgstream cleanup removes the migration's record");
    Ok(ended)
}
