//! The one error type of the program: what failed, why, and what to type next.
//!
//! In: a failure of any layer. Out: a primary line (`what: reason`), and optional detail and hint, which `cli::ui` prints
//! in PostgreSQL's form. [`Error`]'s `Display` prints the primary line alone. Values of rows and secrets must
//! never be put into an error; a failing statement goes into [`Error::statement`], cut at 1 kB.

use std::fmt;

use pgstream_proto::notice::Notice;
use pgstream_proto::sqlstate::SqlState;

/// Result with the program's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What an error means for the run, and so for the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The work failed (exit code 1); a later run may go on.
    Failed,
    /// Wrong usage or configuration, nothing touched (exit code 2).
    Usage,
    /// A check found a blocker, nothing touched (exit code 2).
    Blocked,
    /// The connection was lost or could not be made: worth another try (exit code 1).
    Connection,
    /// Stopped on request; the same command resumes (exit code 4).
    Stopped,
}

/// A failure, in the form of PostgreSQL's "Error Message Style Guide".
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    what: String,
    detail: Option<String>,
    hint: Option<String>,
    statement: Option<String>,
    server: Option<Notice>,
}

/// The longest piece of a failing statement that is shown, in bytes.
const STATEMENT_LIMIT: usize = 1024;

impl Error {
    /// A failure of `kind`; `what` is a primary line: lower case, no full stop.
    pub fn new(kind: ErrorKind, what: impl Into<String>) -> Error {
        Error(Box::new(Inner {
            kind,
            what: what.into(),
            detail: None,
            hint: None,
            statement: None,
            server: None,
        }))
    }

    /// The work failed.
    pub fn failed(what: impl Into<String>) -> Error {
        Error::new(ErrorKind::Failed, what)
    }

    /// Wrong usage or configuration; nothing was touched.
    pub fn usage(what: impl Into<String>) -> Error {
        Error::new(ErrorKind::Usage, what)
    }

    /// The connection was lost or could not be made.
    pub fn connection(what: impl Into<String>) -> Error {
        Error::new(ErrorKind::Connection, what)
    }

    /// The operator asked to stop.
    pub fn stopped() -> Error {
        Error::new(ErrorKind::Stopped, "stopped on request")
    }

    /// An ErrorResponse of a server, verbatim, with its own detail, hint and context.
    pub fn server(notice: Notice) -> Error {
        let kind = match notice.sqlstate().class() {
            // A protocol violation would be one again.
            "08" if notice.sqlstate().as_str() != "08P01" => ErrorKind::Connection,
            "57" if notice.sqlstate().is_shutdown() => ErrorKind::Connection,
            _ => ErrorKind::Failed,
        };
        let mut error = Error::new(kind, notice.message());
        // The detail of an integrity violation quotes the row.
        if notice.sqlstate().class() != "23" {
            error.0.detail = notice.detail().map(str::to_owned);
        }
        error.0.hint = notice.hint().map(str::to_owned);
        error.0.server = Some(notice);
        error
    }

    /// Puts what was being done before the reason: `could not X: reason`.
    #[must_use]
    pub fn context(mut self, what: impl fmt::Display) -> Error {
        self.0.what = format!("{what}: {}", self.0.what);
        self
    }

    /// Changes what the error means for the run.
    #[must_use]
    pub fn with_kind(mut self, kind: ErrorKind) -> Error {
        self.0.kind = kind;
        self
    }

    /// Keeps of a server's error `what` alone: its detail and context may hold values of rows.
    #[must_use]
    pub fn without_values(mut self, what: impl Into<String>) -> Error {
        self.0.what = what.into();
        self.0.detail = None;
        self.0.hint = None;
        self
    }

    /// Adds a detail, a full sentence; details add up, one a line.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<String>) -> Error {
        let detail = detail.into();
        match &mut self.0.detail {
            Some(present) => {
                present.push('\n');
                present.push_str(&detail);
            }
            None => self.0.detail = Some(detail),
        }
        self
    }

    /// Sets the hint, a full sentence that says what to type next; replaces the server's own.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Error {
        self.0.hint = Some(hint.into());
        self
    }

    /// Keeps the statement that failed, cut at 1 kB. Never call it with row values or secrets inside.
    #[must_use]
    pub fn with_statement(mut self, statement: &str) -> Error {
        let mut end = statement.len().min(STATEMENT_LIMIT);
        while !statement.is_char_boundary(end) {
            end -= 1;
        }
        let mut text = statement[..end].to_owned();
        if end < statement.len() {
            text.push_str(" …");
        }
        self.0.statement = Some(text);
        self
    }

    /// Forgets the statement, where it holds a secret.
    #[must_use]
    pub fn without_statement(mut self) -> Error {
        self.0.statement = None;
        self
    }

    /// What the error means for the run.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The detail, if any.
    pub fn detail(&self) -> Option<&str> {
        self.0.detail.as_deref()
    }

    /// The hint, if any.
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The statement that failed, if it was a statement.
    pub fn statement(&self) -> Option<&str> {
        self.0.statement.as_deref()
    }

    /// The server's ErrorResponse, if a server reported the failure.
    pub fn notice(&self) -> Option<&Notice> {
        self.0.server.as_ref()
    }

    /// The server's SQLSTATE, if a server reported the failure.
    pub fn sqlstate(&self) -> Option<SqlState> {
        self.0.server.as_ref().map(Notice::sqlstate)
    }
}

/// What a task gave that was joined; where it panicked, an error that says so of `what`, such as `a worker`.
pub fn joined<T>(what: &str, task: Result<Result<T>, impl fmt::Display>) -> Result<T> {
    task.unwrap_or_else(|panic| Err(Error::failed(format!("{what} ended unexpectedly: {panic}"))))
}

/// The operating system's reason in PostgreSQL's form: lower case, without the number.
pub fn io_reason(error: &std::io::Error) -> String {
    let text = error.to_string().to_lowercase();
    match text.rfind(" (os error ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.what)
    }
}

impl std::error::Error for Error {}
