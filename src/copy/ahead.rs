//! Makes items of the schema by several sessions at once, ahead of the one session that makes what they leave.
//!
//! In: items in an order that one session could follow, and what each needs. Out: the positions of those that are left. What may fail: a session that is lost
//! while it makes items, as nobody knows then whether they are there.
//!
//! An item that can't be made here is only left, with all that needs it: it may need what the catalogs say nothing of (a function that the text of another one
//! names), or have been in the way of another session (a deadlock, a row of a catalog that both change). [`apply_items`](super::apply_items) tries it again
//! when everything before it is there, and reports what is refused then.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::apply::{BATCH, SESSION, try_batch};
use super::schedule::{Schedule, Work};
use super::worker::{is_full, locked, session};
use crate::config::Config;
use crate::ddl::Item;
use crate::error::{Result, joined};
use crate::fault;
use crate::progress::Progress;
use crate::wire::Connection;

/// Fewer items than this are made by one session before a second one has been opened.
const WORTH_IT: usize = 2 * BATCH;

/// After so many refusals the rest is left: a batch that fails is work done twice.
const PATIENCE: usize = 3;

#[derive(Debug)]
struct Ahead {
    target: Config,
    schedule: Mutex<Schedule>,
    refusals: AtomicUsize,
    /// A batch has ended that others may wait for.
    ended: Notify,
    progress: Arc<Progress>,
    stop: CancellationToken,
}

/// Makes as many of the items as can be, by so many `sessions`; the positions of those that are left, in their order. When `stop` is asked for, more are.
///
/// # Errors
/// See the module.
pub async fn make_ahead(
    target: &Config,
    (items, needs): (Vec<Item>, Vec<Vec<usize>>),
    sessions: usize,
    progress: &Arc<Progress>,
    stop: &CancellationToken,
) -> Result<Vec<usize>> {
    if items.len() < WORTH_IT || sessions < 2 {
        return Ok((0..items.len()).collect());
    }
    let ahead = Arc::new(Ahead {
        target: target.clone(),
        schedule: Mutex::new(Schedule::new(items, needs, BATCH)),
        refusals: AtomicUsize::new(0),
        ended: Notify::new(),
        progress: progress.clone(),
        stop: stop.clone(),
    });
    let mut workers = JoinSet::new();
    for _ in 0..sessions {
        let ahead = ahead.clone();
        workers.spawn(async move { ahead.work().await });
    }
    let mut failure = None;
    while let Some(ended) = workers.join_next().await {
        failure = failure.or(joined("a worker", ended).err());
    }
    match failure {
        Some(error) => Err(error),
        None => Ok(locked(&ahead.schedule).left().collect()),
    }
}

impl Ahead {
    /// Makes batches until none is left.
    async fn work(&self) -> Result<()> {
        let mut target = match session(&self.target).await {
            Ok(target) => target,
            // Others may have been opened, and if not, everything is left.
            Err(error) if is_full(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        target.pipeline(SESSION).await?;
        loop {
            // Registered before looking, so that what ends in between wakes us.
            let ended = self.ended.notified();
            if self.stop.is_cancelled() || self.refusals.load(Ordering::Relaxed) >= PATIENCE {
                break;
            }
            let work = locked(&self.schedule).take();
            match work {
                Work::Done => break,
                Work::Wait => ended.await,
                Work::Make(positions) => {
                    let made = self.make(&mut target, &positions).await;
                    self.ended.notify_waiters();
                    made?;
                }
            }
        }
        self.ended.notify_waiters();
        target.close().await;
        Ok(())
    }

    async fn make(&self, target: &mut Connection, positions: &[usize]) -> Result<()> {
        let items: Vec<Item> = {
            let schedule = locked(&self.schedule);
            positions.iter().map(|&position| schedule.item(position).clone()).collect()
        };
        let batch: Vec<&Item> = items.iter().collect();
        let tried = fault::step("items", try_batch(target, &batch)).await;
        let mut schedule = locked(&self.schedule);
        match tried {
            Ok(None) => {
                schedule.finish(positions);
                self.progress.add_items(positions.len() as u64);
            }
            Ok(Some(refused)) => {
                schedule.set_aside(positions[refused]);
                schedule.give_back(&positions[..refused]);
                schedule.give_back(&positions[refused + 1..]);
                self.refusals.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                // The others end with what they have.
                self.refusals.store(PATIENCE, Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(())
    }
}
