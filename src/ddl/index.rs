//! Indexes that no constraint makes, the attachment of partitions' indexes, and extended statistics.

use std::collections::{HashMap, HashSet};

use super::relation::{bare, in_tablespace, name, waited_for};
use super::{Context, Item, Plan, Section};
use crate::schema::constraint::ConstraintKind;
use crate::schema::index::Index;
use crate::schema::{Class, ObjectId};
use crate::sql::{ident, qualified};

/// Adds all indexes without a constraint, and all attachments of indexes to those of partitioned tables. An invalid index, as a failed
/// CREATE INDEX CONCURRENTLY leaves it, stays behind. (Of a partitioned table invalid only means that not every partition has its part.)
pub fn items(context: &Context<'_>, plan: &mut Plan) {
    let tables = waited_for(context);
    let made: HashSet<u32> = context.database.indexes.iter().filter(|i| is_made(i)).map(|i| i.oid).collect();
    // Those of partitions are made together with their parent's.
    let exclusions: HashSet<u32> = (context.database.constraints.iter())
        .filter(|constraint| constraint.kind == ConstraintKind::Exclusion)
        .map(|constraint| constraint.oid)
        .collect();
    for index in &context.database.indexes {
        if !is_made(index) {
            let reason = "the index is invalid in the source; drop it there, or make it again with REINDEX";
            plan.leave("INDEX", qualified(&index.schema, &index.name), reason);
            continue;
        }
        if index.constraint.is_none() {
            plan.items.push(create(context, index, &tables));
        }
        let excludes = index.constraint.is_some_and(|constraint| exclusions.contains(&constraint));
        if let Some(parent) = index.parent.as_ref().filter(|parent| made.contains(&parent.oid) && !excludes) {
            let id = ObjectId::new(Class::Attachment, index.oid);
            let mut item = Item::new(id, "INDEX ATTACH", Section::PostData, Some(&index.schema), &index.name);
            item.owner = Some(index.owner.clone());
            item.requires.extend([index.id(), ObjectId::new(Class::Relation, parent.oid)]);
            item.requires.push(ObjectId::new(Class::Attachment, index.table.oid));
            item.tables.extend(tables.get(&index.table.oid));
            let child = qualified(&index.schema, &index.name);
            item.create.push(format!("ALTER INDEX {} ATTACH PARTITION {child}", name(parent)));
            plan.items.push(item);
        }
    }
}

fn is_made(index: &Index) -> bool {
    index.valid || index.partitioned
}

fn create(context: &Context<'_>, index: &Index, tables: &HashSet<u32>) -> Item {
    let mut item = Item::new(index.id(), "INDEX", Section::PostData, Some(&index.schema), &index.name);
    item.owner = Some(index.owner.clone());
    item.requires.push(ObjectId::new(Class::Relation, index.table.oid));
    item.tables.extend(tables.get(&index.table.oid));
    item.create = in_tablespace(context, index.tablespace.as_deref(), bare(&index.definition).to_owned());
    item.create.extend(properties(index));
    item
}

/// What only ALTER can say of an index, one behind a constraint too.
pub(super) fn properties(index: &Index) -> Vec<String> {
    let table = name(&index.table);
    let subject = qualified(&index.schema, &index.name);
    let mut statements: Vec<_> = index
        .statistics
        .iter()
        .map(|s| format!("ALTER INDEX {subject} ALTER COLUMN {} SET STATISTICS {}", s.number, s.target))
        .collect();
    if index.clustered {
        statements.push(format!("ALTER TABLE {table} CLUSTER ON {}", ident(&index.name)));
    }
    if index.replica_identity {
        statements
            .push(format!("ALTER TABLE ONLY {table} REPLICA IDENTITY USING INDEX {}", ident(&index.name)));
    }
    statements
}

/// For each partitioned index the attachments of all its parts, below sub-partitions too: when they are done, it is valid.
pub(super) fn attachments(context: &Context<'_>) -> HashMap<u32, Vec<ObjectId>> {
    let parents: HashMap<u32, u32> = context
        .database
        .indexes
        .iter()
        .filter(|index| is_made(index))
        .filter_map(|index| Some((index.oid, index.parent.as_ref()?.oid)))
        .collect();
    let mut attachments: HashMap<u32, Vec<ObjectId>> = HashMap::new();
    for index in context.database.indexes.iter().filter(|index| parents.contains_key(&index.oid)) {
        let mut ancestor = parents.get(&index.oid);
        while let Some(&oid) = ancestor {
            attachments.entry(oid).or_default().push(ObjectId::new(Class::Attachment, index.oid));
            ancestor = parents.get(&oid);
        }
    }
    attachments
}

/// All extended statistics objects.
pub fn statistics(context: &Context<'_>) -> Vec<Item> {
    let items = context.database.statistics.iter().map(|statistics| {
        let subject = qualified(&statistics.schema, &statistics.name);
        let section = Section::PostData;
        let mut item =
            Item::new(statistics.id(), "STATISTICS", section, Some(&statistics.schema), &statistics.name);
        item.requires.push(ObjectId::new(Class::Relation, statistics.table.oid));
        item.create.push(bare(&statistics.definition).to_owned());
        if let Some(target) = statistics.target {
            item.create.push(format!("ALTER STATISTICS {subject} SET STATISTICS {target}"));
        }
        item.owned(context, &format!("STATISTICS {subject}"), &statistics.owner)
    });
    items.collect()
}
