//! What operators of managed servers meet: logins that fail in each way, names that are statements, roles of every kind, languages and extensions
//! that one side lacks, sizes, and tables by name.

use serde_json::Value;
use std::time::{Duration, Instant};

use crate::harness::{Auth, Cluster, Extensions, Options, Pgstream, compare, server};

/// A name that would be a statement, were it put into one as it is.
const INJECTION: &str = "x'; DROP DATABASE \"keep\"; --";

fn object(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Findings of a check, as `severity: object: message (hint)`.
#[track_caller]
fn findings(check: Pgstream) -> String {
    let said = object(&check.args(["--json"]).run().stdout);
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or("-").to_owned();
    let line = |f: &Value| {
        format!(
            "{}: {}: {} ({})\n",
            text(f, "severity"),
            text(f, "object"),
            text(f, "message"),
            text(f, "hint")
        )
    };
    said["findings"].as_array().expect("a list").iter().map(line).collect()
}

#[test]
fn a_password_that_nobody_gave_is_asked_for_by_name_and_a_file_or_the_environment_gives_it() {
    let source = Cluster::start(15, &Options { auth: Auth::Scram, ..Options::default() });
    let target = server(15).create_database("target");
    let bare = format!("postgresql://postgres@127.0.0.1:{}/postgres", source.port());
    let check = || Pgstream::new("check").args(["--source", &bare, "--target", &target.uri()]);
    check().run().expect_code(2).expect_words(&[
        "could not connect to the source",
        "server asks for a password, but none was supplied",
        "~/.pgpass",
        "--source-password-file",
    ]);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("password");
    std::fs::write(&file, "p@ss:w/ord %\n").expect("a file");
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("the file is ours");
    let file = file.to_str().expect("UTF-8");
    check().args(["--source-password-file", file]).run().expect_code(0);
    check().env("PGPASSWORD", "p@ss:w/ord %").run().expect_code(0);
}

#[test]
fn a_server_that_does_not_answer_is_given_up_after_the_time_of_the_string_or_of_the_environment() {
    // It takes connections, and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = silent.local_addr().expect("it is bound").port();
    let target = server(15).create_database("target");
    let uri = format!("postgresql://postgres@127.0.0.1:{port}/app");
    for (uri, environment) in [(format!("{uri}?connect_timeout=2"), None), (uri, Some("2"))] {
        let mut command = Pgstream::new("migrate").args(["--source", &uri, "--target", &target.uri()]);
        if let Some(seconds) = environment {
            command = command.env("PGCONNECT_TIMEOUT", seconds);
        }
        let begun = Instant::now();
        command.run().expect_code(1).expect_words(&["source", &port.to_string(), "timeout expired"]);
        let passed = begun.elapsed();
        assert!(passed >= Duration::from_secs(2) && passed < Duration::from_secs(20), "{passed:?}");
    }
}

#[test]
fn a_side_that_rejects_the_connection_is_named_with_its_reason() {
    let hba = vec!["host all unwanted 127.0.0.1/32 reject".to_owned()];
    let closed = Cluster::start(16, &Options { hba, ..Options::default() });
    closed.postgres().execute("CREATE ROLE unwanted LOGIN");
    let open = server(16).create_database("open");
    let rejected = closed.uri_as("unwanted", None, "postgres");
    for (source, target, side) in
        [(rejected.as_str(), open.uri(), "source"), (open.uri().as_str(), rejected.clone(), "target")]
    {
        for command in ["check", "migrate"] {
            let finished = Pgstream::new(command).args(["--source", source, "--target", &target]).run();
            finished.expect_words(&[
                &format!("could not connect to the {side}"),
                "pg_hba.conf rejects connection",
                "\"unwanted\"",
            ]);
            assert_ne!(finished.code, Some(0));
        }
    }
    assert_eq!(open.value("SELECT to_regnamespace('pgstream') IS NULL"), "t");
}

#[test]
fn names_that_are_statements_are_only_names_also_where_they_leave_something_out() {
    let source = Cluster::start(15, &Options::default());
    let target = Cluster::start(17, &Options::default());
    for name in ["keep", INJECTION] {
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        source.postgres().execute(&format!("CREATE DATABASE {quoted}; CREATE ROLE {quoted}"));
        source.database(name).execute("CREATE TABLE t (a integer PRIMARY KEY); INSERT INTO t VALUES (1)");
    }
    let pattern = format!("\"{}\"", INJECTION.replace('"', "\"\""));
    let migrate = |options: &[&str]| {
        Pgstream::new("migrate")
            .args(["--source", &source.uri("postgres"), "--target", &target.uri("postgres"), "--json"])
            .args(["--all-databases", "--method", "copy", "--exclude-database", "postgres"])
            .args(options.iter().copied())
            .run()
    };
    let left_out = ["--exclude-database", &pattern, "--exclude-role", &pattern];
    let said = object(&migrate(&left_out).expect_code(0).stdout);
    let names: Vec<_> =
        said["migration_detail"].as_array().expect("a list").iter().map(|one| &one["dbname"]).collect();
    assert_eq!(names, ["keep"]);
    let roles = "SELECT rolname FROM pg_roles WHERE rolname = 'keep' OR rolname LIKE '%DROP%'";
    assert_eq!(target.postgres().query(roles), [["keep"]]);
    // And as a name that is moved.
    migrate(&[]).expect_code(0);
    for name in ["keep", INJECTION] {
        assert_eq!(compare::rows(&source.database(name), &target.database(name)), Vec::<String>::new());
    }
    migrate(&["--exclude-database", "k*; DROP"]).expect_code(0);
    assert_eq!(source.postgres().value("SELECT count(*) FROM pg_database WHERE datname = 'keep'"), "1");
}

const ROLES: &str = "
    CREATE ROLE plain_group; CREATE ROLE no_password LOGIN; CREATE ROLE with_password LOGIN PASSWORD 'x';
    CREATE ROLE boss SUPERUSER LOGIN; CREATE ROLE streams REPLICATION LOGIN; CREATE ROLE skips BYPASSRLS NOINHERIT;
    CREATE ROLE maker CREATEDB CREATEROLE; CREATE ROLE limited LOGIN CONNECTION LIMIT 7;
    CREATE ROLE shut_out LOGIN CONNECTION LIMIT 0; CREATE ROLE expires LOGIN VALID UNTIL '2031-05-06 07:08:09+00';
    CREATE ROLE expired LOGIN VALID UNTIL '2001-01-01'; CREATE ROLE for_ever LOGIN VALID UNTIL 'infinity';
    CREATE ROLE \"Odd 'role\" LOGIN; ALTER ROLE no_password SET work_mem = '12MB';
    ALTER ROLE no_password SET search_path = app, \"Odd schema\", public; ALTER ROLE limited SET log_statement = 'all';
    ALTER ROLE no_password IN DATABASE app SET timezone = 'Asia/Tokyo'; COMMENT ON ROLE boss IS 'the boss''s';
    GRANT plain_group TO no_password; GRANT plain_group TO maker WITH ADMIN OPTION;";

/// Everything that a role is, but for its password.
const ATTRIBUTES: &str =
    "SELECT rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls,
       rolconnlimit, rolvaliduntil, shobj_description(r.oid, 'pg_authid'),
       (SELECT string_agg(coalesce(datname, '-') || setconfig::text, ';' ORDER BY datname) FROM pg_db_role_setting s
          LEFT JOIN pg_database d ON d.oid = s.setdatabase WHERE setrole = r.oid),
       (SELECT string_agg(pg_get_userbyid(roleid) || admin_option, ',' ORDER BY 1) FROM pg_auth_members WHERE member = r.oid)
     FROM pg_roles r WHERE rolname !~ '^pg_' AND rolname <> 'postgres' ORDER BY 1";
const PASSWORDS: &str =
    "SELECT rolname, rolpassword FROM pg_authid WHERE rolname !~ '^pg_' AND rolname <> 'postgres' ORDER BY 1";

#[test]
fn roles_arrive_with_all_that_they_are_and_with_the_passwords_that_are_wanted() {
    let source = Cluster::start(14, &Options::default());
    source.postgres().execute(&format!("CREATE DATABASE app; {ROLES}"));
    let moved = |options: &[&str], code: i32| {
        let target = Cluster::start(17, &Options::default());
        let finished = Pgstream::new("migrate")
            .args(["--source", &source.uri("postgres"), "--target", &target.uri("postgres"), "--json"])
            .args(["--all-databases", "--method", "copy", "--exclude-database", "postgres"])
            .args(options.iter().copied())
            .run()
            .expect_code(code);
        (target, object(&finished.stdout))
    };
    let attributes = source.postgres().query(ATTRIBUTES);
    assert_eq!(attributes.len(), 13, "{attributes:#?}");
    let (target, said) = moved(&[], 0);
    assert_eq!(target.postgres().query(ATTRIBUTES), attributes);
    assert_eq!(target.postgres().query(PASSWORDS), source.postgres().query(PASSWORDS));
    let created = said["roles"].as_array().expect("a list").iter().filter(|role| role["kind"] == "ROLE");
    assert_eq!(created.filter(|role| role["status"] == "created").count(), 13, "{said:#}");

    let (target, _) = moved(&["--role-passwords", "none"], 0);
    assert_eq!(target.postgres().query(ATTRIBUTES), attributes);
    assert!(target.postgres().query(PASSWORDS).iter().all(|row| row[1].is_empty()));

    let (target, said) = moved(&["--role-passwords", "placeholder", "--show-passwords"], 0);
    let with_password = target.postgres().query(PASSWORDS).into_iter().filter(|row| !row[1].is_empty());
    let login = attributes.iter().filter(|row| row[5] == "t").count();
    assert_eq!(with_password.count(), login);
    let shown = said["roles"].as_array().expect("a list").iter().filter(|role| role["password"].is_string());
    assert_eq!(shown.count(), login, "{said:#}");

    // What a role has set for itself in a database has no place then, and that is said.
    let (target, said) = moved(&["--no-roles"], 3);
    let left = &said["migration_detail"][0]["not_copied"][0];
    assert_eq!(left["reason"], "role \"no_password\" does not exist", "{said:#}");
    assert_eq!(target.postgres().query(ATTRIBUTES).len(), 0);
    assert_eq!(said["roles"], Value::Array(Vec::new()));
}

#[test]
fn languages_and_extensions_that_the_target_lacks_are_named_unless_they_are_left_out() {
    let language = "CREATE LANGUAGE plmine HANDLER pg_catalog.plpgsql_call_handler;";
    let extensions = Extensions::new().with("plmine", "1", "", language);
    let source = Cluster::start(18, &Options { settings: vec![extensions.setting()], ..Options::default() });
    let (from, to) = (source.create_database("source"), server(18).create_database("target"));
    from.execute(
        "CREATE EXTENSION plmine; CREATE FUNCTION by_it() RETURNS integer LANGUAGE plmine AS 'BEGIN RETURN 1; END';
         CREATE LANGUAGE by_hand HANDLER pg_catalog.plpgsql_call_handler; CREATE TABLE t (a integer PRIMARY KEY)",
    );
    let check = || Pgstream::between("check", &from, &to).args(["--method", "copy"]);
    let found = findings(check());
    assert!(found.contains("blocker: extension \"plmine\": is not available on the target"), "{found}");
    assert!(found.contains("warning: language \"by_hand\": does not exist on the target"), "{found}");
    Pgstream::between("migrate", &from, &to)
        .args(["--method", "copy"])
        .run()
        .expect_code(2)
        .expect_words(&["extension \"plmine\"", "Nothing has been touched"]);
    let found = findings(check().args(["--exclude-extension", "plmine"]));
    assert!(!found.contains("extension \"plmine\": is not"), "{found}");
    assert!(found.contains("FUNCTION public.by_it(): is not copied: it needs"), "{found}");
    Pgstream::between("migrate", &from, &to)
        .args(["--method", "copy", "--exclude-extension", "plmine"])
        .run()
        .expect_code(3)
        .expect_words(&["FUNCTION public.by_it()", "plmine"]);
    assert_eq!(to.value("SELECT to_regclass('t') IS NOT NULL AND to_regproc('by_it') IS NULL"), "t");
}

#[test]
fn a_server_that_holds_more_than_is_allowed_is_refused_as_a_whole() {
    let source = Cluster::start(15, &Options::default());
    let target = Cluster::start(16, &Options::default());
    source.postgres().execute("CREATE DATABASE one; CREATE DATABASE two");
    let with = |command: &str, size: &str| {
        Pgstream::new(command)
            .args(["--source", &source.uri("postgres"), "--target", &target.uri("postgres")])
            .args(["--all-databases", "--method", "copy", "--max-total-size", size])
            .run()
    };
    for command in ["check", "migrate"] {
        with(command, "20MB").expect_code(2).expect_words(&[
            "source databases",
            "bytes together, more than the 20971520 that are allowed",
            "--exclude-database",
        ]);
    }
    let made = "SELECT count(*) FROM pg_database WHERE datname IN ('one', 'two')";
    assert_eq!(target.postgres().value(made), "0");
    with("migrate", "1GB").expect_code(0);
}

#[test]
fn tables_are_named_by_one_two_or_three_parts() {
    let source = server(16).create_database("source");
    source.execute(
        "CREATE SCHEMA s; CREATE TABLE s.t (a integer PRIMARY KEY); CREATE TABLE t (a integer PRIMARY KEY);
         CREATE TABLE u (a integer PRIMARY KEY); INSERT INTO s.t VALUES (1); INSERT INTO t VALUES (2); INSERT INTO u VALUES (3)",
    );
    let three = format!("{}.public.t", source.quoted_name());
    for (pattern, wanted) in [("t", "t"), ("public.t", "t"), (three.as_str(), "t"), ("public.*", "t,u")] {
        let target = server(17).create_database("target");
        Pgstream::between("migrate", &source, &target)
            .args(["--method", "copy", "--table", pattern])
            .run()
            .expect_code(0);
        let there = "SELECT string_agg(oid::regclass::text, ',' ORDER BY relname) FROM pg_class
                     WHERE relkind = 'r' AND relnamespace::regnamespace::text IN ('public', 's')";
        assert_eq!(target.value(there), wanted, "{pattern}");
        assert_eq!(target.value("SELECT a FROM t"), "2", "{pattern}");
        let target = server(17).create_database("target");
        Pgstream::between("migrate", &source, &target)
            .args(["--method", "copy", "--exclude-table", pattern])
            .run()
            .expect_code(0);
        let there = target.value(there);
        assert!(wanted.split(',').all(|name| !there.split(',').any(|one| one == name)), "{pattern}: {there}");
        assert!(there.contains("s.t"), "{pattern}: {there}");
    }
}
