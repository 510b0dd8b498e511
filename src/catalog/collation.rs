//! Collations and encoding conversions.

use super::{Query, not_member, user_schema};
use crate::schema::collation::{Collation, Conversion};

/// Collations. Before 15 the ICU provider kept its locale in collcollate.
pub fn collations(version: u32) -> Query<Collation> {
    let deterministic = if version >= 120_000 { "c.collisdeterministic" } else { "true" };
    let locale = match version {
        170_000.. => "c.colllocale",
        150_000.. => "c.colliculocale",
        _ => "CASE WHEN c.collprovider = 'i' THEN c.collcollate END",
    };
    let libc = |column: &str| {
        if version >= 150_000 {
            format!("c.{column}")
        } else {
            format!("CASE WHEN c.collprovider <> 'i' THEN c.{column} END")
        }
    };
    let rules = if version >= 160_000 { "c.collicurules" } else { "NULL::text" };
    let sql = format!(
        "SELECT c.oid::int8 AS oid, n.nspname AS schema, c.collname AS name, pg_catalog.pg_get_userbyid(c.collowner) AS owner,
           c.collprovider::text AS provider, {deterministic} AS deterministic, {} AS collate, {} AS ctype,
           {locale} AS locale, {rules} AS rules
         FROM pg_catalog.pg_collation c JOIN pg_catalog.pg_namespace n ON n.oid = c.collnamespace
         WHERE {} AND {}
         ORDER BY n.nspname, c.collname, c.collencoding",
        libc("collcollate"),
        libc("collctype"),
        user_schema("n"),
        not_member("pg_collation", "c.oid"),
    );
    Query::new(sql)
}

/// Encoding conversions.
pub fn conversions() -> Query<Conversion> {
    let sql = format!(
        "SELECT c.oid::int8 AS oid, n.nspname AS schema, c.conname AS name, pg_catalog.pg_get_userbyid(c.conowner) AS owner,
           pg_catalog.pg_encoding_to_char(c.conforencoding) AS from, pg_catalog.pg_encoding_to_char(c.contoencoding) AS to,
           c.conproc::regproc::text AS function, c.condefault AS default
         FROM pg_catalog.pg_conversion c JOIN pg_catalog.pg_namespace n ON n.oid = c.connamespace
         WHERE {} AND {}
         ORDER BY n.nspname, c.conname",
        user_schema("n"),
        not_member("pg_conversion", "c.oid"),
    );
    Query::new(sql)
}
