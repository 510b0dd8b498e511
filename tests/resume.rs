//! Cut short at any moment, the same command again finishes the job: nothing twice, nothing lost.

use crate::harness::compare::assert_equal;
use crate::harness::{Database, Pgstream, Running, server};
use std::time::{Duration, Instant};

/// Tables of several sizes and shapes, one cut into parts; everything that comes after the rows; large objects.
const DATABASE: &str = "
CREATE TABLE plain (id bigint PRIMARY KEY, a integer, text text);
INSERT INTO plain SELECT i, i % 1000, md5(i::text) FROM generate_series(1, 150000) i;
CREATE INDEX ON plain (a);
CREATE INDEX ON plain (text);
CREATE TABLE no_key (a integer, b text);
INSERT INTO no_key SELECT i % 50, 'the same' FROM generate_series(1, 40000) i;
CREATE TABLE parent (id serial PRIMARY KEY, text text UNIQUE);
INSERT INTO parent (text) SELECT 'parent ' || i FROM generate_series(1, 3000) i;
CREATE TABLE child (id bigserial PRIMARY KEY, parent integer REFERENCES parent, CHECK (id > 0));
INSERT INTO child (parent) SELECT 1 + i % 3000 FROM generate_series(1, 30000) i;
CREATE TABLE parted (id integer, text text) PARTITION BY RANGE (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (5000);
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (5000) TO (10000);
INSERT INTO parted SELECT i, 'p' FROM generate_series(0, 9999) i;
CREATE MATERIALIZED VIEW summary AS SELECT a, count(*) FROM plain GROUP BY a;
SELECT lo_from_bytea(1000 + i, decode(repeat('ab', 20000), 'hex')) FROM generate_series(1, 20) i;";

const ARGUMENTS: [&str; 4] = ["--method", "copy", "--split-tables-larger-than", "2MB"];

fn start(source: &Database<'_>, target: &Database<'_>) -> Running {
    Pgstream::between("migrate", source, target).args(ARGUMENTS).spawn()
}

#[test]
fn killed_at_any_moment_the_same_command_again_ends_equal() {
    let source = server(15).create_database("source");
    source.execute(DATABASE);
    let undisturbed = server(16).create_database("undisturbed");
    let begin = Instant::now();
    start(&source, &undisturbed).wait().expect_code(0);
    let whole = begin.elapsed();
    assert_equal(&source, &undisturbed);

    // Moments spread over the run, each on a target of its own; then one target that is cut short again and again.
    const MOMENTS: u32 = 4;
    for moment in 1..=MOMENTS {
        let target = server(16).create_database("killed");
        let mut running = start(&source, &target);
        std::thread::sleep(whole * moment / (MOMENTS + 1));
        running.kill();
        start(&source, &target).wait().expect_code(0);
        assert_equal(&source, &target);
    }
    let target = server(16).create_database("killed_often");
    for moment in 1..=MOMENTS {
        let mut running = start(&source, &target);
        std::thread::sleep(whole * moment / (MOMENTS * 2));
        running.kill();
    }
    start(&source, &target).wait().expect_code(0);
    assert_equal(&source, &target);
}

#[test]
fn told_to_stop_it_says_how_to_go_on_and_goes_on() {
    for signal in ["INT", "TERM"] {
        let (source, target) = (server(15).create_database("source"), server(16).create_database("stopped"));
        source.execute(DATABASE);
        let mut running = start(&source, &target);
        // As soon as there is a state to resume from.
        wait_until(|| {
            target.value("SELECT to_regclass('pgstream.migration') IS NOT NULL") == "t" || running.ended()
        });
        running.signal(signal);
        running.wait().expect_code(4).expect_words(&["stopped", "hint:", "same command"]);
        start(&source, &target).wait().expect_code(0);
        assert_equal(&source, &target);
    }
}

#[test]
fn a_second_pgstream_is_kept_out_and_told_who_is_there() {
    let (source, target) = (server(15).create_database("source"), server(16).create_database("busy"));
    source.execute(DATABASE);
    let mut first = start(&source, &target);
    wait_until(|| {
        target.value("SELECT to_regclass('pgstream.migration') IS NOT NULL") == "t" || first.ended()
    });
    let second = start(&source, &target).wait();
    let first = first.wait().expect_code(0);
    assert_eq!(second.code, Some(2), "first: {first:?}, second: {second:?}");
    second.expect_words(&["target", "another pgstream"]);
    assert_equal(&source, &target);
}

#[test]
fn another_source_is_refused_by_a_target_that_has_one() {
    let (source, other) = (server(15).create_database("source"), server(15).create_database("other"));
    let target = server(16).create_database("target");
    source.execute("CREATE TABLE t (a integer); INSERT INTO t VALUES (1)");
    other.execute("CREATE TABLE t (a integer); INSERT INTO t VALUES (2)");
    start(&source, &target).wait().expect_code(0);
    start(&other, &target).wait().expect_code(2);
    assert_eq!(target.query("SELECT a FROM t"), [["1"]]);
}

#[test]
fn restart_begins_anew_over_what_pgstream_made() {
    let (source, target) = (server(15).create_database("source"), server(16).create_database("target"));
    source.execute("CREATE TABLE t (a integer); INSERT INTO t VALUES (1)");
    start(&source, &target).wait().expect_code(0);
    source.execute("INSERT INTO t VALUES (2); CREATE TABLE added (b text)");
    Pgstream::between("migrate", &source, &target).args(ARGUMENTS).args(["--restart"]).run().expect_code(0);
    assert_equal(&source, &target);
}

/// A function that takes its time, for what is built with it on the target.
const SLOW: &str = "
CREATE FUNCTION slow(integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS
    $$ BEGIN PERFORM pg_catalog.pg_sleep(0.05); RETURN $1; END $$;";

#[test]
fn what_a_killed_run_left_working_on_the_target_does_not_get_in_the_way() {
    // 13 doesn't look for a client that is gone: its session would build the index to the end, and commit it.
    for major in [13, 16] {
        let (source, target) = (server(13).create_database("source"), server(major).create_database("left"));
        source.execute(&format!(
            "{SLOW} CREATE TABLE t (a integer); INSERT INTO t SELECT generate_series(1, 60); CREATE INDEX slow_index ON t (slow(a))"
        ));
        let mut running = start(&source, &target);
        wait_until(|| is_running(&target, "CREATE INDEX slow_index%") || running.ended());
        running.kill();
        start(&source, &target).wait().expect_code(0);
        assert_equal(&source, &target);
        let left = target.value("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()");
        assert_eq!(left, "0", "sessions are left on {major}");
    }
}

#[test]
fn the_lock_of_a_run_killed_in_the_middle_of_a_statement_is_soon_free() {
    let (source, target) = (server(13).create_database("source"), server(16).create_database("held"));
    source.execute(&format!(
        "{SLOW} CREATE TABLE t (a integer); INSERT INTO t SELECT generate_series(1, 200);
        CREATE MATERIALIZED VIEW slow_view AS SELECT slow(a) FROM t WHERE a % 2 = 0"
    ));
    let mut running = start(&source, &target);
    wait_until(|| is_running(&target, "REFRESH MATERIALIZED VIEW%") || running.ended());
    running.kill();
    start(&source, &target).wait().expect_code(0);
    assert_equal(&source, &target);
}

fn is_running(target: &Database<'_>, statement: &str) -> bool {
    let query = format!(
        "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' AND query LIKE '{statement}')"
    );
    target.value(&query) == "t"
}

fn wait_until(mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(30), "waited in vain");
        std::thread::sleep(Duration::from_millis(20));
    }
}
