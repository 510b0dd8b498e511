//! One integration binary: the real `pgstream` against real PostgreSQL servers, 10 to 18.
//!
//! `tests/run` fetches the servers and runs everything; `cargo test` and `cargo nextest run` do as well. What the
//! tests stand on is in [`harness`].
#![allow(clippy::print_stdout, reason = "a randomised test prints its seed, so that it can be run again")]

mod checks;
mod commands;
mod conninfo;
mod dashboard;
mod encodings;
mod failures;
#[cfg(feature = "fault-points")]
mod faults;
mod golden;
mod harness;
mod hostile;
mod injection;
mod interference;
mod layers;
mod live;
mod migrate;
mod network;
mod operators;
mod pg_dump_objects;
mod random_schemas;
mod rare_properties;
mod refused;
mod regression_database;
mod replication;
mod reports;
mod resume;
mod schema;
mod secrets;
mod sections;
mod selection;
mod servers;
mod tls;
mod verify;
mod whole_servers;
mod workers;
