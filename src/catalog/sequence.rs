//! Sequences, as `schema::sequence` models them.

use super::{Query, acl, relation};
use crate::schema::sequence::Sequence;

/// The definition of all sequences; their values are the copy's matter.
pub fn sequences() -> Query<Sequence> {
    Query::new(sql())
}

fn sql() -> String {
    let acl = acl::expression("c.relacl", "'s'", "c.relowner");
    let table = relation::name("t", "tn");
    format!(
        "SELECT c.oid::int8 AS oid, n.nspname AS schema, c.relname AS name, \
         pg_catalog.pg_get_userbyid(c.relowner) AS owner, {acl} AS acl, c.relpersistence::text AS persistence, \
         CASE s.seqtypid WHEN 21 THEN 'smallint' WHEN 23 THEN 'integer' ELSE 'bigint' END AS type_name, \
         s.seqstart AS start, s.seqincrement AS increment, s.seqmin AS minimum, s.seqmax AS maximum, \
         s.seqcache AS cache, s.seqcycle AS cycle, \
         CASE WHEN a.attrelid IS NOT NULL THEN pg_catalog.json_build_object('table', {table}, 'column', a.attname, \
             'persistence', t.relpersistence::text, 'identity', CASE WHEN d.deptype = 'i' THEN a.attidentity::text END, \
             'foreign', t.relkind = 'f') END AS owned_by, \
         {configured} AS configuration \
         FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
         JOIN pg_catalog.pg_sequence s ON s.seqrelid = c.oid \
         LEFT JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid \
             AND d.objsubid = 0 AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refobjsubid > 0 \
             AND d.deptype IN ('a', 'i') \
         LEFT JOIN pg_catalog.pg_class t ON t.oid = d.refobjid \
         LEFT JOIN pg_catalog.pg_namespace tn ON tn.oid = t.relnamespace \
         LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid \
         WHERE c.relkind = 'S' AND (({own}) OR {configured}) ORDER BY n.nspname, c.relname",
        own = relation::OWN,
        configured = relation::CONFIGURATION,
    )
}
