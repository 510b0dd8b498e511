//! Tables, as `schema::table` models them.

use super::{Query, acl, relation};
use crate::schema::table::Table;

/// All tables with their columns; `schema::inherit::settle` completes them.
pub fn tables(version: u32) -> Query<Table> {
    Query::new(sql(version))
}

fn sql(version: u32) -> String {
    let acl = acl::expression("c.relacl", "'r'", "c.relowner");
    let columns = relation::columns(version);
    let access_method = relation::access_method(version);
    let has_oids = if version >= 120000 { "false" } else { "c.relhasoids" };
    let key_columns = if version >= 110000 { "i.indnkeyatts" } else { "i.indnatts" };
    let parent = relation::name("p", "pn");
    let foreign_options = relation::foreign_options("f.ftoptions");
    format!(
        "SELECT c.oid::int8 AS oid, n.nspname AS schema, c.relname AS name, c.relkind::text AS kind, \
         pg_catalog.pg_get_userbyid(c.relowner) AS owner, {acl} AS acl, c.relpersistence::text AS persistence, \
         {types} AS types, \
         CASE WHEN c.reloftype <> 0 THEN pg_catalog.format_type(c.reloftype, NULL) END AS of_type, \
         {access_method} AS access_method, {tablespace} AS tablespace, \
         coalesce(c.reloptions, '{{}}') AS options, {toast_options} AS toast_options, \
         c.relrowsecurity AS row_security, c.relforcerowsecurity AS force_row_security, \
         c.relreplident::text AS replica_identity, {has_oids} AS has_oids, \
         CASE WHEN c.relkind = 'p' THEN pg_catalog.pg_get_partkeydef(c.oid) END AS partition_key, \
         CASE WHEN c.relkind = 'p' THEN {placed_by} END AS placed_by, \
         CASE WHEN c.relispartition THEN pg_catalog.pg_get_expr(c.relpartbound, c.oid) END AS partition_bound, \
         coalesce((SELECT pg_catalog.json_agg({parent} ORDER BY h.inhseqno) FROM pg_catalog.pg_inherits h \
             JOIN pg_catalog.pg_class p ON p.oid = h.inhparent JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace \
             WHERE h.inhrelid = c.oid), '[]'::json) AS parents, \
         {columns} AS columns, s.srvname AS server, \
         CASE WHEN f.ftoptions IS NULL THEN '[]'::json ELSE {foreign_options} END AS foreign_options, \
         coalesce((SELECT pg_catalog.json_agg(pg_catalog.json_build_object('name', a.attname, 'type_oid', a.atttypid::int8, \
             'type_name', pg_catalog.format_type(a.atttypid, a.atttypmod)) ORDER BY k.place) \
             FROM pg_catalog.pg_index i, pg_catalog.unnest(i.indkey) WITH ORDINALITY k(number, place), pg_catalog.pg_attribute a \
             WHERE i.indrelid = c.oid AND i.indisprimary AND k.place <= {key_columns} \
             AND a.attrelid = c.oid AND a.attnum = k.number), '[]'::json) AS primary_key, \
         c.relpages AS pages, c.reltuples::float8 AS tuples, \
         CASE WHEN c.relkind = 'r' THEN {bytes} ELSE 0 END AS bytes, \
         CASE WHEN {configured} THEN (SELECT x.extcondition[k.place] FROM pg_catalog.pg_extension x, \
             pg_catalog.unnest(x.extconfig) WITH ORDINALITY k(oid, place) WHERE k.oid = c.oid LIMIT 1) END AS configuration \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         LEFT JOIN pg_catalog.pg_foreign_table f ON f.ftrelid = c.oid \
         LEFT JOIN pg_catalog.pg_foreign_server s ON s.oid = f.ftserver \
         WHERE c.relkind IN ('r', 'p', 'f') AND (({own}) OR {configured}) ORDER BY n.nspname, c.relname",
        placed_by = relation::placed_by("c.oid", version),
        bytes = relation::BYTES,
        types = relation::TYPES,
        tablespace = relation::TABLESPACE,
        toast_options = relation::TOAST_OPTIONS,
        own = relation::OWN,
        configured = relation::CONFIGURATION,
    )
}
