//! What the tests stand on: PostgreSQL servers of every major, throw-away clusters, databases, the real binary, and
//! comparing two databases.
//!
//! - [`server`]`(major)`: a cluster shared by all tests of a run, started by the first that asks; a test makes its
//!   own [`Database`] there and drops it.
//! - [`Cluster::start`]: a cluster of the test's own, where it needs its own settings, roles or faults.
//! - [`Pgstream`]: the program under test, as a user runs it.
//! - [`compare`]: what differs between two databases.
//!
//! Everything lives in a folder of the test run (see [`run`]) that is removed, servers stopped, when the run ends,
//! however it ends.

mod changes;
mod cluster;
pub(crate) mod compare;

mod database;
mod extensions;
mod fixture;
pub(crate) mod http;
pub(crate) mod json_schema;
mod pgstream;
mod programs;
mod proxy;
mod random;
mod run;
mod screen;

pub(crate) use changes::change;
pub(crate) use cluster::{Auth, Cluster, Options, PASSWORD, PASSWORD_IN_URI, server};
pub(crate) use database::Database;
pub(crate) use extensions::Extensions;
pub(crate) use fixture::fixture;
#[cfg(feature = "fault-points")]
pub(crate) use pgstream::Finished;
pub(crate) use pgstream::{Pgstream, Running};
pub(crate) use programs::{as_owner, client, server_program};
pub(crate) use proxy::{Proxy, Trouble};
pub(crate) use random::{Random, variable};
pub(crate) use screen::Screen;

/// Every major that the tests run.
pub(crate) const MAJORS: [u32; 9] = [10, 11, 12, 13, 14, 15, 16, 17, 18];
