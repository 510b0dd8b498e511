//! The phase machine of a migration: what is done in which order, and what a restart does from each phase.
//!
//! In: [`Options`], a [`Progress`] to count in, a token that asks to stop. Out: an [`Outcome`], and a target that equals the source. What may
//! fail: anything before the state tables are made leaves the target untouched; anything later leaves whole units of work, and the same call goes on.
//!
//! ```text
//! refuse (same database, other migration, names taken) → state tables
//!   PreData   roles, pre-data items
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

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::check::Report;
use self::point::Point;
use crate::catalog::{self, role::Scope, server::Identity};
use crate::config::{Config, Side};
use crate::copy::{
    self, Copy, Failures, Policy, Schedule, Snapshot, SourceTables, SplitRule, Tables, Workers,
};
use crate::ddl::{self, Item, NotCopied, Plan, Section};
use crate::error::{Error, ErrorKind, Result};
use crate::fault;
use crate::progress::Progress;
use crate::replication::{self, MissingIdentity, OnConflict};
use crate::schema::table::Table;
use crate::schema::{Database, partition};
use crate::state::{self, Begin, ItemOutcome, ItemState, Migration, Phase};
use crate::wire::{Connection, Settings};
use database::Opened;
use roles::Roles;
use scope::Seen;
pub use sections::Sections;
use start::{Start, Turn};
pub use start::{start, wanted};

/// What a migration is asked to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// The database that is copied from.
    pub source: Config,
    /// The database that is copied to.
    pub target: Config,
    /// Sessions that move rows, on each side.
    pub jobs: usize,
    /// Sessions that make indexes and constraints.
    pub index_jobs: usize,
    /// Tables above this size (with TOAST, in bytes) are cut into parts; 0 cuts none.
    pub split_larger_than: u64,
    /// The sections that this run takes; fewer than all only with the method copy.
    pub sections: Sections,
    /// Drop what an earlier run of pgstream made, and start anew.
    pub restart: bool,
    /// Go on without objects that the target refuses.
    pub keep_going: bool,
    /// What of the schema is copied.
    pub ddl: ddl::Options,
    /// The roles that are made, shared by the databases of a run.
    pub roles: Arc<Roles>,
    /// What the check lets pass.
    pub limits: check::Limits,
    /// Whether a target database that isn't there is created.
    pub create_database: bool,
    /// How many databases are copied at the same time, shared by the databases of a run. Following a source takes no turn.
    pub turns: Arc<Semaphore>,
    /// How long to wait for another session's lock on a source table.
    pub lock_wait: Duration,
    /// How the target gets what changes meanwhile.
    pub method: Method,
    /// How long the slot may wait for transactions of the source to end.
    pub slot_timeout: Duration,
    /// What to do about tables without replica identity.
    pub replica_identity: MissingIdentity,
    /// What to do about an UPDATE or DELETE whose row is not on the target.
    pub on_conflict: OnConflict,
    /// Cut over as soon as the target is at most this far behind, in bytes of log.
    pub stop_when_caught_up: Option<u64>,
    /// The folder for transactions that don't fit into memory.
    pub spill_directory: PathBuf,
    /// The folder that the stream is received into while rows are copied.
    pub spool: Option<PathBuf>,
}

/// How a database is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// By replication where the source allows it, by copy otherwise.
    Auto,
    /// Copied once.
    Copy,
    /// Copied, then followed until a cutover.
    Replication,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The migration is done.
    Done,
    /// It had been done before; nothing was touched.
    AlreadyDone,
    /// A cutover took over.
    HandedOver,
    /// The sections that were asked for are done; these are left.
    Partly(Sections),
}

