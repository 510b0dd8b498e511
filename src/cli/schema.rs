//! `pgstream schema`: the statements that make the source's schema, as a script for psql.

use serde_json::json;

use super::args::{self, Schema};
use super::{Context, Outcome};
use crate::catalog;
use crate::config::Side;
use crate::ddl::{self, Section};
use crate::error::Result;
use crate::wire::{Connection, Settings};

pub(super) async fn run(context: &Context<'_>, options: &Schema) -> Result<Outcome> {
    let config = context.servers.needed(Side::Source)?;
    let target = context.servers.named(Side::Target)?;
    let settings = Settings::session();
    let mut source = Connection::connect(&config, Side::Source, &settings).await?;
    source.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let database = catalog::read(&mut source).await?;
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
    let plan = ddl::plan(&database, &options.content.options(), version)?;
    let sections: &[Section] = match options.section {
        args::Section::PreData => &[Section::PreData],
        args::Section::PostData => &[Section::PostData, Section::Privileges, Section::Last],
        args::Section::All => &[Section::PreData, Section::PostData, Section::Privileges, Section::Last],
    };
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
        context.ui.print(&ddl::script(&plan, sections))?;
    }
    Ok(Outcome::Done)
}

fn item(item: &ddl::Item) -> serde_json::Value {
    let statements: Vec<&String> = item.create.iter().chain(&item.decorate).collect();
    json!({ "kind": item.kind, "schema": item.schema, "name": item.name, "statements": statements })
}
