//! One part: the two COPY statements, and the transaction around them.

use super::format::CopyFormat;
use super::relay::relay;
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::schema::table::{RelationName, Table};
use crate::sql::{ident, qualified};
use crate::state::{self, Part, Split};
use crate::wire::Connection;

/// A part of at most this size is loaded without TRUNCATE and FREEZE, several to a transaction: a new file and its sync
/// would cost more than they save.
pub(super) const SMALL: u64 = 1024 * 1024;

/// How many small parts share a transaction.
pub(super) const SMALL_PARTS: u32 = 50;

/// What a worker needs to know of a table.
#[derive(Debug)]
pub(super) struct TableJob {
    pub(super) table: Table,
    pub(super) split: Split,
    pub(super) format: CopyFormat,
    /// The table to load the rows into, if it isn't this one.
    pub(super) through_root: Option<RelationName>,
}

impl TableJob {
    /// The name in messages: `"schema"."name"` unquoted, as people say it.
    pub(super) fn name(&self) -> String {
        format!("{}.{}", self.table.schema, self.table.name)
    }

    fn columns(&self) -> Vec<String> {
        self.table.columns.iter().filter(|c| !c.is_generated()).map(|c| ident(&c.name)).collect()
    }

    /// Without columns to name, COPY takes all that are not generated, which are none.
    fn column_list(&self) -> String {
        match self.columns() {
            columns if columns.is_empty() => String::new(),
            columns => format!(" ({})", columns.join(", ")),
        }
    }

    fn copy_out(&self, part: &Part) -> String {
        let table = qualified(&self.table.schema, &self.table.name);
        let options = self.format.options();
        let condition = match (&self.split, &self.table.configuration) {
            (Split::Whole, None) => {
                return format!("COPY {table}{} TO STDOUT WITH ({options})", self.column_list());
            }
            // The extension wrote the condition, `WHERE` included.
            (Split::Whole, Some(condition)) => condition.clone(),
            (Split::Ctid, _) => range("ctid", part, |page| format!("'({page},0)'::pg_catalog.tid")),
            (Split::Key(column), _) => range(&ident(column), part, |key| key.to_string()),
        };
        let columns = self.columns().join(", ");
        format!("COPY (SELECT {columns} FROM ONLY {table} {condition}) TO STDOUT WITH ({options})")
    }

    /// FREEZE needs a table that is new or truncated in the same transaction, so it goes with the TRUNCATE of a whole table.
    /// A table of an extension may hold rows that the extension made, and is never emptied.
    fn is_loaded_whole(&self, part: &Part) -> bool {
        self.split == Split::Whole
            && part.bytes > SMALL
            && self.table.configuration.is_none()
            && self.through_root.is_none()
    }

    fn copy_in(&self, part: &Part) -> String {
        let table = match &self.through_root {
            Some(root) => qualified(&root.schema, &root.name),
            None => qualified(&self.table.schema, &self.table.name),
        };
        let (columns, options) = (self.column_list(), self.format.options());
        if self.is_loaded_whole(part) {
            format!("TRUNCATE ONLY {table}; COPY {table}{columns} FROM STDIN WITH ({options}, FREEZE)")
        } else {
            format!("COPY {table}{columns} FROM STDIN WITH ({options})")
        }
    }
}

fn range(column: &str, part: &Part, value: impl Fn(i64) -> String) -> String {
    let lower = part.lower.map(|bound| format!("{column} >= {}", value(bound)));
    let upper = part.upper.map(|bound| format!("{column} < {}", value(bound)));
    let bounds: Vec<String> = lower.into_iter().chain(upper).collect();
    if bounds.is_empty() { String::new() } else { format!("WHERE {}", bounds.join(" AND ")) }
}

/// Copies one part inside the open transaction of `target` and marks it done there; the caller commits. The number of rows.
pub(super) async fn copy_part(
    job: &TableJob,
    part: &Part,
    snapshot: pgstream_proto::lsn::Lsn,
    source: &mut Connection,
    target: &mut Connection,
    progress: &Progress,
) -> Result<u64> {
    let _active = progress.begin(format!("copy {}", job.name()));
    let relayed = relay(source, &job.copy_out(part), target, &job.copy_in(part), progress)
        .await
        .map_err(|e| explain(e, job))?;
    let finish = state::finish_part(part, snapshot, relayed.rows, relayed.bytes);
    target.execute(&finish).await?;
    Ok(relayed.rows)
}

fn explain(error: Error, job: &TableJob) -> Error {
    let state = error.sqlstate().map(|s| s.as_str().to_owned());
    let error = error.context(format!("could not copy table \"{}\"", job.name()));
    match state.as_deref() {
        Some("42P01") => {
            error.with_hint("If the table was dropped or renamed on the source, start anew with --restart.")
        }
        Some("53100") => error.with_hint("Free disk space on the target, then run the same command again."),
        Some("55P03") => error.with_hint("Another session holds a lock; run the same command again later."),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(lower: Option<i64>, upper: Option<i64>) -> Part {
        Part { relation: 1, number: 0, lower, upper, bytes: 0 }
    }

    #[test]
    fn open_bounds_leave_no_condition() {
        let plain = |v: i64| v.to_string();
        assert_eq!(range("k", &part(None, None), plain), "");
        assert_eq!(range("k", &part(None, Some(5)), plain), "WHERE k < 5");
        assert_eq!(range("k", &part(Some(-1), Some(5)), plain), "WHERE k >= -1 AND k < 5");
    }
}
