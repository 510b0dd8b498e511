//! Text search parsers, templates, dictionaries and configurations.

use super::{Context, Item, Plan, Section};
use crate::schema::{Class, ObjectId};
use crate::sql::{ident, qualified};

/// The items of text search.
pub fn items(context: &Context<'_>, plan: &mut Plan) {
    let database = context.database;
    for parser in &database.text_search_parsers {
        let mut parts = vec![
            format!("START = {}", parser.start),
            format!("GETTOKEN = {}", parser.token),
            format!("END = {}", parser.end),
        ];
        parts.extend(parser.headline.as_ref().map(|f| format!("HEADLINE = {f}")));
        parts.push(format!("LEXTYPES = {}", parser.lextypes));
        let id = ObjectId::new(Class::TextSearchParser, parser.oid);
        plan.items.push(item(id, "TEXT SEARCH PARSER", &parser.schema, &parser.name, &parts));
    }
    for template in &database.text_search_templates {
        let mut parts: Vec<_> = template.init.iter().map(|f| format!("INIT = {f}")).collect();
        parts.push(format!("LEXIZE = {}", template.lexize));
        let id = ObjectId::new(Class::TextSearchTemplate, template.oid);
        plan.items.push(item(id, "TEXT SEARCH TEMPLATE", &template.schema, &template.name, &parts));
    }
    for dictionary in &database.text_search_dictionaries {
        let mut parts = vec![format!("TEMPLATE = {}", dictionary.template)];
        parts.extend(dictionary.options.clone());
        let id = ObjectId::new(Class::TextSearchDictionary, dictionary.oid);
        let subject = format!("TEXT SEARCH DICTIONARY {}", qualified(&dictionary.schema, &dictionary.name));
        plan.items.push(
            item(id, "TEXT SEARCH DICTIONARY", &dictionary.schema, &dictionary.name, &parts).owned(
                context,
                &subject,
                &dictionary.owner,
            ),
        );
    }
    for configuration in &database.text_search_configurations {
        let id = ObjectId::new(Class::TextSearchConfiguration, configuration.oid);
        let kind = "TEXT SEARCH CONFIGURATION";
        let subject = format!("{kind} {}", qualified(&configuration.schema, &configuration.name));
        let parts = [format!("PARSER = {}", configuration.parser)];
        let mut item = item(id, kind, &configuration.schema, &configuration.name, &parts).owned(
            context,
            &subject,
            &configuration.owner,
        );
        for mapping in &configuration.mappings {
            item.create.push(format!(
                "ALTER {subject} ADD MAPPING FOR {} WITH {}",
                ident(&mapping.token),
                mapping.dictionaries.join(", ")
            ));
        }
        plan.items.push(item);
    }
}

fn item(id: ObjectId, kind: &'static str, schema: &str, name: &str, parts: &[String]) -> Item {
    let mut item = Item::new(id, kind, Section::PreData, Some(schema), name);
    item.create.push(format!(
        "CREATE {kind} {} (\n    {}\n)",
        qualified(schema, name),
        parts.join(",\n    ")
    ));
    item
}
