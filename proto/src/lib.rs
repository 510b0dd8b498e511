//! PostgreSQL's frontend/backend protocol, version 3, as pure functions over bytes.

pub mod lsn;
