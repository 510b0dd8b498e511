//! `--spool-dir`: while rows are copied, the changes are kept in files of this host, and the source lets go of its log.

use super::killed::{Kills, die_and_end_equal};
use super::writer::IN_PARTS;
use super::{
    Pair, assert_equal, assert_source_is_clean, cutover, migrate, migrate_until_in_step, status,
    until_in_step, wait_until,
};
use crate::harness::{Cluster, Database, Options, Pgstream, Random, Running, variable};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// An index whose build on the target takes as long as somebody there holds the lock 42.
const HELD: &str = "
CREATE FUNCTION held(integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN
    PERFORM pg_catalog.pg_advisory_lock_shared(42); PERFORM pg_catalog.pg_advisory_unlock_shared(42); RETURN $1; END $$;
CREATE TABLE slow (a integer PRIMARY KEY);
INSERT INTO slow VALUES (1);
CREATE INDEX held_index ON slow (held(a));
CREATE TABLE t (id bigint PRIMARY KEY, v text);
INSERT INTO t SELECT i, 'old' FROM generate_series(1, 1000) i;
CREATE TABLE bare (a integer, b text);
ALTER TABLE bare REPLICA IDENTITY FULL;
";

const HOLD: &str = "SELECT pg_advisory_lock(42)";

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder can be made")
}

fn path(folder: &TempDir) -> &str {
    folder.path().to_str().expect("it is text")
}

/// Every shape of change, rows of more than one segment among them.
fn write(source: &Database<'_>) {
    source.execute(
        "INSERT INTO t SELECT i, 'new' FROM generate_series(1001, 3000) i ON CONFLICT DO NOTHING;
         BEGIN; UPDATE t SET v = v || '!' WHERE id % 7 = 0; INSERT INTO bare SELECT i, 'b' FROM generate_series(1, 50) i; COMMIT;
         DELETE FROM t WHERE id % 11 = 0; UPDATE t SET id = -id WHERE id BETWEEN 1 AND 49 AND NOT EXISTS (SELECT FROM t o WHERE o.id = -t.id); DELETE FROM bare WHERE a < 5",
    );
    if source.cluster().major() > 10 {
        source.execute("BEGIN; TRUNCATE bare; INSERT INTO bare VALUES (1, 'after'); SAVEPOINT s; DELETE FROM t; ROLLBACK TO s; COMMIT");
    }
}

fn lsn(source: &Database<'_>, column: &str) -> String {
    source.value(&format!(
        "SELECT {column} FROM pg_replication_slots WHERE database = current_database() AND slot_name ~ '^pgstream_[0-9a-f]+$'"
    ))
}

/// Waits until the copy stands before the held index, and everything that was written by then is in the spool.
#[track_caller]
fn until_spooled(source: &Database<'_>, running: Running) -> Running {
    let end = source.value("SELECT pg_current_wal_lsn()");
    let confirmed = format!(
        "SELECT coalesce(bool_and(confirmed_flush_lsn >= '{end}'), false) FROM pg_replication_slots WHERE database = current_database()"
    );
    while_it_runs(running, || source.value(&confirmed) == "t")
}

#[track_caller]
fn until_held(target: &Database<'_>, running: Running) -> Running {
    let building = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory' AND query LIKE 'CREATE INDEX%')";
    while_it_runs(running, || target.value(building) == "t")
}

