//! Pieces of SQL that the queries for relations share.
//!
//! All text is for servers from 10 on. `version` is server_version_num; what a server doesn't have reads as its absence.

use super::acl;

/// Keeps a relation `c` in the namespace `n` if it is the user's own: in no schema of the system or of pgstream, not temporary, and no
/// member of an extension.
pub(super) const OWN: &str = "n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgstream') \
     AND c.relpersistence <> 't' AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e \
     WHERE e.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND e.objid = c.oid AND e.deptype = 'e')";

/// The relation `c` in namespace `n` is among those whose rows an extension wants copied.
pub(super) const CONFIGURATION: &str = "c.oid = ANY (ARRAY(SELECT pg_catalog.unnest(x.extconfig) FROM pg_catalog.pg_extension x)::pg_catalog.oid[])";

/// `schema::partition::PlacedBy` of the partitioned table with this OID; NULL of any other. Operator classes of enum, array, record, range and multirange
/// types stand for all such types; an OID, which may be that of an object, is another one elsewhere.
pub(super) fn placed_by(oid: &str, version: u32) -> String {
    if version < 110000 {
        return "NULL".to_owned();
    }
    let nondeterministic = match version {
        120000.. => {
            "OR EXISTS (SELECT FROM pg_catalog.pg_collation k WHERE k.oid = ANY (z.partcollation::oid[]) AND NOT k.collisdeterministic)"
        }
        _ => "",
    };
    format!(
        "(SELECT CASE WHEN z.partstrat <> 'h' THEN NULL \
           WHEN EXISTS (SELECT FROM pg_catalog.pg_opclass k WHERE k.oid = ANY (z.partclass::oid[]) AND k.opcintype IN (26, 2249, 2277, 3500, 3831, 4537)) \
             {nondeterministic} THEN 'server' \
           WHEN EXISTS (SELECT FROM pg_catalog.unnest(z.partcollation::oid[]) k WHERE k <> 0) THEN 'encoding' END \
         FROM pg_catalog.pg_partitioned_table z WHERE z.partrelid = {oid})"
    )
}

/// JSON of `schema::table::RelationName`.
pub(super) fn name(relation: &str, namespace: &str) -> String {
    format!(
        "pg_catalog.json_build_object('oid', {relation}.oid::int8, 'schema', {namespace}.nspname, 'name', {relation}.relname)"
    )
}

/// JSON array of `schema::foreign::FdwOption` from a text array of options.
pub(super) fn foreign_options(options: &str) -> String {
    format!(
        "coalesce((SELECT pg_catalog.json_agg(pg_catalog.json_build_object('name', o.option_name, 'value', o.option_value)) \
         FROM pg_catalog.pg_options_to_table({options}) o), '[]'::json)"
    )
}

