//! What a whole cluster holds: its databases, and the locales of its host.
//!
//! In: a session in any database of it. Out: plain facts. What may fail: the connection, and a regular expression that the server refuses.

use serde::Deserialize;

use super::fetch;
use crate::error::{Error, Result};
use crate::sql::{ident, literal};
use crate::wire::Connection;

/// A database of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ListedDatabase {
    /// Its name.
    pub name: String,
    /// It lets anyone in at all (`ALLOW_CONNECTIONS`).
    pub allows_connections: bool,
    /// The session's role has CONNECT on it.
    pub may_connect: bool,
    /// Its name matches a pattern of those to leave out.
    pub excluded: bool,
    /// Its size, where the role may know it.
    pub bytes: Option<i64>,
}

/// SQL condition: the name `column` matches one of the regular expressions.
pub(super) fn matches_any(column: &str, expressions: &[String]) -> String {
    let list = expressions.iter().map(|e| literal(e)).collect::<Vec<_>>().join(", ");
    // Names have the C collation; folding and classes of characters are the database's matter, as in psql.
    format!("{column}::text ~ ANY (ARRAY[{list}]::text[])")
}

/// The databases of the cluster, largest first, the templates that initdb made left out. `exclude` are regular expressions.
///
/// # Errors
/// The server's; a usage error for a regular expression that it refuses.
pub async fn databases(connection: &mut Connection, exclude: &[String]) -> Result<Vec<ListedDatabase>> {
    let sql = format!(
        "SELECT d.datname AS name, d.datallowconn AS allows_connections, c.may AS may_connect, {} AS excluded,
           CASE WHEN c.may AND d.datallowconn THEN pg_catalog.pg_database_size(d.oid) END AS bytes
         FROM pg_catalog.pg_database d,
           LATERAL (SELECT pg_catalog.has_database_privilege(d.oid, 'CONNECT') AS may) c
         WHERE d.datname NOT IN ('template0', 'template1') ORDER BY 5 DESC NULLS LAST, 1",
        matches_any("d.datname", exclude)
    );
    fetch(connection, &sql).await.map_err(|error: Error| match error.sqlstate() {
        // invalid_regular_expression
        Some(state) if state.as_str() == "2201B" => {
            error.with_kind(crate::error::ErrorKind::Usage).with_hint(
                "Patterns are psql's: * for any text, ? for one character; put other special characters into double quotes.",
            )
        }
        _ => error,
    })
}

/// The locales of the host that the server knows of: those of its collations and databases.
///
/// # Errors
/// The server's.
pub async fn locales(connection: &mut Connection) -> Result<Vec<String>> {
    let rows = connection
        .query(
            "SELECT collcollate::text FROM pg_catalog.pg_collation WHERE collprovider = 'c' AND collcollate::text <> '' \
             UNION SELECT datcollate::text FROM pg_catalog.pg_database UNION SELECT datctype::text FROM pg_catalog.pg_database \
             UNION SELECT 'C' UNION SELECT 'POSIX' ORDER BY 1",
            &[],
        )
        .await?;
    rows.iter().map(|row| row.value(0)).collect()
}

/// Whether the host has a locale that no collation names: asked by a collation that is made and undone.
///
/// # Errors
/// A lost connection.
pub async fn has_locale(connection: &mut Connection, locale: &str) -> Result<bool> {
    connection.execute("BEGIN").await?;
    let sql = format!("CREATE COLLATION pg_temp.{} (LOCALE = {})", ident("pgstream"), literal(locale));
    let made = connection.execute(&sql).await;
    if connection.is_broken() {
        return made.map(|()| false);
    }
    connection.execute("ROLLBACK").await?;
    Ok(made.is_ok())
}
