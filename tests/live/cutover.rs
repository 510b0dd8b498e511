//! Cutovers that fail, are stopped or are killed: the source is usable again, or the next cutover does what is left.

use super::{
    Pair, assert_equal, assert_source_is_clean, cutover, migrate, migrate_until_in_step, wait_until,
};
use crate::harness::{Database, Pgstream, Random, client, server, variable};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

const SCHEMA: &str = "CREATE TABLE p (id integer PRIMARY KEY, v text);
    CREATE TABLE c (id serial PRIMARY KEY, p integer REFERENCES p);
    INSERT INTO p SELECT i, 'v' FROM generate_series(1, 500) i; INSERT INTO c (p) SELECT id FROM p;
    CREATE SEQUENCE loose INCREMENT -2; SELECT lo_from_bytea(77, 'abc');
    CREATE MATERIALIZED VIEW m AS SELECT count(*) FROM p;";

fn pair() -> (Database<'static>, Database<'static>) {
    let (source, target) = (server(15).create_database("live"), server(18).create_database("live"));
    source.execute(SCHEMA);
    (source, target)
}

/// Asked from another database: a cutover ends the sessions of this one.
fn read_only(source: &Database<'_>) -> bool {
    let sql = format!(
        "SELECT EXISTS (SELECT FROM pg_db_role_setting s JOIN pg_database d ON d.oid = s.setdatabase \
         WHERE d.datname = '{}' AND s.setrole = 0 AND 'default_transaction_read_only=on' = ANY (s.setconfig))",
        source.name()
    );
    source.cluster().postgres().value(&sql) == "t"
}

#[test]
fn a_cutover_that_is_killed_at_any_moment_is_run_again_until_it_is_done() {
    let seed = variable("PGSTREAM_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    println!("PGSTREAM_SEED={seed}");
    let mut random = Random::new(seed);
    let (source, target) = pair();
    let mut running = migrate_until_in_step(&source, &target, &[]);
    source.execute("UPDATE p SET v = 'w'; SELECT nextval('loose'), nextval('loose'), lo_put(77, 1, 'xyz')");
    let mut kills = 0;
    let finished = loop {
        let mut cut = cutover(&source, &target)
            .args(["--make-source-read-only", "--refresh-materialized-views"])
            .spawn();
        // The first ones fall into its first steps; sooner or later one gets through.
        std::thread::sleep(Duration::from_millis(20 + random.below(60 + kills * 100)));
        if cut.ended() {
            let finished = cut.wait();
            if finished.code == Some(0) {
                break finished;
            }
            // What the last one was in may not have ended yet.
            assert!(finished.stderr.contains("another pgstream"), "after {kills} kills: {finished:?}");
            continue;
        }
        cut.kill();
        kills += 1;
        assert!(kills < 60, "no cutover gets through");
        if random.below(3) == 0 && running.ended() {
            // The operator may also take up following again, as long as that is possible.
            running = migrate(&source, &target, &[]);
        }
    };
    println!("{kills} kills");
    finished.expect_words(&["done"]);
    running.kill();
    assert!(read_only(&source));
    assert_equal(&source, &target);
    assert_source_is_clean(&source);
    migrate(&source, &target, &[]).wait().expect_code(0).expect_words(&["done already"]);
}

#[test]
fn a_cutover_that_fails_gives_the_source_back_and_the_migration_goes_on() {
    let (source, target) = pair();
    migrate_until_in_step(&source, &target, &[]).signal("INT");
    // The lag is that of the whole server, which other tests write to.
    let cut = || cutover(&source, &target).args(["--make-source-read-only", "--max-lag", "1TB"]);

    // Prepared transactions could be committed after the end.
    source.execute("BEGIN; INSERT INTO p VALUES (1000, 'prepared'); PREPARE TRANSACTION 'pending'");
    cut().run().expect_code(2).expect_words(&[
        "prepared transactions",
        "'pending'",
        "COMMIT PREPARED",
        "writable",
    ]);
    assert!(!read_only(&source));
    source.execute("COMMIT PREPARED 'pending'");

    // A change that the target refuses.
    target.execute("ALTER TABLE p ADD CONSTRAINT narrow CHECK (id < 2000)");
    source.execute("INSERT INTO p VALUES (2000, 'refused')");
    cut().run().expect_code(1).expect_words(&["could not insert into table \"public.p\"", "writable again"]);
    assert!(!read_only(&source));
    target.execute("ALTER TABLE p DROP CONSTRAINT narrow");

    // Stopped by the operator while it waits.
    source.execute("INSERT INTO p VALUES (2500, 'waits')");
    let lock = target.hold("BEGIN; LOCK TABLE p");
    let stopped = cut().spawn();
    wait_until(|| read_only(&source));
    // A second one has nothing to do here, and above all nothing to give back.
    cut().run().expect_code(2).expect_words(&["another pgstream cuts over target database"]);
    assert!(read_only(&source));
    stopped.signal("INT");
    drop(lock);
    stopped.wait().expect_code(4).expect_words(&["same command", "writable again"]);
    assert!(!read_only(&source));

    // `migrate` follows again, and is not taken for one whose cutover is under way.
    let mut running = migrate(&source, &target, &[]);
    source.execute("INSERT INTO p VALUES (3000, 'later'); SELECT nextval('loose')");
    wait_until(|| target.value("SELECT count(*) FROM p WHERE id = 3000") == "1");
    assert!(!running.ended());
    cut().run().expect_code(0);
    running.wait().expect_code(0);
    assert_equal(&source, &target);
    assert_source_is_clean(&source);
}

#[test]
fn a_cutover_lets_a_migrate_that_begins_beside_it_go_first() {
    let (source, target) = pair();
    migrate_until_in_step(&source, &target, &[]).signal("INT");
    source.execute("INSERT INTO p VALUES (1000, 'late')");
    // Between the cutover's look for a run and its own turn, one begins.
    let mut table = target.hold("BEGIN; LOCK TABLE pgstream.relation IN ACCESS EXCLUSIVE MODE");
    let cut = cutover(&source, &target).args(["--max-lag", "0"]).spawn();
    let waits = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() \
                 AND application_name LIKE 'pgstream%' AND wait_event_type = 'Lock'";
    wait_until(|| target.value(waits) == "1");
    let run = target.hold(&format!("SELECT pg_advisory_lock({})", crc32fast::hash(b"pgstream migration")));
    table.execute("COMMIT");
    // Longer than a session that was left over is waited for.
    std::thread::sleep(Duration::from_secs(2));
    drop(run);
    cut.wait().expect_code(0);
    assert_equal(&source, &target);
    assert_source_is_clean(&source);
}

#[test]
fn what_is_committed_while_the_source_is_made_read_only_arrives() {
    let (source, target) = pair();
    let running = migrate_until_in_step(&source, &target, &[]);
    let next = AtomicU64::new(10_000);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                // Until the database is read-only; sessions that are ended are followed by new ones.
                loop {
                    let from = next.fetch_add(200, Ordering::Relaxed);
                    let sql: String = (from..from + 200)
                        .map(|id| {
                            format!("INSERT INTO p VALUES ({id}, 'late'); INSERT INTO c (p) VALUES ({id});\n")
                        })
                        .collect();
                    match source.try_execute(&sql) {
                        Err(said) if said.contains("read-only") => break,
                        _ => {}
                    }
                }
            });
        }
        std::thread::sleep(Duration::from_millis(300));
        cutover(&source, &target).args(["--make-source-read-only"]).run().expect_code(0);
    });
    running.wait().expect_code(0);
    assert_equal(&source, &target);
}

