//! The phases of a copy: everything up to a target that stands at a snapshot of the source.
//!
//! In: sessions of both servers, and what the state tables say of earlier runs. Out: the sections that were asked for, on the target. What may fail: either
//! server, an item that the target refuses, a spool without whose stream the copy is worth nothing. What is done then is recorded together with the work.
//!
//! Each phase looks at what is left, so all are walked through again by a run that resumes, and by one that copies a single table anew.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::point::Point;
use super::scope::{self, Seen};
use super::{Method, Run, Sections, later, locks, relations, stream};
use crate::catalog::{self, role::Scope};
use crate::copy::{
    self, Copy, Failures, Policy, Schedule, Snapshot, SourceTables, SplitRule, Tables, Workers,
};
use crate::ddl::{self, Item, Plan, Section};
use crate::error::{Error, Result};
use crate::fault;
use crate::schema::table::Table;
use crate::schema::{Database, partition};
use crate::sql::qualified;
use crate::state::{self, ItemOutcome, ItemState, Migration, Phase, Relation};
use crate::wire::Connection;

impl Run<'_> {
    /// Everything up to a target that stands at a snapshot of the source. The stream goes into the spool meanwhile, where there is to be one.
    pub(super) async fn phases(
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

        let written = match self.method == Method::Copy && self.options.sections.data {
            true => Some(catalog::activity::rows_written(&mut source).await?),
            false => None,
        };
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
            if let Some(written) = written {
                self.warn_of_writes(&mut source, target, &written).await?;
            }
            self.check_stop()?;
        }
        if !post_data {
            source.close().await;
            return Ok(());
        }

        enter(target, Phase::Finish).await?;
        self.analyze(target, |_| true).await?;
        self.progress.set_phase("granting privileges and refreshing views");
        for section in [Section::Privileges, Section::Last] {
            self.make(target, section, (&plan, &made), &failures).await?;
            self.check_stop()?;
        }
        source.close().await;
        Ok(())
    }

    /// Says which tables were written to behind the snapshot of a copy that nothing follows. `written` is what was written before.
    async fn warn_of_writes(
        &self,
        source: &mut Connection,
        target: &mut Connection,
        written: &HashMap<u32, i64>,
    ) -> Result<()> {
        let now = catalog::activity::rows_written(source).await?;
        let copied = state::relations(target).await?.into_iter().map(|(relation, _, _)| relation);
        let late: Vec<Relation> =
            copied.filter(|relation| now.get(&relation.oid) > written.get(&relation.oid)).collect();
        if let Some((first, others)) = late.split_first() {
            let first = qualified(&first.schema, &first.name);
            let and = match others.len() {
                0 => String::new(),
                1 => " and one more".to_owned(),
                more => format!(" and {more} more"),
            };
            let what = format!(
                "table {first}{and} of the source was written to while it was copied: the target may lack what was written"
            );
            let hint = "pgstream verify tells. Stop the application and begin anew with --restart, or use --method replication.";
            self.progress.warn(what, Some(hint.to_owned()));
        }
        Ok(())
    }

    /// Makes the roles that the target lacks.
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

    /// Plans the parts, and copies them, with the post-data items that this run takes behind them.
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

    /// Collects statistics of every table whose rows were copied.
    async fn analyze(&self, target: &mut Connection, wanted: impl Fn(&Relation) -> bool) -> Result<()> {
        self.progress.set_phase("collecting statistics");
        let tables = state::relations(target).await?;
        let tables = tables
            .into_iter()
            .map(|(relation, _, _)| relation)
            .filter(|relation| relation.oid != state::LARGE_OBJECTS && wanted(relation))
            .collect();
        copy::analyze(&self.options.target, tables, self.options.jobs, self.progress, self.stop).await
    }

    /// The same for tables of which the stream has changed a good part since, and the target has not noticed.
    pub(super) async fn analyze_changed(&self, target: &mut Connection) -> Result<()> {
        let changed = catalog::activity::read_changed(target).await?;
        self.analyze(target, |relation| changed.contains(&(relation.schema.clone(), relation.name.clone())))
            .await
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

    /// How failures of items are borne.
    fn policy(&self) -> Policy {
        match (self.options.keep_going, self.method) {
            (false, _) => Policy::Stop,
            (true, Method::Copy) => Policy::Continue,
            (true, _) => Policy::KeepContainers,
        }
    }
}

/// Items of a section that are not made yet, or failed before.
pub(super) fn remaining<'a>(
    plan: &'a Plan,
    section: Section,
    made: &HashMap<String, ItemState>,
) -> Vec<&'a Item> {
    remaining_places(plan, section, made).map(|place| &plan.items[place]).collect()
}

/// The same, by their places in the plan.
pub(super) fn remaining_places<'a>(
    plan: &'a Plan,
    section: Section,
    made: &'a HashMap<String, ItemState>,
) -> impl Iterator<Item = usize> + 'a {
    let is_made =
        |item: &Item| made.get(&item.key()).is_some_and(|state| state.outcome != ItemOutcome::Failed);
    let open = move |place: &usize| plan.items[*place].section == section && !is_made(&plan.items[*place]);
    (0..plan.items.len()).filter(open)
}

/// Enters a phase, unless the migration is further: a table that is copied again doesn't take it back.
async fn enter(target: &mut Connection, phase: Phase) -> Result<()> {
    if state::current(target).await?.phase < phase {
        state::set_phase(target, phase).await?;
    }
    Ok(())
}

/// The encoding of the session's database.
pub(super) fn encoding(session: &Connection) -> &str {
    session.parameter("server_encoding").unwrap_or_default()
}

fn size_with_leaves(table: &Table, leaves: &HashMap<u32, Vec<u32>>, tables: &[Table]) -> u64 {
    match leaves.get(&table.oid) {
        None => table.bytes,
        Some(below) => tables.iter().filter(|t| below.contains(&t.oid)).map(|t| t.bytes).sum(),
    }
}
