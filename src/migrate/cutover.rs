//! Cutover: the last changes, then all that no stream carries, then the slot and the publication go.
//!
//! In: a target that follows its source. Out: a target that stands on its own, and a migration that is done. What may fail: a lag that doesn't shrink
//! in time; either server. Every step looks at what is there, so a cutover that was interrupted anywhere is run again; a source that
//! pgstream made read-only is made writable again when a step before the end fails.
//!
//! ```text
//! lag small ─► writes stop ─► end position ─► stream applied up to it ─► sequences, large objects, held-back items ─► slot, publication dropped ─► done
//! ```
//! Beside a running `migrate`, the end position is written into the state tables; the run ends when it is reached, and the cutover goes on alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pgstream_proto::lsn::Lsn;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::stream::{acts_on_changes, names};
use super::{Ended, Method, Options, Outcome, Run, outcome, refuse_other_source, remaining};
use crate::catalog::{self, server};
use crate::config::Side;
use crate::copy;
use crate::ddl::{self, Section};
use crate::error::{Error, ErrorKind, Result};
use crate::progress::Progress;
use crate::replication;
use crate::sql::ident;
use crate::state::{self, Migration, Phase, checkpoint};
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
    let migration = state::read(&mut target).await?.ok_or_else(|| {
        Error::usage(format!("target database \"{}\" holds no migration to cut over", options.target.dbname))
            .with_hint("Begin one with pgstream migrate.")
    })?;
    refuse_other_source(&migration, &server::identity(&mut source).await?)?;
    if migration.phase == Phase::Done {
        return outcome(&mut target, Ended::AlreadyDone, begun).await;
    }
    if migration.method != "replication" || migration.phase < Phase::CatchUp {
        return Err(Error::usage("the migration is not ready for a cutover")
            .with_detail(format!(
                "Its method is {}, and it is in phase {}.",
                migration.method, migration.phase
            ))
            .with_hint("Run pgstream migrate again first; it ends by itself with the method copy."));
    }
    let run = Run { options, progress, stop, method: Method::Replication };
    let work = async {
        if migration.phase < Phase::Cutover {
            run.wait_for_lag(&mut source, &mut target, &migration, cutover).await?;
        }
        run.cut(source, &mut target, cutover).await
    };
    Box::pin(work).await.map_err(|error| match error.kind() {
        ErrorKind::Stopped => {
            error.with_hint("Run the same command again: the cutover goes on where it stopped.")
        }
        _ => error,
    })?;
    outcome(&mut target, Ended::Done, begun).await
}

