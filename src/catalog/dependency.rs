//! What depends on what.

use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::StrDeserializer;

use super::Query;
use crate::schema::{Class, Dependency, ObjectId};

/// pg_depend between objects that initdb didn't make. Members of operator families (pg_amop, pg_amproc) are not objects of
/// their own here: what they need, their family needs.
pub fn dependencies() -> Query<Row> {
    let members = |class: &str, family: &str| {
        format!(
            "SELECT 'pg_catalog.pg_opfamily'::regclass::oid, o.{family}, d.refclassid, d.refobjid, d.deptype
             FROM pg_catalog.pg_depend d JOIN pg_catalog.{class} o ON o.oid = d.objid
             WHERE d.classid = 'pg_catalog.{class}'::regclass AND d.deptype NOT IN ('e', 'i')
               AND o.{family} >= 16384 AND d.refobjid >= 16384
               AND NOT (d.refclassid = 'pg_catalog.pg_opfamily'::regclass AND d.refobjid = o.{family})"
        )
    };
    let sql = format!(
        "SELECT pg_catalog.concat_ws(' ', c.relname, d.objid, r.relname, d.refobjid, d.deptype) AS d
         FROM (SELECT d.classid, d.objid, d.refclassid, d.refobjid, d.deptype
               FROM pg_catalog.pg_depend d
               WHERE d.objid >= 16384 AND d.refobjid >= 16384
                 AND d.classid NOT IN ('pg_catalog.pg_amop'::regclass, 'pg_catalog.pg_amproc'::regclass)
               UNION {} UNION {}) d
           JOIN pg_catalog.pg_class c ON c.oid = d.classid JOIN pg_catalog.pg_class r ON r.oid = d.refclassid
         WHERE NOT (d.classid = d.refclassid AND d.objid = d.refobjid)
         ORDER BY d.classid, d.objid, d.refclassid, d.refobjid, d.deptype",
        members("pg_amop", "amopfamily"),
        members("pg_amproc", "amprocfamily"),
    );
    Query::new(sql)
}

/// A row as one text of words: there may be many, and building JSON of them costs the server more than finding them.
#[derive(Debug, Deserialize)]
pub struct Row {
    d: String,
}

impl Row {
    /// The row as what it means; `None` for text of another form.
    pub fn into_dependency(self) -> Option<Dependency> {
        let mut words = self.d.split(' ');
        let mut object = || {
            let class: StrDeserializer<'_, serde::de::value::Error> = words.next()?.into_deserializer();
            Some(ObjectId::new(Class::deserialize(class).ok()?, words.next()?.parse().ok()?))
        };
        let (object, referenced) = (object()?, object()?);
        Some(Dependency { object, referenced, kind: words.next()?.chars().next()? })
    }
}
