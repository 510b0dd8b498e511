//! Cutover: the last changes, then all that no stream carries, then the slot and the publication go.
//!
//! In: a target that follows its source. Out: a target that stands on its own, and a migration that is done. What may fail: a lag that doesn't shrink
//! in time; prepared transactions of the source that nobody has ended; either server. Every step looks at what is there, so a cutover
//! that was interrupted anywhere is run again.
//!
//! ```text
//! lag small, statistics ─► writes stop ─► end position ─► stream applied up to it ─► sequences, large objects, views ─► nobody wrote
//!      └── a failure up to here makes the source writable again, and `migrate` may follow it further ──┘       │
//! phase Cutover: held-back triggers and foreign keys ─► slot, publication dropped ─► done ◄───────────────────┘
//! ```
//! Beside a running `migrate`, the end position is written into the state tables; the run ends when it is reached, and the cutover goes on alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgstream_proto::lsn::Lsn;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::phases::remaining;
use super::stream::names;
use super::{Ended, Method, Options, Outcome, Run, refuse_other_source, scope};
use crate::catalog::{self, server};
use crate::config::Side;
use crate::copy::{self, Failures};
use crate::ddl::{Plan, Section};
use crate::error::{Error, ErrorKind, Result};
use crate::fault;
use crate::progress::Progress;
use crate::replication::{self, Primary};
use crate::schema::Database;
use crate::sql::{ident, qualified};
use crate::state::{self, Migration, Phase, Standing, checkpoint};
use crate::wire::{Connection, Settings};

/// What a cutover is asked to do.
#[derive(Debug, Clone)]
pub struct Cutover {
    /// It begins once the target is at most this far behind, in bytes of log.
    pub max_lag: u64,
    /// How long to wait for that.
    pub patience: Duration,
    /// Make the source database read-only, and end the sessions that others have in it.
    pub make_source_read_only: bool,
    /// Refresh materialized views once everything is applied.
    pub refresh_materialized_views: bool,
}

impl Default for Cutover {
    /// At once, with a source that nobody writes to any more.
    fn default() -> Cutover {
        Cutover {
            max_lag: u64::MAX,
            patience: Duration::ZERO,
            make_source_read_only: false,
            refresh_materialized_views: false,
        }
    }
}

/// How often the lag, or another run, is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Ends a migration by replication: see the module.
///
/// # Errors
/// Also a usage error where there is nothing to cut over, or not yet.
pub async fn cutover(
    options: &Options,
    cutover: &Cutover,
    progress: &Arc<Progress>,
    stop: &CancellationToken,
) -> Result<Outcome> {
    let begun = Instant::now();
    progress.set_phase("connecting");
    let mut target = Connection::connect(&options.target, Side::Target, &Settings::session()).await?;
    let mut source = Connection::connect(&options.source, Side::Source, &Settings::session()).await?;
    state::lock_cutover(&mut target).await?;
    let migration = state::read(&mut target).await?.ok_or_else(|| {
        Error::usage(format!("target database \"{}\" holds no migration to cut over", options.target.dbname))
            .with_hint("Begin one with pgstream migrate.")
    })?;
    refuse_other_source(&migration, &server::identity(&mut source).await?)?;
    if migration.phase == Phase::Done {
        return Outcome::read(&mut target, Ended::AlreadyDone, begun).await;
    }
    if migration.method != "replication" || migration.phase < Phase::CatchUp {
        return Err(Error::usage("the migration is not ready for a cutover")
            .with_detail(format!(
                "Its method is {}, and it is in phase {}.",
                migration.method, migration.phase
            ))
            .with_hint("Run pgstream migrate again first; it ends by itself with the method copy."));
    }
    let options = &Options { ddl: scope::settled(&options.ddl, Some(&migration))?, ..options.clone() };
    let run = Run { options, progress, stop, method: Method::Replication, turn: None };
    let mut primary = Primary::of(&mut source).await?;
    let work = async {
        if migration.phase < Phase::Cutover {
            run.wait_for_lag(primary.session(&mut source), &mut target, cutover).await?;
            // The application is still at work, and waits for none of it.
            run.analyze_changed(&mut target).await?;
            run.wait_for_lag(primary.session(&mut source), &mut target, cutover).await?;
        }
        run.cut(source, primary, &mut target, cutover).await
    };
    Box::pin(work).await.map_err(|error| match error.kind() {
        ErrorKind::Stopped => {
            error.with_hint("Run the same command again: the cutover goes on where it stopped.")
        }
        _ => error,
    })?;
    Outcome::read(&mut target, Ended::Done, begun).await
}

