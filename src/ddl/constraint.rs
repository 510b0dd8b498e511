//! Constraints that CREATE TABLE doesn't hold: keys with their indexes, exclusions, foreign keys, and checks that existing rows may break.

use std::collections::{HashMap, HashSet};

use super::relation::{in_tablespace, name, waited_for, with};
use super::{Context, Item, Section, index};
use crate::schema::constraint::{Constraint, ConstraintKind};
use crate::schema::index::Index;
use crate::schema::{Class, ObjectId, inherit};
use crate::sql::{ident, literal};

/// All constraints with a statement of their own.
pub fn items(context: &Context<'_>) -> Vec<Item> {
    let tables = waited_for(context);
    let indexes: HashMap<u32, &Index> =
        context.database.indexes.iter().filter_map(|index| Some((index.constraint?, index))).collect();
    let attachments = index::attachments(context);
    let parts = exclusion_parts(context);
    let unvalidated: HashMap<(u32, &str), &Constraint> = (context.database.constraints.iter())
        .filter(|c| c.kind == ConstraintKind::Check && !c.validated)
        .map(|c| ((c.table.oid, c.name.as_str()), c))
        .collect();
    let parents = inherit::parents(&context.database.tables);
    let mut items = Vec::new();
    for constraint in &context.database.constraints {
        match constraint.kind {
            ConstraintKind::Check | ConstraintKind::NotNull => {
                items.extend(is_separate(context, constraint).then(|| check(constraint, &tables)));
                if constraint.is_valid_check() && !constraint.is_local && !constraint.partition {
                    let above = inherit::ancestors(&parents, constraint.table.oid);
                    let of_ancestors: Vec<ObjectId> = (above.iter())
                        .filter_map(|oid| unvalidated.get(&(*oid, constraint.name.as_str())))
                        .map(|constraint| constraint.id())
                        .collect();
                    if !of_ancestors.is_empty() {
                        items.push(validate(constraint, of_ancestors, &tables));
                    }
                }
            }
            ConstraintKind::Exclusion if constraint.parent.is_some() => {}
            ConstraintKind::Exclusion if parts.contains_key(&constraint.oid) => {
                let index = indexes.get(&constraint.oid);
                let parts = &parts[&constraint.oid];
                items.extend(
                    index.map(|index| exclusion(context, constraint, index, parts, &indexes, &tables)),
                );
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

/// Validates a check that comes as NOT VALID from above: from the tables where it is said, which need not be the parents.
fn validate(constraint: &Constraint, of_ancestors: Vec<ObjectId>, tables: &HashSet<u32>) -> Item {
    let mut item = item(constraint, "CHECK CONSTRAINT", tables);
    item.requires.extend(of_ancestors);
    item.create.push(format!(
        "ALTER {}TABLE {} VALIDATE CONSTRAINT {}",
        if constraint.foreign { "FOREIGN " } else { "" },
        name(&constraint.table),
        ident(&constraint.name)
    ));
    item
}

/// The exclusion constraints of partitions below each one of a partitioned table, and what each is a part of; upper levels first.
fn exclusion_parts<'a>(context: &Context<'a>) -> HashMap<u32, Vec<Part<'a>>> {
    let exclusions = context.database.constraints.iter().filter(|c| c.kind == ConstraintKind::Exclusion);
    let by_oid: HashMap<u32, &Constraint> = exclusions.map(|c| (c.oid, c)).collect();
    let above = |constraint: &Constraint| constraint.parent.and_then(|oid| by_oid.get(&oid).copied());
    let mut parts: HashMap<u32, Vec<(usize, Part<'a>)>> = HashMap::new();
    for constraint in by_oid.values() {
        let parent = above(constraint);
        let (mut ancestor, mut depth) = (parent, 0);
        while let (Some(parent), Some(root)) = (parent, ancestor) {
            parts.entry(root.oid).or_default().push((depth, Part { constraint, parent }));
            ancestor = above(root);
            depth += 1;
        }
    }
    let sorted = parts.into_iter().map(|(root, mut parts)| {
        parts.sort_by_key(|(depth, part)| (*depth, part.constraint.oid));
        (root, parts.into_iter().map(|(_, part)| part).collect())
    });
    sorted.collect()
}

/// A partition's constraint and the one that it is a part of.
struct Part<'a> {
    constraint: &'a Constraint,
    parent: &'a Constraint,
}

/// An exclusion constraint of a partitioned table, with those of its partitions: ALTER INDEX … ATTACH PARTITION refuses their indexes, so
/// they are made all at once. The server then chooses the partitions' names; they are put right.
fn exclusion(
    context: &Context<'_>,
    constraint: &Constraint,
    index: &Index,
    parts: &[Part<'_>],
    indexes: &HashMap<u32, &Index>,
    tables: &HashSet<u32>,
) -> Item {
    let mut item = item(constraint, "CONSTRAINT", tables);
    item.provides.push(index.id());
    let table = name(&constraint.table);
    let statement = format!(
        "ALTER TABLE {table}\n    ADD CONSTRAINT {} {}",
        ident(&constraint.name),
        constraint.definition
    );
    item.create = in_tablespace(context, index.tablespace.as_deref(), statement);
    item.create.extend(index::properties(index));
    for Part { constraint: part, parent } in parts {
        let part_table = name(&part.table);
        item.requires.push(ObjectId::new(Class::Relation, part.table.oid));
        item.provides.push(part.id());
        item.create.push(format!(
            "DO $pgstream$DECLARE\n    made name;\nBEGIN\n    \
             SELECT c.conname INTO STRICT made\n    \
             FROM pg_catalog.pg_constraint c JOIN pg_catalog.pg_constraint p ON p.oid = c.conparentid\n    \
             WHERE c.conrelid = {}::pg_catalog.regclass AND p.conrelid = {}::pg_catalog.regclass AND p.conname = {};\n    \
             IF made <> {} THEN\n        \
             EXECUTE pg_catalog.format({}, made);\n    \
             END IF;\nEND$pgstream$",
            literal(&part_table),
            literal(&name(&parent.table)),
            literal(&parent.name),
            literal(&part.name),
            literal(&format!(
                "ALTER TABLE {} RENAME CONSTRAINT %I TO {}",
                part_table.replace('%', "%%"),
                ident(&part.name).replace('%', "%%")
            )),
        ));
        if let Some(index) = indexes.get(&part.oid) {
            item.provides.push(index.id());
            item.create.extend(index::properties(index));
        }
    }
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
