//! `pgstream generate`: manual pages and completions from the definition of the command line, and a dashboard.

use std::fs;
use std::path::Path;

use clap::CommandFactory;

use super::args::{Arguments, Generate};
use super::ui::Ui;
use crate::error::{Error, Result, io_reason};

/// Shows the metrics that `metrics` serves.
const DASHBOARD: &str = include_str!("grafana.json");

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
