//! The database's own properties, and default privileges.

use super::{Query, acl, note};
use crate::schema::database::{DefaultPrivileges, Properties};

/// Properties of the connected database; one row.
pub fn properties(version: u32) -> Query<Properties> {
    let provider = if version >= 150_000 { "d.datlocprovider::text" } else { "'c'" };
    let locale = match version {
        170_000.. => "d.datlocale",
        150_000.. => "d.daticulocale",
        _ => "NULL::text",
    };
    let rules = if version >= 160_000 { "d.daticurules" } else { "NULL::text" };
    let sql = format!(
        "SELECT d.oid::int8 AS oid, pg_catalog.pg_get_userbyid(d.datdba) AS owner,
           pg_catalog.pg_encoding_to_char(d.encoding) AS encoding, {provider} AS locale_provider, d.datcollate AS collate,
           d.datctype AS ctype, {locale} AS locale, {rules} AS icu_rules, t.spcname AS tablespace,
           d.datconnlimit AS connection_limit, d.datistemplate AS template, {} AS acl,
           pg_catalog.shobj_description(d.oid, 'pg_database') AS comment, {labels} AS labels,
           coalesce((SELECT s.setconfig FROM pg_catalog.pg_db_role_setting s WHERE s.setdatabase = d.oid AND s.setrole = 0),
             '{{}}') AS settings,
           (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('role', r.rolname, 'settings', s.setconfig)
                ORDER BY r.rolname), '[]'::json)
             FROM pg_catalog.pg_db_role_setting s JOIN pg_catalog.pg_roles r ON r.oid = s.setrole
             WHERE s.setdatabase = d.oid) AS role_settings
         FROM pg_catalog.pg_database d JOIN pg_catalog.pg_tablespace t ON t.oid = d.dattablespace
         WHERE d.datname = pg_catalog.current_database()",
        acl::expression("d.datacl", "'d'", "d.datdba"),
        labels = note::labels("pg_shseclabel", "l.classoid = 'pg_catalog.pg_database'::regclass AND l.objoid = d.oid"),
    );
    Query::new(sql)
}

/// ALTER DEFAULT PRIVILEGES. A schema's come on top of the global ones, so they start from nothing.
pub fn default_privileges() -> Query<DefaultPrivileges> {
    let base = "CASE WHEN a.defaclnamespace <> 0 THEN '{}'::aclitem[] \
                ELSE pg_catalog.acldefault(CASE WHEN a.defaclobjtype = 'S' THEN 's' ELSE a.defaclobjtype END::\"char\", a.defaclrole) END";
    let sql = format!(
        "SELECT a.oid::int8 AS oid, pg_catalog.pg_get_userbyid(a.defaclrole) AS role, n.nspname AS schema,
           a.defaclobjtype::text AS kind, {} AS acl
         FROM pg_catalog.pg_default_acl a LEFT JOIN pg_catalog.pg_namespace n ON n.oid = a.defaclnamespace
         ORDER BY 2, 3 NULLS FIRST, 4",
        acl::difference("a.defaclacl", base)
    );
    Query::new(sql)
}
