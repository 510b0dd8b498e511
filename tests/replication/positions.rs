//! Where a stream starts, what it reports, and when it refuses to go on.

use std::time::Duration;

use pgstream::config::{Environment, Side, resolve};
use pgstream::error::ErrorKind;
use pgstream::replication::{SlotRequest, create_slot};

use super::stream::{Stream, config};
use crate::harness::{Cluster, Database, Options, server};

#[test]
fn a_stream_that_is_taken_up_again_and_again_repeats_nothing() {
    let stream = Stream::between(server(15), server(15), "CREATE TABLE t (id int)");
    for n in 0..6 {
        stream.source.execute(&format!("INSERT INTO t VALUES ({n})"));
        stream.source.execute(&format!("INSERT INTO t VALUES ({n})"));
        stream.catch_up();
    }
    assert_eq!(stream.expect_same("SELECT * FROM t ORDER BY id").len(), 12);
}

#[test]
fn a_source_that_crashes_sends_nothing_twice() {
    let cluster = Cluster::start(15, &Options::default());
    let stream = Stream::between(&cluster, server(15), "CREATE TABLE t (id int)");
    stream.source.execute("SET synchronous_commit = on; INSERT INTO t VALUES (1), (2)");
    stream.catch_up();
    cluster.stop("immediate");
    cluster.start_again();
    stream.source.execute("SET synchronous_commit = on; INSERT INTO t VALUES (3)");
    stream.catch_up();
    assert_eq!(stream.expect_same("SELECT * FROM t ORDER BY id"), [["1"], ["2"], ["3"]]);
}

#[test]
fn a_target_that_crashes_loses_nothing() {
    let cluster =
        Cluster::start(15, &Options { settings: vec!["fsync = on".to_owned()], ..Options::default() });
    let stream = Stream::between(server(15), &cluster, "CREATE TABLE t (id int)");
    for n in 0..5 {
        stream.source.execute(&format!("INSERT INTO t SELECT {n} FROM generate_series(1, 100)"));
        stream.catch_up();
        cluster.stop("immediate");
        cluster.start_again();
    }
    assert_eq!(stream.expect_same("SELECT count(*) FROM t"), [["500"]]);
}

#[test]
fn a_slot_that_is_ahead_of_the_checkpoint_is_refused() {
    let stream = Stream::between(server(15), server(15), "CREATE TABLE t (id int)");
    stream.source.execute("INSERT INTO t VALUES (1)");
    stream.catch_up();
    stream.target.execute(&format!("UPDATE pgstream.checkpoint SET applied = '{}'", stream.consistent_point));
    let error = stream.try_catch_up().unwrap_err();
    assert!(error.to_string().contains("past the target's checkpoint"), "{error}");
}

#[test]
fn a_slot_that_is_missing_or_another_source_is_refused() {
    let stream = Stream::between(server(15), server(15), "CREATE TABLE t (id int)");
    let identifier = stream.target.value("SELECT system_identifier FROM pgstream.checkpoint");
    stream.target.execute("UPDATE pgstream.checkpoint SET system_identifier = '1'");
    let error = stream.try_catch_up().unwrap_err();
    assert_eq!(error.to_string(), "the source is not the server that the copy was made from");
    stream.target.execute(&format!("UPDATE pgstream.checkpoint SET system_identifier = '{identifier}'"));
    stream.source.execute(&format!("SELECT pg_drop_replication_slot('{}')", stream.options.slot));
    let error = stream.try_catch_up().unwrap_err();
    assert!(error.to_string().ends_with("is not on the source"), "{error}");
    let slots =
        format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{}'", stream.options.slot);
    assert_eq!(stream.source.value(&slots), "0");
}

#[test]
fn a_slot_whose_log_was_removed_is_refused() {
    for major in [15, 18] {
        let settings = ["max_slot_wal_keep_size = '1MB'", "min_wal_size = '32MB'", "max_wal_size = '32MB'"];
        let settings = settings.map(str::to_owned).to_vec();
        let cluster = Cluster::start(major, &Options { settings, ..Options::default() });
        let stream = Stream::between(&cluster, server(15), "CREATE TABLE t (id int)");
        stream.source.execute("INSERT INTO t VALUES (1)");
        for _ in 0..4 {
            stream.source.execute("SELECT pg_switch_wal()");
            stream.source.execute("INSERT INTO t VALUES (1)");
            stream.source.execute("CHECKPOINT");
        }
        let error = stream.try_catch_up().unwrap_err();
        assert!(error.to_string().contains("is of no more use"), "PostgreSQL {major}: {error}");
        assert_eq!(error.kind(), ErrorKind::Failed);
    }
}

#[test]
fn the_source_hears_from_us_while_the_target_is_busy() {
    let mut stream = Stream::between(server(15), server(15), "CREATE TABLE t (id int PRIMARY KEY)");
    stream.options.source.options = Some("-c wal_sender_timeout=800ms".to_owned());
    stream.target.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(3); RETURN NEW; END $$; \
         CREATE TRIGGER slow BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION slow(); ALTER TABLE t ENABLE ALWAYS TRIGGER slow",
    );
    stream.source.execute("INSERT INTO t VALUES (1)");
    stream.catch_up();
    stream.expect_same("SELECT * FROM t");
    assert_eq!(stream.progress.snapshot().reconnects, 0);
}

