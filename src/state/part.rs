//! Relations and their parts: the queue of the bulk copy, and its record.
//!
//! A part has two states. `pending` → `done` is one transaction of the target: it claims the row (`FOR UPDATE SKIP LOCKED`), copies, and
//! marks it. There is no "running" on disk: a crash rolls back to `pending`, and who has a part right now is known by its row lock.

use std::collections::{HashMap, HashSet};

use pgstream_proto::lsn::Lsn;

use crate::error::{Error, Result};
use crate::fault;
use crate::sql::literal;
use crate::wire::{Connection, Row};

/// The number that stands for "large objects" where a relation's source OID is expected: pg_largeobject's own OID.
pub const LARGE_OBJECTS: u32 = 2613;

/// How a table is cut into parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Split {
    /// One part.
    Whole,
    /// By ranges of heap pages. Good under one snapshot only: a row may have moved under the next.
    Ctid,
    /// By ranges of an integer column (its name), which hold under any snapshot.
    Key(String),
}

/// One table whose rows are copied.
#[derive(Debug, Clone)]
pub struct Relation {
    /// OID on the source.
    pub oid: u32,
    /// Schema, on both sides.
    pub schema: String,
    /// Name, on both sides.
    pub name: String,
    /// How it is cut.
    pub split: Split,
    /// Size on the source with TOAST, in bytes.
    pub bytes: u64,
    /// Rows, as the source's statistics estimate them.
    pub rows_estimate: u64,
}

/// One piece of a relation. Bounds are heap pages (`ctid`) or key values (`key`): lower inclusive, upper exclusive, `None` open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// OID of its relation on the source.
    pub relation: u32,
    /// From 0 within the relation.
    pub number: u32,
    /// Where it begins.
    pub lower: Option<i64>,
    /// Where it ends.
    pub upper: Option<i64>,
    /// Estimated size, in bytes.
    pub bytes: u64,
}

/// What `status` shows of the copy.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PartProgress {
    /// Schema of the table.
    pub schema: String,
    /// Name of the table.
    pub name: String,
    /// Parts in all.
    pub parts: u64,
    /// Parts that are done.
    pub parts_done: u64,
    /// Rows copied by the parts that are done.
    pub rows: u64,
    /// Rows, as the source's statistics estimated them.
    pub rows_estimate: u64,
    /// Estimated size, in bytes.
    pub bytes: u64,
    /// Estimated size of the parts that are done, in bytes.
    pub bytes_done: u64,
    /// The latest snapshot LSN of its parts.
    pub snapshot_lsn: Option<Lsn>,
}

/// The statements that record a relation and its pending parts.
pub fn add_relation(relation: &Relation, parts: &[Part]) -> Vec<String> {
    let (split, column) = match &relation.split {
        Split::Whole => ("whole", None),
        Split::Ctid => ("ctid", None),
        Split::Key(column) => ("key", Some(column)),
    };
    let mut statements = vec![format!(
        "INSERT INTO pgstream.relation VALUES ({}, {}, {}, '{split}', {}, {}, {})",
        relation.oid,
        literal(&relation.schema),
        literal(&relation.name),
        column.map_or_else(|| "NULL".to_owned(), |c| literal(c)),
        relation.bytes,
        relation.rows_estimate,
    )];
    statements.extend(add_parts(parts));
    statements
}

fn add_parts(parts: &[Part]) -> Option<String> {
    let bound = |bound: Option<i64>| bound.map_or_else(|| "NULL".to_owned(), |b| b.to_string());
    let rows: Vec<String> = parts
        .iter()
        .map(|p| {
            format!("({}, {}, {}, {}, {})", p.relation, p.number, bound(p.lower), bound(p.upper), p.bytes)
        })
        .collect();
    (!rows.is_empty()).then(|| {
        format!(
            "INSERT INTO pgstream.part (relation, number, lower_bound, upper_bound, bytes) VALUES {}",
            rows.join(", ")
        )
    })
}

