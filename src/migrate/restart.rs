//! `--restart`: drops what pgstream made in the target, and what it left on the source, and nothing else.
//!
//! The state tables say what was made. Objects are dropped with CASCADE, since they depend on each other in loops; before the
//! transaction commits, everything else that was in the database must still be there. The source is cleaned within that transaction: as long as the
//! state tables have not gone, they say what may be left there.

use std::collections::HashSet;

use super::cutover::{give_back, put_back_identities};
use super::stream::remove_stream;
use crate::catalog;
use crate::ddl::{self, Item, Section};
use crate::error::{Error, ErrorKind, Result};
use crate::fault;
use crate::progress::Progress;
use crate::replication::Primary;
use crate::schema::Class;
use crate::state::{self, ItemOutcome, Migration, Phase};
use crate::wire::Connection;

/// Drops every object that the state tables name as made, the copied large objects and the state tables themselves, in one transaction; and
/// what a stream has on the source.
///
/// # Errors
/// When something that pgstream did not make depends on what it made: it is named, and nothing is dropped.
pub(super) async fn undo(
    source: &mut Connection,
    target: &mut Connection,
    migration: &Migration,
    progress: &Progress,
) -> Result<()> {
    let made: HashSet<String> = state::items(target)
        .await?
        .into_iter()
        .filter(|(_, state)| state.outcome != ItemOutcome::Failed)
        .map(|(key, _)| key)
        .collect();
    let before = items(target).await?;
    let (ours, others): (Vec<Item>, Vec<Item>) =
        before.into_iter().partition(|item| made.contains(&item.key()));
    let mut statements = vec!["BEGIN".to_owned()];
    statements.extend(drops(target, &ours).await?);
    statements.push(format!(
        "SELECT pg_catalog.lo_unlink(m.oid) FROM pg_catalog.pg_largeobject_metadata m WHERE EXISTS (SELECT FROM pgstream.part p \
         WHERE p.relation = {} AND p.state = 'done' AND m.oid::int8 >= p.lower_bound AND m.oid::int8 < p.upper_bound)",
        state::LARGE_OBJECTS
    ));
    let dropped = match target.pipeline(&statements).await {
        Ok(()) => others_stay(target, &others).await,
        Err(failure) => Err(failure.error),
    };
    let mut dropped = dropped.map_err(|e| e.context("could not drop what an earlier run made on the target"));
    if dropped.is_ok() {
        dropped = clean_source(source, target, migration)
            .await
            .map_err(|e| e.context("could not remove what an earlier run left on the source"));
    }
    if dropped.is_ok() {
        dropped = state::drop_schema(target).await;
    }
    if let Err(error) = dropped {
        if !target.is_broken() {
            target.execute("ROLLBACK").await?;
        }
        return Err(error);
    }
    fault::step("undone", target.execute("COMMIT")).await?;
    progress.note(format!("dropped {} objects that an earlier run had made", ours.len()));
    Ok(())
}

/// A migration that is done has left nothing but a source that is read-only, if that was asked for.
async fn clean_source(source: &mut Connection, target: &mut Connection, migration: &Migration) -> Result<()> {
    if migration.slot.is_none() || migration.phase == Phase::Done {
        return Ok(());
    }
    let mut primary = Primary::of(source).await?;
    remove_stream(source, &mut primary, migration).await?;
    let source = primary.session(source);
    put_back_identities(source, target).await?;
    if migration.source_read_only { give_back(source, target).await } else { Ok(()) }
}

async fn items(target: &mut Connection) -> Result<Vec<Item>> {
    let database = catalog::read(target).await?;
    Ok(ddl::plan(&database, &ddl::Options::default(), target.version())?.items)
}

async fn others_stay(target: &mut Connection, others: &[Item]) -> Result<()> {
    let after: HashSet<String> = items(target).await?.iter().map(Item::key).collect();
    let lost: Vec<String> = others
        .iter()
        .filter(|item| item.section != Section::Privileges)
        .map(Item::key)
        .filter(|key| !after.contains(key))
        .collect();
    if lost.is_empty() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Blocked, "objects that pgstream did not make depend on it")
        .with_detail(format!("They would be lost: {}.", lost.join(", ")))
        .with_hint("Drop or move them first, or choose an empty target database."))
}

