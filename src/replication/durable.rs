//! Makes commits of the target durable, by a session of its own.
//!
//! In: positions that the applier has committed without waiting for the disk. Out: the positions that survive a crash of the target. A transaction
//! that only writes a message to the target's log is committed with waiting (for a synchronous standby too, where there is one), and every
//! commit that came before is durable with it: so no commit of the applier waits. What may fail: the session. Nothing is lost by that:
//! the applier, which sees that nothing becomes durable, waits for the disk itself from then on.

use std::time::Duration;

use pgstream_proto::lsn::Lsn;
use tokio::sync::watch;

use crate::config::{Config, Side};
use crate::error::Result;
use crate::wire::{Connection, Settings};

/// How long it waits at least from one time to the next.
const PAUSE: Duration = Duration::from_secs(1);

/// Any transaction that writes to the log and has an ID does.
const WRITE: &str = "SELECT pg_catalog.pg_logical_emit_message(true, 'pgstream', '')";

/// The session, and where positions come from and go to.
#[derive(Debug)]
pub(super) struct Flusher {
    pub(super) session: Connection,
    pub(super) committed: watch::Receiver<Lsn>,
    pub(super) durable: watch::Sender<Lsn>,
}

impl Flusher {
    /// Opens its session.
    pub(super) async fn open(target: &Config) -> Result<Connection> {
        let mut session = Connection::connect(target, Side::Target, &Settings::session()).await?;
        session.execute("SET synchronous_commit = on").await?;
        Ok(session)
    }

    /// Works until the applier is gone.
    pub(super) async fn run(mut self) {
        while self.committed.changed().await.is_ok() {
            let committed = *self.committed.borrow_and_update();
            if committed > *self.durable.borrow() {
                if let Err(reason) = self.session.query(WRITE, &[]).await {
                    tracing::debug!(%reason, "the applier makes its commits durable itself");
                    return;
                }
                publish(&self.durable, committed);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// Everything up to `lsn` is durable.
pub(super) fn publish(durable: &watch::Sender<Lsn>, lsn: Lsn) {
    durable.send_if_modified(|known| {
        let further = lsn > *known;
        *known = lsn.max(*known);
        further
    });
}
