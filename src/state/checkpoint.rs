//! How far the stream is applied: one row, written in the transaction of each applied batch.
//!
//! The row is compared before it is replaced: a batch whose predecessor isn't the one it knows fails. A session that a dead process left behind on the
//! target may still hold a batch that a newer process applies again; whichever commits first wins, and the other fails here.
//!
//! Every transaction leaves a version of the row behind. Where an old snapshot is held on the target, by a comparison or a report that takes hours, none of them
//! can be removed, and who looks for the newest walks past all others. So the row gets another key now and then, which the index finds at once.

use pgstream_proto::lsn::Lsn;
use pgstream_proto::timestamp::Timestamp;

use super::spool::{self, Spool};
use crate::error::{Error, Result};
use crate::sql::literal;
use crate::wire::{Connection, Row};

/// Up to where the target holds every change of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// System identifier of the source's cluster.
    pub system_identifier: String,
    /// Timeline of the source when the row was written.
    pub timeline: u32,
    /// The replication slot that the stream comes from.
    pub slot: String,
    /// The end of the last applied commit, or a later position with nothing to apply in between. The stream starts here.
    pub applied: Lsn,
    /// When the last applied transaction committed on the source, as the target writes it.
    pub source_committed_at: Option<String>,
    /// When the row was written.
    pub updated_at: String,
    /// The row's key.
    pub generation: i64,
}

/// The table; one page holds many versions of its row, so that updates stay in place (fillfactor).
const TABLE: &str = "CREATE TABLE IF NOT EXISTS pgstream.checkpoint (
        generation bigint PRIMARY KEY DEFAULT 0,
        system_identifier text NOT NULL,
        timeline bigint NOT NULL,
        slot text NOT NULL,
        applied pg_lsn NOT NULL,
        source_committed_at timestamptz,
        updated_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()) WITH (fillfactor = 10)";

/// Replaces the position $1 by $2 and the key $4 by $5; $3 is the source's commit time, or null. Fails with `division_by_zero` unless the row has
/// that key and stands at $1. All parameters are in binary form, as [`Advance`] has them.
pub const ADVANCE: &str = "WITH moved AS (UPDATE pgstream.checkpoint SET applied = $2, \
     source_committed_at = coalesce($3, source_committed_at), updated_at = pg_catalog.clock_timestamp(), generation = $5 \
     WHERE generation = $4 AND applied = $1 RETURNING 1) \
     SELECT 1 / coalesce((SELECT 1 FROM moved), 0)";

/// OIDs of the parameters of [`ADVANCE`]: pg_lsn, pg_lsn, timestamptz, int8, int8.
pub const ADVANCE_TYPES: &[u32] = &[3220, 3220, 1184, 20, 20];

/// How many versions of the row may have one key.
const VERSIONS: u32 = 256;

/// What one session that alone moves the checkpoint knows of its row: to look for the newest version each time would cost as much as to replace it.
#[derive(Debug)]
pub struct Advance {
    stands_at: Lsn,
    generation: i64,
    versions: u32,
}

impl Advance {
    /// From what was read.
    pub fn from(checkpoint: &Checkpoint) -> Advance {
        Advance { stands_at: checkpoint.applied, generation: checkpoint.generation, versions: 0 }
    }

    /// The parameters of [`ADVANCE`] for the next step, to the end of a commit of the source at that time.
    pub fn step(&mut self, to: Lsn, committed_at: Option<Timestamp>) -> [Option<[u8; 8]>; 5] {
        let (from, generation) = (self.stands_at, self.generation);
        self.stands_at = to;
        self.versions += 1;
        if self.versions == VERSIONS {
            (self.generation, self.versions) = (generation + 1, 0);
        }
        [
            Some(from.0.to_be_bytes()),
            Some(to.0.to_be_bytes()),
            committed_at.map(|at| at.0.to_be_bytes()),
            Some(generation.to_be_bytes()),
            Some(self.generation.to_be_bytes()),
        ]
    }
}

