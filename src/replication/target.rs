//! The session that changes are applied in.
//!
//! In: the target. Out: a session whose commits don't wait for the disk (the applier makes them durable itself, and reports no position before),
//! whose statements are planned once, and in which triggers and foreign keys are silent, where that is permitted.

use crate::catalog::aiven_extras::{SESSION_REPLICATION_ROLE, callable};
use crate::config::{Config, Side};
use crate::error::Result;
use crate::state;
use crate::wire::{Connection, Settings};

/// Whether triggers, rules and foreign keys act on what is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TriggerRole {
    /// `session_replication_role = replica`: only those that are enabled ALWAYS or for REPLICA.
    Replica,
    /// All do, as in any session: user triggers and foreign keys must be made after the last change is applied.
    Origin,
}

/// Silences triggers and foreign keys in this session by whichever route is permitted: the setting itself (superusers, and since PostgreSQL 15
/// whoever was granted it), or the function of the extension aiven_extras.
pub async fn silence_triggers(target: &mut Connection) -> Result<TriggerRole> {
    let silenced = target.execute(SILENCE).await;
    role(target, silenced).await
}

const SILENCE: &str = "SET session_replication_role = replica";

/// What became of [`SILENCE`]; where it isn't permitted, the other route is tried.
async fn role(target: &mut Connection, silenced: Result<()>) -> Result<TriggerRole> {
    match silenced {
        Ok(()) => return Ok(TriggerRole::Replica),
        Err(error) if error.sqlstate().is_some_and(|s| s.class() == "42") => {}
        Err(error) => return Err(error),
    }
    if target.query(&callable(SESSION_REPLICATION_ROLE), &[]).await?.is_empty() {
        return Ok(TriggerRole::Origin);
    }
    match target.query("SELECT aiven_extras.session_replication_role('replica')", &[]).await {
        Ok(_) => {}
        Err(error) if error.sqlstate().is_some_and(|s| s.class() == "42") => return Ok(TriggerRole::Origin),
        Err(error) => return Err(error),
    }
    let row = target.query_one("SELECT pg_catalog.current_setting('session_replication_role')", &[]).await?;
    Ok(if row.text(0) == Some("replica") { TriggerRole::Replica } else { TriggerRole::Origin })
}

/// What the statements of a transaction are planned by: rows that come together are few beside the table's, and each finds its own by the index, unless
/// they are all rows, or nearly, of a range of keys.
pub(super) const BY_KEY: &str = "SELECT pg_catalog.set_config('enable_nestloop', 'on', true), pg_catalog.set_config('enable_hashjoin', 'off', true)";
pub(super) const BY_RANGE: &str = "SELECT pg_catalog.set_config('enable_nestloop', 'off', true), pg_catalog.set_config('enable_hashjoin', 'on', true)";

/// Opens the session.
pub(super) async fn open(config: &Config, settings: &Settings) -> Result<(Connection, TriggerRole)> {
    let mut target = Connection::connect(config, Side::Target, settings).await?;
    let joins = state::joins_run();
    // A table that was empty when a statement was planned may have grown by the time it runs: never read it whole for the sake of a plan made
    // then, if there is an index.
    // Rows that come together find theirs by the index, too: see BY_KEY.
    let mut statements = vec![
        joins.as_str(),
        "SET synchronous_commit = off",
        "SET enable_seqscan = off",
        "SET enable_hashjoin = off",
        "SET enable_mergejoin = off",
    ];
    if target.version() >= 120_000 {
        statements.push("SET plan_cache_mode = force_generic_plan");
    }
    statements.push(SILENCE);
    let mut outcomes = target.each(&statements).await?;
    let silenced = outcomes.pop().flatten().map_or(Ok(()), Err);
    if let Some(error) = outcomes.into_iter().flatten().next() {
        return Err(error);
    }
    let role = role(&mut target, silenced).await?;
    Ok((target, role))
}
