//! Constraints that CREATE TABLE doesn't hold: keys with their indexes, exclusions, foreign keys, and checks that existing rows may break.

use std::collections::{HashMap, HashSet};

use super::relation::{in_tablespace, name, waited_for, with};
use super::{Context, Item, Section, index};
use crate::schema::constraint::{Constraint, ConstraintKind};
use crate::schema::index::Index;
use crate::schema::{Class, ObjectId};
use crate::sql::ident;

/// All constraints with a statement of their own.
pub fn items(context: &Context<'_>) -> Vec<Item> {
    let tables = waited_for(context);
    let indexes: HashMap<u32, &Index> =
        context.database.indexes.iter().filter_map(|index| Some((index.constraint?, index))).collect();
    let attachments = index::attachments(context);
    let mut items = Vec::new();
    for constraint in &context.database.constraints {
        match constraint.kind {
            ConstraintKind::Check | ConstraintKind::NotNull => {
                items.extend(is_separate(context, constraint).then(|| check(constraint, &tables)));
            }
            ConstraintKind::ForeignKey => items.push(foreign_key(constraint, &tables, &attachments)),
            ConstraintKind::PrimaryKey | ConstraintKind::Unique | ConstraintKind::Exclusion => {
                let index = indexes.get(&constraint.oid);
                items.extend(index.map(|index| key(context, constraint, index, &tables)));
            }
        }
    }
    items
}

/// Whether a check or not-null constraint is added to the existing table. What a child inherits, its parent's brings.
fn is_separate(context: &Context<'_>, constraint: &Constraint) -> bool {
    constraint.is_local && (!constraint.validated || context.separate.contains(&constraint.id()))
}

fn item(constraint: &Constraint, kind: &'static str, tables: &HashSet<u32>) -> Item {
    let tag = format!("{} {}", constraint.table.name, constraint.name);
    let mut item = Item::new(constraint.id(), kind, Section::PostData, Some(&constraint.table.schema), tag);
    item.owner = Some(constraint.owner.clone());
    item.requires.push(ObjectId::new(Class::Relation, constraint.table.oid));
    item.tables.extend(tables.get(&constraint.table.oid));
    item
}

fn check(constraint: &Constraint, tables: &HashSet<u32>) -> Item {
    let kind = if constraint.kind == ConstraintKind::Check { "CHECK CONSTRAINT" } else { "CONSTRAINT" };
    let mut item = item(constraint, kind, tables);
    // Not ONLY: children are to inherit it.
    item.create.push(format!(
        "ALTER {}TABLE {}\n    ADD CONSTRAINT {} {}",
        if constraint.foreign { "FOREIGN " } else { "" },
        name(&constraint.table),
        ident(&constraint.name),
        constraint.definition
    ));
    item
}

fn key(context: &Context<'_>, constraint: &Constraint, index: &Index, tables: &HashSet<u32>) -> Item {
    let mut item = item(constraint, "CONSTRAINT", tables);
    item.provides.push(index.id());
    let statement = format!(
        "ALTER TABLE ONLY {}\n    ADD CONSTRAINT {} {}",
        name(&constraint.table),
        ident(&constraint.name),
        with_index_options(constraint, index)
    );
    item.create = in_tablespace(context, index.tablespace.as_deref(), statement);
    item.create.extend(index::properties(index));
    item
}

/// pg_get_constraintdef leaves out the index's storage parameters, exclusion constraints aside. They stand before DEFERRABLE.
fn with_index_options(constraint: &Constraint, index: &Index) -> String {
    if constraint.kind == ConstraintKind::Exclusion || index.options.is_empty() {
        return constraint.definition.clone();
    }
    let deferral = match (constraint.deferrable, constraint.deferred) {
        (true, true) => " DEFERRABLE INITIALLY DEFERRED",
        (true, false) => " DEFERRABLE",
        (false, _) => "",
    };
    match constraint.definition.strip_suffix(deferral) {
        Some(definition) => format!("{definition}{}{deferral}", with(&index.options, &[])),
        None => constraint.definition.clone(),
    }
}

fn foreign_key(
    constraint: &Constraint,
    tables: &HashSet<u32>,
    attachments: &HashMap<u32, Vec<ObjectId>>,
) -> Item {
    let mut item = item(constraint, "FK CONSTRAINT", tables);
    if let Some(referenced) = &constraint.referenced {
        item.requires.push(ObjectId::new(Class::Relation, referenced.oid));
        item.tables.extend(tables.get(&referenced.oid));
    }
    // A partitioned table can only be referred to once its key's index is whole.
    if let Some(attachments) = constraint.index.and_then(|index| attachments.get(&index)) {
        item.requires.extend(attachments);
    }
    item.create.push(format!(
        "ALTER {}TABLE {}{}\n    ADD CONSTRAINT {} {}",
        if constraint.foreign { "FOREIGN " } else { "" },
        if constraint.partitioned { "" } else { "ONLY " },
        name(&constraint.table),
        ident(&constraint.name),
        constraint.definition
    ));
    item.tables.dedup();
    item
}
