//! What identifies the rows of a table.

use crate::error::Result;
use crate::sql::{literal, qualified};
use crate::wire::Connection;

/// Names of the columns that tell a table's rows apart: those of its primary key, else of its replica identity's index, else of another unique
/// index over columns that are never null. Empty where there is none.
pub async fn identifying_columns(
    connection: &mut Connection,
    schema: &str,
    table: &str,
) -> Result<Vec<String>> {
    // Columns that an index only includes came with 11.
    let number = if connection.version() >= 110_000 { "i.indnkeyatts" } else { "i.indnatts" };
    let columns = "pg_catalog.unnest(i.indkey::pg_catalog.int2[]) WITH ORDINALITY k(number, place) \
                   JOIN pg_catalog.pg_attribute a ON a.attnum = k.number";
    let rows = connection
        .query(
            &format!(
                "SELECT a.attname::text FROM (SELECT i.indrelid, i.indkey, {number} AS columns FROM pg_catalog.pg_index i \
                   WHERE i.indrelid = {}::pg_catalog.regclass AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL \
                     AND NOT EXISTS (SELECT FROM {columns} WHERE a.attrelid = i.indrelid AND k.place <= {number} AND NOT a.attnotnull) \
                   ORDER BY i.indisprimary DESC, i.indisreplident DESC, {number}, i.indexrelid LIMIT 1) i, {columns} \
                 WHERE a.attrelid = i.indrelid AND k.place <= i.columns ORDER BY k.place",
                literal(&qualified(schema, table))
            ),
            &[],
        )
        .await?;
    rows.iter().map(|row| row.value(0)).collect()
}
