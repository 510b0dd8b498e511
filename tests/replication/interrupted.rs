//! Transactions that are cut in two by a crash, a stop, or the end of the source's patience, and what is not confirmed meanwhile.

use std::time::Duration;

use pgstream::config::{Environment, Side, resolve};
use pgstream::error::ErrorKind;
use pgstream::state;
use pgstream::wire::{Connection, Settings};
use pgstream_proto::lsn::Lsn;

use super::stream::{Stream, config};
use crate::harness::{Cluster, Options, Proxy, server};

const SCHEMA: &str = "CREATE TABLE t (id int, v text)";

fn rows(from: u32, to: u32, v: &str) -> String {
    format!("INSERT INTO t SELECT n, repeat('{v}', 50) FROM generate_series({from}, {to}) n;")
}

/// The position that the source believes the target to stand at.
fn confirmed(stream: &Stream<'_>) -> Lsn {
    let sql = format!(
        "SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{}'",
        stream.options.slot
    );
    stream.source.value(&sql).parse().expect("PostgreSQL writes an LSN")
}

#[test]
fn streamed_transactions_that_interleave_arrive_whole_though_everything_crashes_in_between() {
    let settings =
        vec!["logical_decoding_work_mem = '64kB'".to_owned(), "synchronous_commit = on".to_owned()];
    for major in [14, 18] {
        let cluster = Cluster::start(major, &Options { settings: settings.clone(), ..Options::default() });
        let mut stream = Stream::between(&cluster, server(major), SCHEMA);
        let spilled = tempfile::tempdir().expect("a folder can be made");
        stream.options.memory = 10_000;
        stream.options.spill_directory = spilled.path().to_owned();
        let wait = Duration::from_millis(300);
        {
            let (mut a, mut b) = (stream.source.hold("BEGIN"), stream.source.hold("BEGIN"));
            a.execute(&rows(1, 2000, "a"));
            // Half of it is here when pgstream dies, and comes again.
            stream.run_for(wait, || {});
            b.execute(&rows(1, 2000, "b"));
            a.execute(&format!(
                "SAVEPOINT s; {} ROLLBACK TO s; SAVEPOINT s; {}",
                rows(1, 2000, "x"),
                rows(2001, 3000, "a")
            ));
            stream.source.execute(&rows(1, 5, "short"));
            stream.run_for(wait, || {
                b.execute(&format!("{} COMMIT", rows(2001, 3000, "b")));
            });
            a.execute(&format!("RELEASE s; {}", rows(3001, 3500, "a")));
            a.execute("COMMIT");
        }
        // Prepared transactions outlive the server; one of them was streamed already, and is not to come.
        stream.source.execute(&format!(
            "BEGIN; {} PREPARE TRANSACTION 'kept'; BEGIN; {} PREPARE TRANSACTION 'gone'",
            rows(1, 2000, "p"),
            rows(1, 2000, "q")
        ));
        stream.run_for(wait, || {
            cluster.stop("immediate");
            cluster.start_again();
        });
        stream.catch_up();
        assert_eq!(
            stream.target.value("SELECT count(*) FROM t WHERE v ~ '^[pq]'"),
            "0",
            "PostgreSQL {major}"
        );
        stream.source.execute("COMMIT PREPARED 'kept'; ROLLBACK PREPARED 'gone'");
        stream.run_for(wait, || {});
        stream.catch_up();
        let counts = stream
            .expect_same("SELECT left(v, 1), count(*), count(DISTINCT id) FROM t GROUP BY 1 ORDER BY 1");
        assert_eq!(
            counts,
            [["a", "3500", "3500"], ["b", "3000", "3000"], ["p", "2000", "2000"], ["s", "5", "5"]]
        );
        assert_eq!(spilled.path().read_dir().expect("the folder is there").count(), 0);
    }
}

