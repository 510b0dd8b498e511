//! The SQL that a stream sends to its target, and no more of SQL than that: a statement in another form fails the simulation.

use super::model::TABLES;

/// What a statement asks for.
#[derive(Debug, Clone)]
pub(super) enum Statement {
    /// A setting that changes nothing here; the tag of its answer.
    Setting(&'static str),
    /// Whether the session's commits wait for the disk.
    Synchronous(bool),
    /// Whether this transaction's commit does.
    SynchronousHere,
    /// `session_replication_role = replica`.
    Silence,
    Begin,
    Commit,
    Rollback,
    /// A transaction that writes to the log and changes nothing.
    WriteLog,
    /// A question whose answer is always one row of this.
    Fixed(&'static str),
    /// The advisory lock $1, which a session has for itself.
    TryLock,
    /// The advisory lock with this key, which several share. All that want it get it at once.
    ShareLock(i64),
    /// Whether nobody else has the advisory lock $1, and something that never is.
    IsLockFree,
    /// Who has the advisory lock whose key's halves are $1 and $2.
    LockHolders,
    /// The session $1 is to end.
    Terminate,
    /// A question whose answer has no rows.
    Nothing,
    ReadCheckpoint,
    /// The checkpoint's timeline is noted.
    TouchCheckpoint,
    /// The checkpoint moves from $1 to $2, or, unless it `compares`, to $2 from wherever it is.
    Advance {
        compares: bool,
    },
    /// What is known of tables, by their names.
    Describe {
        first: String,
        limit: usize,
    },
    Insert(usize),
    Copy(usize),
    Update {
        table: usize,
        set: Vec<usize>,
        row: Found,
    },
    Look {
        table: usize,
        row: Found,
    },
    /// The statement fails unless it reaches so many rows.
    Exactly(usize, Box<Statement>),
    Delete {
        table: usize,
        row: Found,
    },
    /// Columns that are set, and columns that find the row, each with the number of its array.
    UpdateMany {
        table: usize,
        set: Vec<(usize, usize)>,
        key: Vec<(usize, usize)>,
    },
    DeleteMany {
        table: usize,
        key: Vec<(usize, usize)>,
    },
    Truncate(Vec<usize>),
    /// Rows whose key is at least the one and less than the other.
    DeleteRanges {
        table: usize,
        ranges: Vec<(Option<i64>, Option<i64>)>,
    },
}

/// How rows are found.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// Columns that are equal to a parameter, counted from 0.
    pub(super) equal: Vec<(usize, usize)>,
    pub(super) null: Vec<usize>,
    /// One of those that are found is meant.
    pub(super) any_one: bool,
}

impl Statement {
    /// Whether it writes, and so waits for another transaction that does.
    pub(super) fn writes(&self) -> bool {
        use Statement::{
            Advance, Copy, Delete, DeleteMany, DeleteRanges, Exactly, Insert, TouchCheckpoint, Truncate,
            Update, UpdateMany,
        };
        matches!(
            self,
            Advance { .. }
                | TouchCheckpoint
                | Insert(_)
                | Copy(_)
                | Update { .. }
                | Delete { .. }
                | UpdateMany { .. }
                | DeleteMany { .. }
                | Truncate(_)
                | Exactly(..)
                | DeleteRanges { .. }
        )
    }
}

/// Reads a statement; `None` for one that isn't known.
pub(super) fn read(sql: &str) -> Option<Statement> {
    Some(match sql {
        "BEGIN" => Statement::Begin,
        "COMMIT" => Statement::Commit,
        "ROLLBACK" => Statement::Rollback,
        "SELECT pg_catalog.pg_logical_emit_message(true, 'pgstream', '')" => Statement::WriteLog,
        "SET synchronous_commit = on" => Statement::Synchronous(true),
        "SET synchronous_commit = off" => Statement::Synchronous(false),
        "SET LOCAL synchronous_commit = on" => Statement::SynchronousHere,
        "SET session_replication_role = replica" => Statement::Silence,
        "SET CONSTRAINTS ALL DEFERRED" => Statement::Setting("SET CONSTRAINTS"),
        "SELECT pg_catalog.pg_try_advisory_lock($1)" => Statement::TryLock,
        "SELECT pg_catalog.pg_terminate_backend($1)" => Statement::Terminate,
        _ if sql.starts_with("SELECT pg_catalog.set_config('enable_") => Statement::Fixed("on"),
        _ if sql.starts_with("SET ") => Statement::Setting("SET"),
        _ if sql.starts_with("SELECT pg_catalog.pg_advisory_lock_shared(") => {
            Statement::ShareLock(sql.split_once('(')?.1.strip_suffix(')')?.parse().ok()?)
        }
        _ if sql.starts_with("SELECT CASE WHEN pg_catalog.pg_try_advisory_lock($1)") => Statement::IsLockFree,
        _ if sql.starts_with("SELECT l.pid, ") && sql.contains("'advisory'") => Statement::LockHolders,
        _ if sql.starts_with("SELECT pg_catalog.to_regclass('pgstream.checkpoint')") => Statement::Fixed("t"),
        "SELECT pg_catalog.to_regclass('pgstream.spool') IS NOT NULL" => Statement::Fixed("f"),
        _ if sql.starts_with("SELECT FROM pg_catalog.pg_proc ") => Statement::Nothing,
        _ if sql.starts_with("SELECT system_identifier, ") => Statement::ReadCheckpoint,
        _ if sql.starts_with("UPDATE pgstream.checkpoint SET timeline = ") => Statement::TouchCheckpoint,
        _ if sql.starts_with("WITH moved AS (UPDATE pgstream.checkpoint ") => {
            let condition = sql.split_once(" WHERE ")?.1.split_once(" RETURNING 1) SELECT 1 / coalesce(")?.0;
            Statement::Advance { compares: condition == "generation = $4 AND applied = $1" }
        }
        _ if sql.starts_with("SELECT 0, pg_catalog.row_to_json(x) FROM (SELECT c.relkind") => {
            let rest = sql.split_once("t.relname >= '")?.1;
            let limit = rest.split_once(" ORDER BY t.relname LIMIT ")?.1.split_once(')')?.0.parse().ok()?;
            Statement::Describe { first: rest.split_once('\'')?.0.to_owned(), limit }
        }
        _ => return change(sql),
    })
}

/// How a statement ends that fails unless it reaches one row, or another number of them, and how one begins that only looks.
const ONE: &str = " RETURNING 1) SELECT 1 / coalesce((SELECT 1 FROM reached), 0)";
const MANY: (&str, &str) =
    (" RETURNING 1) SELECT 1 / (pg_catalog.count(*) OPERATOR(pg_catalog.=) ", ")::integer FROM reached");
const ONE_SEEN: &str = "SELECT 1 / coalesce((SELECT 1 ";

fn change(sql: &str) -> Option<Statement> {
    if let Some(rest) = sql.strip_prefix("WITH reached AS (") {
        if let Some(one) = rest.strip_suffix(ONE) {
            return Some(Statement::Exactly(1, Box::new(change(one)?)));
        }
        let (many, count) = rest.strip_suffix(MANY.1)?.split_once(MANY.0)?;
        return Some(Statement::Exactly(count.parse().ok()?, Box::new(change(many)?)));
    }
    if let Some(rest) = sql.strip_prefix(ONE_SEEN) {
        let look = format!("SELECT {}", rest.strip_suffix("), 0)")?);
        return Some(Statement::Exactly(1, Box::new(change(&look)?)));
    }
    if let Some(rest) = sql.strip_prefix("INSERT INTO ") {
        let (table, rest) = table(rest)?;
        let columns = rest.strip_prefix(" (")?.split_once(") VALUES (")?.0;
        return is_all(table, columns).then_some(Statement::Insert(table));
    }
    if let Some(rest) = sql.strip_prefix("COPY ") {
        let (table, rest) = table(rest)?;
        let columns = rest.strip_prefix(" (")?.strip_suffix(") FROM STDIN")?;
        return is_all(table, columns).then_some(Statement::Copy(table));
    }
    if let Some(rest) = sql.strip_prefix("UPDATE ONLY ") {
        let (table, rest) = table(rest)?;
        if let Some(rest) = rest.strip_prefix(" AS t SET ") {
            let (set, rest) = rest.split_once(" FROM (SELECT pg_catalog.unnest(")?;
            let set = set.split(", ").map(|one| pair(table, one)).collect::<Option<_>>()?;
            return Some(Statement::UpdateMany { table, set, key: joined(table, rest)? });
        }
        let (set, condition) = rest.strip_prefix(" SET ")?.split_once(" WHERE ")?;
        let columns = set.split(", ").map(|one| column(table, one));
        let set: Vec<usize> = columns.collect::<Option<_>>()?;
        return Some(Statement::Update { table, set, row: found(table, condition)? });
    }
    if let Some(rest) = sql.strip_prefix("SELECT FROM ONLY ") {
        let (table, rest) = table(rest)?;
        return Some(Statement::Look { table, row: found(table, rest.strip_prefix(" WHERE ")?)? });
    }
    if let Some(rest) = sql.strip_prefix("DELETE FROM ONLY ") {
        let (table, rest) = table(rest)?;
        if let Some(rest) = rest.strip_prefix(" AS t USING (SELECT pg_catalog.unnest(") {
            return Some(Statement::DeleteMany { table, key: joined(table, rest)? });
        }
        return Some(Statement::Delete { table, row: found(table, rest.strip_prefix(" WHERE ")?)? });
    }
    if let Some(rest) = sql.strip_prefix("DELETE FROM ") {
        let (table, rest) = table(rest)?;
        let ranges = rest.strip_prefix(" WHERE ")?.split(" OR ").map(range);
        return Some(Statement::DeleteRanges { table, ranges: ranges.collect::<Option<_>>()? });
    }
    let tables = sql.strip_prefix("TRUNCATE ")?.split(", ").map(|name| {
        let (table, rest) = table(name.strip_prefix("ONLY ")?)?;
        rest.is_empty().then_some(table)
    });
    Some(Statement::Truncate(tables.collect::<Option<_>>()?))
}

/// `"public"."name"` at the front.
fn table(text: &str) -> Option<(usize, &str)> {
    let (name, rest) = text.strip_prefix("\"public\".\"")?.split_once('"')?;
    Some((TABLES.iter().position(|table| table.name == name)?, rest))
}

/// The first name in quotes.
fn column(table: usize, text: &str) -> Option<usize> {
    let name = text.split('"').nth(1)?;
    TABLES[table].columns.iter().position(|column| *column == name)
}

fn is_all(table: usize, columns: &str) -> bool {
    let names = columns.split(", ").map(|name| name.trim_matches('"'));
    names.eq(TABLES[table].columns.iter().copied())
}

/// The number after a sign, up to what is no digit.
fn number_after(text: &str, sign: &str) -> Option<usize> {
    let rest = text.split_once(sign)?.1;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// A column and the array `u.c0` that it is compared with or takes its value from.
fn pair(table: usize, text: &str) -> Option<(usize, usize)> {
    Some((column(table, text)?, number_after(text, "u.c")?))
}

fn joined(table: usize, text: &str) -> Option<Vec<(usize, usize)>> {
    let conditions = text.split_once(" WHERE ")?.1;
    // A range of keys holds all of them.
    let conditions = conditions.split_once(" BETWEEN ").map_or(conditions, |(before, _)| before);
    let equal = conditions.split(" AND ").filter(|condition| condition.contains(" OPERATOR(pg_catalog.=) "));
    equal.map(|condition| pair(table, condition)).collect()
}

fn found(table: usize, condition: &str) -> Option<Found> {
    let mut row = Found { equal: Vec::new(), null: Vec::new(), any_one: false };
    let condition = match condition.strip_prefix("ctid = (SELECT ctid FROM ONLY ") {
        Some(rest) => {
            row.any_one = true;
            rest.split_once(" WHERE ")?.1.strip_suffix(" LIMIT 1)")?
        }
        None => condition,
    };
    for condition in condition.split(" AND ") {
        let column = column(table, condition)?;
        match condition.strip_suffix(" IS NULL") {
            Some(_) => row.null.push(column),
            None => row.equal.push((column, number_after(condition, "$")?.checked_sub(1)?)),
        }
    }
    Some(row)
}

/// `("id" >= 1 AND "id" < 2)`, either side of which may be `true`.
fn range(text: &str) -> Option<(Option<i64>, Option<i64>)> {
    let (lower, upper) = text.strip_prefix('(')?.strip_suffix(')')?.split_once(" AND ")?;
    let key = |text: &str, operator: &str| match text {
        "true" => Some(None),
        _ => text.split_once(operator)?.1.parse().ok().map(Some),
    };
    Some((key(lower, " >= ")?, key(upper, " < ")?))
}
