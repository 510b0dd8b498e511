//! Finds out which objects a selection's patterns match.
//!
//! In: the patterns of a [`Selection`], and the session under whose snapshot the database was read. Out: [`Matched`]. The server matches, as it
//! does for pg_dump, so a pattern finds the same here and there; a table named without its schema is one that the role's own search path
//! shows. What may fail: a pattern of too many parts or for another database, and one that matches nothing where it has to.

use std::collections::HashSet;

use serde::Deserialize;

use super::query::{Batch, Query, Ticket};
use crate::error::{Error, Result};
use crate::schema::Database;
use crate::schema::pattern::{Parts, Pattern};
use crate::schema::selection::{Matched, Selection};
use crate::sql::literal;
use crate::wire::Connection;

/// A database's definition, and what of it is copied.
#[derive(Debug)]
pub struct Selected {
    /// What is copied.
    pub database: Database,
    /// Everything, where that is more.
    pub whole: Option<Database>,
}

/// What becomes of patterns that match nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unmatched {
    /// As in pg_dump: an error where nothing matches any of a kind's patterns, or one of them under `--strict-names`.
    Refused,
    /// Nothing is selected by them: the other side of a comparison, say.
    Ignored,
}

/// Reads the definition of the connected database, as far as it is selected.
///
/// # Errors
/// See the module; patterns are usage errors.
pub async fn read(
    connection: &mut Connection,
    selection: &Selection,
    unmatched: Unmatched,
) -> Result<Selected> {
    let mut database = super::read(connection).await?;
    if selection.schema_only {
        database.leave_out_contents(|_| true);
    }
    if selection.has_no_patterns() {
        return Ok(Selected { database, whole: None });
    }
    let matched = matched(connection, selection, &database.name, unmatched).await?;
    Ok(Selected { database: database.clone().select(&matched), whole: Some(database) })
}

/// The search path that the role would have without pgstream's own settings: a name without a schema is looked up by it.
const OWN_SEARCH_PATH: &str = "SELECT pg_catalog.set_config('search_path', coalesce(
    (SELECT pg_catalog.substr(c.setting, 13) FROM pg_catalog.pg_db_role_setting s, pg_catalog.unnest(s.setconfig) c(setting)
      WHERE c.setting LIKE 'search\\_path=%'
        AND s.setdatabase IN (0, (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()))
        AND s.setrole IN (0, (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname = current_user))
      ORDER BY s.setrole <> 0 DESC, s.setdatabase <> 0 DESC LIMIT 1),
    (SELECT boot_val FROM pg_catalog.pg_settings WHERE name = 'search_path')), false)";

#[derive(Debug, Deserialize)]
struct Found {
    oid: u32,
    name: String,
}

/// The patterns of one option while they are looked up.
struct Asked<'a> {
    patterns: &'a [String],
    tickets: Vec<Ticket<Found>>,
}

