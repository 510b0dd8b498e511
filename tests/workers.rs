//! Several processes at one copy, as on several hosts: each part comes once, whoever dies.

use crate::harness::compare::assert_equal;
use crate::harness::{Cluster, Database, Options, Pgstream, Random, Running, change, server, variable};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Tables whose rows are taken by the target only while nobody there holds the lock 42; cut by pages, in parts that are large enough to come alone.
const SCHEMA: &str = "
CREATE FUNCTION held(integer) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
    PERFORM pg_catalog.pg_advisory_lock_shared(42); PERFORM pg_catalog.pg_advisory_unlock_shared(42); RETURN true; END $$;
CREATE TABLE big (id integer PRIMARY KEY CHECK (id % 1000 <> 1 OR held(id)), v text);
INSERT INTO big SELECT i, md5(i::text) || md5('x' || i) FROM generate_series(1, 150000) i;
CREATE INDEX ON big (v);
CREATE TABLE bare (a integer CHECK (a <> 1 OR held(a)), b numeric, c json);
ALTER TABLE bare REPLICA IDENTITY FULL;
INSERT INTO bare SELECT i % 60, i / 7.0, '{\"a\": 1}' FROM generate_series(1, 60000) i;
CREATE TABLE keyed (id integer PRIMARY KEY CHECK (id <> 1 OR held(id)), v text, large text);
ALTER TABLE keyed ALTER large SET STORAGE EXTERNAL;
INSERT INTO keyed SELECT i, 'v', repeat(i::text, 3000) FROM generate_series(1, 60) i;
CREATE TABLE parent (id integer PRIMARY KEY);
CREATE TABLE child (id integer PRIMARY KEY, parent integer REFERENCES parent);
SELECT lo_from_bytea(1000 + i, decode(repeat('ab', 5000), 'hex')) FROM generate_series(1, 5) i;
";

const HOLD: &str = "SELECT pg_advisory_lock(42)";

fn migrate(source: &Database<'_>, target: &Database<'_>, method: &str) -> Running {
    Pgstream::between("migrate", source, target)
        .args(["--method", method, "--jobs", "1", "--split-tables-larger-than", "1500kB"])
        .spawn()
}

fn worker(source: &Database<'_>, target: &Database<'_>) -> Running {
    Pgstream::between("worker", source, target).args(["--jobs", "1", "--wait", "30s", "--json"]).spawn()
}

