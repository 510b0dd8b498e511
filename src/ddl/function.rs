//! Functions, procedures, aggregates, event triggers.

use super::privileges::{self, Subject};
use super::{Context, Item, Plan, Section};
use crate::schema::function::{Aggregate, EventTrigger};
use crate::schema::{Class, ObjectId};
use crate::sql::{ident, literal, qualified};

/// The items of functions, aggregates and event triggers.
pub fn items(context: &Context<'_>, plan: &mut Plan) {
    for function in &context.database.functions {
        let id = ObjectId::new(Class::Function, function.oid);
        let kind = if function.kind == 'p' { "PROCEDURE" } else { "FUNCTION" };
        let tag = format!("{}({})", function.name, function.identity_arguments);
        let identity =
            format!("{}({})", qualified(&function.schema, &function.name), function.identity_arguments);
        let subject = format!("{kind} {identity}");
        let mut item = Item::new(id, kind, Section::PreData, Some(&function.schema), &tag).owned(
            context,
            &subject,
            &function.owner,
        );
        let definition = function.definition.trim_end();
        let apart = function.body.as_deref().filter(|_| context.separate.contains(&id));
        match apart.and_then(|body| definition.strip_suffix(body.trim_end())) {
            Some(header) => {
                item.create.push(format!("{header}AS ''"));
                let id = ObjectId::new(Class::FunctionBody, function.oid);
                let mut body = Item::new(id, "FUNCTION BODY", Section::PreData, Some(&function.schema), &tag);
                body.requires.push(item.id);
                body.create.push(definition.to_owned());
                plan.items.push(body);
            }
            None => item.create.push(definition.to_owned()),
        }
        for dependency in context.database.extension_dependencies.iter().filter(|d| d.id == id) {
            item.decorate
                .push(format!("ALTER {subject} DEPENDS ON EXTENSION {}", ident(&dependency.extension)));
        }
        plan.items.push(item);
        let subject = Subject {
            id,
            kind,
            schema: Some(&function.schema),
            name: &tag,
            identity: &identity,
            owner: &function.owner,
        };
        privileges::add(context, plan, subject, None, &function.acl);
    }
    for aggregate in &context.database.aggregates {
        add_aggregate(context, plan, aggregate);
    }
    for trigger in &context.database.event_triggers {
        plan.items.push(event_trigger(context, trigger));
    }
}

fn add_aggregate(context: &Context<'_>, plan: &mut Plan, aggregate: &Aggregate) {
    let id = ObjectId::new(Class::Function, aggregate.oid);
    let tag = format!("{}({})", aggregate.name, aggregate.argument_types);
    let name = qualified(&aggregate.schema, &aggregate.name);
    let identity = format!("{name}({})", aggregate.argument_types);
    let mut item = Item::new(id, "AGGREGATE", Section::PreData, Some(&aggregate.schema), &tag).owned(
        context,
        &format!("AGGREGATE {identity}"),
        &aggregate.owner,
    );
    item.create.push(format!(
        "CREATE AGGREGATE {name}({}) (\n    {}\n)",
        aggregate.arguments,
        aggregate_options(aggregate).join(",\n    ")
    ));
    plan.items.push(item);
    // GRANT knows aggregates as functions, which have no `*`.
    let arguments = if aggregate.argument_types == "*" { "" } else { aggregate.argument_types.as_str() };
    let identity = format!("{name}({arguments})");
    let subject = Subject {
        id,
        kind: "FUNCTION",
        schema: Some(&aggregate.schema),
        name: &tag,
        identity: &identity,
        owner: &aggregate.owner,
    };
    privileges::add(context, plan, subject, None, &aggregate.acl);
}

fn aggregate_options(aggregate: &Aggregate) -> Vec<String> {
    // An ordered-set aggregate's final function may change the state by default, a plain one's may not.
    let default_modify = if aggregate.kind == 'n' { 'r' } else { 'w' };
    let modify = |key: &str, modify: Option<char>| {
        let word = match modify.filter(|m| *m != default_modify)? {
            's' => "SHAREABLE",
            'w' => "READ_WRITE",
            _ => "READ_ONLY",
        };
        Some(format!("{key} = {word}"))
    };
    let mut options =
        vec![format!("SFUNC = {}", aggregate.transition), format!("STYPE = {}", aggregate.state_type)];
    let mut push = |key: &str, value: Option<&str>| {
        options.extend(value.map(|value| format!("{key} = {value}")));
    };
    let space = |space: i32| (space != 0).then(|| space.to_string());
    push("SSPACE", space(aggregate.state_space).as_deref());
    push("INITCOND", aggregate.initial.as_deref().map(literal).as_deref());
    push("FINALFUNC", aggregate.final_function.as_deref());
    push("COMBINEFUNC", aggregate.combine.as_deref());
    push("SERIALFUNC", aggregate.serialize.as_deref());
    push("DESERIALFUNC", aggregate.deserialize.as_deref());
    push("MSFUNC", aggregate.moving_transition.as_deref());
    push("MINVFUNC", aggregate.moving_inverse.as_deref());
    push("MSTYPE", aggregate.moving_state_type.as_deref());
    push("MSSPACE", space(aggregate.moving_state_space).as_deref());
    push("MINITCOND", aggregate.moving_initial.as_deref().map(literal).as_deref());
    push("MFINALFUNC", aggregate.moving_final.as_deref());
    push("SORTOP", aggregate.sort_operator.as_ref().map(|o| format!("OPERATOR({o})")).as_deref());
    if aggregate.final_function.is_some() {
        if aggregate.final_extra {
            options.push("FINALFUNC_EXTRA".to_owned());
        }
        options.extend(modify("FINALFUNC_MODIFY", aggregate.final_modify));
    }
    if aggregate.moving_final.is_some() {
        if aggregate.moving_final_extra {
            options.push("MFINALFUNC_EXTRA".to_owned());
        }
        options.extend(modify("MFINALFUNC_MODIFY", aggregate.moving_final_modify));
    }
    if aggregate.kind == 'h' {
        options.push("HYPOTHETICAL".to_owned());
    }
    match aggregate.parallel {
        's' => options.push("PARALLEL = safe".to_owned()),
        'r' => options.push("PARALLEL = restricted".to_owned()),
        _ => {}
    }
    options
}

/// Event triggers come last, so that they don't see the rest being made.
fn event_trigger(context: &Context<'_>, trigger: &EventTrigger) -> Item {
    let name = ident(&trigger.name);
    let id = ObjectId::new(Class::EventTrigger, trigger.oid);
    let mut item = Item::new(id, "EVENT TRIGGER", Section::Last, None, &trigger.name).owned(
        context,
        &format!("EVENT TRIGGER {name}"),
        &trigger.owner,
    );
    let mut sql = format!("CREATE EVENT TRIGGER {name} ON {}", ident(&trigger.event));
    if !trigger.tags.is_empty() {
        let tags: Vec<_> = trigger.tags.iter().map(|t| literal(t)).collect();
        sql.push_str(&format!("\n    WHEN TAG IN ({})", tags.join(", ")));
    }
    // The word that every server understands.
    sql.push_str(&format!("\n    EXECUTE PROCEDURE {}()", trigger.function));
    item.create.push(sql);
    let state = match trigger.enabled {
        'D' => Some("DISABLE"),
        'A' => Some("ENABLE ALWAYS"),
        'R' => Some("ENABLE REPLICA"),
        _ => None,
    };
    item.create.extend(state.map(|state| format!("ALTER EVENT TRIGGER {name} {state}")));
    item
}