/// The statements that forget all that was copied of a relation, and cut it anew as `relation` and `parts` say. Run them in one transaction
/// with the TRUNCATE of the table.
pub fn reset_relation(relation: &Relation, parts: &[Part]) -> Vec<String> {
    let mut statements = forget_relation(relation.oid);
    statements.extend(add_relation(relation, parts));
    statements
}

/// The statements that take a relation (its OID on the source) and its parts off the queue.
pub fn forget_relation(relation: u32) -> Vec<String> {
    vec![
        format!("DELETE FROM pgstream.part WHERE relation = {relation}"),
        format!("DELETE FROM pgstream.relation WHERE oid = {relation}"),
    ]
}

/// Every recorded relation with how many of its parts are done and how many there are.
pub async fn relations(target: &mut Connection) -> Result<Vec<(Relation, u32, u32)>> {
    relations_of(&target.query(RELATIONS, &[]).await?)
}

/// The relations with their parts.
pub(super) const RELATIONS: &str = "SELECT r.oid, r.schema_name, r.table_name, r.split, r.split_column, r.bytes, r.rows_estimate, \
            count(*) FILTER (WHERE p.state = 'done'), count(p.relation) \
     FROM pgstream.relation r LEFT JOIN pgstream.part p ON p.relation = r.oid GROUP BY r.oid ORDER BY r.oid";

/// What [`RELATIONS`] has found.
pub(super) fn relations_of(rows: &[Row]) -> Result<Vec<(Relation, u32, u32)>> {
    rows.iter()
        .map(|row| {
            let split = match (row.text(3), row.optional::<String>(4)?) {
                (Some("whole"), _) => Split::Whole,
                (Some("key"), Some(column)) => Split::Key(column),
                _ => Split::Ctid,
            };
            let relation = Relation {
                oid: row.value(0)?,
                schema: row.value(1)?,
                name: row.value(2)?,
                split,
                bytes: row.value(5)?,
                rows_estimate: row.value(6)?,
            };
            Ok((relation, row.value(7)?, row.value(8)?))
        })
        .collect()
}

/// Claims the largest pending part, or several when the largest is below `small` bytes (at most `limit`): small tables share a
/// commit. Parts of the relations `except` are left to others. The session must be in a transaction; the claim lasts until it ends, and so long the snapshot
/// of `run` stays offered. Empty when that is gone, and when nothing is left that no one else has.
pub async fn claim(
    target: &mut Connection,
    run: i64,
    except: &HashSet<u32>,
    small: u64,
    limit: u32,
) -> Result<Vec<Part>> {
    let except: Vec<String> = except.iter().map(u32::to_string).collect();
    let except = format!("{{{}}}", except.join(","));
    let query = |below: u64, limit: u32| {
        format!(
            "WITH offered AS (SELECT FROM pgstream.snapshot WHERE run = {run} FOR SHARE) \
             SELECT relation, number, lower_bound, upper_bound, bytes FROM pgstream.part \
             WHERE state = 'pending' AND bytes <= {below} AND relation <> ALL ($1::int8[]) AND EXISTS (SELECT FROM offered) \
             ORDER BY bytes DESC, relation, number LIMIT {limit} FOR UPDATE OF part SKIP LOCKED"
        )
    };
    let first = target.query(&query(i64::MAX as u64, 1), &[Some(&except)]).await?;
    let Some(first) = first.first().map(part).transpose()? else { return Ok(Vec::new()) };
    if first.bytes > small {
        return Ok(vec![first]);
    }
    // The first one is locked by this very transaction, so SKIP LOCKED does not pass over it.
    let rows = target.query(&query(first.bytes, limit), &[Some(&except)]).await?;
    rows.iter().map(part).collect()
}

