//! Transactions arrive whole, in the order of their commits, and only those that committed.

use std::time::Duration;

use pgstream::config::Side;
use pgstream::error::Error;
use pgstream::state::checkpoint::{self, Advance};
use pgstream::wire::{Answer, Connection, Pipeline, Settings};
use pgstream_proto::Format;

use super::failover::wait_until;
use super::stream::Stream;
use crate::harness::server;

/// Large enough for a transaction to be streamed while it runs, when decoding may use 64 kB.
fn small_memory(stream: &mut Stream<'_>) {
    stream.options.source.options = Some("-c logical_decoding_work_mem=64kB".to_owned());
}

#[test]
fn streamed_transactions_arrive_without_what_was_rolled_back() {
    for major in [14, 15, 16, 18] {
        for memory in [64 << 20, 10_000] {
            let mut stream = Stream::between(server(major), server(major), "CREATE TABLE t (id int, v text)");
            small_memory(&mut stream);
            stream.options.memory = memory;
            stream.source.execute(
                "BEGIN; INSERT INTO t SELECT n, repeat('a', 50) FROM generate_series(1, 3000) n; \
                 SAVEPOINT a; INSERT INTO t SELECT n, repeat('b', 50) FROM generate_series(3001, 6000) n; \
                 SAVEPOINT b; INSERT INTO t SELECT n, repeat('c', 50) FROM generate_series(6001, 9000) n; ROLLBACK TO b; \
                 INSERT INTO t SELECT n, repeat('d', 50) FROM generate_series(9001, 9500) n; RELEASE a; \
                 SAVEPOINT e; INSERT INTO t SELECT n, repeat('e', 50) FROM generate_series(1, 3000) n; ROLLBACK TO e; \
                 INSERT INTO t VALUES (-1, 'last'); COMMIT; \
                 BEGIN; INSERT INTO t SELECT n, repeat('f', 50) FROM generate_series(1, 3000) n; ROLLBACK; INSERT INTO t VALUES (-2, 'after')",
            );
            stream.catch_up();
            assert_eq!(stream.expect_same("SELECT id, v FROM t ORDER BY id, v").len(), 6502);
        }
    }
}

#[test]
fn a_relation_described_in_a_rolled_back_part_is_not_believed() {
    let mut stream = Stream::between(server(15), server(15), "CREATE TABLE t (id int, v text)");
    small_memory(&mut stream);
    stream.source.execute(
        "BEGIN; INSERT INTO t SELECT n, 'a' FROM generate_series(1, 3000) n; SAVEPOINT s; ALTER TABLE t DROP v; ALTER TABLE t ADD w int; \
         INSERT INTO t SELECT n, n FROM generate_series(1, 3000) n; ROLLBACK TO s; INSERT INTO t SELECT n, 'b' FROM generate_series(1, 3000) n; COMMIT; \
         INSERT INTO t VALUES (0, 'c')",
    );
    stream.catch_up();
    assert_eq!(stream.expect_same("SELECT * FROM t ORDER BY id, v").len(), 6001);
}

#[test]
fn what_is_known_of_a_table_outlives_a_transaction_that_was_taken_back() {
    let mut stream = Stream::between(server(15), server(15), "CREATE TABLE t (id int PRIMARY KEY, v text)");
    small_memory(&mut stream);
    let mut writer = stream.source.hold("BEGIN");
    stream.source.execute("INSERT INTO t VALUES (-1, 'before')");
    writer.execute("INSERT INTO t SELECT n, repeat('a', 50) FROM generate_series(1, 20000) n");
    // Arrives in the middle of the large one, which describes the table anew, and doesn't describe it.
    stream.source.execute("INSERT INTO t VALUES (0, 'between')");
    writer.execute("COMMIT");
    // Far behind, the large one is applied before its commit.
    std::thread::sleep(Duration::from_millis(700));
    stream.catch_up();
    stream.expect_same("SELECT count(*), sum(hashtext(t::text)) FROM t");
    assert_eq!(stream.progress.snapshot().reconnects, 0, "the stream was never taken up again");
}

#[test]
fn a_large_transaction_is_applied_while_it_arrives_and_taken_back_when_it_falls_silent() {
    let mut stream = Stream::between(server(15), server(15), "CREATE TABLE t (id int PRIMARY KEY, v text)");
    small_memory(&mut stream);
    let (source, target) = (&stream.source, &stream.target);
    let is_written = || {
        let locks =
            "SELECT count(*) FROM pg_locks WHERE relation = 't'::regclass AND mode = 'RowExclusiveLock'";
        target.value(locks) != "0"
    };
    let count = || target.value("SELECT count(*) FROM t");
    let mut writer = source.hold("BEGIN");
    stream.run_for(Duration::from_millis(100), || {
        let insert = "INSERT INTO t SELECT n, repeat('a', 50) FROM generate_series(1, 20000) n";
        writer.execute(insert);
        wait_until(is_written);
        wait_until(|| !is_written());
        assert_eq!(count(), "0");
        source.execute("INSERT INTO t VALUES (0, 'another')");
        wait_until(|| count() == "1");
        writer.execute("COMMIT");
        wait_until(|| count() == "20001");
    });
    stream.expect_same("SELECT count(*), sum(hashtext(t::text)) FROM t");
}