/// How a migration ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Whether it is done.
    pub ended: Ended,
    /// `copy` or `replication`.
    pub method: String,
    /// Why the method auto chose `copy`, one full sentence each.
    pub fallback: Vec<String>,
    /// What is not on the target as on the source.
    pub omissions: Vec<NotCopied>,
    /// Tables whose rows are on the target.
    pub tables: u64,
    /// Rows copied, by all runs together.
    pub rows: u64,
    /// Size of the tables on the source, in bytes.
    pub bytes: u64,
    /// Time that this run took.
    pub elapsed: Duration,
}

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
    let Start { turn, mut report, target } = start;
    progress.set_phase("connecting");
    let settings = Settings::session();
    let (source, target) =
        tokio::join!(Connection::connect(&options.source, Side::Source, &settings), async {
            match target {
                Some(target) => Ok(Opened::There(target)),
                None => database::open(&options.target, options.create_database).await,
            }
        });
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
    let identity = catalog::server::identity(&mut source).await?;
    let there = catalog::server::identity(&mut target).await?;
    refuse_same_database(&identity, &there)?;
    state::lock(&mut target).await?;
    let mut migration = state::read(&mut target).await?;
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
            return outcome(&mut target, Ended::AlreadyDone, begun).await;
        }
    }
    let options = &Options { ddl: scope::settled(&options.ddl, migration.as_ref())?, ..options.clone() };
    let mut run = Run { options, progress, stop, method: options.method, turn };
    // Boxed: the whole machine is one large future.
    match Box::pin(run.walk(source, &mut target, (&identity, &there), report, migration)).await {
        Ok(ended) => {
            // A stream may have outlived the session.
            let mut target = Connection::connect(&options.target, Side::Target, &Settings::session()).await?;
            outcome(&mut target, ended, begun).await
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

async fn outcome(target: &mut Connection, ended: Ended, begun: Instant) -> Result<Outcome> {
    let tables = state::part_progress(target).await?;
    let (method, fallback) = state::read(target)
        .await?
        .map(|migration| (migration.method, migration.fallback))
        .unwrap_or_default();
    Ok(Outcome {
        ended,
        method,
        fallback,
        omissions: state::omissions(target).await?,
        tables: tables.len() as u64,
        rows: tables.iter().map(|t| t.rows).sum(),
        bytes: tables.iter().map(|t| t.bytes).sum(),
        elapsed: begun.elapsed(),
    })
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
        state::clear_error(target).await?;
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
            let open = state::relations(target).await?.iter().any(|(_, done, all)| done < all);
            if open || state::read(target).await?.is_none_or(|m| m.phase < Phase::CatchUp) {
                let session =
                    Connection::connect(&self.options.source, Side::Source, &Settings::session()).await?;
                self.phases(session, target, &migration, None).await?;
            }
            self.turn = None;
            match self.follow(target, &migration).await? {
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
                    self.cut(source, target, &cutover::Cutover::default()).await?;
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
        state::forget_cutover(target).await
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
        state::read(target).await?.ok_or_else(|| Error::failed("the state tables are gone"))
    }

    /// Everything up to a target that stands at a snapshot of the source. The stream goes into the spool meanwhile, where there is to be one.
    async fn phases(
        &self,
        mut source: Connection,
        target: &mut Connection,
        migration: &Migration,
        seen: Option<Seen>,
    ) -> Result<()> {
        locks::wait(&mut source, self.options.lock_wait, self.progress, self.stop).await?;
        let point = self.point(&mut source, target, migration, seen).await?;
        let stop = self.stop.child_token();
        let Some(spooling) = self.spool(migration, &stop)? else {
            return self.phases_at(point, source, target, migration).await;
        };
        // Boxed, as the whole machine is.
        let run = Run { stop: &stop, turn: None, ..*self };
        let worked = Box::pin(run.phases_at(point, source, target, migration)).await;
        // Without the stream, the copy is worth nothing.
        spooling.end().await?;
        worked
    }

    /// All phases of a copy at this point of the source.
    async fn phases_at(
        &self,
        point: Point,
        mut source: Connection,
        target: &mut Connection,
        migration: &Migration,
    ) -> Result<()> {
        let Point { snapshot, selected, left_out } = point;
        later::refuse_renamed(target, &selected.database.tables).await?;
        let wanted =
            ddl::Options { database: Some(self.options.target.dbname.clone()), ..self.options.ddl.clone() };
        let (database, plan) = scope::plan(target, selected, &wanted).await?;
        self.check_stop()?;
        for omission in &plan.not_copied {
            state::omit(target, omission).await?;
        }
        let made = state::items(target).await?;
        self.note_changes(&plan, &made);
        self.progress.set_items(made.len() as u64, plan.items.len() as u64);

        let failures = Arc::new(Failures::new(&plan, self.policy()));
        self.follow_sections(target, migration, (&plan, &made), &failures).await?;
        if self.options.sections.pre_data {
            self.progress.set_phase("creating tables and types");
            self.make_roles(&mut source, target).await?;
            self.make(target, Section::PreData, (&plan, &made), &failures).await?;
        }
        // Rows of a table that could not be made have no place.
        let database = database.without(&failures.objects(&plan));
        self.check_stop()?;

        let positions: HashSet<u32> =
            database.sequences.iter().filter(|s| !s.contents_left_out).map(|s| s.oid).collect();
        let Sections { data, post_data, .. } = self.options.sections;
        if data || post_data {
            self.progress.set_phase(if data { "copying rows" } else { "creating indexes and constraints" });
            self.copy_rows(snapshot, target, (database, &left_out), &plan, &made, &failures).await?;
        }
        if data {
            enter(target, Phase::PostData).await?;
            self.progress.set_phase("setting sequences");
            // It was idle while rows were copied and indexes built.
            self.revive(&mut source).await?;
            // The snapshot is gone, and with it the catalogs as they were: sequences are read as they are now, as pg_dump does.
            let mut sequences = catalog::sequence::sequences().run(&mut source).await?;
            sequences.retain(|sequence| positions.contains(&sequence.oid));
            fault::step("sequences", copy::copy_sequences(&mut source, target, &sequences)).await?;
            self.check_stop()?;
        }
        if !post_data {
            source.close().await;
            return Ok(());
        }

        enter(target, Phase::Finish).await?;
        self.progress.set_phase("collecting statistics");
        self.analyze(target).await?;
        self.progress.set_phase("granting privileges and refreshing views");
        for section in [Section::Privileges, Section::Last] {
            self.make(target, section, (&plan, &made), &failures).await?;
            self.check_stop()?;
        }
        source.close().await;
        Ok(())
    }

    /// Makes what is left of a section: as much as can be by several sessions, the rest by this one.
    async fn make(
        &self,
        target: &mut Connection,
        section: Section,
        (plan, made): (&Plan, &HashMap<String, ItemState>),
        failures: &Failures,
    ) -> Result<()> {
        let mut places: Vec<usize> = remaining_places(plan, section, made).collect();
        // Those of the last section must not see each other being made, and what needs something that failed is left out.
        if section != Section::Last && failures.is_empty() {
            let config = &self.options.target;
            let (jobs, part) = (self.options.index_jobs, plan.part(&places));
            let left = copy::make_ahead(config, part, jobs, self.progress, self.stop).await?;
            places = left.into_iter().map(|position| places[position]).collect();
            self.check_stop()?;
        }
        let items: Vec<&Item> = places.into_iter().map(|place| &plan.items[place]).collect();
        copy::apply_items(target, &items, failures, self.progress).await.map(drop)
    }

    fn policy(&self) -> Policy {
        match (self.options.keep_going, self.method) {
            (false, _) => Policy::Stop,
            (true, Method::Copy) => Policy::Continue,
            (true, _) => Policy::KeepContainers,
        }
    }

    async fn analyze(&self, target: &mut Connection) -> Result<()> {
        let tables = state::relations(target).await?;
        let tables = tables
            .into_iter()
            .filter(|(relation, _, _)| relation.oid != state::LARGE_OBJECTS)
            .map(|(relation, _, _)| relation)
            .collect();
        copy::analyze(&self.options.target, tables, self.options.jobs, self.progress, self.stop).await
    }

    fn check_stop(&self) -> Result<()> {
        if self.stop.is_cancelled() {
            return Err(Error::stopped());
        }
        Ok(())
    }

    /// Says which items an earlier run made from a definition that the source no longer has.
    fn note_changes(&self, plan: &Plan, made: &HashMap<String, ItemState>) {
        for item in &plan.items {
            let changed = made.get(&item.key()).is_some_and(|state| {
                state.outcome != ItemOutcome::Failed && state.fingerprint != state::fingerprint(item)
            });
            if changed {
                let what = format!(
                    "{} was changed on the source after an earlier run made it on the target",
                    item.key()
                );
                self.progress.warn(what, None);
            }
        }
    }

    async fn make_roles(&self, source: &mut Connection, target: &mut Connection) -> Result<()> {
        let made = self.options.roles.make(source, target, &self.options.ddl).await?;
        // Those of a whole server belong to no database's record.
        if self.options.roles.options().scope == Scope::Database {
            let records: Vec<_> = made
                .iter()
                .map(|made| state::record_item(&made.item, made.outcome, made.reason.as_deref()))
                .collect();
            let record = async { target.pipeline(&records).await.map_err(Error::from) };
            fault::step("roles recorded", record).await?;
            self.progress.add_items(records.len() as u64);
        }
        Ok(())
    }

    async fn copy_rows(
        &self,
        mut snapshot: Snapshot,
        target: &mut Connection,
        (database, left_out): (Database, &HashMap<u32, String>),
        plan: &Plan,
        made: &HashMap<String, ItemState>,
        failures: &Arc<Failures>,
    ) -> Result<()> {
        let options = self.options;
        let through_root = partition::loaded_through_root(&database, encoding(target));
        if options.sections.data {
            let rule = SplitRule { larger_than: options.split_larger_than, source_version: database.version };
            let wanted = relations::Wanted {
                tables: &database.tables,
                large_objects: options.ddl.selection.includes_large_objects(),
                through_root: &through_root,
                left_out,
            };
            relations::plan(snapshot.connection(), target, &wanted, &rule, self.progress).await?;
            // Only now: a run that finds this phase and no open part takes it that every row has been copied.
            enter(target, Phase::Copy).await?;
        }
        let relations = state::relations(target).await?;
        let progress = state::part_progress(target).await?;
        self.progress.set_parts(
            progress.iter().map(|p| p.parts_done).sum(),
            progress.iter().map(|p| p.parts).sum(),
            progress.iter().map(|p| p.bytes_done).sum(),
            progress.iter().map(|p| p.bytes).sum(),
        );
        let leaves = partition::leaves(&database.tables);
        let sizes =
            database.tables.iter().map(|t| (t.oid, size_with_leaves(t, &leaves, &database.tables))).collect();
        let incomplete: Vec<u32> =
            relations.iter().filter(|(_, done, all)| done < all).map(|(r, _, _)| r.oid).collect();
        let relations = relations.into_iter().map(|(relation, _, _)| relation).collect();
        let pending = state::pending_parts(target).await?;
        let mut chosen: Vec<usize> = match options.sections.post_data {
            true => remaining_places(plan, Section::PostData, made).collect(),
            false => Vec::new(),
        };
        if self.method == Method::Replication {
            let silent = stream::can_silence(&options.target).await?;
            if !silent {
                self.progress.note(
                    "triggers and foreign keys are created at the cutover: they can't be silenced on the target",
                );
            }
            let held_back = stream::held_back(&database, silent);
            chosen.retain(|&place| !held_back(&plan.items[place]));
        }
        let (items, needs) = plan.part(&chosen);
        let waited_for = Tables { leaves, sizes, incomplete: &incomplete };
        let post_data = Schedule::post_data(items, needs, &waited_for, self.options.index_jobs.max(1));
        let as_is = copy::is_as_is(snapshot.connection(), target);
        let tables = database.tables.into_iter().map(|table| (table.oid, table)).collect();
        let tables = SourceTables {
            tables,
            through_root,
            as_is,
            ddl: options.ddl.clone(),
            failures: failures.clone(),
        };
        let offer = state::offer(target, snapshot.name(), snapshot.lsn());
        let offer = fault::step("snapshot offered", offer).await?;
        let copy = Copy::new(
            (options.source.clone(), options.target.clone()),
            offer,
            relations,
            pending,
            tables,
            post_data,
            self.progress.clone(),
        );
        let workers = Workers { jobs: options.jobs, index_jobs: options.index_jobs };
        copy::run(Arc::new(copy), snapshot, workers, self.stop).await
    }
}

/// The encoding of the session's database.
fn encoding(session: &Connection) -> &str {
    session.parameter("server_encoding").unwrap_or_default()
}

/// Enters a phase, unless the migration is further: a table that is copied again doesn't take it back.
async fn enter(target: &mut Connection, phase: Phase) -> Result<()> {
    if state::read(target).await?.is_some_and(|migration| migration.phase < phase) {
        state::set_phase(target, phase).await?;
    }
    Ok(())
}

/// Items of a section that are not made yet, or failed before.
fn remaining<'a>(plan: &'a Plan, section: Section, made: &HashMap<String, ItemState>) -> Vec<&'a Item> {
    remaining_places(plan, section, made).map(|place| &plan.items[place]).collect()
}

/// The same, by their places in the plan.
fn remaining_places<'a>(
    plan: &'a Plan,
    section: Section,
    made: &'a HashMap<String, ItemState>,
) -> impl Iterator<Item = usize> + 'a {
    let is_made =
        |item: &Item| made.get(&item.key()).is_some_and(|state| state.outcome != ItemOutcome::Failed);
    let open = move |place: &usize| plan.items[*place].section == section && !is_made(&plan.items[*place]);
    (0..plan.items.len()).filter(open)
}

fn size_with_leaves(table: &Table, leaves: &HashMap<u32, Vec<u32>>, tables: &[Table]) -> u64 {
    match leaves.get(&table.oid) {
        None => table.bytes,
        Some(below) => tables.iter().filter(|t| below.contains(&t.oid)).map(|t| t.bytes).sum(),
    }
}
