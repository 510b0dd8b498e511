//! Options and preconditions of the method replication.

use super::{Pair, assert_equal, assert_source_is_clean, cutover, migrate, wait_for_syncing, wait_until};
use crate::harness::{Cluster, Options, Pgstream};

const SMALL: &str =
    "CREATE TABLE t (id integer PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'a'), (2, 'b');
    CREATE SEQUENCE s; SELECT nextval('s');";

/// A table whose rows nothing identifies.
const BARE: &str = "CREATE TABLE t (id integer PRIMARY KEY); INSERT INTO t VALUES (1);
    CREATE TABLE bare (a integer); INSERT INTO bare VALUES (1), (1);";

#[test]
fn stop_when_caught_up_does_it_in_one_go() {
    let pair = Pair::start(15, 15);
    let (source, target) = pair.databases(SMALL);
    let arguments = ["--stop-when-caught-up", "--max-replication-lag", "64kB"];
    migrate(&source, &target, &arguments).wait().expect_code(0).expect_words(&["done"]);
    assert_equal(&source, &target);
    assert_source_is_clean(&source);
}

#[test]
fn auto_falls_back_to_copy_and_says_why() {
    let source = Cluster::start(
        15,
        &Options { settings: vec!["wal_level = replica".to_owned()], ..Options::default() },
    );
    let target = Cluster::start(15, &Options::default());
    let (source, target) = (source.create_database("live"), target.create_database("live"));
    source.execute(SMALL);
    Pgstream::between("migrate", &source, &target)
        .args(["--method", "replication"])
        .run()
        .expect_code(2)
        .expect_words(&["wal_level", "logical"]);
    assert_eq!(target.value("SELECT to_regnamespace('pgstream') IS NULL"), "t");
    Pgstream::between("migrate", &source, &target).run().expect_code(0).expect_words(&[
        "method copy",
        "wal_level",
        "done",
    ]);
    assert_equal(&source, &target);
}

#[test]
fn a_table_without_replica_identity_is_refused_with_the_statement_that_mends_it() {
    let pair = Pair::start(15, 15);
    let (source, target) = pair.databases(BARE);
    migrate(&source, &target, &[])
        .wait()
        .expect_code(2)
        .expect_words(&["ALTER TABLE public.bare REPLICA IDENTITY FULL", "--replica-identity"]);
    assert_source_is_clean(&source);
    assert_eq!(target.value("SELECT to_regnamespace('pgstream') IS NULL"), "t");
    // The application's changes go on as before.
    source.execute("UPDATE bare SET a = 2");
}

#[test]
fn replica_identity_full_is_given_for_the_time_of_the_migration() {
    let pair = Pair::start(15, 15);
    let (source, target) = pair.databases(BARE);
    let identity = "SELECT relreplident FROM pg_class WHERE relname = 'bare'";
    let mut running = migrate(&source, &target, &["--replica-identity", "full"]);
    wait_for_syncing(&source, &target, &mut running);
    assert_eq!(source.value(identity), "f");
    source.execute(
        "UPDATE bare SET a = 7 WHERE ctid = '(0,1)'; DELETE FROM t; INSERT INTO bare VALUES (NULL), (NULL)",
    );
    cutover(&source, &target).run().expect_code(0);
    running.wait().expect_code(0);
    assert_eq!(source.value(identity), "d");
    assert_equal(&source, &target);
    assert_source_is_clean(&source);
}

#[test]
fn a_skipped_table_is_copied_and_reported() {
    let pair = Pair::start(15, 15);
    let (source, target) = pair.databases(BARE);
    let mut running = migrate(&source, &target, &["--replica-identity", "skip"]);
    wait_for_syncing(&source, &target, &mut running);
    source.execute("UPDATE bare SET a = 9; INSERT INTO t VALUES (2)");
    let said = cutover(&source, &target).run().expect_code(3);
    said.expect_words(&["public.bare", "no replica identity"]);
    running.wait().expect_code(0);
    assert_eq!(target.query("SELECT a FROM bare"), [["1"], ["1"]]);
    assert_eq!(target.value("SELECT count(*) FROM t"), "2");
}

#[test]
fn interrupted_in_the_stream_it_resumes() {
    let pair = Pair::start(15, 15);
    let (source, target) = pair.databases(SMALL);
    let mut running = migrate(&source, &target, &[]);
    wait_for_syncing(&source, &target, &mut running);
    running.signal("INT");
    running.wait().expect_code(4).expect_words(&["stopped", "same command"]);
    source.execute("UPDATE t SET v = 'c' WHERE id = 1; INSERT INTO t VALUES (3, 'd')");
    let running = migrate(&source, &target, &[]);
    wait_until(|| target.value("SELECT count(*) FROM t") == "3");
    cutover(&source, &target).run().expect_code(0);
    running.wait().expect_code(0);
    assert_equal(&source, &target);
}

#[test]
fn cutover_needs_no_running_migrate() {
    let pair = Pair::start(14, 18);
    let (source, target) = pair.databases(SMALL);
    let mut running = migrate(&source, &target, &[]);
    wait_for_syncing(&source, &target, &mut running);
    running.signal("TERM");
    running.wait().expect_code(4);
    source.execute(
        "INSERT INTO t SELECT i, repeat('x', 200) FROM generate_series(10, 20000) i; SELECT nextval('s')",
    );
    cutover(&source, &target).args(["--max-lag", "0"]).run().expect_code(0);
    assert_equal(&source, &target);
    assert_source_is_clean(&source);
}

#[test]
fn a_source_made_read_only_stays_so_after_the_cutover() {
    let pair = Pair::start(15, 15);
    let (source, target) = pair.databases(SMALL);
    let mut running = migrate(&source, &target, &[]);
    wait_for_syncing(&source, &target, &mut running);
    let session = source.hold("SELECT 1");
    cutover(&source, &target).args(["--make-source-read-only"]).run().expect_code(0);
    running.wait().expect_code(0);
    let refused =
        source.try_execute("INSERT INTO t VALUES (9, 'late')").expect_err("the source is read-only");
    assert!(refused.contains("read-only"), "{refused}");
    target.execute("INSERT INTO t VALUES (9, 'new')");
    drop(session);
}

#[test]
fn a_cutover_of_nothing_says_what_to_do_first() {
    let pair = Pair::start(15, 15);
    let (source, target) = pair.databases(SMALL);
    cutover(&source, &target).run().expect_code(2).expect_words(&["no migration", "pgstream migrate"]);
    Pgstream::between("migrate", &source, &target).args(["--method", "copy"]).run().expect_code(0);
}
