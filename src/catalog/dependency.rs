//! What depends on what.

use serde::Deserialize;

use super::Query;
use crate::schema::{Class, Dependency, ObjectId};

/// pg_depend between objects that initdb didn't make. Members of operator families (pg_amop, pg_amproc) are not objects of
/// their own here: what they need, their family needs.
pub fn dependencies() -> Query<Row> {
    let members = |class: &str, family: &str| {
        format!(
            "SELECT 'pg_catalog.pg_opfamily'::regclass::oid, o.{family}, 0, d.refclassid, d.refobjid, d.refobjsubid, d.deptype
             FROM pg_catalog.pg_depend d JOIN pg_catalog.{class} o ON o.oid = d.objid
             WHERE d.classid = 'pg_catalog.{class}'::regclass AND d.deptype NOT IN ('e', 'i')
               AND NOT (d.refclassid = 'pg_catalog.pg_opfamily'::regclass AND d.refobjid = o.{family})"
        )
    };
    let sql = format!(
        "SELECT pg_catalog.json_build_array(c.relname, d.objid::int8, d.objsubid, r.relname, d.refobjid::int8, d.refobjsubid,
             d.deptype) AS d
         FROM (SELECT d.classid, d.objid, d.objsubid, d.refclassid, d.refobjid, d.refobjsubid, d.deptype
               FROM pg_catalog.pg_depend d
               WHERE d.classid NOT IN ('pg_catalog.pg_amop'::regclass, 'pg_catalog.pg_amproc'::regclass)
               UNION {} UNION {}) d
           JOIN pg_catalog.pg_class c ON c.oid = d.classid JOIN pg_catalog.pg_class r ON r.oid = d.refclassid
         WHERE d.objid >= 16384 AND d.refobjid >= 16384
           AND NOT (d.classid = d.refclassid AND d.objid = d.refobjid)
         ORDER BY c.relname, d.objid, d.objsubid, r.relname, d.refobjid, d.refobjsubid",
        members("pg_amop", "amopfamily"),
        members("pg_amproc", "amprocfamily"),
    );
    Query::new(sql)
}

/// A row as short as JSON allows: there may be many.
#[derive(Debug, Deserialize)]
pub struct Row {
    d: (Class, u32, i32, Class, u32, i32, char),
}

impl Row {
    /// The row with names.
    pub fn into_dependency(self) -> Dependency {
        let (class, oid, subid, refclass, refoid, refsubid, kind) = self.d;
        Dependency {
            object: ObjectId::new(class, oid),
            subid,
            referenced: ObjectId::new(refclass, refoid),
            refsubid,
            kind,
        }
    }
}
