//! Operators, operator classes and families, access methods.

use super::{Query, not_member, user_schema};
use crate::schema::operator::{AccessMethod, Operator, OperatorClass, OperatorFamily};

/// Operators; forward references that were never defined have no function and stay out, as they come with the operator that
/// names them.
pub fn operators() -> Query<Operator> {
    let other = |column: &str| {
        format!(
            "(SELECT pg_catalog.quote_ident(x.nspname) || '.' || r.oprname FROM pg_catalog.pg_operator r
               JOIN pg_catalog.pg_namespace x ON x.oid = r.oprnamespace WHERE r.oid = {column})"
        )
    };
    let sql = format!(
        "SELECT o.oid::int8 AS oid, n.nspname AS schema, o.oprname AS name, pg_catalog.pg_get_userbyid(o.oprowner) AS owner,
           CASE WHEN o.oprleft <> 0 THEN pg_catalog.format_type(o.oprleft, NULL) END AS left,
           CASE WHEN o.oprright <> 0 THEN pg_catalog.format_type(o.oprright, NULL) END AS right,
           o.oprcode::regproc::text AS function, {} AS commutator, {} AS negator,
           NULLIF(o.oprrest::oid, 0)::regproc::text AS restrict, NULLIF(o.oprjoin::oid, 0)::regproc::text AS join,
           o.oprcanmerge AS merges, o.oprcanhash AS hashes
         FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace
         WHERE o.oprcode::oid <> 0 AND {} AND {}
         ORDER BY n.nspname, o.oprname, 5, 6",
        other("o.oprcom"),
        other("o.oprnegate"),
        user_schema("n"),
        not_member("pg_operator", "o.oid"),
    );
    Query::new(sql)
}

/// Access methods.
pub fn access_methods() -> Query<AccessMethod> {
    let sql = format!(
        "SELECT a.oid::int8 AS oid, a.amname AS name, a.amtype::text AS kind, a.amhandler::regproc::text AS handler
         FROM pg_catalog.pg_am a WHERE a.oid >= 16384 AND {} ORDER BY a.amname",
        not_member("pg_am", "a.oid")
    );
    Query::new(sql)
}

/// Operators and support functions that pg_depend says belong to `owner`, a class or (loose ones) a family, in the order of their making.
fn members(owner_class: &str, owner: &str, family: &str) -> String {
    format!(
        "(SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_object('function', m.function, 'number', m.number,
            'identity', m.identity, 'left', pg_catalog.format_type(m.l, NULL), 'right', pg_catalog.format_type(m.r, NULL),
            'sort_family', m.sort_family) ORDER BY m.function, m.number, m.oid), '[]'::json)
          FROM (SELECT o.oid, false AS function, o.amopstrategy AS number, o.amopopr::regoperator::text AS identity,
                  o.amoplefttype AS l, o.amoprighttype AS r,
                  (SELECT pg_catalog.quote_ident(sn.nspname) || '.' || pg_catalog.quote_ident(s.opfname)
                     FROM pg_catalog.pg_opfamily s JOIN pg_catalog.pg_namespace sn ON sn.oid = s.opfnamespace
                     WHERE s.oid = o.amopsortfamily) AS sort_family
                FROM pg_catalog.pg_amop o JOIN pg_catalog.pg_depend d
                  ON d.classid = 'pg_catalog.pg_amop'::regclass AND d.objid = o.oid
                WHERE d.refclassid = 'pg_catalog.{owner_class}'::regclass AND d.refobjid = {owner} AND o.amopfamily = {family}
                UNION ALL
                SELECT p.oid, true, p.amprocnum, p.amproc::regprocedure::text, p.amproclefttype, p.amprocrighttype, NULL
                FROM pg_catalog.pg_amproc p JOIN pg_catalog.pg_depend d
                  ON d.classid = 'pg_catalog.pg_amproc'::regclass AND d.objid = p.oid
                WHERE d.refclassid = 'pg_catalog.{owner_class}'::regclass AND d.refobjid = {owner}
                  AND p.amprocfamily = {family}) m)"
    )
}

/// Operator families.
pub fn operator_families() -> Query<OperatorFamily> {
    let sql = format!(
        "SELECT f.oid::int8 AS oid, n.nspname AS schema, f.opfname AS name, pg_catalog.pg_get_userbyid(f.opfowner) AS owner,
           a.amname AS method, {} AS members
         FROM pg_catalog.pg_opfamily f JOIN pg_catalog.pg_namespace n ON n.oid = f.opfnamespace
           JOIN pg_catalog.pg_am a ON a.oid = f.opfmethod
         WHERE {} AND {}
         ORDER BY n.nspname, f.opfname, a.amname",
        members("pg_opfamily", "f.oid", "f.oid"),
        user_schema("n"),
        not_member("pg_opfamily", "f.oid"),
    );
    Query::new(sql)
}

/// Operator classes.
pub fn operator_classes() -> Query<OperatorClass> {
    let sql = format!(
        "SELECT c.oid::int8 AS oid, n.nspname AS schema, c.opcname AS name, pg_catalog.pg_get_userbyid(c.opcowner) AS owner,
           a.amname AS method, c.opcdefault AS default, pg_catalog.format_type(c.opcintype, NULL) AS data_type,
           c.opcfamily::int8 AS family, pg_catalog.quote_ident(fn.nspname) || '.' || pg_catalog.quote_ident(f.opfname) AS family_name,
           CASE WHEN c.opckeytype <> 0 THEN pg_catalog.format_type(c.opckeytype, NULL) END AS storage, {} AS members
         FROM pg_catalog.pg_opclass c JOIN pg_catalog.pg_namespace n ON n.oid = c.opcnamespace
           JOIN pg_catalog.pg_am a ON a.oid = c.opcmethod
           JOIN pg_catalog.pg_opfamily f ON f.oid = c.opcfamily JOIN pg_catalog.pg_namespace fn ON fn.oid = f.opfnamespace
         WHERE {} AND {}
         ORDER BY n.nspname, c.opcname, a.amname",
        members("pg_opclass", "c.oid", "c.opcfamily"),
        user_schema("n"),
        not_member("pg_opclass", "c.oid"),
    );
    Query::new(sql)
}
