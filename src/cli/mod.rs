//! The command line: one file per command, and `ui`, the only printer.
//!
//! In: the process's arguments and environment. Out: messages, results and the exit code. Every command is an async
//! function that gives an [`Outcome`] or an [`Error`]; [`main`] alone turns these into an exit code.

mod args;
mod check;
mod cleanup;
mod cutover;
mod dashboard;
mod generate;
mod journal;
mod log;
mod metrics;
mod migrate;
mod schema;
mod server;
mod servers;
mod size;
mod status;
mod stop;
mod ui;
mod verify;
mod view;
mod watched;
mod worker;

use std::process::ExitCode;

use clap::Parser;

use crate::config::Environment;
use crate::error::{Error, ErrorKind, Result};
use args::{Arguments, Command};
use journal::Journal;
use servers::Servers;
use ui::{Manner, Ui};

/// How a command ended that did its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// All is well (exit code 0).
    Done,
    /// Findings were printed that stand in the way (exit code 2).
    Blocked,
    /// Finished, with differences or skipped objects that were printed (exit code 3).
    Differences,
    /// Some of the databases failed; their errors were printed (exit code 1).
    Failed,
    /// Stopped on request, in the middle of some of the databases (exit code 4).
    Stopped,
}

impl Outcome {
    /// What two databases' outcomes are together: the graver one.
    fn worse(self, other: Outcome) -> Outcome {
        let gravity = |outcome| match outcome {
            Outcome::Done => 0,
            Outcome::Differences => 1,
            Outcome::Blocked => 2,
            Outcome::Failed => 3,
            // What was stopped goes on by the same command, which then says what fails.
            Outcome::Stopped => 4,
        };
        if gravity(other) > gravity(self) { other } else { self }
    }
}

/// What every command gets.
struct Context<'a> {
    servers: Servers<'a>,
    ui: &'a Ui,
    stop: tokio_util::sync::CancellationToken,
}

/// Runs the program.
pub fn main() -> ExitCode {
    #[cfg(feature = "fault-points")]
    crate::fault::set_up();
    let environment = Environment::from_process();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(message) => return refuse(&message),
    };
    let common = &arguments.common;
    let json_format = common.log_format == args::LogFormat::Json;
    let ui = Ui::new(Manner {
        json: common.json,
        quiet: common.quiet,
        verbose: common.verbose,
        color: environment.wants_color(),
        migration_id: common.migration_id.clone(),
        json_messages: json_format && common.log_file.is_none(),
    });
    let journal = common.log_file.as_deref().map(|path| Journal::open(path, json_format)).transpose();
    let ui = match journal {
        Ok(journal) => ui.with_journal(journal),
        Err(error) => {
            ui.error(&error);
            return exit_code(error.kind());
        }
    };
    log::start(&ui);
    if let Command::Generate(options) = &arguments.command {
        return match generate::run(&ui, options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                ui.error(&error);
                exit_code(error.kind())
            }
        };
    }
    let servers = Servers::new(common, &environment, &ui);
    servers.warn_of_passwords_in_sight();
    match run(&arguments.command, servers, &ui) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Blocked) => ExitCode::from(2),
        Ok(Outcome::Differences) => ExitCode::from(3),
        Ok(Outcome::Failed) => exit_code(ErrorKind::Failed),
        Ok(Outcome::Stopped) => exit_code(ErrorKind::Stopped),
        Err(error) => {
            ui.error(&error);
            exit_code(error.kind())
        }
    }
}

fn exit_code(kind: ErrorKind) -> ExitCode {
    ExitCode::from(match kind {
        ErrorKind::Failed | ErrorKind::Connection => 1,
        ErrorKind::Usage | ErrorKind::Blocked => 2,
        ErrorKind::Stopped => 4,
    })
}

/// Prints clap's message: help and version to standard output, the rest to standard error in our form.
fn refuse(message: &clap::Error) -> ExitCode {
    let ui = Ui::new(Manner::default());
    if message.use_stderr() {
        ui.lines(&match message.kind() {
            clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => message.to_string(),
            _ => format!("pgstream: {message}"),
        });
        return exit_code(ErrorKind::Usage);
    }
    match ui.print(&message.to_string()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit_code(error.kind()),
    }
}

fn run(command: &Command, servers: Servers<'_>, ui: &Ui) -> Result<Outcome> {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = command.threads() {
        runtime.worker_threads(threads);
    }
    let runtime = runtime
        .enable_all()
        .build()
        .map_err(|e| Error::failed(format!("could not start the runtime: {e}")))?;
    runtime.block_on(async {
        let stop = stop::on_signals(ui)?;
        let context = Context { servers, ui, stop: stop.clone() };
        match command {
            // These wind down by themselves when they are asked to stop.
            Command::Migrate(options) => migrate::run(&context, options).await,
            Command::Worker(options) => worker::run(&context, options).await,
            Command::Cutover(options) => cutover::run(&context, options).await,
            Command::Verify(options) => verify::run(&context, options).await,
            Command::Check(options) => stop::or_stopped(&stop, check::run(&context, options)).await,
            Command::Status(options) => stop::or_stopped(&stop, status::run(&context, options)).await,
            Command::Schema(options) => stop::or_stopped(&stop, schema::run(&context, options)).await,
            // Needs no servers: see `main`.
            Command::Generate(_) => Ok(Outcome::Done),
            Command::Cleanup(options) => stop::or_stopped(&stop, cleanup::run(&context, options)).await,
        }
    })
}
