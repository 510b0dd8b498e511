//! The databases that a command works on, for who watches it.

use std::sync::Arc;

use crate::config::Config;
use crate::migrate::Options;
use crate::migrate::server::for_database;
use crate::progress::{Member, Progress};

/// One of them.
pub(super) struct Watched {
    /// The target database's name.
    pub(super) name: String,
    /// The database that is moved.
    pub(super) source: Config,
    /// The database that it is moved into.
    pub(super) target: Config,
    /// Its counters.
    pub(super) progress: Arc<Progress>,
    /// Nothing more is done in it.
    pub(super) ended: bool,
    /// Why it ended, where that was not as it should.
    pub(super) error: Option<String>,
}

/// All of them: those of a whole server, or the only one.
pub(super) fn watched(options: &Options, progress: &Arc<Progress>) -> Vec<Watched> {
    let members = progress.databases();
    if members.is_empty() {
        return vec![Watched {
            name: options.target.dbname.clone(),
            source: options.source.clone(),
            target: options.target.clone(),
            progress: progress.clone(),
            ended: false,
            error: None,
        }];
    }
    let one = |member: Member| {
        let Options { source, target, .. } = for_database(options, &member.name);
        let Member { name, progress, ended, error } = member;
        Watched { name, source, target, progress, ended, error }
    };
    members.into_iter().map(one).collect()
}
