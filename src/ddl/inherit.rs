//! Children whose columns stand in another order than INHERITS would give them.
//!
//! Such a table was made on its own and joined to its parents later, or one of its parents got another column since. It is made on
//! its own again, column by column, and joined by ALTER TABLE … INHERIT. What is only inherited must be so from the beginning, or the
//! server would take it for the table's own: it comes from a helper, a parent for as long as the table is being made.

use super::Context;
use super::relation::name;
use super::table::{NAMED_NOT_NULL, alter, definition, inherited_columns_constraints, statement};
use crate::schema::constraint::Constraint;
use crate::schema::table::{Column, Table};
use crate::sql::{ident, qualified};

/// The statements that make the table and join it to its parents. `checks` are its own and inherited ones.
pub(super) fn join(context: &Context<'_>, table: &Table, checks: &[&Constraint]) -> Vec<String> {
    let subject = qualified(&table.schema, &table.name);
    let alter = format!("{} {subject}", alter(table));
    let helper = qualified(&table.schema, &helper_name(&table.name));
    let (own_checks, inherited_checks): (Vec<&Constraint>, Vec<&Constraint>) =
        checks.iter().partition(|check| check.is_local);
    let inherits = |column: &Column| {
        let inherits = column.constraint.as_ref().is_some_and(|constraint| !constraint.is_local);
        inherits && context.target_version >= NAMED_NOT_NULL
    };
    // Checks and generation expressions read other columns.
    let all = !inherited_checks.is_empty() || table.columns.iter().any(|c| inherits(c) && c.is_generated());
    let is_helped = |column: &Column| all || inherits(column);
    let helped = table.columns.iter().any(|column| !column.is_local || is_helped(column));
    let leading = table.columns.iter().take_while(|column| column.is_local).count();

    let mut statements = vec![statement(context, table, &table.columns[..leading], &[])];
    if helped {
        statements.push(format!("CREATE TABLE {helper} ()"));
        statements.push(format!("{alter} INHERIT {helper}"));
    }
    for column in &table.columns[leading..] {
        if !column.is_local {
            statements.push(helper_column(table, &helper, column));
        } else if let Some(definition) = definition(context, table, column) {
            statements.push(format!("{alter} ADD COLUMN {definition}"));
        }
    }
    // The table's own columns merge into the helper's, generated ones last.
    let (generated, plain): (Vec<&Column>, Vec<&Column>) =
        table.columns.iter().filter(|c| c.is_local && is_helped(c)).partition(|c| c.is_generated());
    statements.extend(plain.iter().chain(&generated).map(|column| helper_column(table, &helper, column)));
    if context.target_version >= NAMED_NOT_NULL {
        statements.extend(inherited_columns_constraints(table).map(|c| format!("{alter} ADD {c}")));
    }
    let add = |check: &Constraint| format!("ADD CONSTRAINT {} {}", ident(&check.name), check.definition);
    statements.extend(own_checks.iter().map(|check| format!("{alter} {}", add(check))));
    statements.extend(inherited_checks.iter().map(|check| format!("ALTER TABLE {helper} {}", add(check))));
    statements.extend(table.parents.iter().map(|parent| format!("{alter} INHERIT {}", name(parent))));
    if helped {
        statements.push(format!("{alter} NO INHERIT {helper}"));
        statements.push(format!("DROP TABLE {helper}"));
    }
    statements
}

/// Gives the helper the column, and by it the table, as far as that inherits it. A default is no part of it: children keep theirs.
fn helper_column(table: &Table, helper: &str, column: &Column) -> String {
    let mut sql = format!("ALTER TABLE {helper} ADD COLUMN {} {}", ident(&column.name), column.type_name);
    if let Some(collation) = &column.collation {
        sql += &format!(" COLLATE {collation}");
    }
    if let Some(default) = column.default.as_ref().filter(|default| default.generated.is_some()) {
        let kind = if default.generated == Some('v') { "VIRTUAL" } else { "STORED" };
        sql += &format!(" GENERATED ALWAYS AS ({}) {kind}", default.expression);
    }
    if let Some(constraint) = column.constraint.as_ref().filter(|constraint| !constraint.is_local) {
        // The child takes the name, on servers that have names: before, what the parent's would be.
        let parent = table.parents.first().map_or("", |parent| parent.name.as_str());
        let chosen = || format!("{parent}_{}_not_null", column.name);
        let name = constraint.name.clone().unwrap_or_else(chosen);
        sql += &format!(" CONSTRAINT {} NOT NULL", ident(&name));
    }
    sql
}

/// A name for the helper that no two tables of a schema share, but for very long ones: those wait for each other.
fn helper_name(table: &str) -> String {
    const PREFIX: &str = "pgstream_parent_of_";
    const NAME_LIMIT: usize = 63;
    let mut end = table.len().min(NAME_LIMIT - PREFIX.len());
    while !table.is_char_boundary(end) {
        end -= 1;
    }
    format!("{PREFIX}{}", &table[..end])
}
