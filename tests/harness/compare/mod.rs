//! What differs between two databases: in schema, rows, sequences, large objects, roles and properties. Each
//! difference is one line, or a few, that name the object.

mod contents;
mod globals;
mod schema;

pub(crate) use contents::{large_objects, rows, sequences};
pub(crate) use globals::{properties, roles};
pub(crate) use schema::{dump_with, schemas};

use super::Database;
use std::collections::{BTreeMap, BTreeSet};

/// Every difference between a source and its copy.
pub(crate) fn databases(source: &Database<'_>, target: &Database<'_>) -> Vec<String> {
    let mut differences = contents(source, target);
    differences.extend(roles(source, target));
    differences.extend(properties(source, target));
    differences
}

/// Every difference in what the two databases hold.
fn contents(source: &Database<'_>, target: &Database<'_>) -> Vec<String> {
    let mut differences = schemas(source, target);
    differences.extend(rows(source, target));
    differences.extend(sequences(source, target));
    differences.extend(large_objects(source, target));
    differences
}

/// Fails with every difference in what the two databases hold.
#[track_caller]
pub(crate) fn assert_equal(source: &Database<'_>, target: &Database<'_>) {
    let differences = contents(source, target);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Names and their values on both sides; a line for each that differs.
fn facts(kind: &str, source: &BTreeMap<String, String>, target: &BTreeMap<String, String>) -> Vec<String> {
    let names: BTreeSet<&String> = source.keys().chain(target.keys()).collect();
    let differs = |name: &&String| source.get(*name) != target.get(*name);
    let shown = |value: Option<&String>| value.cloned().unwrap_or_else(|| "(missing)".to_owned());
    names
        .into_iter()
        .filter(differs)
        .map(|name| format!("{kind} {name}: {} → {}", shown(source.get(name)), shown(target.get(name))))
        .collect()
}

/// The rows of a query with two columns, name and value.
fn by_name(database: &Database<'_>, sql: &str) -> BTreeMap<String, String> {
    database
        .query(sql)
        .into_iter()
        .map(|mut row| {
            let value = row.pop().unwrap_or_default();
            (row.join(" "), value)
        })
        .collect()
}
