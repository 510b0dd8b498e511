//! DDL items: which are made, which could not be.

use std::collections::{BTreeMap, HashMap};

use crate::ddl::{Item, NotCopied};
use crate::error::Result;
use crate::fault;
use crate::sql::literal;
use crate::wire::Connection;

/// What came of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemOutcome {
    /// It is there, as on the source.
    Done,
    /// It is there, but its owner or comment could not be set.
    Partial,
    /// It could not be made; a later run tries again.
    Failed,
}

impl ItemOutcome {
    fn name(self) -> &'static str {
        match self {
            ItemOutcome::Done => "done",
            ItemOutcome::Partial => "partial",
            ItemOutcome::Failed => "failed",
        }
    }
}

/// The recorded state of one item.
#[derive(Debug, Clone)]
pub struct ItemState {
    /// What came of it.
    pub outcome: ItemOutcome,
    /// CRC-32 of the statements that it was made by: another value now means that the source's definition has changed.
    pub fingerprint: u32,
    /// Why it is not whole.
    pub reason: Option<String>,
}

/// CRC-32 of an item's statements.
pub fn fingerprint(item: &Item) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    for statement in item.create.iter().chain(&item.decorate) {
        hasher.update(statement.as_bytes());
        hasher.update(b"\0");
    }
    hasher.finalize()
}

/// The statement that records an item, to be run in the item's own transaction.
pub fn record_item(item: &Item, outcome: ItemOutcome, reason: Option<&str>) -> String {
    record(&[row(item, outcome, reason)])
}

/// The statement that records items as done, to be run in the transaction that makes them.
pub fn record_done(items: &[&Item]) -> String {
    let rows: BTreeMap<String, String> =
        items.iter().map(|item| (item.key(), row(item, ItemOutcome::Done, None))).collect();
    record(&rows.into_values().collect::<Vec<_>>())
}

fn row(item: &Item, outcome: ItemOutcome, reason: Option<&str>) -> String {
    format!(
        "({}, '{:?}', {}, '{}', {})",
        literal(&item.key()),
        item.section,
        fingerprint(item),
        outcome.name(),
        reason.map_or_else(|| "NULL".to_owned(), literal),
    )
}

fn record(rows: &[String]) -> String {
    format!(
        "INSERT INTO pgstream.item (key, section, fingerprint, state, reason) VALUES {} \
         ON CONFLICT (key) DO UPDATE SET fingerprint = excluded.fingerprint, state = excluded.state, reason = excluded.reason, \
         finished_at = excluded.finished_at",
        rows.join(", ")
    )
}

/// Every recorded item by its key.
pub async fn items(target: &mut Connection) -> Result<HashMap<String, ItemState>> {
    let rows = target.query("SELECT key, state, fingerprint, reason FROM pgstream.item", &[]).await?;
    rows.iter()
        .map(|row| {
            let outcome = match row.text(1) {
                Some("done") => ItemOutcome::Done,
                Some("partial") => ItemOutcome::Partial,
                _ => ItemOutcome::Failed,
            };
            let state = ItemState { outcome, fingerprint: row.value(2)?, reason: row.optional(3)? };
            Ok((row.value(0)?, state))
        })
        .collect()
}

/// The statement that records something that stays behind.
pub fn record_omission(omission: &NotCopied) -> String {
    format!(
        "INSERT INTO pgstream.omission (kind, name, reason) VALUES ({}, {}, {}) \
         ON CONFLICT (kind, name) DO UPDATE SET reason = excluded.reason",
        literal(&omission.kind),
        literal(&omission.name),
        literal(&omission.reason),
    )
}

/// Records something that stays behind.
pub async fn omit(target: &mut Connection, omission: &NotCopied) -> Result<()> {
    fault::step("omission recorded", target.execute(&record_omission(omission))).await
}

/// The statement that takes back what [`record_omission`] recorded.
pub fn forget_omission(kind: &str, name: &str) -> String {
    format!("DELETE FROM pgstream.omission WHERE kind = {} AND name = {}", literal(kind), literal(name))
}

/// All that is not on the target as it is on the source: recorded omissions, and items that failed or are not whole.
pub async fn omissions(target: &mut Connection) -> Result<Vec<NotCopied>> {
    let rows = target
        .query(
            "SELECT kind, name, reason FROM pgstream.omission UNION ALL \
             SELECT CASE state WHEN 'failed' THEN 'not made' ELSE 'not whole' END, key, coalesce(reason, '') \
             FROM pgstream.item WHERE state <> 'done' ORDER BY 1, 2",
            &[],
        )
        .await?;
    rows.iter()
        .map(|row| Ok(NotCopied { kind: row.value(0)?, name: row.value(1)?, reason: row.value(2)? }))
        .collect()
}
