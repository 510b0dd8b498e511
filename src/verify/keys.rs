//! Which rows of a table differ, by their keys.
//!
//! In: a pair of tables whose sums differ, and the columns that identify their rows. Out: the keys of rows that differ, up to a limit. The rows are dealt
//! into buckets by a hash of their key, whose sums are compared first: so only keys of buckets that differ travel, however large the
//! table is. What may fail: either server.

use std::collections::BTreeMap;

use super::Sessions;
use super::rows::{Measure, Pair};
use crate::error::{Error, Result};
use crate::wire::Connection;

/// Rows of a bucket, more or less.
const ROWS: u64 = 500;
/// The most buckets: their sums are held in memory.
const BUCKETS: u64 = 1 << 16;

/// The rows of a table that differ.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Keys {
    /// The columns that identify a row.
    pub columns: Vec<String>,
    /// Rows that differ.
    pub rows: Vec<DifferentRow>,
    /// There are more of them.
    pub more: bool,
}

/// A row that differs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DifferentRow {
    /// Its key, as text, in the order of the columns.
    pub key: Vec<String>,
    /// What differs, to be read after the key: `is missing on the target`.
    pub what: &'static str,
}

/// Finds rows that differ, `limit` at most; `None` where all that can be told is that there are some, since nothing identifies them.
///
/// # Errors
/// A server's, and a lost connection.
pub(super) async fn find(
    sessions: &mut Sessions,
    pair: &Pair,
    measure: &Measure,
    rows: u64,
    limit: usize,
) -> Result<Option<Keys>> {
    if pair.key.is_empty() {
        return Ok(None);
    }
    let buckets = (rows / ROWS).clamp(1, BUCKETS);
    let chosen = if buckets == 1 { vec![0] } else { differing(sessions, pair, measure, buckets).await? };
    // Each bucket that differs has at least one row that does.
    let some = &chosen[..chosen.len().min(limit)];
    let sql = measure.keys(pair, buckets, some);
    let (source, target) =
        tokio::try_join!(keys(&mut sessions.source, &sql), keys(&mut sessions.target, &sql))?;
    let mut found = compare(&source, &target);
    let more = some.len() < chosen.len() || found.len() > limit;
    found.truncate(limit);
    let columns = pair.key.iter().map(|column| column.name.clone()).collect();
    Ok(Some(Keys { columns, rows: found, more }))
}

/// The buckets whose sums differ.
async fn differing(
    sessions: &mut Sessions,
    pair: &Pair,
    measure: &Measure,
    buckets: u64,
) -> Result<Vec<u64>> {
    let sql = measure.bucket_sums(pair, buckets);
    let (source, target) =
        tokio::try_join!(sums(&mut sessions.source, &sql), sums(&mut sessions.target, &sql))?;
    let all = source.keys().chain(target.keys().filter(|bucket| !source.contains_key(bucket)));
    let mut differing: Vec<u64> =
        all.filter(|bucket| source.get(bucket) != target.get(bucket)).copied().collect();
    differing.sort_unstable();
    Ok(differing)
}

async fn sums(connection: &mut Connection, sql: &str) -> Result<BTreeMap<u64, (u64, String)>> {
    let rows = connection.query(sql, &[]).await?;
    rows.iter().map(|row| Ok((row.value(0)?, (row.value(1)?, row.value(2)?)))).collect()
}

/// By key the hash of each row of the chosen buckets.
async fn keys(connection: &mut Connection, sql: &str) -> Result<BTreeMap<Vec<String>, String>> {
    let rows = connection.query(sql, &[]).await?;
    rows.iter()
        .map(|row| {
            let key = serde_json::from_str(&row.value::<String>(0)?)
                .map_err(|e| Error::failed(format!("unexpected key in a query's result: {e}")))?;
            Ok((key, row.value(1)?))
        })
        .collect()
}

fn compare(
    source: &BTreeMap<Vec<String>, String>,
    target: &BTreeMap<Vec<String>, String>,
) -> Vec<DifferentRow> {
    let here = source.iter().filter_map(|(key, hash)| match target.get(key) {
        None => Some((key, "is missing on the target")),
        Some(other) if other != hash => Some((key, "differs")),
        Some(_) => None,
    });
    let there = target.keys().filter(|key| !source.contains_key(*key));
    let mut rows: Vec<DifferentRow> = here
        .chain(there.map(|key| (key, "is on the target only")))
        .map(|(key, what)| DifferentRow { key: key.clone(), what })
        .collect();
    // Numbers by their value, as most keys are.
    rows.sort_by_key(|row| row.key.iter().map(|text| (text.len(), text.clone())).collect::<Vec<_>>());
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_differ_is_named_and_numbers_come_in_order() {
        let rows = |list: &[(&str, &str)]| {
            list.iter().map(|(key, hash)| (vec![(*key).to_owned()], (*hash).to_owned())).collect()
        };
        let found = compare(
            &rows(&[("1", "a"), ("2", "b"), ("10", "c")]),
            &rows(&[("1", "a"), ("2", "x"), ("9", "y")]),
        );
        let found: Vec<String> = found.iter().map(|row| format!("{} {}", row.key[0], row.what)).collect();
        assert_eq!(found, ["2 differs", "9 is on the target only", "10 is missing on the target"]);
    }
}