impl Run<'_> {
    /// Waits until a running `migrate` has brought the target close. Without one, the cutover follows the source itself, and the lag
    /// only says how long that will take. `source` is where it is written to.
    async fn wait_for_lag(
        &self,
        source: &mut Connection,
        target: &mut Connection,
        cutover: &Cutover,
    ) -> Result<()> {
        self.progress.set_phase("waiting for the target to catch up");
        let begun = Instant::now();
        loop {
            self.check_stop()?;
            let running = state::lock_holder(target).await?.is_some();
            if !running {
                refuse_open(target).await?;
            }
            let open = open_relation(target).await?;
            let lag = lag(source, target).await?;
            if lag <= cutover.max_lag && open.is_none() {
                return Ok(());
            }
            // A `migrate` that began just now is let go on.
            if !running && state::try_lock(target).await? {
                // Nobody else applies: catch up here, and leave off when it is close.
                let enough = server::current_lsn(source).await?;
                self.follow_to(target, enough).await?;
                continue;
            }
            if begun.elapsed() >= cutover.patience {
                let after = cutover.patience.as_secs();
                return Err(Error::failed(match open {
                    Some(name) => format!("table {name} is still being copied after {after} s"),
                    None => format!("the target is still {lag} bytes behind after {after} s"),
                })
                .with_hint("Run pgstream cutover again later, or allow more with --max-lag or --timeout; nothing has been changed."));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Applies the stream up to `end`.
    async fn follow_to(&self, target: &mut Connection, end: Lsn) -> Result<()> {
        let (_until, asked) = watch::channel(Some(end));
        let standing = Standing::read(target).await?;
        match self.begin_following(standing, asked, self.stop)?.ended().await? {
            replication::Ended::Reached(_) => Ok(()),
            replication::Ended::Stopped(_) => Err(Error::stopped()),
            replication::Ended::Recopy(_) => {
                Err(Error::failed("a table must be copied again before the cutover")
                    .with_hint("Run pgstream migrate again; it copies the table and goes on."))
            }
        }
    }

    /// Nothing is written to the source any more: the operator has seen to it, or this does.
    pub(super) async fn cut(
        &self,
        mut source: Connection,
        mut primary: Primary,
        target: &mut Connection,
        cutover: &Cutover,
    ) -> Result<()> {
        let migration = state::current(target).await?;
        let plan = if migration.phase < Phase::Cutover {
            let plan = match self.bring_over((&mut source, &mut primary), target, &migration, cutover).await {
                Ok(plan) => plan,
                Err(error) => return Err(self.back_out(source, target, error).await),
            };
            state::set_phase(target, Phase::Cutover).await?;
            plan
        } else {
            state::lock(target).await?;
            self.plan(&mut source, target).await?.1
        };
        self.make_held_items(target, &plan).await?;
        let (slot, publication) = names(&migration)?;
        self.progress.set_phase("dropping slot and publication");
        fault::step("drop slot", replication::drop_slot(&mut source, slot)).await?;
        let writer = primary.session(&mut source);
        fault::step("drop publication", replication::drop_publication(writer, publication)).await?;
        put_back_identities(writer, target).await?;
        state::set_phase(target, Phase::Done).await?;
        source.close().await;
        Ok(())
    }

    /// What of the source is migrated, as it is now.
    async fn plan(&self, source: &mut Connection, target: &mut Connection) -> Result<(Database, Plan)> {
        let selected = scope::read(source, &self.options.ddl).await?;
        scope::plan(target, selected, &self.options.ddl).await
    }

    /// Everything that can be done again if a later step fails and the source goes on being written to. The plan is that of the source as
    /// it stands now.
    async fn bring_over(
        &self,
        (source, primary): (&mut Connection, &mut Primary),
        target: &mut Connection,
        migration: &Migration,
        cutover: &Cutover,
    ) -> Result<Plan> {
        let writer = primary.session(source);
        refuse_subscriptions(writer).await?;
        if cutover.make_source_read_only {
            self.progress.set_phase("making the source read-only");
            state::set_source_read_only(target, true).await?;
            fault::step("source read-only", make_read_only(writer)).await?;
        }
        refuse_prepared(writer).await?;
        // Nothing changes the source any more: its definition is read while the last changes are applied. A standby may not know of all of it yet.
        let written_to = self.options.source.primary.as_deref().unwrap_or(&self.options.source);
        let definition = async {
            let mut session = Connection::connect(written_to, Side::Source, &Settings::session()).await?;
            let selected = scope::read(&mut session, &self.options.ddl).await?;
            session.close().await;
            Ok::<_, Error>(selected)
        };
        let (definition, applied) = tokio::join!(definition, self.apply_the_rest(writer, target));
        applied?;
        let selected = match definition {
            Ok(selected) => selected,
            // There may have been no room for another session.
            Err(_) => scope::read(primary.session(source), &self.options.ddl).await?,
        };
        self.settle_tables(source, target, names(migration)?.1).await?;
        self.check_stop()?;
        self.progress.set_phase("setting sequences");
        let (mut database, plan) = scope::plan(target, selected, &self.options.ddl).await?;
        database.sequences.retain(|sequence| !sequence.contents_left_out);
        fault::step("sequences", copy::copy_sequences(primary.session(source), target, &database.sequences))
            .await?;
        if self.options.ddl.selection.includes_large_objects() {
            self.progress.set_phase("comparing large objects");
            copy::refresh_large_objects(source, target, &self.options.ddl).await?;
        }
        if cutover.refresh_materialized_views {
            self.progress.set_phase("refreshing materialized views");
            let refreshes: Vec<_> =
                plan.items.iter().filter(|item| item.kind == "MATERIALIZED VIEW DATA").collect();
            copy::apply_items(target, &refreshes, &Failures::default(), self.progress).await?;
        }
        self.refuse_writers(primary.session(source), target, cutover.make_source_read_only).await?;
        // The last moment at which the source can be given back.
        self.check_stop()?;
        Ok(plan)
    }

    /// After a failure: a source that was made read-only, by this run or one that was killed, is given back. The error then says what the
    /// cutover leaves.
    async fn back_out(&self, mut source: Connection, target: &mut Connection, error: Error) -> Error {
        let given_back = async {
            self.revive(&mut source).await?;
            self.revive(target).await?;
            state::lock_cutover(target).await?;
            let read_only = state::current(target).await?.source_read_only;
            if read_only {
                let mut primary = Primary::of(&mut source).await?;
                give_back(primary.session(&mut source), target).await?;
            }
            Ok::<bool, Error>(read_only)
        };
        match given_back.await {
            Ok(true) => error.with_detail("The source database is writable again."),
            Ok(false) => error,
            Err(reason) => {
                tracing::debug!(%reason, "could not look whether the source is read-only");
                error.with_detail(format!(
                    "If the source database was made read-only, it still is; ALTER DATABASE {} RESET default_transaction_read_only gives it back.",
                    ident(&self.options.source.dbname)
                ))
            }
        }
    }

    /// Applies the stream up to the source's end, here or by the `migrate` that runs; the lock is ours afterwards.
    async fn apply_the_rest(&self, source: &mut Connection, target: &mut Connection) -> Result<()> {
        self.progress.set_phase("applying the last changes");
        let end = replication::end_position(source).await?;
        state::request_cutover(target, end).await?;
        while !state::try_lock(target).await? {
            self.check_stop()?;
            // The application stands still.
            tokio::time::sleep(LOOK / 10).await;
            // A `migrate` that was started just now has taken it for the request of a cutover that is gone.
            if state::current(target).await?.cutover_lsn.is_none() {
                state::request_cutover(target, end).await?;
            }
        }
        // The run that was to follow may have ended while it copied a table again.
        refuse_open(target).await?;
        if checkpoint::read(target).await?.is_some_and(|checkpoint| checkpoint.applied >= end) {
            return Ok(());
        }
        self.follow_to(target, end).await
    }

    /// Once more up to the source's end: what comes now was written by somebody who should have stopped, and would be missing on the target next time.
    async fn refuse_writers(
        &self,
        source: &mut Connection,
        target: &mut Connection,
        made_read_only: bool,
    ) -> Result<()> {
        self.progress.set_phase("looking for writers that go on");
        let before = self.progress.stream().snapshot().changes;
        let end = replication::end_position(source).await?;
        self.follow_to(target, end).await?;
        let late = self.progress.stream().snapshot().changes.saturating_sub(before);
        if late == 0 {
            return Ok(());
        }
        Err(Error::failed("the source is still written to")
            .with_detail(format!("{late} changes were committed while the cutover was under way; they are on the target."))
            .with_hint(match made_read_only {
                true => "Find who begins transactions with READ WRITE, or has default_transaction_read_only = off as a role's setting, and stop it; then run the same command again.",
                false => "Stop the application, or use --make-source-read-only; then run the same command again.",
            }))
    }

    /// Triggers, foreign keys and rules that would have acted on what was applied. What the source's stream brings after this would meet them,
    /// so nothing is applied any more.
    async fn make_held_items(&self, target: &mut Connection, plan: &Plan) -> Result<()> {
        self.progress.set_phase("creating triggers and foreign keys");
        let made = state::items(target).await?;
        let held: Vec<_> = remaining(plan, Section::PostData, &made)
            .into_iter()
            .filter(|item| item.acts_on_changes())
            .collect();
        copy::apply_items(target, &held, &Failures::default(), self.progress).await.map(drop)
    }
}

/// A table whose rows are not all on the target: it is new on the source, or copied again.
async fn open_relation(target: &mut Connection) -> Result<Option<String>> {
    let relations = state::relations(target).await?;
    let open = relations.into_iter().find(|(_, done, all)| done < all);
    Ok(open.map(|(relation, _, _)| qualified(&relation.schema, &relation.name)))
}

/// Of a table that is not copied no change may be applied.
async fn refuse_open(target: &mut Connection) -> Result<()> {
    let Some(name) = open_relation(target).await? else { return Ok(()) };
    Err(Error::usage("the migration is not ready for a cutover")
        .with_detail(format!("Rows of table {name} are still to be copied."))
        .with_hint("Run pgstream migrate again first; it copies the table and goes on."))
}

async fn lag(source: &mut Connection, target: &mut Connection) -> Result<u64> {
    let written = server::current_lsn(source).await?;
    let applied = checkpoint::read(target).await?.map_or(Lsn::INVALID, |checkpoint| checkpoint.applied);
    Ok(written.0.saturating_sub(applied.0))
}

/// How long sessions that were told to end may take.
const END_SESSIONS: Duration = Duration::from_secs(30);

/// What may have read the database's settings before they changed: applications, and workers that write, such as those of subscriptions. Of
/// other users' sessions a role may not be told more than the process ID.
const WRITERS: &str = "SELECT pid FROM pg_catalog.pg_stat_activity \
     WHERE datname = pg_catalog.current_database() AND pid <> pg_catalog.pg_backend_pid() AND application_name !~ '^pgstream' \
       AND coalesce(backend_type, 'client backend') NOT IN ('walsender', 'autovacuum worker', 'parallel worker', 'slotsync worker')";

/// New transactions in the source database are read-only, and sessions that might be in an older one are ended: when this returns, what they
/// have committed is in the log, and nothing follows.
async fn make_read_only(source: &mut Connection) -> Result<()> {
    let database = ident(&source.config().dbname.clone());
    source
        .execute(&format!("ALTER DATABASE {database} SET default_transaction_read_only = on"))
        .await
        .map_err(|e| e.context("could not make the source database read-only"))?;
    // Twice: a session that was being opened meanwhile may have been seen in no list, with the old setting.
    end_sessions(source).await?;
    end_sessions(source).await
}

/// Ends every session of [`WRITERS`] that is there now, and waits until it is gone: the signal alone stops no commit.
async fn end_sessions(source: &mut Connection) -> Result<()> {
    let rows = source
        .query(&format!("SELECT w.pid, pg_catalog.pg_terminate_backend(w.pid) FROM ({WRITERS}) w"), &[])
        .await
        .map_err(|e| {
            let denied = e.sqlstate().is_some_and(|s| s.as_str() == "42501");
            let user = ident(&source.config().user);
            let error = e.context("could not end the other sessions of the source database");
            if !denied {
                return error;
            }
            error.with_hint(format!(
                "On the source: GRANT pg_signal_backend TO {user}; or stop the application, and leave out --make-source-read-only."
            ))
        })?;
    let pids: Vec<&str> = rows.iter().filter_map(|row| row.text(0)).collect();
    let list = format!("{{{}}}", pids.join(","));
    let left = format!("SELECT pid FROM ({WRITERS}) w WHERE pid = ANY ($1::int[])");
    let begun = Instant::now();
    loop {
        let rows = source.query(&left, &[Some(&list)]).await?;
        let Some(pid) = rows.first().and_then(|row| row.text(0)) else { return Ok(()) };
        if begun.elapsed() >= END_SESSIONS {
            return Err(Error::failed(format!(
                "process {pid} of the source has not ended within {} s",
                END_SESSIONS.as_secs()
            ))
            .with_hint("End the application's sessions, and run the same command again."));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A prepared transaction has no session, and may be committed at any time, in a read-only database too.
async fn refuse_prepared(source: &mut Connection) -> Result<()> {
    let rows = source
        .query(
            "SELECT pg_catalog.format('%L, prepared by %I at %s', gid, owner, prepared) FROM pg_catalog.pg_prepared_xacts \
             WHERE database = pg_catalog.current_database() ORDER BY prepared",
            &[],
        )
        .await?;
    if rows.is_empty() {
        return Ok(());
    }
    let mut error = Error::new(
        ErrorKind::Blocked,
        "the source has prepared transactions, which would be committed too late",
    );
    for row in &rows {
        error = error.with_detail(format!("There is {}.", row.text(0).unwrap_or_default()));
    }
    Err(error.with_hint(
        "Run COMMIT PREPARED or ROLLBACK PREPARED for each on the source, then the same command again.",
    ))
}

/// What applies a subscription's changes takes no notice of a database that is read-only: they would go on, and be missing on the target.
async fn refuse_subscriptions(source: &mut Connection) -> Result<()> {
    let enabled = catalog::replication::enabled_subscriptions(source).await?;
    if enabled.is_empty() {
        return Ok(());
    }
    let disable: Vec<String> =
        enabled.iter().map(|name| format!("ALTER SUBSCRIPTION {} DISABLE;", ident(name))).collect();
    Err(Error::new(ErrorKind::Blocked, "the source database has subscriptions, which go on changing it")
        .with_detail(format!("They are \"{}\".", enabled.join("\", \"")))
        .with_hint(format!("On the source: {}", disable.join(" "))))
}

/// Makes the source writable again, if pgstream made it read-only.
pub(crate) async fn give_back(source: &mut Connection, target: &mut Connection) -> Result<()> {
    let database = ident(&source.config().dbname.clone());
    let sql = format!("ALTER DATABASE {database} RESET default_transaction_read_only");
    fault::step("source writable", source.execute(&sql)).await?;
    state::set_source_read_only(target, false).await
}

/// Puts back the replica identities that pgstream gave.
pub(crate) async fn put_back_identities(source: &mut Connection, target: &mut Connection) -> Result<()> {
    for given in state::full_identities(target).await? {
        let name = qualified(&given.schema, &given.table);
        let identity = if given.had_nothing { "NOTHING" } else { "DEFAULT" };
        let sql = format!("ALTER TABLE ONLY {name} REPLICA IDENTITY {identity}");
        match fault::step("replica identity back", source.execute(&sql)).await {
            // A table that was dropped needs no identity.
            Err(e) if e.sqlstate().is_none_or(|s| s.as_str() != "42P01") => return Err(e),
            _ => {}
        }
        state::forget_full_identity(target, &given).await?;
    }
    Ok(())
}
