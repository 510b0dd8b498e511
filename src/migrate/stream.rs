//! The method `replication`: publication and slot before the copy, the stream after it.
//!
//! In: the source's tables and the state tables. Out: a snapshot that stands at the slot's consistent point, and later a target that
//! follows the source. What may fail: a precondition (named with the statement that mends it, nothing touched); either server.
//!
//! Order matters, and a crash anywhere in it is mended by the next run: the state tables name slot and publication before they are
//! made; the checkpoint is written before the first part is copied. A slot without a checkpoint has nothing copied under it and is made anew.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use pgstream_proto::lsn::Lsn;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::later::{self, Newcomers};
use super::{Method, Options, Run, scope};
use crate::catalog::replication::ReplicationTable;
use crate::catalog::server;
use crate::config::{Config, Side};
use crate::copy::Snapshot;
use crate::ddl::Item;
use crate::error::{Error, Result};
use crate::fault;
use crate::progress::Progress;
use crate::replication::spool::{self, Spooling};
use crate::replication::{
    self, Changes, CreatedSlot, Ended, Filter, Following, PartRule, Primary, PublishedTable, SlotRequest,
    SnapshotRule, TriggerRole,
};
use crate::schema::table::Table;
use crate::schema::trigger::{Enabled, Rule, Trigger};
use crate::schema::{Database, ObjectId};
use crate::sql::qualified;
use crate::state::{
    self, FullIdentity, Migration, Part, Pause, Phase, Relation, Split, Standing, checkpoint,
};
use crate::wire::{Connection, Settings};

/// How often a running migration looks whether a cutover was asked for.
const LOOK: Duration = Duration::from_millis(250);

/// A stream that is less than this behind counts as in step, in bytes.
const IN_STEP: u64 = 1024 * 1024;

/// Items that must wait for the cutover, as they would do again what the source has done already. Where triggers and foreign keys are silent while
/// changes are applied, those are left that are enabled ALWAYS or for REPLICA.
pub(super) fn held_back(database: &Database, silent: bool) -> impl Fn(&Item) -> bool {
    let loud = |enabled| matches!(enabled, Enabled::Always | Enabled::Replica);
    let triggers = database.triggers.iter().filter(|t| loud(t.enabled)).map(Trigger::id);
    let rules = database.rules.iter().filter(|r| loud(r.enabled)).map(Rule::id);
    let loud: HashSet<ObjectId> = triggers.chain(rules).collect();
    move |item| if silent { loud.contains(&item.id) } else { item.acts_on_changes() }
}

