//! Large objects: contents and identity (the OID), by ranges of OIDs that are parts like those of a table.
//!
//! A large object is made, filled and given its owner, comment and privileges in the transaction that marks its part as done, so it
//! is there whole or not at all.

use std::collections::{BTreeMap, HashSet};

use pgstream_proto::lsn::Lsn;

use super::apply::guarded;
use super::part::Copied;
use crate::catalog;
use crate::ddl::{self, NotCopied};
use crate::error::Result;
use crate::fault;
use crate::progress::Progress;
use crate::schema::large_object::LargeObject;
use crate::state::{self, LARGE_OBJECTS, Part, Relation, Split};
use crate::wire::Connection;

/// Large objects to a part.
const OBJECTS: usize = 1000;

/// Bytes read of a large object at a time: a piece travels as hexadecimal text and is held once on each way.
const PIECE: u64 = 4 * 1024 * 1024;

/// Cuts the source's large objects into parts; `None` when there are none.
pub async fn plan_large_objects(source: &mut Connection) -> Result<Option<(Relation, Vec<Part>)>> {
    // pg_largeobject itself is for superusers; an object's size isn't worth opening each of them.
    let rows = source.query("SELECT oid FROM pg_catalog.pg_largeobject_metadata ORDER BY oid", &[]).await?;
    let oids: Vec<i64> = rows.iter().map(|row| row.value(0)).collect::<Result<_>>()?;
    if oids.is_empty() {
        return Ok(None);
    }
    let parts: Vec<Part> = oids
        .chunks(OBJECTS)
        .zip(0..)
        .map(|(chunk, number)| Part {
            relation: LARGE_OBJECTS,
            number,
            lower: chunk.first().copied(),
            upper: chunk.last().map(|last| last + 1),
            bytes: (chunk.len() * 8192) as u64,
        })
        .collect();
    let relation = Relation {
        oid: LARGE_OBJECTS,
        schema: "pg_catalog".to_owned(),
        name: "pg_largeobject".to_owned(),
        split: Split::Key("loid".to_owned()),
        bytes: parts.iter().map(|p| p.bytes).sum(),
        rows_estimate: oids.len() as u64,
    };
    Ok(Some((relation, parts)))
}

/// Copies the large objects of one part inside the open transaction of `target`; the caller marks it done there, and commits.
pub(super) async fn copy_part(
    part: &Part,
    options: &ddl::Options,
    snapshot: Lsn,
    source: &mut Connection,
    target: &mut Connection,
    progress: &Progress,
) -> Result<Copied> {
    let _active = progress.begin("copy large objects".to_owned());
    let objects =
        catalog::large_object::read_large_objects(source, part.lower.unwrap_or(0), part.upper.unwrap_or(0))
            .await?;
    let mut bytes = 0;
    for object in &objects {
        bytes += copy_one(object.oid, source, target)
            .await
            .map_err(|e| e.context(format!("could not copy large object {}", object.oid)))?;
    }
    decorate(&objects, options, target).await?;
    progress.add_bytes(part.bytes);
    let rows = objects.len() as u64;
    Ok(Copied { rows, finish: state::finish_part(part, snapshot, rows, bytes) })
}

