//! What goes wrong: each failure gives a clear error with a hint, the right exit code, and a state from which the next
//! run goes on.

use crate::harness::{Auth, Cluster, Options, Pgstream, compare, server};
use std::net::TcpListener;

/// Two thousand rows, enough to see whether they were moved.
const SMALL: &str = "CREATE TABLE numbers (id integer PRIMARY KEY, text text);
INSERT INTO numbers SELECT i, 'row ' || i FROM generate_series(1, 2000) i;";

#[test]
fn a_wrong_password_is_named_with_user_and_side_and_never_shown() {
    for auth in [Auth::Md5, Auth::Scram] {
        let cluster = Cluster::start(15, &Options { auth, ..Options::default() });
        let target = server(15).create_database("target");
        let finished = Pgstream::new("migrate")
            .env("PGSTREAM_SOURCE", &cluster.uri_as("postgres", Some("mellon-ha"), "postgres"))
            .args(["--target", &target.uri()])
            .run()
            .expect_code(2);
        finished.expect_words(&["source", "password authentication failed", "\"postgres\"", "hint:"]);
        assert!(!finished.stderr.contains("mellon"), "{}", finished.stderr);
    }
}

#[test]
fn passwords_of_both_methods_and_the_socket_let_in() {
    for auth in [Auth::Md5, Auth::Scram] {
        let cluster = Cluster::start(15, &Options { auth, ..Options::default() });
        let (source, target) = (cluster.create_database("source"), cluster.create_database("target"));
        source.execute(SMALL);
        Pgstream::new("migrate")
            .args([
                "--method",
                "copy",
                "--source",
                &cluster.socket_uri(source.name()),
                "--target",
                &target.uri(),
            ])
            .run()
            .expect_code(0);
        assert_eq!(compare::rows(&source, &target), Vec::<String>::new());
    }
}

#[test]
fn a_database_that_does_not_exist_is_named() {
    let target = server(15).create_database("target");
    Pgstream::new("migrate")
        .args(["--source", &server(15).uri("no such database"), "--target", &target.uri()])
        .run()
        .expect_code(2)
        .expect_words(&["source", "\"no such database\" does not exist", "hint:"]);
}

#[test]
fn every_host_that_cannot_be_reached_is_listed() {
    let closed =
        || TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port is free").port();
    let (first, second) = (closed(), closed());
    let target = server(15).create_database("target");
    for (command, code) in [("migrate", 1), ("check", 2)] {
        Pgstream::new(command)
            .args(["--source", &format!("postgresql://postgres@127.0.0.1:{first},localhost:{second}/app")])
            .args(["--target", &target.uri()])
            .run()
            .expect_code(code)
            .expect_words(&["source", &first.to_string(), &second.to_string(), "refused", "hint:"]);
    }
}

#[test]
fn a_server_without_tls_is_refused_where_tls_is_required() {
    let (source, target) = (server(15).create_database("source"), server(15).create_database("target"));
    Pgstream::new("migrate")
        .args(["--source", &format!("{}?sslmode=require", source.uri()), "--target", &target.uri()])
        .run()
        .expect_code(1)
        .expect_words(&["source", "sslmode", "hint:"]);
}

#[test]
fn a_wrong_value_of_an_option_is_quoted_with_its_key() {
    let target = server(15).create_database("target");
    Pgstream::new("check")
        .args(["--source", "postgresql://127.0.0.1/app?sslmode=bogus", "--target", &target.uri()])
        .run()
        .expect_code(2)
        .expect_words(&["sslmode", "bogus"]);
    Pgstream::new("migrate").args(["--jobs", "0"]).run().expect_code(2);
}

#[test]
fn one_and_the_same_database_is_refused_under_whatever_name() {
    let database = server(16).create_database("same");
    database.execute(SMALL);
    Pgstream::new("migrate")
        .args([
            "--method",
            "copy",
            "--source",
            &server(16).socket_uri(database.name()),
            "--target",
            &database.uri(),
        ])
        .run()
        .expect_code(2)
        .expect_words(&["same database"]);
    assert_eq!(database.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'pgstream'"), "0");
}

#[test]
fn a_target_that_holds_the_same_names_is_refused_before_anything_is_touched() {
    let (source, target) = (server(15).create_database("source"), server(17).create_database("target"));
    source.execute(SMALL);
    target.execute("CREATE TABLE numbers (mine text); INSERT INTO numbers VALUES ('kept')");
    Pgstream::between("migrate", &source, &target)
        .args(["--method", "copy"])
        .run()
        .expect_code(2)
        .expect_words(&["target", "numbers", "hint:"]);
    assert_eq!(target.value("SELECT mine FROM numbers"), "kept");
    assert_eq!(target.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'pgstream'"), "0");
}

#[test]
fn a_target_that_is_read_only_or_gives_no_right_to_create_is_a_blocker() {
    let cluster = Cluster::start(18, &Options::default());
    let (source, target) = (cluster.create_database("source"), cluster.create_database("target"));
    source.execute(SMALL);
    let name = target.quoted_name();

    cluster.postgres().execute(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on"));
    Pgstream::between("check", &source, &target).run().expect_code(2).expect_words(&["target", "read-only"]);
    cluster.postgres().execute(&format!("ALTER DATABASE {name} RESET default_transaction_read_only"));

    cluster
        .postgres()
        .execute(&format!("CREATE ROLE limited LOGIN; REVOKE CREATE ON DATABASE {name} FROM PUBLIC"));
    Pgstream::new("migrate")
        .args(["--method", "copy", "--source", &source.uri()])
        .args(["--target", &cluster.uri_as("limited", None, target.name())])
        .run()
        .expect_code(2)
        .expect_words(&["target", "limited", "hint:"]);
    assert_eq!(target.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'pgstream'"), "0");

    // With the cause mended the same command goes through.
    Pgstream::between("migrate", &source, &target).args(["--method", "copy"]).run().expect_code(0);
    assert_eq!(compare::rows(&source, &target), Vec::<String>::new());
}

#[test]
fn a_lock_on_a_source_table_is_waited_for_and_then_named() {
    let (source, target) = (server(15).create_database("source"), server(15).create_database("target"));
    source.execute(SMALL);
    let holder = source.hold("BEGIN; LOCK TABLE numbers IN ACCESS EXCLUSIVE MODE;");
    Pgstream::between("migrate", &source, &target)
        .args(["--method", "copy", "--lock-wait-timeout", "300ms"])
        .run()
        .expect_code(1)
        .expect_words(&["source", "numbers", "lock", "hint:"]);
    drop(holder);
    Pgstream::between("migrate", &source, &target).args(["--method", "copy"]).run().expect_code(0);
    assert_eq!(compare::rows(&source, &target), Vec::<String>::new());
}

#[test]
fn a_target_that_runs_full_leaves_a_state_from_which_the_next_run_goes_on() {
    // No file may grow beyond this: what extends a table is refused, as on a full disk.
    let cluster = Cluster::start(15, &Options { file_size_limit: Some(20 << 20), ..Options::default() });
    let source = server(15).create_database("source");
    source.execute(SMALL);
    source
        .execute("CREATE TABLE big AS SELECT i, repeat('x', 1000) AS text FROM generate_series(1, 30000) i");
    let target = cluster.create_database("target");
    let migrate = || Pgstream::between("migrate", &source, &target).args(["--method", "copy"]).run();
    migrate().expect_code(1).expect_words(&["target", "could not extend file", "big", "hint:"]);
    cluster.stop("fast");
    cluster.start_again();
    migrate().expect_code(0);
    assert_eq!(compare::rows(&source, &target), Vec::<String>::new());
}
