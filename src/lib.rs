//! pgstream moves PostgreSQL databases between servers and keeps them in step until cutover.
//!
//! This is the map of the program. Each module's own documentation says what comes in, what goes out and what may fail.
//!
//! ```text
//! cli        one file per command; `ui` is the only printer; maps errors to exit codes
//! migrate    the phase machine; checks; restart; set-up of the stream; cutover         cleanup   removes what pgstream keeps for itself
//! copy       snapshot, parts, relay, workers, post-data, sequences, large objects       replication   slot, stream, assemble, apply, checkpoint, feedback
//! verify     compares two databases inside both servers
//! state      schema `pgstream` of the target: everything a resume needs                catalog   the system catalogs → schema
//! wire       sockets, TLS, login, queries, pipelines, COPY, replication streams
//! ddl        schema → SQL, and its order; pure                                          schema    the model of a database: plain data
//! config     connection strings and all that completes them                             progress  counters
//! error, sql, fault
//! pgstream-proto (crate)   the protocol as pure functions over bytes: no sockets, no clock
//! ```
//! A module uses those below it, never those above or beside it (`copy`, `replication` and `verify` meet through the state tables, the
//! schema and a snapshot's name); a test reads the `use` lines and fails where that is broken.
//!
//! # What holds everywhere
//! - **State commits with the work.** A DDL item, a part's COPY and an applied batch each commit together with their row in the target's schema
//!   `pgstream`. The process holds nothing that a resume needs. Files of a spool (`--spool-dir`) are the one exception: the state says on which host they are.
//! - **The source is read.** Nothing is created there but a publication and a slot named `pgstream_…`, and what the operator asked for.
//! - **Bytes from a peer are untrusted.** Lengths are capped before anything is reserved; `proto::cursor` alone indexes them; no `unsafe`.
//! - **Row values and secrets never reach an error**, a log or a state table.
//!
//! # Where this differs from what one might expect
//! - There is no `retry` module: following a stream retries in `replication::follow`, items retry deadlocks where they are made, and a copy is resumed by the next run.
//! - A large transaction may be applied before its commit is known, as the only thing of a transaction of the target (`replication::ahead`): to hold it back
//!   would have the target wait for the source, and then the source for the target.
//! - Commits of the applier don't wait for the disk, and none of them is made to: a session of its own makes durable all that there are (`replication::durable`).
//! - Statistics are collected before privileges and the database's own settings come: a setting such as `default_transaction_read_only`, or a
//!   connection limit, would get in the way of the run itself.
//! - Large objects' owners, grants and comments come with their contents, not as items: a database may have millions.
//! - A part has no state "running": whoever has it holds its row lock, and a crash gives it back. So workers of other processes and hosts (`migrate::worker`) are
//!   no different from those of the run itself.

pub mod catalog;
pub mod cleanup;
pub mod cli;
pub mod config;
pub mod copy;
pub mod ddl;
pub mod error;
pub mod fault;
pub mod migrate;
pub mod progress;
pub mod replication;
pub mod schema;
pub mod sql;
pub mod state;
pub mod verify;
pub mod wire;
