//! What the session's role can't read.

use serde::Deserialize;

use super::{fetch, not_member, user_schema};
use crate::error::Result;
use crate::wire::Connection;

/// A table or sequence whose content the session's role can't read in full.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Unreadable {
    /// `table` or `sequence`.
    pub kind: String,
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// USAGE on the schema is missing.
    pub schema_denied: bool,
    /// SELECT is missing.
    pub denied: bool,
    /// A row-level security policy hides rows from the role.
    pub row_security: bool,
}

/// Tables and sequences that can't be read in full.
pub async fn read_unreadable(connection: &mut Connection) -> Result<Vec<Unreadable>> {
    let sql = format!(
        "SELECT * FROM (
           SELECT CASE c.relkind WHEN 'S' THEN 'sequence' ELSE 'table' END AS kind, n.nspname AS schema, c.relname AS name,
             NOT pg_catalog.has_schema_privilege(n.oid, 'USAGE') AS schema_denied,
             NOT pg_catalog.has_table_privilege(c.oid, 'SELECT') AND (c.relkind = 'S' OR EXISTS (
               SELECT FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                 AND NOT pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT'))) AS denied,
             c.relkind = 'r' AND pg_catalog.row_security_active(c.oid) AS row_security
           FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
           WHERE c.relkind IN ('r', 'S') AND c.relpersistence <> 't' AND {} AND n.nspname <> 'pgstream' AND {}) x
         WHERE schema_denied OR denied OR row_security ORDER BY schema, name",
        user_schema("n"),
        not_member("pg_class", "c.oid")
    );
    fetch(connection, &sql).await
}

/// How many large objects the session's role may not read.
pub async fn count_unreadable_large_objects(connection: &mut Connection) -> Result<u64> {
    let row = connection
        .query_one(
            "SELECT count(*) FROM pg_catalog.pg_largeobject_metadata m
             WHERE NOT (SELECT r.rolsuper FROM pg_catalog.pg_roles r WHERE r.rolname = current_user)
               AND pg_catalog.current_setting('lo_compat_privileges') = 'off'
               AND NOT pg_catalog.pg_has_role(m.lomowner, 'USAGE')
               AND NOT EXISTS (SELECT FROM pg_catalog.aclexplode(m.lomacl) a WHERE a.privilege_type = 'SELECT'
                 AND CASE WHEN a.grantee = 0 THEN true ELSE pg_catalog.pg_has_role(a.grantee, 'USAGE') END)",
            &[],
        )
        .await?;
    row.value(0)
}
