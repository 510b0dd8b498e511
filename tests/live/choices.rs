//! Options and preconditions of the method replication.

use super::{
    Pair, assert_equal, assert_source_is_clean, cutover, migrate, migrate_until_in_step, status, wait_until,
};
use crate::harness::{Cluster, Extensions, Options, Pgstream};
use std::sync::atomic::{AtomicBool, Ordering};

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
        .expect_words(&["ALTER TABLE \"public\".\"bare\" REPLICA IDENTITY FULL", "--replica-identity"]);
    assert_source_is_clean(&source);
    assert_eq!(target.value("SELECT to_regnamespace('pgstream') IS NULL"), "t");
    // The application's changes go on as before.
    source.execute("UPDATE bare SET a = 2");
}

#[test]
fn check_lists_all_that_keeps_the_source_from_being_followed_and_all_that_is_left_out() {
    let settings =
        ["max_slot_wal_keep_size = 100MB", "max_replication_slots = 2"].map(str::to_owned).to_vec();
    let source = Cluster::start(18, &Options { settings, ..Options::default() });
    let target = Cluster::start(18, &Options::default());
    let (source, target) = (source.create_database("live"), target.create_database("live"));
    source.execute(
        "CREATE TABLE bare (a integer);
         CREATE TABLE computed (a integer, b integer GENERATED ALWAYS AS (a + 1) STORED);
         ALTER TABLE computed REPLICA IDENTITY FULL;
         CREATE UNLOGGED TABLE fast (a integer PRIMARY KEY);
         CREATE EXTENSION file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
         CREATE FOREIGN TABLE abroad (a text) SERVER files OPTIONS (filename '/dev/null');
         CREATE TABLE theirs (a integer PRIMARY KEY);
         SELECT lo_create(1); SELECT pg_create_physical_replication_slot('taken');
         CREATE ROLE mover LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO mover;
         BEGIN; INSERT INTO theirs VALUES (1); PREPARE TRANSACTION 'forgotten';",
    );
    let check = |user: &str, method: &str| {
        let source = source.uri().replace("//postgres@", &format!("//{user}@"));
        Pgstream::new("check")
            .args(["--source", &source, "--target", &target.uri(), "--method", method])
            .run()
    };
    let said = check("postgres", "replication").expect_code(2);
    said.expect_words(&[
        "blocker: source: 1 replication slots are free",
        "blocker: source table \"public.bare\": nothing identifies its rows",
        "ALTER TABLE \"public\".\"bare\" REPLICA IDENTITY FULL;",
        "blocker: source table \"public.computed\": it has REPLICA IDENTITY FULL and generated columns",
        "warning: source: max_slot_wal_keep_size is 100 MB",
        "warning: source table \"public.fast\": changes of an unlogged table",
        "warning: source table \"public.abroad\": changes of a foreign table",
        "warning: source transaction \"forgotten\"",
        "warning: large objects: changes of large objects are not in the stream",
    ]);
    check("mover", "replication").expect_code(2).expect_words(&[
        "blocker: source: the user may not make a replication slot",
        "blocker: source: the user may not make a publication",
        "blocker: source table \"public.theirs\": the user does not own it",
    ]);
    let said = check("postgres", "auto").expect_code(0);
    said.expect_words(&["warning: method: the source can't be followed, so the database is copied once"]);
    assert!(
        !said.stdout.contains("unlogged table"),
        "what no stream leaves out is not its matter: {}",
        said.stdout
    );
    source.execute("ROLLBACK PREPARED 'forgotten'; SELECT pg_drop_replication_slot('taken')");
}