impl Run<'_> {
    /// Waits until a running `migrate` has brought the target close. Without one, the cutover follows the source itself, and the lag
    /// only says how long that will take.
    async fn wait_for_lag(
        &self,
        source: &mut Connection,
        target: &mut Connection,
        migration: &Migration,
        cutover: &Cutover,
    ) -> Result<()> {
        self.progress.set_phase("waiting for the target to catch up");
        let begun = Instant::now();
        loop {
            self.check_stop()?;
            let running = state::lock_holder(target).await?.is_some();
            let lag = lag(source, target).await?;
            if lag <= cutover.max_lag {
                return Ok(());
            }
            if !running {
                // Nobody else applies: catch up here, and leave off when it is close.
                let enough = server::current_lsn(source).await?;
                state::lock(target).await?;
                let (until, asked) = watch::channel(Some(enough));
                self.reached(self.follow_until(target, migration, asked, self.stop).await?)?;
                drop(until);
                continue;
            }
            if begun.elapsed() >= cutover.patience {
                return Err(Error::failed(format!(
                    "the target is still {lag} bytes behind after {} s",
                    cutover.patience.as_secs()
                ))
                .with_hint("Run pgstream cutover again later, or allow more with --max-lag or --timeout; nothing has been changed."));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn reached(&self, ended: replication::Ended) -> Result<()> {
        match ended {
            replication::Ended::Reached(_) => Ok(()),
            replication::Ended::Stopped(_) => Err(Error::new(ErrorKind::Stopped, "stopped on request")),
            replication::Ended::Recopy(_) => {
                Err(Error::failed("a table must be copied again before the cutover")
                    .with_hint("Run pgstream migrate again; it copies the table and goes on."))
            }
        }
    }

    /// From here on nothing is written to the source any more.
    pub(super) async fn cut(
        &self,
        mut source: Connection,
        target: &mut Connection,
        cutover: &Cutover,
    ) -> Result<()> {
        let migration =
            state::read(target).await?.ok_or_else(|| Error::failed("the migration's state is gone"))?;
        if migration.phase < Phase::Cutover {
            if cutover.make_source_read_only {
                state::set_source_read_only(target, true).await?;
                make_read_only(&mut source).await?;
            }
            let applied = self.apply_the_rest(&mut source, target, &migration).await;
            if let Err(error) = applied {
                if cutover.make_source_read_only {
                    give_back(&mut source, target).await?;
                }
                return Err(error);
            }
            state::set_phase(target, Phase::Cutover).await?;
        } else {
            state::lock(target).await?;
        }
        self.settle(&mut source, target, cutover).await?;
        let (slot, publication) = names(&migration)?;
        self.progress.set_phase("dropping slot and publication");
        replication::drop_slot(&mut source, slot).await?;
        replication::drop_publication(&mut source, publication).await?;
        put_back_identities(&mut source, target).await?;
        state::set_phase(target, Phase::Done).await?;
        source.close().await;
        Ok(())
    }

    /// Applies the stream up to the source's end, here or by the `migrate` that runs; the lock is ours afterwards.
    async fn apply_the_rest(
        &self,
        source: &mut Connection,
        target: &mut Connection,
        migration: &Migration,
    ) -> Result<()> {
        self.progress.set_phase("applying the last changes");
        let end = replication::end_position(source).await?;
        state::request_cutover(target, end).await?;
        while !state::is_locked_here(target).await? && state::lock_holder(target).await?.is_some() {
            self.check_stop()?;
            tokio::time::sleep(LOOK).await;
        }
        state::lock(target).await?;
        let (_until, asked) = watch::channel(Some(end));
        self.reached(self.follow_until(target, migration, asked, self.stop).await?)
    }

    /// What no stream carries.
    async fn settle(
        &self,
        source: &mut Connection,
        target: &mut Connection,
        cutover: &Cutover,
    ) -> Result<()> {
        self.progress.set_phase("setting sequences");
        let database = catalog::read(source).await?;
        copy::copy_sequences(source, target, &database.sequences).await?;
        self.progress.set_phase("comparing large objects");
        copy::refresh_large_objects(source, target, &self.options.ddl).await?;
        self.progress.set_phase("creating triggers and foreign keys");
        let plan = ddl::plan(&database, &self.options.ddl, target.version())?;
        let made = state::items(target).await?;
        let held: Vec<_> = remaining(&plan, Section::PostData, &made)
            .into_iter()
            .filter(|item| acts_on_changes(item))
            .collect();
        copy::apply_items(target, &held, self.progress).await?;
        if cutover.refresh_materialized_views {
            self.progress.set_phase("refreshing materialized views");
            let refreshes: Vec<_> =
                plan.items.iter().filter(|item| item.kind == "MATERIALIZED VIEW DATA").collect();
            copy::apply_items(target, &refreshes, self.progress).await?;
        }
        self.progress.set_phase("collecting statistics");
        self.analyze(target).await
    }
}

async fn lag(source: &mut Connection, target: &mut Connection) -> Result<u64> {
    let written = server::current_lsn(source).await?;
    let applied = checkpoint::read(target).await?.map_or(Lsn::INVALID, |checkpoint| checkpoint.applied);
    Ok(written.0.saturating_sub(applied.0))
}

/// New transactions in the source database are read-only, and sessions that might be in an older one are ended.
async fn make_read_only(source: &mut Connection) -> Result<()> {
    let database = ident(&source.config().dbname.clone());
    source
        .execute(&format!("ALTER DATABASE {database} SET default_transaction_read_only = on"))
        .await
        .map_err(|e| e.context("could not make the source database read-only"))?;
    source
        .execute(
            "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity \
             WHERE datname = pg_catalog.current_database() AND pid <> pg_catalog.pg_backend_pid() \
               AND application_name !~ '^pgstream' AND backend_type = 'client backend'",
        )
        .await
        .map_err(|e| e.context("could not end the other sessions of the source database"))
}

/// Makes the source writable again, if pgstream made it read-only.
pub(crate) async fn give_back(source: &mut Connection, target: &mut Connection) -> Result<()> {
    let database = ident(&source.config().dbname.clone());
    source.execute(&format!("ALTER DATABASE {database} RESET default_transaction_read_only")).await?;
    state::set_source_read_only(target, false).await
}

/// Puts back the replica identities that pgstream gave.
pub(crate) async fn put_back_identities(source: &mut Connection, target: &mut Connection) -> Result<()> {
    for given in state::full_identities(target).await? {
        let name = crate::sql::qualified(&given.schema, &given.table);
        let identity = if given.had_nothing { "NOTHING" } else { "DEFAULT" };
        match source.execute(&format!("ALTER TABLE ONLY {name} REPLICA IDENTITY {identity}")).await {
            // A table that was dropped needs no identity.
            Err(e) if e.sqlstate().is_none_or(|s| s.as_str() != "42P01") => return Err(e),
            _ => {}
        }
        let sql = "DELETE FROM pgstream.replica_identity WHERE schema_name = $1 AND table_name = $2";
        target.query(sql, &[Some(&given.schema), Some(&given.table)]).await?;
    }
    Ok(())
}
