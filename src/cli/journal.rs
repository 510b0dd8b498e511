//! The log file, and the form of its lines.
//!
//! In: everything that is said on standard error, and progress also where bars stand for it. Out: lines of text with time and level, or one
//! object a line, each with the migration's id. What may fail: opening the file; a line that can't be written is lost, as on standard error.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use serde_json::{Value, json};

use crate::error::{Error, Result, io_reason};

/// How grave a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    /// It ends the work on something.
    Error,
    /// Something may be wrong.
    Warning,
    /// Good to know.
    Note,
    /// What to do about what was said before.
    Hint,
    /// How far the work is.
    Progress,
    /// What is done (`-v`).
    Info,
    /// More of it (`-vv`).
    Debug,
    /// Everything (`-vvv`).
    Trace,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warning => "warning",
            Level::Note => "note",
            Level::Hint => "hint",
            Level::Progress => "progress",
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        }
    }

    /// Whether it is worth to be seen a while later: progress is not, and neither is what is traced.
    pub(super) fn is_kept(self) -> bool {
        matches!(self, Level::Error | Level::Warning | Level::Note | Level::Hint)
    }

    /// What stands before the text on standard error.
    pub(super) fn label(self) -> &'static str {
        match self {
            Level::Note | Level::Progress => "",
            other => other.name(),
        }
    }

    /// Its colour on a terminal.
    pub(super) fn color(self) -> &'static str {
        match self {
            Level::Error => "1;31",
            Level::Warning => "1;35",
            _ => "1;36",
        }
    }
}

/// Something that is said.
#[derive(Debug, Clone)]
pub(super) struct Message<'a> {
    /// How grave it is.
    pub(super) level: Level,
    /// The database that it is about, where there are several.
    pub(super) database: Option<&'a str>,
    /// One line.
    pub(super) text: &'a str,
    /// More about it.
    pub(super) detail: Option<&'a str>,
    /// What to do about it.
    pub(super) hint: Option<&'a str>,
    /// The server's code, of an error that a server reported.
    pub(super) sqlstate: Option<&'a str>,
    /// The counters, of progress.
    pub(super) numbers: Option<Value>,
}

impl<'a> Message<'a> {
    /// A message of one line.
    pub(super) fn new(level: Level, text: &'a str) -> Message<'a> {
        Message { level, database: None, text, detail: None, hint: None, sqlstate: None, numbers: None }
    }

    fn at(&self, time: &str, id: Option<&str>) -> Value {
        let mut object = json!({
            "time": time,
            "level": self.level.name(),
            "migration_id": id,
            "database": self.database,
            "message": self.text,
        });
        let more = [("detail", self.detail), ("hint", self.hint), ("sqlstate", self.sqlstate)];
        for (key, value) in more {
            if let Some(value) = value {
                object[key] = json!(value);
            }
        }
        if let Some(numbers) = &self.numbers {
            object["progress"] = numbers.clone();
        }
        object
    }

    /// The message as an object.
    pub(super) fn object(&self, id: Option<&str>) -> Value {
        self.at(&now(), id)
    }

    fn lines(&self, time: &str, id: Option<&str>) -> String {
        let id = id.map(|id| format!(" [{id}]")).unwrap_or_default();
        let database = self.database.map(|name| format!("{name}: ")).unwrap_or_default();
        let mut text = format!("{time}{id} {}: {database}{}\n", self.level.name(), self.text);
        for (label, more) in [("detail", self.detail), ("hint", self.hint)] {
            for line in more.into_iter().flat_map(str::lines) {
                text.push_str(&format!("{time}{id} {label}: {line}\n"));
            }
        }
        text
    }
}

fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

/// The log file.
#[derive(Debug)]
pub(super) struct Journal {
    file: Mutex<File>,
    json: bool,
}

impl Journal {
    /// Opens the file to append to it.
    ///
    /// # Errors
    /// A usage error that names the file.
    pub(super) fn open(path: &Path, json: bool) -> Result<Journal> {
        match OpenOptions::new().create(true).append(true).open(path) {
            Ok(file) => Ok(Journal { file: Mutex::new(file), json }),
            Err(error) => Err(Error::usage(format!(
                "could not open log file \"{}\": {}",
                path.display(),
                io_reason(&error)
            ))),
        }
    }

    /// Appends a message, in one write.
    pub(super) fn write(&self, message: &Message<'_>, id: Option<&str>) {
        let text = match self.json {
            true => format!("{}\n", message.object(id)),
            false => message.lines(&now(), id),
        };
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        // As on standard error: where that can't be written, there is no place left to say so.
        let _ = file.write_all(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_lines_or_one_object() {
        let message = Message {
            database: Some("app"),
            hint: Some("Do this.\nThen that."),
            ..Message::new(Level::Warning, "it's odd")
        };
        assert_eq!(
            message.lines("T", Some("m1")),
            "T [m1] warning: app: it's odd\nT [m1] hint: Do this.\nT [m1] hint: Then that.\n"
        );
        assert_eq!(
            message.at("T", Some("m1")),
            json!({ "time": "T", "level": "warning", "migration_id": "m1", "database": "app",
                    "message": "it's odd", "hint": "Do this.\nThen that." })
        );
    }
}
