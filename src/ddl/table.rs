//! Tables: CREATE TABLE, what ALTER TABLE adds to it, partitions' attachment, row security.
//!
//! As pg_dump does, partitions are made as plain tables and attached: their columns may stand in another order than the parent's.

use std::collections::{HashMap, HashSet};

use super::relation::{
    column_subcommands, compressions, foreign_options, in_parentheses, name, tablespace, using, with,
};
use super::{Context, Item, Plan, Section, inherit};
use crate::schema::constraint::{Constraint, ConstraintKind};
use crate::schema::inherit::Parents;
use crate::schema::table::{Column, ColumnDefault, Persistence, ReplicaIdentity, Table, TableKind};
use crate::schema::{self, Class, ObjectId};
use crate::sql::{ident, qualified};

/// Adds all tables, without those that extensions make.
pub fn items(context: &Context<'_>, plan: &mut Plan) {
    let mut checks: HashMap<u32, Vec<&Constraint>> = HashMap::new();
    let joined: HashSet<u32> =
        context.database.tables.iter().filter(|t| t.joined_parents).map(|t| t.oid).collect();
    for constraint in &context.database.constraints {
        let inline =
            constraint.is_inline() || constraint.is_valid_check() && joined.contains(&constraint.table.oid);
        if inline && !context.separate.contains(&constraint.id()) {
            checks.entry(constraint.table.oid).or_default().push(constraint);
        }
    }
    let parents = schema::inherit::parents(&context.database.tables);
    for table in context.database.tables.iter().filter(|t| t.configuration.is_none()) {
        let checks = checks.get(&table.oid).map_or(&[][..], Vec::as_slice);
        plan.items.push(create(context, table, checks));
        plan.items.extend(table.columns.iter().filter_map(|column| separate_default(context, table, column)));
        plan.items
            .extend(table.columns.iter().filter_map(|column| validate(context, &parents, table, column)));
        plan.items.extend(attach(table));
        plan.items.extend(row_security(table).filter(|_| context.options.policies));
        if table.has_oids {
            let name = format!("{}.\"oid\"", qualified(&table.schema, &table.name));
            plan.leave(
                "COLUMN",
                name,
                "tables WITH OIDS are gone since PostgreSQL 12; the table comes without the column",
            );
        }
    }
}

/// What ALTER TABLE is called for the table.
pub(super) fn alter(table: &Table) -> &'static str {
    if table.kind == TableKind::Foreign { "ALTER FOREIGN TABLE" } else { "ALTER TABLE" }
}

fn create(context: &Context<'_>, table: &Table, checks: &[&Constraint]) -> Item {
    let kind = if table.kind == TableKind::Foreign { "FOREIGN TABLE" } else { "TABLE" };
    let subject = qualified(&table.schema, &table.name);
    let mut item = Item::new(table.id(), kind, Section::PreData, Some(&table.schema), &table.name).owned(
        context,
        &format!("{kind} {subject}"),
        &table.owner,
    );
    item.provides.extend(table.types.iter().map(|&oid| ObjectId::new(Class::Type, oid)));
    item.provides.extend(checks.iter().map(|check| check.id()));
    let constraints = table.columns.iter().filter_map(|c| c.constraint.as_ref());
    let constraints = constraints.filter(|c| !c.validated_here).filter_map(|c| c.oid);
    item.provides.extend(constraints.map(|oid| ObjectId::new(Class::Constraint, oid)));
    let defaults = table.columns.iter().filter_map(|c| c.default.as_ref());
    item.provides.extend(defaults.filter(|d| !is_apart(context, d)).filter_map(ColumnDefault::id));
    item.requires.extend(table.parents.iter().map(|parent| ObjectId::new(Class::Relation, parent.oid)));
    if table.joined_parents {
        item.create = inherit::join(context, table, checks);
    } else {
        item.create.push(statement(context, table, &table.columns, checks));
    }
    let subcommands = subcommands(context, table);
    if !subcommands.is_empty() {
        item.create.push(format!("{} ONLY {subject}\n    {}", alter(table), subcommands.join(",\n    ")));
    }
    item.decorate.extend(compressions(context, &subject, &table.columns));
    item
}

