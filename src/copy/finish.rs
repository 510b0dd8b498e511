//! What follows the rows: planner statistics.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Side};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::sql::qualified;
use crate::wire::{Connection, Settings};

/// Runs ANALYZE on `tables` (schema and name), `jobs` at a time. A table that can't be analyzed (it isn't ours) is passed over, as by PostgreSQL itself.
pub async fn analyze(
    target: &Config,
    tables: Vec<(String, String)>,
    jobs: usize,
    progress: &Arc<Progress>,
    stop: &CancellationToken,
) -> Result<()> {
    let tables = Arc::new(tables);
    let next = Arc::new(AtomicUsize::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..jobs.clamp(1, tables.len().max(1)) {
        let (tables, next, progress) = (tables.clone(), next.clone(), progress.clone());
        let (target, stop) = (target.clone(), stop.clone());
        workers.spawn(async move {
            let mut session = Connection::connect(&target, Side::Target, &Settings::session()).await?;
            while let Some((schema, name)) = tables.get(next.fetch_add(1, Ordering::Relaxed)) {
                if stop.is_cancelled() {
                    return Err(Error::stopped());
                }
                let _active = progress.begin(format!("analyze {schema}.{name}"));
                let statement = format!("ANALYZE {}", qualified(schema, name));
                match session.execute(&statement).await {
                    Err(e) if session.is_broken() => return Err(e),
                    Err(e) => progress.note(format!("could not analyze table \"{schema}.{name}\": {e}")),
                    Ok(()) => {}
                }
            }
            session.close().await;
            Ok(())
        });
    }
    while let Some(joined) = workers.join_next().await {
        joined.map_err(|e| Error::failed(format!("a worker ended abnormally: {e}")))??;
    }
    Ok(())
}
