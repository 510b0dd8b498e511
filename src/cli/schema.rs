//! `pgstream schema`: the statements that make the source's schema, as a script for psql.

use serde_json::json;

use super::args::{self, Schema};
use super::{Context, Outcome};
use crate::catalog;
use crate::catalog::selection::Unmatched;
use crate::config::Side;
use crate::ddl::{self, Dangling, Section};
use crate::error::{Error, Result};
use crate::wire::{Connection, Settings};

pub(super) async fn run(context: &Context<'_>, options: &Schema) -> Result<Outcome> {
    let config = context.servers.needed(Side::Source)?;
    let target = context.servers.named(Side::Target)?;
    let settings = Settings::session();
    let mut source = Connection::connect(&config, Side::Source, &settings).await?;
    source.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let wanted = options.content.options()?;
    let selected = catalog::selection::read(&mut source, &wanted.selection, Unmatched::Refused).await?;
    let database = selected.database;
    source.close().await;
    // The statements fit the target's version where one is named, the source's otherwise.
    let version = match target {
        Some(target) => {
            let target = Connection::connect(&target, Side::Target, &settings).await?;
            let version = target.version();
            target.close().await;
            version
        }
        None => database.version,
    };
    let mut plan = ddl::plan(&database, &wanted, version)?;
    ddl::keep_array_casts(&mut plan, database.version, version);
    if let Some(whole) = &selected.whole {
        warn(context, &plan, &ddl::dangling(whole, &wanted, version, &plan)?);
    }
    if options.section.contains(&args::Section::Data) {
        return Err(Error::usage("rows are no part of a schema")
            .with_hint("Sections to print are pre-data and post-data; pgstream migrate copies data."));
    }
    let asked = |section| options.section.is_empty() || options.section.contains(&section);
    let mut sections = Vec::new();
    if asked(args::Section::PreData) {
        sections.push(Section::PreData);
    }
    if asked(args::Section::PostData) {
        sections.extend([Section::PostData, Section::Privileges, Section::Last]);
    }
    if context.ui.manner().json {
        let items: Vec<_> =
            plan.items.iter().filter(|item| sections.contains(&item.section)).map(item).collect();
        let left: Vec<_> = plan
            .not_copied
            .iter()
            .map(|left| json!({ "kind": left.kind, "name": left.name, "reason": left.reason }))
            .collect();
        context.ui.json(&json!({ "items": items, "not_copied": left }))?;
    } else {
        context.ui.print(&ddl::script(&plan, &sections))?;
    }
    Ok(Outcome::Done)
}

/// The script makes all that is selected, as pg_dump's does; where it is restored, what it needs has to be there.
fn warn(context: &Context<'_>, plan: &ddl::Plan, dangling: &[Dangling]) {
    for dangling in dangling.iter().filter(|dangling| !is_in_every_database(dangling)) {
        let item = plan.items[dangling.item].key();
        context.ui.warning(&format!("{item} needs {}, which is not selected", dangling.needs), None);
    }
}

fn is_in_every_database(dangling: &Dangling) -> bool {
    dangling.name.as_ref().is_none_or(|(group, name)| *group == "schema" && name == "public")
}

fn item(item: &ddl::Item) -> serde_json::Value {
    let statements: Vec<&String> = item.create.iter().chain(&item.decorate).collect();
    json!({ "kind": item.kind, "schema": item.schema, "name": item.name, "statements": statements })
}
