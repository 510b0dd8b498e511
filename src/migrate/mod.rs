//! The phase machine of a migration: what is done in which order, and what a restart does from each phase.
//!
//! In: [`Options`], a [`Progress`] to count in, a token that asks to stop. Out: an [`Outcome`], and a target that equals the source. What may
//! fail: anything before the state tables are made leaves the target untouched; anything later leaves whole units of work, and the same call goes on.
//!
//! ```text
//! refuse (same database, other migration, names taken) → state tables
//!   PreData   roles, pre-data items                         these four: see `phases`
//!   Copy      parts planned; rows by workers, post-data items behind them
//!   PostData  sequences
//!   Finish    statistics, privileges, event triggers, materialized views
//!   CatchUp → Syncing → Cutover     method replication only: see `stream` and `cutover`
//!   Done
//! ```
//! Each step looks at what the state tables say and does what is left, so a restart simply walks through all of them again. A run may be asked
//! to take some of the steps only: see [`Sections`].

pub mod check;
pub mod cutover;
pub mod database;
pub mod later;
pub mod locks;
mod options;
mod outcome;
mod phases;
mod point;
pub mod position;
mod relations;
mod restart;
pub mod roles;
pub mod scope;
mod sections;
pub mod server;
mod start;
mod stream;
mod unprivileged;
pub mod worker;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use self::check::Report;
use crate::catalog::{self, server::Identity};
use crate::config::{Config, Side};
use crate::error::{Error, ErrorKind, Result};
use crate::fault;
use crate::progress::Progress;
use crate::replication::{self, Primary};
use crate::state::{self, Begin, Migration, Phase, Standing};
use crate::wire::{Connection, Settings};
use database::Opened;
pub use options::{Method, Options};
pub use outcome::{Ended, Outcome};
pub use sections::Sections;
use start::{Start, Turn};
pub use start::{start, wanted};

/// Runs a migration, or what an earlier run left of it.
///
/// # Errors
/// See the module. The error is also recorded for `status`, if the target can still be reached.
async fn run(
    options: &Options,
    start: Start,
    progress: &Arc<Progress>,
    stop: &CancellationToken,
) -> Result<Outcome> {
    let begun = Instant::now();
    let Start { turn, mut report, target, source } = start;
    progress.set_phase("connecting");
    let settings = Settings::session();
    let (source, target) = tokio::join!(
        async {
            match source {
                Some(source) => Ok(source),
                None => Connection::connect(&options.source, Side::Source, &settings).await,
            }
        },
        async {
            match target {
                Some(target) => Ok(Opened::There(target)),
                None => database::open(&options.target, options.create_database).await,
            }
        }
    );
    let (mut source, target) = (source?, target?);
    let mut target = match target {
        Opened::There(target) => target,
        Opened::Missing(mut maintenance) => {
            progress.set_phase("creating the database");
            // Its owner comes first.
            options.roles.make(&mut source, &mut maintenance, &options.ddl).await?;
            let target = database::make(&mut source, &mut maintenance, &options.target, &options.ddl).await?;
            maintenance.close().await;
            target
        }
    };
    let (identity, there) =
        tokio::join!(catalog::server::identity(&mut source), catalog::server::identity(&mut target));
    let (identity, there) = (identity?, there?);
    refuse_same_database(&identity, &there)?;
    state::lock(&mut target).await?;
    let mut migration = match report {
        Some(_) => state::read(&mut target).await?,
        None => state::read_again(&mut target).await?,
    };
    if let Some(present) = &migration {
        refuse_other_source(present, &identity)?;
        if options.restart {
            progress.set_phase("dropping what an earlier run made");
            restart::undo(&mut source, &mut target, present, progress).await?;
            migration = None;
            if let Some(mut report) = report.take() {
                report.release().await;
            }
        } else if present.phase == Phase::Done {
            return Outcome::read(&mut target, Ended::AlreadyDone, begun).await;
        }
    }
    let options = &Options { ddl: scope::settled(&options.ddl, migration.as_ref())?, ..options.clone() };
    let mut run = Run { options, progress, stop, method: options.method, turn };
    // Boxed: the whole machine is one large future.
    match Box::pin(run.walk(source, &mut target, (&identity, &there), report, migration)).await {
        Ok(ended) => {
            // A stream may have outlived the session.
            let mut target = Connection::connect(&options.target, Side::Target, &Settings::session()).await?;
            Outcome::read(&mut target, ended, begun).await
        }
        Err(error) => {
            let error = explain_stop(error);
            if error.kind() != ErrorKind::Stopped {
                record(&options.target, &mut target, &error).await;
            }
            Err(error)
        }
    }
}

