//! `pgstream cleanup`: lists what pgstream keeps on the servers for itself, asks, and removes it.

use serde_json::json;

use super::args::Cleanup;
use super::{Context, Outcome};
use crate::cleanup;
use crate::config::Side;
use crate::error::{Error, Result};
use crate::wire::{Connection, Settings};

pub(super) async fn run(context: &Context<'_>, options: &Cleanup) -> Result<Outcome> {
    let ui = context.ui;
    let config = context.servers.needed(Side::Target)?;
    let mut target = Connection::connect(&config, Side::Target, &Settings::session()).await?;
    let leftovers = cleanup::find_on_target(&mut target).await?;
    if leftovers.is_empty() {
        if ui.manner().json {
            ui.json(&json!({ "removed": [] }))?;
        } else {
            ui.print("nothing to remove\n")?;
        }
        return Ok(Outcome::Done);
    }
    for leftover in &leftovers {
        if let Some(warning) = &leftover.warning {
            ui.warning(warning, None);
        }
    }
    let names: Vec<String> = leftovers.iter().map(ToString::to_string).collect();
    if !options.yes {
        ui.note(&format!("to be removed: {}", names.join(", ")));
        if !ui.can_ask() {
            return Err(Error::usage("cleanup removes nothing without being told to")
                .with_hint("Run it again with --yes."));
        }
        if !ui.ask("remove it?") {
            return Err(Error::usage("nothing was removed"));
        }
    }
    cleanup::remove_from_target(&mut target).await?;
    if ui.manner().json {
        let removed: Vec<_> = leftovers
            .iter()
            .map(|l| json!({ "side": l.side.to_string(), "kind": l.kind, "name": l.name }))
            .collect();
        ui.json(&json!({ "removed": removed }))?;
    } else {
        ui.print(&names.iter().map(|name| format!("removed {name}\n")).collect::<String>())?;
    }
    target.close().await;
    Ok(Outcome::Done)
}