/// Brings the large objects of the target in line with the source's, in one transaction: those whose contents differ are written again, new
/// ones made, and those that are no longer on the source and came by the copy unlinked. How many were touched.
pub async fn refresh_large_objects(
    source: &mut Connection,
    target: &mut Connection,
    options: &ddl::Options,
) -> Result<usize> {
    let ours = checksums(source).await?;
    let theirs = checksums(target).await?;
    let copied = format!(
        "SELECT m.oid::int8 FROM pg_catalog.pg_largeobject_metadata m WHERE EXISTS (SELECT FROM pgstream.part p \
         WHERE p.relation = {LARGE_OBJECTS} AND m.oid::int8 >= p.lower_bound AND m.oid::int8 < p.upper_bound)"
    );
    let copied: HashSet<u32> =
        target.query(&copied, &[]).await?.iter().map(|row| row.value(0)).collect::<Result<_>>()?;
    let gone = theirs.keys().filter(|oid| copied.contains(oid) && !ours.contains_key(oid)).copied();
    let changed: Vec<u32> =
        ours.iter().filter(|(oid, sum)| theirs.get(oid) != Some(sum)).map(|(oid, _)| *oid).collect();
    let replaced = changed.iter().filter(|oid| theirs.contains_key(oid)).copied();
    let unlinked: Vec<u32> = gone.chain(replaced).collect();
    if changed.is_empty() && unlinked.is_empty() {
        return Ok(0);
    }
    target.execute("BEGIN").await?;
    for oid in &unlinked {
        target.query("SELECT pg_catalog.lo_unlink($1::oid)", &[Some(&oid.to_string())]).await?;
    }
    for &oid in &changed {
        copy_one(oid, source, target)
            .await
            .map_err(|e| e.context(format!("could not copy large object {oid}")))?;
        let range = i64::from(oid)..i64::from(oid) + 1;
        let object = catalog::large_object::read_large_objects(source, range.start, range.end).await?;
        decorate(&object, options, target).await?;
    }
    fault::step("changed large objects", target.execute("COMMIT")).await?;
    Ok(changed.len().max(unlinked.len()))
}

/// The MD5 sum of each large object's contents; a server sums up what it has, and only sums travel.
async fn checksums(connection: &mut Connection) -> Result<BTreeMap<u32, String>> {
    let sql = "SELECT m.oid::int8, pg_catalog.md5(pg_catalog.lo_get(m.oid)) FROM pg_catalog.pg_largeobject_metadata m";
    let rows = connection
        .query(sql, &[])
        .await
        .map_err(|e| e.context(format!("could not read the large objects of the {}", connection.side())))?;
    rows.iter().map(|row| Ok((row.value(0)?, row.value(1)?))).collect()
}

/// Sets owners, comments, security labels and privileges: all at once, and where that fails, object by object; an object that can't have them is reported.
async fn decorate(objects: &[LargeObject], options: &ddl::Options, target: &mut Connection) -> Result<()> {
    let creator = target.config().user.clone();
    let statements = |object: &LargeObject| ddl::large_object::statements(object, options, &creator);
    let all: Vec<String> = objects.iter().flat_map(statements).collect();
    if guarded(target, &all).await?.is_none() {
        return Ok(());
    }
    for object in objects {
        if let Some(error) = guarded(target, &statements(object)).await? {
            let omission = NotCopied {
                kind: "LARGE OBJECT".to_owned(),
                name: object.oid.to_string(),
                reason: format!(
                    "its owner, comment, security labels or privileges could not be set: {error}"
                ),
            };
            state::omit(target, &omission).await?;
        }
    }
    Ok(())
}

async fn copy_one(oid: u32, source: &mut Connection, target: &mut Connection) -> Result<u64> {
    let oid = oid.to_string();
    let mut offset = 0;
    loop {
        let (at, length) = (offset.to_string(), PIECE.to_string());
        let row = source
            .query_one("SELECT pg_catalog.lo_get($1::oid, $2, $3)", &[Some(&oid), Some(&at), Some(&length)])
            .await?;
        let piece = row.text(0).unwrap_or("\\x");
        // `\x` and two digits a byte.
        let size = (piece.len() as u64).saturating_sub(2) / 2;
        let params = [Some(oid.as_str()), Some(at.as_str()), Some(piece)];
        if offset == 0 {
            target.query("SELECT pg_catalog.lo_from_bytea($1::oid, $2)", &[params[0], params[2]]).await?;
        } else if size > 0 {
            target.query("SELECT pg_catalog.lo_put($1::oid, $2, $3)", &params).await?;
        }
        offset += size;
        if size < PIECE {
            return Ok(offset);
        }
    }
}