#[test]
fn a_partitioned_table_is_not_published_as_a_whole_where_that_would_hurt_a_partition() {
    let pair = Pair::start(15, 15);
    let (source, target) = pair.databases(
        "CREATE TABLE keyed (id integer PRIMARY KEY) PARTITION BY RANGE (id);
         CREATE TABLE keyed_1 PARTITION OF keyed FOR VALUES FROM (0) TO (10);
         CREATE TABLE keyless (id integer) PARTITION BY RANGE (id);
         CREATE TABLE keyless_1 PARTITION OF keyless (PRIMARY KEY (id)) FOR VALUES FROM (0) TO (10);",
    );
    let running = migrate_until_in_step(&source, &target, &[]);
    let published = "SELECT prrelid::regclass FROM pg_publication_rel ORDER BY prrelid";
    assert_eq!(source.query(published), [["keyed"], ["keyed_1"], ["keyless_1"]]);
    // The application makes a partition as it pleases, and goes on changing it.
    source.execute(
        "CREATE TABLE keyless_2 PARTITION OF keyless FOR VALUES FROM (10) TO (20);
         INSERT INTO keyless VALUES (1), (11); UPDATE keyless SET id = id + 1",
    );
    drop(running);
}

#[test]
fn replica_identity_full_is_given_for_the_time_of_the_migration() {
    let pair = Pair::start(15, 15);
    let (source, target) = pair.databases(BARE);
    let identity = "SELECT relreplident FROM pg_class WHERE relname = 'bare'";
    let running = migrate_until_in_step(&source, &target, &["--replica-identity", "full"]);
    assert_eq!(source.value(identity), "f");
    let verified = Pgstream::between("verify", &source, &target).run().expect_code(0);
    let said = "TABLE public.bare has REPLICA IDENTITY FULL on the source until the cutover";
    assert!(verified.stdout.contains(said), "{verified:?}");
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
    let running = migrate_until_in_step(&source, &target, &["--replica-identity", "skip"]);
    source.execute("UPDATE bare SET a = 9; INSERT INTO t VALUES (2)");
    let said = cutover(&source, &target).run().expect_code(3);
    said.expect_words(&["public.bare", "no replica identity"]);
    running.wait().expect_code(0);
    assert_eq!(target.query("SELECT a FROM bare"), [["1"], ["1"]]);
    assert_eq!(target.value("SELECT count(*) FROM t"), "2");
}

#[test]
fn tables_of_extensions_are_followed_unless_that_is_not_wanted() {
    let script = "CREATE TABLE setting (name text PRIMARY KEY, value text);
        SELECT pg_catalog.pg_extension_config_dump('setting', 'WHERE name <> ''of the extension''');
        INSERT INTO setting VALUES ('of the extension', 'x');";
    let extensions = Extensions::new().with("settings", "1", "", script);
    let options = || Options { settings: vec![extensions.setting()], ..Options::default() };
    let (source, target) = (Cluster::start(18, &options()), Cluster::start(18, &options()));
    for (database, wanted) in [("followed", true), ("copied", false)] {
        let (source, target) = (source.create_database(database), target.create_database(database));
        source.execute(
            "CREATE EXTENSION settings; INSERT INTO setting VALUES ('a', '1'); CREATE TABLE t (id integer PRIMARY KEY)",
        );
        let choice: &[&str] = if wanted { &[] } else { &["--no-replicate-extension-tables"] };
        let mut running = migrate_until_in_step(&source, &target, choice);
        let published = source.query("SELECT prrelid::regclass FROM pg_publication_rel ORDER BY 1");
        assert_eq!(published.len(), if wanted { 2 } else { 1 }, "{published:?}");
        // The next run, and the cutover, go by the choice that the first one was given.
        running.kill();
        source.execute("INSERT INTO setting VALUES ('b', '2'); INSERT INTO t VALUES (1)");
        let running = migrate_until_in_step(&source, &target, &[]);
        cutover(&source, &target).run().expect_code(0);
        running.wait().expect_code(0);
        assert_eq!(target.value("SELECT count(*) FROM t"), "1");
        let names = target.query("SELECT name FROM setting ORDER BY 1");
        let expected: &[&[&str]] =
            if wanted { &[&["a"], &["b"], &["of the extension"]] } else { &[&["a"], &["of the extension"]] };
        assert_eq!(names, expected, "{database}");
    }
}

#[test]
fn interrupted_in_the_stream_it_resumes() {
    let pair = Pair::start(15, 15);
    let (source, target) = pair.databases(SMALL);
    let running = migrate_until_in_step(&source, &target, &[]);
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
    let running = migrate_until_in_step(&source, &target, &[]);
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
    let running = migrate_until_in_step(&source, &target, &[]);
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
    let said = cutover(&source, &target).run().expect_code(0);
    said.expect_words(&["there was nothing to cut over"]);
    assert!(!said.stderr.contains("point the application"), "{}", said.stderr);
}