/// Waits until so many sessions are in the middle of a part.
#[track_caller]
fn until_at_work(target: &Database<'_>, sessions: usize) {
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory' AND query LIKE '%COPY%'";
    let begun = Instant::now();
    while target.value(waiting) != sessions.to_string() {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "{sessions} sessions do not come: {}",
            target.value(waiting)
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[track_caller]
fn parts(ended: Running) -> u64 {
    let said = ended.wait().expect_code(0);
    let said: serde_json::Value = serde_json::from_str(&said.stdout).expect("it is JSON");
    said["parts"].as_u64().expect("it says how many parts")
}

#[test]
fn processes_share_a_copy_and_each_part_comes_once() {
    let source = server(15).create_database("shared");
    let target = server(17).unborn_database("shared");
    source.execute(SCHEMA);
    // Workers may be there before the copy is, and before the database is that it goes into.
    let workers = [worker(&source, &target), worker(&source, &target)];
    std::thread::sleep(Duration::from_millis(300));
    target.cluster().postgres().execute(&format!("CREATE DATABASE {}", target.quoted_name()));
    let hold = target.hold(HOLD);
    let running = migrate(&source, &target, "copy");
    until_at_work(&target, 3);
    drop(hold);
    let done: Vec<u64> = workers.map(parts).into();
    running.wait().expect_code(0);
    assert!(done.iter().all(|&parts| parts > 0), "{done:?}");
    assert_equal(&source, &target);
    let offered = target.value("SELECT count(*) FROM pgstream.snapshot");
    assert_eq!(offered, "0", "nobody can join any more");
    // And so one who comes too late has nothing to do.
    assert_eq!(parts(worker(&source, &target)), 0);
}

#[test]
fn a_worker_that_dies_gives_its_part_back() {
    let source = server(14).create_database("given_back");
    let target = server(18).create_database("given_back");
    source.execute(SCHEMA);
    let hold = target.hold(HOLD);
    let mut dies = worker(&source, &target);
    let running = migrate(&source, &target, "copy");
    until_at_work(&target, 2);
    dies.kill();
    let stays = worker(&source, &target);
    // The dead one's session ends when the server looks for its client.
    until_at_work(&target, 2);
    drop(hold);
    assert!(parts(stays) > 0);
    running.wait().expect_code(0);
    assert_equal(&source, &target);
}

#[test]
fn the_next_run_ends_the_workers_of_the_one_before() {
    for method in ["copy", "replication"] {
        let source = server(16).create_database("next_run");
        let target = server(16).create_database("next_run");
        source.execute(SCHEMA);
        let hold = target.hold(HOLD);
        let mut first = migrate(&source, &target, method);
        let of_the_first = Pgstream::between("worker", &source, &target).args(["-j", "1"]);
        until_at_work(&target, 1);
        let of_the_first = of_the_first.spawn();
        until_at_work(&target, 2);
        first.kill();
        let second = migrate(&source, &target, method);
        of_the_first.wait().expect_code(4).expect_words(&["has ended", "same command", "hint:"]);
        let of_the_second = worker(&source, &target);
        until_at_work(&target, 2);
        drop(hold);
        assert!(parts(of_the_second) > 0);
        if method == "replication" {
            source.execute("INSERT INTO big VALUES (-1, 'later')");
            let begun = Instant::now();
            while target.value("SELECT phase FROM pgstream.migration") != "syncing" {
                assert!(begun.elapsed() < Duration::from_secs(60), "it does not get in step");
                std::thread::sleep(Duration::from_millis(50));
            }
            Pgstream::between("cutover", &source, &target).args(["--timeout", "1min"]).run().expect_code(0);
        }
        second.wait().expect_code(0);
        assert_equal(&source, &target);
    }
}

#[test]
fn a_worker_without_a_copy_says_what_is_missing() {
    let source = server(15).create_database("alone");
    let target = server(15).create_database("alone");
    source.execute("CREATE TABLE t (id integer PRIMARY KEY); INSERT INTO t VALUES (1)");
    let alone = || Pgstream::between("worker", &source, &target).run();
    alone().expect_code(2).expect_words(&["holds no migration", "hint:"]);
    // A run that was killed before its copy has nothing to offer, or what nobody has any more.
    target.execute("CREATE TABLE t (mine integer)");
    Pgstream::between("migrate", &source, &target).args(["--method", "copy"]).run().expect_code(2);
    target.execute("DROP TABLE t");
    let other = server(15).create_database("other");
    Pgstream::between("migrate", &source, &target).args(["--method", "copy"]).run().expect_code(0);
    alone().expect_code(0).expect_words(&["no part is left"]);
    Pgstream::between("worker", &other, &target).run().expect_code(2).expect_words(&["another source"]);
}

#[test]
fn a_snapshot_that_is_gone_is_told() {
    let source = server(15).create_database("gone");
    let target = server(15).create_database("gone");
    source.execute(SCHEMA);
    let hold = target.hold(HOLD);
    let mut running = migrate(&source, &target, "copy");
    until_at_work(&target, 1);
    running.kill();
    drop(hold);
    // Its sessions on the source end by themselves.
    let begun = Instant::now();
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'pgstream'";
    while source.value(sessions) != "0" {
        assert!(begun.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(50));
    }
    Pgstream::between("worker", &source, &target).run().expect_code(4).expect_words(&[
        "snapshot",
        "hint:",
        "pgstream migrate",
    ]);
    migrate(&source, &target, "copy").wait().expect_code(0);
    assert_equal(&source, &target);
}

/// Writes until `done`; what fails, fails as a whole.
fn write(source: &Database<'_>, seed: u64, done: &AtomicBool) {
    let mut random = Random::new(seed);
    while !done.load(Ordering::Relaxed) {
        let sql: String = (0..10)
            .map(|_| {
                let (a, b, far) = (random.below(60), random.below(60), 1 + random.below(150_000));
                let inner = match random.below(14) {
                    which @ 0..=10 => change(which, a, b),
                    11 => format!("UPDATE big SET v = 'w{b}' WHERE id BETWEEN {far} AND {far} + {a}"),
                    12 => format!("DELETE FROM big WHERE id = {far}"),
                    _ => format!("UPDATE big SET id = {far} + 1000000 WHERE id = {far} AND NOT EXISTS (SELECT FROM big WHERE id = {far} + 1000000)"),
                };
                format!("BEGIN; {inner}; COMMIT;")
            })
            .collect();
        let _ = source.try_execute(&sql);
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn whichever_process_dies_whenever_nothing_is_lost_and_nothing_comes_twice() {
    let seed = variable("PGSTREAM_SEED").unwrap_or(u64::from(std::process::id()));
    let rounds = variable("PGSTREAM_ROUNDS").unwrap_or(8);
    println!("PGSTREAM_SEED={seed} PGSTREAM_ROUNDS={rounds}");
    let (source, target) = (Cluster::start(15, &Options::default()), Cluster::start(16, &Options::default()));
    let (source, target) = (source.create_database("die"), target.create_database("die"));
    source.execute(SCHEMA);
    let mut random = Random::new(seed);
    let done = AtomicBool::new(false);
    let writer_seed = random.below(u64::MAX) | 1;
    let running = std::thread::scope(|scope| {
        scope.spawn(|| write(&source, writer_seed, &done));
        let mut running = migrate(&source, &target, "replication");
        let mut workers: Vec<Running> = (0..2).map(|_| worker(&source, &target)).collect();
        for round in 0..rounds {
            // Parts wait for each other's deaths.
            let hold = target.hold(HOLD);
            std::thread::sleep(Duration::from_millis(random.below(1500)));
            let fate = random.below(4);
            let phase = target.try_execute("SELECT phase FROM pgstream.migration").unwrap_or_default();
            println!("round {round}: fate {fate} in phase {:?}", phase.trim());
            match fate {
                0 => {
                    running.kill();
                    running = migrate(&source, &target, "replication");
                }
                which => {
                    let which = which as usize % workers.len();
                    workers[which].kill();
                    workers[which] = worker(&source, &target);
                }
            }
            drop(hold);
        }
        if running.ended() {
            // One that found the last one's session still at work.
            running = migrate(&source, &target, "replication");
        }
        let begun = Instant::now();
        while target.try_execute("SELECT phase FROM pgstream.migration").unwrap_or_default().trim()
            != "syncing"
        {
            if running.ended() || begun.elapsed() > Duration::from_secs(90) {
                done.store(true, Ordering::Relaxed);
                running.kill();
                panic!("it does not get in step: {:?}", running.wait());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        done.store(true, Ordering::Relaxed);
        running
    });
    Pgstream::between("cutover", &source, &target).run().expect_code(0);
    running.wait().expect_code(0);
    assert_equal(&source, &target);
}
