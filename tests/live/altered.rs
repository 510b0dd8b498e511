//! Tables of the source that are truncated, rewritten, renamed, dropped or made while the migration is on its way.
//!
//! A test brings its change between two steps of pgstream by keeping a lock that the second of them needs.

use super::{
    Database, Pair, assert_equal, assert_source_is_clean, cutover, migrate, status, until_in_step, wait_until,
};
use crate::harness::{Pgstream, Running};

const SCHEMA: &str = "
CREATE TABLE big (id integer PRIMARY KEY, v text);
INSERT INTO big SELECT i, repeat('x', 500) FROM generate_series(1, 4000) i;
CREATE TABLE small (id integer PRIMARY KEY, v text);
ALTER TABLE small ALTER v SET STORAGE EXTERNAL;
INSERT INTO small SELECT i, repeat('y', 3000) FROM generate_series(1, 20) i;
CREATE TABLE widened (id integer PRIMARY KEY, n integer);
INSERT INTO widened SELECT i, i FROM generate_series(1, 20) i;
CREATE TABLE parted (id integer, v text) PARTITION BY RANGE (id);
CREATE TABLE parted_1 PARTITION OF parted (PRIMARY KEY (id)) FOR VALUES FROM (0) TO (10);
CREATE TABLE parted_2 PARTITION OF parted (PRIMARY KEY (id)) FOR VALUES FROM (10) TO (20);
INSERT INTO parted SELECT i, 'p' FROM generate_series(0, 19) i;
";

/// Changes of rows that only the old file of each table holds, and the new files.
const REWRITE: &str = "
UPDATE small SET v = 'changed' WHERE id = 7; DELETE FROM small WHERE id = 8;
BEGIN; TRUNCATE small; INSERT INTO small VALUES (1, 'after'), (2, repeat('z', 3000)); COMMIT;
DELETE FROM widened WHERE id = 1;
ALTER TABLE widened ALTER n TYPE bigint;
UPDATE parted SET v = 'changed' WHERE id IN (3, 13);
TRUNCATE parted; INSERT INTO parted VALUES (4, 'after');
";

/// Rows that are changed after a rewrite.
const LATER: &str =
    "UPDATE small SET v = 'later' WHERE id = 2; UPDATE widened SET n = n + 1; UPDATE parted SET v = 'later'";

/// A session on one of the servers waits for a lock.
fn somebody_waits(database: &Database<'_>) -> bool {
    database.value("SELECT count(*) > 0 FROM pg_locks WHERE NOT granted") == "t"
}

/// Runs `change` on the source after the first snapshot of a migration was taken, and before its tables are locked.
fn change_behind_the_slot(source: &Database<'_>, target: &Database<'_>, change: &str) -> Running {
    // The slot, and with it the snapshot, waits for this transaction.
    let before = source.hold("BEGIN; SELECT txid_current();");
    let running = migrate(source, target, &[]);
    wait_until(|| target.value("SELECT to_regclass('pgstream.omission') IS NOT NULL") == "t");
    // What follows the slot is to make this table.
    let after = target.hold("BEGIN; CREATE TABLE pgstream.checkpoint ();");
    drop(before);
    wait_until(|| somebody_waits(target));
    source.execute(change);
    drop(after);
    running
}

/// Lets a first run come as far as `big`, and fail at `small`.
pub(super) fn fail_half_way(migrate: Pgstream, target: &Database<'_>) {
    target.execute(
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'not yet'; END$$;
         CREATE FUNCTION arm() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN
           IF to_regclass('public.small') IS NOT NULL AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgname = 'not_yet') THEN
             CREATE TRIGGER not_yet BEFORE INSERT ON public.small FOR EACH ROW EXECUTE PROCEDURE public.fail();
           END IF; END$$;
         CREATE EVENT TRIGGER arm ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE PROCEDURE arm();",
    );
    migrate.args(["--jobs", "1"]).run().expect_code(1).expect_words(&["not yet"]);
    target.execute("DROP EVENT TRIGGER arm; DROP FUNCTION arm(); DROP FUNCTION fail() CASCADE");
    assert_eq!(
        target.value(
            "SELECT string_agg(table_name, ',') FROM pgstream.relation r
             WHERE 'done' = ALL (SELECT state FROM pgstream.part p WHERE p.relation = r.oid)"
        ),
        "big"
    );
}

