//! What follows the rows: planner statistics.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::worker::locked;
use crate::config::{Config, Side};
use crate::error::{Error, Result, joined};
use crate::progress::Progress;
use crate::sql::qualified;
use crate::state::Relation;
use crate::wire::{Connection, Settings};

/// Small tables go to the server together: so many at most, of so many bytes.
const TOGETHER: (usize, u64) = (20, 32 << 20);

/// Runs ANALYZE on `tables`, `jobs` at a time. A table that can't be analyzed (it isn't ours) is passed over, as by PostgreSQL itself.
pub async fn analyze(
    target: &Config,
    tables: Vec<Relation>,
    jobs: usize,
    progress: &Arc<Progress>,
    stop: &CancellationToken,
) -> Result<()> {
    let jobs = jobs.clamp(1, tables.len().max(1));
    let tables = Arc::new(Mutex::new(VecDeque::from(tables)));
    let mut workers = JoinSet::new();
    for _ in 0..jobs {
        let (tables, progress) = (tables.clone(), progress.clone());
        let (target, stop) = (target.clone(), stop.clone());
        workers.spawn(async move {
            let mut session = Connection::connect(&target, Side::Target, &Settings::session()).await?;
            loop {
                let some = take(&mut locked(&tables));
                if some.is_empty() {
                    break;
                }
                if stop.is_cancelled() {
                    return Err(Error::stopped());
                }
                let names: Vec<String> =
                    some.iter().map(|table| format!("{}.{}", table.schema, table.name)).collect();
                let _active = match &names[..] {
                    [name] => progress.begin(format!("analyze {name}")),
                    names => progress.begin(format!("analyze {} tables", names.len())),
                };
                let statements: Vec<String> = some
                    .iter()
                    .map(|table| format!("ANALYZE {}", qualified(&table.schema, &table.name)))
                    .collect();
                for (name, failure) in names.iter().zip(session.each(&statements).await?) {
                    if let Some(error) = failure {
                        progress.note(format!("could not analyze table \"{name}\": {error}"));
                    }
                }
            }
            session.close().await;
            Ok(())
        });
    }
    while let Some(ended) = workers.join_next().await {
        joined("a worker", ended)?;
    }
    Ok(())
}

/// The next tables to be analyzed; none when all are.
fn take(tables: &mut VecDeque<Relation>) -> Vec<Relation> {
    let (most, mut room) = TOGETHER;
    let mut some = Vec::new();
    while some.len() < most && tables.front().is_some_and(|next| some.is_empty() || next.bytes <= room) {
        some.extend(tables.pop_front().inspect(|next| room = room.saturating_sub(next.bytes)));
    }
    some
}
