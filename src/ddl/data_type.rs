//! Types and casts.

use super::privileges::{self, Subject};
use super::{Context, Item, Plan, Section};
use crate::schema::data_type::{Base, Composite, Definition, Domain, Range, Type};
use crate::schema::{Class, ObjectId};
use crate::sql::{ident, literal, qualified};

/// The items of types and casts.
pub fn items(context: &Context<'_>, plan: &mut Plan) {
    for data_type in &context.database.types {
        add_type(context, plan, data_type);
    }
    for cast in &context.database.casts {
        let name = format!("({} AS {})", cast.source, cast.target);
        let how = match (&cast.function, cast.method) {
            (Some(function), _) => format!("WITH FUNCTION {function}"),
            (None, 'i') => "WITH INOUT".to_owned(),
            (None, _) => "WITHOUT FUNCTION".to_owned(),
        };
        let context = match cast.context {
            'a' => " AS ASSIGNMENT",
            'i' => " AS IMPLICIT",
            _ => "",
        };
        let mut item = Item::new(ObjectId::new(Class::Cast, cast.oid), "CAST", Section::PreData, None, &name);
        item.create.push(format!("CREATE CAST {name} {how}{context}"));
        plan.items.push(item);
    }
}

fn add_type(context: &Context<'_>, plan: &mut Plan, data_type: &Type) {
    let id = ObjectId::new(Class::Type, data_type.oid);
    let name = qualified(&data_type.schema, &data_type.name);
    let schema = Some(data_type.schema.as_str());
    let (kind, create) = match &data_type.definition {
        Definition::Enum(labels) => {
            let labels: Vec<_> = labels.iter().map(|l| format!("\n    {}", literal(l))).collect();
            ("TYPE", format!("CREATE TYPE {name} AS ENUM ({}\n)", labels.join(",")))
        }
        Definition::Composite(composite) => ("TYPE", create_composite(&name, composite)),
        Definition::Domain(domain) => ("DOMAIN", create_domain(context, &name, data_type, domain)),
        Definition::Range(range) => ("TYPE", create_range(context, &name, range)),
        Definition::Base(base) => ("TYPE", create_base(&name, base)),
        Definition::Shell => ("SHELL TYPE", format!("CREATE TYPE {name}")),
    };
    // A type's functions name the type, so that it needs a shell before them.
    let needs_shell = match &data_type.definition {
        Definition::Base(_) => true,
        Definition::Range(_) => context.separate.contains(&id),
        _ => false,
    };
    if needs_shell {
        let shell = ObjectId::new(Class::ShellType, data_type.oid);
        let mut item = Item::new(shell, "SHELL TYPE", Section::PreData, schema, &data_type.name);
        item.requires = context.schema_id(&data_type.schema).into_iter().collect();
        item.create.push(format!("CREATE TYPE {name}"));
        plan.items.push(item);
    }
    let mut item = Item::new(id, kind, Section::PreData, schema, &data_type.name).owned(
        context,
        &format!("{} {name}", if kind == "DOMAIN" { "DOMAIN" } else { "TYPE" }),
        &data_type.owner,
    );
    item.create.push(create);
    item.provides.extend(data_type.array.map(|oid| ObjectId::new(Class::Type, oid)));
    if needs_shell {
        item.requires.push(ObjectId::new(Class::ShellType, data_type.oid));
    }
    match &data_type.definition {
        Definition::Composite(composite) => {
            item.provides.push(ObjectId::new(Class::Relation, composite.relation));
        }
        Definition::Range(range) => {
            if let Some(multirange) = &range.multirange {
                item.provides.push(ObjectId::new(Class::Type, multirange.oid));
                item.provides.extend(multirange.array.map(|oid| ObjectId::new(Class::Type, oid)));
            }
        }
        Definition::Domain(domain) => {
            for constraint in &domain.constraints {
                let constraint_id = ObjectId::new(Class::Constraint, constraint.oid);
                if is_inline(context, constraint_id, constraint.validated) {
                    item.provides.push(constraint_id);
                    continue;
                }
                // NOT VALID constraints come after the data, those that only break a loop before it.
                let section = if constraint.validated { Section::PreData } else { Section::PostData };
                let tag = format!("{} {}", data_type.name, constraint.name);
                let mut part = Item::new(constraint_id, "CHECK CONSTRAINT", section, schema, tag);
                part.requires.push(id);
                part.create.push(format!(
                    "ALTER DOMAIN {name} ADD CONSTRAINT {} {}",
                    ident(&constraint.name),
                    constraint.definition
                ));
                plan.items.push(part);
            }
        }
        _ => {}
    }
    plan.items.push(item);
    let subject =
        Subject { id, kind: "TYPE", schema, name: &data_type.name, identity: &name, owner: &data_type.owner };
    privileges::add(context, plan, subject, None, &data_type.acl);
}

