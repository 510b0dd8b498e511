//! The one printer: messages on standard error, results on standard output.
//!
//! In: errors, warnings, notes, results. Out: text in the form of PostgreSQL's programs (`pgstream: error: …`), or with
//! `--json` one object on standard output. Nobody being there to read (a broken pipe) is no failure.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indicatif::MultiProgress;
use serde_json::{Value, json};

use crate::error::{Error, Result, io_reason};

/// How much is said.
#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    /// `--json`.
    pub(super) json: bool,
    /// `-q`.
    pub(super) quiet: bool,
    /// How often `-v` was given.
    pub(super) verbose: u8,
    /// Colour on a terminal is welcome.
    pub(super) color: bool,
}

/// The printer; clones print to the same place.
#[derive(Debug, Clone)]
pub(super) struct Ui {
    manner: Manner,
    terminal: bool,
    /// Progress bars on the terminal, which other lines have to go above of.
    bars: Arc<Mutex<Option<MultiProgress>>>,
}

const RED: &str = "1;31";
const MAGENTA: &str = "1;35";
const CYAN: &str = "1;36";

impl Ui {
    pub(super) fn new(manner: Manner) -> Ui {
        let terminal = io::stderr().is_terminal();
        let manner = Manner { color: manner.color && terminal, ..manner };
        Ui { manner, terminal, bars: Arc::default() }
    }

    /// How much is said.
    pub(super) fn manner(&self) -> Manner {
        self.manner
    }

    /// Whether standard error is a terminal, where progress can be drawn.
    pub(super) fn has_terminal(&self) -> bool {
        self.terminal
    }

    /// Whether someone sits there who can be asked.
    pub(super) fn can_ask(&self) -> bool {
        self.terminal && io::stdin().is_terminal()
    }

    fn bars(&self) -> MutexGuard<'_, Option<MultiProgress>> {
        self.bars.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts bars at the bottom of the terminal, or takes them away.
    pub(super) fn set_bars(&self, bars: Option<MultiProgress>) {
        *self.bars() = bars;
    }

    /// Writes whole lines to standard error, above the bars. Where that can't be written, there is no place left to say so.
    pub(super) fn lines(&self, text: &str) {
        let write = || {
            let _ = io::stderr().lock().write_all(text.as_bytes());
        };
        match &*self.bars() {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }

    fn labelled(&self, label: &str, color: &str, text: &str) -> String {
        if self.manner.color {
            format!("pgstream: \x1b[{color}m{label}:\x1b[0m {text}\n")
        } else {
            format!("pgstream: {label}: {text}\n")
        }
    }

    /// An error that ends the run. With `--json` the same goes to standard output as `{"error": …}`.
    pub(super) fn error(&self, error: &Error) {
        self.failure(error);
        if self.manner.json {
            // The error stands on standard error already; standard output failing adds nothing.
            let _ = self.json(&json!({ "error": {
                "message": error.to_string(),
                "detail": error.detail(),
                "hint": error.hint(),
                "sqlstate": error.sqlstate().map(|state| state.as_str().to_owned()),
            }}));
        }
    }

    /// An error that ends the work on one database.
    pub(super) fn failure(&self, error: &Error) {
        let sqlstate = error.sqlstate().map(|state| state.as_str().to_owned());
        let statement = error.statement().filter(|_| self.manner.verbose > 0);
        let mut text = match &sqlstate {
            Some(state) if self.manner.verbose > 0 => {
                self.labelled("error", RED, &format!("{state}: {error}"))
            }
            _ => self.labelled("error", RED, &error.to_string()),
        };
        for line in error.detail().into_iter().flat_map(str::lines) {
            text.push_str(&self.labelled("detail", CYAN, line));
        }
        for line in error.hint().into_iter().flat_map(str::lines) {
            text.push_str(&self.labelled("hint", CYAN, line));
        }
        if let Some(context) = error.notice().and_then(|n| n.context()).filter(|_| self.manner.verbose > 0) {
            for line in context.lines() {
                text.push_str(&self.labelled("context", CYAN, line));
            }
        }
        if let Some(statement) = statement {
            text.push_str(&self.labelled("detail", CYAN, &format!("statement was: {statement}")));
        }
        self.lines(&text);
    }

    /// Something that may be wrong, and what to do about it.
    pub(super) fn warning(&self, text: &str, hint: Option<&str>) {
        if self.manner.quiet {
            return;
        }
        let mut lines = self.labelled("warning", MAGENTA, text);
        if let Some(hint) = hint {
            lines.push_str(&self.labelled("hint", CYAN, hint));
        }
        self.lines(&lines);
    }

    /// Something that is good to know.
    pub(super) fn note(&self, text: &str) {
        if !self.manner.quiet {
            self.lines(&format!("pgstream: {text}\n"));
        }
    }

    /// A hint that belongs to what was printed last.
    pub(super) fn hint(&self, text: &str) {
        if !self.manner.quiet {
            self.lines(&self.labelled("hint", CYAN, text));
        }
    }

    /// Writes a result to standard output, as it is.
    pub(super) fn print(&self, text: &str) -> Result<()> {
        let mut out = io::stdout().lock();
        match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
            Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
                Err(Error::failed(format!("could not write to standard output: {}", io_reason(&e))))
            }
            _ => Ok(()),
        }
    }

    /// Writes a result to standard output as one JSON object.
    pub(super) fn json(&self, value: &Value) -> Result<()> {
        self.print(&format!("{value:#}\n"))
    }

    /// Asks for a yes; anything else, and the end of the input, is a no.
    pub(super) fn ask(&self, question: &str) -> bool {
        self.lines(&format!("pgstream: {question} [y/N] "));
        let mut answer = String::new();
        let read = io::stdin().read_line(&mut answer);
        read.is_ok() && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
    }
}
