//! Procedural languages and transforms.

use super::privileges::{self, Subject};
use super::{Context, Item, Plan, Section};
use crate::schema::{Class, ObjectId};
use crate::sql::ident;

/// The items of languages and transforms.
pub fn items(context: &Context<'_>, plan: &mut Plan) {
    for language in &context.database.languages {
        let id = ObjectId::new(Class::Language, language.oid);
        let name = ident(&language.name);
        let mut item = Item::new(id, "PROCEDURAL LANGUAGE", Section::PreData, None, &language.name).owned(
            context,
            &format!("LANGUAGE {name}"),
            &language.owner,
        );
        let Some(handler) = &language.handler else {
            plan.leave("PROCEDURAL LANGUAGE", &language.name, "it has no call handler");
            continue;
        };
        let mut sql = format!(
            "CREATE {}PROCEDURAL LANGUAGE {name} HANDLER {handler}",
            if language.trusted { "TRUSTED " } else { "" }
        );
        for (key, function) in [("INLINE", &language.inline), ("VALIDATOR", &language.validator)] {
            if let Some(function) = function {
                sql.push_str(&format!(" {key} {function}"));
            }
        }
        item.create.push(sql);
        plan.items.push(item);
        let subject = Subject {
            id,
            kind: "LANGUAGE",
            schema: None,
            name: &language.name,
            identity: &name,
            owner: &language.owner,
        };
        privileges::add(context, plan, subject, None, &language.acl);
    }
    for transform in &context.database.transforms {
        let id = ObjectId::new(Class::Transform, transform.oid);
        let name = format!("FOR {} LANGUAGE {}", transform.data_type, ident(&transform.language));
        let parts: Vec<_> = [("FROM SQL", &transform.from_sql), ("TO SQL", &transform.to_sql)]
            .into_iter()
            .filter_map(|(key, function)| function.as_ref().map(|f| format!("{key} WITH FUNCTION {f}")))
            .collect();
        let mut item = Item::new(id, "TRANSFORM", Section::PreData, None, &name);
        item.create.push(format!("CREATE TRANSFORM {name} ({})", parts.join(", ")));
        plan.items.push(item);
    }
}