/// Waits until that holds; the run must not end before.
#[track_caller]
fn while_it_runs(mut running: Running, mut holds: impl FnMut() -> bool) -> Running {
    let begun = Instant::now();
    while !holds() {
        if running.ended() || begun.elapsed() > Duration::from_secs(60) {
            running.kill();
            panic!("waited in vain: {:?}", running.wait());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    running
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .expect("the folder is there")
        .flat_map(|entry| {
            let path = entry.expect("it can be read").path();
            if path.is_dir() { files(&path) } else { vec![path] }
        })
        .filter(|path| path.extension().is_some_and(|extension| extension == "segment"))
        .collect();
    files.sort();
    files
}

#[test]
fn the_source_recycles_its_log_while_rows_are_copied() {
    let pair = Pair::start(16, 17);
    let (source, target) = pair.databases(HELD);
    let folder = folder();
    let hold = target.hold(HOLD);
    let mut running = migrate(&source, &target, &["--spool-dir", path(&folder)]);
    running = until_held(&target, running);
    let oldest = || source.value("SELECT min(name) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'");
    let (first, restart) = (oldest(), lsn(&source, "restart_lsn"));
    for _ in 0..4 {
        write(&source);
        source.execute("DELETE FROM t WHERE id > 1000; SELECT pg_switch_wal(); CHECKPOINT");
    }
    running = until_spooled(&source, running);
    wait_until(|| {
        source.execute("CHECKPOINT");
        source.value(&format!("SELECT '{}'::pg_lsn > '{restart}'::pg_lsn", lsn(&source, "restart_lsn")))
            == "t"
            && oldest() > first
    });
    // The target is where it was.
    let behind = format!(
        "SELECT applied < '{0}' AND (SELECT held_to >= '{0}' FROM pgstream.spool) FROM pgstream.checkpoint",
        lsn(&source, "confirmed_flush_lsn")
    );
    assert_eq!(target.value(&behind), "t");
    assert!(!files(folder.path()).is_empty());
    let seen = status(&source, &target).expect("there is a migration");
    assert_eq!(seen["spool"]["directory"], path(&folder), "{seen}");
    drop(hold);
    let running = until_in_step(&source, &target, running);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "what is applied is removed");
    source.execute("INSERT INTO bare VALUES (99, 'live')");
    cutover(&source, &target).run().expect_code(0);
    running.wait().expect_code(0);
    assert_equal(&source, &target);
    assert_source_is_clean(&source);
}

#[test]
fn a_spool_that_is_not_here_or_not_whole_is_never_a_gap() {
    let pair = Pair::start(13, 18);
    let (source, target) = pair.databases(HELD);
    let (folder, elsewhere) = (folder(), folder());
    let hold = target.hold(HOLD);
    let mut running = migrate(&source, &target, &["--spool-dir", path(&folder)]);
    running = until_held(&target, running);
    write(&source);
    running = until_spooled(&source, running);
    running.kill();
    drop(hold);

    let slot = target.value("SELECT slot FROM pgstream.migration");
    let (here, there) = (folder.path().join(&slot), elsewhere.path().join(&slot));
    fs::rename(&here, &there).unwrap();
    let again = |arguments: &[&str]| migrate(&source, &target, arguments).wait();
    let refused = again(&[]).expect_code(1);
    refused.expect_words(&[
        "in a spool that is not here",
        &format!("{}", here.display()),
        "--restart",
        "hint:",
    ]);
    again(&["--spool-dir", path(&folder)]).expect_code(1).expect_words(&["in a spool that is not here"]);
    cutover(&source, &target).run().expect_code(1).expect_words(&["in a spool that is not here"]);

    let segment = files(&there).pop().expect("there is a segment");
    let whole = fs::read(&segment).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    fs::write(&segment, damaged).unwrap();
    again(&["--spool-dir", path(&elsewhere)]).expect_code(1).expect_words(&["segment", "checksum", "hint:"]);
    fs::write(&segment, &whole[..whole.len() / 2]).unwrap();
    again(&["--spool-dir", path(&elsewhere)]).expect_code(1).expect_words(&["the spool", "hint:"]);
    fs::write(&segment, whole).unwrap();

    let running = migrate_until_in_step(&source, &target, &["--spool-dir", path(&elsewhere)]);
    cutover(&source, &target).run().expect_code(0);
    running.wait().expect_code(0);
    assert_equal(&source, &target);
}

#[test]
fn a_change_in_the_spool_that_cannot_be_applied_is_named_and_the_next_run_goes_on_before_it() {
    let pair = Pair::start(17, 17);
    let (source, target) = pair.databases(HELD);
    let folder = folder();
    let hold = target.hold(HOLD);
    let mut running = migrate(&source, &target, &["--spool-dir", path(&folder)]);
    running = until_held(&target, running);
    source.execute("UPDATE t SET v = 'first' WHERE id = 1; UPDATE t SET v = 'second' WHERE id = 2; UPDATE t SET v = 'third' WHERE id = 3");
    running = until_spooled(&source, running);
    target.execute("DELETE FROM t WHERE id = 2");
    drop(hold);
    running.wait().expect_code(1).expect_words(&[
        "update",
        "\"public.t\"",
        "the row is not on the target",
        "hint:",
    ]);
    // What came before stands.
    assert_eq!(
        target.query("SELECT id, v FROM t WHERE id IN (1, 3) ORDER BY id"),
        [["1", "first"], ["3", "old"]]
    );
    target.execute("INSERT INTO t VALUES (2, 'old')");
    let running = migrate_until_in_step(&source, &target, &["--spool-dir", path(&folder)]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    cutover(&source, &target).run().expect_code(0);
    running.wait().expect_code(0);
    assert_equal(&source, &target);
}

#[test]
fn the_spool_of_another_migration_is_refused() {
    let pair = Pair::start(15, 15);
    let folder = folder();
    let (first, target) = pair.databases(HELD);
    let hold = target.hold(HOLD);
    let mut running = migrate(&first, &target, &["--spool-dir", path(&folder)]);
    running = until_held(&target, running);
    write(&first);
    running = until_spooled(&first, running);
    running.kill();
    drop(hold);

    let (second, other) = pair.databases(HELD);
    let hold = other.hold(HOLD);
    let mut running = migrate(&second, &other, &[]);
    running = until_held(&other, running);
    running.kill();
    drop(hold);
    let place = folder.path().join(other.value("SELECT slot FROM pgstream.migration"));
    fs::create_dir(&place).unwrap();
    let segment = files(folder.path()).pop().expect("the first has one");
    fs::copy(&segment, place.join(segment.file_name().unwrap())).unwrap();
    migrate(&second, &other, &["--spool-dir", path(&folder)]).wait().expect_code(2).expect_words(&[
        "holds the spool of another migration",
        first.name(),
        "hint:",
    ]);
    fs::remove_dir_all(&place).unwrap();
    // Begun anew, a migration has no use for what it had received.
    let running = migrate_until_in_step(&first, &target, &["--restart", "--spool-dir", path(&folder)]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    cutover(&first, &target).run().expect_code(0);
    running.wait().expect_code(0);
    assert_equal(&first, &target);
}

#[test]
fn a_folder_that_cannot_be_written_into_is_refused_before_anything_is_touched() {
    let pair = Pair::start(15, 15);
    let (source, target) = pair.databases("CREATE TABLE t (id integer PRIMARY KEY)");
    migrate(&source, &target, &["--spool-dir", "/nonexistent/spool"]).wait().expect_code(2).expect_words(&[
        "could not use \"/nonexistent/spool\" for the spool: no such file or directory",
        "hint:",
    ]);
    assert_eq!(target.value("SELECT to_regnamespace('pgstream') IS NULL"), "t");
}

#[test]
fn a_disk_that_is_full_is_told_and_the_source_keeps_its_log_meanwhile() {
    let pair = Pair::start(14, 16);
    let (source, target) = pair.databases(HELD);
    let folder = folder();
    let hold = target.hold(HOLD);
    let mut running = Pgstream::between("migrate", &source, &target)
        .args(["--method", "replication", "--spool-dir", path(&folder)])
        .limit_file_size(200 << 10)
        .spawn();
    running = until_held(&target, running);
    source.execute("INSERT INTO bare VALUES (1, 'small')");
    running = until_spooled(&source, running);
    let before = lsn(&source, "confirmed_flush_lsn");
    source.execute("INSERT INTO bare SELECT i, repeat('x', 100) FROM generate_series(1, 10000) i");
    write(&source);
    // It is tried again and again.
    std::thread::sleep(Duration::from_secs(7));
    assert_eq!(lsn(&source, "confirmed_flush_lsn"), before, "nothing is confirmed that is not in the spool");
    drop(hold);
    let running = until_in_step(&source, &target, running);
    cutover(&source, &target).run().expect_code(0);
    running.wait().expect_code(0).expect_words(&[
        "could not write",
        "for the spool",
        "keeps its write-ahead log",
    ]);
    assert_equal(&source, &target);
    assert_source_is_clean(&source);
}

#[test]
fn a_source_that_crashes_while_its_changes_are_spooled_loses_and_repeats_nothing() {
    let settings = vec!["logical_decoding_work_mem = '64kB'".to_owned()];
    let source = Cluster::start(17, &Options { settings, ..Options::default() });
    let pair = Pair { source, target: Cluster::start(17, &Options::default()) };
    let (source, target) = pair.databases(HELD);
    let folder = folder();
    let hold = target.hold(HOLD);
    let mut running = migrate(&source, &target, &["--spool-dir", path(&folder)]);
    running = until_held(&target, running);
    for round in 0..3 {
        write(&source);
        if round > 0 {
            running = until_spooled(&source, running);
        }
        source.execute("DELETE FROM t WHERE id > 1000 OR id < 0");
        pair.source.stop("immediate");
        pair.source.start_again();
    }
    write(&source);
    // The copy has ended its reading, so that the run outlives its source.
    running = until_spooled(&source, running);
    drop(hold);
    let running = until_in_step(&source, &target, running);
    cutover(&source, &target).run().expect_code(0);
    running.wait().expect_code(0);
    assert_equal(&source, &target);
}

#[test]
fn whoever_dies_whenever_with_a_spool_the_same_command_again_ends_equal() {
    let seed = variable("PGSTREAM_SEED").unwrap_or(u64::from(std::process::id()));
    let deaths = variable("PGSTREAM_ROUNDS").unwrap_or(6);
    println!("PGSTREAM_SEED={seed} PGSTREAM_ROUNDS={deaths}");
    let pair = Pair::start(15, 17);
    let folder = folder();
    let mut kills = Kills::new();
    let arguments = [&IN_PARTS[..], &["--spool-dir", path(&folder)]].concat();
    die_and_end_equal(&pair, &mut Random::new(seed), deaths, &arguments, &mut kills);
    println!("who died, and in which phase: {kills:?}");
}
