//! Triggers, rules and row-level security policies.

use std::collections::{HashMap, HashSet};

use super::relation::{bare, name, waited_for};
use super::{Context, Item, Section};
use crate::schema::table::RelationName;
use crate::schema::trigger::{Enabled, Policy, Rule};
use crate::schema::{Class, ObjectId};
use crate::sql::ident;

/// All triggers. One that a partition has from its parent is there already and only gets its state.
pub fn triggers(context: &Context<'_>) -> Vec<Item> {
    let tables = waited_for(context);
    let parents: HashMap<u32, u32> = context
        .database
        .tables
        .iter()
        .filter(|table| table.is_partition())
        .filter_map(|table| Some((table.oid, table.parents.first()?.oid)))
        .collect();
    let names: HashMap<(u32, &str), ObjectId> = context
        .database
        .triggers
        .iter()
        .map(|trigger| ((trigger.table.oid, trigger.name.as_str()), trigger.id()))
        .collect();
    let items = context.database.triggers.iter().map(|trigger| {
        let mut item = item(trigger.id(), "TRIGGER", &trigger.table, &trigger.name, &trigger.owner, &tables);
        if trigger.cloned {
            let mut ancestor = parents.get(&trigger.table.oid);
            while let Some(&oid) = ancestor {
                item.requires.extend(names.get(&(oid, trigger.name.as_str())));
                ancestor = parents.get(&oid);
            }
        } else {
            item.create.push(bare(&trigger.definition).to_owned());
        }
        if trigger.cloned || trigger.enabled != Enabled::Origin {
            let foreign = if trigger.foreign { "FOREIGN " } else { "" };
            item.create.push(format!(
                "ALTER {foreign}TABLE {} {}",
                name(&trigger.table),
                state(trigger.enabled, "TRIGGER", &trigger.name)
            ));
        }
        item
    });
    items.collect()
}

/// All rules.
pub fn rules(context: &Context<'_>) -> Vec<Item> {
    let tables = waited_for(context);
    context.database.rules.iter().map(|rule| self::rule(rule, &tables)).collect()
}

/// All policies.
pub fn policies(context: &Context<'_>) -> Vec<Item> {
    if !context.options.policies {
        return Vec::new();
    }
    let tables = waited_for(context);
    context.database.policies.iter().map(|policy| self::policy(policy, &tables)).collect()
}

fn item(
    id: ObjectId,
    kind: &'static str,
    table: &RelationName,
    name: &str,
    owner: &str,
    tables: &HashSet<u32>,
) -> Item {
    let tag = format!("{} {name}", table.name);
    let mut item = Item::new(id, kind, Section::PostData, Some(&table.schema), tag);
    item.owner = Some(owner.to_owned());
    item.requires.push(ObjectId::new(Class::Relation, table.oid));
    item.tables.extend(tables.get(&table.oid));
    item
}

fn rule(rule: &Rule, tables: &HashSet<u32>) -> Item {
    let mut item = item(rule.id(), "RULE", &rule.table, &rule.name, &rule.owner, tables);
    item.create.push(bare(&rule.definition).to_owned());
    if rule.enabled != Enabled::Origin {
        let state = state(rule.enabled, "RULE", &rule.name);
        item.create.push(format!("ALTER TABLE {} {state}", name(&rule.table)));
    }
    item
}

fn policy(policy: &Policy, tables: &HashSet<u32>) -> Item {
    let mut item = item(policy.id(), "POLICY", &policy.table, &policy.name, &policy.owner, tables);
    let mut sql = format!("CREATE POLICY {} ON {}", ident(&policy.name), name(&policy.table));
    if !policy.permissive {
        sql += " AS RESTRICTIVE";
    }
    match policy.command {
        'r' => sql += " FOR SELECT",
        'a' => sql += " FOR INSERT",
        'w' => sql += " FOR UPDATE",
        'd' => sql += " FOR DELETE",
        _ => {}
    }
    if !policy.roles.is_empty() {
        let roles: Vec<_> = policy.roles.iter().map(|role| ident(role)).collect();
        sql += &format!(" TO {}", roles.join(", "));
    }
    if let Some(expression) = &policy.using {
        sql += &format!(" USING ({expression})");
    }
    if let Some(expression) = &policy.check {
        sql += &format!(" WITH CHECK ({expression})");
    }
    item.create.push(sql);
    item
}

/// The subcommand of ALTER TABLE that says when a trigger or rule fires.
fn state(enabled: Enabled, kind: &str, name: &str) -> String {
    let verb = match enabled {
        Enabled::Origin => "ENABLE",
        Enabled::Always => "ENABLE ALWAYS",
        Enabled::Replica => "ENABLE REPLICA",
        Enabled::Disabled => "DISABLE",
    };
    format!("{verb} {kind} {}", ident(name))
}
