//! The harness itself: what the other tests lean on holds.

use crate::harness::{Auth, Cluster, MAJORS, Options, compare, fixture, server};

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

#[test]
fn comparing_says_nothing_of_a_true_copy_and_names_what_was_changed() {
    let source = fixture(server(18));
    source.execute("DROP SUBSCRIPTION pgs_nothing");
    let copy = server(18).create_database_with("copy", &format!("TEMPLATE {}", source.quoted_name()));
    let compared = || {
        let mut differences = compare::schemas(&source, &copy);
        differences.extend(compare::rows(&source, &copy));
        differences.extend(compare::sequences(&source, &copy));
        differences.extend(compare::large_objects(&source, &copy));
        differences.extend(compare::roles(&source, &copy));
        differences
    };
    assert_eq!(compared(), Vec::<String>::new());
    // The properties are those that CREATE DATABASE does not take from a template.
    let properties = compare::properties(&source, &copy);
    for named in ["comment", "grants", "settings of role (all)", "settings of role pgs_app"] {
        assert!(properties.iter().any(|line| line.contains(named)), "{named}: {properties:#?}");
    }

    let changes = [
        (
            "rows of val.numbers",
            "UPDATE val.numbers SET f8 = 0.33333333333333337 WHERE f8 = 0.3333333333333333",
        ),
        (
            "rows of val.letters",
            "UPDATE val.letters SET letter = (-127)::\"char\" WHERE letter = (-128)::\"char\"",
        ),
        ("rows of app.no_columns", "INSERT INTO app.no_columns DEFAULT VALUES"),
        ("rows of app.a_summary_of_it", "REFRESH MATERIALIZED VIEW app.a_summary_of_it WITH NO DATA"),
        ("sequence app.used_once", "SELECT nextval('app.used_once')"),
        ("large object 900004", "SELECT lo_put(900004, 5, 'x')"),
        ("customers_trgm; Type: INDEX", "DROP INDEX app.customers_trgm"),
        ("best_customers; Type: VIEW", "ALTER VIEW app.best_customers SET (check_option = local)"),
        ("COLUMN orders.state; Type: ACL", "REVOKE UPDATE (state) ON app.orders FROM pgs_writer"),
        ("DOMAIN positive; Type: COMMENT", "COMMENT ON DOMAIN app.positive IS 'changed'"),
    ];
    for (_, change) in changes {
        copy.execute(change);
    }
    let differences = compared();
    for (named, change) in changes {
        assert!(differences.iter().any(|line| line.contains(named)), "{change}: {differences:#?}");
    }
    assert_eq!(differences.len(), changes.len(), "{differences:#?}");
}
