//! A table's rows on both sides: their number, and a sum of their hashes, which does not depend on their order.

use std::collections::HashMap;

use super::{Difference, Sessions};
use crate::error::{Error, ErrorKind, Result};
use crate::schema::Database;
use crate::schema::table::{Column, Table};
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
}

const BYTEA: u32 = 17;
const CHAR: u32 = 18;
const FLOAT4: u32 = 700;
const FLOAT8: u32 = 701;

impl Measure {
    pub(super) fn of(source: &Database, target: &Database) -> Measure {
        Measure {
            modern: source.version.min(target.version) >= 110_000,
            same_encoding: source.properties.encoding == target.properties.encoding,
            floats_differ: (source.version < 120_000) != (target.version < 120_000),
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

    /// The statement that counts and sums the rows of a pair.
    fn statement(&self, pair: &Pair) -> String {
        let values: Vec<String> = pair.columns.iter().map(|column| self.value(column)).collect();
        let text = format!("ROW({})::pg_catalog.text", values.join(", "));
        format!(
            "SELECT pg_catalog.count(*), coalesce(pg_catalog.sum({}), 0)::text FROM ONLY {} {}",
            self.hash(&text),
            qualified(&pair.schema, &pair.name),
            pair.condition
        )
    }
}

/// A table that both sides have.
#[derive(Debug, Clone)]
pub(super) struct Pair {
    schema: String,
    name: String,
    /// The columns that both have, in the order of their names.
    columns: Vec<Column>,
    /// `WHERE …`, or nothing.
    condition: String,
    /// Size on the source, with TOAST.
    pub(super) bytes: u64,
}

impl Pair {
    pub(super) fn object(&self) -> String {
        format!("TABLE {}.{}", self.schema, self.name)
    }
}

/// The tables to compare, largest first; those that only one side has go to `differences`, unless the definitions said so.
pub(super) fn pairs(source: &Database, target: &Database, differences: &mut Vec<Difference>) -> Vec<Pair> {
    let mut there: HashMap<(&str, &str), &Table> =
        tables(target).map(|t| ((t.schema.as_str(), t.name.as_str()), t)).collect();
    let mut pairs = Vec::new();
    let mut lonely = Vec::new();
    for table in tables(source) {
        match there.remove(&(table.schema.as_str(), table.name.as_str())) {
            Some(twin) => pairs.push(pair(table, twin)),
            None => lonely.push((table, "is missing on the target")),
        }
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
        condition: table.configuration.clone().unwrap_or_default(),
        bytes: table.bytes,
    }
}

/// What came of one pair.
pub(super) struct Compared {
    /// Rows on the source.
    pub(super) rows: u64,
    pub(super) difference: Option<Difference>,
}

/// Compares the rows of one pair, both sides at the same time.
///
/// # Errors
/// A lost connection. What a server refuses is a difference: the table could not be compared.
pub(super) async fn compare(sessions: &mut Sessions, pair: &Pair, measure: &Measure) -> Result<Compared> {
    let sql = measure.statement(pair);
    let (source, target) =
        tokio::join!(content(&mut sessions.source, &sql), content(&mut sessions.target, &sql));
    let (source, target) = match (source, target) {
        (Ok(source), Ok(target)) => (source, target),
        (Err(e), _) => return not_compared(pair, "source", e),
        (_, Err(e)) => return not_compared(pair, "target", e),
    };
    let what = if source.rows != target.rows {
        Some(format!("has {} rows on the source and {} on the target", source.rows, target.rows))
    } else if source.sum != target.sum {
        Some(format!("has {} rows on both sides, but not the same ones", source.rows))
    } else {
        None
    };
    Ok(Compared { rows: source.rows, difference: what.map(|what| Difference::new(pair.object(), what)) })
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
        Measure::of(&database(source.0, source.1), &database(target.0, target.1))
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
            condition: String::new(),
            bytes: 0,
        };
        let sql = measure((150_000, "UTF8"), (150_000, "UTF8")).statement(&pair);
        assert!(sql.contains("ROW()::pg_catalog.text") && sql.contains("FROM ONLY \"s\".\"t\""), "{sql}");
    }
}
