//! What users see: exit code, standard output and standard error of each command as one snapshot (`tests/snapshots`).
//! `INSTA_UPDATE=always tests/run golden` writes them anew; what differs from run to run is evened out by [`FILTERS`].

use std::io::Read;
use std::process::Stdio;

use crate::harness::{Cluster, Database, Options, Pgstream, server};

/// Ports, names, times and sizes that no two runs share.
const FILTERS: &[(&str, &str)] = &[
    (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
    (r"port \d+", "port PORT"),
    (r"process \d+", "process PID"),
    (r"pg_terminate_backend\(\d+\)", "pg_terminate_backend(PID)"),
    (r"_\d+_\d+\b", ""),
    (r"\b\d{19}\b", "SYSTEM"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?\+00", "TIME"),
    (r"\b(\d+ min )?\d+(\.\d+)? (ms|s)\b", "DURATION"),
    (r"\b\d+(\.\d+)? [kMG]B\b", "SIZE"),
    (r"\b[0-9A-F]+/[0-9A-F]{4,}\b", "LSN"),
    (r#"("(bytes|bytes_done|elapsed_seconds|seconds|rows_estimate)": )[0-9.]+"#, "${1}NUMBER"),
    (r"(statement was: \w+).*", "$1 …"),
    // Progress, on a machine so slow that it is shown.
    (
        r"(?m)^pgstream: (starting|connecting|checking|(reading|creating|copying|setting|granting|collecting|comparing|moving|waiting) [a-z' ]+)(: .*)?\n",
        "",
    ),
];

/// Two tables, a view, an identity column.
const SHOP: &str = "
CREATE TABLE customers (id integer PRIMARY KEY, name text NOT NULL);
CREATE TABLE orders (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer integer REFERENCES customers);
CREATE INDEX ON orders (customer);
CREATE VIEW named AS SELECT o.id, c.name FROM orders o JOIN customers c ON c.id = o.customer;
INSERT INTO customers SELECT n, 'name ' || n FROM generate_series(1, 100) n;
INSERT INTO orders (customer) SELECT n FROM generate_series(1, 50) n;
";

/// The database that [`SHOP`] makes, on 15, and an empty one on 17.
fn shop() -> (Database<'static>, Database<'static>) {
    let (source, target) = (server(15).create_database("source"), server(17).create_database("target"));
    source.execute(SHOP);
    (source, target)
}

#[track_caller]
fn golden(name: &str, command: Pgstream) {
    let finished = command.run();
    let code = finished.code.map_or_else(|| "none".to_owned(), |code| code.to_string());
    let said = format!("exit code {code}\n--- stdout\n{}--- stderr\n{}", finished.stdout, finished.stderr);
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for (pattern, replacement) in FILTERS {
        settings.add_filter(pattern, *replacement);
    }
    settings.bind(|| insta::assert_snapshot!(name, said));
}

#[test]
fn wrong_usage_says_what_is_right() {
    golden("usage_of_an_unknown_command", Pgstream::new("move"));
    golden("usage_of_an_unknown_option", Pgstream::new("migrate").args(["--job", "3"]));
    golden("usage_of_a_size", Pgstream::new("migrate").args(["--split-tables-larger-than", "1 parsec"]));
    golden("usage_without_a_source", Pgstream::new("migrate").args(["--target", "postgresql://127.0.0.1/x"]));
    golden("usage_of_sslmode", Pgstream::new("status").args(["--target", "host=127.0.0.1 sslmode=on"]));
    golden(
        "usage_of_a_missing_password_file",
        Pgstream::new("status").args(["--target", "x", "--target-password-file", "/nonexistent/password"]),
    );
    golden(
        "usage_of_a_method",
        Pgstream::new("migrate").args(["--method", "subscription", "--source", "a", "--target", "b"]),
    );
}

#[test]
fn help_names_every_command() {
    golden("help", Pgstream::new("--help"));
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let nowhere = "postgresql://jan:hunter2@127.0.0.1:9/app";
    golden("unreachable", Pgstream::new("status").args(["--target", nowhere]));
    golden("unreachable_as_json", Pgstream::new("status").args(["--json"]).env("PGSTREAM_TARGET", nowhere));
    golden("unreachable_for_check", Pgstream::new("check").args(["--source", nowhere, "--target", nowhere]));
}

#[test]
fn a_migration_is_told_from_beginning_to_end() {
    let (source, target) = shop();
    let between = |command| Pgstream::between(command, &source, &target);
    let status = || Pgstream::new("status").args(["--target", &target.uri()]);

    golden("status_before", status());
    golden("check_that_is_ready", between("check"));
    golden("validate", between("migrate").args(["--validate", "--json"]));
    golden("migrate", between("migrate").args(["--method", "copy"]));
    golden("migrate_again", between("migrate").args(["--method", "copy"]));
    golden("status_after", status());
    golden("status_after_as_json", status().args(["--json"]));
    golden("verify_that_is_equal", between("verify"));
    target.execute("DELETE FROM orders WHERE id = 7; UPDATE customers SET name = 'x' WHERE id = 1");
    target.execute("DROP INDEX orders_customer_idx; CREATE TABLE more (); SELECT nextval('orders_id_seq')");
    golden("verify_that_is_not", between("verify"));
    golden("verify_that_is_not_as_json", between("verify").args(["--json", "--data-only"]));
    golden("cleanup_without_yes", between("cleanup"));
    golden("cleanup", between("cleanup").args(["--yes"]));
    golden("cleanup_of_nothing", between("cleanup").args(["--yes", "--json"]));
}

#[test]
fn a_whole_server_is_told_in_one_object() {
    let (source, target) = (Cluster::start(15, &Options::default()), Cluster::start(17, &Options::default()));
    source.postgres().execute(
        "CREATE ROLE boss; CREATE DATABASE app OWNER boss; CREATE DATABASE taken; CREATE DATABASE shut ALLOW_CONNECTIONS false",
    );
    source.database("app").execute("CREATE TABLE t (a integer); INSERT INTO t VALUES (1), (2)");
    source.database("taken").execute("CREATE TABLE t (a integer)");
    target.postgres().execute("CREATE DATABASE taken");
    target.database("taken").execute("CREATE TABLE t (b text)");
    let all = |command| {
        let (from, to) = (source.uri("postgres"), target.uri("postgres"));
        Pgstream::new(command).args(["--source", &from, "--target", &to, "--all-databases"])
    };
    let but_postgres = |command| all(command).args(["--exclude-database", "postgres"]);
    golden("server_check_as_json", but_postgres("check").args(["--method", "copy", "--json"]));
    golden("server_migrate_as_json", but_postgres("migrate").args(["--json", "--quiet"]));
    golden("server_migrate", but_postgres("migrate"));
    golden("server_verify_as_json", but_postgres("verify").args(["--json", "--data-only"]));
    let status = || Pgstream::new("status").args(["--target", &target.uri("postgres"), "--all-databases"]);
    golden("server_status", status());
    golden("server_cleanup_as_json", all("cleanup").args(["--yes", "--json"]));
    golden("server_status_of_nothing", status());
}

#[test]
fn an_error_of_the_server_comes_with_its_statement_only_when_asked() {
    let target = server(15).create_database("target");
    target.execute("CREATE SCHEMA pgstream; CREATE TABLE pgstream.migration (wrong text)");
    let status = || Pgstream::new("status").args(["--target", &target.uri()]);
    golden("error_of_the_server", status());
    golden("error_of_the_server_verbose", status().args(["-v"]));
    golden("error_of_the_server_as_json", status().args(["--json"]));
}

#[test]
fn cleanup_leaves_alone_what_is_not_ours() {
    let target = server(15).create_database("target");
    target.execute("CREATE SCHEMA pgstream; CREATE TABLE pgstream.somebodys (a int)");
    golden(
        "cleanup_of_somebody_elses_schema",
        Pgstream::new("cleanup").args(["--yes", "--target", &target.uri()]),
    );
    assert_eq!(target.value("SELECT to_regclass('pgstream.somebodys') IS NOT NULL"), "t");
}

#[test]
fn check_lists_all_findings_at_once() {
    let cluster = Cluster::start(15, &Options::default());
    let (source, target) = (cluster.create_database("source"), cluster.create_database("target"));
    source.execute(
        "CREATE ROLE limited LOGIN; CREATE ROLE reader; GRANT CONNECT ON DATABASE postgres TO limited;
         CREATE SCHEMA closed; CREATE TABLE closed.a (); CREATE TABLE closed.b ();
         CREATE TABLE secret (a int); CREATE TABLE hidden (a int); ALTER TABLE hidden ENABLE ROW LEVEL SECURITY;
         GRANT SELECT ON hidden TO limited; CREATE TABLE taken (a int); GRANT SELECT ON taken TO limited, reader;
         CREATE UNLOGGED TABLE fast (a int); GRANT SELECT ON fast TO limited; SELECT lo_from_bytea(0, 'x')",
    );
    target.execute("CREATE TABLE taken (b text); REVOKE CREATE ON SCHEMA public FROM PUBLIC");
    let check = || {
        Pgstream::new("check").args([
            "--source",
            &cluster.uri_as("limited", None, source.name()),
            "--target",
            &cluster.uri_as("limited", None, target.name()),
        ])
    };
    golden("check_that_is_not_ready", check());
    golden("check_that_is_not_ready_as_json", check().args(["--json", "--no-owner"]));
}

#[test]
fn a_lock_on_the_source_is_a_finding() {
    let (source, target) = shop();
    let _holder = source.hold("BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE;");
    golden("check_of_a_locked_table", Pgstream::between("check", &source, &target));
    golden(
        "migrate_of_a_locked_table",
        Pgstream::between("migrate", &source, &target).args([
            "--method",
            "copy",
            "--lock-wait-timeout",
            "200ms",
        ]),
    );
}

#[test]
fn a_signal_stops_a_migration_that_the_same_command_resumes() {
    let (source, target) = shop();
    let migrate = || Pgstream::between("migrate", &source, &target).args(["--method", "copy"]);
    for signal in ["INT", "TERM"] {
        let holder = source.hold("BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE;");
        let running = migrate().spawn();
        wait_until_it_waits(&source);
        running.signal(signal);
        let finished = running.wait().expect_code(4);
        assert!(finished.stderr.contains("pgstream: hint: Run the same command again"), "{finished:?}");
        drop(holder);
    }
    migrate().run().expect_code(0);
    Pgstream::between("verify", &source, &target).run().expect_code(0);
}

/// Waits until pgstream has looked for locks: its session of the source is idle, or waits, after that query.
fn wait_until_it_waits(source: &Database<'_>) {
    let looked = "SELECT count(*) FROM pg_stat_activity \
                  WHERE datname = current_database() AND query LIKE '%AccessExclusiveLock%' AND pid <> pg_backend_pid()";
    while source.value(looked) == "0" {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn nobody_reading_on_is_no_failure() {
    let (source, _target) = shop();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pgstream"));
    command.args(["schema", "--source", &source.uri()]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("pgstream starts");
    drop(child.stdout.take());
    let mut said = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut said).expect("pgstream writes UTF-8");
    assert!(child.wait().expect("a child can be waited for").success(), "{said}");
    assert_eq!(said, "");
}

#[test]
fn no_password_is_ever_printed() {
    let secret = "c0rrect-horse";
    let uri = format!("postgresql://postgres:{secret}@127.0.0.1:9/app");
    for command in ["migrate", "check", "status", "verify", "schema", "cleanup"] {
        for arguments in [
            ["--source", uri.as_str(), "--target", uri.as_str()],
            ["--target", uri.as_str(), "--source", "x=y"],
        ] {
            let finished = Pgstream::new(command).args(arguments).args(["-vvv"]).run();
            let said = format!("{}{}", finished.stdout, finished.stderr);
            assert!(finished.code != Some(0) && !said.contains(secret), "{command}: {said}");
        }
    }
}
