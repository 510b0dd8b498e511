//! The row of the migration itself.

use std::fmt;
use std::str::FromStr;

use pgstream_proto::lsn::Lsn;

use super::TABLES;
use crate::ddl;
use crate::error::{Error, Result};
use crate::fault;
use crate::schema::table::{ReplicaIdentity, Table};
use crate::wire::{Connection, Row};

/// Version of the state tables; a run refuses tables of another format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Format;

impl Format {
    /// The format that this program reads and writes.
    pub const CURRENT: i32 = 2;
}

/// How far a migration is. Each phase is entered by `migrate`, and a restart begins with the phase that it finds: each step
/// looks at what is there and does what is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// The state tables are there; pre-data items are being made.
    PreData,
    /// Parts are being copied, and post-data items follow table by table.
    Copy,
    /// Every row is there; what is left of post-data, sequences, large objects.
    PostData,
    /// Privileges, event triggers, materialized views, statistics.
    Finish,
    /// The stream is applied, and is behind.
    CatchUp,
    /// The stream is applied as it comes.
    Syncing,
    /// Everything is on the target; what was held back is made there, slot and publication go. The source is followed no more.
    Cutover,
    /// Nothing is left to do.
    Done,
}

const NAMES: [(Phase, &str); 8] = [
    (Phase::PreData, "pre-data"),
    (Phase::Copy, "copy"),
    (Phase::PostData, "post-data"),
    (Phase::Finish, "finish"),
    (Phase::CatchUp, "catch-up"),
    (Phase::Syncing, "syncing"),
    (Phase::Cutover, "cutover"),
    (Phase::Done, "done"),
];

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAMES.iter().find(|(phase, _)| phase == self).map_or("", |(_, name)| name))
    }
}

impl FromStr for Phase {
    type Err = Error;

    fn from_str(text: &str) -> Result<Phase> {
        let found = NAMES.iter().find(|(_, name)| *name == text).map(|(phase, _)| *phase);
        found.ok_or_else(|| Error::failed(format!("unexpected phase in the state tables: \"{text}\"")))
    }
}

/// The migration that a target database holds.
#[derive(Debug, Clone)]
pub struct Migration {
    /// System identifier of the source's cluster.
    pub source_system_identifier: String,
    /// Name of the source database.
    pub source_database: String,
    /// `copy` or `replication`.
    pub method: String,
    /// How far it is.
    pub phase: Phase,
    /// What of the source is copied; `None` where the program that began it didn't say.
    pub content: Option<ddl::Options>,
    /// The error that ended the last run, if it failed.
    pub error: Option<String>,
    /// The replication slot on the source, if there is one.
    pub slot: Option<String>,
    /// The publication on the source, if there is one.
    pub publication: Option<String>,
    /// The position that a cutover asked for.
    pub cutover_lsn: Option<Lsn>,
    /// pgstream made the source database read-only.
    pub source_read_only: bool,
    /// Why the method auto chose `copy`, one full sentence each.
    pub fallback: Vec<String>,
    /// When it was begun, as the target's clock says it.
    pub started_at: String,
    /// When its state last changed.
    pub updated_at: String,
    /// When it was done.
    pub finished_at: Option<String>,
    /// Seconds since it was begun, up to its end.
    pub elapsed_seconds: f64,
}

/// The target's migration, or `None` where there is none.
///
/// # Errors
/// A schema `pgstream` that isn't ours, or tables of another format.
pub async fn read(target: &mut Connection) -> Result<Option<Migration>> {
    let (schema, ours) = super::schema_exists(target).await?;
    let database = target.config().dbname.clone();
    if schema && !ours {
        return Err(Error::usage(format!(
            "target database \"{database}\" has a schema \"pgstream\" that pgstream did not make"
        ))
        .with_hint("Rename or drop that schema, or choose another target database."));
    }
    if ours { row(target).await } else { Ok(None) }
}

