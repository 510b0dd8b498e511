//! Parts of tables: the two COPY statements of each, and what is written down of it.

use std::collections::VecDeque;

use super::format::CopyFormat;
use super::relay::{RelayError, Transfer, relay};
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

    fn transfer(&self, part: &Part) -> Transfer {
        Transfer { out: self.copy_out(part), into: self.copy_in(part), what: format!("copy {}", self.name()) }
    }
}

fn range(column: &str, part: &Part, value: impl Fn(i64) -> String) -> String {
    let lower = part.lower.map(|bound| format!("{column} >= {}", value(bound)));
    let upper = part.upper.map(|bound| format!("{column} < {}", value(bound)));
    let bounds: Vec<String> = lower.into_iter().chain(upper).collect();
    if bounds.is_empty() { String::new() } else { format!("WHERE {}", bounds.join(" AND ")) }
}

/// So many bytes of statements are sent to the source at once.
const STATEMENTS: usize = 64 << 10;

/// A part that has been copied inside a transaction that is still open.
#[derive(Debug)]
pub(super) struct Copied {
    /// Rows that were copied.
    pub(super) rows: u64,
    /// The statement that marks the part as done.
    pub(super) finish: String,
}

/// Transfer parts inside the open transaction of `target`; the caller marks them done there, and commits.
pub(super) async fn copy_parts(
    parts: &[(&TableJob, &Part)],
    snapshot: pgstream_proto::lsn::Lsn,
    source: &mut Connection,
    target: &mut Connection,
    progress: &Progress,
) -> Result<Vec<Copied>> {
    let mut copied = Vec::with_capacity(parts.len());
    let mut waiting: VecDeque<Transfer> = parts.iter().map(|(job, part)| job.transfer(part)).collect();
    while let Some(first) = waiting.pop_front() {
        let mut room = STATEMENTS.saturating_sub(first.out.len());
        let mut copies = vec![first];
        while waiting.front().is_some_and(|next| next.out.len() <= room) {
            copies.extend(waiting.pop_front().inspect(|next| room -= next.out.len()));
        }
        let these = &parts[copied.len()..];
        let relayed = relay(source, target, &copies, progress).await.map_err(
            |RelayError { index, error }| match these.get(index) {
                Some((job, _)) => explain(error, job),
                None => error,
            },
        )?;
        copied.extend(these.iter().zip(relayed).map(|((_, part), relayed)| Copied {
            rows: relayed.rows,
            finish: state::finish_part(part, snapshot, relayed.rows, relayed.bytes),
        }));
    }
    Ok(copied)
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