fn is_inline(context: &Context<'_>, constraint: ObjectId, validated: bool) -> bool {
    validated && !context.separate.contains(&constraint)
}

fn create_composite(name: &str, composite: &Composite) -> String {
    let attributes: Vec<_> = composite
        .attributes
        .iter()
        .map(|a| {
            let collation = a.collation.as_ref().map(|c| format!(" COLLATE {c}")).unwrap_or_default();
            format!("\n    {} {}{collation}", ident(&a.name), a.data_type)
        })
        .collect();
    format!("CREATE TYPE {name} AS ({}\n)", attributes.join(","))
}

fn create_domain(context: &Context<'_>, name: &str, data_type: &Type, domain: &Domain) -> String {
    let mut sql = format!("CREATE DOMAIN {name} AS {}", domain.base);
    if let Some(collation) = &domain.collation {
        sql.push_str(&format!(" COLLATE {collation}"));
    }
    if domain.not_null {
        sql.push_str(" NOT NULL");
    }
    if let Some(default) = &domain.default {
        sql.push_str(&format!(" DEFAULT {default}"));
    }
    for constraint in &domain.constraints {
        if !is_inline(context, ObjectId::new(Class::Constraint, constraint.oid), constraint.validated) {
            continue;
        }
        if constraint.not_null && constraint.name == format!("{}_not_null", data_type.name) {
            sql.push_str(" NOT NULL");
        } else {
            sql.push_str(&format!("\n    CONSTRAINT {} {}", ident(&constraint.name), constraint.definition));
        }
    }
    sql
}

fn create_range(context: &Context<'_>, name: &str, range: &Range) -> String {
    let mut parts = vec![format!("subtype = {}", range.subtype)];
    let mut part = |key: &str, value: Option<&String>| {
        if let Some(value) = value {
            parts.push(format!("{key} = {value}"));
        }
    };
    if context.target_version >= 140_000 {
        part("multirange_type_name", range.multirange.as_ref().map(|m| &m.name));
    }
    part("subtype_opclass", range.operator_class.as_ref());
    part("collation", range.collation.as_ref());
    part("canonical", range.canonical.as_ref());
    part("subtype_diff", range.difference.as_ref());
    format!("CREATE TYPE {name} AS RANGE (\n    {}\n)", parts.join(",\n    "))
}

fn create_base(name: &str, base: &Base) -> String {
    let mut parts = vec![
        match base.length {
            -1 => "INTERNALLENGTH = variable".to_owned(),
            length => format!("INTERNALLENGTH = {length}"),
        },
        format!("INPUT = {}", base.input),
        format!("OUTPUT = {}", base.output),
    ];
    for (key, function) in [
        ("RECEIVE", &base.receive),
        ("SEND", &base.send),
        ("TYPMOD_IN", &base.typmod_in),
        ("TYPMOD_OUT", &base.typmod_out),
        ("ANALYZE", &base.analyze),
        ("SUBSCRIPT", &base.subscript),
        ("ELEMENT", &base.element),
    ] {
        parts.extend(function.as_ref().map(|function| format!("{key} = {function}")));
    }
    if base.collatable {
        parts.push("COLLATABLE = true".to_owned());
    }
    parts.extend(base.default.as_ref().map(|default| format!("DEFAULT = {}", literal(default))));
    if base.category != "U" {
        parts.push(format!("CATEGORY = {}", literal(&base.category)));
    }
    if base.preferred {
        parts.push("PREFERRED = true".to_owned());
    }
    if base.delimiter != "," {
        parts.push(format!("DELIMITER = {}", literal(&base.delimiter)));
    }
    let alignment = match base.alignment.as_str() {
        "c" => "char",
        "s" => "int2",
        "d" => "double",
        _ => "int4",
    };
    let storage = match base.storage.as_str() {
        "e" => "external",
        "x" => "extended",
        "m" => "main",
        _ => "plain",
    };
    parts.push(format!("ALIGNMENT = {alignment}"));
    parts.push(format!("STORAGE = {storage}"));
    if base.by_value {
        parts.push("PASSEDBYVALUE".to_owned());
    }
    format!("CREATE TYPE {name} (\n    {}\n)", parts.join(",\n    "))
}
