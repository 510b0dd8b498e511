//! A standby is followed: its primary is asked for what must be written, and for nothing else.

use super::altered::fail_half_way;
use super::{assert_equal, assert_source_is_clean, until_in_step, wait_until};
use crate::harness::{Cluster, Database, Options, Pgstream, Running, server};

const SCHEMA: &str = "CREATE TABLE big (id integer PRIMARY KEY, v text);
    INSERT INTO big SELECT i, repeat('v', 300) FROM generate_series(1, 20000) i;
    CREATE TABLE small (id integer PRIMARY KEY, v text); INSERT INTO small VALUES (1, 'v');
    CREATE TABLE bare (id integer, v text); INSERT INTO bare SELECT i, 'v' FROM generate_series(1, 100) i;
    CREATE SEQUENCE s; SELECT nextval('s'), lo_from_bytea(77, 'abc');";

/// A command from the standby to the target, with the primary named.
fn command(name: &str, standby: &Database<'_>, primary: &Database<'_>, target: &Database<'_>) -> Pgstream {
    // Any database of it will do, as for --all-databases.
    let elsewhere = primary.cluster().uri("postgres");
    Pgstream::between(name, standby, target).args(["--source-primary", &elsewhere])
}

fn migrate(standby: &Database<'_>, primary: &Database<'_>, target: &Database<'_>) -> Pgstream {
    command("migrate", standby, primary, target).args([
        "--method",
        "replication",
        "--replica-identity",
        "full",
    ])
}

fn follow(standby: &Database<'_>, primary: &Database<'_>, target: &Database<'_>) -> Running {
    migrate(standby, primary, target).spawn()
}

/// Waits until the standby has what the primary has by now.
#[track_caller]
fn until_replayed(standby: &Cluster, primary: &Cluster) {
    let written = primary.postgres().value("SELECT pg_current_wal_insert_lsn()");
    let replayed = format!("SELECT pg_last_wal_replay_lsn() >= '{written}'");
    wait_until(|| standby.postgres().value(&replayed) == "t");
}

/// The whole way from a standby of this major.
fn moves_from(major: u32) {
    let primary = Cluster::start(major, &Options::default());
    let standby = primary.start_standby();
    let (written, target) = (primary.create_database("live"), server(18).create_database("live"));
    written.execute(SCHEMA);
    until_replayed(&standby, &primary);
    let source = standby.database(written.name());
    let arrived = |id: u32| target.value(&format!("SELECT count(*) FROM big WHERE id = {id}")) == "1";

    let check = command("check", &source, &written, &target).args(["--method", "replication"]);
    check.args(["--replica-identity", "full"]).run().expect_code(0);
    fail_half_way(migrate(&source, &written, &target), &target);
    // A table comes while rows are being copied.
    written.execute(
        "CREATE TABLE late (id integer PRIMARY KEY); INSERT INTO late SELECT generate_series(1, 500)",
    );
    until_replayed(&standby, &primary);
    let mut running = until_in_step(&source, &target, follow(&source, &written, &target));
    written.execute("INSERT INTO big VALUES (30001, 'a'); UPDATE bare SET v = 'w' WHERE id < 50; DELETE FROM bare WHERE id = 60");
    wait_until(|| arrived(30001));
    // Its slot is on the standby, and nothing of the stream is on the primary but the publication.
    let ours = "SELECT count(*) FROM pg_replication_slots WHERE slot_name ~ '^pgstream'";
    assert_eq!((source.value(ours), written.value(ours)), ("1".to_owned(), "0".to_owned()));
    command("verify", &source, &written, &target).run().expect_code(0);

    running.kill();
    written.execute("INSERT INTO big VALUES (30002, 'b'); INSERT INTO late VALUES (1000)");
    let running = follow(&source, &written, &target);
    wait_until(|| arrived(30002) && target.value("SELECT count(*) FROM late") == "501");

    written.execute("INSERT INTO big VALUES (30003, 'last'); SELECT nextval('s'), lo_put(77, 1, 'xyz')");
    command("cutover", &source, &written, &target).args(["--make-source-read-only"]).run().expect_code(0);
    running.wait().expect_code(0);
    assert!(written.try_execute("INSERT INTO big VALUES (30004, 'refused')").is_err());
    assert_equal(&written, &target);
    assert_source_is_clean(&written);
    until_replayed(&standby, &primary);
    assert_source_is_clean(&source);
    assert_eq!(written.value("SELECT relreplident FROM pg_class WHERE relname = 'bare'"), "d");
}

