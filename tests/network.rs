//! Networks that cut, reset, fall silent, or hand over one byte at a time: nothing is lost, nothing comes twice, nothing hangs.

use crate::harness::compare::assert_equal;
use crate::harness::{Cluster, Database, Options, Pgstream, Proxy, Trouble, server};
use pgstream::config::{Environment, Side, resolve};
use pgstream::wire::{Connection, Settings};
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

#[test]
fn a_commit_whose_answer_is_lost_is_neither_lost_nor_done_twice() {
    let source = server(14).create_database("answer");
    source.execute(SCHEMA);
    let (first, second) = (Proxy::before(source.cluster()), Proxy::before(server(14)));
    let target = server(14).create_database("answer");
    let mut met = 0;
    // Each run gets further than the one before: what is committed is done, whoever heard of it.
    for _ in 0..30 {
        second.set(Trouble::LoseAnswerTo("COMMIT\0"));
        let cut = migrate((&first, &source), (&second, &target), "copy").run();
        assert!(matches!(cut.code, Some(0 | 1)), "{cut:?}");
        if cut.code == Some(0) {
            break;
        }
        met += 1;
    }
    assert!(met > 5, "{met} commits were met");
    second.set(Trouble::None);
    migrate((&first, &source), (&second, &target), "copy").run().expect_code(0);
    assert_equal(&source, &target);
}

#[test]
fn a_commit_of_the_stream_whose_answer_is_lost_is_neither_lost_nor_done_twice() {
    let (source, target) = (Cluster::start(15, &Options::default()), Cluster::start(15, &Options::default()));
    let (source, target) = (source.create_database("answer"), target.create_database("answer"));
    source.execute(SCHEMA);
    let (first, second) = (Proxy::before(source.cluster()), Proxy::before(target.cluster()));
    let mut running = migrate((&first, &source), (&second, &target), "replication").spawn();
    let begun = Instant::now();
    while target.try_execute("SELECT phase FROM pgstream.migration").unwrap_or_default().trim() != "syncing" {
        assert!(!running.ended() && begun.elapsed() < Duration::from_secs(60), "{:?}", running.wait());
        std::thread::sleep(Duration::from_millis(50));
    }
    for round in 0..20 {
        // As the prepared statement is named.
        second.set(Trouble::LoseAnswerTo("commit\0"));
        source.execute(&format!(
            "BEGIN; INSERT INTO no_key VALUES ({round}, 'once'); UPDATE plain SET v = v || {round} WHERE id = {round}; COMMIT"
        ));
        let asked = Instant::now();
        let there = format!("SELECT count(*) FROM no_key WHERE a = {round} AND b = 'once'");
        while target.value(&there) == "0" {
            assert!(!running.ended() && asked.elapsed() < Duration::from_secs(20), "round {round}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    second.set(Trouble::None);
    Pgstream::between("cutover", &source, &target).run().expect_code(0);
    running.wait().expect_code(0);
    assert_equal(&source, &target);
}

#[test]
fn a_peer_that_takes_a_connection_and_says_nothing_is_noticed_in_time() {
    let (source, target) = (server(14).create_database("mute"), server(14).create_database("mute"));
    source.execute("CREATE TABLE t (a integer)");
    let proxies = [Proxy::before(source.cluster()), Proxy::before(target.cluster())];
    for side in 0..2 {
        proxies[side].mute(u64::from(u32::MAX));
        proxies[1 - side].mute(0);
        let uris =
            [proxies[0].uri(&source), proxies[1].uri(&target)].map(|uri| format!("{uri}?connect_timeout=2"));
        let begun = Instant::now();
        let said = Pgstream::new("check").args(["--source", &uris[0], "--target", &uris[1]]).run();
        assert!(matches!(said.code, Some(1 | 2)), "{said:?}");
        said.expect_words(&["timeout expired after 2 s", ["source", "target"][side], "hint:"]);
        assert!(begun.elapsed() < Duration::from_secs(20), "it took {:?}", begun.elapsed());
        proxies[side].mute(0);
    }
}

#[test]
fn each_server_is_asked_to_notice_that_the_host_is_gone() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    for (major, side, more, wanted) in [
        (11, Side::Target, "", ["10", "5", "4", ""]),
        (12, Side::Target, "", ["10", "5", "4", "30000"]),
        (18, Side::Target, "", ["10", "5", "4", "30000"]),
        (18, Side::Source, "", ["10", "5", "4", "0"]),
        (18, Side::Source, "?keepalives_idle=7&tcp_user_timeout=9000", ["7", "5", "4", "9000"]),
    ] {
        let uri = format!("{}{more}", server(major).postgres().uri());
        let config = resolve(&uri, side, &Environment::empty()).expect("it is valid");
        for settings in [Settings::session(), Settings::replication()] {
            let shown: Vec<String> = runtime.block_on(async {
                let mut session = Connection::connect(&config, side, &settings).await.expect("it connects");
                let mut shown = Vec::new();
                for setting in ["keepalives_idle", "keepalives_interval", "keepalives_count", "user_timeout"]
                {
                    // What is in force on the socket, in the unit of the setting.
                    let rows = session.simple(&format!("SHOW tcp_{setting}")).await.unwrap_or_default();
                    shown.push(rows.first().and_then(|row| row.text(0)).unwrap_or_default().to_owned());
                }
                shown
            });
            let shown: Vec<&str> = shown.iter().map(|text| text.trim_end_matches(['s', 'm'])).collect();
            assert_eq!(shown, wanted, "{major}, {side}");
        }
    }
}

#[test]
fn a_stream_goes_on_after_few_waits_for_either_server() {
    let (source, target) = (server(15).create_database("waits"), server(17).create_database("waits"));
    source.execute("CREATE TABLE t (id integer PRIMARY KEY); INSERT INTO t VALUES (1)");
    let (before_source, before_target) = (Proxy::before(source.cluster()), Proxy::before(target.cluster()));
    let follow_to = |rows: u32| {
        let running = migrate((&before_source, &source), (&before_target, &target), "replication").spawn();
        let begun = Instant::now();
        let there =
            format!("SELECT phase = 'syncing' AND (SELECT count(*) FROM t) = {rows} FROM pgstream.migration");
        while target.try_execute(&there).unwrap_or_default().trim() != "t" {
            assert!(begun.elapsed() < Duration::from_secs(60), "the rows don't come");
            std::thread::sleep(Duration::from_millis(30));
        }
        running.signal("TERM");
        running.wait().expect_code(4);
    };
    follow_to(1);
    // Far away, each of these is a round trip: all that a run asks, by six sessions of the target, four of them side by side, and two of the source. One of
    // them looks at the state four times a second, and does so more often where the host is slow.
    let waits = (2..=4).map(|rows| {
        source.execute(&format!("INSERT INTO t VALUES ({rows})"));
        before_source.count_turns_until("START_REPLICATION");
        before_target.count_turns_until("UPDATE pgstream.checkpoint SET applied");
        follow_to(rows);
        (before_source.turns().expect("it follows"), before_target.turns().expect("it applies"))
    });
    let (at_source, at_target): (Vec<u64>, Vec<u64>) = waits.unzip();
    assert!(at_source.iter().any(|turns| *turns <= 10), "{at_source:?} at the source");
    assert!(at_target.iter().any(|turns| *turns <= 34), "{at_target:?} at the target");
}