impl Run<'_> {
    /// The snapshot to copy under: that of the slot, made now if the migration has no checkpoint yet; that of a temporary slot when a
    /// copy goes on; any snapshot when there is nothing left to copy. With it, the new tables of the source that can't be published, and why.
    pub(super) async fn stream_snapshot(
        &self,
        source: &mut Connection,
        target: &mut Connection,
        migration: &Migration,
    ) -> Result<(Snapshot, HashMap<u32, String>)> {
        let options = self.options;
        let (slot, publication) = names(migration)?;
        if checkpoint::read(target).await?.is_some() {
            let standing = Standing::read(target).await?;
            let Newcomers { any, refused } =
                self.publish_newcomers(source, target, slot, publication).await?;
            if standing.migration.phase >= Phase::Copy && !standing.is_open() && !any {
                return Ok((Snapshot::export(&options.source).await?, refused));
            }
            let name = format!("{slot}_copy");
            let created = fault::step("temporary slot", self.create_slot(source, &name, true)).await?;
            return Ok((adopt(&options.source, created).await?, refused));
        }
        // Nothing is copied under a slot that has no checkpoint.
        let mut primary = Primary::of(source).await?;
        remove_stream(source, &mut primary, migration).await?;
        let tables = scope::replication_tables(source, &options.ddl).await?;
        let writer = primary.session(source);
        let published = self.to_publish(writer, target, &tables).await?;
        fault::step("publication", replication::create_publication(writer, publication, &published)).await?;
        primary.replayed(source).await?;
        let mut walsender =
            Connection::connect(&options.source, Side::Source, &Settings::replication()).await?;
        let system = replication::identify_system(&mut walsender).await?;
        walsender.close().await;
        let created = fault::step("slot", self.create_slot(source, slot, false)).await?;
        let first =
            checkpoint::create(&system.system_identifier, system.timeline, slot, created.consistent_point);
        fault::step("first checkpoint", async { target.pipeline(&first).await.map_err(Error::from) }).await?;
        Ok((adopt(&options.source, created).await?, HashMap::new()))
    }

    pub(super) async fn create_slot(
        &self,
        source: &mut Connection,
        name: &str,
        temporary: bool,
    ) -> Result<CreatedSlot> {
        self.progress.set_phase("creating the replication slot");
        if temporary {
            // The session of the last one may not have ended yet.
            replication::drop_slot(source, name).await?;
        }
        let request = SlotRequest { name, temporary, timeout: self.options.slot_timeout };
        let mut told = false;
        replication::create_slot(&self.options.source, &request, |blockers| {
            if !told && !blockers.is_empty() {
                told = true;
                for blocker in blockers {
                    self.progress.note(format!("the slot waits for {}", blocker.description));
                }
            }
        })
        .await
    }

    /// The tables of these that are to be published, made fit for it: REPLICA IDENTITY FULL is given where that was asked for, and recorded before, so that
    /// it can be put back. Tables whose changes are lost are recorded as omissions. `source` is where it can be written to.
    async fn to_publish(
        &self,
        source: &mut Connection,
        target: &mut Connection,
        tables: &[ReplicationTable],
    ) -> Result<Vec<PublishedTable>> {
        let changes = replication::changes(tables, source.version(), self.options.replica_identity);
        let mut published = Vec::new();
        for (table, changes) in tables.iter().zip(changes) {
            match changes {
                Changes::Elsewhere => continue,
                Changes::Lost(reason) => {
                    state::omit(target, &later::changes_lost(table, reason)).await?;
                    continue;
                }
                Changes::PublishedWithFullIdentity => give_full_identity(source, target, table).await?,
                Changes::Published => {}
            }
            published.push(PublishedTable {
                schema: table.schema.clone(),
                name: table.name.clone(),
                partitioned: table.kind == "p",
            });
        }
        Ok(published)
    }

    /// Begins to receive the stream into the spool, if the operator named a folder for it. Where that fails for good, `stop` is told.
    pub(super) fn spool(&self, migration: &Migration, stop: &CancellationToken) -> Result<Option<Spooling>> {
        let Some(folder) = self.options.spool.clone().filter(|_| self.method == Method::Replication) else {
            return Ok(None);
        };
        let (slot, publication) = names(migration)?;
        let request = spool::Request {
            source: self.options.source.clone(),
            target: self.options.target.clone(),
            slot: slot.to_owned(),
            publication: publication.to_owned(),
            folder,
        };
        Spooling::begin(request, self.progress.clone(), stop.clone()).map(Some)
    }

    /// Applies the stream until it is asked to stop, or to end for a cutover, or is in step with `--stop-when-caught-up`.
    pub(super) async fn follow(&self, target: &mut Connection, standing: Standing) -> Result<Ended> {
        if standing.migration.phase < Phase::CatchUp {
            state::set_phase(target, Phase::CatchUp).await?;
        }
        self.progress.set_phase("catching up");
        let (until, asked) = watch::channel(end_asked_for(&standing.migration, standing.pause));
        let enough = self.stop.child_token();
        let superseded = CancellationToken::new();
        let watcher = Watcher {
            options: self.options.clone(),
            progress: self.progress.clone(),
            until,
            enough: enough.clone(),
            own: target.pid(),
            superseded: superseded.clone(),
        };
        let mut following = self.begin_following(standing, asked, &enough)?;
        let watcher = AbortOnDropHandle::new(tokio::spawn(watcher.run()));
        let ended = tokio::select! {
            ended = following.ended() => ended,
            () = superseded.cancelled() => {
                // What was under way is for the other to do.
                following.abandon().await;
                Ok(Ended::Reached(self.progress.stream().snapshot().durable))
            }
        };
        watcher.abort();
        let _ = watcher.await;
        ended
    }

    /// Begins to apply the stream, up to what `until` says.
    pub(super) fn begin_following(
        &self,
        standing: Standing,
        until: watch::Receiver<Option<Lsn>>,
        stop: &CancellationToken,
    ) -> Result<Following> {
        let (slot, publication) = names(&standing.migration)?;
        let options = self.options;
        let mut follow = replication::Options::new(
            options.source.clone(),
            options.target.clone(),
            slot.to_owned(),
            publication.to_owned(),
        );
        follow.schema = main_schema(&standing.relations);
        follow.on_conflict = options.on_conflict;
        follow.spill_directory.clone_from(&options.spill_directory);
        follow.spool.clone_from(&options.spool);
        let filter = filter(standing.relations, &standing.copied);
        let progress = self.progress.stream().clone();
        Ok(Following::begin(follow, filter, until, stop.clone(), progress))
    }

    /// Takes a relation's rows away, so that the next walk through the phases copies them again. The table stays as it is, indexes and all.
    pub(super) async fn forget_rows(&self, target: &mut Connection, oid: u32) -> Result<()> {
        let relations = state::relations(target).await?;
        let Some((relation, _, _)) = relations.into_iter().find(|(relation, _, _)| relation.oid == oid)
        else {
            return Err(Error::failed(format!("relation {oid} of the stream is not in the state tables")));
        };
        let name = qualified(&relation.schema, &relation.name);
        self.progress
            .note(format!("table {name} is copied again: a row moved between parts of different snapshots"));
        replication::silence_triggers(target).await?;
        // Of no size, so that it is loaded without the TRUNCATE that a foreign key forbids.
        let part = Part { relation: oid, number: 0, lower: None, upper: None, bytes: 0 };
        let whole = Relation { split: Split::Whole, ..relation };
        // TRUNCATE refuses a table that a foreign key points at.
        let mut forget = vec!["BEGIN".to_owned(), format!("DELETE FROM ONLY {name}")];
        forget.extend(state::reset_relation(&whole, &[part]));
        forget.push("COMMIT".to_owned());
        fault::step("rows forgotten", async { target.pipeline(&forget).await.map_err(Error::from) })
            .await
            .map_err(|e| e.context(format!("could not empty table {name} on the target")))
    }
}

