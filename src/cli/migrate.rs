//! `pgstream migrate`: checks, moves the database, and says what came of it.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::sync::Semaphore;

use super::args::{self, Content, Migrate};
use super::{Context, Outcome, check, dashboard, metrics, server, size, stop, view};
use crate::catalog::role::Scope;
use crate::config::Side;
use crate::ddl::NotCopied;
use crate::error::{Error, Result};
use crate::migrate::check::Limits;
use crate::migrate::roles::{self, Roles};
use crate::migrate::{self, Ended, Method, Options, Sections};
use crate::progress::Progress;
use crate::replication::{MissingIdentity, OnConflict};

pub(super) async fn run(context: &Context<'_>, arguments: &Migrate) -> Result<Outcome> {
    let options = resolve(context, arguments)?;
    let excluded = arguments.databases.excluded()?;
    let all = arguments.databases.all_databases.then_some(excluded.as_slice());
    if arguments.validate {
        return stop::or_stopped(&context.stop, check::run_with(context, &options, all)).await;
    }
    let progress = Arc::new(Progress::default());
    let windows = arguments.windows;
    let _metrics = metrics::serve(windows.metrics_listen, context.ui, &options, &progress)?;
    let _dashboard = dashboard::serve(windows.dashboard, context.ui, &options, &progress).await?;
    if let Some(excluded) = all {
        let work = migrate::server::run(&options, excluded, &progress, &context.stop);
        let outcome = view::show(context.ui, &progress, work).await?;
        return server::report(context, &options, outcome);
    }
    let work = migrate::start(&options, &progress, &context.stop);
    let outcome = view::show(context.ui, &progress, work).await?;
    report(context, &options, &outcome)
}

fn resolve(context: &Context<'_>, arguments: &Migrate) -> Result<Options> {
    let jobs = args::jobs(arguments.jobs);
    let scope = if arguments.databases.all_databases { Scope::Server } else { Scope::Database };
    let mut options = base(context, &arguments.content, &arguments.databases, jobs)?;
    let sections = sections(&arguments.section);
    let mut method = arguments.content.method(arguments.method)?;
    if sections != Sections::ALL {
        if method == Method::Replication {
            return Err(Error::usage("--section does not go with --method replication")
                .with_hint("Section by section a database is copied once: leave --method out."));
        }
        method = Method::Copy;
    }
    // Rows between the two would come too late for the second.
    options.ddl.selection.schema_only |= sections.pre_data && sections.post_data && !sections.data;
    Ok(Options {
        index_jobs: arguments.index_jobs.map_or(jobs, usize::from),
        split_larger_than: arguments.split_tables_larger_than,
        sections,
        restart: arguments.restart,
        keep_going: arguments.keep_going,
        roles: Arc::new(Roles::new(arguments.roles.options(scope)?)),
        create_database: !arguments.no_create_database,
        limits: arguments.limits.into(),
        lock_wait: arguments.lock_wait_timeout,
        method,
        ..arguments.replication.apply(options)
    })
}

/// The options that commands share, with the others at their defaults: nothing is created.
pub(super) fn base(
    context: &Context<'_>,
    content: &Content,
    databases: &args::Databases,
    jobs: usize,
) -> Result<Options> {
    Ok(Options {
        source: context.servers.needed(Side::Source)?,
        target: context.servers.needed(Side::Target)?,
        jobs,
        index_jobs: jobs,
        split_larger_than: 0,
        sections: Sections::ALL,
        restart: false,
        keep_going: false,
        ddl: content.options()?,
        roles: Arc::new(Roles::new(roles::Options::none())),
        create_database: false,
        limits: Limits::default(),
        turns: Arc::new(Semaphore::new(usize::from(databases.database_jobs))),
        lock_wait: Duration::from_secs(30),
        method: Method::Auto,
        slot_timeout: Duration::ZERO,
        replica_identity: MissingIdentity::Error,
        on_conflict: OnConflict::Stop,
        stop_when_caught_up: None,
        spill_directory: PathBuf::new(),
        spool: None,
    })
}

