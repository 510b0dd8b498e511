//! Constraints of tables, as `schema::constraint` models them.

use super::{Query, relation};
use crate::schema::constraint::Constraint;

/// All constraints of tables. Left out, because they come with something else: foreign keys that a partition has from its parent,
/// and valid not-null constraints, which are with their columns.
pub fn constraints(version: u32) -> Query<Constraint> {
    Query::new(sql(version))
}

fn sql(version: u32) -> String {
    let table = relation::name("c", "n");
    let referenced = relation::name("r", "rn");
    let (parent, cloned) = if version >= 110000 {
        (
            "CASE WHEN k.conparentid <> 0 THEN k.conparentid::int8 END",
            "k.contype = 'f' AND k.conparentid <> 0",
        )
    } else {
        ("NULL::int8", "false")
    };
    format!(
        "SELECT k.oid::int8 AS oid, k.conname AS name, k.contype::text AS kind, {table} AS table, \
         pg_catalog.pg_get_userbyid(c.relowner) AS owner, c.relkind = 'p' AS partitioned, c.relispartition AS partition, \
         c.relkind = 'f' AS foreign, pg_catalog.pg_get_constraintdef(k.oid) AS definition, \
         k.condeferrable AS deferrable, k.condeferred AS deferred, k.convalidated AS validated, k.conislocal AS is_local, \
         {parent} AS parent, CASE WHEN k.conindid <> 0 THEN k.conindid::int8 END AS index, \
         CASE WHEN r.oid IS NOT NULL THEN {referenced} END AS referenced, \
         coalesce(r.relkind = 'p', false) AS references_partitioned \
         FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid AND c.relkind IN ('r', 'p', 'f') \
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         LEFT JOIN pg_catalog.pg_class r ON r.oid = k.confrelid \
         LEFT JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace \
         WHERE (k.contype IN ('c', 'p', 'u', 'x', 'f') OR k.contype = 'n' AND NOT k.convalidated) \
         AND NOT ({cloned}) AND {own} ORDER BY n.nspname, c.relname, k.conname",
        own = relation::OWN,
    )
}