/// Tables as they were before pgstream gave them REPLICA IDENTITY FULL: so they are made on the target.
pub(super) async fn forget_given_identities(target: &mut Connection, tables: &mut [Table]) -> Result<()> {
    for given in state::full_identities(target).await? {
        given.take_back(tables);
    }
    Ok(())
}

/// Whether triggers and foreign keys of the target stay silent while changes are applied.
pub(super) async fn can_silence(target: &Config) -> Result<bool> {
    let mut session = Connection::connect(target, Side::Target, &Settings::session()).await?;
    let role = replication::silence_triggers(&mut session).await?;
    session.close().await;
    Ok(role == TriggerRole::Replica)
}

async fn adopt(source: &Config, created: CreatedSlot) -> Result<Snapshot> {
    Snapshot::adopt(source, created.connection, created.snapshot, created.consistent_point).await
}

/// Gives a table REPLICA IDENTITY FULL, recorded first; `source` is where it can be written to.
pub(super) async fn give_full_identity(
    source: &mut Connection,
    target: &mut Connection,
    table: &ReplicationTable,
) -> Result<()> {
    let given = FullIdentity {
        schema: table.schema.clone(),
        table: table.name.clone(),
        had_nothing: table.replica_identity == "n",
    };
    state::record_full_identity(target, &given).await?;
    let name = qualified(&table.schema, &table.name);
    let sql = format!("ALTER TABLE ONLY {name} REPLICA IDENTITY FULL");
    fault::step("replica identity", source.execute(&sql))
        .await
        .map_err(|e| e.context(format!("could not give table {name} a replica identity on the source")))
}

/// Removes the slot and the publication of a stream that is not gone on with.
pub(super) async fn remove_stream(
    source: &mut Connection,
    primary: &mut Primary,
    migration: &Migration,
) -> Result<()> {
    let (slot, publication) = names(migration)?;
    fault::step("old slot gone", replication::drop_slot(source, slot)).await?;
    fault::step("old publication gone", replication::drop_publication(primary.session(source), publication))
        .await
}

