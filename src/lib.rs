//! pgstream moves PostgreSQL databases between servers and keeps them in step until cutover.

pub mod catalog;
pub mod config;
pub mod ddl;
pub mod error;
pub mod schema;
pub mod sql;
pub mod wire;
