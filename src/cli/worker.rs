//! `pgstream worker`: helps a copy that runs elsewhere.

use std::sync::Arc;

use serde_json::json;

use super::args::{self, Worker};
use super::{Context, Outcome, size, view};
use crate::config::Side;
use crate::error::Result;
use crate::migrate::worker::{self, Options};
use crate::progress::Progress;

pub(super) async fn run(context: &Context<'_>, arguments: &Worker) -> Result<Outcome> {
    let options = Options {
        source: context.servers.needed(Side::Source)?,
        target: context.servers.needed(Side::Target)?,
        jobs: args::jobs(arguments.jobs),
        wait: arguments.wait,
    };
    let progress = Arc::new(Progress::default());
    let work = worker::work(&options, &progress, &context.stop);
    let worker::Outcome { parts, rows, elapsed } = view::show(context.ui, &progress, work).await?;
    if context.ui.manner().json {
        let seconds = elapsed.as_secs_f64();
        context.ui.json(&json!({ "parts": parts, "rows": rows, "seconds": seconds }))?;
    } else {
        let (parts, rows) = (size::count(parts, "part", "parts"), size::count(rows, "row", "rows"));
        let time = size::seconds(elapsed.as_secs_f64());
        context.ui.print(&format!("no part is left; this worker copied {parts}, {rows} in {time}\n"))?;
    }
    Ok(Outcome::Done)
}