/// Runs `change` on the source after a resumed run has taken its snapshot, and before its tables are locked.
fn change_behind_the_snapshot(
    source: &Database<'_>,
    target: &Database<'_>,
    method: &str,
    change: &str,
) -> Running {
    // The first thing that is read on the target once there is a snapshot.
    let held = target.hold("BEGIN; LOCK TABLE pgstream.replica_identity IN ACCESS EXCLUSIVE MODE;");
    let running = Pgstream::between("migrate", source, target).args(["--method", method]).spawn();
    wait_until(|| somebody_waits(target));
    source.execute(change);
    drop(held);
    running
}

#[test]
fn tables_rewritten_behind_the_slots_snapshot_are_copied_from_a_newer_one() {
    let pair = Pair::start(15, 16);
    let (source, target) = pair.databases(SCHEMA);
    let running = change_behind_the_slot(&source, &target, REWRITE);
    let running = until_in_step(&source, &target, running);
    source.execute(LATER);
    cutover(&source, &target).run().expect_code(0);
    running.wait().expect_code(0).expect_words(&["taking another snapshot", "public.parted_1"]);
    assert_equal(&source, &target);
    assert_source_is_clean(&source);
}

#[test]
fn tables_rewritten_behind_the_snapshot_of_a_resumed_run_are_copied_from_a_newer_one() {
    let pair = Pair::start(15, 16);
    let rewrite = REWRITE.replace("ALTER TABLE widened ALTER n TYPE bigint", "TRUNCATE widened");
    let (source, target) = pair.databases(SCHEMA);
    fail_half_way(Pgstream::between("migrate", &source, &target).args(["--method", "replication"]), &target);
    let running = change_behind_the_snapshot(&source, &target, "replication", &rewrite);
    let running = until_in_step(&source, &target, running);
    source.execute(LATER);
    cutover(&source, &target).run().expect_code(0);
    running.wait().expect_code(0).expect_words(&["taking another snapshot"]);
    assert_equal(&source, &target);
    assert_source_is_clean(&source);
    drop((source, target));

    let (source, target) = pair.databases(SCHEMA);
    fail_half_way(Pgstream::between("migrate", &source, &target).args(["--method", "copy"]), &target);
    change_behind_the_snapshot(&source, &target, "copy", &rewrite)
        .wait()
        .expect_code(0)
        .expect_words(&["taking another snapshot"]);
    assert_equal(&source, &target);
}

#[test]
fn tables_dropped_or_renamed_behind_the_snapshot_are_seen_as_they_are_now() {
    let pair = Pair::start(15, 16);
    let (source, target) = pair.databases(SCHEMA);
    let change = "DROP TABLE small; ALTER TABLE widened RENAME TO wide;
        ALTER TABLE parted_1 RENAME TO aside; ALTER TABLE parted_2 RENAME TO parted_1";
    let running = change_behind_the_slot(&source, &target, change);
    let running = until_in_step(&source, &target, running);
    cutover(&source, &target).run().expect_code(0);
    running.wait().expect_code(0).expect_words(&["taking another snapshot"]);
    assert_equal(&source, &target);
}

/// Makes a table that nothing of the migration knows of yet.
const LATE: &str = "CREATE TABLE late (id integer PRIMARY KEY, v text);
    INSERT INTO late SELECT i, 'l' FROM generate_series(1, 50) i";