/// DROP statements for the items that are objects of their own, last made first. What belongs to a table goes with it, and what is part of
/// another object (an identity column's sequence) can't be dropped alone.
async fn drops(target: &mut Connection, items: &[Item]) -> Result<Vec<String>> {
    let mut classes = Vec::new();
    let mut oids = Vec::new();
    for item in items.iter().rev().filter(|item| is_dropped(item)) {
        let Some(class) = catalog_name(item.id.class).filter(|_| stands_alone(item.id.class)) else {
            continue;
        };
        classes.push(class);
        oids.push(item.id.oid.to_string());
    }
    let rows = target
        .query(
            &format!(
                "SELECT o.type, o.identity FROM ROWS FROM (pg_catalog.unnest('{{{}}}'::text[]), pg_catalog.unnest('{{{}}}'::int8[])) WITH ORDINALITY u(class, oid, n), \
                 LATERAL pg_catalog.pg_identify_object(('pg_catalog.' || u.class)::pg_catalog.regclass, u.oid::oid, 0) o \
                 WHERE o.identity IS NOT NULL AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.objid = u.oid::oid \
                    AND d.classid = ('pg_catalog.' || u.class)::pg_catalog.regclass AND d.objsubid = 0 AND d.deptype = 'i') ORDER BY n",
                classes.join(","),
                oids.join(",")
            ),
            &[],
        )
        .await?;
    let named = rows.iter().filter_map(|row| row.text(0).zip(row.text(1)));
    Ok(named.filter_map(|(kind, identity)| drop_statement(kind, identity)).collect())
}

/// The class as PostgreSQL names it, `pg_class`; `None` for what has no catalog of its own.
fn catalog_name(class: Class) -> Option<String> {
    serde_json::to_value(class).ok()?.as_str().map(str::to_owned)
}

/// Indexes go with their tables. Extensions stay: one that was there before was only found by CREATE EXTENSION IF NOT EXISTS, as plpgsql
/// always is, and one that stays is found again.
fn is_dropped(item: &Item) -> bool {
    item.section != Section::Privileges && !matches!(item.kind, "INDEX" | "EXTENSION")
}

/// Kinds that are dropped by name; the others belong to a table, a view or a publication.
fn stands_alone(class: Class) -> bool {
    !matches!(
        class,
        Class::ColumnDefault
            | Class::Constraint
            | Class::DefaultAcl
            | Class::Policy
            | Class::PublicationSchema
            | Class::PublicationTable
            | Class::Rule
            | Class::Trigger
            | Class::Other
    )
}

/// `kind` and `identity` are what pg_identify_object says; `None` for what goes with its owner.
fn drop_statement(kind: &str, identity: &str) -> Option<String> {
    let kind = match kind {
        // Every database is born with it, whether or not the server quotes its name.
        "schema" if identity.trim_matches('"') == "public" => return None,
        "statistics object" => "STATISTICS".to_owned(),
        "foreign-data wrapper" => "FOREIGN DATA WRAPPER".to_owned(),
        "composite type" => "TYPE".to_owned(),
        "user mapping" => {
            let (role, server) = identity.rsplit_once(" on server ")?;
            return Some(format!("DROP USER MAPPING IF EXISTS FOR {role} SERVER {server}"));
        }
        "database" | "role" | "tablespace" => return None,
        other => other.to_uppercase(),
    };
    Some(format!("DROP {kind} IF EXISTS {identity} CASCADE"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_become_drop_statements() {
        let drop = drop_statement;
        assert_eq!(drop("table", "app.\"T\"").unwrap(), "DROP TABLE IF EXISTS app.\"T\" CASCADE");
        assert_eq!(
            drop("user mapping", "bob on server s").unwrap(),
            "DROP USER MAPPING IF EXISTS FOR bob SERVER s"
        );
        assert_eq!(drop("schema", "public"), None);
        assert_eq!(drop("schema", "\"public\""), None);
        assert_eq!(drop("database", "x"), None);
    }
}
