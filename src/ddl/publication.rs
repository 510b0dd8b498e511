//! Publications and subscriptions.

use super::{Context, Item, Plan, Section};
use crate::schema::publication::{Publication, Subscription};
use crate::schema::{Class, ObjectId};
use crate::sql::{ident, literal, qualified};

/// The items of publications and subscriptions.
pub fn items(context: &Context<'_>, plan: &mut Plan) {
    if context.options.publications {
        for publication in &context.database.publications {
            add_publication(context, plan, publication);
        }
    }
    if context.options.subscriptions {
        for subscription in &context.database.subscriptions {
            plan.items.push(subscription_item(context, subscription));
        }
    }
}

fn add_publication(context: &Context<'_>, plan: &mut Plan, publication: &Publication) {
    let id = ObjectId::new(Class::Publication, publication.oid);
    let name = ident(&publication.name);
    // One for all tables would get in the way of the tables that come after it.
    let section = if publication.all_tables { Section::Last } else { Section::PostData };
    let mut item = Item::new(id, "PUBLICATION", section, None, &publication.name).owned(
        context,
        &format!("PUBLICATION {name}"),
        &publication.owner,
    );
    let mut with = vec![format!("publish = '{}'", publication.operations.join(", "))];
    if publication.via_root {
        with.push("publish_via_partition_root = true".to_owned());
    }
    if let Some(generated) = publication.generated.as_deref().filter(|g| *g != "none") {
        with.push(format!("publish_generated_columns = {generated}"));
    }
    item.create.push(format!(
        "CREATE PUBLICATION {name}{} WITH ({})",
        if publication.all_tables { " FOR ALL TABLES" } else { "" },
        with.join(", ")
    ));
    plan.items.push(item);
    for schema in &publication.schemas {
        let part_id = ObjectId::new(Class::PublicationSchema, schema.oid);
        let tag = format!("{} {}", publication.name, schema.schema);
        let mut part = Item::new(part_id, "PUBLICATION TABLES IN SCHEMA", section, None, tag);
        part.requires = vec![id, ObjectId::new(Class::Namespace, schema.schema_oid)];
        part.create.push(format!("ALTER PUBLICATION {name} ADD TABLES IN SCHEMA {}", ident(&schema.schema)));
        plan.items.push(part);
    }
    for table in &publication.tables {
        let part_id = ObjectId::new(Class::PublicationTable, table.oid);
        let tag = format!("{} {}", publication.name, table.table);
        let mut part = Item::new(part_id, "PUBLICATION TABLE", section, Some(&table.schema), tag);
        part.requires = vec![id, ObjectId::new(Class::Relation, table.table_oid)];
        let mut sql =
            format!("ALTER PUBLICATION {name} ADD TABLE ONLY {}", qualified(&table.schema, &table.table));
        if let Some(columns) = &table.columns {
            let columns: Vec<_> = columns.iter().map(|c| ident(c)).collect();
            sql.push_str(&format!(" ({})", columns.join(", ")));
        }
        if let Some(filter) = &table.filter {
            sql.push_str(&format!(" WHERE ({filter})"));
        }
        part.create.push(sql);
        plan.items.push(part);
    }
}

/// A subscription is made disabled and without connecting, as pg_dump does: the operator enables it after the cutover.
fn subscription_item(context: &Context<'_>, subscription: &Subscription) -> Item {
    let id = ObjectId::new(Class::Subscription, subscription.oid);
    let name = ident(&subscription.name);
    let mut item = Item::new(id, "SUBSCRIPTION", Section::PostData, None, &subscription.name).owned(
        context,
        &format!("SUBSCRIPTION {name}"),
        &subscription.owner,
    );
    item.secret = true;
    let mut with = vec!["connect = false".to_owned()];
    with.push(match &subscription.slot {
        Some(slot) => format!("slot_name = {}", literal(slot)),
        None => "slot_name = NONE".to_owned(),
    });
    if subscription.binary {
        with.push("binary = true".to_owned());
    }
    match subscription.streaming.as_str() {
        "t" => with.push("streaming = on".to_owned()),
        "p" => with.push("streaming = parallel".to_owned()),
        _ if context.target_version >= 140_000 => with.push("streaming = off".to_owned()),
        _ => {}
    }
    for (option, set) in [
        ("two_phase = on", subscription.two_phase),
        ("disable_on_error = true", subscription.disable_on_error),
        ("password_required = false", !subscription.password_required),
        // Before 16 there was no other way to run.
        ("run_as_owner = true", subscription.run_as_owner && context.target_version >= 160_000),
        ("failover = true", subscription.failover),
    ] {
        if set {
            with.push(option.to_owned());
        }
    }
    if subscription.synchronous_commit != "off" {
        with.push(format!("synchronous_commit = {}", literal(&subscription.synchronous_commit)));
    }
    if let Some(origin) = subscription.origin.as_deref().filter(|o| *o != "any") {
        with.push(format!("origin = {origin}"));
    }
    let publications: Vec<_> = subscription.publications.iter().map(|p| ident(p)).collect();
    item.create.push(format!(
        "CREATE SUBSCRIPTION {name} CONNECTION {} PUBLICATION {} WITH ({})",
        literal(&subscription.connection),
        publications.join(", "),
        with.join(", ")
    ));
    item
}
