//! Comments, security labels and other notes that hang on objects of any kind.

use super::Query;
use crate::schema::note::{Comment, ExtensionDependency, SecurityLabel};

/// SQL of what COMMENT ON and its kin take for the row `d` of (classoid, objoid, objsubid), with `i` from
/// pg_identify_object. The server renders it, quoted and qualified; a few kinds read differently in SQL than in pg_identify_object.
const SUBJECT: &str = "CASE
    WHEN i.type LIKE '% column' THEN 'COLUMN ' || i.identity
    WHEN i.type IN ('function of access method', 'operator of access method') THEN NULL
    WHEN i.type = 'domain constraint' THEN
      (SELECT 'CONSTRAINT ' || pg_catalog.quote_ident(k.conname) || ' ON DOMAIN ' || pg_catalog.format_type(k.contypid, NULL)
         FROM pg_catalog.pg_constraint k WHERE k.oid = d.objoid)
    WHEN i.type = 'table constraint' THEN 'CONSTRAINT ' || i.identity
    WHEN i.type = 'transform' THEN
      (SELECT 'TRANSFORM FOR ' || pg_catalog.format_type(t.trftype, NULL) || ' LANGUAGE ' || pg_catalog.quote_ident(l.lanname)
         FROM pg_catalog.pg_transform t JOIN pg_catalog.pg_language l ON l.oid = t.trflang WHERE t.oid = d.objoid)
    WHEN i.type = 'aggregate' AND right(i.identity, 2) = '()' THEN
      'AGGREGATE ' || left(i.identity, -2) || '(*)'
    WHEN i.type = 'statistics object' THEN 'STATISTICS ' || i.identity
    WHEN i.type = 'foreign-data wrapper' THEN 'FOREIGN DATA WRAPPER ' || i.identity
    WHEN i.type = 'partitioned table' THEN 'TABLE ' || i.identity
    WHEN i.type = 'partitioned index' THEN 'INDEX ' || i.identity
    ELSE upper(i.type) || ' ' || i.identity END";

/// Comments on everything but extensions' objects and large objects.
pub fn comments() -> Query<Comment> {
    let sql = format!(
        "SELECT pg_catalog.json_build_object('class', k.relname, 'oid', d.objoid::int8) AS id, {SUBJECT} AS subject,
           d.description AS text
         FROM pg_catalog.pg_description d JOIN pg_catalog.pg_class k ON k.oid = d.classoid,
           LATERAL pg_catalog.pg_identify_object(d.classoid, d.objoid, d.objsubid) i
         WHERE i.identity IS NOT NULL AND (d.objoid >= 16384 OR d.classoid = 'pg_catalog.pg_namespace'::regclass AND i.identity IN ('public', '\"public\"'))
           AND d.classoid <> 'pg_catalog.pg_largeobject'::regclass
           AND NOT (d.classoid = 'pg_catalog.pg_publication'::regclass AND i.identity ~ '^\"?pgstream_')
           AND NOT EXISTS (SELECT FROM pg_catalog.pg_depend e WHERE e.classid = d.classoid AND e.objid = d.objoid
             AND e.deptype = 'e')
         ORDER BY k.relname, i.identity, d.objsubid"
    );
    Query::new(sql)
}

/// Security labels, on extensions' objects too.
pub fn security_labels() -> Query<SecurityLabel> {
    let sql = format!(
        "SELECT pg_catalog.json_build_object('class', k.relname, 'oid', d.objoid::int8) AS id, {SUBJECT} AS subject,
           d.provider, d.label
         FROM pg_catalog.pg_seclabel d JOIN pg_catalog.pg_class k ON k.oid = d.classoid,
           LATERAL pg_catalog.pg_identify_object(d.classoid, d.objoid, d.objsubid) i
         WHERE d.classoid <> 'pg_catalog.pg_largeobject'::regclass
         ORDER BY k.relname, i.identity, d.objsubid, d.provider"
    );
    Query::new(sql)
}

/// JSON array of `schema::note::Label`: the labels of the object that `condition` finds in the catalog, which is `pg_seclabel` or `pg_shseclabel`.
pub(super) fn labels(catalog: &str, condition: &str) -> String {
    format!(
        "coalesce((SELECT pg_catalog.json_agg(pg_catalog.json_build_object('provider', l.provider, 'label', l.label) ORDER BY l.provider) \
         FROM pg_catalog.{catalog} l WHERE {condition}), '[]'::json)"
    )
}

/// ALTER … DEPENDS ON EXTENSION.
pub fn extension_dependencies() -> Query<ExtensionDependency> {
    let sql = format!(
        "SELECT pg_catalog.json_build_object('class', k.relname, 'oid', d.objoid::int8) AS id, {SUBJECT} AS subject,
           x.extname AS extension
         FROM (SELECT p.classid AS classoid, p.objid AS objoid, p.refobjid FROM pg_catalog.pg_depend p
                WHERE p.deptype = 'x' AND p.refclassid = 'pg_catalog.pg_extension'::regclass) d
           JOIN pg_catalog.pg_class k ON k.oid = d.classoid JOIN pg_catalog.pg_extension x ON x.oid = d.refobjid,
           LATERAL pg_catalog.pg_identify_object(d.classoid, d.objoid, 0) i
         ORDER BY k.relname, i.identity, x.extname"
    );
    Query::new(sql)
}
