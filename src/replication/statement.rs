//! The SQL of a change: pure text.
//!
//! In: a mapped relation and the [`Shape`] of a change. Out: a statement for the extended protocol, and its parameters' types. Parameters are the
//! new values in the order of the shape's columns, then what identifies the row.

use std::fmt::Write;

use super::filter::PartRule;
use super::relation::{Column, Mapped};
use crate::sql::ident;

/// What a statement does, so that one that is prepared can serve all changes alike. Columns are positions in the stream's relation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Shape {
    /// One row, all columns.
    Insert,
    /// Rows by COPY FROM STDIN.
    Copy,
    /// New values for `set` in the row that `row` finds; with no columns, only looks whether the row is there.
    Update { set: Vec<usize>, row: Row, reach: Reach },
    /// Removes the row.
    Delete { row: Row, reach: Reach },
}

/// Who looks whether a statement reaches its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Reach {
    /// Whoever sent it: its answer tells how many rows it reached.
    Told,
    /// The statement itself, which fails unless it reaches its row, or all its rows. It costs the server a little more.
    Itself,
}

/// How a row is found.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Row {
    /// Columns whose values are compared.
    pub(super) equal: Vec<usize>,
    /// Columns that are null.
    pub(super) null: Vec<usize>,
    /// Whether several rows may be alike, of which one is meant.
    pub(super) any_one: bool,
}

/// Types of the parameters, by OID.
type Types = Vec<u32>;

impl Shape {
    /// The statement and the types of its parameters.
    pub(super) fn sql(&self, relation: &Mapped) -> (String, Types) {
        let mut types = Types::new();
        let sql = match self {
            Shape::Insert => insert(relation, &mut types),
            Shape::Copy => copy(relation),
            Shape::Update { set, row, reach } => update(relation, set, row, *reach, &mut types),
            Shape::Delete { row, reach } => {
                let (only, found) = (only(relation), found(relation, row, &mut types));
                reaching(format!("DELETE FROM {only}{} WHERE {found}", relation.table), *reach)
            }
        };
        (sql, types)
    }
}

/// Inheritance children have changes of their own; a partitioned table has no rows of its own.
fn only(relation: &Mapped) -> &'static str {
    if relation.partitioned { "" } else { "ONLY " }
}

fn written(relation: &Mapped) -> impl Iterator<Item = &Column> {
    relation.columns.iter().flatten()
}

