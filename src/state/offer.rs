//! The snapshot that a running copy offers to workers, on whichever host they are.
//!
//! A part may be copied only under the snapshot that is offered, and the two are tied by a row lock: who claims a part shares the offer's row until
//! its transaction ends, and who begins a run takes the row away before it looks at what is done. So a worker of an earlier run has either committed its part
//! before the new run looks, or finds no offer; a part of an old snapshot never turns up among those that a new run has cut.

use std::time::{Duration, Instant};

use pgstream_proto::lsn::Lsn;

use super::lock::end_workers;
use crate::error::{Error, Result};
use crate::fault;
use crate::wire::Connection;

/// What a worker needs to know to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Names the run that offers it among all of this target.
    pub run: i64,
    /// The snapshot's name on the source.
    pub snapshot: String,
    /// The position that it stands at.
    pub lsn: Lsn,
}

const TABLE: &str = "CREATE TABLE IF NOT EXISTS pgstream.snapshot (
        only_one boolean PRIMARY KEY DEFAULT true CHECK (only_one),
        run bigint NOT NULL,
        name text NOT NULL,
        lsn pg_lsn NOT NULL,
        offered_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp())";

/// Whether [`TABLE`] is there; targets of older programs don't have it.
const THERE: &str = "pg_catalog.to_regclass('pgstream.snapshot') IS NOT NULL";

/// How long a worker of an earlier run that claims a part at this very moment is let alone.
const MOMENT: &str = "SET LOCAL lock_timeout = '1s'";

/// How long the workers of an earlier run may take to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Offers a snapshot, in place of any other.
pub async fn offer(target: &mut Connection, snapshot: &str, lsn: Lsn) -> Result<Offer> {
    target.execute(TABLE).await?;
    let sql = "INSERT INTO pgstream.snapshot (run, name, lsn) VALUES (pg_catalog.txid_current(), $1, $2) \
               ON CONFLICT (only_one) DO UPDATE SET run = excluded.run, name = excluded.name, lsn = excluded.lsn, \
                 offered_at = excluded.offered_at RETURNING run";
    let row = target.query_one(sql, &[Some(snapshot), Some(&lsn.to_string())]).await?;
    Ok(Offer { run: row.value(0)?, snapshot: snapshot.to_owned(), lsn })
}

/// What is offered, if anything.
pub async fn offered(target: &mut Connection) -> Result<Option<Offer>> {
    if !target.query_one(&format!("SELECT {THERE}"), &[]).await?.is_true(0) {
        return Ok(None);
    }
    let rows = target.query("SELECT run, name, lsn FROM pgstream.snapshot", &[]).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    let lsn = row.value::<String>(2)?.parse().map_err(|e| Error::failed(format!("{e}")))?;
    Ok(Some(Offer { run: row.value(0)?, snapshot: row.value(1)?, lsn }))
}

/// Takes back what is offered. A worker that is in the middle of a part is waited for, for a moment; the error is `55P03` then.
pub async fn withdraw(target: &mut Connection) -> Result<()> {
    fault::step("snapshot withdrawn", take_back(target)).await
}

async fn take_back(target: &mut Connection) -> Result<()> {
    let withdrawn = target.pipeline(&["BEGIN", MOMENT, "DELETE FROM pgstream.snapshot", "COMMIT"]).await;
    let Err(failure) = withdrawn else { return Ok(()) };
    if !target.is_broken() {
        target.execute("ROLLBACK").await?;
    }
    Err(failure.error)
}

/// Takes back what an earlier run has offered, and ends those who work under it.
pub(super) async fn end_earlier(target: &mut Connection) -> Result<()> {
    let begun = Instant::now();
    loop {
        if !end_workers(target, THERE).await? {
            return Ok(());
        }
        match withdraw(target).await {
            // One has joined in between.
            Err(e) if e.sqlstate().is_some_and(|s| s.as_str() == "55P03") && begun.elapsed() < PATIENCE => {}
            ended => return ended,
        }
    }
}
