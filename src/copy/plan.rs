//! Cuts tables into parts; pure.

use crate::schema::table::Table;
use crate::state::{Part, Relation, Split};

/// When and how large tables are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SplitRule {
    /// Tables above this size (with TOAST, in bytes) are cut into parts of about this size; 0 cuts nothing.
    pub larger_than: u64,
    /// `server_version_num` of the source: servers from 14 read a range of ctids without scanning the table.
    pub source_version: u32,
}

/// A relation and its parts, as they go into the state tables.
#[derive(Debug, Clone)]
pub struct PlannedRelation {
    /// The relation.
    pub relation: Relation,
    /// Its parts, in order; never empty.
    pub parts: Vec<Part>,
}

/// More parts than this only cost round trips.
const MOST_PARTS: u64 = 1000;

/// OIDs of int2, int8 and int4.
const INTEGERS: [u32; 3] = [21, 20, 23];

impl SplitRule {
    /// How many parts a table should have.
    fn parts(&self, table: &Table) -> u64 {
        if self.larger_than == 0 || table.bytes <= self.larger_than {
            return 1;
        }
        table.bytes.div_ceil(self.larger_than).min(MOST_PARTS)
    }

    /// The column whose smallest and largest value are needed to cut `table`, or `None` where none is.
    pub fn key_column<'a>(&self, table: &'a Table) -> Option<&'a str> {
        if self.parts(table) == 1 || self.source_version >= 140_000 {
            return None;
        }
        let first = table.primary_key.first()?;
        INTEGERS.contains(&first.type_oid).then_some(first.name.as_str())
    }
}

/// Cuts one table of `pages` heap pages. `key_range` is the smallest and largest value of [`SplitRule::key_column`], where that names a column.
pub fn plan_relation(
    table: &Table,
    rule: &SplitRule,
    pages: i64,
    key_range: Option<(i64, i64)>,
) -> PlannedRelation {
    let wanted = rule.parts(table);
    let (split, bounds) = match (rule.key_column(table), key_range) {
        (Some(column), Some((least, greatest))) if wanted > 1 => {
            (Split::Key(column.to_owned()), cut(least, greatest.saturating_add(1), wanted))
        }
        _ if wanted > 1 && rule.source_version >= 140_000 && pages > 1 => {
            // The last part is open, so that pages which come until the snapshot is taken are in it.
            (Split::Ctid, cut(0, pages, wanted))
        }
        _ => (Split::Whole, vec![(None, None)]),
    };
    let share = table.bytes / bounds.len() as u64;
    let parts = bounds
        .iter()
        .zip(0..)
        .map(|(&(lower, upper), number)| Part { relation: table.oid, number, lower, upper, bytes: share })
        .collect();
    let relation = Relation {
        oid: table.oid,
        schema: table.schema.clone(),
        name: table.name.clone(),
        split,
        bytes: table.bytes,
        rows_estimate: if table.tuples > 0.0 { table.tuples as u64 } else { 0 },
    };
    PlannedRelation { relation, parts }
}

/// Cuts `least..end` into at most `pieces` ranges; the first is open below and the last above, so that together they
/// hold every value, those that come later too.
fn cut(least: i64, end: i64, pieces: u64) -> Vec<(Option<i64>, Option<i64>)> {
    let width = (i128::from(end) - i128::from(least)).max(1);
    let pieces = i128::from(pieces).min(width);
    // Within least..=end, so it fits.
    let at = |piece: i128| (i128::from(least) + width * piece / pieces) as i64;
    (0..pieces)
        .map(|piece| ((piece > 0).then(|| at(piece)), (piece + 1 < pieces).then(|| at(piece + 1))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn ranges_cover_everything_without_overlap(least in any::<i64>(), end in any::<i64>(), pieces in 1u64..200) {
            let ranges = cut(least.min(end), least.max(end), pieces);
            prop_assert!(!ranges.is_empty() && ranges.len() as u64 <= pieces);
            prop_assert_eq!(ranges[0].0, None);
            prop_assert_eq!(ranges[ranges.len() - 1].1, None);
            for pair in ranges.windows(2) {
                prop_assert_eq!(pair[0].1, pair[1].0);
                prop_assert!(pair[0].0 < pair[0].1);
            }
        }
    }

    #[test]
    fn a_range_of_one_value_is_one_part() {
        assert_eq!(cut(5, 6, 10), [(None, None)]);
        assert_eq!(cut(0, 10, 3), [(None, Some(3)), (Some(3), Some(6)), (Some(6), None)]);
    }
}