fn names(relation: &Mapped) -> String {
    written(relation).map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn insert(relation: &Mapped, types: &mut Types) -> String {
    types.extend(written(relation).map(|c| c.type_oid));
    if types.is_empty() {
        return format!("INSERT INTO {} DEFAULT VALUES", relation.table);
    }
    let values: Vec<String> = (1..=types.len()).map(|n| format!("${n}")).collect();
    let identity = written(relation).any(|c| c.identity_always);
    let overriding = if identity { " OVERRIDING SYSTEM VALUE" } else { "" };
    format!("INSERT INTO {} ({}){overriding} VALUES ({})", relation.table, names(relation), values.join(", "))
}

fn copy(relation: &Mapped) -> String {
    match names(relation) {
        names if names.is_empty() => format!("COPY {} FROM STDIN", relation.table),
        names => format!("COPY {} ({names}) FROM STDIN", relation.table),
    }
}

/// A statement that changes rows, by who looks how many.
fn reaching(sql: String, reach: Reach) -> String {
    match reach {
        Reach::Told => sql,
        // No row is a division by zero, and several are no scalar.
        Reach::Itself => {
            format!("WITH reached AS ({sql} RETURNING 1) SELECT 1 / coalesce((SELECT 1 FROM reached), 0)")
        }
    }
}

fn update(relation: &Mapped, set: &[usize], row: &Row, reach: Reach, types: &mut Types) -> String {
    let only = only(relation);
    let mut assignments = Vec::with_capacity(set.len());
    for column in set.iter().filter_map(|&i| relation.columns.get(i)?.as_ref()) {
        types.push(column.type_oid);
        assignments.push(format!("{} = ${}", column.name, types.len()));
    }
    let found = found(relation, row, types);
    if assignments.is_empty() {
        let from = format!("FROM {only}{} WHERE {found}", relation.table);
        return match reach {
            Reach::Told => format!("SELECT {from}"),
            Reach::Itself => format!("SELECT 1 / coalesce((SELECT 1 {from}), 0)"),
        };
    }
    let sql = format!("UPDATE {only}{} SET {} WHERE {found}", relation.table, assignments.join(", "));
    reaching(sql, reach)
}

/// The condition that finds the row.
fn found(relation: &Mapped, row: &Row, types: &mut Types) -> String {
    let mut conditions = String::new();
    let column = |&i: &usize| relation.columns.get(i)?.as_ref();
    for column in row.equal.iter().filter_map(column) {
        types.push(column.type_oid);
        let (name, n) = (&column.name, types.len());
        let and = if conditions.is_empty() { "" } else { " AND " };
        // What a key tells apart needs no more than equality. A whole row is compared to the last character, as equal
        // values may differ (1.0 and 1.00) and the wrong one of two rows would be changed.
        let written = match &column.equality {
            Some(equality) if !row.any_one || column.exact => {
                write!(conditions, "{and}{name} {equality} ${n}")
            }
            _ => write!(
                conditions,
                "{and}{name}::text COLLATE pg_catalog.\"C\" OPERATOR(pg_catalog.=) ${n}::text COLLATE pg_catalog.\"C\""
            ),
        };
        // Writing to a String never fails.
        let _ = written;
    }
    for column in row.null.iter().filter_map(column) {
        let and = if conditions.is_empty() { "" } else { " AND " };
        let _ = write!(conditions, "{and}{} IS NULL", column.name);
    }
    if conditions.is_empty() {
        conditions.push_str("true");
    }
    match (row.any_one, relation.partitioned) {
        (false, _) => conditions,
        (true, false) => {
            format!("ctid = (SELECT ctid FROM ONLY {} WHERE {conditions} LIMIT 1)", relation.table)
        }
        // A ctid is unique in one partition only.
        (true, true) => format!(
            "(tableoid, ctid) = (SELECT tableoid, ctid FROM {} WHERE {conditions} LIMIT 1)",
            relation.table
        ),
    }
}

/// Empties tables, all of them in one statement so that foreign keys among them don't object. Never CASCADE: the source has listed
/// what that reached. `tables` are names as SQL writes them, and whether they are partitioned.
pub(super) fn truncate(tables: &[(&str, bool)], restart_identity: bool) -> String {
    let names: Vec<String> = tables
        .iter()
        .map(|(name, partitioned)| format!("{}{name}", if *partitioned { "" } else { "ONLY " }))
        .collect();
    let identity = if restart_identity { " RESTART IDENTITY" } else { "" };
    format!("TRUNCATE {}{identity}", names.join(", "))
}

/// Empties the given ranges of `column` alone.
pub(super) fn delete_ranges(table: &str, column: &str, parts: &[PartRule]) -> String {
    let column = ident(column);
    let range = |part: &PartRule| {
        let lower = part.lower.map_or_else(|| "true".to_owned(), |key| format!("{column} >= {key}"));
        let upper = part.upper.map_or_else(|| "true".to_owned(), |key| format!("{column} < {key}"));
        format!("({lower} AND {upper})")
    };
    let ranges: Vec<String> = parts.iter().map(range).collect();
    format!("DELETE FROM {table} WHERE {}", ranges.join(" OR "))
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::HashMap;

    use super::super::relation::{Gather, Key};
    use super::*;

    pub(in super::super) fn relation(columns: &[(&str, u32, bool)], partitioned: bool) -> Mapped {
        let column = |&(name, type_oid, exact): &(&str, u32, bool)| {
            Some(Column {
                name: format!("\"{name}\""),
                type_oid,
                identity_always: name == "identity",
                cast: Some(if type_oid == 23 { "integer" } else { "text" }.to_owned()),
                equality: (type_oid != 114).then(|| "OPERATOR(pg_catalog.=)".to_owned()),
                exact,
            })
        };
        Mapped {
            table: "\"s\".\"t\"".to_owned(),
            name: "s.t".to_owned(),
            partitioned,
            one_of: None,
            copy: true,
            columns: columns.iter().map(column).collect(),
            key: Key::Row,
            gather: Gather::Nothing,
            prepared: HashMap::new(),
            plain: HashMap::new(),
        }
    }

    fn key(columns: &[usize]) -> Row {
        Row { equal: columns.to_vec(), null: Vec::new(), any_one: false }
    }

    #[test]
    fn an_insert_names_its_columns() {
        let (sql, types) = Shape::Insert.sql(&relation(&[("a", 23, true), ("b", 25, true)], false));
        assert_eq!(sql, r#"INSERT INTO "s"."t" ("a", "b") VALUES ($1, $2)"#);
        assert_eq!(types, [23, 25]);
        let (sql, _) = Shape::Insert.sql(&relation(&[("identity", 23, true)], false));
        assert_eq!(sql, r#"INSERT INTO "s"."t" ("identity") OVERRIDING SYSTEM VALUE VALUES ($1)"#);
    }

    #[test]
    fn a_table_without_columns_takes_rows() {
        let empty = relation(&[], false);
        assert_eq!(Shape::Insert.sql(&empty).0, r#"INSERT INTO "s"."t" DEFAULT VALUES"#);
        assert_eq!(Shape::Copy.sql(&empty).0, r#"COPY "s"."t" FROM STDIN"#);
        let row = Row { equal: vec![], null: vec![], any_one: true };
        assert_eq!(
            Shape::Delete { row, reach: Reach::Told }.sql(&empty).0,
            r#"DELETE FROM ONLY "s"."t" WHERE ctid = (SELECT ctid FROM ONLY "s"."t" WHERE true LIMIT 1)"#
        );
    }

    #[test]
    fn an_update_sets_what_came_and_finds_the_row_by_its_key() {
        let table = relation(&[("a", 23, true), ("b", 25, true), ("c", 25, true)], false);
        let (sql, types) = Shape::Update { set: vec![0, 2], row: key(&[0]), reach: Reach::Told }.sql(&table);
        assert_eq!(sql, r#"UPDATE ONLY "s"."t" SET "a" = $1, "c" = $2 WHERE "a" OPERATOR(pg_catalog.=) $3"#);
        assert_eq!(types, [23, 25, 23]);
    }

    #[test]
    fn an_update_of_nothing_looks_whether_the_row_is_there() {
        let table = relation(&[("a", 23, true)], false);
        let (sql, _) = Shape::Update { set: vec![], row: key(&[0]), reach: Reach::Told }.sql(&table);
        assert_eq!(sql, r#"SELECT FROM ONLY "s"."t" WHERE "a" OPERATOR(pg_catalog.=) $1"#);
    }

    #[test]
    fn a_statement_can_fail_by_itself_unless_it_reaches_one_row() {
        let table = relation(&[("a", 23, true), ("b", 25, true)], false);
        let one = |set: &[usize]| Shape::Update { set: set.to_vec(), row: key(&[0]), reach: Reach::Itself };
        assert_eq!(
            one(&[1]).sql(&table).0,
            "WITH reached AS (UPDATE ONLY \"s\".\"t\" SET \"b\" = $1 WHERE \"a\" OPERATOR(pg_catalog.=) $2 RETURNING 1) \
             SELECT 1 / coalesce((SELECT 1 FROM reached), 0)"
        );
        assert_eq!(
            one(&[]).sql(&table).0,
            "SELECT 1 / coalesce((SELECT 1 FROM ONLY \"s\".\"t\" WHERE \"a\" OPERATOR(pg_catalog.=) $1), 0)"
        );
        assert_eq!(
            Shape::Delete { row: key(&[0]), reach: Reach::Itself }.sql(&table).0,
            "WITH reached AS (DELETE FROM ONLY \"s\".\"t\" WHERE \"a\" OPERATOR(pg_catalog.=) $1 RETURNING 1) \
             SELECT 1 / coalesce((SELECT 1 FROM reached), 0)"
        );
    }

    #[test]
    fn one_of_several_rows_alike_is_found_by_every_value() {
        let table =
            relation(&[("a", 23, true), ("b", 1700, false), ("j", 114, false), ("n", 25, true)], true);
        let row = Row { equal: vec![0, 1, 2], null: vec![3], any_one: true };
        assert_eq!(
            Shape::Delete { row, reach: Reach::Told }.sql(&table).0,
            "DELETE FROM \"s\".\"t\" WHERE (tableoid, ctid) = (SELECT tableoid, ctid FROM \"s\".\"t\" WHERE \
             \"a\" OPERATOR(pg_catalog.=) $1 AND \
             \"b\"::text COLLATE pg_catalog.\"C\" OPERATOR(pg_catalog.=) $2::text COLLATE pg_catalog.\"C\" AND \
             \"j\"::text COLLATE pg_catalog.\"C\" OPERATOR(pg_catalog.=) $3::text COLLATE pg_catalog.\"C\" AND \
             \"n\" IS NULL LIMIT 1)"
        );
    }

    #[test]
    fn truncate_empties_all_tables_at_once_and_never_cascades() {
        let sql = truncate(&[("\"a\"", false), ("\"p\"", true)], true);
        assert_eq!(sql, "TRUNCATE ONLY \"a\", \"p\" RESTART IDENTITY");
    }
}
