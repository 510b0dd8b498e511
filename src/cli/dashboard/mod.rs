//! The dashboard: one page that shows a command at work, served while it works.
//!
//! In: the counters of `progress`, the last messages of the printer, and of each database what `status` says of it. Out: a page over HTTP
//! that keeps itself up to date. What may fail: its address; afterwards nothing that concerns the work.
//!
//! The servers are asked only while somebody looks: each request for the data asks for a fresh look at them, and gets the last one.

mod history;
mod http;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pgstream_proto::lsn::Lsn;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use super::status;
use super::ui::Ui;
use super::watched::{Watched, watched};
use crate::error::{Error, Result, io_reason};
use crate::migrate::Options;
use crate::progress::{Progress, Snapshot, StreamSnapshot};
use crate::wire::Listener;
use history::{History, Sample};

/// Between two samples of the counters.
const TICK: Duration = Duration::from_secs(1);
/// Between two looks at the servers.
const LOOK: Duration = Duration::from_secs(2);
/// Tables of a database that are shown; the others are counted.
const TABLES: usize = 200;

/// Serves the page until it is dropped.
#[derive(Debug)]
pub(super) struct Dashboard(
    // For their destructors: the tasks end with them.
    #[expect(dead_code, reason = "held, not read")] [AbortOnDropHandle<()>; 3],
);

/// Begins to serve, where an address was asked for, and says where.
///
/// # Errors
/// A usage error for an address that can't be listened on.
pub(super) async fn serve(
    address: Option<SocketAddr>,
    ui: &Ui,
    options: &Options,
    progress: &Arc<Progress>,
) -> Result<Option<Dashboard>> {
    let Some(address) = address else { return Ok(None) };
    let refused = |error: std::io::Error| {
        Error::usage(format!("could not serve the dashboard at {address}: {}", io_reason(&error)))
    };
    let listener = Listener::bind(address).await.map_err(refused)?;
    let address = listener.address().map_err(refused)?;
    ui.note(&format!("the dashboard is at http://{address}/"));
    if !address.ip().is_loopback() {
        ui.warning(
            "whoever reaches this host can look at the dashboard: it shows names of databases and tables, and messages",
            Some("Listen at 127.0.0.1, and come to it by ssh -L, if that is not meant."),
        );
    }
    let shared = Arc::new(Shared {
        ui: ui.clone(),
        options: options.clone(),
        progress: progress.clone(),
        begun: Instant::now(),
        history: Mutex::new(History::new()),
        looks: Mutex::default(),
        wanted: Notify::new(),
    });
    let sampler = {
        let shared = shared.clone();
        async move { shared.sample().await }
    };
    let looker = {
        let shared = shared.clone();
        async move { shared.look().await }
    };
    Ok(Some(Dashboard([
        AbortOnDropHandle::new(tokio::spawn(sampler)),
        AbortOnDropHandle::new(tokio::spawn(looker)),
        AbortOnDropHandle::new(tokio::spawn(http::serve(listener, address, shared))),
    ])))
}

/// What the page is made of.
struct Shared {
    ui: Ui,
    options: Options,
    progress: Arc<Progress>,
    begun: Instant,
    history: Mutex<History>,
    /// By database what `status` said last.
    looks: Mutex<HashMap<String, Value>>,
    /// Somebody looks.
    wanted: Notify,
}

/// What is locked here is whole after every statement.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    fn databases(&self) -> Vec<Watched> {
        watched(&self.options, &self.progress)
    }

    async fn sample(&self) {
        let mut ticks = tokio::time::interval(TICK);
        loop {
            ticks.tick().await;
            let databases = self.databases();
            let streams = || databases.iter().map(|database| database.progress.stream().snapshot());
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
            let sample = Sample {
                at: now.as_secs_f64(),
                bytes: self.progress.snapshot().bytes_moved,
                changes: streams().map(|stream| stream.changes).sum(),
                lag: streams().filter_map(|stream| lag(&stream)).max(),
            };
            locked(&self.history).add(sample);
        }
    }

    /// Asks the servers while somebody wants to know.
    async fn look(&self) {
        loop {
            self.wanted.notified().await;
            for Watched { name, source, target, ended, .. } in self.databases() {
                let done = locked(&self.looks).get(&name).is_some_and(|look| look["status"] == "done");
                if ended && done {
                    continue;
                }
                match status::look(&target, &source).await {
                    Ok(mut look) => {
                        keep_most_telling(&mut look);
                        locked(&self.looks).insert(name, look);
                    }
                    // No migration yet, or no answer: what was seen last stays.
                    Err(error) => tracing::debug!(%error, "the dashboard could not look at a database"),
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What the page shows now.
    fn object(&self) -> Value {
        self.wanted.notify_one();
        let databases: Vec<Value> = {
            let looks = locked(&self.looks);
            self.databases().iter().map(|database| object(database, looks.get(&database.name))).collect()
        };
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "migration_id": self.ui.manner().migration_id,
            "phase": self.progress.snapshot().phase,
            "elapsed_seconds": self.begun.elapsed().as_secs_f64(),
            "warnings": self.ui.warnings(),
            "databases": databases,
            "history": locked(&self.history).object(),
            "log": self.ui.recent(),
        })
    }
}

/// How far the target is behind; `None` while no source is followed.
fn lag(stream: &StreamSnapshot) -> Option<u64> {
    (stream.applied != Lsn::INVALID).then(|| stream.source.0.saturating_sub(stream.applied.0))
}

fn object(database: &Watched, look: Option<&Value>) -> Value {
    let Snapshot {
        phase,
        bytes,
        bytes_total,
        rows,
        parts,
        parts_total,
        items,
        items_total,
        active,
        builds,
        ..
    } = database.progress.snapshot();
    let stream = database.progress.stream().snapshot();
    json!({
        "name": database.name,
        "source": database.source.dbname,
        "ended": database.ended,
        "error": database.error,
        "phase": phase,
        "bytes_done": bytes,
        "bytes": bytes_total,
        "rows_done": rows,
        "parts_done": parts,
        "parts": parts_total,
        "items_done": items,
        "items": items_total,
        "active": active,
        "building": builds,
        "lag_bytes": lag(&stream),
        "transactions": stream.transactions,
        "changes": stream.changes,
        "conflicts": stream.conflicts,
        "reconnects": stream.reconnects,
        "state": look,
    })
}

/// Of a database with very many tables, keeps those that are not done, and the largest.
fn keep_most_telling(look: &mut Value) {
    let Some(tables) = look["relations"].as_array_mut() else { return };
    let number = |table: &Value, key: &str| table[key].as_u64().unwrap_or(0);
    let rank = |table: &Value| {
        let (done, all) = (number(table, "parts_done"), number(table, "parts"));
        (done == all, std::cmp::Reverse(number(table, "bytes")))
    };
    tables.sort_by_key(rank);
    tables.truncate(TABLES);
}