#[test]
fn a_standby_of_16_is_followed() {
    moves_from(16);
}

#[test]
fn a_standby_of_18_is_followed() {
    moves_from(18);
}

#[test]
fn a_followed_standby_that_is_promoted_is_followed_on_as_a_primary() {
    let primary = Cluster::start(17, &Options::default());
    let standby = primary.start_standby();
    let (written, target) = (primary.create_database("live"), server(18).create_database("live"));
    written.execute(SCHEMA);
    until_replayed(&standby, &primary);
    let source = standby.database(written.name());
    let running = until_in_step(&source, &target, follow(&source, &written, &target));
    written.execute("INSERT INTO big VALUES (30001, 'a')");
    until_replayed(&standby, &primary);
    primary.stop("immediate");
    standby.promote();
    source.execute("INSERT INTO big VALUES (30002, 'b')");
    wait_until(|| target.value("SELECT count(*) FROM big WHERE id > 30000") == "2");
    running.signal("INT");
    running.wait().expect_code(4);
    // Who is still named as its primary could be written to in vain.
    primary.start_again();
    let cut = command("cutover", &source, &written, &target).run().expect_code(2);
    cut.expect_words(&["is no standby", "Leave out --source-primary"]);
    Pgstream::between("cutover", &source, &target).run().expect_code(0);
    assert_equal(&source, &target);
    assert_source_is_clean(&source);
}

#[test]
fn what_is_no_primary_of_the_standby_is_refused_and_restart_and_cleanup_remove_what_is_there() {
    let primary = Cluster::start(16, &Options::default());
    let (standby, other) = (primary.start_standby(), primary.start_standby());
    let (written, target) = (primary.create_database("live"), server(18).create_database("live"));
    written.execute(SCHEMA);
    until_replayed(&standby, &primary);
    until_replayed(&other, &primary);
    let source = standby.database(written.name());
    let refused = |primary: &Database<'_>, words: &[&str]| {
        migrate(&source, primary, &target).run().expect_code(2).expect_words(words);
    };
    refused(&other.database(written.name()), &["--source-primary names a standby"]);
    let stranger = server(17).database(written.name());
    server(17).postgres().execute(&format!("CREATE DATABASE {}", written.quoted_name()));
    refused(&stranger, &["--source-primary is not the primary of --source"]);
    server(17).postgres().execute(&format!("DROP DATABASE {}", written.quoted_name()));

    let running = until_in_step(&source, &target, follow(&source, &written, &target));
    running.signal("INT");
    running.wait().expect_code(4);
    let again = migrate(&source, &written, &target).args(["--restart"]).spawn();
    until_in_step(&source, &target, again).signal("INT");
    wait_until(|| source.value("SELECT count(*) FROM pg_replication_slots WHERE active") == "0");
    let unnamed = Pgstream::between("cleanup", &source, &target).args(["--yes"]).run().expect_code(2);
    unnamed.expect_words(&["the source is a standby", "--source-primary"]);
    command("cleanup", &source, &written, &target).args(["--yes"]).run().expect_code(0);
    assert_source_is_clean(&written);
    until_replayed(&standby, &primary);
    assert_source_is_clean(&source);
    assert_eq!(written.value("SELECT relreplident FROM pg_class WHERE relname = 'bare'"), "d");
}