/// The slot and the publication.
pub(super) fn names(migration: &Migration) -> Result<(&str, &str)> {
    migration
        .slot
        .as_deref()
        .zip(migration.publication.as_deref())
        .ok_or_else(|| Error::failed("the state tables name no slot and publication for this migration"))
}

/// The schema of most of the tables.
fn main_schema(relations: &[(Relation, u32, u32)]) -> Option<String> {
    let mut tables = BTreeMap::<&str, usize>::new();
    for (relation, _, _) in relations.iter().filter(|(relation, _, _)| relation.oid != state::LARGE_OBJECTS) {
        *tables.entry(&relation.schema).or_default() += 1;
    }
    tables.into_iter().max_by_key(|(_, count)| *count).map(|(schema, _)| schema.to_owned())
}

/// From which commit on each relation, or each part of it, needs its changes.
fn filter(relations: Vec<(Relation, u32, u32)>, copied: &HashMap<u32, Vec<(Part, Lsn)>>) -> Filter {
    let mut rules = HashMap::new();
    for (relation, _, _) in relations {
        let parts = copied.get(&relation.oid).map_or(&[][..], Vec::as_slice);
        let latest = parts.iter().map(|(_, lsn)| *lsn).max().unwrap_or(Lsn::INVALID);
        let rule = match relation.split {
            Split::Key(column) if parts.iter().any(|(_, lsn)| *lsn != latest) => SnapshotRule::Parts {
                column,
                parts: parts
                    .iter()
                    .map(|(part, lsn)| PartRule { lower: part.lower, upper: part.upper, lsn: *lsn })
                    .collect(),
            },
            _ => SnapshotRule::From(latest),
        };
        rules.insert(relation.oid, rule);
    }
    Filter::new(rules)
}

/// Watches a stream: keeps the target for the run when its server has restarted, records when it is in step, and hands on what a cutover asks for.
struct Watcher {
    options: Options,
    progress: Arc<Progress>,
    until: watch::Sender<Option<Lsn>>,
    /// Told when the stream is as close as `--max-replication-lag` wants it.
    enough: CancellationToken,
    /// The session that took the target for this run.
    own: u32,
    /// Told when another pgstream has the target.
    superseded: CancellationToken,
}

impl Watcher {
    /// Runs until it is dropped; a target that goes away for a while is looked at again.
    async fn run(self) {
        loop {
            if let Err(error) = self.watch().await {
                tracing::debug!(%error, "the watcher of the stream lost the target, and tries again");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn watch(&self) -> Result<()> {
        let mut target =
            Connection::connect(&self.options.target, Side::Target, &Settings::session()).await?;
        let mut source: Option<Connection> = None;
        loop {
            if !state::keep(&mut target, self.own).await? {
                self.superseded.cancel();
            }
            let migration = state::current(&mut target).await?;
            let until = end_asked_for(&migration, state::pause(&mut target).await?);
            self.until.send_if_modified(|now| std::mem::replace(now, until) != until);
            let stream = self.progress.stream().snapshot();
            let lag = stream.source.0.saturating_sub(stream.applied.0);
            if migration.phase == Phase::CatchUp && stream.source != Lsn::INVALID && lag < IN_STEP {
                state::set_phase(&mut target, Phase::Syncing).await?;
                self.progress.set_phase("in step with the source");
            }
            if let Some(most) = self.options.stop_when_caught_up {
                let session = match &mut source {
                    Some(session) => session,
                    None => source.insert(
                        Connection::connect(&self.options.source, Side::Source, &Settings::session()).await?,
                    ),
                };
                let written = server::current_lsn(session).await?;
                let applied = self.progress.stream().snapshot().applied;
                if applied != Lsn::INVALID && written.0.saturating_sub(applied.0) <= most {
                    self.enough.cancel();
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Where somebody wants the stream to end: a cutover, or for a while a comparison.
fn end_asked_for(migration: &Migration, pause: Option<Pause>) -> Option<Lsn> {
    migration.cutover_lsn.or(pause.map(|pause| pause.wanted))
}