#[test]
fn sessions_that_are_ended_are_opened_again() {
    let stream = Stream::between(server(15), server(15), "CREATE TABLE t (id int)");
    let names = [stream.source.name().to_owned(), stream.target.name().to_owned()];
    stream.source.execute("INSERT INTO t SELECT generate_series(1, 50000)");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..20 {
                for name in &names {
                    let _ = server(15).postgres().try_execute(&format!(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}' AND application_name = 'pgstream' \
                           AND query <> 'x' AND random() < 0.5"
                    ));
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        stream.source.execute("INSERT INTO t SELECT generate_series(1, 50000)");
        while let Err(error) = stream.try_catch_up() {
            assert_eq!(error.kind(), ErrorKind::Connection, "{error}");
        }
    });
    stream.catch_up();
    assert_eq!(stream.expect_same("SELECT count(*) FROM t"), [["100000"]]);
}

#[test]
fn a_slot_that_waits_for_a_transaction_names_it_gives_up_and_is_not_left_behind() {
    let source = server(15).create_database("source");
    source.execute("CREATE TABLE t (id int)");
    let gid = format!("blocker of {}", source.name());
    source.execute(&format!("BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION '{gid}'"));
    let from = config(&source, Side::Source);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let name = format!("pgstream_{}", source.name());
    let request = SlotRequest { name: &name, temporary: false, timeout: Duration::from_millis(2500) };
    let mut told = Vec::new();
    let error = runtime
        .block_on(create_slot(&from, &request, |blockers| told.extend_from_slice(blockers)))
        .unwrap_err();
    source.execute(&format!("ROLLBACK PREPARED '{gid}'"));
    assert!(error.detail().unwrap().contains(&gid), "{error:?}");
    assert!(told.iter().any(|blocker| blocker.description.contains(&gid)));
    assert_eq!(
        source.value(&format!("SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{name}'")),
        "0"
    );
}

#[test]
fn a_publication_that_is_gone_is_an_error_and_never_a_gap() {
    for major in [15, 18] {
        let stream = Stream::between(server(major), server(major), "CREATE TABLE t (id int)");
        // The one word that 18 has to say of it must not be lost to a setting.
        let database = stream.source.quoted_name();
        stream.source.execute(&format!("ALTER DATABASE {database} SET client_min_messages = error"));
        stream.source.execute("INSERT INTO t VALUES (1)");
        let publication = format!("\"{}\"", stream.options.publication);
        stream.source.execute(&format!("DROP PUBLICATION {publication}"));
        let error = stream.try_catch_up().unwrap_err();
        assert!(error.to_string().ends_with("is not on the source"), "{error}");
        stream.source.execute("INSERT INTO t VALUES (2)");
        stream.source.execute(&format!("CREATE PUBLICATION {publication} FOR ALL TABLES"));
        // It is there now, but it was not when the second row was written.
        let error = stream.try_catch_up().unwrap_err();
        assert!(error.to_string().contains("publication"), "PostgreSQL {major}: {error}");
        assert_eq!(stream.target.value("SELECT count(*) FROM t WHERE id = 2"), "0");
    }
}

#[test]
fn what_stands_in_the_way_is_read_from_every_major() {
    use pgstream::catalog::replication::read_replication_source;
    use pgstream::replication::{MissingIdentity, obstacles};
    use pgstream::wire::{Connection, Settings};

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for major in crate::harness::MAJORS {
        let source = server(major).create_database("source");
        source.execute("CREATE TABLE bare (id int); CREATE UNLOGGED TABLE fleeting (id int); CREATE TABLE good (id int PRIMARY KEY); SELECT lo_create(0)");
        let from = config(&source, Side::Source);
        let found = runtime.block_on(async {
            let mut session = Connection::connect(&from, Side::Source, &Settings::session()).await.unwrap();
            obstacles(&read_replication_source(&mut session).await.unwrap(), MissingIdentity::Error)
        });
        let of = |object: &str| found.iter().find(|o| o.object == object);
        assert!(of("source table \"public.bare\"").unwrap().blocks, "{found:?}");
        assert!(!of("source table \"public.fleeting\"").unwrap().blocks);
        assert!(of("source table \"public.good\"").is_none());
        assert!(of("large objects").is_some());
    }
}

#[test]
fn a_stream_goes_over_tls_and_over_a_socket_of_the_host_as_over_tcp() {
    let cluster = Cluster::start(17, &Options { tls: true, ..Options::default() });
    let mut stream =
        Stream::between(&cluster, &cluster, "CREATE TABLE t (id int PRIMARY KEY, n int, v text)");
    let uris = |database: &Database<'_>| {
        [format!("{}?sslmode=require", database.uri()), cluster.socket_uri(database.name())]
    };
    let (sources, targets) = (uris(&stream.source), uris(&stream.target));
    for (way, (source, target)) in sources.iter().zip(&targets).enumerate() {
        let resolved = |uri: &str, side| resolve(uri, side, &Environment::empty()).expect("it is a URI");
        stream.options.source = resolved(source, Side::Source);
        stream.options.target = resolved(target, Side::Target);
        stream.run_for(Duration::from_millis(100), || {
            // Few at a time, so that nobody waits for an answer; many, so that the socket takes no more; a row larger than that.
            stream.source.execute(&format!(
                "DO $$ BEGIN FOR i IN 1..100 LOOP INSERT INTO t VALUES ({way}000000 + i, 0, 'few'); COMMIT; \
                 UPDATE t SET n = n + 1 WHERE id = {way}000000 + i; COMMIT; PERFORM pg_sleep(0.002); END LOOP; END $$; \
                 INSERT INTO t SELECT {way}001000 + i, i, md5(i::text) FROM generate_series(1, 20000) i; \
                 UPDATE t SET n = n + 1; \
                 INSERT INTO t VALUES ({way}999999, 0, repeat('large', 1000000))"
            ));
        });
        stream.catch_up();
        stream.expect_same("SELECT count(*), sum(n), sum(hashtext(t::text)::bigint) FROM t");
    }
}