fn explain_stop(error: Error) -> Error {
    if error.kind() == ErrorKind::Stopped {
        return error.with_hint("Run the same command again: it goes on where this run stopped.");
    }
    error
}

/// Remembers the error in the state tables if there are any and the target still answers; the error itself is reported anyway.
async fn record(config: &Config, session: &mut Connection, error: &Error) {
    let recorded = async {
        let mut fresh;
        let session = if session.is_broken() {
            fresh = Connection::connect(config, Side::Target, &Settings::session()).await?;
            &mut fresh
        } else {
            session
        };
        if session.in_transaction() {
            session.execute("ROLLBACK").await?;
        }
        if state::read(session).await?.is_some() {
            state::record_error(session, &error.to_string()).await?;
        }
        Ok::<(), Error>(())
    };
    if let Ok(Err(e)) = tokio::time::timeout(Duration::from_secs(5), recorded).await {
        tracing::debug!(%e, "could not record the error in the state tables");
    }
}

/// Host names prove nothing; a cluster's identifier and a database's OID in it do.
fn refuse_same_database(source: &Identity, target: &Identity) -> Result<()> {
    if source.system_identifier == target.system_identifier && source.database == target.database {
        return Err(Error::usage(format!("source and target are the same database \"{}\"", source.database))
            .with_detail(format!("Both servers have system identifier {}.", source.system_identifier))
            .with_hint("Name another database or server in --target."));
    }
    Ok(())
}

fn refuse_other_source(migration: &Migration, source: &Identity) -> Result<()> {
    let same = migration.source_system_identifier == source.system_identifier
        && migration.source_database == source.database;
    if same {
        return Ok(());
    }
    Err(Error::usage("the target holds the migration of another source")
        .with_detail(format!(
            "It was begun from database \"{}\" of the server with system identifier {}; the source now is \"{}\" of {}.",
            migration.source_database, migration.source_system_identifier, source.database, source.system_identifier,
        ))
        .with_hint("Name the source it was begun with, choose another target, or run pgstream cleanup first."))
}

/// One run of the phase machine.
struct Run<'a> {
    options: &'a Options,
    progress: &'a Arc<Progress>,
    stop: &'a CancellationToken,
    /// `Auto` until it is decided.
    method: Method,
    /// Given back once the rows are copied.
    turn: Option<Turn>,
}

