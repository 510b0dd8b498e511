//! Types and casts.

use super::{Query, acl, not_member, user_schema};
use crate::schema::data_type::{Cast, Type};

/// Types of every kind, apart from row types of tables, array types and multirange types, which come with others.
pub fn types(version: u32) -> Query<Type> {
    let sql = format!(
        "SELECT t.oid::int8 AS oid, n.nspname AS schema, t.typname AS name, pg_catalog.pg_get_userbyid(t.typowner) AS owner,
           {} AS acl, NULLIF(t.typarray, 0)::int8 AS array,
           CASE WHEN NOT t.typisdefined THEN '\"shell\"'::json
             WHEN t.typtype = 'e' THEN pg_catalog.json_build_object('enum', {ENUM})
             WHEN t.typtype = 'c' THEN pg_catalog.json_build_object('composite', {COMPOSITE})
             WHEN t.typtype = 'd' THEN pg_catalog.json_build_object('domain', {})
             WHEN t.typtype = 'r' THEN pg_catalog.json_build_object('range', {})
             ELSE pg_catalog.json_build_object('base', {}) END AS definition
         FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
           LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
         WHERE {} AND (t.typrelid = 0 OR c.relkind = 'c') AND t.typtype <> 'm'
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_type e WHERE e.oid = t.typelem AND e.typarray = t.oid) AND {}
         ORDER BY n.nspname, t.typname",
        acl::expression("t.typacl", "'T'", "t.typowner"),
        domain(version),
        range(version),
        base(version),
        user_schema("n"),
        not_member("pg_type", "t.oid"),
    );
    Query::new(sql)
}

const ENUM: &str = "(SELECT coalesce(pg_catalog.json_agg(v.enumlabel ORDER BY v.enumsortorder), '[]'::json)
    FROM pg_catalog.pg_enum v WHERE v.enumtypid = t.oid)";

const COMPOSITE: &str = "pg_catalog.json_build_object('relation', t.typrelid::int8, 'attributes',
    (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object(
         'name', a.attname, 'data_type', pg_catalog.format_type(a.atttypid, a.atttypmod),
         'collation', CASE WHEN a.attcollation <> y.typcollation THEN
            (SELECT pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(l.collname)
               FROM pg_catalog.pg_collation l JOIN pg_catalog.pg_namespace cn ON cn.oid = l.collnamespace
               WHERE l.oid = a.attcollation) END) ORDER BY a.attnum), '[]'::json)
     FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
     WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped))";

/// From 17 on a domain's NOT NULL is a row of pg_constraint with a name.
fn domain(version: u32) -> String {
    let not_null = if version >= 170_000 { "false" } else { "t.typnotnull" };
    format!(
        "(SELECT pg_catalog.json_build_object('base', pg_catalog.format_type(t.typbasetype, t.typtypmod),
           'collation', CASE WHEN t.typcollation <> u.typcollation THEN {} END,
           'default', coalesce(pg_catalog.pg_get_expr(t.typdefaultbin, 'pg_catalog.pg_type'::regclass), t.typdefault),
           'not_null', {not_null},
           'constraints', (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('oid', k.oid::int8,
                 'name', k.conname, 'definition', pg_catalog.pg_get_constraintdef(k.oid),
                 'validated', k.convalidated, 'not_null', k.contype = 'n') ORDER BY k.conname), '[]'::json)
             FROM pg_catalog.pg_constraint k WHERE k.contypid = t.oid AND k.contype IN ('c', 'n')))
         FROM pg_catalog.pg_type u WHERE u.oid = t.typbasetype)",
        collation("t.typcollation")
    )
}

fn range(version: u32) -> String {
    let multirange = if version >= 140_000 {
        "(SELECT pg_catalog.json_build_object('oid', m.oid::int8, 'array', NULLIF(m.typarray, 0)::int8, 'name',
             pg_catalog.quote_ident(mn.nspname) || '.' || pg_catalog.quote_ident(m.typname))
           FROM pg_catalog.pg_type m JOIN pg_catalog.pg_namespace mn ON mn.oid = m.typnamespace WHERE m.oid = r.rngmultitypid)"
    } else {
        "NULL"
    };
    format!(
        "(SELECT pg_catalog.json_build_object('subtype', pg_catalog.format_type(r.rngsubtype, NULL),
           'operator_class', CASE WHEN NOT o.opcdefault THEN
              pg_catalog.quote_ident(os.nspname) || '.' || pg_catalog.quote_ident(o.opcname) END,
           'collation', CASE WHEN r.rngcollation <> u.typcollation THEN {} END,
           'canonical', {}, 'difference', {}, 'multirange', {multirange})
         FROM pg_catalog.pg_range r JOIN pg_catalog.pg_type u ON u.oid = r.rngsubtype
           JOIN pg_catalog.pg_opclass o ON o.oid = r.rngsubopc JOIN pg_catalog.pg_namespace os ON os.oid = o.opcnamespace
         WHERE r.rngtypid = t.oid)",
        collation("r.rngcollation"),
        function("r.rngcanonical"),
        function("r.rngsubdiff"),
    )
}

fn base(version: u32) -> String {
    let subscript = if version >= 140_000 { function("t.typsubscript") } else { "NULL".to_owned() };
    format!(
        "pg_catalog.json_build_object('length', t.typlen, 'input', {}, 'output', {}, 'receive', {}, 'send', {},
           'typmod_in', {}, 'typmod_out', {}, 'analyze', {}, 'subscript', {subscript},
           'collatable', t.typcollation <> 0,
           'default', coalesce(pg_catalog.pg_get_expr(t.typdefaultbin, 0), t.typdefault),
           'element', CASE WHEN t.typelem <> 0 THEN pg_catalog.format_type(t.typelem, NULL) END,
           'category', t.typcategory::text, 'preferred', t.typispreferred, 'delimiter', t.typdelim::text,
           'alignment', t.typalign::text, 'storage', t.typstorage::text, 'by_value', t.typbyval)",
        function("t.typinput"),
        function("t.typoutput"),
        function("t.typreceive"),
        function("t.typsend"),
        function("t.typmodin"),
        function("t.typmodout"),
        function("t.typanalyze"),
    )
}

/// A `regproc` column as text, NULL where it is 0.
fn function(column: &str) -> String {
    format!("NULLIF({column}::oid, 0)::regproc::text")
}

/// A collation's qualified name.
fn collation(column: &str) -> String {
    format!(
        "(SELECT pg_catalog.quote_ident(cn.nspname) || '.' || pg_catalog.quote_ident(l.collname)
           FROM pg_catalog.pg_collation l JOIN pg_catalog.pg_namespace cn ON cn.oid = l.collnamespace WHERE l.oid = {column})"
    )
}

/// Casts that neither initdb nor an extension made; one from a range type to its multirange type is internal to it.
pub fn casts() -> Query<Cast> {
    let sql = "SELECT k.oid::int8 AS oid, pg_catalog.format_type(k.castsource, NULL) AS source,
           pg_catalog.format_type(k.casttarget, NULL) AS target,
           CASE WHEN k.castmethod = 'f' THEN k.castfunc::regprocedure::text END AS function,
           k.castcontext::text AS context, k.castmethod::text AS method
         FROM pg_catalog.pg_cast k WHERE k.oid >= 16384
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = 'pg_catalog.pg_cast'::regclass
             AND e.objid = k.oid AND e.deptype IN ('e', 'i'))
         ORDER BY 2, 3";
    Query::new(sql)
}
