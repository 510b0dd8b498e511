//! Where a source is written to: itself, or its primary where it is a standby.
//!
//! In: a session of the source, whose configuration names the primary if it has one. Out: the session for the little that is written to a source: the publication, replica
//! identities, the mark of the end, the setting that makes it read-only. What may fail: a standby whose primary isn't named, or is no primary of
//! it; a standby that doesn't replay what its primary writes.
//!
//! A standby decodes what it has replayed. Before a slot is made on it, it must know the publication; and a slot waits for a record of running
//! transactions, which only the primary writes: now and then, or when it is told to.

use std::time::Duration;

use tokio::time::Instant;

use crate::catalog::replication::{ReplicationSource, read_replication_source};
use crate::catalog::server::{current_lsn, identity};
use crate::config::Side;
use crate::error::{Error, Result};
use crate::wire::{Connection, Settings};

/// How long a standby may take to replay what was just written.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often one looks.
const LOOK: Duration = Duration::from_millis(50);

/// The session that writes to a source, where that isn't the source's own.
#[derive(Debug)]
pub struct Primary(Option<Connection>);

impl Primary {
    /// Finds out where the source of this session is written to.
    ///
    /// # Errors
    /// See the module; the primary can't be reached.
    pub async fn of(source: &mut Connection) -> Result<Primary> {
        let standby = is_standby(source).await?;
        let Some(config) = source.config().primary.clone() else {
            return if standby { Err(unnamed()) } else { Ok(Primary(None)) };
        };
        if !standby {
            return Err(Error::usage("the source is no standby, and --source-primary names another server").with_hint(
                "Leave out --source-primary, where the source was promoted; or name the standby as --source.",
            ));
        }
        let mut session = Connection::connect(&config, Side::Source, &Settings::session())
            .await
            .map_err(|error| error.context("could not reach the primary of the source"))?;
        let (here, there) = (identity(source).await?, identity(&mut session).await?);
        if (&here.system_identifier, here.oid) != (&there.system_identifier, there.oid) {
            return Err(Error::usage("--source-primary is not the primary of --source").with_detail(
                format!(
                    "Their system identifiers are {} and {}.",
                    there.system_identifier, here.system_identifier
                ),
            ));
        }
        if is_standby(&mut session).await? {
            return Err(Error::usage("--source-primary names a standby")
                .with_hint("Name the server that the others replicate from."));
        }
        Ok(Primary(Some(session)))
    }

    /// The session to write with; `source` is the one that this was made of.
    pub fn session<'a>(&'a mut self, source: &'a mut Connection) -> &'a mut Connection {
        self.0.as_mut().unwrap_or(source)
    }

    /// Waits until the source knows what was written by now.
    ///
    /// # Errors
    /// When it takes too long.
    pub async fn replayed(&mut self, source: &mut Connection) -> Result<()> {
        let Some(primary) = &mut self.0 else { return Ok(()) };
        let written = current_lsn(primary).await?;
        let begun = Instant::now();
        loop {
            let replayed = current_lsn(source).await?;
            if replayed >= written {
                return Ok(());
            }
            if begun.elapsed() >= PATIENCE {
                return Err(Error::failed(format!(
                    "the source, a standby, has replayed up to {replayed} of its primary's {written} within {} s",
                    PATIENCE.as_secs()
                ))
                .with_hint("Look whether it is connected to its primary (pg_stat_wal_receiver), and run the same command again."));
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn unnamed() -> Error {
    Error::usage("the source is a standby, which can't be written to")
        .with_hint("Name its primary, by --source-primary; or wait until it is promoted.")
}

async fn is_standby(session: &mut Connection) -> Result<bool> {
    Ok(session.query_one("SELECT pg_catalog.pg_is_in_recovery()", &[]).await?.is_true(0))
}

/// What replication needs of the source: of a standby whose primary is named, its own slots and walsenders, and the primary's rights and tables.
///
/// # Errors
/// The servers', and what is no primary of it.
pub async fn read_source(source: &mut Connection) -> Result<ReplicationSource> {
    let here = read_replication_source(source).await?;
    let here = ReplicationSource { primary_named: source.config().primary.is_some(), ..here };
    if !(here.in_recovery && here.primary_named) {
        return Ok(here);
    }
    let there = read_replication_source(Primary::of(source).await?.session(source)).await?;
    Ok(ReplicationSource {
        version: here.version,
        in_recovery: here.in_recovery,
        primary_named: here.primary_named,
        feeds_back: here.feeds_back,
        free_slots: here.free_slots,
        free_senders: here.free_senders,
        may_replicate: here.may_replicate,
        slot_keep_megabytes: here.slot_keep_megabytes,
        timeouts: here.timeouts,
        ..there
    })
}
