//! The trees of partitioned tables.

use std::collections::{HashMap, HashSet};

use super::Database;
use super::data_type::Definition;
use super::table::{RelationName, Table};
use crate::sql::ident;

/// The tables with rows below each partitioned table, nested ones included, by OID.
pub fn leaves(tables: &[Table]) -> HashMap<u32, Vec<u32>> {
    let by_oid: HashMap<u32, &Table> = tables.iter().map(|table| (table.oid, table)).collect();
    let mut leaves: HashMap<u32, Vec<u32>> = HashMap::new();
    for table in tables {
        if !table.has_rows() {
            leaves.entry(table.oid).or_default();
        }
        for ancestor in ancestors(table, &by_oid).filter(|_| table.has_rows()) {
            leaves.entry(ancestor.oid).or_default().push(table.oid);
        }
    }
    leaves
}

/// The partitioned tables above a partition, from its parent up. What a server says of them may lead back to where it began.
fn ancestors<'a>(table: &'a Table, by_oid: &HashMap<u32, &'a Table>) -> impl Iterator<Item = &'a Table> {
    let mut seen = HashSet::from([table.oid]);
    let above = std::iter::successors(Some(table), |below| {
        let parent = below.parents.first().filter(|_| below.is_partition())?;
        by_oid.get(&parent.oid).copied()
    });
    above.skip(1).take_while(move |table| seen.insert(table.oid))
}

/// Leaves whose rows may belong into another leaf on another server, each with the root to load them through: the hash of an enum
/// value is that of its OID, and every server gives it another one (as pg_dump's `--load-via-partition-root`).
pub fn loaded_through_root(database: &Database) -> HashMap<u32, RelationName> {
    let enums: HashSet<u32> = database
        .types
        .iter()
        .filter(|t| matches!(t.definition, Definition::Enum(_)))
        .map(|t| t.oid)
        .collect();
    let hashes_enum = |table: &Table| {
        let key = table.partition_key.as_deref().unwrap_or("");
        let mut enum_columns = table.columns.iter().filter(|column| enums.contains(&column.type_oid));
        key.starts_with("HASH")
            && enum_columns.any(|c| key.contains(&ident(&c.name)) || key.contains(&c.name))
    };
    let by_oid: HashMap<u32, &Table> = database.tables.iter().map(|table| (table.oid, table)).collect();
    let mut through = HashMap::new();
    for table in database.tables.iter().filter(|table| table.has_rows()) {
        if ancestors(table, &by_oid).any(hashes_enum)
            && let Some(root) = ancestors(table, &by_oid).last()
        {
            let name = RelationName { oid: root.oid, schema: root.schema.clone(), name: root.name.clone() };
            through.insert(table.oid, name);
        }
    }
    through
}
