//! All that concerns relations, and the pieces of SQL that its families share.

use std::collections::HashSet;

use super::{Context, Plan, constraint, index, sequence, table, trigger, view};
use crate::schema::foreign::FdwOption;
use crate::schema::table::{Column, RelationName, TableKind};
use crate::sql::{ident, literal, qualified};

/// Adds the items of all relations: tables, views, sequences, and what hangs on them.
pub fn items(context: &Context<'_>, plan: &mut Plan) {
    plan.items.extend(sequence::items(context));
    table::items(context, plan);
    view::items(context, plan);
    index::items(context, plan);
    plan.items.extend(constraint::items(context));
    plan.items.extend(index::statistics(context));
    plan.items.extend(trigger::triggers(context));
    plan.items.extend(trigger::rules(context));
    plan.items.extend(trigger::policies(context));
}

/// A relation's name, quoted and qualified.
pub(super) fn name(relation: &RelationName) -> String {
    qualified(&relation.schema, &relation.name)
}

/// The tables whose rows a copy moves, and the partitioned ones above them: what an item may have to wait for.
pub(super) fn waited_for(context: &Context<'_>) -> HashSet<u32> {
    let tables = context.database.tables.iter();
    tables.filter(|t| t.kind != TableKind::Foreign).map(|t| t.oid).collect()
}

/// `"fillfactor"='70', toast."autovacuum_enabled"='off'` from `name=value` texts. A value is kept as text: the server reads a
/// quoted one like a bare one.
pub(super) fn storage_parameters(options: &[String], toast_options: &[String]) -> String {
    let own = options.iter().map(|option| ("", option));
    let toast = toast_options.iter().map(|option| ("toast.", option));
    let parameters = own.chain(toast).map(|(prefix, option)| {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        format!("{prefix}{}={}", ident(name), literal(value))
    });
    parameters.collect::<Vec<_>>().join(", ")
}

/// ` WITH (…)`, or nothing.
pub(super) fn with(options: &[String], toast_options: &[String]) -> String {
    if options.is_empty() && toast_options.is_empty() {
        return String::new();
    }
    format!(" WITH ({})", storage_parameters(options, toast_options))
}

/// `"name" 'value', …` for OPTIONS of foreign tables and their columns.
pub(super) fn foreign_options(options: &[FdwOption]) -> String {
    let options = options.iter().map(|option| format!("{} {}", ident(&option.name), literal(&option.value)));
    options.collect::<Vec<_>>().join(", ")
}

/// The subcommands of ALTER TABLE that give the column what CREATE TABLE cannot say in every version.
pub(super) fn column_subcommands(column: &Column) -> Vec<String> {
    let alter = format!("ALTER COLUMN {}", ident(&column.name));
    let mut subcommands = Vec::new();
    if let Some(target) = column.statistics {
        subcommands.push(format!("{alter} SET STATISTICS {target}"));
    }
    if let Some(storage) = &column.storage {
        subcommands.push(format!("{alter} SET STORAGE {storage}"));
    }
    if !column.options.is_empty() {
        subcommands.push(format!("{alter} SET ({})", storage_parameters(&column.options, &[])));
    }
    if !column.foreign_options.is_empty() {
        subcommands.push(format!("{alter} OPTIONS ({})", foreign_options(&column.foreign_options)));
    }
    subcommands
}

/// The statements that give columns their compression methods. A server may be built without one; the table is whole all the same.
pub(super) fn compressions(context: &Context<'_>, subject: &str, columns: &[Column]) -> Vec<String> {
    let compressed = columns.iter().filter(|_| context.options.toast_compression);
    let compressed = compressed.filter_map(|column| Some((&column.name, column.compression.as_ref()?)));
    compressed
        .map(|(name, method)| {
            format!("ALTER TABLE ONLY {subject} ALTER COLUMN {} SET COMPRESSION {method}", ident(name))
        })
        .collect()
}

/// ` USING method`, for relations that are not stored as the target's default would.
pub(super) fn using(context: &Context<'_>, access_method: Option<&str>) -> String {
    match access_method {
        Some(method) if context.options.table_access_methods && context.target_version >= 120_000 => {
            format!(" USING {}", ident(method))
        }
        _ => String::new(),
    }
}

/// ` TABLESPACE name`, where tablespaces are kept.
pub(super) fn tablespace(context: &Context<'_>, tablespace: Option<&str>) -> String {
    let chosen = tablespace.and_then(|name| context.options.tablespace(name));
    chosen.map(|name| format!(" TABLESPACE {}", ident(name))).unwrap_or_default()
}

/// Puts `statement`, rendered by the server without a tablespace, between settings that make the index in it.
pub(super) fn in_tablespace(
    context: &Context<'_>,
    tablespace: Option<&str>,
    statement: String,
) -> Vec<String> {
    match tablespace.and_then(|name| context.options.tablespace(name)) {
        Some(name) => vec![
            format!("SET default_tablespace = {}", ident(name)),
            statement,
            "SET default_tablespace = ''".to_owned(),
        ],
        None => vec![statement],
    }
}

/// Drops what the server ends some definitions with.
pub(super) fn bare(definition: &str) -> &str {
    definition.trim_end().trim_end_matches(';')
}

/// ` (…)` with one element a line.
pub(super) fn in_parentheses(elements: &[String]) -> String {
    if elements.is_empty() { " ()".to_owned() } else { format!(" (\n    {}\n)", elements.join(",\n    ")) }
}

#[cfg(test)]
mod tests;
