//! Procedural languages and transforms.

use super::{Query, acl, not_member};
use crate::schema::language::{Language, Transform};

/// Procedural languages that belong to no extension.
pub fn languages() -> Query<Language> {
    let sql = format!(
        "SELECT l.oid::int8 AS oid, l.lanname AS name, pg_catalog.pg_get_userbyid(l.lanowner) AS owner, {} AS acl,
           l.lanpltrusted AS trusted, NULLIF(l.lanplcallfoid, 0)::regproc::text AS handler,
           NULLIF(l.laninline, 0)::regproc::text AS inline, NULLIF(l.lanvalidator, 0)::regproc::text AS validator
         FROM pg_catalog.pg_language l WHERE l.lanispl AND l.oid >= 16384 AND {} ORDER BY l.lanname",
        acl::expression("l.lanacl", "'l'", "l.lanowner"),
        not_member("pg_language", "l.oid"),
    );
    Query::new(sql)
}

/// Transforms.
pub fn transforms() -> Query<Transform> {
    let sql = format!(
        "SELECT t.oid::int8 AS oid, pg_catalog.format_type(t.trftype, NULL) AS data_type, l.lanname AS language,
           NULLIF(t.trffromsql::oid, 0)::regprocedure::text AS from_sql,
           NULLIF(t.trftosql::oid, 0)::regprocedure::text AS to_sql
         FROM pg_catalog.pg_transform t JOIN pg_catalog.pg_language l ON l.oid = t.trflang
         WHERE t.oid >= 16384 AND {} ORDER BY 2, 3",
        not_member("pg_transform", "t.oid")
    );
    Query::new(sql)
}
