//! Tables that the source got, or gave another name, after the migration had begun.
//!
//! In: both servers. Out: new tables in the publication, or why they can't be; the names of those that are neither copied nor followed. What may fail:
//! either server; a table whose name is no longer that of its copy.
//!
//! # How a table joins while rows are being copied
//! 1. It is added to the publication.
//! 2. A temporary slot is made, which waits until all transactions have ended that were running, and dropped.
//! 3. The table is taken out of the publication and added again, in one transaction.
//! 4. Another temporary slot is made. The table is copied under its snapshot, and its changes are due from that slot's consistent point on.
//!
//! pgoutput asks whether a table is published as of each change. A transaction that changed the table before 1 comes without those changes,
//! whenever it commits; but it has ended before 4, so that the snapshot sees all of it, and nothing of it is due. A transaction that begins
//! after 1 comes whole. So each change is either in the snapshot or in the stream, and in no case in both.
//!
//! 3 is for servers older than the minor releases of May 2025: having decoded a transaction of the first kind, they go on taking the table for not published,
//! until the publication's entry for it changes again. What 3 could meet in the same way has begun after 1, and finds it published before and after.

use std::collections::{HashMap, HashSet};

use super::{Run, scope};
use crate::catalog::replication::{ReplicationTable, published_tables};
use crate::ddl::{self, NotCopied};
use crate::error::{Error, ErrorKind, Result};
use crate::fault;
use crate::replication::{self, Changes, Primary, PublishedTable};
use crate::schema::Database;
use crate::schema::table::Table;
use crate::sql::qualified;
use crate::state::{self, Relation};
use crate::wire::Connection;

/// The tables with rows that the state tables don't know yet, as far as their changes could be followed.
#[derive(Debug, Default)]
pub(super) struct Newcomers {
    /// There are some that can be followed: they must be copied under the snapshot of a slot.
    pub(super) any: bool,
    /// Those that can't be published (by OID), and why.
    pub(super) refused: HashMap<u32, String>,
}

fn name(table: &ReplicationTable) -> String {
    format!("{}.{}", table.schema, table.name)
}

/// A table with rows, as the publication names it.
fn named(table: &ReplicationTable) -> PublishedTable {
    PublishedTable { schema: table.schema.clone(), name: table.name.clone(), partitioned: false }
}

/// OIDs of the relations that are planned.
async fn planned(target: &mut Connection) -> Result<HashSet<u32>> {
    Ok(state::relations(target).await?.into_iter().map(|(relation, _, _)| relation.oid).collect())
}

impl Run<'_> {
    /// Steps 1 to 3 of the module, where there is a new table.
    pub(super) async fn publish_newcomers(
        &self,
        source: &mut Connection,
        target: &mut Connection,
        slot: &str,
        publication: &str,
    ) -> Result<Newcomers> {
        let tables = scope::replication_tables(source, &self.options.ddl).await?;
        let planned = planned(target).await?;
        let published = published_tables(source, publication).await?;
        let (version, missing) = (source.version(), self.options.replica_identity);
        let changes = replication::changes(&tables, version, missing);
        let mut newcomers = Newcomers::default();
        let mut primary = None;
        let mut added = Vec::new();
        let new = |table: &ReplicationTable| table.kind == "r" && !planned.contains(&table.oid);
        for (table, changes) in tables.iter().zip(changes).filter(|(table, _)| new(table)) {
            match changes {
                Changes::Elsewhere => continue,
                Changes::Lost(reason) => {
                    state::omit(target, &changes_lost(table, reason)).await?;
                    continue;
                }
                Changes::Published | Changes::PublishedWithFullIdentity => {}
            }
            if published.contains(&table.oid) {
                newcomers.any = true;
                continue;
            }
            let obstacle = replication::obstacle_of(table, version, missing).filter(|found| found.blocks);
            let reason = match obstacle {
                Some(obstacle) => Some(obstacle.what),
                None => {
                    let primary = match &mut primary {
                        Some(primary) => primary,
                        none => none.insert(Primary::of(source).await?),
                    };
                    self.publish(primary.session(source), target, publication, table, changes).await?
                }
            };
            match reason {
                Some(reason) => {
                    newcomers.refused.insert(table.oid, reason);
                }
                None => {
                    newcomers.any = true;
                    added.push(named(table));
                }
            }
        }
        if let Some(mut primary) = primary.filter(|_| !added.is_empty()) {
            primary.replayed(source).await?;
            let created = self.create_slot(source, &format!("{slot}_copy"), true).await?;
            created.connection.close().await;
            let again = replication::add_again(primary.session(source), publication, &added);
            fault::step("newcomers published again", again).await?;
            primary.replayed(source).await?;
        }
        Ok(newcomers)
    }

    /// Adds a table to the publication, where the source can be written to; the reason if the server refuses.
    async fn publish(
        &self,
        source: &mut Connection,
        target: &mut Connection,
        publication: &str,
        table: &ReplicationTable,
        changes: Changes,
    ) -> Result<Option<String>> {
        if changes == Changes::PublishedWithFullIdentity {
            super::stream::give_full_identity(source, target, table).await?;
        }
        let table_named = named(table);
        let add = replication::add_to_publication(source, publication, &table_named);
        match fault::step("newcomer published", add).await {
            Ok(()) => {
                self.progress.note(format!("table \"{}\" is new on the source, and joins", name(table)));
                Ok(None)
            }
            // What the server has not said is no refusal.
            Err(error) if source.is_broken() || error.sqlstate().is_none() => Err(error),
            Err(error) => Ok(Some(error.to_string())),
        }
    }
}

