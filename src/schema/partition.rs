//! The trees of partitioned tables.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;

use super::Database;
use super::table::{RelationName, Table};

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

/// What decides, besides the values of a row, which partition takes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlacedBy {
    /// The database's encoding: a text is hashed as the bytes that it is stored in.
    Encoding,
    /// The server: the hash of an enum value is that of its OID, and that of a text under a nondeterministic collation depends on the collation's version.
    Server,
}

/// Leaves whose rows may belong into another leaf in a database of `encoding` on another server, each with the root to load them through (as
/// pg_dump's `--load-via-partition-root`).
pub fn loaded_through_root(database: &Database, encoding: &str) -> HashMap<u32, RelationName> {
    let elsewhere = |table: &Table| match table.placed_by {
        None => false,
        Some(PlacedBy::Encoding) => database.properties.encoding != encoding,
        Some(PlacedBy::Server) => true,
    };
    let by_oid: HashMap<u32, &Table> = database.tables.iter().map(|table| (table.oid, table)).collect();
    let mut through = HashMap::new();
    for table in database.tables.iter().filter(|table| table.has_rows()) {
        if ancestors(table, &by_oid).any(elsewhere)
            && let Some(root) = ancestors(table, &by_oid).last()
        {
            let name = RelationName { oid: root.oid, schema: root.schema.clone(), name: root.name.clone() };
            through.insert(table.oid, name);
        }
    }
    through
}
