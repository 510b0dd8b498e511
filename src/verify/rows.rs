//! A table's rows on both sides: their number, and a sum of their hashes, which does not depend on their order.

use std::collections::HashMap;

use super::keys::{self, Keys};
use super::{Difference, Sessions, Together};
use crate::catalog::key::identifying_columns;
use crate::error::{Error, ErrorKind, Result};
use crate::schema::table::{Column, Table};
use crate::schema::{Database, partition};
use crate::sql::{ident, qualified};
use crate::wire::Connection;

/// How rows are hashed, so that two servers that hold the same agree.
///
/// The text of a row is the same on all majors but for floating point numbers (12 changed their output; where the servers are on both
/// sides of that, `extra_float_digits = 0` makes both write 15 digits, and plain columns are compared bit by bit), and
/// `"char"` (16). Where encodings differ, the text is hashed in UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Measure {
    /// Both servers have hashtextextended and sha256, which came with 11.
    modern: bool,
    /// The two databases have the same encoding.
    same_encoding: bool,
    /// One server is older than 12 and the other is not.
    floats_differ: bool,
    /// Which rows are looked at.
    sample: Option<Sample>,
}

/// A choice of rows that both sides make alike, by their keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// How many of a million.
    pub parts_per_million: u32,
    /// Another seed chooses other rows.
    pub seed: u32,
}

/// Of how many rows a sample is so many.
const MILLION: u64 = 1_000_000;

const BYTEA: u32 = 17;
const CHAR: u32 = 18;
const FLOAT4: u32 = 700;
const FLOAT8: u32 = 701;

impl Measure {
    pub(super) fn of(source: &Database, target: &Database, sample: Option<Sample>) -> Measure {
        Measure {
            modern: source.version.min(target.version) >= 110_000,
            same_encoding: source.properties.encoding == target.properties.encoding,
            floats_differ: (source.version < 120_000) != (target.version < 120_000),
            sample,
        }
    }

    /// The settings of a session that measures.
    pub(super) fn settings(&self) -> String {
        let digits = if self.floats_differ { 0 } else { 3 };
        format!("SET row_security = off; SET extra_float_digits = {digits}; SET search_path = ''")
    }

    /// SQL: a bigint hash of the text `text`.
    pub(super) fn hash(&self, text: &str) -> String {
        if self.modern && self.same_encoding {
            return format!("pg_catalog.hashtextextended({text} COLLATE pg_catalog.\"C\", 0)");
        }
        let bytes = format!("pg_catalog.convert_to({text}, 'UTF8')");
        let digest = match (self.modern, self.same_encoding) {
            (true, _) => format!("pg_catalog.encode(pg_catalog.sha256({bytes}), 'hex')"),
            (false, true) => format!("pg_catalog.md5({text})"),
            (false, false) => format!("pg_catalog.md5({bytes})"),
        };
        format!("('x' || pg_catalog.substr({digest}, 1, 16))::pg_catalog.bit(64)::pg_catalog.int8")
    }

    /// SQL: the digest of a bytea, of whatever size.
    pub(super) fn digest(&self, bytes: &str) -> String {
        format!("pg_catalog.{}({bytes})", if self.modern { "sha256" } else { "md5" })
    }

    /// SQL: what of a column goes into the row's text.
    fn value(&self, column: &Column) -> String {
        let name = ident(&column.name);
        match column.type_oid {
            // The text form of a bytea is twice as long, and may not be longer than 1 GB.
            BYTEA => self.digest(&name),
            CHAR => format!("{name}::pg_catalog.int4"),
            FLOAT4 => format!("pg_catalog.float4send({name})"),
            FLOAT8 => format!("pg_catalog.float8send({name})"),
            _ => name,
        }
    }

    /// SQL: the text of some columns of a row.
    fn text(&self, columns: &[Column]) -> String {
        let values: Vec<String> = columns.iter().map(|column| self.value(column)).collect();
        format!("ROW({})::pg_catalog.text", values.join(", "))
    }

