//! The one printer: messages on standard error and in the log file, results on standard output.
//!
//! In: errors, warnings, notes, progress, results. Out: text in the form of PostgreSQL's programs (`pgstream: error: …`), or with
//! `--json` one object on standard output. Nobody being there to read (a broken pipe) is no failure.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indicatif::MultiProgress;
use serde_json::{Value, json};

use super::journal::{Journal, Level, Message};
use crate::error::{Error, Result, io_reason};

/// How much is said, and in which form.
#[derive(Debug, Clone, Default)]
pub(super) struct Manner {
    /// `--json`.
    pub(super) json: bool,
    /// `-q`.
    pub(super) quiet: bool,
    /// How often `-v` was given.
    pub(super) verbose: u8,
    /// Colour on a terminal is welcome.
    pub(super) color: bool,
    /// `--migration-id`.
    pub(super) migration_id: Option<String>,
    /// `--log-format json` without a log file: messages are objects, one a line.
    pub(super) json_messages: bool,
}

/// The printer; clones print to the same place.
#[derive(Debug, Clone)]
pub(super) struct Ui {
    manner: Manner,
    terminal: bool,
    /// Progress bars on the terminal, which other lines have to go above of.
    bars: Arc<Mutex<Option<MultiProgress>>>,
    /// The log file.
    journal: Option<Arc<Journal>>,
    /// How many warnings have been said.
    warnings: Arc<AtomicU64>,
    /// The last messages but for progress, as objects.
    recent: Arc<Mutex<VecDeque<Value>>>,
}

/// So many of the last messages are kept.
const RECENT: usize = 100;

const CYAN: &str = "1;36";

impl Ui {
    pub(super) fn new(manner: Manner) -> Ui {
        let terminal = io::stderr().is_terminal() && !manner.json_messages;
        let manner = Manner { color: manner.color && terminal, ..manner };
        Ui {
            manner,
            terminal,
            bars: Arc::default(),
            journal: None,
            warnings: Arc::default(),
            recent: Arc::default(),
        }
    }

    /// The same with a log file.
    pub(super) fn with_journal(self, journal: Option<Journal>) -> Ui {
        Ui { journal: journal.map(Arc::new), ..self }
    }

    /// How many warnings have been said.
    pub(super) fn warnings(&self) -> u64 {
        self.warnings.load(Ordering::Relaxed)
    }

    /// The last messages, oldest first, as the log file has them in JSON.
    pub(super) fn recent(&self) -> Vec<Value> {
        self.recent_messages().iter().cloned().collect()
    }

    fn recent_messages(&self) -> MutexGuard<'_, VecDeque<Value>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How much is said.
    pub(super) fn manner(&self) -> &Manner {
        &self.manner
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

    /// `pgstream: `, with the migration's id where it has one.
    fn name(&self) -> String {
        match &self.manner.migration_id {
            Some(id) => format!("pgstream[{id}]: "),
            None => "pgstream: ".to_owned(),
        }
    }

    fn labelled(&self, label: &str, color: &str, text: &str) -> String {
        let name = self.name();
        match (label, self.manner.color) {
            ("", _) => format!("{name}{text}\n"),
            (_, true) => format!("{name}\x1b[{color}m{label}:\x1b[0m {text}\n"),
            (_, false) => format!("{name}{label}: {text}\n"),
        }
    }

    /// Says something on standard error if `said`, and in the log file in any case.
    fn say(&self, message: &Message<'_>, said: bool) {
        let id = self.manner.migration_id.as_deref();
        if message.level == Level::Warning {
            self.warnings.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(journal) = &self.journal {
            journal.write(message, id);
        }
        if message.level.is_kept() {
            let mut recent = self.recent_messages();
            if recent.len() == RECENT {
                recent.pop_front();
            }
            recent.push_back(message.object(id));
        }
        if !said {
            return;
        }
        if self.manner.json_messages {
            return self.lines(&format!("{}\n", message.object(id)));
        }
        let text = match message.database {
            Some(database) => format!("{database}: {}", message.text),
            None => message.text.to_owned(),
        };
        let text = match message.sqlstate.filter(|_| self.manner.verbose > 0) {
            Some(sqlstate) => format!("{sqlstate}: {text}"),
            None => text,
        };
        let mut lines = self.labelled(message.level.label(), message.level.color(), &text);
        for (label, text) in [("detail", message.detail), ("hint", message.hint)] {
            for line in text.into_iter().flat_map(str::lines) {
                lines.push_str(&self.labelled(label, CYAN, line));
            }
        }
        self.lines(&lines);
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
        let text = error.to_string();
        let message = Message {
            detail: error.detail(),
            hint: error.hint(),
            sqlstate: sqlstate.as_deref(),
            ..Message::new(Level::Error, &text)
        };
        self.say(&message, true);
        if self.manner.verbose == 0 || self.manner.json_messages {
            return;
        }
        let context = error.notice().and_then(|notice| notice.context()).unwrap_or_default();
        let mut text: String = context.lines().map(|line| self.labelled("context", CYAN, line)).collect();
        if let Some(statement) = error.statement() {
            text.push_str(&self.labelled("detail", CYAN, &format!("statement was: {statement}")));
        }
        self.lines(&text);
    }

    /// Something that may be wrong, and what to do about it.
    pub(super) fn warning(&self, text: &str, hint: Option<&str>) {
        self.say(&Message { hint, ..Message::new(Level::Warning, text) }, !self.manner.quiet);
    }

    /// Something that is good to know.
    pub(super) fn note(&self, text: &str) {
        self.say(&Message::new(Level::Note, text), !self.manner.quiet);
    }

    /// A hint that belongs to what was printed last.
    pub(super) fn hint(&self, text: &str) {
        self.say(&Message::new(Level::Hint, text), !self.manner.quiet);
    }

    /// What a migration reports of itself while it runs.
    pub(super) fn report(&self, note: &crate::progress::Note) {
        let level = if note.warning { Level::Warning } else { Level::Note };
        let message = Message {
            database: note.database.as_deref(),
            hint: note.hint.as_deref(),
            ..Message::new(level, &note.text)
        };
        self.say(&message, !self.manner.quiet);
    }

    /// How far the work is: a line where no bars can be, and for the log file.
    pub(super) fn progress(&self, text: &str, numbers: Value) {
        let message = Message { numbers: Some(numbers), ..Message::new(Level::Progress, text) };
        self.say(&message, !self.manner.quiet && !self.terminal);
    }

    /// What is traced.
    pub(super) fn trace(&self, level: Level, text: &str) {
        self.say(&Message::new(level, text), true);
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
