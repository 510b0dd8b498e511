//! What others do to our sessions on either server, and what servers run out of: each session ended, deadlocks, no connections left, a full disk under the stream.

use crate::harness::compare::assert_equal;
use crate::harness::{Cluster, Database, Options, Pgstream, Running, server};
use std::time::{Duration, Instant};

const SCHEMA: &str = "
CREATE FUNCTION held(integer) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
    PERFORM pg_catalog.pg_advisory_lock_shared(42); PERFORM pg_catalog.pg_advisory_unlock_shared(42); RETURN true; END $$;
CREATE TABLE big (id integer PRIMARY KEY CHECK (id <> 1 OR held(id)), v text);
INSERT INTO big SELECT i, md5(i::text) FROM generate_series(1, 40000) i;
CREATE INDEX ON big (v);
CREATE TABLE bare (a integer, b text);
ALTER TABLE bare REPLICA IDENTITY FULL;
INSERT INTO bare SELECT i % 50, 'the same' FROM generate_series(1, 5000) i;
";

fn migrate(source: &Database<'_>, target: &Database<'_>, method: &str) -> Running {
    Pgstream::between("migrate", source, target).args(["--method", method, "--jobs", "2"]).spawn()
}

#[track_caller]
fn wait_until(running: &mut Running, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(!running.ended() && begun.elapsed() < Duration::from_secs(60), "waited in vain");
        std::thread::sleep(Duration::from_millis(30));
    }
}

fn is_in_step(target: &Database<'_>) -> bool {
    target.try_execute("SELECT phase FROM pgstream.migration").unwrap_or_default().trim() == "syncing"
}

/// Our sessions in this database, oldest first.
fn sessions(database: &Database<'_>) -> Vec<String> {
    let query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'pgstream' ORDER BY backend_start, pid";
    database.query(query).into_iter().map(|mut row| row.swap_remove(0)).collect()
}

#[test]
fn whichever_session_is_ended_during_the_copy_the_same_command_again_ends_equal() {
    let (from, to) = (Cluster::start(15, &Options::default()), Cluster::start(16, &Options::default()));
    let source = from.create_database("ended");
    source.execute(SCHEMA);
    for side in ["source", "target"] {
        let mut which = 0;
        loop {
            let target = to.create_database("ended");
            let hold = target.hold("SELECT pg_advisory_lock(42)");
            let mut running = migrate(&source, &target, "copy");
            let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory' AND query LIKE '%COPY%'";
            wait_until(&mut running, || target.value(waiting) == "1");
            let database = if side == "source" { &source } else { &target };
            let sessions = sessions(database);
            assert!(sessions.len() > 2, "{sessions:?}");
            let Some(session) = sessions.get(which) else { break };
            database.execute(&format!("SELECT pg_terminate_backend({session})"));
            drop(hold);
            let ended = running.wait();
            // Some are not needed any more at this moment.
            assert!(matches!(ended.code, Some(0 | 1)), "{side}, session {which}: {ended:?}");
            if ended.code == Some(1) {
                ended.expect_words(&[side]);
            }
            migrate(&source, &target, "copy").wait().expect_code(0);
            assert_equal(&source, &target);
            which += 1;
        }
    }
}

#[test]
fn whichever_session_is_ended_during_the_stream_it_goes_on() {
    let (from, to) = (Cluster::start(15, &Options::default()), Cluster::start(16, &Options::default()));
    let (source, target) = (from.create_database("stream"), to.create_database("stream"));
    source.execute(SCHEMA);
    let mut running = migrate(&source, &target, "replication");
    wait_until(&mut running, || is_in_step(&target));
    let mut round = 0;
    for database in [&source, &target] {
        for _ in 0..sessions(database).len() {
            // One that was ended comes again as the youngest, if it is needed.
            let Some(session) = sessions(database).into_iter().next() else { break };
            database.execute(&format!("SELECT pg_terminate_backend({session})"));
            round += 1;
            source.execute(&format!("INSERT INTO bare VALUES ({round}, 'later')"));
            let there = format!("SELECT count(*) FROM bare WHERE a = {round} AND b = 'later'");
            wait_until(&mut running, || target.value(&there) == "1");
        }
    }
    assert!(round > 4, "{round} sessions were ended");
    Pgstream::between("cutover", &source, &target).run().expect_code(0);
    running.wait().expect_code(0);
    assert_equal(&source, &target);
}