impl Run<'_> {
    /// All phases, with the stream behind them where there is one.
    async fn walk(
        &mut self,
        mut source: Connection,
        target: &mut Connection,
        (identity, there): (&Identity, &Identity),
        report: Option<Report>,
        migration: Option<Migration>,
    ) -> Result<Ended> {
        self.progress.set_phase("reading the source's schema");
        let mut seen = None;
        let migration = match migration {
            Some(migration) => migration,
            None => {
                let mut report = match report {
                    Some(report) => report,
                    None => {
                        let servers = (&mut source, &mut *target);
                        start::refuse(self.options, servers, false, self.progress, self.stop).await?
                    }
                };
                if report.follows {
                    report.release().await;
                }
                seen = report.seen.take();
                self.begin(target, (identity, there), report).await?
            }
        };
        self.method = if migration.method == "copy" { Method::Copy } else { Method::Replication };
        if migration.error.is_some() {
            state::clear_error(target).await?;
        }
        if self.method == Method::Copy {
            self.phases(source, target, &migration, seen).await?;
            if let Some(left) = self.options.sections.left() {
                state::settle(target).await?;
                return Ok(Ended::Partly(left));
            }
            state::set_phase(target, Phase::Done).await?;
            return Ok(Ended::Done);
        }
        if self.options.sections != Sections::ALL {
            return Err(Error::usage("a migration by replication cannot be made section by section")
                .with_hint("Leave --section out, or begin anew with --restart and --method copy."));
        }
        self.leave_cutover(target, &migration).await?;
        loop {
            let mut standing = Standing::read(target).await?;
            if standing.is_open() || standing.migration.phase < Phase::CatchUp {
                let session =
                    Connection::connect(&self.options.source, Side::Source, &Settings::session()).await?;
                self.phases(session, target, &migration, None).await?;
                standing = Standing::read(target).await?;
            }
            self.turn = None;
            match self.follow(target, standing).await? {
                replication::Ended::Reached(position) => {
                    self.revive(target).await?;
                    if !self.stand_still(target, position).await? {
                        return Ok(Ended::HandedOver);
                    }
                }
                replication::Ended::Recopy(relation) => {
                    self.revive(target).await?;
                    self.forget_rows(target, relation).await?;
                }
                replication::Ended::Stopped(_) if self.stop.is_cancelled() => {
                    return Err(Error::stopped());
                }
                // The stream is as close as it was asked to be.
                replication::Ended::Stopped(_) => {
                    self.revive(target).await?;
                    self.revive(&mut source).await?;
                    self.analyze_changed(target).await?;
                    let primary = Primary::of(&mut source).await?;
                    self.cut(source, primary, target, &cutover::Cutover::default()).await?;
                    return Ok(Ended::Done);
                }
            }
        }
    }

    /// Undoes what a cutover that was killed has asked for, as long as it can be undone.
    async fn leave_cutover(&self, target: &mut Connection, migration: &Migration) -> Result<()> {
        if migration.phase == Phase::Cutover {
            return Err(Error::usage("a cutover was interrupted in its last steps")
                .with_detail("The target holds every change up to the cutover, and the source is not followed any more.")
                .with_hint("Run pgstream cutover again: it does what is left."));
        }
        if migration.source_read_only {
            let hint = format!(
                "Run pgstream cutover again, or on the source: ALTER DATABASE {} RESET default_transaction_read_only;",
                crate::sql::ident(&migration.source_database)
            );
            let what = "a cutover that was interrupted has left the source database read-only";
            self.progress.warn(what, Some(hint));
        }
        match migration.cutover_lsn {
            Some(_) => state::forget_cutover(target).await,
            None => Ok(()),
        }
    }

    /// Makes sure of a session that was idle for long: a lost one is opened again, and the target's lock taken again.
    async fn revive(&self, session: &mut Connection) -> Result<()> {
        if session.execute("SELECT 1").await.is_ok() {
            return Ok(());
        }
        let (side, config) = (session.side(), session.config().clone());
        *session = Connection::connect(&config, side, &Settings::session()).await?;
        if side == Side::Target { state::lock(session).await } else { Ok(()) }
    }

    /// Makes the state tables: the first trace on any server.
    async fn begin(
        &self,
        target: &mut Connection,
        (identity, there): (&Identity, &Identity),
        report: Report,
    ) -> Result<Migration> {
        let Report { follows, fallback, .. } = report;
        let stream = follows.then(|| replication::object_name(&there.system_identifier, &there.database));
        let asked = serde_json::json!({
            "jobs": self.options.jobs,
            "split_larger_than": self.options.split_larger_than,
            "fallback": fallback,
        });
        let begin = Begin {
            system_identifier: &identity.system_identifier,
            database: &identity.database,
            method: if stream.is_some() { "replication" } else { "copy" },
            stream: stream.as_deref(),
            options: &asked,
            content: &self.options.ddl,
        };
        self.check_stop()?;
        fault::step("state tables", state::create(target, &begin)).await?;
        state::current(target).await
    }

    fn check_stop(&self) -> Result<()> {
        if self.stop.is_cancelled() {
            return Err(Error::stopped());
        }
        Ok(())
    }
}