/// As [`read`], where there was one a moment ago: in one round trip.
///
/// # Errors
/// As [`read`].
pub async fn read_again(target: &mut Connection) -> Result<Option<Migration>> {
    match row(target).await {
        // Somebody has cleaned up.
        Err(error) if error.sqlstate().is_some_and(|s| matches!(s.as_str(), "42P01" | "3F000")) => {
            read(target).await
        }
        migration => migration,
    }
}

/// The target's migration, for who knows that there is one: in one round trip.
///
/// # Errors
/// It is gone; tables of another format.
pub async fn current(target: &mut Connection) -> Result<Migration> {
    expected(row(target).await?)
}

/// The migration of a target that has one.
pub(super) fn expected(migration: Option<Migration>) -> Result<Migration> {
    migration.ok_or_else(|| Error::failed("the state tables on the target are empty"))
}

/// The row of the migration.
pub(super) const ROW: &str = "SELECT format, source_system_identifier, source_database, method, phase, error, slot, publication, \
            started_at::text, updated_at::text, finished_at::text, \
            extract(epoch FROM coalesce(finished_at, pg_catalog.clock_timestamp()) - started_at)::float8, \
            cutover_lsn, source_read_only, coalesce(options->>'fallback', '[]'), options->>'content' \
     FROM pgstream.migration";

async fn row(target: &mut Connection) -> Result<Option<Migration>> {
    let rows = target.query(ROW, &[]).await.map_err(|e| could_not_read(target, e))?;
    of(target, &rows)
}

pub(super) fn could_not_read(target: &Connection, error: Error) -> Error {
    error
        .context(format!("could not read pgstream's state in target database \"{}\"", target.config().dbname))
}

/// What [`ROW`] has found.
pub(super) fn of(target: &Connection, rows: &[Row]) -> Result<Option<Migration>> {
    let database = &target.config().dbname;
    let Some(row) = rows.first() else { return Ok(None) };
    let format: i32 = row.value(0)?;
    if format != Format::CURRENT {
        return Err(Error::usage(format!(
            "the state in target database \"{database}\" has format {format}, and this pgstream reads format {}",
            Format::CURRENT
        ))
        .with_hint("Go on with the version of pgstream that began the migration, or run pgstream cleanup."));
    }
    Ok(Some(Migration {
        source_system_identifier: row.value(1)?,
        source_database: row.value(2)?,
        method: row.value(3)?,
        phase: row.value::<String>(4)?.parse()?,
        content: row.optional::<String>(15)?.map(|text| content(&text)).transpose()?,
        error: row.optional(5)?,
        slot: row.optional(6)?,
        publication: row.optional(7)?,
        cutover_lsn: row
            .optional::<String>(12)?
            .map(|text| text.parse().map_err(|e| Error::failed(format!("{e}"))))
            .transpose()?,
        source_read_only: row.is_true(13),
        fallback: serde_json::from_str(&row.value::<String>(14)?)
            .map_err(|e| Error::failed(format!("unexpected options in the state tables: {e}")))?,
        started_at: row.value(8)?,
        updated_at: row.value(9)?,
        finished_at: row.optional(10)?,
        elapsed_seconds: row.value(11)?,
    }))
}

fn content(text: &str) -> Result<ddl::Options> {
    serde_json::from_str(text)
        .map_err(|e| Error::failed(format!("unexpected options in the state tables: {e}")))
}

/// How a migration begins.
#[derive(Debug, Clone)]
pub struct Begin<'a> {
    /// System identifier of the source's cluster.
    pub system_identifier: &'a str,
    /// The source database.
    pub database: &'a str,
    /// `copy` or `replication`.
    pub method: &'a str,
    /// Name of the slot, and of the publication, that will be made on the source.
    pub stream: Option<&'a str>,
    /// What the run was asked for.
    pub options: &'a serde_json::Value,
    /// What of the source is copied.
    pub content: &'a ddl::Options,
}