async fn matched(
    connection: &mut Connection,
    selection: &Selection,
    database: &str,
    unmatched: Unmatched,
) -> Result<Matched> {
    let mut batch = Batch::default();
    let schemas = ask(&mut batch, &selection.schemas, |p| schema_query(p, database))?;
    let exclude_schemas = ask(&mut batch, &selection.exclude_schemas, |p| schema_query(p, database))?;
    let mut tables = |patterns, children| ask(&mut batch, patterns, |p| table_query(p, database, children));
    let named = tables(&selection.tables, false)?;
    let named_with_children = tables(&selection.tables_and_children, true)?;
    let excluded = tables(&selection.exclude_tables, false)?;
    let excluded_with_children = tables(&selection.exclude_tables_and_children, true)?;
    let without_data = tables(&selection.exclude_table_data, false)?;
    let without_data_with_children = tables(&selection.exclude_table_data_and_children, true)?;
    let extensions = ask(&mut batch, &selection.extensions, extension_query)?;
    let exclude_extensions = ask(&mut batch, &selection.exclude_extensions, extension_query)?;

    connection.execute(OWN_SEARCH_PATH).await?;
    let answers = batch.run(connection).await.map_err(|error| {
        let invalid = error.sqlstate().is_some_and(|s| s.as_str() == "2201B");
        if invalid {
            Error::usage("invalid pattern in the selection").with_detail(format!("{error}."))
        } else {
            error
        }
    });
    if !connection.is_broken() && answers.is_ok() {
        connection.execute("SET search_path = ''").await?;
    }
    let mut answers = answers?;
    let mut take = |asked: Asked<'_>, kind: Option<&str>| -> Result<Vec<Found>> {
        let mut all = Vec::new();
        for (pattern, ticket) in asked.patterns.iter().zip(asked.tickets) {
            let found = answers.take(ticket)?;
            if let Some(kind) = kind
                && found.is_empty()
                && selection.strict_names
                && unmatched == Unmatched::Refused
            {
                return Err(Error::usage(format!("no matching {kind} were found for pattern \"{pattern}\"")));
            }
            all.extend(found);
        }
        Ok(all)
    };
    let refuse_none = |found: &[Found], asked: bool, kind: &str| match (found.is_empty(), unmatched) {
        (true, Unmatched::Refused) if asked => {
            Err(Error::usage(format!("no matching {kind} were found in source database \"{database}\"")))
        }
        _ => Ok(()),
    };

    let schemas = take(schemas, Some("schemas"))?;
    refuse_none(&schemas, !selection.schemas.is_empty(), "schemas")?;
    let mut tables = take(named, Some("tables"))?;
    tables.extend(take(named_with_children, Some("tables"))?);
    let tables_named = !selection.tables.is_empty() || !selection.tables_and_children.is_empty();
    refuse_none(&tables, tables_named, "tables")?;
    let extensions = take(extensions, Some("extensions"))?;
    refuse_none(&extensions, !selection.extensions.is_empty(), "extensions")?;
    let mut excluded = take(excluded, None)?;
    excluded.extend(take(excluded_with_children, None)?);
    let mut without_data = take(without_data, None)?;
    without_data.extend(take(without_data_with_children, None)?);
    Ok(Matched {
        everything: selection.includes_everything(),
        schemas: (!selection.schemas.is_empty()).then(|| names(schemas)),
        exclude_schemas: names(take(exclude_schemas, None)?),
        tables: tables_named.then(|| oids(tables)),
        exclude_tables: oids(excluded),
        exclude_data: oids(without_data),
        extensions: (!selection.extensions.is_empty()).then(|| names(extensions)),
        exclude_extensions: names(take(exclude_extensions, None)?),
    })
}

fn names(found: Vec<Found>) -> HashSet<String> {
    found.into_iter().map(|found| found.name).collect()
}

fn oids(found: Vec<Found>) -> HashSet<u32> {
    found.into_iter().map(|found| found.oid).collect()
}

fn ask<'a>(
    batch: &mut Batch,
    patterns: &'a [String],
    query: impl Fn(&str) -> Result<String>,
) -> Result<Asked<'a>> {
    let mut tickets = Vec::with_capacity(patterns.len());
    for pattern in patterns {
        tickets.push(batch.add(Query::new(query(pattern)?)));
    }
    Ok(Asked { patterns, tickets })
}

/// A part of a name against its expression, under the database's collation.
fn matches(column: &str, expression: &str) -> String {
    format!("{column} OPERATOR(pg_catalog.~) {} COLLATE pg_catalog.\"default\"", literal(expression))
}

fn parse(text: &str, parts: Parts, database: &str) -> Result<Pattern> {
    let pattern = Pattern::parse(text, parts)?;
    match &pattern.database {
        Some(other) if other != database => {
            Err(Error::usage(format!("cross-database references are not implemented: {text}"))
                .with_hint(format!("The database that is copied is \"{database}\".")))
        }
        _ => Ok(pattern),
    }
}

fn schema_query(text: &str, database: &str) -> Result<String> {
    let pattern = parse(text, Parts::DatabaseAndName, database)?;
    Ok(format!(
        "SELECT n.oid::int8 AS oid, n.nspname AS name FROM pg_catalog.pg_namespace n WHERE {}",
        matches("n.nspname", &pattern.name)
    ))
}

fn extension_query(text: &str) -> Result<String> {
    let pattern = Pattern::parse(text, Parts::Name)?;
    Ok(format!(
        "SELECT e.oid::int8 AS oid, e.extname AS name FROM pg_catalog.pg_extension e WHERE {}",
        matches("e.extname", &pattern.name)
    ))
}

fn table_query(text: &str, database: &str, children: bool) -> Result<String> {
    let pattern = parse(text, Parts::All, database)?;
    let schema = match &pattern.schema {
        Some(schema) => matches("n.nspname", schema),
        None => "pg_catalog.pg_table_is_visible(c.oid)".to_owned(),
    };
    let found = format!(
        "SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'S', 'v', 'm', 'f', 'p') AND {} AND {schema}",
        matches("c.relname", &pattern.name)
    );
    let below = if children {
        "UNION SELECT i.inhrelid FROM found f JOIN pg_catalog.pg_inherits i ON i.inhparent = f.oid"
    } else {
        ""
    };
    Ok(format!(
        "SELECT f.oid::int8 AS oid, '' AS name FROM (WITH RECURSIVE found AS ({found} {below}) SELECT oid FROM found) f"
    ))
}
