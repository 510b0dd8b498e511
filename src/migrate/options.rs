//! What a migration is asked to do.
//!
//! In: the command line, resolved. Out: [`Options`], which are checked against both servers before anything is touched; nothing here can fail.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::check::Limits;
use super::roles::Roles;
use super::sections::Sections;
use crate::config::Config;
use crate::ddl;
use crate::replication::{MissingIdentity, OnConflict};

/// What a migration is asked to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// The database that is copied from.
    pub source: Config,
    /// The database that is copied to.
    pub target: Config,
    /// Sessions that move rows, on each side.
    pub jobs: usize,
    /// Sessions that make indexes and constraints.
    pub index_jobs: usize,
    /// Tables above this size (with TOAST, in bytes) are cut into parts; 0 cuts none.
    pub split_larger_than: u64,
    /// The sections that this run takes; fewer than all only with the method copy.
    pub sections: Sections,
    /// Drop what an earlier run of pgstream made, and start anew.
    pub restart: bool,
    /// Go on without objects that the target refuses.
    pub keep_going: bool,
    /// What of the schema is copied.
    pub ddl: ddl::Options,
    /// The roles that are made, shared by the databases of a run.
    pub roles: Arc<Roles>,
    /// What the check lets pass.
    pub limits: Limits,
    /// Whether a target database that isn't there is created.
    pub create_database: bool,
    /// How many databases are copied at the same time, shared by the databases of a run. Following a source takes no turn.
    pub turns: Arc<Semaphore>,
    /// How long to wait for another session's lock on a source table.
    pub lock_wait: Duration,
    /// How the target gets what changes meanwhile.
    pub method: Method,
    /// How long the slot may wait for transactions of the source to end.
    pub slot_timeout: Duration,
    /// What to do about tables without replica identity.
    pub replica_identity: MissingIdentity,
    /// What to do about an UPDATE or DELETE whose row is not on the target.
    pub on_conflict: OnConflict,
    /// Cut over as soon as the target is at most this far behind, in bytes of log.
    pub stop_when_caught_up: Option<u64>,
    /// The folder for transactions that don't fit into memory.
    pub spill_directory: PathBuf,
    /// The folder that the stream is received into while rows are copied.
    pub spool: Option<PathBuf>,
}

/// How a database is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// By replication where the source allows it, by copy otherwise.
    Auto,
    /// Copied once.
    Copy,
    /// Copied, then followed until a cutover.
    Replication,
}
