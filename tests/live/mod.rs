//! Live migrations by the real program: copied while it is written to, followed, cut over.
//!
//! - [`moved`]: the whole way, undisturbed, between majors.
//! - [`killed`]: the same with everything cut short at random.
//! - [`altered`]: with tables of the source truncated, rewritten, renamed, dropped and made meanwhile.
//! - [`cutover`]: what becomes of a cutover that fails, is stopped or is killed.
//! - [`roles`]: without superusers, and with settings of roles in the way.
//! - [`spooled`]: with the changes kept in files while rows are copied.
//! - [`standby`]: from a standby, with its primary beside it.
//! - [`choices`]: what the options and the states of the source make of it.

mod altered;
mod choices;
mod cutover;
mod killed;
mod moved;
mod roles;
mod spooled;
mod standby;
mod writer;

use crate::harness::compare::assert_equal;
use crate::harness::{Cluster, Database, Options, Pgstream, Running};
use serde_json::Value;
use std::time::{Duration, Instant};

/// A source and a target of the test's own.
struct Pair {
    source: Cluster,
    target: Cluster,
}

impl Pair {
    fn start(source: u32, target: u32) -> Pair {
        let (source, target) = std::thread::scope(|scope| {
            let source = scope.spawn(|| Cluster::start(source, &Options::default()));
            let target = Cluster::start(target, &Options::default());
            (source.join().expect("the source starts"), target)
        });
        Pair { source, target }
    }

    /// A database on each side; the source's with this content.
    fn databases(&self, schema: &str) -> (Database<'_>, Database<'_>) {
        let (source, target) = (self.source.create_database("live"), self.target.create_database("live"));
        source.execute(schema);
        (source, target)
    }
}

fn migrate(source: &Database<'_>, target: &Database<'_>, arguments: &[&str]) -> Running {
    Pgstream::between("migrate", source, target)
        .args(["--method", "replication"])
        .args(arguments.iter().copied())
        .spawn()
}

fn cutover(source: &Database<'_>, target: &Database<'_>) -> Pgstream {
    Pgstream::between("cutover", source, target)
}

/// `pgstream status --json`, the one database of it; `None` while there is no migration or no server.
fn status(source: &Database<'_>, target: &Database<'_>) -> Option<Value> {
    let said = Pgstream::between("status", source, target).args(["--json"]).run();
    let object: Value = serde_json::from_str(&said.stdout).ok()?;
    Some(object["migration_detail"][0].clone())
}

/// Begins a migration and waits until it says that it is in step.
#[track_caller]
fn migrate_until_in_step(source: &Database<'_>, target: &Database<'_>, arguments: &[&str]) -> Running {
    until_in_step(source, target, migrate(source, target, arguments))
}

/// Waits until a running migration says that it is in step.
#[track_caller]
fn until_in_step(source: &Database<'_>, target: &Database<'_>, mut running: Running) -> Running {
    let begin = Instant::now();
    loop {
        let seen = status(source, target);
        if seen.as_ref().is_some_and(|status| status["status"] == "syncing") {
            return running;
        }
        if running.ended() {
            panic!("the migration ended by itself: {:?}", running.wait());
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "it does not get in step: {seen:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[track_caller]
fn wait_until(mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(60), "waited in vain");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Nothing of ours is left on the source.
#[track_caller]
fn assert_source_is_clean(source: &Database<'_>) {
    let left = source.query(
        "SELECT slot_name FROM pg_replication_slots WHERE slot_name ~ '^pgstream' \
           AND database = current_database() UNION ALL SELECT pubname FROM pg_publication WHERE pubname ~ '^pgstream'",
    );
    assert!(left.is_empty(), "left on the source: {left:?}");
}