/// Tables that the snapshot sees, that the state tables don't know yet, and whose changes would not all come from the snapshot on: OIDs and names. `exact`
/// says that the snapshot is that of a slot; `source` holds it.
pub(super) async fn unpublished(
    source: &mut Connection,
    target: &mut Connection,
    publication: &str,
    (database, options): (&Database, &ddl::Options),
    missing: replication::MissingIdentity,
    exact: bool,
) -> Result<Vec<(u32, String)>> {
    let planned = planned(target).await?;
    if database.tables.iter().all(|table| !table.has_rows() || planned.contains(&table.oid)) {
        return Ok(Vec::new());
    }
    let mut tables = crate::catalog::replication::replication_tables(source).await?;
    scope::mark(&mut tables, database, options);
    let published = published_tables(source, publication).await?;
    let changes = replication::changes(&tables, source.version(), missing);
    Ok(tables
        .iter()
        .zip(changes)
        .filter(|(table, _)| table.kind == "r" && !planned.contains(&table.oid))
        .filter(|(_, changes)| matches!(changes, Changes::Published | Changes::PublishedWithFullIdentity))
        .filter(|(table, _)| !(exact && published.contains(&table.oid)))
        .map(|(table, _)| (table.oid, name(table)))
        .collect())
}

/// What is recorded of a table that is copied and not followed.
pub(super) fn changes_lost(table: &ReplicationTable, reason: &str) -> NotCopied {
    NotCopied { kind: "CHANGES OF TABLE".to_owned(), name: name(table), reason: reason.to_owned() }
}

/// Tables with rows that are on the source, and neither copied nor followed: they were made after the copy. `planned` are the OIDs
/// of those that are copied.
pub async fn made_later(
    source: &mut Connection,
    options: &ddl::Options,
    planned: &HashSet<u32>,
    publication: &str,
) -> Result<Vec<String>> {
    let tables = scope::replication_tables(source, options).await?;
    let published = published_tables(source, publication).await?;
    Ok(later(&tables, planned, &published))
}

/// The names of those of `tables` that are neither planned nor published.
fn later(tables: &[ReplicationTable], planned: &HashSet<u32>, published: &HashSet<u32>) -> Vec<String> {
    let later = |table: &&ReplicationTable| {
        table.kind == "r"
            && !table.left_out
            && !planned.contains(&table.oid)
            && !published.contains(&table.oid)
    };
    tables.iter().filter(later).map(name).collect()
}

/// The relations of the state tables whose table has another name now: each with its new schema and name. `tables` are OIDs, schemas and names.
fn renamed<'a>(
    relations: Vec<(Relation, u32, u32)>,
    tables: impl Iterator<Item = (u32, &'a str, &'a str)>,
) -> Vec<(Relation, &'a str, &'a str)> {
    let now: HashMap<u32, (&str, &str)> = tables.map(|(oid, schema, name)| (oid, (schema, name))).collect();
    let moved = |(relation, _, _): (Relation, u32, u32)| {
        let &(schema, name) = now.get(&relation.oid)?;
        (schema != relation.schema || name != relation.name).then_some((relation, schema, name))
    };
    relations.into_iter().filter_map(moved).collect()
}

/// Refuses to copy on where a table of the source has another name than its copy: the rest of its rows, and its changes, would go elsewhere.
pub(super) async fn refuse_renamed(target: &mut Connection, tables: &[Table]) -> Result<()> {
    let named = tables.iter().map(|table| (table.oid, table.schema.as_str(), table.name.as_str()));
    if let Some((relation, schema, name)) = renamed(state::relations(target).await?, named).first() {
        let (old, new) = (qualified(&relation.schema, &relation.name), qualified(schema, name));
        return Err(Error::new(
            ErrorKind::Blocked,
            format!("table {old} was renamed to {new} on the source while it was being copied"),
        )
        .with_detail("Its copy on the target has the old name, and so have its indexes and constraints there.")
        .with_hint(format!(
            "Give {new} its old name {old} back on the source until the cutover, and run the same command again; or begin anew with --restart."
        )));
    }
    Ok(())
}

impl Run<'_> {
    /// Records, at the cutover, what the source's tables have become that the stream doesn't tell: tables made later are left out; a table renamed on both
    /// sides is known by its new name from here on, and one renamed on the source alone is named.
    pub(super) async fn settle_tables(
        &self,
        source: &mut Connection,
        target: &mut Connection,
        publication: &str,
    ) -> Result<()> {
        let tables = scope::replication_tables(source, &self.options.ddl).await?;
        let published = published_tables(source, publication).await?;
        for later in later(&tables, &planned(target).await?, &published) {
            let reason =
                "made on the source after the copy: neither its rows nor their changes are on the target";
            let (kind, reason) = ("TABLE".to_owned(), reason.to_owned());
            state::omit(target, &NotCopied { kind, name: later, reason }).await?;
        }
        let named = tables.iter().map(|table| (table.oid, table.schema.as_str(), table.name.as_str()));
        for (relation, schema, name) in renamed(state::relations(target).await?, named) {
            if state::rename_relation(target, relation.oid, schema, name).await? {
                continue;
            }
            let omission = NotCopied {
                kind: "TABLE".to_owned(),
                name: format!("{schema}.{name}"),
                reason: format!(
                    "renamed on the source: its rows are on the target under the old name {}",
                    qualified(&relation.schema, &relation.name)
                ),
            };
            state::omit(target, &omission).await?;
        }
        Ok(())
    }
}
