//! Large objects' metadata; their contents are the copy's matter.

use super::{acl, fetch, note};
use crate::error::Result;
use crate::schema::large_object::LargeObject;
use crate::wire::Connection;

/// Reads the large objects with `lower` ≤ OID < `upper`, by OID.
pub async fn read_large_objects(
    connection: &mut Connection,
    lower: i64,
    upper: i64,
) -> Result<Vec<LargeObject>> {
    let acl = acl::expression("m.lomacl", "'L'", "m.lomowner");
    let labels = note::labels(
        "pg_seclabel",
        "l.classoid = 'pg_catalog.pg_largeobject'::regclass AND l.objoid = m.oid",
    );
    let sql = format!(
        "SELECT m.oid::int8 AS oid, pg_catalog.pg_get_userbyid(m.lomowner) AS owner, {acl} AS acl, \
         pg_catalog.obj_description(m.oid, 'pg_largeobject') AS comment, {labels} AS labels \
         FROM pg_catalog.pg_largeobject_metadata m WHERE m.oid::int8 >= {lower} AND m.oid::int8 < {upper} ORDER BY m.oid"
    );
    fetch(connection, &sql).await
}