fn sections(asked: &[args::Section]) -> Sections {
    let asked = |section| asked.is_empty() || asked.contains(&section);
    Sections {
        pre_data: asked(args::Section::PreData),
        data: asked(args::Section::Data),
        post_data: asked(args::Section::PostData),
    }
}

impl args::Replication {
    /// The same options with those of the stream.
    pub(super) fn apply(&self, options: Options) -> Options {
        Options {
            slot_timeout: self.slot_timeout,
            replica_identity: self.replica_identity.into(),
            on_conflict: match self.on_conflict {
                args::OnConflict::Stop => OnConflict::Stop,
                args::OnConflict::Skip => OnConflict::Skip,
            },
            stop_when_caught_up: self.stop_when_caught_up.then_some(self.max_replication_lag),
            spill_directory: self.spill_dir.clone(),
            spool: self.spool_dir.clone(),
            ..options
        }
    }
}

pub(super) fn report(
    context: &Context<'_>,
    options: &Options,
    outcome: &migrate::Outcome,
) -> Result<Outcome> {
    let ui = context.ui;
    if ui.manner().json {
        let mut object = object(&options.target.dbname, outcome);
        object["roles"] = server::roles(options.roles.made());
        ui.json(&object)?;
    } else {
        for left in &outcome.omissions {
            ui.warning(&left_out(left), None);
        }
        ui.print(&(server::passwords(options.roles.made()) + &line(&options.source.dbname, outcome)))?;
    }
    Ok(if is_whole(outcome) { Outcome::Done } else { Outcome::Differences })
}

/// What is said of something that is not on the target as on the source.
pub(super) fn left_out(left: &NotCopied) -> String {
    format!("not on the target as on the source: {} {}: {}", left.kind, left.name, left.reason)
}

/// What is left out was said, and counted, by the run that did the work.
pub(super) fn is_whole(outcome: &migrate::Outcome) -> bool {
    !matches!(outcome.ended, Ended::Done | Ended::Partly(_)) || outcome.omissions.is_empty()
}

/// What came of one database, in words.
pub(super) fn line(name: &str, outcome: &migrate::Outcome) -> String {
    let amount = format!(
        "{}, {}, {}",
        size::count(outcome.tables, "table", "tables"),
        size::count(outcome.rows, "row", "rows"),
        size::bytes(outcome.bytes)
    );
    let time = size::seconds(outcome.elapsed.as_secs_f64());
    match outcome.ended {
        Ended::AlreadyDone => format!("the migration of database \"{name}\" was done already: {amount}\n"),
        Ended::HandedOver => format!("a cutover of database \"{name}\" has taken over\n"),
        Ended::Partly(left) => {
            format!("database \"{name}\": {amount} in {time}; left to do: section {left}\n")
        }
        Ended::Done => format!("done: database \"{name}\": {amount} in {time}\n"),
    }
}

/// What came of one database, for programs.
pub(super) fn object(name: &str, outcome: &migrate::Outcome) -> serde_json::Value {
    let left: Vec<_> = outcome
        .omissions
        .iter()
        .map(|left| json!({ "kind": left.kind, "name": left.name, "reason": left.reason }))
        .collect();
    json!({
        "dbname": name,
        "error": null,
        "method": outcome.method,
        "status": match outcome.ended {
            Ended::HandedOver => "syncing",
            Ended::Partly(_) => "running",
            Ended::Done | Ended::AlreadyDone => "done",
        },
        "already_done": outcome.ended == Ended::AlreadyDone,
        "fallback": outcome.fallback,
        "tables": outcome.tables,
        "rows": outcome.rows,
        "bytes": outcome.bytes,
        "seconds": outcome.elapsed.as_secs_f64(),
        "not_copied": left,
    })
}
