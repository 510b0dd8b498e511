//! What a child table says itself and what it only inherits, where the catalogs don't tell; pg_dump's flagInhAttrs.

use std::collections::{HashMap, HashSet};

use super::table::{ColumnDefault, RelationName, Table};

/// Settles the columns of tables that inherit. `tables` must hold the parents too.
///
/// - A not-null constraint that a parent has too counts as inherited on servers before 18, which don't record it.
/// - A child without a default under a parent with one must lose the one that INHERITS gives it.
/// - A generation expression equal to all parents' is left to be inherited, partitions aside.
/// - A default of a column that CREATE TABLE doesn't list needs a statement of its own.
/// - A table whose columns INHERITS would put into another order is to be joined to its parents by ALTER TABLE … INHERIT.
/// - A child without a compression method under a parent with one must lose the one that INHERITS gives it, and so with storage.
/// - The name of a not-null constraint that the server would choose is taken where another table has one of that name.
/// - A not-null constraint may be valid in a child and NOT VALID in the parent that it comes from.
pub fn settle(tables: &mut [Table], version: u32) {
    let places: HashMap<u32, usize> =
        tables.iter().enumerate().map(|(place, table)| (table.oid, place)).collect();
    let (mut findings, mut joins) = (Vec::new(), Vec::new());
    for (place, table) in tables.iter().enumerate().filter(|(_, table)| !table.parents.is_empty()) {
        let parents: Vec<&Table> =
            table.parents.iter().filter_map(|p| places.get(&p.oid)).map(|&place| &tables[place]).collect();
        if joined(table, &parents) {
            joins.push(place);
        }
        for (number, column) in table.columns.iter().enumerate() {
            let inherited = parents.iter().filter_map(|p| p.columns.iter().find(|c| c.name == column.name));
            let mut finding = Finding { table: place, column: number, ..Finding::default() };
            for parent in inherited {
                finding.not_null |= parent.constraint.as_ref().is_some_and(|c| !c.no_inherit);
                finding.compression |= parent.compression.is_some();
                finding.storage |= parent.storage.is_some();
                // A parent's constraint that isn't valid yet is not with its column.
                finding.unvalidated |= parent.not_null && parent.constraint.is_none();
                match &parent.default {
                    Some(default) if default.generated.is_some() => {
                        let same =
                            column.default.as_ref().is_some_and(|d| d.expression == default.expression);
                        finding.same_generation |= same;
                        finding.other_generation |= !same;
                    }
                    Some(default) => finding.default |= default.expression != "NULL",
                    None => {}
                }
            }
            findings.push(finding);
        }
    }
    for place in joins {
        tables[place].joined_parents = true;
    }
    for finding in findings {
        let table = &mut tables[finding.table];
        let made_whole = table.is_made_whole();
        let column = &mut table.columns[finding.column];
        if version < 180000
            && finding.not_null
            && let Some(constraint) = &mut column.constraint
        {
            constraint.is_local = false;
        }
        if let Some(constraint) = &mut column.constraint {
            constraint.validated_here =
                finding.unvalidated && !finding.not_null && !constraint.is_local && !made_whole;
        }
        if finding.compression && column.compression.is_none() && !made_whole {
            column.compression = Some("default".to_owned());
        }
        if finding.storage && column.storage.is_none() && !made_whole {
            column.storage = column.own_storage.clone();
        }
        if finding.default && column.default.is_none() && !made_whole {
            let expression = "NULL".to_owned();
            column.default =
                Some(ColumnDefault { oid: 0, expression, generated: None, separate: true, inherited: false });
        }
        if let Some(default) = &mut column.default {
            default.inherited = finding.same_generation && !finding.other_generation && !made_whole;
        }
    }
    for table in tables.iter_mut() {
        let partition = table.is_partition();
        for column in &mut table.columns {
            let listed = column.is_local || partition;
            if let Some(default) = column.default.as_mut().filter(|default| default.oid != 0) {
                default.separate = default.generated.is_none() && !listed;
            }
        }
    }
    say_ambiguous_names(tables);
}

/// The parents of each table that inherits, by OID.
pub type Parents<'a> = HashMap<u32, &'a [RelationName]>;

/// Whose children the tables are.
pub fn parents(tables: &[Table]) -> Parents<'_> {
    let children = tables.iter().filter(|table| !table.parents.is_empty());
    children.map(|table| (table.oid, table.parents.as_slice())).collect()
}

/// The tables above one, up to those that inherit from none.
pub fn ancestors(parents: &Parents<'_>, table: u32) -> HashSet<u32> {
    let mut found = HashSet::new();
    let mut pending = vec![table];
    while let Some(below) = pending.pop() {
        let above = parents.get(&below).copied().unwrap_or_default();
        pending.extend(above.iter().map(|parent| parent.oid).filter(|oid| found.insert(*oid)));
    }
    found
}

/// The server chooses names that no constraint of the schema has yet: which table gets the plain one depends on the order.
fn say_ambiguous_names(tables: &mut [Table]) {
    let mut counts: HashMap<(&str, &str), usize> = HashMap::new();
    for table in tables.iter() {
        for name in table.columns.iter().filter_map(|c| c.constraint.as_ref()?.name.as_deref()) {
            *counts.entry((&table.schema, name)).or_default() += 1;
        }
    }
    let ambiguous: HashSet<(String, String)> = counts
        .into_iter()
        .filter(|(_, count)| *count > 1)
        .map(|((schema, name), _)| (schema.to_owned(), name.to_owned()))
        .collect();
    if ambiguous.is_empty() {
        return;
    }
    for table in tables.iter_mut() {
        for constraint in table.columns.iter_mut().filter_map(|column| column.constraint.as_mut()) {
            if let Some(name) = &constraint.name {
                constraint.says_name |= ambiguous.contains(&(table.schema.clone(), name.clone()));
            }
        }
    }
}

/// Whether INHERITS would put the columns into another order. An inherited generated column stays with INHERITS: it can't be made
/// without the columns that its expression reads.
fn joined(table: &Table, parents: &[&Table]) -> bool {
    if table.is_partition() || parents.len() < table.parents.len() {
        return false;
    }
    let mut inherited: Vec<&str> = Vec::new();
    for column in parents.iter().flat_map(|parent| &parent.columns) {
        if !inherited.contains(&column.name.as_str()) {
            inherited.push(&column.name);
        }
    }
    let in_order = table.columns.iter().zip(&inherited).all(|(own, inherited)| own.name == *inherited);
    !in_order && table.columns.iter().all(|column| column.is_local || !column.is_generated())
}

/// What the parents say of one column.
#[derive(Default)]
struct Finding {
    table: usize,
    column: usize,
    not_null: bool,
    unvalidated: bool,
    compression: bool,
    storage: bool,
    default: bool,
    same_generation: bool,
    other_generation: bool,
}
