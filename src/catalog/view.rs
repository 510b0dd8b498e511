//! Views and materialized views, as `schema::view` models them.

use super::{Query, acl, relation};
use crate::schema::view::View;

/// All views with their queries.
pub fn views(version: u32) -> Query<View> {
    Query::new(sql(version))
}

fn sql(version: u32) -> String {
    let acl = acl::expression("c.relacl", "'r'", "c.relowner");
    let columns = relation::columns(version);
    let access_method = relation::access_method(version);
    format!(
        "SELECT c.oid::int8 AS oid, n.nspname AS schema, c.relname AS name, c.relkind = 'm' AS materialized, \
         pg_catalog.pg_get_userbyid(c.relowner) AS owner, {acl} AS acl, r.oid::int8 AS rule, {types} AS types, \
         pg_catalog.pg_get_viewdef(c.oid) AS definition, \
         coalesce(pg_catalog.array_remove(pg_catalog.array_remove(c.reloptions, 'check_option=local'), \
             'check_option=cascaded'), '{{}}') AS options, {toast_options} AS toast_options, \
         CASE WHEN 'check_option=local' = ANY (c.reloptions) THEN 'LOCAL' \
             WHEN 'check_option=cascaded' = ANY (c.reloptions) THEN 'CASCADED' END AS check_option, \
         {columns} AS columns, CASE WHEN c.relkind = 'm' THEN {access_method} END AS access_method, \
         {tablespace} AS tablespace, c.relkind = 'm' AND c.relispopulated AS populated, \
         EXISTS (SELECT FROM pg_catalog.pg_depend d WHERE d.classid = 'pg_catalog.pg_rewrite'::pg_catalog.regclass \
             AND d.objid = r.oid AND d.refclassid = 'pg_catalog.pg_constraint'::pg_catalog.regclass) AS needs_key, \
         CASE WHEN c.relkind = 'm' THEN coalesce(pg_catalog.pg_table_size(c.oid), 0) ELSE 0 END AS bytes \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         JOIN pg_catalog.pg_rewrite r ON r.ev_class = c.oid AND r.rulename = '_RETURN' \
         WHERE c.relkind IN ('v', 'm') AND {own} ORDER BY n.nspname, c.relname",
        types = relation::TYPES,
        tablespace = relation::TABLESPACE,
        toast_options = relation::TOAST_OPTIONS,
        own = relation::OWN,
    )
}