#[test]
fn cleanup_removes_what_an_abandoned_migration_left_on_both_sides() {
    let pair = Pair::start(15, 15);
    let (source, target) = pair.databases(BARE);
    let mut running = migrate_until_in_step(&source, &target, &["--replica-identity", "full"]);
    source.execute("CREATE PUBLICATION pgstream_other");
    let cleanup = || Pgstream::between("cleanup", &source, &target);
    cleanup().args(["--yes"]).run().expect_code(2).expect_words(&["another pgstream"]);
    running.kill();
    wait_until(|| target.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == "0");
    // It lists and removes nothing without being told to, and wants the source for what is there.
    cleanup().run().expect_code(2).expect_words(&["replication slot", "publication", "schema", "--yes"]);
    let alone = Pgstream::new("cleanup").args(["--yes", "--target", &target.uri()]);
    alone.run().expect_code(2).expect_words(&["--source", "replication slot"]);
    assert_eq!(source.value("SELECT count(*) FROM pg_replication_slots"), "1");
    cleanup().args(["--yes"]).run().expect_code(0).expect_words(&["replication slot", "removed"]);
    assert_eq!(source.query("SELECT slot_name FROM pg_replication_slots").len(), 0);
    assert_eq!(source.query("SELECT pubname FROM pg_publication"), [["pgstream_other"]]);
    assert_eq!(source.value("SELECT relreplident FROM pg_class WHERE relname = 'bare'"), "d");
    assert_eq!(target.value("SELECT to_regnamespace('pgstream') IS NULL"), "t");
    cleanup().args(["--yes"]).run().expect_code(0).expect_words(&["nothing to remove"]);
}

#[test]
fn cleanup_works_when_one_side_is_gone() {
    let pair = Pair::start(15, 15);
    let (source, target) = pair.databases(SMALL);
    let cleanup = || Pgstream::between("cleanup", &source, &target).args(["--yes"]);
    migrate_until_in_step(&source, &target, &[]).kill();
    pair.target.stop("immediate");
    cleanup()
        .run()
        .expect_code(0)
        .expect_words(&["target can't be cleaned up", "removed source: replication slot"]);
    assert_source_is_clean(&source);
    pair.target.start_again();
    pair.source.stop("immediate");
    cleanup().run().expect_code(3).expect_words(&[
        "left",
        "pg_drop_replication_slot",
        "removed target: schema",
    ]);
    pair.source.start_again();
    assert_eq!(target.value("SELECT to_regnamespace('pgstream') IS NULL"), "t");
}

#[test]
fn a_lock_that_others_wait_for_is_named_with_whom_it_waits_for() {
    let pair = Pair::start(15, 15);
    let (source, target) = pair.databases(SMALL);
    let reader = source.hold("BEGIN; SELECT count(*) FROM t;");
    std::thread::scope(|scope| {
        // Nobody who comes after it may read the table any more.
        scope.spawn(|| source.try_execute("TRUNCATE t"));
        wait_until(|| source.value("SELECT count(*) FROM pg_locks WHERE NOT granted") == "1");
        let said = Pgstream::between("check", &source, &target).run().expect_code(2);
        said.expect_words(&[
            "source table \"public.t\"",
            "is the next to lock it",
            "waits for process",
            "idle in transaction",
        ]);
        let said = migrate(&source, &target, &["--lock-wait-timeout", "1s"]).wait().expect_code(1);
        said.expect_words(&["is the next to lock it", "waits for process"]);
        drop(reader);
    });
}

