//! Reads a database's definition from the system catalogs, one file per object family.
//!
//! In: a connection to a server of major 10 or newer, in a repeatable read transaction with an empty `search_path`. Out: the
//! model of `schema`. What may fail: the connection, and a catalog without read permission; both name the query.

pub mod acl;

use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::wire::Connection;

/// Runs `sql` and turns each row into a `T` by the names of its columns, through the server's `row_to_json`: arrays and nested
/// `json_agg` become vectors, NULL becomes `None`. OIDs need a cast to `int8` and `"char"` one to `text`.
pub async fn fetch<T: DeserializeOwned>(connection: &mut Connection, sql: &str) -> Result<Vec<T>> {
    let rows = connection.query(&format!("SELECT pg_catalog.row_to_json(x) FROM ({sql}) x"), &[]).await?;
    rows.iter()
        .map(|row| {
            serde_json::from_str(row.text(0).unwrap_or("null")).map_err(|e| {
                Error::failed(format!("could not read the system catalogs of the {}: {e}", connection.side()))
                    .with_statement(sql)
            })
        })
        .collect()
}
