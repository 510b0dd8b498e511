//! What stops an applier, and how it is told.

use pgstream_proto::lsn::Lsn;
use pgstream_proto::notice::Notice;

use super::ahead::UNKNOWN;
use super::apply::{Applier, Expected, Step};
use crate::catalog::large_value;
use crate::config::{Config, Side};
use crate::error::{Error, ErrorKind};
use crate::wire::{Connection, Settings};

/// Why an applier stops.
#[derive(Debug)]
pub(super) enum Halt {
    /// Something outside the changes: a server, a network, a file.
    Error(Error),
    /// A source transaction of a group could not be applied: they are to be applied again one by one up to this commit LSN, so that what can be
    /// applied is, and the failure is that of one change.
    Group(Error, Lsn),
    /// A source transaction could not be applied though it came alone.
    Change(Error),
    /// What was applied ahead of its commit could not be: it is to wait for its commit.
    Ahead(Error),
    /// The rows of the relation (its OID on the source) must be copied again.
    Recopy(u32),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Halt {
        Halt::Error(error)
    }
}

/// A failure at the source transaction that committed at `commit`.
pub(super) fn at(error: Error, commit: Lsn, careful_until: Lsn) -> Halt {
    if error.kind() == ErrorKind::Connection {
        Halt::Error(error)
    } else if commit == UNKNOWN {
        Halt::Ahead(error)
    } else if commit <= careful_until {
        Halt::Change(error)
    } else {
        Halt::Group(error, commit)
    }
}

/// What the source reports in the middle of a stream, in our words where its own don't say which table is meant: a value whose text form is larger
/// than its largest allocation.
pub(super) async fn of_source(source: &Config, error: Error) -> Error {
    let too_large = error.notice().is_some_and(|notice| {
        notice.sqlstate().as_str() == "54000"
            || notice.message().starts_with("invalid memory alloc request size")
    });
    if !too_large {
        return error;
    }
    let search = async {
        let mut session = Connection::connect(source, Side::Source, &Settings::session()).await?;
        large_value::columns_without_text_form(&mut session).await
    };
    let found = search.await.unwrap_or_else(|reason| {
        tracing::debug!(%reason, "could not look for values without a text form");
        Vec::new()
    });
    let error = error.context("the source can't send a change, as a value or a row of it is too large");
    let error = match found.is_empty() {
        true => error,
        false => error
            .with_detail(format!("A value without a text form is in column {}.", found.join("; in column "))),
    };
    error.with_hint(
        "The stream can't pass this change: run pgstream cleanup, and move the database while nothing writes to it, with --method copy.",
    )
}

impl Applier {
    pub(super) fn halt(&self, expected: Expected, error: Error) -> Halt {
        at(error, expected.commit, self.careful_until())
    }

    /// The server's error, without what it says of the row's values.
    pub(super) fn failed(&self, expected: Expected, notice: Notice) -> Halt {
        let state = notice.sqlstate();
        if expected.step == Step::Checkpoint && state.as_str() == "22012" {
            return Halt::Error(
                Error::failed("another pgstream has applied changes to the target in the meantime")
                    .with_detail("Its checkpoint is not where this run left it.")
                    .with_hint("Run pgstream status to see who works on the target; then run the same command again."),
            );
        }
        // Errors about data (class 22) end in the value, in quotes.
        let message = match notice.message().split_once(": \"") {
            Some((message, _)) if state.class() == "22" => message.to_owned(),
            _ => notice.message().to_owned(),
        };
        let mut error = Error::server(notice).without_values(message).context(self.what(expected));
        let keys =
            self.mapped(expected.relation).map(|mapped| mapped.key_names().join(", ")).unwrap_or_default();
        if matches!(expected.step, Step::Update | Step::Delete) && !keys.is_empty() {
            error = error.with_detail(format!("Rows of the table are identified by {keys}."));
        }
        error = error.with_detail(format!("SQLSTATE is {state}."));
        error = error.with_hint(match state.as_str() {
            "42501" => "Give the target's user that right (for row-level security: ALTER ROLE … BYPASSRLS), and run the same command again; nothing is lost.",
            "53100" => "Free disk space on the target, and run the same command again; nothing is lost.",
            _ => "Mend the cause, and run the same command again: it goes on before this change, and the slot keeps what follows on the source's disk.",
        });
        self.halt(expected, error)
    }

    pub(super) fn no_row(&self, expected: Expected) -> String {
        format!("{}: the row is not on the target", self.what(expected))
    }

    fn what(&self, expected: Expected) -> String {
        let action = match expected.step {
            Step::Insert => "insert into",
            Step::Copy => "copy inserted rows into",
            Step::Update => "update",
            Step::Delete => "delete from",
            Step::Truncate => "truncate",
            Step::Setting | Step::Checkpoint | Step::Commit => {
                return format!("could not apply changes up to source LSN {}", expected.commit);
            }
        };
        let table = self.mapped(expected.relation).map_or("?", |mapped| mapped.name.as_str());
        format!("could not {action} table \"{table}\" at source LSN {}", expected.commit)
    }
}