#[test]
fn a_large_transaction_that_the_target_refuses_is_named_by_its_commit() {
    let mut stream = Stream::between(server(15), server(15), "CREATE TABLE t (id int PRIMARY KEY, v text)");
    small_memory(&mut stream);
    stream.target.execute("INSERT INTO t VALUES (15000)");
    stream.source.execute("INSERT INTO t SELECT n, repeat('a', 50) FROM generate_series(1, 20000) n");
    let end = stream.source.value("SELECT pg_current_wal_insert_lsn()");
    let error = stream.try_catch_up().expect_err("there is such a key already").to_string();
    let lsn = error.split_once(" at source LSN ").and_then(|(_, rest)| rest.split(':').next());
    let earlier = format!("SELECT '{}'::pg_lsn < '{end}'::pg_lsn", lsn.expect("an LSN is named"));
    assert_eq!(stream.source.value(&earlier), "t", "{error}");
    assert_eq!(stream.target.value("SELECT count(*) FROM t"), "1");
    stream.target.execute("DELETE FROM t");
    stream.catch_up();
    stream.expect_same("SELECT count(*), sum(hashtext(t::text)) FROM t");
}

#[test]
fn prepared_transactions_arrive_when_they_are_committed() {
    let cluster = server(15);
    let stream = Stream::between(cluster, cluster, "CREATE TABLE t (id int PRIMARY KEY)");
    let name = stream.source.name().to_owned();
    stream.source.execute(&format!(
        "BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'a {name}'; BEGIN; INSERT INTO t VALUES (2); PREPARE TRANSACTION 'b {name}'; \
         INSERT INTO t VALUES (3)"
    ));
    stream.catch_up();
    assert_eq!(stream.target.query("SELECT * FROM t"), [["3"]]);
    stream.source.execute(&format!("COMMIT PREPARED 'a {name}'; ROLLBACK PREPARED 'b {name}'"));
    stream.catch_up();
    stream.expect_same("SELECT * FROM t ORDER BY id");
}

/// Moves the checkpoint so often to where it stands, by the key that it is thought to have: the SQLSTATE of each step that failed.
fn advance(stream: &Stream<'_>, key: Option<i64>, steps: usize) -> Vec<Option<String>> {
    let moved = async {
        let mut target =
            Connection::connect(&stream.options.target, Side::Target, &Settings::session()).await?;
        let mut standing = checkpoint::read(&mut target).await?.expect("the stream has made it");
        standing.generation = key.unwrap_or(standing.generation);
        let mut advance = Advance::from(&standing);
        let mut pipeline = Pipeline::new(target);
        pipeline.prepare("advance", checkpoint::ADVANCE, checkpoint::ADVANCE_TYPES)?;
        let mut outcomes = Vec::new();
        for _ in 0..steps {
            let step = advance.step(standing.applied, None);
            let parameters = step.iter().map(|parameter| parameter.as_ref().map(|bytes| &bytes[..]));
            pipeline.run("advance", &[Format::Binary], parameters)?;
            pipeline.sync();
            pipeline.send().await?;
            outcomes.push(match pipeline.answer().await? {
                Answer::Error(notice) => Some(notice.sqlstate().as_str().to_owned()),
                _ => None,
            });
            assert!(matches!(pipeline.answer().await?, Answer::Ready(_)));
        }
        Ok::<_, Error>(outcomes)
    };
    stream.runtime.block_on(moved).expect("the target is there")
}

#[test]
fn the_checkpoint_gets_another_key_before_its_versions_become_many() {
    let stream = Stream::between(server(15), server(18), "CREATE TABLE t (id int)");
    let key = || stream.target.query("SELECT generation FROM pgstream.checkpoint");
    stream.source.execute("INSERT INTO t VALUES (1)");
    stream.catch_up();
    assert_eq!(key(), [["0"]]);
    assert_eq!(advance(&stream, None, 300), vec![None; 300]);
    assert_eq!(key(), [["1"]]);
    // Whoever knows the row by the key that it had before moves nothing.
    assert_eq!(advance(&stream, Some(0), 1), [Some("22012".to_owned())]);
    stream.source.execute("INSERT INTO t VALUES (2)");
    stream.catch_up();
    assert_eq!(key(), [["1"]]);
    stream.expect_same("SELECT id FROM t ORDER BY id");
}

#[test]
fn transactions_without_rows_move_the_checkpoint() {
    for major in [10, 14, 18] {
        let stream = Stream::between(server(major), server(major), "CREATE TABLE t (id int)");
        let checkpoint = || stream.target.value("SELECT applied FROM pgstream.checkpoint");
        let before = checkpoint();
        stream.source.execute(
            "SELECT pg_logical_emit_message(true, 'p', 'in a transaction'), pg_logical_emit_message(false, 'p', 'outside'); \
             CREATE TEMP TABLE x AS SELECT 1; BEGIN; INSERT INTO t VALUES (1); ROLLBACK",
        );
        stream.catch_up();
        assert_ne!(checkpoint(), before);
        let confirmed = format!(
            "SELECT confirmed_flush_lsn = (SELECT applied FROM pgstream.checkpoint) FROM pg_replication_slots WHERE slot_name = '{}'",
            stream.options.slot
        );
        assert_eq!(stream.target.value(&confirmed), "t");
    }
}

#[test]
fn a_table_altered_after_it_was_looked_up_with_its_neighbours_is_looked_up_again() {
    let stream = Stream::between(
        server(15),
        server(18),
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)",
    );
    let count = |table: &str| stream.target.value(&format!("SELECT count(*) FROM {table}"));
    stream.run_for(Duration::from_millis(100), || {
        stream.source.execute("INSERT INTO a VALUES (1)");
        wait_until(|| count("a") == "1");
        for side in [&stream.target, &stream.source] {
            side.execute("ALTER TABLE b ADD v text");
        }
        stream.source.execute("INSERT INTO b VALUES (1, 'new')");
        wait_until(|| count("b") == "1");
    });
    assert_eq!(stream.progress.snapshot().reconnects, 0, "the stream was never taken up again");
    stream.expect_same("SELECT * FROM b");
}
