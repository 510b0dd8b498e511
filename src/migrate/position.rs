//! One position of the source's log at which both sides hold the same, while a run follows the source.
//!
//! In: a target that is followed into. Out: [`OnePosition`], a snapshot of each side of the same commits. What may fail: either server; a run
//! that isn't there, or doesn't get there in time.
//!
//! ```text
//! stand still, anywhere ─► slot with a snapshot of the source: at L ─► follow up to L, exactly ─► snapshot of the target ─► go on
//! ```
//! The stream waits only for this; what is compared under the snapshots may take as long as it likes.

use std::time::{Duration, Instant};

use pgstream_proto::lsn::Lsn;

use super::Run;
use crate::config::{Config, Side};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::replication::{self, Primary, SlotRequest};
use crate::state::{self, Phase};
use crate::wire::{Connection, Settings};

/// How often the other side's progress is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Snapshots of both sides at one position.
#[derive(Debug)]
pub struct OnePosition {
    /// The position.
    pub lsn: Lsn,
    /// The snapshot's name on the source.
    pub source: String,
    /// The snapshot's name on the target.
    pub target: String,
    /// The sessions whose snapshots these are.
    _sessions: [Connection; 2],
}

/// Has a running stream stand still at one position, and takes a snapshot of each side; `None` where nobody follows the source.
///
/// # Errors
/// See the module; the stream goes on in any case.
pub async fn hold(
    source: &Config,
    target: &Config,
    patience: Duration,
    progress: &Progress,
) -> Result<Option<OnePosition>> {
    let mut session = Connection::connect(target, Side::Target, &Settings::session()).await?;
    let Some(migration) = state::read(&mut session).await? else { return Ok(None) };
    let follows = (Phase::CatchUp..Phase::Cutover).contains(&migration.phase);
    let Some(slot) = migration.slot.filter(|_| follows) else { return Ok(None) };
    if state::lock_holder(&mut session).await?.is_none() {
        return Ok(None);
    }
    progress.set_phase("waiting for the stream to stand still");
    state::request_pause(&mut session, Lsn::INVALID).await?;
    let held = take(source, &slot, &mut session, patience).await;
    // Also where the session is broken: its lock is gone then.
    let ended = if session.is_broken() { Ok(()) } else { state::end_pause(&mut session).await };
    let (held, ()) = (held?, ended?);
    session.close().await;
    Ok(Some(held))
}

async fn take(
    source: &Config,
    slot: &str,
    session: &mut Connection,
    patience: Duration,
) -> Result<OnePosition> {
    wait(session, Lsn::INVALID, patience).await?;
    let name = format!("{slot}_verify");
    let request = SlotRequest { name: &name, temporary: true, timeout: patience };
    let created = replication::create_slot(source, &request, |_| {}).await?;
    let lsn = created.consistent_point;
    state::request_pause(session, lsn).await?;
    // What is written now comes after the position, and tells the stream that it is there.
    let mut writer = Connection::connect(source, Side::Source, &Settings::session()).await?;
    let mut primary = Primary::of(&mut writer).await?;
    replication::end_position(primary.session(&mut writer)).await?;
    writer.close().await;
    wait(session, lsn, patience).await?;
    let mut exporter = Connection::connect(session.config(), Side::Target, &Settings::session()).await?;
    exporter.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let target = exporter.query_one("SELECT pg_catalog.pg_export_snapshot()", &[]).await?.value(0)?;
    Ok(OnePosition { lsn, source: created.snapshot, target, _sessions: [created.connection, exporter] })
}

/// Waits until the stream stands still at `lsn` or after it.
async fn wait(session: &mut Connection, lsn: Lsn, patience: Duration) -> Result<()> {
    let begun = Instant::now();
    loop {
        let pause = state::pause(session).await?;
        if pause.is_some_and(|pause| pause.reached.is_some_and(|reached| reached >= lsn)) {
            return Ok(());
        }
        if begun.elapsed() >= patience {
            return Err(Error::failed(format!(
                "the stream did not stand still within {} s",
                patience.as_secs()
            ))
            .with_hint("Wait until pgstream status says syncing; nothing has been changed."));
        }
        tokio::time::sleep(LOOK).await;
    }
}

impl Run<'_> {
    /// Stands still at `reached` as long as a comparison wants it; `false` where the stream has ended for a cutover.
    pub(super) async fn stand_still(&self, target: &mut Connection, reached: Lsn) -> Result<bool> {
        loop {
            if state::current(target).await?.cutover_lsn.is_some() {
                return Ok(false);
            }
            match state::pause(target).await? {
                Some(pause) if pause.wanted <= reached => {
                    if pause.reached.is_none() {
                        state::record_pause(target, reached).await?;
                        self.progress.set_phase("standing still for a comparison");
                    }
                }
                // It is over, or goes on to another position.
                _ => return Ok(true),
            }
            if self.stop.is_cancelled() {
                return Err(Error::stopped());
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}