/// CREATE TABLE with these columns and checks.
pub(super) fn statement(
    context: &Context<'_>,
    table: &Table,
    columns: &[Column],
    checks: &[&Constraint],
) -> String {
    let subject = qualified(&table.schema, &table.name);
    let kind = match (table.kind, table.persistence) {
        (TableKind::Foreign, _) => "FOREIGN TABLE",
        // It says nothing of the partitions, and servers from 18 on don't take it.
        (TableKind::Partitioned, Persistence::Unlogged) if context.target_version >= 180_000 => "TABLE",
        (_, Persistence::Unlogged) => "UNLOGGED TABLE",
        (_, Persistence::Permanent) => "TABLE",
    };
    let mut elements: Vec<String> = Vec::new();
    elements.extend(columns.iter().filter_map(|column| definition(context, table, column)));
    if context.target_version >= NAMED_NOT_NULL && !table.is_made_whole() {
        elements.extend(inherited_columns_constraints(table));
    }
    elements
        .extend(checks.iter().map(|check| format!("CONSTRAINT {} {}", ident(&check.name), check.definition)));
    let mut sql = format!("CREATE {kind} {subject}");
    match &table.of_type {
        Some(of_type) => {
            sql += &format!(" OF {of_type}");
            if !elements.is_empty() {
                sql += &in_parentheses(&elements);
            }
        }
        None => sql += &in_parentheses(&elements),
    }
    if !table.parents.is_empty() && !table.is_made_whole() {
        let parents: Vec<_> = table.parents.iter().map(name).collect();
        sql += &format!("\nINHERITS ({})", parents.join(", "));
    }
    if let Some(key) = &table.partition_key {
        sql += &format!("\nPARTITION BY {key}");
    }
    if let Some(server) = &table.server {
        sql += &format!("\nSERVER {}", ident(server));
        if !table.foreign_options.is_empty() {
            sql += &format!("\nOPTIONS ({})", foreign_options(&table.foreign_options));
        }
    }
    // Before 17 a partitioned table cannot name the access method of its partitions.
    if table.kind == TableKind::Ordinary || context.target_version >= 170_000 {
        sql += &using(context, table.access_method.as_deref());
    }
    sql += &with(&table.options, &table.toast_options);
    sql + &tablespace(context, table.tablespace.as_deref())
}

/// From this server on NOT NULL is a constraint with a name, and CREATE TABLE takes one on a column that it doesn't list.
pub(super) const NAMED_NOT_NULL: u32 = 180_000;

/// The table's own NOT NULL constraints on columns that INHERITS brings. Said later, by ALTER TABLE, one would merge into its parent's and
/// take that one's name.
pub(super) fn inherited_columns_constraints(table: &Table) -> impl Iterator<Item = String> {
    table.columns.iter().filter(|column| !table.lists(column)).filter_map(|column| {
        let constraint = column.constraint.as_ref().filter(|c| c.is_local)?;
        let name = constraint.said_name().map(|n| format!("CONSTRAINT {} ", ident(n))).unwrap_or_default();
        let inherit = if constraint.no_inherit { " NO INHERIT" } else { "" };
        Some(format!("{name}NOT NULL {}{inherit}", ident(&column.name)))
    })
}

/// The column's element in CREATE TABLE, where it has one.
pub(super) fn definition(context: &Context<'_>, table: &Table, column: &Column) -> Option<String> {
    if !table.lists(column) {
        return None;
    }
    let default = column.default.as_ref().filter(|d| !d.separate && !d.inherited && !is_apart(context, d));
    // Before 18 a joined table must have the constraints of its parents; later it gets them from them.
    let whole = table.is_partition() || table.joined_parents && context.target_version < NAMED_NOT_NULL;
    let not_null = column.constraint.as_ref().filter(|c| c.is_local || whole);
    let mut sql = ident(&column.name);
    if table.of_type.is_some() {
        if default.is_none() && not_null.is_none() {
            return None;
        }
        sql += " WITH OPTIONS";
    } else {
        sql += &format!(" {}", column.type_name);
        if let Some(collation) = &column.collation {
            sql += &format!(" COLLATE {collation}");
        }
    }
    if let Some(default) = default {
        sql += &match default.generated {
            Some('v') => format!(" GENERATED ALWAYS AS ({})", default.expression),
            Some(_) => format!(" GENERATED ALWAYS AS ({}) STORED", default.expression),
            None => format!(" DEFAULT {}", default.expression),
        };
    }
    if let Some(constraint) = not_null {
        if let Some(name) = constraint.said_name() {
            sql += &format!(" CONSTRAINT {}", ident(name));
        }
        sql += " NOT NULL";
        if constraint.no_inherit {
            sql += " NO INHERIT";
        }
    }
    Some(sql)
}

