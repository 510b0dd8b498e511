//! Counters of a running stream.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use pgstream_proto::lsn::Lsn;
use pgstream_proto::timestamp::Timestamp;

/// How far a stream is. Shared by reference; every counter only grows.
#[derive(Debug, Default)]
pub struct StreamProgress {
    source: AtomicU64,
    received: AtomicU64,
    applied: AtomicU64,
    durable: AtomicU64,
    confirmed: AtomicU64,
    committed_at: AtomicI64,
    transactions: AtomicU64,
    changes: AtomicU64,
    conflicts: AtomicU64,
    reconnects: AtomicU64,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamSnapshot {
    /// Up to where the source has read its write-ahead log for this stream.
    pub source: Lsn,
    /// Up to where messages have arrived.
    pub received: Lsn,
    /// Up to where every change is committed on the target.
    pub applied: Lsn,
    /// Up to where the target's commits survive a crash.
    pub durable: Lsn,
    /// Up to where the source was told that it may let go of its log.
    pub confirmed: Lsn,
    /// When the last applied transaction committed on the source; `None` before the first.
    pub committed_at: Option<Timestamp>,
    /// Source transactions applied in this run.
    pub transactions: u64,
    /// Changes of rows applied in this run.
    pub changes: u64,
    /// Changes that found no row and were skipped.
    pub conflicts: u64,
    /// How often the stream was taken up again after a lost connection.
    pub reconnects: u64,
}

impl StreamProgress {
    /// The source has read its log up to here.
    pub fn set_source(&self, lsn: Lsn) {
        self.source.fetch_max(lsn.0, Ordering::Relaxed);
    }

    /// Messages up to here have arrived.
    pub fn set_received(&self, lsn: Lsn) {
        self.received.fetch_max(lsn.0, Ordering::Relaxed);
    }

    /// Everything up to here is committed on the target; the last transaction had committed at that time on the source.
    pub fn set_applied(&self, lsn: Lsn, committed_at: Option<Timestamp>) {
        self.applied.fetch_max(lsn.0, Ordering::Relaxed);
        if let Some(at) = committed_at {
            self.committed_at.store(at.0, Ordering::Relaxed);
        }
    }

    /// Everything up to here survives a crash of the target.
    pub fn set_durable(&self, lsn: Lsn) {
        self.durable.fetch_max(lsn.0, Ordering::Relaxed);
    }

    /// The source was told that everything up to here is durable.
    pub fn set_confirmed(&self, lsn: Lsn) {
        self.confirmed.fetch_max(lsn.0, Ordering::Relaxed);
    }

    /// Transactions and their changes were committed on the target.
    pub fn add_applied(&self, transactions: u64, changes: u64) {
        self.transactions.fetch_add(transactions, Ordering::Relaxed);
        self.changes.fetch_add(changes, Ordering::Relaxed);
    }

    /// Changes that found no row were skipped.
    pub fn add_conflicts(&self, conflicts: u64) {
        self.conflicts.fetch_add(conflicts, Ordering::Relaxed);
    }

    /// The stream is taken up again.
    pub fn add_reconnect(&self) {
        self.reconnects.fetch_add(1, Ordering::Relaxed);
    }

    /// The counters now.
    pub fn snapshot(&self) -> StreamSnapshot {
        let lsn = |counter: &AtomicU64| Lsn(counter.load(Ordering::Relaxed));
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let committed_at = self.committed_at.load(Ordering::Relaxed);
        StreamSnapshot {
            source: lsn(&self.source),
            received: lsn(&self.received),
            applied: lsn(&self.applied),
            durable: lsn(&self.durable),
            confirmed: lsn(&self.confirmed),
            committed_at: (committed_at != 0).then_some(Timestamp(committed_at)),
            transactions: count(&self.transactions),
            changes: count(&self.changes),
            conflicts: count(&self.conflicts),
            reconnects: count(&self.reconnects),
        }
    }
}
