//! Sessions with a server: sockets, TLS, login, queries, pipelines, COPY and cancel requests.
//!
//! In: a resolved [`Config`](crate::config::Config). Out: a [`Connection`], one server session, whose methods are each one exchange that
//! ends at ReadyForQuery, or a copy ([`CopyOut`], [`CopyIn`]) that is read or fed to its end. What may fail: the
//! network ([`ErrorKind::Connection`](crate::error::ErrorKind)), the server (its ErrorResponse, verbatim), or a peer that breaks the protocol.
//!
//! Every exchange reads while it writes: a server whose answers nobody takes stops taking requests, and both would wait for ever.
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
mod stream;
mod tcp;
mod tls;

pub use cancel::Canceller;
pub use connection::{Connection, PipelineError};
pub use copy::{CopyIn, CopyOut};
pub use copy_both::CopyBoth;
pub use listen::Listener;
pub use pipeline::{Answer, Pipeline};
pub use row::Row;
pub use settings::Settings;