#[test]
fn a_table_made_before_a_resumed_run_is_copied_and_followed() {
    // Of a major whose walsenders don't hear that a table is published while a transaction that changed it is under way.
    let pair = Pair::start(12, 16);
    let (source, target) = pair.databases(SCHEMA);
    fail_half_way(Pgstream::between("migrate", &source, &target).args(["--method", "replication"]), &target);
    source.execute(LATE);
    // Changed before it is published, and committed after.
    source.execute("BEGIN; INSERT INTO late VALUES (100, 'before'); PREPARE TRANSACTION 'astride'");
    let running = migrate(&source, &target, &[]);
    wait_until(|| {
        source.value("SELECT count(*) FROM pg_publication_rel WHERE prrelid = 'late'::regclass") == "1"
    });
    wait_until(|| somebody_waits(&source));
    source.execute("COMMIT PREPARED 'astride'");
    let running = until_in_step(&source, &target, running);
    source.execute("INSERT INTO late VALUES (102, 'after'); UPDATE late SET v = 'changed' WHERE id > 99");
    cutover(&source, &target).run().expect_code(0);
    running.wait().expect_code(0).expect_words(&["table \"public.late\" is new"]);
    assert_equal(&source, &target);
    assert_source_is_clean(&source);
}

#[test]
fn a_table_made_while_the_slot_waits_is_copied_and_followed() {
    let pair = Pair::start(15, 16);
    let (source, target) = pair.databases(SCHEMA);
    let before = source.hold("BEGIN; SELECT txid_current();");
    let running = migrate(&source, &target, &[]);
    // The publication is there, and the snapshot isn't.
    wait_until(|| somebody_waits(&source));
    source.execute(LATE);
    drop(before);
    let running = until_in_step(&source, &target, running);
    source.execute("UPDATE late SET v = 'changed' WHERE id < 10; TRUNCATE small");
    cutover(&source, &target).run().expect_code(0);
    running.wait().expect_code(0).expect_words(&["made while the snapshot was taken"]);
    assert_equal(&source, &target);
}

#[test]
fn tables_that_come_too_late_are_left_out_by_name() {
    let pair = Pair::start(15, 16);
    let (source, target) = pair.databases(SCHEMA);
    fail_half_way(Pgstream::between("migrate", &source, &target).args(["--method", "replication"]), &target);
    // To publish it would make the application's UPDATE fail.
    source.execute("CREATE TABLE keyless (a integer); INSERT INTO keyless VALUES (1)");
    let running = migrate(&source, &target, &[]);
    let running = until_in_step(&source, &target, running);
    source.execute("UPDATE keyless SET a = 2");
    source.execute(LATE);
    let seen = status(&source, &target).expect("there is a migration");
    assert!(seen["warnings"].to_string().contains("public.late"), "{seen}");
    cutover(&source, &target).run().expect_code(3).expect_words(&[
        "TABLE DATA public.keyless: neither its rows nor their changes are on the target: nothing identifies its rows",
        "TABLE public.late: made on the source after the copy",
    ]);
    running.wait().expect_code(0).expect_words(&["the rows of table \"public.keyless\" are left out"]);
    assert_eq!(target.value("SELECT count(*) FROM keyless"), "0");
}

#[test]
fn a_table_renamed_during_the_copy_is_refused_and_one_renamed_later_is_followed() {
    let pair = Pair::start(15, 16);
    let (source, target) = pair.databases(SCHEMA);
    fail_half_way(Pgstream::between("migrate", &source, &target).args(["--method", "replication"]), &target);
    source.execute("ALTER TABLE big RENAME TO grand");
    let said = migrate(&source, &target, &[]).wait().expect_code(2);
    said.expect_words(&["\"public\".\"big\" was renamed to \"public\".\"grand\"", "--restart"]);
    assert_eq!(target.value("SELECT to_regclass('grand') IS NULL"), "t");
    source.execute("ALTER TABLE grand RENAME TO big");
    let running = until_in_step(&source, &target, migrate(&source, &target, &[]));
    source.execute("CREATE SCHEMA moved; ALTER TABLE small SET SCHEMA moved");
    target.execute("CREATE SCHEMA moved; ALTER TABLE small SET SCHEMA moved");
    source.execute("UPDATE moved.small SET v = 'moved' WHERE id = 3");
    cutover(&source, &target).run().expect_code(0);
    running.wait().expect_code(0);
    assert_equal(&source, &target);
}
