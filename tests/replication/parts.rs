//! Changes of relations that were copied under several snapshots.

use std::collections::HashMap;

use pgstream::replication::{Ended, Filter, PartRule, SnapshotRule};
use pgstream_proto::lsn::Lsn;

use super::stream::Stream;
use crate::harness::server;

/// The position of the source's log now, past all that was committed.
fn position(stream: &Stream<'_>) -> Lsn {
    stream.source.value("SELECT pg_current_wal_insert_lsn()").parse().expect("PostgreSQL writes an LSN")
}

/// Copies the rows of a range of keys, as a part's COPY does, and returns the LSN it was copied at.
fn copy(stream: &Stream<'_>, condition: &str) -> Lsn {
    let lsn = position(stream);
    for row in stream
        .source
        .query(&format!("SELECT format('(%s, %L, %L)', id, small, large) FROM t WHERE {condition}"))
    {
        stream.target.execute(&format!("INSERT INTO t VALUES {}", row[0]));
    }
    lsn
}

fn rules(stream: &Stream<'_>, parts: &[(Option<i64>, Option<i64>, Lsn)]) -> Filter {
    let oid = stream.source.value("SELECT 't'::regclass::oid").parse().expect("an OID is a number");
    let parts = parts.iter().map(|&(lower, upper, lsn)| PartRule { lower, upper, lsn }).collect();
    Filter::new(HashMap::from([(oid, SnapshotRule::Parts { column: "id".to_owned(), parts })]))
}

const SCHEMA: &str = "CREATE TABLE t (id int PRIMARY KEY, small text, large text); ALTER TABLE t ALTER large SET STORAGE EXTERNAL";

#[test]
fn rows_that_move_between_parts_of_different_snapshots_are_there_once() {
    let mut stream = Stream::between(server(15), server(15), SCHEMA);
    stream.source.execute("INSERT INTO t SELECT n, 'a', 'b' FROM generate_series(1, 20) n");
    let first = copy(&stream, "id < 11");
    stream.source.execute(
        "UPDATE t SET id = 101 WHERE id = 1; UPDATE t SET id = -12 WHERE id = 12; UPDATE t SET small = 'c' WHERE id IN (2, 13); \
         DELETE FROM t WHERE id IN (3, 14); INSERT INTO t VALUES (0, 'new', 'new'), (100, 'new', 'new'); UPDATE t SET id = -5 WHERE id = 5",
    );
    let second = copy(&stream, "id >= 11");
    stream.source.execute(
        "UPDATE t SET id = 102 WHERE id = 6; UPDATE t SET id = -15 WHERE id = 15; UPDATE t SET small = 'd'",
    );
    stream.filter = rules(&stream, &[(None, Some(11), first), (Some(11), None, second)]);
    stream.catch_up();
    assert_eq!(stream.expect_same("SELECT * FROM t ORDER BY id").len(), 20);
}

#[test]
fn truncate_empties_only_the_parts_that_were_copied_before_it() {
    let mut stream = Stream::between(server(15), server(15), SCHEMA);
    stream.source.execute("INSERT INTO t SELECT n, 'a', 'b' FROM generate_series(1, 20) n");
    let first = copy(&stream, "id < 11");
    stream.source.execute("TRUNCATE t; INSERT INTO t SELECT n, 'again', 'b' FROM generate_series(5, 15) n");
    let second = copy(&stream, "id >= 11");
    stream.filter = rules(&stream, &[(None, Some(11), first), (Some(11), None, second)]);
    stream.catch_up();
    stream.expect_same("SELECT * FROM t ORDER BY id");
}

#[test]
fn a_row_that_comes_from_a_later_part_without_its_toast_value_has_its_table_copied_again() {
    let mut stream = Stream::between(server(15), server(15), SCHEMA);
    stream.source.execute("INSERT INTO t SELECT n, 'a', repeat('b', 5000) FROM generate_series(1, 20) n");
    let first = copy(&stream, "id < 11");
    stream.source.execute("UPDATE t SET id = -12 WHERE id = 12");
    let second = copy(&stream, "id >= 11");
    stream.filter = rules(&stream, &[(None, Some(11), first), (Some(11), None, second)]);
    let oid: u32 = stream.source.value("SELECT 't'::regclass::oid").parse().expect("an OID is a number");
    assert_eq!(stream.try_catch_up().expect("it is no failure"), Ended::Recopy(oid));
}

#[test]
fn a_relation_that_is_not_migrated_needs_no_table_on_the_target() {
    let source = server(15).create_database("source");
    let target = server(15).create_database("target");
    source.execute("CREATE TABLE t (id int); CREATE TABLE other (id int PRIMARY KEY)");
    target.execute("CREATE TABLE t (id int)");
    let mut stream = Stream::over(source, target);
    stream.source.execute(
        "INSERT INTO other VALUES (1); UPDATE other SET id = 2; TRUNCATE other; INSERT INTO t VALUES (1)",
    );
    let oid = stream.source.value("SELECT 'other'::regclass::oid").parse().expect("an OID is a number");
    stream.filter = Filter::new(HashMap::from([(oid, SnapshotRule::Ignore)]));
    stream.catch_up();
    stream.expect_same("SELECT * FROM t");
}
