//! Metrics for Prometheus, served by an exporter while a command works.
//!
//! In: the counters of `progress`, and of each stream what `status` says of its slot. Out: an HTTP endpoint. What may fail: its address; afterwards
//! nothing that concerns the work: a source that can't be asked only leaves its numbers as they were.
//!
//! | metric | labels | meaning |
//! |---|---|---|
//! | `pgstream_info` | `version`, `migration_id` | 1 |
//! | `pgstream_databases`, `pgstream_databases_done` | | of a whole server |
//! | `pgstream_bytes`, `pgstream_bytes_done` | `database` | rows to copy, and copied |
//! | `pgstream_rows_done` | `database` | rows that this run has copied |
//! | `pgstream_parts`, `pgstream_parts_done`, `pgstream_items`, `pgstream_items_done` | `database` | pieces of the copy, objects of the schema |
//! | `pgstream_lsn` | `database`, `position` | `source`, `received`, `applied`, `durable`, `confirmed`, as a number |
//! | `pgstream_lag_bytes`, `pgstream_lag_seconds` | `database` | what the target lacks |
//! | `pgstream_transactions_total`, `pgstream_changes_total`, `pgstream_conflicts_total`, `pgstream_reconnects_total` | `database` | of this run's stream |
//! | `pgstream_slot_retained_bytes`, `pgstream_slot_active`, `pgstream_slot_lost` | `database` | the slot's health |
//! | `pgstream_warnings_total` | | messages that something may be wrong |

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use metrics::{counter, gauge};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};
use pgstream_proto::lsn::Lsn;

use super::status;
use super::ui::Ui;
use super::watched::{Watched, watched};
use crate::error::{Error, Result};
use crate::migrate::Options;
use crate::progress::{Progress, Snapshot, StreamSnapshot};

/// Between two looks at the counters.
const TICK: Duration = Duration::from_secs(1);
/// Between two questions to the source about its slots.
const SLOT_TICK: Duration = Duration::from_secs(15);

/// Serves metrics until it is dropped.
#[derive(Debug)]
pub(super) struct Metrics(Vec<tokio::task::JoinHandle<()>>);

impl Drop for Metrics {
    fn drop(&mut self) {
        self.0.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// Begins to serve, where an address was asked for.
///
/// # Errors
/// A usage error for an address that can't be listened on.
pub(super) fn serve(
    address: Option<SocketAddr>,
    ui: &Ui,
    options: &Options,
    progress: &Arc<Progress>,
) -> Result<Option<Metrics>> {
    let Some(address) = address else { return Ok(None) };
    let (recorder, exporter) = PrometheusBuilder::new()
        .with_http_listener(address)
        .build()
        .map_err(|e| Error::usage(format!("could not serve metrics at {address}: {e}")))?;
    let served = tokio::spawn(async move {
        if let Err(error) = exporter.await {
            tracing::warn!(?error, "metrics are no longer served");
        }
    });
    let recorder = Arc::new(recorder);
    let (ui, options, progress) = (ui.clone(), options.clone(), progress.clone());
    let watched = tokio::spawn(async move {
        let id = ui.manner().migration_id.clone().unwrap_or_default();
        metrics::with_local_recorder(&*recorder, || {
            gauge!("pgstream_info", "version" => env!("CARGO_PKG_VERSION"), "migration_id" => id).set(1.0);
        });
        let mut asked: Option<Instant> = None;
        let mut ticks = tokio::time::interval(TICK);
        loop {
            ticks.tick().await;
            let mut databases = watched(&options, &progress);
            databases.retain(|database| !database.ended);
            record(&recorder, &ui, &progress, &databases);
            if asked.is_none_or(|at| at.elapsed() >= SLOT_TICK) {
                asked = Some(Instant::now());
                for database in &databases {
                    if database.progress.stream().snapshot().applied != Lsn::INVALID {
                        record_slot(&recorder, database).await;
                    }
                }
            }
        }
    });
    Ok(Some(Metrics(vec![served, watched])))
}

fn record(recorder: &PrometheusRecorder, ui: &Ui, progress: &Progress, databases: &[Watched]) {
    let (done, all) = progress.snapshot().databases;
    metrics::with_local_recorder(recorder, || {
        counter!("pgstream_warnings_total").absolute(ui.warnings());
        if all > 0 {
            gauge!("pgstream_databases").set(all as f64);
            gauge!("pgstream_databases_done").set(done as f64);
        }
        for Watched { name, progress, .. } in databases {
            record_copy(name, &progress.snapshot());
            let stream = progress.stream().snapshot();
            if stream.applied != Lsn::INVALID {
                record_stream(name, &stream);
            }
        }
    });
}

fn record_copy(name: &str, now: &Snapshot) {
    let set =
        |metric: &'static str, value: u64| gauge!(metric, "database" => name.to_owned()).set(value as f64);
    set("pgstream_bytes", now.bytes_total);
    set("pgstream_bytes_done", now.bytes);
    set("pgstream_rows_done", now.rows);
    set("pgstream_parts", now.parts_total);
    set("pgstream_parts_done", now.parts);
    set("pgstream_items", now.items_total);
    set("pgstream_items_done", now.items);
}

fn record_stream(name: &str, now: &StreamSnapshot) {
    let positions = [
        ("source", now.source),
        ("received", now.received),
        ("applied", now.applied),
        ("durable", now.durable),
        ("confirmed", now.confirmed),
    ];
    for (position, lsn) in positions {
        gauge!("pgstream_lsn", "database" => name.to_owned(), "position" => position).set(lsn.0 as f64);
    }
    let lag = now.source.0.saturating_sub(now.applied.0);
    gauge!("pgstream_lag_bytes", "database" => name.to_owned()).set(lag as f64);
    let here = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let committed = now.committed_at.map(|at| at.unix_micros() as f64 / 1e6);
    // Nothing is missing of a source that is idle, however long ago its last commit was.
    let seconds = committed.filter(|_| lag > 0).map_or(0.0, |at| (here.as_secs_f64() - at).max(0.0));
    gauge!("pgstream_lag_seconds", "database" => name.to_owned()).set(seconds);
    let count = |metric: &'static str, value: u64| {
        counter!(metric, "database" => name.to_owned()).absolute(value);
    };
    count("pgstream_transactions_total", now.transactions);
    count("pgstream_changes_total", now.changes);
    count("pgstream_conflicts_total", now.conflicts);
    count("pgstream_reconnects_total", now.reconnects);
}

async fn record_slot(recorder: &PrometheusRecorder, database: &Watched) {
    let Watched { name, source, target, .. } = database;
    let health = match status::slot_health(target, source).await {
        Ok(Some(health)) => health,
        Ok(None) => return,
        Err(error) => return tracing::debug!(%error, "could not ask for the slot's health"),
    };
    metrics::with_local_recorder(recorder, || {
        let set = |metric: &'static str, value: f64| gauge!(metric, "database" => name.to_owned()).set(value);
        set("pgstream_slot_retained_bytes", health.retained_bytes as f64);
        set("pgstream_slot_active", f64::from(u8::from(health.active)));
        set("pgstream_slot_lost", f64::from(u8::from(health.lost)));
    });
}
