//! Sessions with a server: sockets, TLS, login, queries, pipelines, COPY and cancel requests.
//!
//! In: a resolved [`Config`](crate::config::Config). Out: a [`Connection`], one server session, whose methods are each one exchange that
//! ends at ReadyForQuery, or a copy ([`CopyOut`], [`CopyIn`]) that is read or fed to its end. What may fail: the
//! network ([`ErrorKind::Connection`](crate::error::ErrorKind)), the server (its ErrorResponse, verbatim), or a peer that breaks the protocol.
//!
//! Every exchange reads while it writes: a server whose answers nobody takes stops taking requests, and both would wait for ever.
//!
//! # Who may mean harm, and what holds against it
//! - **Someone between pgstream and a server**, who reads and changes all bytes. Against it stands TLS, as `sslmode` asks for it: `verify-full` alone proves whom
//!   one talks to, `require` only encrypts, `prefer` may be talked out of it, as in libpq. Nothing that was sent in clear is believed after the answer to SSLRequest, not even an error. SCRAM
//!   is bound to the TLS session where both can, and must be with `channel_binding=require`; `require_auth` refuses methods that give the password away.
//! - **A server that is none, or was taken over.** Its bytes are read by `pgstream-proto` alone: lengths are capped before anything is reserved, before login at 64 kB; a
//!   message in the wrong place ends the session. In SCRAM it learns nothing that it could log in with elsewhere, must prove that it knows the password, and can't ask for more than 100,000
//!   iterations. What it can do: give wrong rows and definitions, since that is what it is asked for; take a long time, unless `connect_timeout` limits it during login; and answer a query of the
//!   catalogs with more rows than memory holds. Rows that are copied or streamed don't add up in memory.
//! - **Names, definitions and values of the source**, chosen by whoever may create a table there. Names are quoted in every statement, values are parameters, COPY data or quoted
//!   strings. Definitions are run on the target as the role that pgstream logs in with, as by pg_restore: defaults, functions in indexes and views of an untrusted source act there. A role without superuser limits what they can do.
//! - **Other users of the host.** Passwords come from files with mode 0600, service files or the environment; a command line that holds one is the operator's choice. They can't print themselves, and are in no
//!   message, log, state table or process list. Temporary files have no name once they are made, and hold rows only while a large transaction is received.
//! - **Whoever can read the target's schema `pgstream`** sees names, positions and errors there, never rows or passwords.
//!
//! **Cancel safety.** A future of this layer that is dropped before its end leaves its session in the middle of an exchange; the connection
//! remembers it and refuses further work. Owners drop such a connection, and use [`Canceller`] to stop what the server still does.

mod cancel;
mod connect;
mod connection;
mod copy;
mod copy_both;
mod listen;
mod pipeline;
mod row;
mod settings;
#[cfg(test)]
pub(crate) mod simulated;
mod socket;
mod stream;
mod tls;

pub use cancel::Canceller;
pub use connection::{Connection, PipelineError};
pub use copy::{CopyIn, CopyOut};
pub use copy_both::CopyBoth;
pub use listen::Listener;
pub use pipeline::{Answer, Pipeline};
pub use row::Row;
pub use settings::Settings;

use crate::config::Side;
use crate::error::Error;

/// Bytes of a server that are none of the protocol, or not in their place.
pub(crate) fn violation(side: Side, what: impl std::fmt::Display) -> Error {
    Error::connection(format!("protocol violation by the {side}: {what}"))
}