#[test]
fn nothing_is_confirmed_that_waits_for_the_target() {
    let stream = Stream::between(server(15), server(15), SCHEMA);
    stream.source.execute(&rows(1, 10, "a"));
    stream.catch_up();
    let before = confirmed(&stream);
    let lock = stream.target.hold("BEGIN; LOCK TABLE t");
    stream.source.execute(&rows(11, 20, "a"));
    // Log of another database, which keepalives tell of.
    let end = stream.source.value("SELECT pg_current_wal_lsn()");
    server(15).postgres().execute("SELECT pg_logical_emit_message(false, 'other', repeat('x', 100000))");
    stream.run_for(Duration::from_millis(700), || {});
    assert!(confirmed(&stream) >= before);
    assert!(confirmed(&stream) < end.parse().expect("PostgreSQL writes an LSN"));
    drop(lock);
    stream.catch_up();
    assert_eq!(stream.expect_same("SELECT count(*) FROM t"), [["20"]]);
}

#[test]
fn a_quiet_database_lets_the_source_go_of_the_log_of_others() {
    let mut stream = Stream::between(server(15), server(15), SCHEMA);
    stream.options.idle_advance = Duration::from_millis(100);
    let mut end = String::new();
    stream.run_for(Duration::from_millis(200), || {
        server(15).postgres().execute("SELECT pg_logical_emit_message(true, 'other', repeat('x', 1000000))");
        end = stream.source.value("SELECT pg_current_wal_flush_lsn()");
        let end = end.parse::<Lsn>().expect("PostgreSQL writes an LSN");
        let begun = std::time::Instant::now();
        while confirmed(&stream) < end {
            assert!(begun.elapsed() < Duration::from_secs(30), "the slot keeps the log");
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    // What is confirmed is in the checkpoint already.
    assert_eq!(stream.target.value(&format!("SELECT applied >= '{end}' FROM pgstream.checkpoint")), "t");
}

#[test]
fn a_slot_that_decodes_prepared_transactions_is_refused_and_so_is_one_in_use() {
    let mut stream = Stream::between(server(16), server(16), SCHEMA);
    stream.options.patience = Duration::from_millis(10);
    stream.while_slot_is_in_use(|| {
        let error = stream.try_catch_up().unwrap_err();
        assert_eq!(error.sqlstate().unwrap().as_str(), "55006", "{error}");
        assert!(error.to_string().contains("is active for PID"), "{error}");
    });
    let slot = &stream.options.slot;
    stream.source.execute(&format!(
        "SELECT pg_drop_replication_slot('{slot}') FROM (SELECT pg_sleep(0.3)) s; \
         SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput', false, true)"
    ));
    let begin = confirmed(&stream);
    stream.target.execute(&format!("UPDATE pgstream.checkpoint SET applied = '{begin}'"));
    let gid = format!("of {slot}");
    stream.source.execute(&format!("BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION '{gid}'"));
    let error = stream.try_catch_up().unwrap_err();
    stream.source.execute(&format!("ROLLBACK PREPARED '{gid}'"));
    assert_eq!(error.kind(), ErrorKind::Failed);
    assert!(error.to_string().contains("decodes prepared transactions"), "{error}");
    assert!(error.hint().unwrap().contains("TWO_PHASE"), "{error:?}");
}

#[test]
fn a_slot_that_nobody_used_for_too_long_is_refused() {
    let settings = vec!["idle_replication_slot_timeout = '1s'".to_owned()];
    let cluster = Cluster::start(18, &Options { settings, ..Options::default() });
    let stream = Stream::between(&cluster, server(18), SCHEMA);
    std::thread::sleep(Duration::from_millis(1500));
    stream.source.execute("INSERT INTO t VALUES (1)");
    stream.source.execute("CHECKPOINT");
    let error = stream.try_catch_up().unwrap_err();
    assert!(error.to_string().ends_with("is of no more use: it was invalidated: idle_timeout"), "{error}");
    assert!(error.hint().unwrap().contains("pgstream cleanup"), "{error:?}");
}

#[test]
fn changes_that_came_to_the_source_by_replication_are_followed_too() {
    for major in [10, 16] {
        let stream =
            Stream::between(server(major), server(18), "CREATE TABLE t (id int PRIMARY KEY, v text)");
        let origin = stream.source.name();
        stream.source.execute(&format!(
            "SELECT pg_replication_origin_create('{origin}'); SELECT pg_replication_origin_session_setup('{origin}'); \
             BEGIN; SELECT pg_replication_origin_xact_setup('A/1', now()); INSERT INTO t VALUES (1, 'elsewhere'); COMMIT; \
             BEGIN; SELECT pg_replication_origin_xact_setup('A/2', now()); UPDATE t SET v = 'twice'; COMMIT; \
             SELECT pg_replication_origin_session_reset(); SELECT pg_replication_origin_drop('{origin}'); INSERT INTO t VALUES (2, 'here')"
        ));
        stream.catch_up();
        assert_eq!(stream.expect_same("SELECT * FROM t ORDER BY id").len(), 2);
    }
}

#[test]
fn settings_that_the_source_reports_in_the_middle_of_a_stream_do_no_harm() {
    let cluster = Cluster::start(17, &Options::default());
    let stream = Stream::between(&cluster, server(17), SCHEMA);
    stream.run_for(Duration::from_millis(300), || {
        stream.source.execute("ALTER SYSTEM SET scram_iterations = 5000");
        stream.source.execute("SELECT pg_reload_conf()");
        stream.source.execute(&rows(1, 10, "a"));
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(stream.expect_same("SELECT count(*) FROM t"), [["10"]]);
    });
    assert_eq!(stream.progress.snapshot().reconnects, 0);
}

#[test]
fn a_lost_session_is_ended_with_what_it_has_not_committed_and_no_other_is() {
    let database = server(15).create_database("target");
    database.execute("CREATE TABLE t (v int)");
    let config = config(&database, Side::Target);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let work = async {
        let settings = Settings::session();
        let open = || Connection::connect(&config, Side::Target, &settings);
        let (mut lost, mut next, mut worker, mut stranger) =
            (open().await?, open().await?, open().await?, open().await?);
        for session in [&mut lost, &mut next, &mut worker] {
            state::join_run(session).await?;
        }
        lost.execute("BEGIN; INSERT INTO public.t VALUES (1)").await?;
        for pid in [lost.pid(), stranger.pid()] {
            state::end_lost_session(&mut next, pid).await?;
        }
        assert!(lost.execute("COMMIT").await.is_err());
        worker.execute("SELECT 1").await?;
        stranger.execute("SELECT 1").await
    };
    runtime.block_on(work).expect("the sessions that are left work");
    assert_eq!(database.value("SELECT count(*) FROM t"), "0");
}

#[test]
fn a_source_that_falls_silent_is_given_up_in_time_and_asked_again() {
    let settings = vec!["wal_sender_timeout = '3s'".to_owned()];
    let source = Cluster::start(16, &Options { settings, ..Options::default() });
    let mut stream = Stream::between(&source, server(17), SCHEMA);
    let proxy = Proxy::before(&source);
    let uri = proxy.uri(&stream.source);
    stream.options.source = resolve(&uri, Side::Source, &Environment::empty()).expect("it is a URI");
    stream.options.silence = Duration::from_secs(1);
    let progress = stream.progress.clone();
    stream.run_for(Duration::from_millis(700), || {
        proxy.mute(0);
        stream.source.execute(&rows(1, 10, "a"));
        let begun = std::time::Instant::now();
        while stream.target.value("SELECT count(*) FROM t") != "10" {
            assert!(begun.elapsed() < Duration::from_secs(20), "it waits for a peer that is gone");
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    assert!(progress.snapshot().reconnects > 0);
}
