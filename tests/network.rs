//! Networks that cut, reset, fall silent, or hand over one byte at a time: nothing is lost, nothing comes twice, nothing hangs.

use crate::harness::compare::assert_equal;
use crate::harness::{Cluster, Database, Options, Pgstream, Proxy, Trouble, server};
use serde_json::Value;
use std::time::{Duration, Instant};

const SCHEMA: &str = "
CREATE TABLE plain (id integer PRIMARY KEY, v text);
INSERT INTO plain SELECT i, md5(i::text) FROM generate_series(1, 20000) i;
CREATE INDEX ON plain (v);
CREATE TABLE no_key (a integer, b text);
ALTER TABLE no_key REPLICA IDENTITY FULL;
INSERT INTO no_key SELECT i % 50, 'the same' FROM generate_series(1, 5000) i;
CREATE TABLE small (id serial PRIMARY KEY, v text);
INSERT INTO small (v) SELECT 'small' FROM generate_series(1, 100);
SELECT lo_from_bytea(77, decode(repeat('ab', 20000), 'hex'));
";

/// `pgstream migrate` through two proxies.
fn migrate(
    (before_source, source): (&Proxy, &Database<'_>),
    (before_target, target): (&Proxy, &Database<'_>),
    method: &str,
) -> Pgstream {
    Pgstream::new("migrate").args([
        "--source",
        &before_source.uri(source),
        "--target",
        &before_target.uri(target),
        "--method",
        method,
        "--split-tables-larger-than",
        "500kB",
    ])
}

#[test]
fn bytes_that_come_one_by_one_are_read_as_well() {
    let source = server(14).create_database("dribble");
    source.execute(
        "CREATE TABLE t (id integer PRIMARY KEY, v text); INSERT INTO t SELECT i, md5(i::text) FROM generate_series(1, 500) i",
    );
    let target = server(14).create_database("dribble");
    let (first, second) = (Proxy::before(source.cluster()), Proxy::before(target.cluster()));
    first.set(Trouble::Dribble);
    second.set(Trouble::Dribble);
    migrate((&first, &source), (&second, &target), "copy").run().expect_code(0);
    assert_equal(&source, &target);
}

#[test]
fn a_connection_that_is_reset_at_any_byte_costs_a_run_and_nothing_else() {
    let source = server(14).create_database("reset");
    source.execute(SCHEMA);
    let undisturbed = server(14).create_database("reset");
    let proxies = [Proxy::before(source.cluster()), Proxy::before(undisturbed.cluster())];
    migrate((&proxies[0], &source), (&proxies[1], &undisturbed), "copy").run().expect_code(0);
    let sizes = [proxies[0].passed(), proxies[1].passed()];
    const PLACES: u64 = 5;
    for side in 0..2 {
        for place in 0..PLACES {
            let target = server(14).create_database("reset");
            // One within the first bytes, when nothing is agreed upon yet; the others all over.
            proxies[side].set(Trouble::ResetAt(20 + sizes[side] * place / PLACES));
            proxies[1 - side].set(Trouble::None);
            let cut = migrate((&proxies[0], &source), (&proxies[1], &target), "copy").run();
            assert!(matches!(cut.code, Some(0 | 1)), "side {side}, place {place}: {cut:?}");
            proxies[side].set(Trouble::None);
            migrate((&proxies[0], &source), (&proxies[1], &target), "copy").run().expect_code(0);
            assert_equal(&source, &target);
        }
    }
}

#[test]
fn a_stream_whose_connections_break_all_the_time_arrives_all_the_same() {
    let (source, target) = (Cluster::start(16, &Options::default()), Cluster::start(16, &Options::default()));
    let (source, target) = (source.create_database("broken"), target.create_database("broken"));
    source.execute(SCHEMA);
    let (first, second) = (Proxy::before(source.cluster()), Proxy::before(target.cluster()));
    let mut running = migrate((&first, &source), (&second, &target), "replication").spawn();
    let in_step = || {
        let said = Pgstream::between("status", &source, &target).args(["--json"]).run();
        let status: Result<Value, _> = serde_json::from_str(&said.stdout);
        status.is_ok_and(|status| status["migration"]["status"] == "syncing")
    };
    let begun = Instant::now();
    while !in_step() {
        assert!(!running.ended() && begun.elapsed() < Duration::from_secs(60), "{:?}", running.wait());
        std::thread::sleep(Duration::from_millis(50));
    }
    // Connections that are there break after some bytes, and so do those that replace them.
    first.set(Trouble::ResetEachWithin(60_000));
    second.set(Trouble::ResetEachWithin(30_000));
    for round in 0..40 {
        source.execute(&format!(
            "BEGIN; INSERT INTO no_key SELECT {round}, 'more' FROM generate_series(1, 100); UPDATE plain SET v = v || {round} WHERE id % 97 = {round};
             DELETE FROM small WHERE id = {round}; COMMIT"
        ));
        std::thread::sleep(Duration::from_millis(50));
        assert!(!running.ended(), "a broken connection ended the stream: {:?}", running.wait());
    }
    first.set(Trouble::None);
    second.set(Trouble::None);
    Pgstream::between("cutover", &source, &target).run().expect_code(0);
    running.wait().expect_code(0);
    assert_equal(&source, &target);
}

#[test]
fn a_server_that_falls_silent_does_not_keep_the_program_from_stopping() {
    let source = server(14).create_database("silent");
    source.execute(SCHEMA);
    let proxies = [Proxy::before(source.cluster()), Proxy::before(server(14))];
    for side in 0..2 {
        let target = server(14).create_database("silent");
        // The run ends by itself after a while of patience.
        proxies[side].set(Trouble::SilentFrom(120_000));
        proxies[1 - side].set(Trouble::None);
        let running = migrate((&proxies[0], &source), (&proxies[1], &target), "copy").spawn();
        let begun = Instant::now();
        while proxies[side].passed() < 120_000 {
            assert!(begun.elapsed() < Duration::from_secs(60), "side {side} was not met");
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(Duration::from_millis(300));
        running.signal("TERM");
        let asked = Instant::now();
        running.wait().expect_code(4);
        assert!(asked.elapsed() < Duration::from_secs(30), "it took {:?} to stop", asked.elapsed());
    }
}