/// JSON array of `schema::table::Column`: the columns of the relation `c`.
pub(super) fn columns(version: u32) -> String {
    let compression = if version >= 140000 {
        "CASE a.attcompression WHEN 'p' THEN 'pglz' WHEN 'l' THEN 'lz4' END"
    } else {
        "NULL"
    };
    let generated = if version >= 120000 { "nullif(a.attgenerated::text, '')" } else { "NULL" };
    // Before 18 a constraint has neither a name nor a place of its own. As pg_dump does, a name that the server would choose isn't said.
    let constraint = if version >= 180000 {
        "(SELECT pg_catalog.json_build_object('oid', co.oid::int8, 'name', co.conname, \
             'says_name', co.conname <> pg_catalog.concat(c.relname, '_', a.attname, '_not_null') OR EXISTS (\
                 SELECT FROM pg_catalog.pg_description t WHERE t.classoid = 'pg_catalog.pg_constraint'::pg_catalog.regclass \
                 AND t.objoid = co.oid), \
             'no_inherit', co.connoinherit, 'is_local', co.conislocal) \
             FROM pg_catalog.pg_constraint co \
             WHERE co.conrelid = a.attrelid AND co.contype = 'n' AND co.conkey[1] = a.attnum AND co.convalidated)"
    } else {
        "pg_catalog.json_build_object('oid', NULL, 'name', NULL, 'says_name', false, 'no_inherit', false, 'is_local', true)"
    };
    let storage = "CASE a.attstorage WHEN 'p' THEN 'PLAIN' WHEN 'e' THEN 'EXTERNAL' WHEN 'm' THEN 'MAIN' WHEN 'x' THEN 'EXTENDED' END";
    let foreign_options = foreign_options("a.attfdwoptions");
    let acl = acl::expression("a.attacl", "'c'", "c.relowner");
    let uncompressed = if version >= 140000 { "a.attcompression = ''" } else { "true" };
    let always = format!(
        "'number', a.attnum, 'name', a.attname, 'type_name', pg_catalog.format_type(a.atttypid, a.atttypmod), \
         'type_oid', a.atttypid::int8, 'not_null', a.attnotnull, \
         'constraint', CASE WHEN a.attnotnull THEN {constraint} END, \
         'default', CASE WHEN a.atthasdef THEN (SELECT pg_catalog.json_build_object('oid', f.oid::int8, \
             'expression', pg_catalog.pg_get_expr(f.adbin, f.adrelid), 'generated', {generated}) \
             FROM pg_catalog.pg_attrdef f WHERE f.adrelid = a.attrelid AND f.adnum = a.attnum) END"
    );
    // Building JSON costs more than all else here, and most columns have nothing more to say. Types are looked up one by one: a join
    // inside of a query per table may read all of pg_type each time.
    format!(
        "coalesce((SELECT pg_catalog.json_agg(CASE WHEN a.attidentity = '' AND a.attislocal AND a.attinhcount = 0 AND a.attoptions IS NULL \
         AND a.attfdwoptions IS NULL AND a.attacl IS NULL AND coalesce(a.attstattarget, -1) < 0 AND {uncompressed} \
         AND EXISTS (SELECT FROM pg_catalog.pg_type y WHERE y.oid = a.atttypid AND y.typcollation = a.attcollation \
             AND y.typstorage = a.attstorage) \
         THEN pg_catalog.json_build_object({always}) ELSE pg_catalog.json_build_object({always}, \
         'collation', CASE WHEN a.attcollation <> (SELECT y.typcollation FROM pg_catalog.pg_type y WHERE y.oid = a.atttypid) THEN (\
             SELECT pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(l.collname) \
             FROM pg_catalog.pg_collation l JOIN pg_catalog.pg_namespace cn ON cn.oid = l.collnamespace \
             WHERE l.oid = a.attcollation) END, \
         'identity', nullif(a.attidentity::text, ''), 'is_local', a.attislocal, \
         'storage', CASE WHEN a.attstorage <> (SELECT y.typstorage FROM pg_catalog.pg_type y WHERE y.oid = a.atttypid) THEN {storage} END, \
         'own_storage', CASE WHEN a.attinhcount > 0 THEN {storage} END, \
         'compression', {compression}, \
         'statistics', CASE WHEN a.attstattarget >= 0 THEN a.attstattarget END, \
         'options', coalesce(a.attoptions, '{{}}'), \
         'foreign_options', CASE WHEN a.attfdwoptions IS NULL THEN '[]'::json ELSE {foreign_options} END, \
         'acl', {acl}) END ORDER BY a.attnum) \
         FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '[]'::json)"
    )
}

/// The table access method of the relation `c`, of `kinds` only.
pub(super) fn access_method(version: u32) -> &'static str {
    if version >= 120000 {
        "(SELECT am.amname FROM pg_catalog.pg_am am WHERE am.oid = c.relam)"
    } else {
        "NULL"
    }
}

/// The tablespace of the relation `c`, unless it is the database's.
pub(super) const TABLESPACE: &str =
    "(SELECT ts.spcname FROM pg_catalog.pg_tablespace ts WHERE ts.oid = c.reltablespace)";

/// Bytes of the relation `c` and its TOAST table. Their maps and the TOAST index are small beside them, and cost more to ask for than all else of a
/// table (`pg_table_size`).
pub(super) const BYTES: &str = "coalesce(pg_catalog.pg_relation_size(c.oid), 0) \
     + CASE WHEN c.reltoastrelid = 0 THEN 0 ELSE coalesce(pg_catalog.pg_relation_size(c.reltoastrelid), 0) END";

/// Storage parameters of the TOAST table of `c`.
pub(super) const TOAST_OPTIONS: &str =
    "coalesce((SELECT tc.reloptions FROM pg_catalog.pg_class tc WHERE tc.oid = c.reltoastrelid), '{}')";

/// The row type and its array type of the relation `c`.
pub(super) const TYPES: &str = "ARRAY(SELECT o::int8 FROM pg_catalog.pg_type y, LATERAL (VALUES (y.oid), (y.typarray)) v(o) \
     WHERE y.oid = c.reltype AND o <> 0)";