    /// SQL: a number below `many` for each row, by its key.
    fn deal(&self, pair: &Pair, many: u64, seed: u32) -> String {
        let key = self.hash(&format!("({} || ' {seed}')", self.text(&pair.key)));
        format!("({key} & 9223372036854775807) % {many}")
    }

    /// SQL: the rows of a pair that are looked at, and those conditions that they also meet.
    fn from(&self, pair: &Pair, more: Option<String>) -> String {
        let only = if pair.partitions == 0 { "ONLY " } else { "" };
        let table = format!("{only}{} {}", qualified(&pair.schema, &pair.name), pair.condition);
        let sample = self.sample.filter(|_| !pair.key.is_empty());
        let sample = sample.map(|Sample { parts_per_million, seed }| {
            format!("{} < {parts_per_million}", self.deal(pair, MILLION, seed))
        });
        let conditions: Vec<String> = sample.into_iter().chain(more).collect();
        match conditions.is_empty() {
            true => table,
            false => format!("(SELECT * FROM {table}) x WHERE {}", conditions.join(" AND ")),
        }
    }

    /// The statement that counts and sums the rows of a pair.
    fn statement(&self, pair: &Pair) -> String {
        format!(
            "SELECT pg_catalog.count(*), coalesce(pg_catalog.sum({}), 0)::text FROM {}",
            self.hash(&self.text(&pair.columns)),
            self.from(pair, None)
        )
    }

    /// The statement that does the same for each of so many buckets.
    pub(super) fn bucket_sums(&self, pair: &Pair, buckets: u64) -> String {
        format!(
            "SELECT y.bucket, pg_catalog.count(*), pg_catalog.sum(y.hash)::text \
             FROM (SELECT {} AS bucket, {} AS hash FROM {}) y GROUP BY y.bucket",
            self.deal(pair, buckets, 0),
            self.hash(&self.text(&pair.columns)),
            self.from(pair, None)
        )
    }

    /// The statement that gives the keys and hashes of the rows of some buckets.
    pub(super) fn keys(&self, pair: &Pair, buckets: u64, chosen: &[u64]) -> String {
        let key: Vec<String> =
            pair.key.iter().map(|column| format!("{}::pg_catalog.text", ident(&column.name))).collect();
        let chosen: Vec<String> = chosen.iter().map(u64::to_string).collect();
        let within = format!("{} IN ({})", self.deal(pair, buckets, 0), chosen.join(", "));
        format!(
            "SELECT pg_catalog.json_build_array({})::text, {}::text FROM {}",
            key.join(", "),
            self.hash(&self.text(&pair.columns)),
            self.from(pair, (buckets > 1).then_some(within))
        )
    }
}

/// A table that both sides have.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    pub(super) schema: String,
    pub(super) name: String,
    /// The columns that both have, in the order of their names.
    columns: Vec<Column>,
    /// Those of them that identify a row, once it was asked for them.
    pub(super) key: Vec<Column>,
    /// `WHERE …`, or nothing.
    condition: String,
    /// How many partitions' rows are compared together; 0 for a table that has rows of its own.
    partitions: usize,
    /// Size on the source, with TOAST.
    pub(super) bytes: u64,
}

impl Pair {
    pub(super) fn object(&self) -> String {
        format!("TABLE {}.{}", self.schema, self.name)
    }

    /// What is to be said of it, where the rows of partitions are compared together.
    pub(super) fn together(&self) -> Option<Together> {
        (self.partitions > 0).then(|| Together { object: self.object(), partitions: self.partitions })
    }

    /// Asks the source what identifies the rows; nothing does where the target lacks one of these columns.
    pub(super) async fn find_key(&mut self, source: &mut Connection) -> Result<()> {
        let names = identifying_columns(source, &self.schema, &self.name).await?;
        let column = |name: &String| self.columns.iter().find(|column| column.name == *name).cloned();
        self.key = names.iter().map(column).collect::<Option<_>>().unwrap_or_default();
        Ok(())
    }
}

