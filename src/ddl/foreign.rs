//! Foreign-data wrappers, servers and user mappings.

use super::privileges::{self, Subject};
use super::{Context, Item, Plan, Section};
use crate::schema::foreign::FdwOption;
use crate::schema::{Class, ObjectId};
use crate::sql::{ident, literal};

/// ` OPTIONS (…)`, or nothing where there are none.
pub fn options(options: &[FdwOption]) -> String {
    if options.is_empty() {
        return String::new();
    }
    let options: Vec<_> =
        options.iter().map(|o| format!("{} {}", ident(&o.name), literal(&o.value))).collect();
    format!(" OPTIONS ({})", options.join(", "))
}

/// The items of wrappers, servers and user mappings.
pub fn items(context: &Context<'_>, plan: &mut Plan) {
    for wrapper in &context.database.foreign_data_wrappers {
        let id = ObjectId::new(Class::ForeignDataWrapper, wrapper.oid);
        let name = ident(&wrapper.name);
        let mut item = Item::new(id, "FOREIGN DATA WRAPPER", Section::PreData, None, &wrapper.name).owned(
            context,
            &format!("FOREIGN DATA WRAPPER {name}"),
            &wrapper.owner,
        );
        let mut sql = format!("CREATE FOREIGN DATA WRAPPER {name}");
        for (key, function) in [("HANDLER", &wrapper.handler), ("VALIDATOR", &wrapper.validator)] {
            if let Some(function) = function {
                sql.push_str(&format!(" {key} {function}"));
            }
        }
        sql.push_str(&options(&wrapper.options));
        item.create.push(sql);
        plan.items.push(item);
        let subject = Subject {
            id,
            kind: "FOREIGN DATA WRAPPER",
            schema: None,
            name: &wrapper.name,
            identity: &name,
            owner: &wrapper.owner,
        };
        privileges::add(context, plan, subject, None, &wrapper.acl);
    }
    for server in &context.database.foreign_servers {
        let id = ObjectId::new(Class::ForeignServer, server.oid);
        let name = ident(&server.name);
        let mut item = Item::new(id, "SERVER", Section::PreData, None, &server.name).owned(
            context,
            &format!("SERVER {name}"),
            &server.owner,
        );
        let mut sql = format!("CREATE SERVER {name}");
        for (key, value) in [("TYPE", &server.kind), ("VERSION", &server.version)] {
            if let Some(value) = value {
                sql.push_str(&format!(" {key} {}", literal(value)));
            }
        }
        sql.push_str(&format!(
            " FOREIGN DATA WRAPPER {}{}",
            ident(&server.wrapper),
            options(&server.options)
        ));
        item.create.push(sql);
        item.secret = !server.options.is_empty();
        plan.items.push(item);
        let subject = Subject {
            id,
            kind: "FOREIGN SERVER",
            schema: None,
            name: &server.name,
            identity: &name,
            owner: &server.owner,
        };
        privileges::add(context, plan, subject, None, &server.acl);
    }
    for mapping in &context.database.user_mappings {
        // One whose options are hidden is useless; `Database::unread` names it.
        let Some(mapping_options) = &mapping.options else { continue };
        let id = ObjectId::new(Class::UserMapping, mapping.oid);
        let role = mapping.role.as_deref().unwrap_or("public");
        let tag = format!("USER MAPPING {role} SERVER {}", mapping.server);
        let mut item = Item::new(id, "USER MAPPING", Section::PreData, None, tag);
        item.requires.push(ObjectId::new(Class::ForeignServer, mapping.server_oid));
        item.create.push(format!(
            "CREATE USER MAPPING FOR {} SERVER {}{}",
            mapping.role.as_deref().map_or_else(|| "PUBLIC".to_owned(), ident),
            ident(&mapping.server),
            options(mapping_options)
        ));
        item.secret = true;
        plan.items.push(item);
    }
}
