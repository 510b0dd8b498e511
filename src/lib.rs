//! pgstream moves PostgreSQL databases between servers and keeps them in step until cutover.

pub mod catalog;
pub mod cleanup;
pub mod cli;
pub mod config;
pub mod copy;
pub mod ddl;
pub mod error;
pub mod migrate;
pub mod progress;
pub mod replication;
pub mod schema;
pub mod sql;
pub mod state;
pub mod verify;
pub mod wire;
