//! The source fails over to a standby, or is restored: followed on where nothing is missing, refused where something is.

use std::time::{Duration, Instant};

use pgstream::config::{self, Environment, Side};
use pgstream::error::ErrorKind;

use super::stream::{Stream, config};
use crate::harness::{Cluster, Database, Options, server};

const SCHEMA: &str = "CREATE TABLE t (id int)";

/// Waits until the standby has replayed all that the primary has written.
#[track_caller]
fn wait_for(standby: &Cluster, primary: &Cluster) {
    let written = primary.postgres().value("SELECT pg_current_wal_insert_lsn()");
    wait_until(|| {
        standby.postgres().value(&format!("SELECT pg_last_wal_replay_lsn() >= '{written}'")) == "t"
    });
}

#[track_caller]
pub(super) fn wait_until(mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < Duration::from_secs(30), "waited in vain");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Names both servers as the source, of which one that can be written to is meant.
fn either_of(stream: &mut Stream<'_>, first: &Cluster, second: &Cluster) {
    let uri = format!(
        "postgresql://postgres@127.0.0.1:{},127.0.0.1:{}/{}?target_session_attrs=read-write",
        first.port(),
        second.port(),
        stream.source.name()
    );
    stream.options.source =
        config::resolve(&uri, Side::Source, &Environment::empty()).expect("the URI is valid");
}

/// The database of the stream's source on its standby.
fn twin<'a>(stream: &Stream<'_>, standby: &'a Cluster) -> Database<'a> {
    standby.database(stream.source.name())
}

#[test]
fn a_promoted_standby_with_the_slot_is_followed_on_without_a_new_start() {
    let primary = Cluster::start(17, &Options::default());
    let standby = primary.start_standby();
    let mut stream = Stream::between(&primary, server(17), SCHEMA);
    either_of(&mut stream, &primary, &standby);
    let arrived = |count: &str| stream.target.value("SELECT count(*) FROM t") == count;
    stream.source.execute("INSERT INTO t SELECT generate_series(1, 100)");
    stream.catch_up();
    // The standby keeps its copy of the slot once the primary's has come as far: a few commits later.
    wait_until(|| {
        stream.source.execute("SELECT pg_log_standby_snapshot()");
        stream.catch_up();
        let synced = "SELECT count(*) FROM pg_replication_slots WHERE synced AND NOT temporary";
        standby.postgres().value(synced) == "1"
    });
    let source = twin(&stream, &standby);
    stream.run_for(Duration::from_millis(100), || {
        stream.source.execute("INSERT INTO t SELECT generate_series(101, 200)");
        wait_until(|| arrived("200"));
        wait_for(&standby, &primary);
        primary.stop("immediate");
        standby.promote();
        source.execute("INSERT INTO t SELECT generate_series(201, 300)");
        wait_until(|| arrived("300"));
    });
    stream.catch_up();
    let query = "SELECT id FROM t ORDER BY id";
    assert_eq!(stream.target.query(query), source.query(query));
    assert_eq!(stream.target.value("SELECT timeline FROM pgstream.checkpoint"), "2");
}

#[test]
fn a_slot_made_by_hand_on_the_standby_serves_and_a_standby_that_is_behind_is_refused() {
    let primary = Cluster::start(16, &Options::default());
    let (standby, behind) = (primary.start_standby(), primary.start_standby());
    let mut stream = Stream::between(&primary, server(16), SCHEMA);
    wait_for(&standby, &primary);
    wait_for(&behind, &primary);
    behind.stop("fast");
    std::thread::scope(|scope| {
        let made = scope.spawn(|| {
            let slot = &stream.options.slot;
            twin(&stream, &standby)
                .execute(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"));
        });
        wait_until(|| {
            stream.source.execute("SELECT pg_log_standby_snapshot()");
            made.is_finished()
        });
    });
    stream.source.execute("INSERT INTO t SELECT generate_series(1, 100)");
    stream.catch_up();
    stream.source.execute("INSERT INTO t SELECT generate_series(101, 200)");
    wait_for(&standby, &primary);
    primary.stop("immediate");

    behind.start_again();
    behind.promote();
    stream.options.source = config(&twin(&stream, &behind), Side::Source);
    let error = stream.try_catch_up().unwrap_err();
    let expected = "the source was promoted from a standby that had not received all that is applied already";
    assert_eq!(error.to_string(), expected, "{error:?}");
    behind.stop("fast");

    standby.promote();
    let source = twin(&stream, &standby);
    source.execute("INSERT INTO t SELECT generate_series(201, 300)");
    stream.options.source = config(&source, Side::Source);
    stream.catch_up();
    let query = "SELECT id FROM t ORDER BY id";
    assert_eq!(stream.target.query(query), source.query(query));

    // The server that was the primary comes back.
    primary.start_again();
    stream.options.source = config(&stream.source, Side::Source);
    let error = stream.try_catch_up().unwrap_err();
    assert!(error.to_string().starts_with("the source is on timeline 1, "), "{error}");
}

#[test]
fn a_promoted_standby_without_the_slot_is_refused_and_no_slot_is_made() {
    let primary = Cluster::start(13, &Options::default());
    let standby = primary.start_standby();
    let mut stream = Stream::between(&primary, server(13), SCHEMA);
    stream.source.execute("INSERT INTO t VALUES (1)");
    stream.catch_up();
    wait_for(&standby, &primary);
    primary.stop("immediate");
    // Not promoted yet: it is waited for.
    stream.options.source = config(&twin(&stream, &standby), Side::Source);
    stream.options.patience = Duration::ZERO;
    let error = stream.try_follow(u64::MAX).unwrap_err();
    assert_eq!(error.to_string(), "the source is a standby that has not been promoted");
    assert_eq!(error.kind(), ErrorKind::Connection);
    standby.promote();
    either_of(&mut stream, &primary, &standby);
    let error = stream.try_catch_up().unwrap_err();
    assert!(error.to_string().ends_with("is not on the source"), "{error}");
    assert!(error.detail().unwrap().contains("failed over"), "{error:?}");
    assert_eq!(standby.postgres().value("SELECT count(*) FROM pg_replication_slots"), "0");
    // One made now would begin too late.
    let (source, slot) = (twin(&stream, &standby), &stream.options.slot);
    source.execute(&format!(
        "INSERT INTO t VALUES (2); SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')"
    ));
    let error = stream.try_catch_up().unwrap_err();
    assert!(error.to_string().contains("past the target's checkpoint"), "{error}");
}

#[test]
fn a_source_whose_log_ends_before_the_checkpoint_is_refused() {
    let stream = Stream::between(server(15), server(15), SCHEMA);
    stream.target.execute("UPDATE pgstream.checkpoint SET applied = 'FF/FFFFFFFF'");
    let error = stream.try_catch_up().unwrap_err();
    assert_eq!(error.to_string(), "the source's write-ahead log ends before what is applied already");
    stream.target.execute("UPDATE pgstream.checkpoint SET timeline = 7");
    let error = stream.try_catch_up().unwrap_err();
    assert_eq!(
        error.to_string(),
        "the source is on timeline 1, and the target has followed it to timeline 7"
    );
}