/// What ALTER TABLE ONLY does to the table right after CREATE TABLE.
fn subcommands(context: &Context<'_>, table: &Table) -> Vec<String> {
    let mut subcommands = Vec::new();
    for column in &table.columns {
        let has_own = !table.lists(column) && column.constraint.as_ref().is_some_and(|c| c.is_local);
        if has_own && context.target_version < NAMED_NOT_NULL {
            subcommands.push(format!("ALTER COLUMN {} SET NOT NULL", ident(&column.name)));
        }
        if let Some(default) = column.default.as_ref().filter(|d| d.separate && !is_apart(context, d)) {
            subcommands.push(set_default(column, default));
        }
        subcommands.extend(column_subcommands(column));
    }
    match table.replica_identity {
        // Foreign tables have it in the catalog, and can't be given it.
        _ if table.kind == TableKind::Foreign => {}
        ReplicaIdentity::Nothing => subcommands.push("REPLICA IDENTITY NOTHING".to_owned()),
        ReplicaIdentity::Full => subcommands.push("REPLICA IDENTITY FULL".to_owned()),
        ReplicaIdentity::Default | ReplicaIdentity::Index => {}
    }
    if table.force_row_security {
        subcommands.push("FORCE ROW LEVEL SECURITY".to_owned());
    }
    subcommands
}

/// Whether the default gets an item of its own, to break a loop. There is no way to do that for a generation expression.
fn is_apart(context: &Context<'_>, default: &ColumnDefault) -> bool {
    default.generated.is_none() && default.id().is_some_and(|id| context.separate.contains(&id))
}

fn set_default(column: &Column, default: &ColumnDefault) -> String {
    match default.id() {
        Some(_) => format!("ALTER COLUMN {} SET DEFAULT {}", ident(&column.name), default.expression),
        // SET DEFAULT NULL would leave a cast of NULL behind for types with a modifier.
        None => format!("ALTER COLUMN {} DROP DEFAULT", ident(&column.name)),
    }
}

fn separate_default(context: &Context<'_>, table: &Table, column: &Column) -> Option<Item> {
    let default = column.default.as_ref().filter(|d| is_apart(context, d))?;
    let name = format!("{} {}", table.name, column.name);
    let mut item = Item::new(default.id()?, "DEFAULT", Section::PreData, Some(&table.schema), name);
    let subject = qualified(&table.schema, &table.name);
    item.owner = Some(table.owner.clone());
    item.requires.push(table.id());
    item.create.push(format!("{} ONLY {subject} {}", alter(table), set_default(column, default)));
    Some(item)
}

/// Validates a not-null constraint that comes as NOT VALID from above.
fn validate(context: &Context<'_>, parents: &Parents<'_>, table: &Table, column: &Column) -> Option<Item> {
    let constraint = column.constraint.as_ref().filter(|c| c.validated_here)?;
    let constraint_name = constraint.name.as_deref()?;
    let id = ObjectId::new(Class::Constraint, constraint.oid?);
    let tag = format!("{} {constraint_name}", table.name);
    let mut item = Item::new(id, "CONSTRAINT", Section::PostData, Some(&table.schema), tag);
    item.owner = Some(table.owner.clone());
    item.requires.push(table.id());
    let above = schema::inherit::ancestors(parents, table.oid);
    let constraints = context.database.constraints.iter().filter(|c| c.kind == ConstraintKind::NotNull);
    item.requires.extend(constraints.filter(|c| above.contains(&c.table.oid)).map(Constraint::id));
    item.tables.push(table.oid);
    let subject = qualified(&table.schema, &table.name);
    item.create.push(format!("{} {subject} VALIDATE CONSTRAINT {}", alter(table), ident(constraint_name)));
    Some(item)
}

fn attach(table: &Table) -> Option<Item> {
    let bound = table.partition_bound.as_deref()?;
    let parent = table.parents.first()?;
    let id = ObjectId::new(Class::Attachment, table.oid);
    let mut item = Item::new(id, "TABLE ATTACH", Section::PreData, Some(&table.schema), &table.name);
    item.owner = Some(table.owner.clone());
    item.requires.extend([table.id(), ObjectId::new(Class::Relation, parent.oid)]);
    let child = qualified(&table.schema, &table.name);
    item.create.push(format!("ALTER TABLE ONLY {} ATTACH PARTITION {child} {bound}", name(parent)));
    Some(item)
}

fn row_security(table: &Table) -> Option<Item> {
    if !table.row_security {
        return None;
    }
    let id = ObjectId::new(Class::RowSecurity, table.oid);
    let mut item = Item::new(id, "ROW SECURITY", Section::PostData, Some(&table.schema), &table.name);
    item.owner = Some(table.owner.clone());
    item.requires.push(table.id());
    item.tables.push(table.oid);
    let subject = qualified(&table.schema, &table.name);
    item.create.push(format!("ALTER TABLE {subject} ENABLE ROW LEVEL SECURITY"));
    Some(item)
}
