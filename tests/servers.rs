//! The harness itself: what the other tests lean on holds.

use crate::harness::{Auth, Cluster, MAJORS, Options, server};

#[test]
fn every_major_runs_and_keeps_what_it_is_told() {
    for major in MAJORS {
        let server = server(major);
        assert_eq!(
            server.postgres().value("SELECT current_setting('server_version_num')::int / 10000"),
            major.to_string()
        );
        let database = server.create_database("kept");
        database.execute("CREATE TABLE t (a int, b text); INSERT INTO t VALUES (1, NULL), (2, E'x\\ny')");
        assert_eq!(database.query("SELECT * FROM t ORDER BY a"), [["1", ""], ["2", "x\ny"]]);
    }
}

#[test]
fn a_database_is_dropped_with_its_handle() {
    let server = server(15);
    let database = server.create_database("with \"quotes\" ä");
    let name = database.name().to_owned();
    assert_eq!(database.value("SELECT current_database()"), name);
    drop(database);
    let names = server.postgres().query("SELECT datname FROM pg_database");
    assert!(!names.contains(&vec![name]));
}

#[test]
fn a_cluster_of_its_own_asks_for_a_password_and_survives_a_crash() {
    let cluster = Cluster::start(18, &Options { auth: Auth::Scram, ..Options::default() });
    let database = cluster.create_database("app");
    database
        .execute("CREATE TABLE t AS SELECT 1 AS a; CREATE ROLE nobody_else LOGIN PASSWORD 'x'; CHECKPOINT");
    cluster.stop("immediate");
    assert!(database.try_execute("SELECT 1").is_err());
    cluster.start_again();
    assert_eq!(database.value("SELECT a FROM t"), "1");
}

#[test]
fn an_error_of_psql_is_handed_on() {
    let error =
        server(15).postgres().try_execute("SELECT 1/0").expect_err("PostgreSQL refuses to divide by zero");
    assert!(error.contains("division by zero"), "{error}");
}
