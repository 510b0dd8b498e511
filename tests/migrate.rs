//! The main job: `pgstream migrate --method copy` moves the fixture, from every major, and nothing is different. So does a copy from a standby.

use crate::harness::{Cluster, Options, Pgstream, compare, fixture, server};

/// Moves the fixture from a server of one major to a fresh one of another, compares, and moves again.
fn moves_the_fixture(source_major: u32, target_major: u32) {
    let source = fixture(server(source_major));
    let cluster = Cluster::start(target_major, &Options::default());
    let target = cluster.create_database_with("moved", "TEMPLATE template0");
    let migrate = || Pgstream::between("migrate", &source, &target).args(["--method", "copy"]).run();

    migrate().expect_code(0);
    let differences = compare::databases(&source, &target);
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));

    // pgstream's own comparison, which needs no client of PostgreSQL's, finds nothing either.
    Pgstream::between("verify", &source, &target).run().expect_code(0);

    // Whoever runs it again is told that it is done, and nothing is copied twice.
    let again = migrate().expect_code(0);
    assert!(again.stderr.contains("done") || again.stdout.contains("done"), "{again:?}");
    let differences = compare::rows(&source, &target);
    assert!(differences.is_empty(), "a second run changed rows:\n{}", differences.join("\n"));
}

macro_rules! pairs {
    ($($name:ident: $source:literal to $target:literal;)+) => { $(
        #[test]
        fn $name() {
            moves_the_fixture($source, $target);
        }
    )+ };
}

pairs! {
    the_fixture_moves_from_10_to_18: 10 to 18;
    the_fixture_moves_from_11_to_17: 11 to 17;
    the_fixture_moves_from_12_to_16: 12 to 16;
    the_fixture_moves_from_13_to_18: 13 to 18;
    the_fixture_moves_from_14_to_15: 14 to 15;
    the_fixture_moves_from_15_to_15: 15 to 15;
    the_fixture_moves_from_16_to_18: 16 to 18;
    the_fixture_moves_from_17_to_18: 17 to 18;
    the_fixture_moves_from_18_to_18: 18 to 18;
}

#[test]
fn a_standby_is_copied_from_and_without_its_primary_not_followed() {
    let primary = Cluster::start(16, &Options::default());
    let standby = primary.start_standby();
    let (written, target) = (primary.create_database("source"), server(16).create_database("target"));
    written.execute(
        "CREATE TABLE t (id integer PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 5000) i; \
         CREATE SEQUENCE s; SELECT nextval('s'), lo_create(5)",
    );
    let lsn = written.value("SELECT pg_current_wal_insert_lsn()");
    let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{lsn}'");
    while standby.postgres().value(&replayed) != "t" {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let source = standby.database(written.name());
    Pgstream::between("migrate", &source, &target)
        .args(["--method", "replication"])
        .run()
        .expect_code(2)
        .expect_words(&["standby", "--source-primary", "--method copy"]);
    Pgstream::between("migrate", &source, &target)
        .run()
        .expect_code(0)
        .expect_words(&["standby", "method copy"]);
    assert_eq!(compare::rows(&source, &target), Vec::<String>::new());
    assert_eq!(compare::sequences(&source, &target), Vec::<String>::new());
}

#[test]
fn tables_of_1600_columns_are_copied_in_both_forms() {
    let (source, target) = (server(15).create_database("wide"), server(18).create_database("wide"));
    // Of built-in types, which go in binary form, and with a type of the database's own, which doesn't.
    source.execute(
        "CREATE TYPE mood AS ENUM ('calm', 'wild');
         DO $$ BEGIN
           EXECUTE (SELECT format('CREATE TABLE plain (%s)', string_agg(format('c%s integer', i), ', ')) FROM generate_series(1, 1600) i);
           EXECUTE (SELECT format('CREATE TABLE moody (%s)', string_agg(format('c%s %s', i, CASE i WHEN 1600 THEN 'mood' ELSE 'text' END), ', '))
             FROM generate_series(1, 1600) i);
           EXECUTE (SELECT format('INSERT INTO plain SELECT %s FROM generate_series(1, 50) r', string_agg(format('r * %s', i), ', '))
             FROM generate_series(1, 1600) i);
         END $$;
         INSERT INTO moody (c1, c2, c1599, c1600) SELECT r, NULL, repeat('x', r), 'wild' FROM generate_series(1, 50) r",
    );
    let migrate = Pgstream::between("migrate", &source, &target).args(["--method", "copy"]);
    migrate.run().expect_code(0);
    compare::assert_equal(&source, &target);
}

#[test]
fn a_copy_says_which_tables_were_written_to_behind_its_snapshot() {
    let (source, target) = (server(15).create_database("busy"), server(18).create_database("busy"));
    source.execute(
        "CREATE FUNCTION held(integer) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
           PERFORM pg_catalog.pg_advisory_lock_shared(42); PERFORM pg_catalog.pg_advisory_unlock_shared(42); RETURN true; END $$;
         CREATE TABLE quiet (id integer); INSERT INTO quiet SELECT generate_series(1, 10);
         CREATE TABLE busy (id integer CHECK (held(id))); INSERT INTO busy SELECT generate_series(1, 10)",
    );
    // Half a second after a session has ended, the server counts what it has written.
    std::thread::sleep(std::time::Duration::from_secs(1));
    let hold = target.hold("SELECT pg_advisory_lock(42)");
    let running = Pgstream::between("migrate", &source, &target).args(["--method", "copy"]).spawn();
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'";
    while target.value(waits) != "1" {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    source.execute("INSERT INTO busy SELECT 11");
    std::thread::sleep(std::time::Duration::from_secs(1));
    drop(hold);
    let said = running.wait().expect_code(0);
    said.expect_words(&["\"public\".\"busy\" of the source was written to", "--restart"]);
    assert!(!said.stderr.contains("quiet"), "{said:?}");
    assert_eq!(target.value("SELECT count(*) FROM busy"), "10");
}
