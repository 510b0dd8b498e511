//! Rows, sequences and large objects.

use super::{by_name, facts};
use crate::harness::Database;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What text forms depend on, set alike on both sides. `extra_float_digits = 0` is the only value with which all
/// majors write a float alike; the bits that it hides are compared by [`column_expression`].
const TEXT_FORM: &str =
    "SET search_path = ''; SET DateStyle = ISO; SET IntervalStyle = postgres; SET TimeZone = 'UTC';
SET extra_float_digits = 0; SET bytea_output = hex; SET lc_monetary = 'C'; SET row_security = off;\n";

/// Tables, partitions and materialized views that hold rows of their own, and belong to no extension.
const WITH_ROWS: &str = "
SELECT c.oid, format('%I.%I', n.nspname, c.relname), c.relispopulated
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'm') AND c.relpersistence <> 't'
  AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgstream')
  AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_class'::regclass
                  AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY 2";

/// Tables whose count of rows or whose rows' checksum differs.
pub(crate) fn rows(source: &Database<'_>, target: &Database<'_>) -> Vec<String> {
    facts("rows of", &checksums(source), &checksums(target))
}

/// Each table's count of rows and a sum over their hashes, which no order of rows changes.
pub(crate) fn checksums(database: &Database<'_>) -> BTreeMap<String, String> {
    let mut columns: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in database.query(
        "SELECT attrelid, format('%I', attname), atttypid::regtype FROM pg_catalog.pg_attribute
         WHERE attnum > 0 AND NOT attisdropped ORDER BY attrelid, attname::text COLLATE \"C\"",
    ) {
        columns.entry(row[0].clone()).or_default().push(column_expression(&row[1], &row[2]));
    }
    let mut sql = String::from(TEXT_FORM);
    let none = Vec::new();
    for row in database.query(WITH_ROWS) {
        let (table, literal) = (&row[1], row[1].replace('\'', "''"));
        let written = if row[2] == "f" {
            writeln!(sql, "SELECT '{literal}', 'not populated';")
        } else {
            let columns = columns.get(&row[0]).unwrap_or(&none).join(", ");
            writeln!(
                sql,
                "SELECT '{literal}', format('%s rows, checksum %s', count(*), sum(('x' || substr(hash, 1, 15))::bit(60)::bigint))
                 FROM (SELECT md5((ARRAY[{columns}]::text[])::text) AS hash FROM ONLY {table}) rows;"
            )
        };
        written.expect("a String takes all text");
    }
    // psql ends a result's last row with a newline where it ends the others with a separator.
    let text = database.try_execute(&sql).unwrap_or_else(|error| panic!("{error}"));
    text.split(['\n', '\u{1e}'])
        .filter_map(|row| row.split_once('\u{1f}'))
        .map(|(table, sum)| (table.to_owned(), sum.to_owned()))
        .collect()
}

/// A column's value as text that every major writes alike, from the type's output function: a cast to text may say
/// something else (`xml` shows its stored declaration, `char(n)` loses its padding).
fn column_expression(column: &str, data_type: &str) -> String {
    match data_type {
        "real" => format!("pg_catalog.float4send({column})::text"),
        "double precision" => format!("pg_catalog.float8send({column})::text"),
        // Before 16 a byte above 127 is written as it is, since then as an octal escape.
        "\"char\"" => format!("{column}::int4::text"),
        _ => format!("ROW({column})::text"),
    }
}

/// Sequences whose position differs. Their definitions are in the schema.
pub(crate) fn sequences(source: &Database<'_>, target: &Database<'_>) -> Vec<String> {
    facts("sequence", &positions(source), &positions(target))
}

fn positions(database: &Database<'_>) -> BTreeMap<String, String> {
    let names = database.query(
        "SELECT format('%I.%I', n.nspname, c.relname)
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind = 'S' AND n.nspname <> 'pgstream' AND c.relpersistence <> 't'",
    );
    let parts: Vec<String> = names
        .iter()
        .map(|name| {
            let literal = name[0].replace('\'', "''");
            format!(
                "SELECT '{literal}', format('last value %s, called %s', last_value, is_called) FROM {}",
                name[0]
            )
        })
        .collect();
    if parts.is_empty() { BTreeMap::new() } else { by_name(database, &parts.join("\nUNION ALL\n")) }
}

/// Large objects that differ in contents, owner, grants or comment.
pub(crate) fn large_objects(source: &Database<'_>, target: &Database<'_>) -> Vec<String> {
    const SQL: &str = "
SELECT m.oid, format('%s bytes, md5 %s, owner %s, grants %s, comment %s', length(pg_catalog.lo_get(m.oid)),
    md5(pg_catalog.lo_get(m.oid)), r.rolname,
    (SELECT pg_catalog.array_agg(item ORDER BY item) FROM unnest(m.lomacl::text[]) item), d.description)
FROM pg_catalog.pg_largeobject_metadata m JOIN pg_catalog.pg_roles r ON r.oid = m.lomowner
LEFT JOIN pg_catalog.pg_description d ON d.objoid = m.oid AND d.classoid = 'pg_catalog.pg_largeobject'::regclass";
    facts("large object", &by_name(source, SQL), &by_name(target, SQL))
}
