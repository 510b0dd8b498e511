//! The database's own properties, and default privileges.

use super::privileges::{self, Privileges, Subject};
use super::setting::set_clause;
use super::{Context, Item, Plan, Section};
use crate::schema::{Class, ObjectId};
use crate::sql::{ident, literal};

/// The items of the database itself (where the options name the target database) and of default privileges.
pub fn items(context: &Context<'_>, plan: &mut Plan) {
    if let Some(name) = &context.options.database {
        add_database(context, plan, name);
    }
    if context.options.privileges {
        add_default_privileges(context, plan);
    }
}

fn add_database(context: &Context<'_>, plan: &mut Plan, name: &str) {
    let properties = &context.database.properties;
    let id = ObjectId::new(Class::Database, properties.oid);
    let database = ident(name);
    let mut item = Item::new(id, "DATABASE PROPERTIES", Section::Last, None, name);
    item.owner = Some(properties.owner.clone());
    if context.options.owners {
        item.decorate.push(format!("ALTER DATABASE {database} OWNER TO {}", ident(&properties.owner)));
    }
    if properties.connection_limit != -1 {
        item.decorate
            .push(format!("ALTER DATABASE {database} CONNECTION LIMIT {}", properties.connection_limit));
    }
    if properties.template {
        item.decorate.push(format!("ALTER DATABASE {database} IS_TEMPLATE true"));
    }
    if let Some(comment) = properties.comment.as_deref().filter(|_| context.options.comments) {
        item.decorate.push(format!("COMMENT ON DATABASE {database} IS {}", literal(comment)));
    }
    for setting in properties.settings.iter().filter_map(|s| set_clause(s)) {
        item.decorate.push(format!("ALTER DATABASE {database} {setting}"));
    }
    for role in &properties.role_settings {
        for setting in role.settings.iter().filter_map(|s| set_clause(s)) {
            item.decorate.push(format!("ALTER ROLE {} IN DATABASE {database} {setting}", ident(&role.role)));
        }
    }
    plan.items.push(item);
    let subject =
        Subject { id, kind: "DATABASE", schema: None, name, identity: &database, owner: &properties.owner };
    privileges::add(context, plan, subject, None, &properties.acl);
}

fn add_default_privileges(context: &Context<'_>, plan: &mut Plan) {
    for default in &context.database.default_privileges {
        let kind = match default.kind {
            'r' => "TABLES",
            'S' => "SEQUENCES",
            'f' => "FUNCTIONS",
            'T' => "TYPES",
            'n' => "SCHEMAS",
            'L' => "LARGE OBJECTS",
            other => {
                let name = format!("FOR ROLE {}", default.role);
                plan.leave("DEFAULT ACL", name, format!("its kind of object, \"{other}\", is not known"));
                continue;
            }
        };
        let mut prefix = format!("ALTER DEFAULT PRIVILEGES FOR ROLE {} ", ident(&default.role));
        if let Some(schema) = &default.schema {
            prefix.push_str(&format!("IN SCHEMA {} ", ident(schema)));
        }
        let id = ObjectId::new(Class::DefaultAcl, default.oid);
        let tag = format!("DEFAULT PRIVILEGES FOR {kind} {}", default.role);
        let mut item = Item::new(id, "DEFAULT ACL", Section::Privileges, default.schema.as_deref(), tag);
        item.owner = Some(default.role.clone());
        item.requires = default.schema.as_deref().and_then(|s| context.schema_id(s)).into_iter().collect();
        let privileges = Privileges::of(context, kind, None);
        item.create = privileges::statements(&privileges, kind, &prefix, &default.role, &default.acl);
        if !item.create.is_empty() {
            plan.items.push(item);
        }
    }
}