/// The parts that are not done: relation and number.
pub async fn pending_parts(target: &mut Connection) -> Result<Vec<(u32, u32)>> {
    let sql = "SELECT relation, number FROM pgstream.part WHERE state = 'pending'";
    let rows = target.query(sql, &[]).await?;
    rows.iter().map(|row| Ok((row.value(0)?, row.value(1)?))).collect()
}

fn part(row: &Row) -> Result<Part> {
    Ok(Part {
        relation: row.value(0)?,
        number: row.value(1)?,
        lower: row.optional(2)?,
        upper: row.optional(3)?,
        bytes: row.value(4)?,
    })
}

/// The statement that marks a part as done, to be run in the transaction of its COPY.
pub fn finish_part(part: &Part, snapshot: Lsn, rows: u64, bytes: u64) -> String {
    format!(
        "UPDATE pgstream.part SET state = 'done', snapshot_lsn = '{snapshot}', rows = {rows}, copied_bytes = {bytes}, \
         started_at = pg_catalog.now(), finished_at = pg_catalog.clock_timestamp() WHERE relation = {} AND number = {}",
        part.relation, part.number,
    )
}

/// Gives a relation another name, if the target has a table of that name and none of the old one; whether it has.
pub async fn rename_relation(target: &mut Connection, oid: u32, schema: &str, name: &str) -> Result<bool> {
    let sql = "UPDATE pgstream.relation SET schema_name = $2, table_name = $3 WHERE oid = $1 \
         AND pg_catalog.to_regclass(pg_catalog.format('%I.%I', $2::text, $3::text)) IS NOT NULL \
         AND pg_catalog.to_regclass(pg_catalog.format('%I.%I', schema_name, table_name)) IS NULL RETURNING 1";
    let oid = oid.to_string();
    let values = [Some(oid.as_str()), Some(schema), Some(name)];
    Ok(!fault::step("relation renamed", target.query(sql, &values)).await?.is_empty())
}

/// The parts that are copied.
pub(super) const COPIED: &str = "SELECT relation, number, lower_bound, upper_bound, bytes, snapshot_lsn FROM pgstream.part \
     WHERE state = 'done' ORDER BY relation, number";

/// What [`COPIED`] has found, by relation, each part with the position of the snapshot that it was copied under.
pub(super) fn copied_of(rows: &[Row]) -> Result<HashMap<u32, Vec<(Part, Lsn)>>> {
    let mut parts: HashMap<u32, Vec<(Part, Lsn)>> = HashMap::new();
    for row in rows {
        let part = part(row)?;
        let lsn = row.value::<String>(5)?.parse().map_err(|e| Error::failed(format!("{e}")))?;
        parts.entry(part.relation).or_default().push((part, lsn));
    }
    Ok(parts)
}

/// The progress of every relation, largest first.
pub async fn part_progress(target: &mut Connection) -> Result<Vec<PartProgress>> {
    let rows = target
        .query(
            "SELECT r.schema_name, r.table_name, count(*), count(*) FILTER (WHERE p.state = 'done'), \
                    coalesce(sum(p.rows), 0), r.rows_estimate, r.bytes, \
                    coalesce(sum(p.bytes) FILTER (WHERE p.state = 'done'), 0), (array_agg(p.snapshot_lsn ORDER BY p.snapshot_lsn DESC NULLS LAST))[1]::text \
             FROM pgstream.relation r JOIN pgstream.part p ON p.relation = r.oid GROUP BY r.oid ORDER BY r.bytes DESC, 1, 2",
            &[],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let lsn = row.optional::<String>(8)?;
            let lsn =
                lsn.map(|text| text.parse::<Lsn>().map_err(|e| Error::failed(e.to_string()))).transpose()?;
            Ok(PartProgress {
                schema: row.value(0)?,
                name: row.value(1)?,
                parts: row.value(2)?,
                parts_done: row.value(3)?,
                rows: row.value(4)?,
                rows_estimate: row.value(5)?,
                bytes: row.value(6)?,
                bytes_done: row.value(7)?,
                snapshot_lsn: lsn,
            })
        })
        .collect()
}