#[test]
fn statistics_are_collected_before_the_source_stops_and_only_where_rows_have_changed() {
    let (source, target) = pair();
    let running = migrate_until_in_step(&source, &target, &[]);
    source.execute("UPDATE p SET v = 'changed'");
    wait_until(|| target.value("SELECT count(*) FROM p WHERE v = 'changed'") == "500");
    let changed = "SELECT n_mod_since_analyze >= 500 FROM pg_stat_user_tables WHERE relname = 'p'";
    wait_until(|| target.value(changed) == "t");
    cutover(&source, &target).args(["--make-source-read-only"]).run().expect_code(0);
    running.wait().expect_code(0);
    let counts =
        "SELECT relname, analyze_count FROM pg_stat_user_tables WHERE relname IN ('p', 'c') ORDER BY 1";
    assert_eq!(target.query(counts), [["c", "1"], ["p", "2"]]);
    let before = "SELECT last_analyze < (SELECT updated_at FROM pgstream.migration) FROM pg_stat_user_tables WHERE relname = 'p'";
    assert_eq!(target.value(before), "t");
}

#[test]
fn a_source_that_a_subscription_writes_to_is_not_cut_over() {
    let (source, target) = pair();
    // The worker finds nobody there, and tries again and again.
    source.execute("CREATE SUBSCRIPTION \"in\" CONNECTION 'host=127.0.0.1 port=1' PUBLICATION p WITH (connect = false, slot_name = 'other')");
    source.execute("ALTER SUBSCRIPTION \"in\" ENABLE");
    let running = migrate_until_in_step(&source, &target, &["--no-subscriptions"]);
    let check = Pgstream::between("check", &source, &target).args(["--method", "replication"]).run();
    check.expect_words(&["subscription \"in\"", "DISABLE"]);
    let cut = || cutover(&source, &target).args(["--make-source-read-only"]);
    cut().run().expect_code(2).expect_words(&["\"in\"", "ALTER SUBSCRIPTION \"in\" DISABLE;"]);
    assert!(!read_only(&source));
    source.execute("ALTER SUBSCRIPTION \"in\" DISABLE; INSERT INTO p VALUES (1000, 'late')");
    cut().run().expect_code(0);
    running.wait().expect_code(0);
    assert_eq!(target.value("SELECT count(*) FROM p"), "501");
}

#[test]
fn a_source_that_is_still_written_to_is_not_cut_over() {
    let servers = Pair::start(15, 18);
    let (source, target) = servers.databases(SCHEMA);
    // One doesn't know that it should stop, the other takes no notice.
    source.execute(
        "CREATE ROLE stubborn LOGIN SUPERUSER; ALTER ROLE stubborn SET default_transaction_read_only = off",
    );
    for (user, option, words) in [
        ("postgres", None, "--make-source-read-only"),
        ("stubborn", Some("--make-source-read-only"), "READ WRITE"),
    ] {
        let running = migrate_until_in_step(&source, &target, &[]);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    // Its session may be ended; it comes back.
                    let mut psql = client("psql");
                    psql.args(["-XAtq", "-d", &source.cluster().uri_as(user, None, source.name())]);
                    psql.args(["-c", "INSERT INTO p SELECT max(id) + 1, 'late' FROM p"]);
                    psql.output().expect("psql runs");
                }
            });
            let cut = cutover(&source, &target).args(option).run();
            stop.store(true, Ordering::Relaxed);
            cut.expect_code(1).expect_words(&["the source is still written to", words]);
        });
        assert!(!read_only(&source));
        running.wait();
    }
    cutover(&source, &target).args(["--make-source-read-only"]).run().expect_code(0);
    assert_equal(&source, &target);
}
