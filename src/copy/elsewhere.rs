//! What a copy has to do with workers of other processes: it takes over what they have done, and waits for what they have.
//!
//! In: the state tables, which are all that the processes share. Out: relations that are complete, though this process did not copy all of them. What may fail: the
//! target; a snapshot that is no longer offered.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::worker::{Copy, locked};
use crate::config::Side;
use crate::error::{Error, ErrorKind, Result};
use crate::state;
use crate::wire::{Connection, Settings};

impl Copy {
    /// Takes over what workers elsewhere have done: of the parts that were open here, only `pending` are. How many are done.
    pub(super) fn only_pending(&self, pending: Vec<(u32, u32)>) -> usize {
        let mut still = HashMap::<u32, HashSet<u32>>::new();
        for (relation, number) in pending {
            still.entry(relation).or_default().insert(number);
        }
        let mut done = 0;
        let mut open = locked(&self.open);
        open.retain(|relation, left| {
            let before = left.len();
            // A part that is done here is not open here, though it may have been pending when the target was asked.
            left.retain(|number| still.get(relation).is_some_and(|numbers| numbers.contains(number)));
            done += before - left.len();
            if left.is_empty() {
                locked(&self.post_data).complete(*relation);
            }
            !left.is_empty()
        });
        if done > 0 {
            self.finished.notify_waiters();
        }
        done
    }
}

/// Nobody joins any more. A run that has failed, and can't say so, leaves that to the next one.
pub(super) async fn withdraw(copy: &Copy) {
    let withdrawn = async {
        let mut session = Connection::connect(&copy.target, Side::Target, &Settings::session()).await?;
        state::withdraw(&mut session).await?;
        session.close().await;
        Ok::<(), Error>(())
    };
    if let Err(error) = withdrawn.await {
        tracing::debug!(%error, "could not take back the snapshot that was offered to workers");
    }
}

/// How often it is looked at what workers elsewhere have done.
const ELSEWHERE: Duration = Duration::from_secs(1);

/// Takes over what workers of other processes do, so that what waits for their parts can begin; until nothing is open or the target can't be asked.
pub(super) async fn watch(copy: &Copy, abort: &CancellationToken) {
    let watched = async {
        let mut session = Connection::connect(&copy.target, Side::Target, &Settings::session()).await?;
        while !locked(&copy.open).is_empty() {
            tokio::time::sleep(ELSEWHERE).await;
            let known: usize = locked(&copy.open).values().map(HashSet::len).sum();
            let count = "SELECT count(*) FROM pgstream.part WHERE state = 'pending'";
            // One that is being committed here at this moment differs too, and is counted here and now.
            if session.query_one(count, &[]).await?.value::<usize>(0)? < known {
                let pending = state::pending_parts(&mut session).await?;
                let done = copy.only_pending(pending);
                (0..done).for_each(|_| copy.progress.add_part(0));
            }
        }
        session.close().await;
        Ok::<(), Error>(())
    };
    tokio::select! {
        watched = watched => if let Err(error) = watched {
            tracing::debug!(%error, "could not see what workers elsewhere have done");
        },
        () = abort.cancelled() => {}
    }
}

/// How long a worker waits that finds no part, before it looks whether one was given back.
pub(super) const AGAIN: Duration = Duration::from_millis(300);

/// Whether parts are left that others have, and may give back.
///
/// # Errors
/// When they can't be claimed any more.
pub(super) async fn is_worth_waiting(copy: &Copy, target: &mut Connection) -> Result<bool> {
    if state::pending_parts(target).await?.is_empty() {
        return Ok(false);
    }
    match state::offered(target).await? {
        Some(offer) if offer.run == copy.offer.run => Ok(true),
        _ => Err(ended_elsewhere()),
    }
}

/// The run that offered the snapshot has failed, was stopped or has given way to another.
pub fn ended_elsewhere() -> Error {
    Error::new(ErrorKind::Stopped, "the copy has ended whose snapshot this worker had joined")
        .with_detail("What the worker has copied is kept.")
}
