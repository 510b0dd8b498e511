//! Values that have no text form, as that would be larger than PostgreSQL's largest allocation.

use super::user_schema;
use crate::error::Result;
use crate::sql::literal;
use crate::wire::Connection;

/// Bytes from which on `\x` and two digits for each byte of a bytea are more than one allocation (MaxAllocSize in memutils.h).
const NO_TEXT: u64 = (0x3fff_ffff - 3) / 2 + 1;

/// How long the search may take: it reads rows, though not their large values.
const SEARCH: &str = "60s";

/// The columns, as `"column" of table "schema.table"`, that hold a bytea without a text form.
pub async fn columns_without_text_form(connection: &mut Connection) -> Result<Vec<String>> {
    connection.execute(&format!("SET statement_timeout = {}", literal(SEARCH))).await?;
    let sql = format!(
        "SELECT pg_catalog.format('(SELECT %L FROM ONLY %I.%I WHERE pg_catalog.octet_length(%I) >= {NO_TEXT} LIMIT 1)', \
           pg_catalog.format('\"%s\" of table \"%s.%s\"', a.attname, n.nspname, c.relname), n.nspname, c.relname, a.attname) \
         FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         WHERE a.atttypid = 'pg_catalog.bytea'::regtype AND a.attnum > 0 AND NOT a.attisdropped AND c.relkind = 'r' \
           AND c.relpersistence = 'p' AND {} ORDER BY n.nspname, c.relname, a.attnum",
        user_schema("n")
    );
    let rows = connection.query(&sql, &[]).await?;
    let searches: Vec<&str> = rows.iter().filter_map(|row| row.text(0)).collect();
    if searches.is_empty() {
        return Ok(Vec::new());
    }
    let found = connection.query(&searches.join(" UNION ALL "), &[]).await?;
    found.iter().map(|row| row.value(0)).collect()
}
