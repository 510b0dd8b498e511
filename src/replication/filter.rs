//! Which changes a relation still needs: those that its copy does not hold.
//!
//! In: for each relation, the snapshot that its rows were copied under. Out: what to do with a change, by the LSN of its commit. Pure.
//!
//! A snapshot at an LSN sees every transaction whose commit record starts before it, and no other; so a change is applied exactly
//! when its commit LSN is at or past the snapshot's.

use std::collections::HashMap;

use pgstream_proto::lsn::Lsn;

/// What is known of a relation's copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SnapshotRule {
    /// The relation isn't migrated.
    Ignore,
    /// All rows were copied under one snapshot.
    From(Lsn),
    /// Rows were copied in ranges of an integer column, under different snapshots.
    Parts {
        /// The column's name.
        column: String,
        /// The ranges; together they hold every value.
        parts: Vec<PartRule>,
    },
}

/// A range of keys and its snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartRule {
    /// The first key, or `None` for all smaller ones too.
    pub lower: Option<i64>,
    /// The key after the last, or `None` for all larger ones too.
    pub upper: Option<i64>,
    /// The snapshot that the range was copied under.
    pub lsn: Lsn,
}

/// The rules of all relations.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    rules: HashMap<u32, SnapshotRule>,
    /// The latest snapshot of all, as it is asked for with each message.
    latest: Option<Lsn>,
}

/// A rule, as it applies to one commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict<'a> {
    Apply,
    Skip,
    /// It depends on the row's key.
    ByKey(&'a str, &'a [PartRule]),
}

impl PartRule {
    fn holds(&self, key: i64) -> bool {
        self.lower.is_none_or(|lower| lower <= key) && self.upper.is_none_or(|upper| key < upper)
    }
}

/// Whether a change of a row with this key is applied: the key's range was copied before the commit.
pub(super) fn key_is_due(parts: &[PartRule], key: i64, commit: Lsn) -> bool {
    parts.iter().find(|part| part.holds(key)).is_none_or(|part| commit >= part.lsn)
}

impl Filter {
    /// Rules by the relations' OIDs on the source. A relation without a rule was made after the copy: all its changes are due.
    pub fn new(rules: HashMap<u32, SnapshotRule>) -> Filter {
        let snapshots = rules.values().flat_map(|rule| match rule {
            SnapshotRule::Ignore => Vec::new(),
            SnapshotRule::From(snapshot) => vec![*snapshot],
            SnapshotRule::Parts { parts, .. } => parts.iter().map(|part| part.lsn).collect(),
        });
        Filter { latest: snapshots.max(), rules }
    }

    /// Whether every commit after `lsn` is after all snapshots.
    pub(super) fn is_past(&self, lsn: Lsn) -> bool {
        self.latest.is_none_or(|latest| latest <= lsn)
    }

    /// What to do with a change of `relation` that committed at `commit`.
    pub(super) fn verdict(&self, relation: u32, commit: Lsn) -> Verdict<'_> {
        match self.rules.get(&relation) {
            None => Verdict::Apply,
            Some(SnapshotRule::Ignore) => Verdict::Skip,
            Some(SnapshotRule::From(lsn)) if commit >= *lsn => Verdict::Apply,
            Some(SnapshotRule::From(_)) => Verdict::Skip,
            Some(SnapshotRule::Parts { column, parts }) => {
                if parts.iter().all(|part| commit >= part.lsn) {
                    Verdict::Apply
                } else if parts.iter().all(|part| commit < part.lsn) {
                    Verdict::Skip
                } else {
                    Verdict::ByKey(column, parts)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_at_the_snapshot_is_not_in_it() {
        let filter =
            Filter::new(HashMap::from([(1, SnapshotRule::From(Lsn(10))), (2, SnapshotRule::Ignore)]));
        assert_eq!(filter.verdict(1, Lsn(9)), Verdict::Skip);
        assert_eq!(filter.verdict(1, Lsn(10)), Verdict::Apply);
        assert_eq!(filter.verdict(2, Lsn(99)), Verdict::Skip);
        assert_eq!(filter.verdict(3, Lsn(0)), Verdict::Apply);
        assert!(!filter.is_past(Lsn(9)));
        assert!(filter.is_past(Lsn(10)));
    }

    #[test]
    fn parts_matter_only_between_their_snapshots() {
        let part = |lower, upper, lsn| PartRule { lower, upper, lsn: Lsn(lsn) };
        let parts = vec![part(None, Some(100), 10), part(Some(100), None, 20)];
        let rule = SnapshotRule::Parts { column: "id".to_owned(), parts: parts.clone() };
        let filter = Filter::new(HashMap::from([(1, rule)]));
        assert_eq!(filter.verdict(1, Lsn(9)), Verdict::Skip);
        assert_eq!(filter.verdict(1, Lsn(20)), Verdict::Apply);
        assert_eq!(filter.verdict(1, Lsn(15)), Verdict::ByKey("id", &parts));
        assert!(key_is_due(&parts, 99, Lsn(15)));
        assert!(!key_is_due(&parts, 100, Lsn(15)));
    }
}
