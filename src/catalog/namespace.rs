//! Schemas, extensions, and privileges changed on what extensions and initdb made.

use super::{Query, acl, not_member};
use crate::schema::extension::{ChangedPrivileges, Extension};
use crate::schema::namespace::Schema;

/// Schemas; `public` too, which every new database has. As pg_dump does, its privileges are taken beside those that servers
/// from 15 on give it: USAGE to everyone, everything to its owner.
pub fn schemas() -> Query<Schema> {
    let public = acl::difference(
        "coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner))",
        "ARRAY[pg_catalog.makeaclitem(n.nspowner, n.nspowner, 'USAGE', false), \
         pg_catalog.makeaclitem(n.nspowner, n.nspowner, 'CREATE', false), \
         pg_catalog.makeaclitem(0, n.nspowner, 'USAGE', false)]",
    );
    let other = acl::expression("n.nspacl", "'n'", "n.nspowner");
    let sql = format!(
        "SELECT n.oid::int8 AS oid, n.nspname AS name, pg_catalog.pg_get_userbyid(n.nspowner) AS owner,
           CASE WHEN n.nspname = 'public' THEN {public} ELSE {other} END AS acl, n.nspname = 'public' AS builtin
         FROM pg_catalog.pg_namespace n
         WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'pgstream') AND {}
         ORDER BY n.nspname",
        not_member("pg_namespace", "n.oid")
    );
    Query::new(sql)
}

/// Extensions that initdb didn't make.
pub fn extensions() -> Query<Extension> {
    let sql = "SELECT e.oid::int8 AS oid, e.extname AS name, n.nspname AS schema, e.extversion AS version,
           e.extrelocatable AS relocatable, e.oid < 16384 AS builtin,
           (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('class', k.relname, 'oid', d.objid::int8)
                 ORDER BY k.relname, d.objid), '[]'::json)
             FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_class k ON k.oid = d.classid
             WHERE d.refclassid = 'pg_catalog.pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e') AS members,
           (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('table', c.oid::int8, 'condition', e.extcondition[c.i])
                 ORDER BY c.i), '[]'::json)
             FROM pg_catalog.unnest(e.extconfig) WITH ORDINALITY c(oid, i)) AS configuration
         FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
         ORDER BY e.extname";
    Query::new(sql)
}

/// Objects of extensions and of pg_catalog whose privileges are no longer those of pg_init_privs.
pub fn changed_privileges(version: u32) -> Query<ChangedPrivileges> {
    let mut parts = vec![
        part(
            "pg_class",
            "relnamespace",
            "relowner",
            "relacl",
            "CASE o.relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\"",
            "CASE o.relkind WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END",
        ),
        part(
            "pg_proc",
            "pronamespace",
            "proowner",
            "proacl",
            "'f'::\"char\"",
            if version >= 110_000 {
                "CASE o.prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END"
            } else {
                "'FUNCTION'"
            },
        ),
        part("pg_type", "typnamespace", "typowner", "typacl", "'T'::\"char\"", "'TYPE'"),
        part("pg_namespace", "NULL::oid", "nspowner", "nspacl", "'n'::\"char\"", "'SCHEMA'"),
        part("pg_language", "NULL::oid", "lanowner", "lanacl", "'l'::\"char\"", "'LANGUAGE'"),
        part(
            "pg_foreign_data_wrapper",
            "NULL::oid",
            "fdwowner",
            "fdwacl",
            "'F'::\"char\"",
            "'FOREIGN DATA WRAPPER'",
        ),
        part("pg_foreign_server", "NULL::oid", "srvowner", "srvacl", "'S'::\"char\"", "'FOREIGN SERVER'"),
    ];
    // Columns have no default privileges of their own.
    parts.push(
        "SELECT 'pg_class'::text AS class, o.oid, a.attnum::int4 AS subid, o.relnamespace AS namespace, o.relowner AS owner,
           a.attacl AS acl, coalesce(p.initprivs, '{}'::aclitem[]) AS base, 'TABLE'::text AS kind,
           a.attname::text AS attribute
         FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class o ON o.oid = a.attrelid
           LEFT JOIN pg_catalog.pg_init_privs p ON p.objoid = o.oid AND p.classoid = 'pg_catalog.pg_class'::regclass
             AND p.objsubid = a.attnum
         WHERE a.attacl IS NOT NULL AND NOT a.attisdropped"
            .to_owned(),
    );
    let sql = format!(
        "SELECT pg_catalog.json_build_object('class', o.class, 'oid', o.oid::int8) AS id, o.kind, n.nspname AS schema,
           i.name, i.name AS identity, o.attribute AS column, pg_catalog.pg_get_userbyid(o.owner) AS owner, {} AS acl
         FROM ({}) o
           LEFT JOIN pg_catalog.pg_namespace n ON n.oid = o.namespace,
           LATERAL (SELECT d.identity, coalesce(
               -- Some types are called otherwise than GRANT knows them.
               (SELECT pg_catalog.format('%I.%I', n.nspname, t.typname) FROM pg_catalog.pg_type t WHERE o.class = 'pg_type' AND t.oid = o.oid),
               d.identity) AS name
             FROM pg_catalog.pg_identify_object(('pg_catalog.' || o.class)::regclass, o.oid, 0) d) i
         WHERE o.acl IS DISTINCT FROM o.base AND (o.class <> 'pg_namespace' OR i.identity NOT IN ('public', '\"public\"'))
           AND (o.oid < 16384 AND coalesce(n.nspname, 'pg_catalog') = 'pg_catalog' AND i.identity !~ 'information_schema'
             OR EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = ('pg_catalog.' || o.class)::regclass
               AND e.objid = o.oid AND e.deptype = 'e'))
         ORDER BY o.class, i.identity, o.subid <> 0, o.subid",
        acl::difference("o.acl", "o.base"),
        parts.join(" UNION ALL ")
    );
    Query::new(sql)
}

/// One catalog's objects that have privileges of their own, beside those they were made with.
fn part(class: &str, namespace: &str, owner: &str, acl: &str, default: &str, kind: &str) -> String {
    let namespace =
        if namespace.starts_with("NULL") { namespace.to_owned() } else { format!("o.{namespace}") };
    format!(
        "SELECT '{class}'::text AS class, o.oid, 0 AS subid, {namespace} AS namespace, o.{owner} AS owner, o.{acl} AS acl,
           coalesce(p.initprivs, pg_catalog.acldefault({default}, o.{owner})) AS base, ({kind})::text AS kind,
           NULL::text AS attribute
         FROM pg_catalog.{class} o
           LEFT JOIN pg_catalog.pg_init_privs p ON p.objoid = o.oid AND p.classoid = 'pg_catalog.{class}'::regclass
             AND p.objsubid = 0
         WHERE o.{acl} IS NOT NULL"
    )
}
