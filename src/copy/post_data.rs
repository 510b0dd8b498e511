//! The sessions that make post-data items of a copy, each as soon as its tables are complete, and the one that sees how far their indexes are.
//!
//! In: what all workers share ([`Copy`]), whose schedule says what may be made. Out: items that are made, or recorded as failed. What may fail: the target, and an item
//! whose failure the run doesn't bear.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::apply::apply_items;
use super::schedule::Work;
use super::worker::{Copy, is_full, locked, session};
use crate::catalog::activity;
use crate::config::Side;
use crate::ddl::Item;
use crate::error::Result;
use crate::wire::{Canceller, Connection, Settings};

/// So many more sessions make post-data items that read little, if the target has room for them: most of the time of each is a wait for the disk, to which a
/// new index is written at once.
pub(super) const MORE_FOR_CHEAP: usize = 2;

/// Makes items as they become ready, until none is left. A spare session ends where the target has no room for it.
pub(super) async fn make_items(copy: &Copy, is_spare: bool, sessions: &Mutex<Vec<Canceller>>) -> Result<()> {
    let mut target: Option<Connection> = None;
    loop {
        // Registered before looking, so that what is finished in between wakes us.
        let finished = copy.finished.notified();
        let work = locked(&copy.post_data).take();
        let positions = match work {
            Work::Done => break,
            Work::Wait => {
                finished.await;
                continue;
            }
            Work::Make(positions) => positions,
        };
        let session = match &mut target {
            Some(session) => session,
            None => {
                let opened = match session(&copy.target).await {
                    Err(error) if is_spare && is_full(&error) => {
                        locked(&copy.post_data).give_back(&positions);
                        copy.finished.notify_waiters();
                        return Ok(());
                    }
                    opened => opened?,
                };
                locked(sessions).push(opened.canceller());
                target.insert(opened)
            }
        };
        let items: Vec<_> = {
            let post_data = locked(&copy.post_data);
            positions.iter().map(|&position| post_data.item(position).clone()).collect()
        };
        let _active = what(&items).map(|what| copy.progress.begin(what));
        let items: Vec<_> = items.iter().collect();
        apply_items(session, &items, &copy.failures, &copy.progress).await?;
        locked(&copy.post_data).finish(&positions);
        copy.finished.notify_waiters();
    }
    copy.finished.notify_waiters();
    if let Some(session) = target {
        session.close().await;
    }
    Ok(())
}

/// What the progress says of items that are made together: the first index that is built, or else the first item, stands for all.
fn what(items: &[Item]) -> Option<String> {
    let item = items.iter().find(|item| matches!(item.kind, "INDEX" | "CONSTRAINT")).or(items.first())?;
    let more = match items.len() {
        1 => String::new(),
        all => format!(" and {} more", all - 1),
    };
    Some(format!("{} {}{more}", item.kind.to_lowercase(), item.name))
}

/// How often the server is asked how far its indexes are; most are built in less.
const LOOK: Duration = Duration::from_secs(2);

/// Reports how far the indexes are that are being built, until it is told to end or the server can't be asked.
pub(super) async fn watch_builds(copy: Arc<Copy>, ended: CancellationToken) {
    let mut session: Option<Connection> = None;
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = ended.cancelled() => break,
        }
        if !copy.progress.is_active(&["index", "constraint"]) {
            copy.progress.set_builds(Vec::new());
            continue;
        }
        let builds = async {
            let session = match &mut session {
                Some(session) => session,
                none => {
                    none.insert(Connection::connect(&copy.target, Side::Target, &Settings::session()).await?)
                }
            };
            activity::running_builds(session).await
        };
        match builds.await {
            Ok(builds) => copy.progress.set_builds(builds.iter().map(ToString::to_string).collect()),
            Err(error) => {
                tracing::debug!(%error, "could not see how far indexes are");
                break;
            }
        }
    }
    copy.progress.set_builds(Vec::new());
    if let Some(session) = session {
        session.close().await;
    }
}