#[test]
fn a_truncate_during_the_copy_does_not_hold_it_up() {
    let pair = Pair::start(15, 15);
    let (source, target) = pair.databases(
        "CREATE TABLE first (id integer PRIMARY KEY, v text);
         INSERT INTO first SELECT i, repeat('x', 500) FROM generate_series(1, 60000) i;
         CREATE TABLE second (id integer PRIMARY KEY); INSERT INTO second SELECT generate_series(1, 1000)",
    );
    std::thread::scope(|scope| {
        let running = scope.spawn(|| migrate_until_in_step(&source, &target, &["--jobs", "1"]));
        // As soon as the snapshot's holder has its locks, the application wants them gone.
        wait_until(|| {
            source.value("SELECT count(*) > 0 FROM pg_locks WHERE relation = 'second'::regclass AND mode = 'AccessShareLock'") == "t"
                || running.is_finished()
        });
        source.execute("TRUNCATE second; INSERT INTO second VALUES (1)");
        let running = running.join().expect("the migration gets in step");
        cutover(&source, &target).run().expect_code(0);
        running.wait().expect_code(0);
    });
    assert_equal(&source, &target);
}

#[test]
fn status_tells_the_positions_the_lag_and_the_slot() {
    let pair = Pair::start(17, 17);
    let (source, target) = pair.databases(SMALL);
    let mut running = migrate_until_in_step(&source, &target, &[]);
    source.execute("INSERT INTO t VALUES (3, 'c')");
    wait_until(|| status(&source, &target).is_some_and(|status| status["last_commit_at"].is_string()));
    let seen = status(&source, &target).expect("there is a migration");
    assert_eq!(
        (&seen["slot"]["active"], &seen["slot"]["wal_status"]),
        (&true.into(), &"reserved".into()),
        "{seen}"
    );
    assert_eq!(seen["warnings"], serde_json::json!([]), "{seen}");
    for key in ["source_lsn", "received_lsn", "applied_lsn", "confirmed_lsn", "last_commit_at"] {
        assert!(seen[key].is_string(), "{key}: {seen}");
    }
    running.kill();
    wait_until(|| status(&source, &target).is_some_and(|status| status["slot"]["active"] == false));
    Pgstream::between("status", &source, &target).run().expect_code(0).expect_words(&[
        "nobody reads",
        "lag",
        "slot",
    ]);
    pair.source.stop("immediate");
    Pgstream::between("status", &source, &target)
        .run()
        .expect_code(0)
        .expect_words(&["nothing is known of the source"]);
    pair.source.start_again();
}

#[test]
fn a_comparison_beside_a_running_stream_reads_both_sides_at_one_position() {
    let pair = Pair::start(15, 17);
    let (source, target) = pair.databases(
        "CREATE TABLE counted (id integer PRIMARY KEY, n bigint NOT NULL);
         INSERT INTO counted SELECT i, 0 FROM generate_series(1, 500) i",
    );
    let running = migrate_until_in_step(&source, &target, &[]);
    // Every transaction changes every row, so that two positions differ everywhere.
    let stop = AtomicBool::new(false);
    let verify = |more: &[&'static str]| {
        let command = Pgstream::between("verify", &source, &target).args(["--data-only", "--json"]);
        command.args(more.iter().copied()).run()
    };
    let (compared, sampled, named) = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                source.execute("UPDATE counted SET n = n + 1");
            }
        });
        let compared = [verify(&[]), verify(&[])];
        let sampled = verify(&["--sample", "20"]);
        // This is no change's row, and is named while all the others change.
        let inserted = target.try_execute("INSERT INTO counted VALUES (501, 0)");
        let named = verify(&[]);
        let deleted = target.try_execute("DELETE FROM counted WHERE id = 501");
        stop.store(true, Ordering::Relaxed);
        inserted.and(deleted).expect("the target can be changed");
        (compared, sampled, named)
    });
    for compared in compared {
        compared.expect_code(0).expect_words(&["\"lsn\": \"", "\"rows\": 500", "while the stream goes on"]);
    }
    sampled.expect_code(0).expect_words(&["\"lsn\": \"", "\"sample_percent\": 20.0"]);
    let named = named.expect_code(3);
    named.expect_words(&[
        "has 500 rows on the source and 501 on the target",
        "\"501\"",
        "is on the target only",
    ]);
    assert!(!named.stdout.contains("\"differs\""), "{}", named.stdout);
    // The stream has gone on.
    cutover(&source, &target).run().expect_code(0);
    running.wait().expect_code(0);
    assert_equal(&source, &target);
}
