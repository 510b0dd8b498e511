//! `pgstream generate`: manual pages and completions from the definition of the command line, the schemas of what is printed, and a dashboard.

use std::fs;
use std::path::Path;

use clap::{CommandFactory, ValueEnum};
use serde_json::{Value, json};

use super::args::{Arguments, Generate, Printed};
use super::ui::Ui;
use crate::error::{Error, Result, io_reason};

/// Shows the metrics that `metrics` serves.
const DASHBOARD: &str = include_str!("grafana.json");

/// Of everything that is printed with `--json`, by definitions that are named like the commands; the tests hold each output against it.
const SCHEMA: &str = include_str!("output.schema.json");

/// The schema of one kind of output; a command that fails prints an error instead.
fn schema(of: Printed) -> Result<Value> {
    let mut schema: Value =
        serde_json::from_str(SCHEMA).map_err(|e| Error::failed(format!("the schema is no JSON: {e}")))?;
    let name = of.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
    let root = |name: &str| json!({ "$ref": format!("#/$defs/{name}") });
    schema["anyOf"] = match of {
        Printed::Event => json!([root(&name)]),
        _ => json!([root(&name), root("error")]),
    };
    Ok(schema)
}

/// Needs neither servers nor a runtime.
///
/// # Errors
/// Files that can't be written.
pub(super) fn run(ui: &Ui, what: &Generate) -> Result<()> {
    let mut command = Arguments::command();
    match what {
        Generate::Man { directory } => manual(ui, command, directory),
        Generate::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut command, "pgstream", &mut script);
            ui.print(&String::from_utf8_lossy(&script))
        }
        Generate::JsonSchema { of } => ui.json(&schema(*of)?),
        Generate::Dashboard => ui.print(DASHBOARD),
    }
}

fn manual(ui: &Ui, command: clap::Command, directory: &Path) -> Result<()> {
    let written = fs::create_dir_all(directory).and_then(|()| clap_mangen::generate_to(command, directory));
    written.map_err(|error| {
        Error::failed(format!(
            "could not write manual pages into \"{}\": {}",
            directory.display(),
            io_reason(&error)
        ))
    })?;
    ui.note(&format!(
        "the manual pages are in {}; read them by man -l, or put them where MANPATH leads",
        directory.display()
    ));
    Ok(())
}
