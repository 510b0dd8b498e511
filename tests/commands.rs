//! The other commands, around a migration.

use crate::harness::{Cluster, Options, Pgstream, compare, fixture, server};

#[test]
fn status_tells_the_same_in_text_and_json_before_and_after() {
    let (source, target) = (server(15).create_database("source"), server(16).create_database("target"));
    source.execute("CREATE TABLE t (a integer); INSERT INTO t SELECT generate_series(1, 1234)");
    let status = || Pgstream::new("status").args(["--target", &target.uri()]);
    let before = status().run();
    assert!(matches!(before.code, Some(1 | 2)), "{before:?}");

    Pgstream::between("migrate", &source, &target).args(["--method", "copy"]).run().expect_code(0);
    let json = status().args(["--json"]).run().expect_code(0);
    let value: serde_json::Value = serde_json::from_str(&json.stdout).expect("stdout is one JSON object");
    assert_eq!(value["migration"]["status"], "done", "{value}");
    assert_eq!(value["migration"]["method"], "copy", "{value}");
    assert_eq!(value["migration"]["error"], serde_json::Value::Null, "{value}");
    let detail = &value["migration_detail"][0];
    assert_eq!(detail["status"], "done", "{value}");
    assert!(detail["dbname"].is_string(), "{value}");
    let text = status().run().expect_code(0);
    assert!(text.stdout.contains("done"), "{text:?}");
}

#[test]
fn verify_finds_nothing_after_a_migration_and_each_thing_that_was_changed() {
    let source = fixture(server(15));
    let cluster = Cluster::start(16, &Options::default());
    let target = cluster.create_database("verified");
    Pgstream::between("migrate", &source, &target).args(["--method", "copy"]).run().expect_code(0);
    Pgstream::between("verify", &source, &target).run().expect_code(0);
    target.execute(
        "UPDATE val.narrow SET a = a + 1 WHERE id = 5; DROP INDEX app.customers_trgm;
         SELECT nextval('app.used_once'); DELETE FROM app.unlogged WHERE a = 1",
    );
    let finished = Pgstream::between("verify", &source, &target).run().expect_code(3);
    let said = format!("{}{}", finished.stdout, finished.stderr);
    for named in ["narrow", "customers_trgm", "used_once", "unlogged"] {
        assert!(said.contains(named), "{named} is not named:\n{said}");
    }
    assert!(!said.contains("order_notes"), "what is equal is not named:\n{said}");
}

#[test]
fn cleanup_leaves_nothing_of_pgstream_on_either_side() {
    let (source, target) = (server(15).create_database("source"), server(16).create_database("target"));
    source.execute("CREATE TABLE t (a integer); INSERT INTO t VALUES (1)");
    Pgstream::between("migrate", &source, &target).args(["--method", "copy"]).run().expect_code(0);
    Pgstream::between("cleanup", &source, &target).args(["--yes"]).run().expect_code(0);
    assert_eq!(target.value("SELECT count(*) FROM pg_namespace WHERE nspname ~ '^pgstream'"), "0");
    assert_eq!(source.value("SELECT count(*) FROM pg_namespace WHERE nspname ~ '^pgstream'"), "0");
    assert_eq!(
        source.value("SELECT count(*) FROM pg_replication_slots WHERE database = current_database()"),
        "0"
    );
    assert_eq!(compare::rows(&source, &target), Vec::<String>::new());
}

#[test]
fn the_printed_schema_is_one_that_psql_can_run() {
    let source = fixture(server(17));
    let made = server(17).create_database_with("made", "TEMPLATE template0");
    let arguments = ["--no-subscriptions", "--source", &source.uri()];
    let printed = Pgstream::new("schema").args(arguments).run().expect_code(0);
    made.execute(&printed.stdout);
    source.execute("DROP SUBSCRIPTION pgs_nothing");
    assert_eq!(compare::schemas(&source, &made), Vec::<String>::new());
}
