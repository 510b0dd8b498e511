//! Collations and encoding conversions.

use super::{Context, Item, Plan, Section};
use crate::schema::collation::Collation;
use crate::schema::{Class, ObjectId};
use crate::sql::{literal, qualified};

/// The items of collations and conversions.
pub fn items(context: &Context<'_>, plan: &mut Plan) {
    for collation in &context.database.collations {
        let name = qualified(&collation.schema, &collation.name);
        let id = ObjectId::new(Class::Collation, collation.oid);
        let mut item = Item::new(id, "COLLATION", Section::PreData, Some(&collation.schema), &collation.name)
            .owned(context, &format!("COLLATION {name}"), &collation.owner);
        item.create.push(format!("CREATE COLLATION {name} ({})", collation_options(collation).join(", ")));
        plan.items.push(item);
    }
    for conversion in &context.database.conversions {
        let name = qualified(&conversion.schema, &conversion.name);
        let id = ObjectId::new(Class::Conversion, conversion.oid);
        let mut item =
            Item::new(id, "CONVERSION", Section::PreData, Some(&conversion.schema), &conversion.name).owned(
                context,
                &format!("CONVERSION {name}"),
                &conversion.owner,
            );
        item.create.push(format!(
            "CREATE {}CONVERSION {name} FOR {} TO {} FROM {}",
            if conversion.default { "DEFAULT " } else { "" },
            literal(&conversion.from),
            literal(&conversion.to),
            conversion.function
        ));
        plan.items.push(item);
    }
}

fn collation_options(collation: &Collation) -> Vec<String> {
    let provider = match collation.provider {
        'b' => "builtin",
        'i' => "icu",
        'd' => "default",
        _ => "libc",
    };
    let mut options = vec![format!("provider = {provider}")];
    if !collation.deterministic {
        options.push("deterministic = false".to_owned());
    }
    let mut push = |key: &str, value: &Option<String>| {
        options.extend(value.as_ref().map(|value| format!("{key} = {}", literal(value))));
    };
    if collation.provider == 'c' {
        if collation.collate == collation.ctype {
            push("locale", &collation.collate);
        } else {
            push("lc_collate", &collation.collate);
            push("lc_ctype", &collation.ctype);
        }
    } else {
        push("locale", &collation.locale);
    }
    push("rules", &collation.rules);
    options
}
