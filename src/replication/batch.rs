//! When a group of source transactions becomes a commit on the target, and when inserts become a COPY. Pure but for the clock.

use std::time::Duration;

use pgstream_proto::lsn::Lsn;
use pgstream_proto::pgoutput::Tuple;
use pgstream_proto::timestamp::Timestamp;
use tokio::time::Instant;

/// A group is committed at the first commit of the source past one of these; a group of one transaction may be larger.
const MOST_CHANGES: u64 = 10_000;
const MOST_BYTES: usize = 8 << 20;
const LONGEST: Duration = Duration::from_millis(50);

/// Commits that may be under way when a small group is sent at once: while the target works on one, the next is there. Past them, changes wait for each other, as
/// each group costs the target something; but where the way to it takes long, a group is sent each time that this has passed.
pub(super) const FEW_UNDERWAY: usize = 2;
pub(super) const PACE: Duration = Duration::from_millis(1);

/// Commits that may be under way at all.
pub(super) const MOST_UNDERWAY: usize = 32;

/// Inserts of one relation, one after the other, from which on a COPY is cheaper than as many statements.
pub(super) const COPY_ROWS: usize = 20;
const COPY_BYTES: usize = 256 << 10;

/// Updates or deletes of one relation from which on one statement, planned for the purpose, is cheaper than as many prepared ones.
pub(super) const MANY_ROWS: usize = 50;

/// Rows of one statement from which on it pays to see whether they are a range, and how many keys that may have for each row.
pub(super) const RANGE_ROWS: usize = 500;
pub(super) const RANGE_KEYS: i128 = 2;

/// Updates and deletes of a group that look themselves whether they reach their row: those of some transactions.
pub(super) const MOST_LOOKED_AT: usize = 64;

/// Changes are gathered up to so many of one relation, or so many bytes of messages.
pub(super) const MOST_GATHERED_ROWS: usize = 8_192;
pub(super) const MOST_GATHERED_BYTES: usize = 4 << 20;

/// The source transactions that are applied in one transaction of the target.
#[derive(Debug)]
pub(super) struct Group {
    /// When its first change came.
    pub(super) started: Instant,
    /// Whether the target's transaction is open.
    pub(super) begun: bool,
    /// Changes of rows so far.
    pub(super) changes: u64,
    /// Source transactions that are complete.
    pub(super) transactions: u64,
    /// Bytes of messages so far.
    pub(super) bytes: usize,
    /// Updates and deletes so far that look themselves whether they reach their row.
    pub(super) looked_at: usize,
}

/// Where the stream stands when a source transaction has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    /// The end of its commit record.
    pub(super) end: Lsn,
    /// When it committed on the source.
    pub(super) committed_at: Option<Timestamp>,
}

impl Group {
    pub(super) fn new(now: Instant) -> Group {
        Group { started: now, begun: false, changes: 0, transactions: 0, bytes: 0, looked_at: 0 }
    }

    /// When it is full if nothing else fills it.
    pub(super) fn full_at(&self) -> Instant {
        self.started + LONGEST
    }

    /// Whether its only source transaction is so large that to wait for answers before the commit is nothing beside the rest.
    pub(super) fn is_large(&self) -> bool {
        self.transactions == 0 && self.changes >= MOST_CHANGES
    }

    /// Whether it should be committed as soon as its last source transaction is complete, though more are waiting.
    pub(super) fn is_full(&self, now: Instant) -> bool {
        self.changes >= MOST_CHANGES || self.bytes >= MOST_BYTES || now >= self.full_at()
    }
}

/// Inserts of one relation that follow each other.
#[derive(Debug)]
pub(super) struct Run {
    /// The relation's OID on the source.
    pub(super) relation: u32,
    /// The rows, until a COPY begins.
    pub(super) rows: Vec<Tuple>,
    /// Bytes of `rows`.
    pub(super) bytes: usize,
    /// Whether a COPY has begun.
    pub(super) copied: bool,
}

impl Run {
    pub(super) fn new(relation: u32) -> Run {
        Run { relation, rows: Vec::new(), bytes: 0, copied: false }
    }

    /// Whether it is long enough for a COPY to begin.
    pub(super) fn is_worth_a_copy(&self) -> bool {
        self.rows.len() >= COPY_ROWS || (self.rows.len() > 1 && self.bytes >= COPY_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_full_by_changes_bytes_or_time() {
        let start = Instant::now();
        let mut group = Group::new(start);
        assert!(!group.is_full(start));
        assert!(group.is_full(start + LONGEST));
        group.changes = MOST_CHANGES;
        assert!(group.is_full(start));
        let mut group = Group::new(start);
        group.bytes = MOST_BYTES;
        assert!(group.is_full(start));
    }
}
