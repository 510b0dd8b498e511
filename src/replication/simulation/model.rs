//! The data that both simulated servers hold: a few tables, each of a kind that the applier treats in its own way.
//!
//! A state is known by its digests: one for each [region](region_of), the sum of its rows' hashes, so that it is kept up to date row by row and the
//! rows' order does not count. A region is what was copied under one snapshot: a table, or a part of one.

use std::sync::Arc;

/// A value's text, or NULL.
pub(super) type Value = Option<Arc<str>>;
pub(super) type Row = Vec<Value>;

/// A table of both servers.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    /// The first column is the key, where there is one; all others are texts but the second of `unique`.
    pub(super) columns: &'static [&'static str],
    /// Whether the first column is the primary key.
    pub(super) keyed: bool,
    /// Whether the replica identity is FULL.
    pub(super) full: bool,
    /// Another column with a unique index.
    pub(super) unique: Option<usize>,
    /// Whether the target has a trigger on it that acts whatever the session's role is: it takes [notes](note).
    pub(super) loud: bool,
}

const fn table(name: &'static str, columns: &'static [&'static str]) -> Table {
    Table { name, columns, keyed: true, full: false, unique: None, loud: false }
}

pub(super) const TABLES: &[Table] = &[
    table("keyed", &["id", "v", "large"]),
    Table { unique: Some(1), ..table("unique", &["id", "other", "v"]) },
    Table { keyed: false, full: true, ..table("bare", &["a", "b"]) },
    Table { loud: true, ..table("loud", &["id", "v"]) },
    Table { full: true, ..table("full", &["id", "v"]) },
    table("split", &["id", "v"]),
];

/// The table whose values of column `large` are left out of updates that don't change them.
pub(super) const KEYED: usize = 0;
/// The table that was copied in two parts, and the first key of the second.
pub(super) const SPLIT: usize = TABLES.len() - 1;
pub(super) const SPLIT_AT: i64 = 100;

pub(super) const REGIONS: usize = TABLES.len() + 1;
/// The digest of the notes comes after those of the regions.
pub(super) const NOTES: usize = REGIONS;
pub(super) type Digests = [u64; REGIONS + 1];

/// The table with the trigger.
pub(super) const LOUD: usize = 3;
const _: () = assert!(TABLES[LOUD].loud);

impl Table {
    /// Its OID on the source.
    pub(super) fn oid(index: usize) -> u32 {
        20_000 + index as u32
    }

    /// The OID of a column's type: integers and texts.
    pub(super) fn type_of(&self, column: usize) -> u32 {
        if column == 0 || self.unique == Some(column) { 23 } else { 25 }
    }

    /// What the target's catalogs say of it, as `read_target_tables` asks for it.
    pub(super) fn description(&self) -> String {
        let columns = self.columns.iter().enumerate().map(|(column, name)| {
            let oid = self.type_of(column);
            let type_name = if oid == 23 { "integer" } else { "text" };
            serde_json::json!({
                "name": name, "type_oid": oid, "base_type": oid, "type_modifier": -1, "type_name": type_name,
                "cast": type_name, "generated": false, "identity_always": false, "collated": false,
                "equality": "OPERATOR(pg_catalog.=)",
            })
        });
        let Table { keyed, unique, loud, .. } = self;
        serde_json::json!({
            "name": self.name, "kind": "r", "row_security": false, "acts_always": loud, "columns": columns.collect::<Vec<_>>(),
            "key": if *keyed { &self.columns[..1] } else { &[] },
            "unique_indexes": u32::from(*keyed) + u32::from(unique.is_some()),
        })
        .to_string()
    }
}

/// The number in the first column.
pub(super) fn key(row: &Row) -> i64 {
    row[0].as_deref().and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// Which region a row belongs to.
pub(super) fn region_of(table: usize, row: &Row) -> usize {
    if table == SPLIT && key(row) >= SPLIT_AT { SPLIT + 1 } else { table }
}

/// The table that a region is of.
pub(super) fn table_of(region: usize) -> usize {
    region.min(SPLIT)
}

/// The hash of a row (FNV-1a over its values, each with its end).
pub(super) fn hash(row: &Row) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    for value in row {
        match value {
            Some(text) => text.bytes().for_each(&mut add),
            None => add(0xff),
        }
        add(0);
    }
    hash
}

/// What the trigger of a table notes of a change of one row: that it came, which shows even where the row was the same without it.
pub(super) fn note(table: usize, old: Option<&Row>, new: Option<&Row>) -> u64 {
    let hash = |row: Option<&Row>, factor: u64| row.map_or(0, |row| hash(row).wrapping_mul(factor));
    if TABLES[table].loud { hash(old, 3).wrapping_add(hash(new, 5)) } else { 0 }
}

/// A change of the source, as its log has it.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Insert { table: usize, row: Row },
    Update { table: usize, old: Row, new: Row },
    Delete { table: usize, old: Row },
    Truncate { tables: Vec<usize> },
}

impl Change {
    /// What a trigger notes of it.
    pub(super) fn note(&self) -> u64 {
        match self {
            Change::Insert { table, row } => note(*table, None, Some(row)),
            Change::Update { table, old, new } => note(*table, Some(old), Some(new)),
            Change::Delete { table, old } => note(*table, Some(old), None),
            Change::Truncate { .. } => 0,
        }
    }
}