/// Makes the state tables and the migration's row, in one transaction.
pub async fn create(target: &mut Connection, begin: &Begin<'_>) -> Result<()> {
    use crate::sql::literal;
    let stream = begin.stream.map_or_else(|| "NULL".to_owned(), literal);
    let mut options = begin.options.clone();
    options["content"] = content_json(begin.content)?;
    let mut statements: Vec<String> = vec!["BEGIN".to_owned()];
    statements.extend(TABLES.iter().map(|&sql| sql.to_owned()));
    statements.push(format!(
        "INSERT INTO pgstream.migration (format, tool_version, source_system_identifier, source_database, method, phase, slot, publication, options) \
         VALUES ({}, {}, {}, {}, {}, '{}', {stream}, {stream}, {})",
        Format::CURRENT,
        literal(env!("CARGO_PKG_VERSION")),
        literal(begin.system_identifier),
        literal(begin.database),
        literal(begin.method),
        Phase::PreData,
        literal(&options.to_string()),
    ));
    statements.push("COMMIT".to_owned());
    if let Err(failure) = target.pipeline(&statements).await {
        if !target.is_broken() && target.in_transaction() {
            target.execute("ROLLBACK").await?;
        }
        let database = target.config().dbname.clone();
        let user = target.config().user.clone();
        let error = failure
            .error
            .context(format!("could not create schema \"pgstream\" in target database \"{database}\""));
        let denied = error.sqlstate().is_some_and(|s| s.as_str() == "42501");
        return Err(if denied {
            error.with_hint(format!(
                "Grant it: GRANT CREATE ON DATABASE {} TO {};",
                crate::sql::ident(&database),
                crate::sql::ident(&user)
            ))
        } else {
            error
        });
    }
    Ok(())
}

/// Enters `phase`; a phase never goes back.
pub async fn set_phase(target: &mut Connection, phase: Phase) -> Result<()> {
    let done = if phase == Phase::Done { ", finished_at = pg_catalog.clock_timestamp()" } else { "" };
    let sql = format!(
        "UPDATE pgstream.migration SET phase = $1, error = NULL, updated_at = pg_catalog.clock_timestamp(){done}"
    );
    let phase = phase.to_string();
    fault::step(&format!("phase {phase}"), async { target.query(&sql, &[Some(&phase)]).await.map(drop) })
        .await
}

/// Makes durable what other sessions committed without waiting for the disk; a change of phase does it too.
pub async fn settle(target: &mut Connection) -> Result<()> {
    target.execute("UPDATE pgstream.migration SET updated_at = pg_catalog.clock_timestamp()").await
}

/// Remembers another choice of what is copied than the migration was begun with.
pub async fn set_content(target: &mut Connection, content: &ddl::Options) -> Result<()> {
    let sql = "UPDATE pgstream.migration SET options = (options::jsonb || \
         pg_catalog.jsonb_build_object('content', $1::jsonb))::json";
    let content = content_json(content)?.to_string();
    fault::step("choice recorded", async { target.query(sql, &[Some(&content)]).await.map(drop) }).await
}

fn content_json(content: &ddl::Options) -> Result<serde_json::Value> {
    serde_json::to_value(content).map_err(|e| Error::failed(format!("could not record what is copied: {e}")))
}

/// Asks whoever follows the source to end at `lsn`.
pub async fn request_cutover(target: &mut Connection, lsn: Lsn) -> Result<()> {
    let sql = "UPDATE pgstream.migration SET cutover_lsn = $1, updated_at = pg_catalog.clock_timestamp()";
    let lsn = lsn.to_string();
    fault::step("end position", async { target.query(sql, &[Some(&lsn)]).await.map(drop) }).await
}

/// Forgets the request of a cutover that is gone.
pub async fn forget_cutover(target: &mut Connection) -> Result<()> {
    let sql = "UPDATE pgstream.migration SET cutover_lsn = NULL WHERE cutover_lsn IS NOT NULL";
    fault::step("cutover forgotten", target.execute(sql)).await
}

