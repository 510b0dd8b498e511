//! Views and materialized views.
//!
//! A view whose query leads back to the view itself (through another view, a rule, a function), or leans on a primary key, is made
//! twice: first with its columns alone, `SELECT NULL::type AS column`, then with its query by CREATE OR REPLACE VIEW. A materialized view
//! can't be replaced and is made after the data instead.

use std::collections::{HashMap, HashSet};

use super::relation::{bare, column_subcommands, compressions, tablespace, using, with};
use super::{Context, Item, Plan, Section};
use crate::schema::view::View;
use crate::schema::{Class, ObjectId};
use crate::sql::{ident, qualified};

/// Adds all views and materialized views, and the refreshing of those that hold rows at the source.
pub fn items(context: &Context<'_>, plan: &mut Plan) {
    let items = &mut plan.items;
    for view in &context.database.views {
        if view.materialized {
            items.push(materialized(context, view));
        } else if is_apart(context, view) {
            items.push(first_form(context, view));
            items.push(final_form(view));
        } else {
            items.push(plain(context, view));
        }
        items.extend(view.columns.iter().filter_map(|column| {
            let default = column.default.as_ref()?;
            let name = format!("{} {}", view.name, column.name);
            let mut item = Item::new(default.id()?, "DEFAULT", Section::PreData, Some(&view.schema), name);
            item.owner = Some(view.owner.clone());
            item.requires.push(view.id());
            item.create.push(format!(
                "ALTER VIEW {} ALTER COLUMN {} SET DEFAULT {}",
                qualified(&view.schema, &view.name),
                ident(&column.name),
                default.expression
            ));
            Some(item)
        }));
    }
    refreshes(context, plan);
}

/// Whether the view is made in two steps, or the materialized view after the data.
fn is_apart(context: &Context<'_>, view: &View) -> bool {
    view.needs_key || context.separate.contains(&view.rule_id())
}

fn plain(context: &Context<'_>, view: &View) -> Item {
    let mut item = shell(context, view, "VIEW", Section::PreData);
    item.provides.push(view.rule_id());
    item.create.push(format!("CREATE VIEW {}", with_query(view)));
    item
}

/// The view with its columns but without its query.
fn first_form(context: &Context<'_>, view: &View) -> Item {
    let columns = view.columns.iter().map(|column| {
        let collation = column.collation.as_ref().map(|c| format!(" COLLATE {c}")).unwrap_or_default();
        format!("NULL::{}{collation} AS {}", column.type_name, ident(&column.name))
    });
    let columns: Vec<_> = columns.collect();
    let mut item = shell(context, view, "VIEW", Section::PreData);
    let subject = qualified(&view.schema, &view.name);
    item.create.push(format!("CREATE VIEW {subject} AS\nSELECT\n    {}", columns.join(",\n    ")));
    item
}

/// The view's query, as a second item; pg_dump counts it as the view's rule.
fn final_form(view: &View) -> Item {
    let section = if view.needs_key { Section::PostData } else { Section::PreData };
    let name = format!("{} _RETURN", view.name);
    let mut item = Item::new(view.rule_id(), "RULE", section, Some(&view.schema), name);
    item.owner = Some(view.owner.clone());
    item.requires.push(view.id());
    item.create.push(format!("CREATE OR REPLACE VIEW {}", with_query(view)));
    item
}

fn materialized(context: &Context<'_>, view: &View) -> Item {
    let section = if is_apart(context, view) { Section::PostData } else { Section::PreData };
    let subject = qualified(&view.schema, &view.name);
    let mut item = shell(context, view, "MATERIALIZED VIEW", section);
    item.provides.push(view.rule_id());
    item.create.push(format!(
        "CREATE MATERIALIZED VIEW {subject}{}{}{} AS\n{}\n  WITH NO DATA",
        using(context, view.access_method.as_deref()),
        with(&view.options, &view.toast_options),
        tablespace(context, view.tablespace.as_deref()),
        bare(&view.definition)
    ));
    let subcommands: Vec<_> = view.columns.iter().flat_map(column_subcommands).collect();
    if !subcommands.is_empty() {
        item.create.push(format!("ALTER TABLE ONLY {subject}\n    {}", subcommands.join(",\n    ")));
    }
    item.decorate.extend(compressions(context, &subject, &view.columns));
    item
}

/// The item of the view without a statement to make it.
fn shell(context: &Context<'_>, view: &View, kind: &'static str, section: Section) -> Item {
    let subject = format!("{kind} {}", qualified(&view.schema, &view.name));
    let mut item = Item::new(view.id(), kind, section, Some(&view.schema), &view.name);
    item.provides.extend(view.types.iter().map(|&oid| ObjectId::new(Class::Type, oid)));
    item.owned(context, &subject, &view.owner)
}

/// What follows CREATE VIEW.
fn with_query(view: &View) -> String {
    let mut sql = qualified(&view.schema, &view.name);
    sql += &with(&view.options, &[]);
    sql += &format!(" AS\n{}", bare(&view.definition));
    if let Some(option) = &view.check_option {
        sql += &format!("\n  WITH {option} CHECK OPTION");
    }
    sql
}

/// Adds REFRESH of each materialized view that is populated, after those that its query reads. One that reads a view which is not
/// populated can't be refreshed. (As pg_dump, see buildMatViewRefreshDependencies.)
fn refreshes(context: &Context<'_>, plan: &mut Plan) {
    let views: HashMap<u32, &View> = context.database.views.iter().map(|view| (view.oid, view)).collect();
    let rules: HashMap<u32, u32> = context.database.views.iter().map(|view| (view.rule, view.oid)).collect();
    let mut reads: HashMap<u32, Vec<u32>> = HashMap::new();
    for dependency in &context.database.dependencies {
        if dependency.object.class == Class::Rule
            && dependency.referenced.class == Class::Relation
            && let Some(&view) = rules.get(&dependency.object.oid)
            && view != dependency.referenced.oid
            && views.contains_key(&dependency.referenced.oid)
        {
            reads.entry(view).or_default().push(dependency.referenced.oid);
        }
    }
    for view in context.database.views.iter().filter(|v| v.populated) {
        let mut seen = HashSet::from([view.oid]);
        let mut pending = vec![view.oid];
        let mut refreshed_before: Vec<&View> = Vec::new();
        while let Some(oid) = pending.pop() {
            for &read in reads.get(&oid).map_or(&[][..], Vec::as_slice) {
                if seen.insert(read) {
                    pending.push(read);
                    refreshed_before.extend(views.get(&read).filter(|v| v.materialized).copied());
                }
            }
        }
        if let Some(empty) = refreshed_before.iter().find(|v| !v.populated) {
            let empty = qualified(&empty.schema, &empty.name);
            let reason =
                format!("its query reads materialized view {empty}, which is not populated in the source");
            plan.leave("MATERIALIZED VIEW DATA", qualified(&view.schema, &view.name), reason);
            continue;
        }
        refreshed_before.sort_by_key(|v| v.oid);
        let id = ObjectId::new(Class::Contents, view.oid);
        let kind = "MATERIALIZED VIEW DATA";
        let mut item = Item::new(id, kind, Section::Last, Some(&view.schema), &view.name);
        item.owner = Some(view.owner.clone());
        item.requires.push(view.id());
        item.requires.extend(refreshed_before.iter().map(|v| ObjectId::new(Class::Contents, v.oid)));
        item.create.push(format!("REFRESH MATERIALIZED VIEW {}", qualified(&view.schema, &view.name)));
        plan.items.push(item);
    }
}