/// The tables to compare, largest first; those that only one side has go to `differences`, unless the definitions said so.
pub(super) fn pairs(source: &Database, target: &Database, differences: &mut Vec<Difference>) -> Vec<Pair> {
    let name = |table: &Table| (table.schema.clone(), table.name.clone());
    let mut there: HashMap<(String, String), &Table> = tables(target).map(|t| (name(t), t)).collect();
    let through_root = partition::loaded_through_root(source, &target.properties.encoding);
    let mut roots: HashMap<u32, Vec<&Table>> = HashMap::new();
    let mut pairs = Vec::new();
    let mut lonely = Vec::new();
    for table in tables(source) {
        match (there.remove(&name(table)), through_root.get(&table.oid)) {
            (Some(_), Some(root)) => roots.entry(root.oid).or_default().push(table),
            (Some(twin), None) => pairs.push(pair(table, twin)),
            (None, _) => lonely.push((table, "is missing on the target")),
        }
    }
    for root in source.tables.iter().filter(|table| roots.contains_key(&table.oid)) {
        let twin = target.tables.iter().find(|twin| name(twin) == name(root) && !twin.has_rows());
        let (Some(twin), Some(leaves)) = (twin, roots.get(&root.oid)) else {
            lonely.push((root, "is missing on the target"));
            continue;
        };
        pairs.push(Pair {
            partitions: leaves.len(),
            bytes: leaves.iter().map(|leaf| leaf.bytes).sum(),
            ..pair(root, twin)
        });
    }
    lonely.extend(there.into_values().map(|table| (table, "is on the target only")));
    for (table, what) in lonely {
        let object = format!("TABLE {}.{}", table.schema, table.name);
        if !differences.iter().any(|known| known.object == object) {
            differences.push(Difference::new(object, what));
        }
    }
    pairs.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.object().cmp(&b.object())));
    pairs
}

fn tables(database: &Database) -> impl Iterator<Item = &Table> {
    database.tables.iter().filter(|table| table.has_rows() && table.schema != crate::state::SCHEMA)
}

fn pair(table: &Table, twin: &Table) -> Pair {
    let mut columns: Vec<Column> = table
        .columns
        .iter()
        .filter(|column| twin.columns.iter().any(|other| other.name == column.name))
        .cloned()
        .collect();
    columns.sort_by(|a, b| a.name.cmp(&b.name));
    Pair {
        schema: table.schema.clone(),
        name: table.name.clone(),
        columns,
        key: Vec::new(),
        condition: table.configuration.clone().unwrap_or_default(),
        partitions: 0,
        bytes: table.bytes,
    }
}

/// What came of one pair.
pub(super) struct Compared {
    /// Rows on the source.
    pub(super) rows: u64,
    pub(super) difference: Option<Difference>,
}

/// Compares the rows of one pair, both sides at the same time; of one that differs, `named` rows at most are named.
///
/// # Errors
/// A lost connection. What a server refuses is a difference: the table could not be compared.
pub(super) async fn compare(
    sessions: &mut Sessions,
    pair: &mut Pair,
    measure: &Measure,
    named: usize,
) -> Result<Compared> {
    if measure.sample.is_some()
        && let Err(error) = pair.find_key(&mut sessions.source).await
    {
        return not_compared(pair, "source", error);
    }
    let sql = measure.statement(pair);
    let (source, target) =
        tokio::join!(content(&mut sessions.source, &sql), content(&mut sessions.target, &sql));
    let (source, target) = match (source, target) {
        (Ok(source), Ok(target)) => (source, target),
        (Err(e), _) => return not_compared(pair, "source", e),
        (_, Err(e)) => return not_compared(pair, "target", e),
    };
    let what = if source.rows != target.rows {
        format!("has {} rows on the source and {} on the target", source.rows, target.rows)
    } else if source.sum != target.sum {
        format!("has {} rows on both sides, but not the same ones", source.rows)
    } else {
        return Ok(Compared { rows: source.rows, difference: None });
    };
    let mut difference = Difference::new(pair.object(), what);
    if named > 0 {
        difference.keys = match find_keys(sessions, pair, measure, source.rows.max(target.rows), named).await
        {
            Ok(keys) => keys,
            // That the table differs is known; what a server refuses now only leaves the rows without names.
            Err(error) => refused("", "", error).map(|_| None)?,
        };
    }
    Ok(Compared { rows: source.rows, difference: Some(difference) })
}

