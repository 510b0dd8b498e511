//! Large objects on both sides, read by `lo_get` in pieces: pg_largeobject itself is for superusers only.

use std::collections::BTreeMap;

use super::rows::{Measure, refused};
use super::{Difference, Sessions};
use crate::error::Result;
use crate::wire::Connection;

/// Bytes that are read at a time.
const PIECE: u32 = 1 << 20;

/// Compares all large objects: by one sum first, and one by one where that differs. Gives the number on the source, too.
pub(super) async fn compare(sessions: &mut Sessions, measure: &Measure) -> Result<(u64, Vec<Difference>)> {
    let sql = format!(
        "SELECT pg_catalog.count(*), coalesce(pg_catalog.sum({}), 0)::text FROM ({}) x",
        measure.hash("(x.oid::text || ' ' || x.digest)"),
        digests(measure)
    );
    let (here, there) = tokio::join!(total(&mut sessions.source, &sql), total(&mut sessions.target, &sql));
    let (here, there) = match (here, there) {
        (Ok(here), Ok(there)) => (here, there),
        (Err(e), _) => return Ok((0, vec![refused("LARGE OBJECTS", "source", e)?])),
        (_, Err(e)) => return Ok((0, vec![refused("LARGE OBJECTS", "target", e)?])),
    };
    if here == there {
        return Ok((here.0, Vec::new()));
    }
    let sql = digests(measure);
    let (source, target) =
        tokio::try_join!(each(&mut sessions.source, &sql), each(&mut sessions.target, &sql))?;
    let mut differences = Vec::new();
    for (oid, digest) in &source {
        let what = match target.get(oid) {
            None => "is missing on the target",
            Some(other) if other != digest => "has other content on the target",
            Some(_) => continue,
        };
        differences.push(Difference::new(format!("LARGE OBJECT {oid}"), what));
    }
    let only_there = target.keys().filter(|oid| !source.contains_key(oid));
    differences.extend(
        only_there.map(|oid| Difference::new(format!("LARGE OBJECT {oid}"), "is on the target only")),
    );
    Ok((here.0, differences))
}

/// SQL: OID and digest of every large object. The pieces' digests are joined in order, so memory is one piece.
fn digests(measure: &Measure) -> String {
    let piece = measure.digest("p.data");
    format!(
        "SELECT m.oid, (
           WITH RECURSIVE p(n, data) AS (
             SELECT 0::int8, pg_catalog.lo_get(m.oid, 0, {PIECE})
             UNION ALL SELECT p.n + 1, pg_catalog.lo_get(m.oid, (p.n + 1) * {PIECE}, {PIECE}) FROM p
               WHERE pg_catalog.length(p.data) = {PIECE})
           SELECT pg_catalog.string_agg({piece}::text, '' ORDER BY p.n) FROM p) AS digest
         FROM pg_catalog.pg_largeobject_metadata m"
    )
}

async fn total(connection: &mut Connection, sql: &str) -> Result<(u64, String)> {
    let row = connection.query_one(sql, &[]).await?;
    Ok((row.value(0)?, row.value(1)?))
}

async fn each(connection: &mut Connection, sql: &str) -> Result<BTreeMap<u32, String>> {
    let rows = connection.query(sql, &[]).await?;
    rows.iter().map(|row| Ok((row.value(0)?, row.value(1)?))).collect()
}
