//! Operators, operator classes and families, access methods.

use super::{Context, Item, Plan, Section};
use crate::schema::operator::{Member, Operator};
use crate::schema::{Class, ObjectId};
use crate::sql::{ident, qualified};

/// The items of operators, their families and classes, and access methods.
pub fn items(context: &Context<'_>, plan: &mut Plan) {
    let database = context.database;
    for operator in &database.operators {
        add_operator(context, plan, operator);
    }
    for method in &database.access_methods {
        let id = ObjectId::new(Class::AccessMethod, method.oid);
        let kind = if method.kind == 't' { "TABLE" } else { "INDEX" };
        let mut item = Item::new(id, "ACCESS METHOD", Section::PreData, None, &method.name);
        item.create.push(format!(
            "CREATE ACCESS METHOD {} TYPE {kind} HANDLER {}",
            ident(&method.name),
            method.handler
        ));
        plan.items.push(item);
    }
    for family in &database.operator_families {
        let id = ObjectId::new(Class::OperatorFamily, family.oid);
        let name = format!("{} USING {}", qualified(&family.schema, &family.name), ident(&family.method));
        let tag = format!("{} USING {}", family.name, family.method);
        let mut item = Item::new(id, "OPERATOR FAMILY", Section::PreData, Some(&family.schema), tag).owned(
            context,
            &format!("OPERATOR FAMILY {name}"),
            &family.owner,
        );
        item.create.push(format!("CREATE OPERATOR FAMILY {name}"));
        if !family.members.is_empty() {
            item.create.push(format!(
                "ALTER OPERATOR FAMILY {name} ADD\n    {}",
                members(&family.members).join(",\n    ")
            ));
        }
        plan.items.push(item);
    }
    for class in &database.operator_classes {
        let id = ObjectId::new(Class::OperatorClass, class.oid);
        let name = qualified(&class.schema, &class.name);
        let tag = format!("{} USING {}", class.name, class.method);
        let mut item = Item::new(id, "OPERATOR CLASS", Section::PreData, Some(&class.schema), tag).owned(
            context,
            &format!("OPERATOR CLASS {name} USING {}", ident(&class.method)),
            &class.owner,
        );
        item.requires.push(ObjectId::new(Class::OperatorFamily, class.family));
        let mut parts: Vec<_> = class.storage.iter().map(|s| format!("STORAGE {s}")).collect();
        parts.extend(members(&class.members));
        if parts.is_empty() {
            // The grammar wants something, and this changes nothing.
            parts.push(format!("STORAGE {}", class.data_type));
        }
        item.create.push(format!(
            "CREATE OPERATOR CLASS {name}{} FOR TYPE {} USING {} FAMILY {} AS\n    {}",
            if class.default { " DEFAULT" } else { "" },
            class.data_type,
            ident(&class.method),
            class.family_name,
            parts.join(",\n    ")
        ));
        plan.items.push(item);
    }
}

fn members(members: &[Member]) -> Vec<String> {
    members
        .iter()
        .map(|m| {
            let number = m.number;
            if m.function {
                return format!("FUNCTION {number} ({}, {}) {}", m.left, m.right, m.identity);
            }
            let order = m.sort_family.as_ref().map(|f| format!(" FOR ORDER BY {f}")).unwrap_or_default();
            format!("OPERATOR {number} {}{order}", m.identity)
        })
        .collect()
}

fn add_operator(context: &Context<'_>, plan: &mut Plan, operator: &Operator) {
    let id = ObjectId::new(Class::Operator, operator.oid);
    let side = |side: &Option<String>| side.clone().unwrap_or_else(|| "NONE".to_owned());
    let arguments = format!("({}, {})", side(&operator.left), side(&operator.right));
    let name = format!("{}.{}", ident(&operator.schema), operator.name);
    let tag = format!("{} {arguments}", operator.name);
    if operator.right.is_none() && context.target_version >= 140_000 {
        plan.leave("OPERATOR", format!("{name} {arguments}"), "servers from 14 on know no postfix operators");
        return;
    }
    let Some(function) = &operator.function else { return };
    let mut item = Item::new(id, "OPERATOR", Section::PreData, Some(&operator.schema), tag).owned(
        context,
        &format!("OPERATOR {name} {arguments}"),
        &operator.owner,
    );
    let mut parts = vec![format!("PROCEDURE = {function}")];
    let mut push =
        |key: &str, value: Option<String>| parts.extend(value.map(|value| format!("{key} = {value}")));
    push("LEFTARG", operator.left.clone());
    push("RIGHTARG", operator.right.clone());
    push("COMMUTATOR", operator.commutator.as_ref().map(|o| format!("OPERATOR({o})")));
    push("NEGATOR", operator.negator.as_ref().map(|o| format!("OPERATOR({o})")));
    push("RESTRICT", operator.restrict.clone());
    push("JOIN", operator.join.clone());
    if operator.merges {
        parts.push("MERGES".to_owned());
    }
    if operator.hashes {
        parts.push("HASHES".to_owned());
    }
    item.create.push(format!("CREATE OPERATOR {name} (\n    {}\n)", parts.join(",\n    ")));
    plan.items.push(item);
}