/// Remembers that pgstream made the source database read-only, or that it is no longer.
pub async fn set_source_read_only(target: &mut Connection, read_only: bool) -> Result<()> {
    let sql = format!("UPDATE pgstream.migration SET source_read_only = {read_only}");
    let step = if read_only { "read-only recorded" } else { "writable recorded" };
    fault::step(step, target.execute(&sql)).await
}

/// A source table that was given REPLICA IDENTITY FULL for the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FullIdentity {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub table: String,
    /// Whether it had REPLICA IDENTITY NOTHING before, and not DEFAULT.
    pub had_nothing: bool,
}

impl FullIdentity {
    /// Gives the table, if it is among these, the replica identity that it had before; whether it has another one now.
    pub fn take_back(&self, tables: &mut [Table]) -> bool {
        let of = |table: &&mut Table| table.schema == self.schema && table.name == self.table;
        let Some(table) = tables.iter_mut().find(of) else { return false };
        let before = if self.had_nothing { ReplicaIdentity::Nothing } else { ReplicaIdentity::Default };
        std::mem::replace(&mut table.replica_identity, before) != before
    }
}

/// Remembers that a source table is given REPLICA IDENTITY FULL; to be called before it is given.
pub async fn record_full_identity(target: &mut Connection, given: &FullIdentity) -> Result<()> {
    let sql = "INSERT INTO pgstream.replica_identity VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";
    let had_nothing = if given.had_nothing { "true" } else { "false" };
    let values = [Some(given.schema.as_str()), Some(&given.table), Some(had_nothing)];
    fault::step("replica identity recorded", async { target.query(sql, &values).await.map(drop) }).await
}

/// Forgets a source table that has its own replica identity again.
pub async fn forget_full_identity(target: &mut Connection, given: &FullIdentity) -> Result<()> {
    let sql = "DELETE FROM pgstream.replica_identity WHERE schema_name = $1 AND table_name = $2";
    let values = [Some(given.schema.as_str()), Some(&given.table)];
    fault::step("replica identity forgotten", async { target.query(sql, &values).await.map(drop) }).await
}

/// The source tables that were given REPLICA IDENTITY FULL.
pub async fn full_identities(target: &mut Connection) -> Result<Vec<FullIdentity>> {
    let sql = "SELECT schema_name, table_name, had_nothing FROM pgstream.replica_identity ORDER BY 1, 2";
    let rows = target.query(sql, &[]).await?;
    rows.iter()
        .map(|row| {
            Ok(FullIdentity { schema: row.value(0)?, table: row.value(1)?, had_nothing: row.is_true(2) })
        })
        .collect()
}

/// Remembers the error that ends a run, for `status`.
pub async fn record_error(target: &mut Connection, error: &str) -> Result<()> {
    let sql = "UPDATE pgstream.migration SET error = $1, updated_at = pg_catalog.clock_timestamp()";
    fault::step("error recorded", async { target.query(sql, &[Some(error)]).await.map(drop) }).await
}

/// Forgets the error of an earlier run.
pub async fn clear_error(target: &mut Connection) -> Result<()> {
    let sql = "UPDATE pgstream.migration SET error = NULL WHERE error IS NOT NULL";
    fault::step("error cleared", target.execute(sql)).await
}

/// Removes the state tables.
pub async fn drop_schema(target: &mut Connection) -> Result<()> {
    fault::step("state tables gone", target.execute("DROP SCHEMA pgstream CASCADE")).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_round_trip_through_their_names_in_order() {
        for pair in NAMES.windows(2) {
            assert!(pair[0].0 < pair[1].0);
        }
        for (phase, name) in NAMES {
            assert_eq!(phase.to_string(), name);
            assert_eq!(name.parse::<Phase>().unwrap(), phase);
        }
        assert!("other".parse::<Phase>().is_err());
    }
}
