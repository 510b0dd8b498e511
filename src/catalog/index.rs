//! Indexes and extended statistics, as `schema::index` and `schema::statistics` model them.

use super::{Query, relation};
use crate::schema::index::Index;
use crate::schema::statistics::Statistics;

/// All indexes, those behind constraints and invalid ones too.
pub fn indexes() -> Query<Index> {
    Query::new(indexes_sql())
}

/// All extended statistics objects.
pub fn statistics(version: u32) -> Query<Statistics> {
    Query::new(statistics_sql(version))
}

fn indexes_sql() -> String {
    let table = relation::name("c", "n");
    let parent = relation::name("p", "pn");
    format!(
        "SELECT x.oid::int8 AS oid, n.nspname AS schema, x.relname AS name, \
         pg_catalog.pg_get_userbyid(c.relowner) AS owner, {table} AS table, c.relkind = 'm' AS on_view, \
         CASE WHEN k.oid IS NULL THEN pg_catalog.pg_get_indexdef(x.oid) ELSE '' END AS definition, i.indisvalid AND i.indisready AS valid, \
         x.relkind = 'I' AS partitioned, i.indisunique AS unique, i.indisclustered AS clustered, \
         i.indisreplident AS replica_identity, k.oid::int8 AS constraint, \
         CASE WHEN p.oid IS NOT NULL THEN {parent} END AS parent, \
         (SELECT ts.spcname FROM pg_catalog.pg_tablespace ts WHERE ts.oid = x.reltablespace) AS tablespace, \
         coalesce(x.reloptions, '{{}}') AS options, \
         coalesce((SELECT pg_catalog.json_agg(pg_catalog.json_build_object('number', a.attnum, 'target', a.attstattarget) \
             ORDER BY a.attnum) FROM pg_catalog.pg_attribute a \
             WHERE a.attrelid = x.oid AND a.attstattarget >= 0), '[]'::json) AS statistics, \
         x.relpages AS pages \
         FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid \
         JOIN pg_catalog.pg_class c ON c.oid = i.indrelid AND c.relkind IN ('r', 'p', 'm') \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         LEFT JOIN pg_catalog.pg_constraint k ON k.conrelid = i.indrelid AND k.conindid = i.indexrelid \
             AND k.contype IN ('p', 'u', 'x') \
         LEFT JOIN pg_catalog.pg_inherits h ON h.inhrelid = x.oid \
         LEFT JOIN pg_catalog.pg_class p ON p.oid = h.inhparent \
         LEFT JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace \
         WHERE {own} ORDER BY n.nspname, x.relname",
        own = relation::OWN,
    )
}

fn statistics_sql(version: u32) -> String {
    let table = relation::name("c", "tn");
    let target = match version {
        130000.. => "CASE WHEN s.stxstattarget >= 0 THEN s.stxstattarget END",
        _ => "NULL::int4",
    };
    format!(
        "SELECT s.oid::int8 AS oid, n.nspname AS schema, s.stxname AS name, \
         pg_catalog.pg_get_userbyid(s.stxowner) AS owner, {table} AS table, \
         pg_catalog.pg_get_statisticsobjdef(s.oid) AS definition, {target} AS target \
         FROM pg_catalog.pg_statistic_ext s JOIN pg_catalog.pg_namespace n ON n.oid = s.stxnamespace \
         JOIN pg_catalog.pg_class c ON c.oid = s.stxrelid JOIN pg_catalog.pg_namespace tn ON tn.oid = c.relnamespace \
         WHERE {own} AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e \
             WHERE e.classid = 'pg_catalog.pg_statistic_ext'::pg_catalog.regclass AND e.objid = s.oid AND e.deptype = 'e') \
         ORDER BY n.nspname, s.stxname",
        own = relation::OWN,
    )
}
