//! PostgreSQL's frontend/backend protocol, version 3, and its replication protocol, as pure functions over bytes.
//!
//! In: bytes that a server sent, or values to send. Out: messages, or bytes to send. No sockets, no clock, no
//! runtime: [`frame`] cuts a buffer into frames, [`backend`] makes a message of a frame, [`frontend`] appends
//! messages to a buffer, [`replication`] and [`pgoutput`] read what a walsender sends, [`copy`] writes rows for COPY, [`binary`] the
//! binary form of values. Whatever the bytes are, the result is a message or an error that names the message and the
//! field, never a panic, and no length is believed before it was checked against a cap.
//!
//! Format: the manual's chapter "Frontend/Backend Protocol".

pub mod auth;
pub mod backend;
pub mod binary;
pub mod copy;
mod cursor;
pub mod frame;
pub mod frontend;
pub mod lsn;
pub mod notice;
pub mod pgoutput;
pub mod replication;
pub mod sqlstate;
pub mod timestamp;

pub use cursor::ParseError;

use std::fmt;

/// How a value is written: as PostgreSQL's text, or as the type's binary form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Format {
    /// The output of the type's output function (format code 0).
    #[default]
    Text,
    /// The output of the type's send function (format code 1).
    Binary,
}

impl Format {
    /// The code on the wire.
    pub fn code(self) -> i16 {
        match self {
            Format::Text => 0,
            Format::Binary => 1,
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Format::Text => "text",
            Format::Binary => "binary",
        })
    }
}
