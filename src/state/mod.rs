//! What a resume needs, kept in schema `pgstream` of each target database and nowhere else.
//!
//! Rule: a unit of work (a DDL item, a part's COPY) commits **together with** its row here, so a crash leaves either both or neither; the
//! process itself holds no state, and the next run may start on another host.
//!
//! In: a session of the target. Out: [`Migration`], [`ItemState`], [`Part`] rows. What may fail: the target; a schema
//! `pgstream` that this program did not make, or that another source's migration made (both refused, nothing touched).
//!
//! | table | one row for | written |
//! |---|---|---|
//! | `migration` | the database's migration | at the start, at each phase, at the end |
//! | `item` | a DDL item that is made, or could not be | with the item's own statements |
//! | `relation` | a table whose rows are copied | when the copy is planned |
//! | `part` | a piece of a table copied by one COPY | when planned (`pending`), with its COPY (`done`) |
//! | `snapshot` | the snapshot that a running copy offers to its workers | when the rows begin, and when none are left |
//! | `replica_identity` | a source table that was given REPLICA IDENTITY FULL for the stream | before it is given |
//! | `omission` | something that stays behind, and why | when it is found |
//! | `pause` | a comparison that wants the stream to stand still | by the comparison, and by the run that follows |
//! | `checkpoint` | how far the stream is applied | with each applied batch |
//! | `spool` | what files of a host hold of the stream, where there is a spool | when it begins, and before the source is told |

pub mod checkpoint;
mod item;
mod lock;
mod migration;
mod offer;
mod part;
mod pause;
mod rate;
pub mod spool;

pub use item::{
    ItemOutcome, ItemState, fingerprint, forget_omission, items, omissions, omit, record_done, record_item,
    record_omission,
};
pub use lock::{end_lost_session, join_run, joins_run, keep, lock, lock_cutover, lock_holder, try_lock};
pub use migration::{
    Begin, Format, FullIdentity, Migration, Phase, clear_error, create, current, drop_schema, forget_cutover,
    forget_full_identity, full_identities, read, read_again, record_error, record_full_identity,
    request_cutover, set_content, set_phase, set_source_read_only, settle,
};
pub use offer::{Offer, offer, offered, withdraw};
pub use part::{
    LARGE_OBJECTS, Part, PartProgress, Relation, Split, add_relation, claim, finish_part, forget_relation,
    part_progress, pending_parts, relations, rename_relation, reset_relation,
};
pub use pause::{Pause, end_pause, pause, record_pause, request_pause};
pub use rate::{Recent, recent_parts};

use std::collections::HashMap;

use pgstream_proto::lsn::Lsn;

use crate::error::Result;
use crate::wire::Connection;

/// The schema that holds the state; it belongs to pgstream alone and is never copied.
pub const SCHEMA: &str = "pgstream";

/// How many statements of the state schema one `CREATE` needs; each is one statement, for a pipeline.
const TABLES: &[&str] = &[
    "CREATE SCHEMA pgstream",
    "COMMENT ON SCHEMA pgstream IS 'state of pgstream''s migration into this database; pgstream cleanup removes it'",
    "CREATE TABLE pgstream.migration (
        only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
        format integer NOT NULL,
        tool_version text NOT NULL,
        source_system_identifier text NOT NULL,
        source_database text NOT NULL,
        method text NOT NULL CHECK (method IN ('copy', 'replication')),
        phase text NOT NULL,
        error text,
        slot text,
        publication text,
        cutover_lsn pg_lsn,
        source_read_only boolean NOT NULL DEFAULT false,
        options json NOT NULL,
        started_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
        updated_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
        finished_at timestamptz)",
    "CREATE TABLE pgstream.item (
        key text PRIMARY KEY,
        section text NOT NULL,
        fingerprint bigint NOT NULL,
        state text NOT NULL CHECK (state IN ('done', 'partial', 'failed')),
        reason text,
        finished_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp())",
    "CREATE TABLE pgstream.relation (
        oid bigint PRIMARY KEY,
        schema_name text NOT NULL,
        table_name text NOT NULL,
        split text NOT NULL CHECK (split IN ('whole', 'ctid', 'key')),
        split_column text,
        bytes bigint NOT NULL,
        rows_estimate bigint NOT NULL)",
    "CREATE TABLE pgstream.part (
        relation bigint NOT NULL REFERENCES pgstream.relation,
        number integer NOT NULL,
        lower_bound bigint,
        upper_bound bigint,
        bytes bigint NOT NULL,
        state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'done')),
        snapshot_lsn pg_lsn,
        rows bigint,
        copied_bytes bigint,
        started_at timestamptz,
        finished_at timestamptz,
        PRIMARY KEY (relation, number))",
    "CREATE TABLE pgstream.replica_identity (
        schema_name text NOT NULL,
        table_name text NOT NULL,
        had_nothing boolean NOT NULL,
        PRIMARY KEY (schema_name, table_name))",
    "CREATE TABLE pgstream.pause (
        only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
        wanted pg_lsn NOT NULL,
        reached pg_lsn)",
    "CREATE TABLE pgstream.omission (
        kind text NOT NULL,
        name text NOT NULL,
        reason text NOT NULL,
        PRIMARY KEY (kind, name))",
];

/// All that a run looks at before it follows the source.
#[derive(Debug)]
pub struct Standing {
    /// The migration.
    pub migration: Migration,
    /// Every recorded relation with how many of its parts are done and how many there are.
    pub relations: Vec<(Relation, u32, u32)>,
    /// The parts that are copied, by relation, each with the position of the snapshot that it was copied under.
    pub copied: HashMap<u32, Vec<(Part, Lsn)>>,
    /// The pause that is asked for.
    pub pause: Option<Pause>,
}

impl Standing {
    /// Reads it, as a rule in one round trip.
    ///
    /// # Errors
    /// As [`current`].
    pub async fn read(target: &mut Connection) -> Result<Standing> {
        let statements = [migration::ROW, part::RELATIONS, part::COPIED, pause::ROW];
        let found = target.query_each(statements).await;
        let [migration, relations, copied, paused] =
            found.map_err(|e| migration::could_not_read(target, e))?;
        Ok(Standing {
            migration: migration::expected(migration::of(target, &migration)?)?,
            relations: part::relations_of(&relations)?,
            copied: part::copied_of(&copied)?,
            pause: pause::of(target, &paused).await?,
        })
    }

    /// Whether rows are still to be copied.
    pub fn is_open(&self) -> bool {
        self.relations.iter().any(|(_, done, all)| done < all)
    }
}

/// Whether a schema of our name is in the target, and whether it is ours.
pub(crate) async fn schema_exists(target: &mut Connection) -> Result<(bool, bool)> {
    let row = target
        .query_one(
            "SELECT pg_catalog.to_regnamespace('pgstream') IS NOT NULL, pg_catalog.to_regclass('pgstream.migration') IS NOT NULL",
            &[],
        )
        .await?;
    Ok((row.is_true(0), row.is_true(1)))
}
