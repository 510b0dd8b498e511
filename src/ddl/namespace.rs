//! Schemas, extensions, and privileges changed on extensions' objects.

use super::privileges::{self, Subject};
use super::{Context, Item, Plan, Section};
use crate::schema::{Class, ObjectId};
use crate::sql::ident;

/// Owner of `public` on a new database of a server from 15 on.
const PUBLIC_OWNER: &str = "pg_database_owner";

/// The items of schemas and extensions.
pub fn items(context: &Context<'_>, plan: &mut Plan) {
    for schema in &context.database.schemas {
        let id = ObjectId::new(Class::Namespace, schema.oid);
        let name = ident(&schema.name);
        let mut item = Item::new(id, "SCHEMA", Section::PreData, None, &schema.name);
        let mut acl = schema.acl.clone();
        if schema.builtin {
            // It exists. Servers before 15 also let everyone create in it, which the model's default doesn't have.
            if context.target_version < 150_000 {
                let everyone: Vec<_> = acl.default.iter().filter(|g| g.grantee.is_none()).cloned().collect();
                acl.default.extend(everyone.into_iter().map(|mut g| {
                    g.privilege = "CREATE".to_owned();
                    g
                }));
            }
        } else {
            item.create.push(format!("CREATE SCHEMA {name}"));
        }
        if !(schema.builtin && schema.owner == PUBLIC_OWNER) {
            item = item.owned(context, &format!("SCHEMA {name}"), &schema.owner);
        }
        plan.items.push(item);
        let subject = Subject {
            id,
            kind: "SCHEMA",
            schema: None,
            name: &schema.name,
            identity: &name,
            owner: &schema.owner,
        };
        privileges::add(context, plan, subject, None, &acl);
    }
    for extension in &context.database.extensions {
        let id = ObjectId::new(Class::Extension, extension.oid);
        let mut item = Item::new(id, "EXTENSION", Section::PreData, None, &extension.name);
        item.provides = extension.members.clone();
        if !extension.builtin {
            item.create.push(format!(
                "CREATE EXTENSION IF NOT EXISTS {} WITH SCHEMA {}",
                ident(&extension.name),
                ident(&extension.schema)
            ));
        }
        plan.items.push(item);
    }
    for changed in &context.database.changed_privileges {
        let subject = Subject {
            id: changed.id,
            kind: &changed.kind,
            schema: changed.schema.as_deref(),
            name: &changed.name,
            identity: &changed.identity,
            owner: &changed.owner,
        };
        privileges::add(context, plan, subject, changed.column.as_deref(), &changed.acl);
    }
}
