//! What of the source is migrated: its definition as far as it is selected, and the plan of what can be made of it on the target.
//!
//! In: sessions of both servers, the operator's choice. Out: the database to copy, and its plan. What may fail: either server; a selected
//! table that needs something which is neither selected nor on the target: its rows would have no place.
//!
//! A copy reads the source's definition once ([`Seen`]): what was checked is what is copied. A stream's snapshot is the one that its slot was made with,
//! which comes after the check, so there it is read again.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use super::{locks, unprivileged};
use crate::catalog;
use crate::catalog::replication::ReplicationTable;
use crate::catalog::selection::{Selected, Unmatched};
use crate::config::Config;
use crate::copy::Snapshot;
use crate::ddl::{self, Dangling, Plan};
use crate::error::{Error, ErrorKind, Result};
use crate::schema::Database;
use crate::state::Migration;
use crate::wire::Connection;

/// The choice that holds: what a migration was begun with, unless nothing is asked for now.
///
/// # Errors
/// A usage error where a migration was begun with another choice.
pub fn settled(asked: &ddl::Options, begun: Option<&Migration>) -> Result<ddl::Options> {
    match begun.and_then(|migration| migration.content.as_ref()) {
        Some(begun) if asked.copies_everything() => Ok(begun.clone()),
        Some(begun) if begun != asked => Err(Error::usage(
            "the migration was begun with another choice of what is copied",
        )
        .with_hint("Leave these options out to go on with the first choice, or begin anew with --restart.")),
        _ => Ok(asked.clone()),
    }
}

/// The source's definition as far as it is selected, and the snapshot that it was read under, which is still held.
#[derive(Debug)]
pub struct Seen {
    pub(super) snapshot: Snapshot,
    pub(super) selected: Selected,
}

impl Seen {
    /// Takes a snapshot of the source, and reads what it sees. A table that another session locks is waited for at most `lock_wait`.
    ///
    /// # Errors
    /// The source's; [`is_gone`] tells whether another snapshot may do.
    pub(super) async fn read(source: &Config, options: &ddl::Options, lock_wait: Duration) -> Result<Seen> {
        let mut snapshot = Snapshot::export(source).await?;
        locks::limit(snapshot.connection(), lock_wait).await?;
        let selected = read(snapshot.connection(), options).await?;
        Ok(Seen { snapshot, selected })
    }

    /// Lets the snapshot go.
    pub async fn release(self) {
        self.snapshot.release().await;
    }
}

/// The server speaks of an object that it looked for in vain: undefined in one way or another, or (as an internal error) not in its catalogs.
/// A snapshot sees what is no longer there to be described.
pub(super) fn is_gone(error: &Error) -> bool {
    error
        .sqlstate()
        .is_some_and(|s| matches!(s.as_str(), "42P01" | "42703" | "42704" | "42883" | "3F000" | "XX000"))
}

/// Reads the source's definition, as far as it is selected.
pub(super) async fn read(source: &mut Connection, options: &ddl::Options) -> Result<Selected> {
    catalog::selection::read(source, &options.selection, Unmatched::Refused).await
}

/// The source's tables as replication sees them, those marked whose changes are not wanted.
pub(super) async fn replication_tables(
    source: &mut Connection,
    options: &ddl::Options,
) -> Result<Vec<ReplicationTable>> {
    let mut tables = catalog::replication::replication_tables(source).await?;
    if options.selection.is_everything() {
        mark_extensions(&mut tables, options);
    } else {
        mark(&mut tables, &read(source, options).await?.database, options);
    }
    Ok(tables)
}

/// Marks the tables whose changes are not wanted: those whose contents are not among what is selected, and extensions' where that is asked for.
pub(super) fn mark(tables: &mut [ReplicationTable], selected: &Database, options: &ddl::Options) {
    let wanted: HashSet<u32> =
        selected.tables.iter().filter(|table| !table.contents_left_out).map(|table| table.oid).collect();
    for table in tables.iter_mut() {
        table.left_out = !wanted.contains(&table.oid);
    }
    mark_extensions(tables, options);
}

fn mark_extensions(tables: &mut [ReplicationTable], options: &ddl::Options) {
    for table in tables.iter_mut().filter(|table| table.of_extension) {
        table.left_out |= !options.replicate_extension_tables;
    }
}

/// Plans what is selected, without what can't be made because it needs what is not selected.
///
/// # Errors
/// See the module.
pub(super) async fn plan(
    target: &mut Connection,
    selected: Selected,
    options: &ddl::Options,
) -> Result<(Database, Plan)> {
    let version = target.version();
    let mut plan = ddl::plan(&selected.database, options, version)?;
    let mut database = selected.database;
    ddl::keep_array_casts(&mut plan, database.version, version);
    if options.skip_unprivileged {
        let server = catalog::facts::read(target).await?;
        let gone = plan.leave_out(&unprivileged::items(&database, &plan, &server));
        database = database.without(&gone);
    }
    let Some(whole) = &selected.whole else { return Ok((database, plan)) };
    let dangling = ddl::dangling(whole, options, version, &plan)?;
    if dangling.is_empty() {
        return Ok((database, plan));
    }
    let present = ddl::plan(&catalog::read(target).await?, &ddl::Options::default(), version)?.names();
    let reasons: BTreeMap<usize, String> = lacking(&dangling, &present)
        .into_iter()
        .map(|(item, needs)| (item, format!("needs {needs}, which is neither selected nor on the target")))
        .collect();
    for (&item, reason) in &reasons {
        let item = &plan.items[item];
        if holds_contents(item.kind) {
            return Err(Error::new(ErrorKind::Blocked, format!("cannot create {}: it {reason}", item.key()))
                .with_hint("Make that on the target first, or select it too; pgstream check lists everything of this kind."));
        }
    }
    plan.leave_out(&reasons);
    Ok((database, plan))
}

/// Items that need what neither the plan makes nor the target has; for each, the first such thing.
pub(super) fn lacking<'a>(
    dangling: &'a [Dangling],
    present: &BTreeSet<ddl::Name>,
) -> BTreeMap<usize, &'a str> {
    let mut lacking = BTreeMap::new();
    for dangling in dangling {
        if dangling.name.as_ref().is_some_and(|name| !present.contains(name)) {
            lacking.entry(dangling.item).or_insert(dangling.needs.as_str());
        }
    }
    lacking
}

/// Whether rows or a position would be copied into what an item of this kind makes.
pub(super) fn holds_contents(kind: &str) -> bool {
    matches!(kind, "TABLE" | "SEQUENCE")
}