#[test]
fn a_deadlock_on_the_target_is_overcome() {
    let settings = vec!["deadlock_timeout = '100ms'".to_owned()];
    let to = Cluster::start(16, &Options { settings, ..Options::default() });
    let source = server(15).create_database("deadlock");
    let target = to.create_database("deadlock");
    source.execute(SCHEMA);
    let mut running = migrate(&source, &target, "replication");
    wait_until(&mut running, || is_in_step(&target));
    for round in 0..5 {
        // It has the second row, and wants the first once the stream has it: whose deadlock is found first, is ended.
        let mut other =
            target.hold("BEGIN; SET deadlock_timeout = '1h'; SELECT FROM big WHERE id = 20 FOR UPDATE");
        source.execute(&format!("BEGIN; UPDATE big SET v = '{round}' WHERE id = 10; UPDATE big SET v = '{round}' WHERE id = 20; COMMIT"));
        let waits =
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype IN ('transactionid', 'tuple')";
        wait_until(&mut running, || target.value(waits) != "0");
        std::thread::scope(|scope| {
            scope.spawn(|| other.execute("SELECT FROM big WHERE id = 10 FOR UPDATE; ROLLBACK"));
        });
        let there = format!("SELECT count(*) FROM big WHERE id IN (10, 20) AND v = '{round}'");
        wait_until(&mut running, || target.value(&there) == "2");
    }
    Pgstream::between("cutover", &source, &target).run().expect_code(0);
    running.wait().expect_code(0);
    assert_equal(&source, &target);
}

#[test]
fn a_server_that_has_no_connection_left_is_named_and_the_next_run_goes_on() {
    // Of PostgreSQL's own are kept for superusers: the application's user has what is left.
    let few = || Options {
        settings: vec!["max_connections = 8".to_owned(), "max_wal_senders = 2".to_owned()],
        ..Options::default()
    };
    for side in ["source", "target"] {
        let small = Cluster::start(15, &few());
        let large = server(15);
        let (from, to) = if side == "source" { (&small, large) } else { (large, &small) };
        let (source, target) = (from.create_database("few"), to.create_database("few"));
        source.execute(SCHEMA);
        let holders: Vec<_> = (0..5).map(|_| small.postgres().hold("SELECT 1")).collect();
        let run =
            || Pgstream::between("migrate", &source, &target).args(["--method", "copy", "--jobs", "4"]).run();
        run().expect_code(1).expect_words(&[side, "too many clients", "hint:"]);
        drop(holders);
        let begun = Instant::now();
        while small.postgres().try_execute("SELECT 1").is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20));
        }
        Pgstream::between("migrate", &source, &target)
            .args(["--method", "copy", "--jobs", "1"])
            .run()
            .expect_code(0);
        assert_equal(&source, &target);
    }
}

#[test]
fn a_target_that_runs_full_under_the_stream_stops_it_and_loses_nothing() {
    let to = Cluster::start(16, &Options { file_size_limit: Some(20 << 20), ..Options::default() });
    let source = server(15).create_database("full");
    source.execute(SCHEMA);
    let target = to.create_database("full");
    let mut running = migrate(&source, &target, "replication");
    wait_until(&mut running, || is_in_step(&target));
    source.execute("INSERT INTO bare VALUES (77, 'before')");
    source.execute("INSERT INTO bare SELECT i, repeat('x', 1000) FROM generate_series(1, 30000) i");
    source.execute("INSERT INTO bare VALUES (78, 'after')");
    running.wait().expect_code(1).expect_words(&["bare", "could not extend file", "hint:"]);
    assert_eq!(
        target.value("SELECT count(*) FROM bare WHERE a IN (77, 78) AND b IN ('before', 'after')"),
        "1",
        "it stands before the change"
    );
    to.stop("fast");
    to.start_again();
    let mut running = migrate(&source, &target, "replication");
    let last = "SELECT count(*) FROM bare WHERE b = 'after'";
    wait_until(&mut running, || target.value(last) == "1");
    Pgstream::between("cutover", &source, &target).run().expect_code(0);
    running.wait().expect_code(0);
    assert_equal(&source, &target);
}