async fn find_keys(
    sessions: &mut Sessions,
    pair: &mut Pair,
    measure: &Measure,
    rows: u64,
    named: usize,
) -> Result<Option<Keys>> {
    pair.find_key(&mut sessions.source).await?;
    keys::find(sessions, pair, measure, rows, named).await
}

fn not_compared(pair: &Pair, side: &str, error: Error) -> Result<Compared> {
    let difference = refused(pair.object(), side, error)?;
    Ok(Compared { rows: 0, difference: Some(difference) })
}

/// The difference that stands for a comparison that one server refused; an error where it didn't refuse but went away.
pub(super) fn refused(object: impl Into<String>, side: &str, error: Error) -> Result<Difference> {
    if error.notice().is_none() || error.kind() == ErrorKind::Connection {
        return Err(error);
    }
    Ok(Difference::new(object, format!("could not be compared: {side}: {error}")))
}

struct Content {
    rows: u64,
    sum: String,
}

async fn content(connection: &mut Connection, sql: &str) -> Result<Content> {
    let row = connection.query_one(sql, &[]).await?;
    Ok(Content { rows: row.value(0)?, sum: row.value(1)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database(version: u32, encoding: &str) -> Database {
        let mut database = Database { version, ..Database::default() };
        database.properties.encoding = encoding.to_owned();
        database
    }

    fn measure(source: (u32, &str), target: (u32, &str)) -> Measure {
        Measure::of(&database(source.0, source.1), &database(target.0, target.1), None)
    }

    #[test]
    fn the_hash_is_one_that_both_servers_have() {
        let hash = |source, target| measure(source, target).hash("t");
        assert!(hash((110_000, "UTF8"), (180_000, "UTF8")).contains("hashtextextended(t"));
        assert!(hash((100_000, "UTF8"), (180_000, "UTF8")).contains("md5(t)"));
        assert!(hash((100_000, "LATIN1"), (100_000, "UTF8")).contains("md5(pg_catalog.convert_to(t"));
        assert!(hash((150_000, "LATIN1"), (180_000, "UTF8")).contains("sha256(pg_catalog.convert_to(t"));
    }

    #[test]
    fn digits_of_floats_are_cut_only_where_the_servers_write_them_differently() {
        let settings = |source, target| measure((source, "UTF8"), (target, "UTF8")).settings();
        assert!(settings(110_000, 120_000).contains("extra_float_digits = 0"));
        assert!(settings(100_000, 110_000).contains("extra_float_digits = 3"));
        assert!(settings(120_000, 180_000).contains("extra_float_digits = 3"));
    }

    #[test]
    fn a_table_without_columns_is_counted() {
        let pair = Pair {
            schema: "s".to_owned(),
            name: "t".to_owned(),
            columns: Vec::new(),
            key: Vec::new(),
            condition: String::new(),
            partitions: 0,
            bytes: 0,
        };
        let sql = measure((150_000, "UTF8"), (150_000, "UTF8")).statement(&pair);
        assert!(sql.contains("ROW()::pg_catalog.text") && sql.contains("FROM ONLY \"s\".\"t\""), "{sql}");
    }
}