/// The statements that make the table and its first row: the slot's consistent point. Run them in one transaction.
pub fn create(system_identifier: &str, timeline: u32, slot: &str, consistent_point: Lsn) -> [String; 3] {
    let row = format!(
        "INSERT INTO pgstream.checkpoint (system_identifier, timeline, slot, applied) VALUES ({}, {timeline}, {}, '{consistent_point}')",
        literal(system_identifier),
        literal(slot),
    );
    [TABLE.to_owned(), "DELETE FROM pgstream.checkpoint".to_owned(), row]
}

/// The checkpoint, or `None` where there is none.
pub async fn read(target: &mut Connection) -> Result<Option<Checkpoint>> {
    let there = target
        .query_one("SELECT pg_catalog.to_regclass('pgstream.checkpoint') IS NOT NULL", &[])
        .await?
        .is_true(0);
    if !there {
        return Ok(None);
    }
    of(&target.query(ROW, &[]).await?)
}

/// As [`read`], with the spool that is to be applied first, if there is one: in one round trip, for who goes on with a stream.
pub async fn read_with_spool(target: &mut Connection) -> Result<Option<(Checkpoint, Option<Spool>)>> {
    let [rows, spooled] = match target.query_each([ROW, spool::THERE]).await {
        Ok(found) => found,
        Err(error) if error.sqlstate().is_some_and(|s| s.as_str() == "42P01") => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some(checkpoint) = of(&rows)? else { return Ok(None) };
    let spooled = spooled.first().is_some_and(|row| row.is_true(0));
    let spool = if spooled { spool::row(target).await? } else { None };
    Ok(Some((checkpoint, spool)))
}

const ROW: &str = "SELECT system_identifier, timeline, slot, applied, source_committed_at, updated_at, generation FROM pgstream.checkpoint \
     ORDER BY generation DESC LIMIT 1";

/// What [`ROW`] has found.
fn of(rows: &[Row]) -> Result<Option<Checkpoint>> {
    let Some(row) = rows.first() else { return Ok(None) };
    Ok(Some(Checkpoint {
        system_identifier: row.value(0)?,
        timeline: row.value(1)?,
        slot: row.value(2)?,
        applied: row.value::<String>(3)?.parse().map_err(|e| Error::failed(format!("{e}")))?,
        source_committed_at: row.optional(4)?,
        updated_at: row.value(5)?,
        generation: row.value(6)?,
    }))
}

/// Waits until the checkpoint, and so every commit before it, survives a crash of the target, and notes the timeline that the source is on.
pub async fn make_durable(target: &mut Connection, timeline: u32) -> Result<()> {
    let update = format!(
        "UPDATE pgstream.checkpoint SET timeline = {timeline}, updated_at = pg_catalog.clock_timestamp() \
         WHERE generation = (SELECT pg_catalog.max(generation) FROM pgstream.checkpoint)"
    );
    let statements = ["BEGIN", "SET LOCAL synchronous_commit = on", update.as_str(), "COMMIT"];
    target.pipeline(&statements).await.map_err(Error::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_begins_where_the_last_ended_and_no_key_has_many_versions() {
        let mut advance = Advance { stands_at: Lsn(7), generation: 3, versions: 0 };
        let mut stands = (Some(7_u64.to_be_bytes()), Some(3_i64.to_be_bytes()));
        let mut steps_of_keys = vec![0];
        for lsn in 8..8 + 3 * u64::from(VERSIONS) {
            let time = (lsn % 2 == 0).then_some(Timestamp(-1));
            let [from, to, committed_at, key, next_key] = advance.step(Lsn(lsn), time);
            assert_eq!((from, key), stands);
            assert_eq!(committed_at, time.map(|_| [0xff; 8]));
            assert_eq!((to, advance.stands_at), (Some(lsn.to_be_bytes()), Lsn(lsn)));
            *steps_of_keys.last_mut().unwrap() += 1;
            if next_key != key {
                steps_of_keys.push(0);
            }
            stands = (to, next_key);
        }
        assert_eq!(stands.1, Some(6_i64.to_be_bytes()));
        assert_eq!(steps_of_keys, [VERSIONS, VERSIONS, VERSIONS, 0]);
    }
}
