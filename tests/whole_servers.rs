//! Whole servers: databases and roles of any name, several at once, each with its own method, state and error.

use serde_json::Value;

use crate::harness::{Cluster, Database, Options, Pgstream, compare};

/// A name that would be a statement, were it not quoted.
const INJECTION: &str = "x\"; DROP DATABASE \"app\"; --";
/// A name with spaces and quotes.
const ODD: &str = "it's an \"odd\" näme";

fn create(cluster: &Cluster, name: &str, clauses: &str) {
    let quoted = format!("\"{}\"", name.replace('"', "\"\""));
    cluster.postgres().execute(&format!("CREATE DATABASE {quoted} {clauses}"));
}

fn fill(database: &Database<'_>, rows: u32) {
    database.execute(&format!(
        "CREATE TABLE numbers (id integer PRIMARY KEY, text text);
         INSERT INTO numbers SELECT i, 'row ' || i FROM generate_series(1, {rows}) i"
    ));
}

fn between(command: &str, source: &Cluster, target: &Cluster) -> Pgstream {
    Pgstream::new(command).args([
        "--source",
        &source.uri("postgres"),
        "--target",
        &target.uri("postgres"),
        "--all-databases",
    ])
}

fn object(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn of<'a>(list: &'a Value, key: &str, name: &str) -> &'a Value {
    let found = list.as_array().and_then(|list| list.iter().find(|one| one[key] == name));
    found.unwrap_or_else(|| panic!("{name} is not in {list:#}"))
}

#[test]
fn a_server_moves_with_its_databases_roles_and_their_properties() {
    let source = Cluster::start(15, &Options::default());
    let target = Cluster::start(17, &Options::default());
    source.postgres().execute(
        "CREATE ROLE boss CREATEDB; CREATE ROLE clerk LOGIN PASSWORD 'secret' CONNECTION LIMIT 3 VALID UNTIL '2099-01-01';
         CREATE ROLE nobody_needs LOGIN; GRANT boss TO clerk WITH ADMIN OPTION;
         ALTER ROLE clerk SET work_mem = '8MB'; CREATE ROLE temporary_one",
    );
    create(
        &source,
        "app",
        "OWNER boss TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' CONNECTION LIMIT 50",
    );
    create(&source, INJECTION, "");
    create(&source, ODD, "");
    create(&source, "closed", "ALLOW_CONNECTIONS false");
    create(&source, "scratch_1", "");
    source.postgres().execute(
        "COMMENT ON DATABASE app IS 'the application''s'; ALTER DATABASE app SET search_path = app, public;
         ALTER ROLE clerk IN DATABASE app SET timezone = 'Asia/Tokyo';
         REVOKE CONNECT ON DATABASE app FROM PUBLIC; GRANT CONNECT ON DATABASE app TO clerk",
    );
    for name in ["app", INJECTION, ODD] {
        fill(&source.database(name), 1000);
    }

    let migrate = || {
        between("migrate", &source, &target).args([
            "--method",
            "copy",
            "--exclude-database",
            "scratch_*, no_such_one",
            "--exclude-role",
            "temp*",
            "--json",
        ])
    };
    // One database allows no connections, so that something was left out.
    let said = object(&migrate().run().expect_code(3).stdout);
    assert_eq!(said["migration"]["status"], "done", "{said:#}");
    assert_eq!(said["migration"]["method"], "copy");
    let names: Vec<_> =
        said["migration_detail"].as_array().expect("a list").iter().map(|one| &one["dbname"]).collect();
    assert_eq!(names.len(), 4, "{said:#}");
    assert_eq!(of(&said["migration_detail"], "dbname", INJECTION)["rows"], 1000);
    assert_eq!(of(&said["passed_over"], "dbname", "closed")["reason"], "it allows no connections");
    for name in ["app", INJECTION, ODD] {
        assert_eq!(compare::rows(&source.database(name), &target.database(name)), Vec::<String>::new());
        let properties = compare::properties(&source.database(name), &target.database(name));
        assert_eq!(properties, Vec::<String>::new());
    }
    let shape =
        "SELECT pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate, datctype, datconnlimit
                 FROM pg_database WHERE datname = 'app'";
    assert_eq!(source.postgres().query(shape), target.postgres().query(shape));
    let roles =
        "SELECT rolname, rolcanlogin, rolcreatedb, rolconnlimit, rolvaliduntil, rolpassword FROM pg_authid
                 WHERE rolname IN ('boss', 'clerk', 'nobody_needs', 'temporary_one') ORDER BY 1";
    let made = target.postgres().query(roles);
    assert_eq!(made, source.postgres().query(roles)[..3]);
    let member = "SELECT admin_option FROM pg_auth_members WHERE roleid = 'boss'::regrole AND member = 'clerk'::regrole";
    assert_eq!(target.postgres().value(member), "t");
    let left_out = "SELECT count(*) FROM pg_database WHERE datname ~ 'scratch|closed'";
    assert_eq!(target.postgres().value(left_out), "0");

    // Again, everything is done; the other commands see all of them.
    let again = object(&migrate().run().expect_code(3).stdout);
    assert_eq!(of(&again["migration_detail"], "dbname", ODD)["already_done"], true);
    let status =
        Pgstream::new("status").args(["--target", &target.uri("template1"), "--all-databases", "--json"]);
    let status = object(&status.run().expect_code(0).stdout);
    assert_eq!(status["migration"], serde_json::json!({ "error": null, "method": "copy", "status": "done" }));
    assert_eq!(of(&status["migration_detail"], "dbname", INJECTION)["rows_done"], 1000);
    let verify = between("verify", &source, &target).args(["--exclude-database", "scratch*", "--json"]);
    let verify = object(&verify.run().expect_code(0).stdout);
    assert_eq!(of(&verify["databases"], "dbname", "app")["equal"], true);
    between("cleanup", &source, &target).args(["--yes"]).run().expect_code(0);
    assert_eq!(target.database("app").value("SELECT to_regnamespace('pgstream') IS NULL"), "t");
}

#[test]
fn one_database_that_fails_stops_no_other_and_methods_mix() {
    let source = Cluster::start(16, &Options::default());
    let target = Cluster::start(17, &Options::default());
    for name in ["followed", "keyless", "taken", "ähnlich"] {
        create(&source, name, "");
        fill(&source.database(name), 100);
    }
    source.database("keyless").execute("CREATE TABLE no_key (a integer)");
    create(&target, "taken", "");
    target.database("taken").execute("CREATE TABLE numbers (somebodys integer)");

    let migrate = || {
        between("migrate", &source, &target).args([
            "--exclude-database=postgres",
            "--json",
            "--stop-when-caught-up",
        ])
    };
    let finished = migrate().args(["--database-jobs", "1"]).run().expect_code(1);
    let said = object(&finished.stdout);
    assert_eq!(said["migration"]["status"], "failed");
    assert_eq!(said["migration"]["method"], "");
    let detail = |name: &str| of(&said["migration_detail"], "dbname", name).clone();
    assert_eq!(detail("followed")["method"], "replication");
    assert_eq!(detail("ähnlich")["status"], "done");
    assert_eq!(detail("keyless")["method"], "copy");
    assert!(
        detail("keyless")["fallback"][0].as_str().expect("text").contains("REPLICA IDENTITY FULL"),
        "{said:#}"
    );
    assert_eq!(detail("taken")["status"], "failed");
    assert!(detail("taken")["error"].as_str().expect("text").contains("exists already"), "{said:#}");
    assert!(finished.stderr.contains("taken: ended: "), "{}", finished.stderr);

    // What was mended goes on; what is done stays.
    target.database("taken").execute("DROP TABLE numbers");
    migrate().run().expect_code(0);
    for name in ["followed", "keyless", "taken", "ähnlich"] {
        assert_eq!(compare::rows(&source.database(name), &target.database(name)), Vec::<String>::new());
    }
}

#[test]
fn a_database_that_can_not_be_read_keeps_no_other_from_being_checked() {
    let source = Cluster::start(16, &Options::default());
    let target = Cluster::start(17, &Options::default());
    source.postgres().execute("CREATE ROLE reader LOGIN");
    for name in ["hidden", "seen", "shut"] {
        create(&source, name, "");
        fill(&source.database(name), 10);
    }
    source.database("hidden").execute("REVOKE SELECT ON pg_catalog.pg_settings FROM PUBLIC");
    source.database("seen").execute("GRANT SELECT ON numbers TO reader");
    source.postgres().execute("REVOKE CONNECT ON DATABASE shut FROM PUBLIC");
    let run = |command: &str| {
        Pgstream::new(command)
            .args([
                "--source",
                &source.uri_as("reader", None, "postgres"),
                "--target",
                &target.uri("postgres"),
            ])
            .args(["--all-databases", "--exclude-database", "postgres", "--method", "copy"])
            .run()
    };
    let said = run("check").expect_code(2);
    said.expect_words(&[
        "database \"hidden\":\nblocker: database: could not read",
        "permission denied for view pg_settings",
        "database \"seen\":\n",
        "is passed over: role \"reader\" has no CONNECT right on it",
        "GRANT CONNECT ON DATABASE \"shut\" TO \"reader\"",
        "not ready: 1 blocker",
    ]);
    run("migrate").expect_code(1).expect_words(&["hidden: ended: could not read"]);
    assert_eq!(target.database("seen").value("SELECT count(*) FROM numbers"), "10");
}

#[test]
fn streams_of_a_whole_server_are_cut_over_together() {
    let source = Cluster::start(17, &Options::default());
    let target = Cluster::start(18, &Options::default());
    for name in ["one", "two", "three"] {
        create(&source, name, "");
        fill(&source.database(name), 100);
    }
    let migrate = || {
        between("migrate", &source, &target)
            .args(["--exclude-database", "postgres", "--database-jobs", "1", "--json"])
            .spawn()
    };
    let running = migrate();
    let status = || {
        Pgstream::new("status").args(["--target", &target.uri("postgres"), "--all-databases", "--json"]).run()
    };
    let until_all_follow = || {
        let begun = std::time::Instant::now();
        loop {
            let now = status();
            let all_follow = now.code == Some(0) && {
                let now = object(&now.stdout);
                let followed = |one: &Value| one["status"] == "syncing" && one["worker"].is_string();
                now["migration_detail"].as_array().is_some_and(|a| a.len() == 3 && a.iter().all(followed))
            };
            if all_follow {
                break;
            }
            assert!(begun.elapsed().as_secs() < 100, "{now:?}");
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    };
    // One at a time is copied, and yet all are followed.
    until_all_follow();
    running.signal("INT");
    let stopped = object(&running.wait().expect_code(4).stdout);
    assert_eq!(stopped["migration"]["method"], "replication", "{stopped:#}");
    let details = stopped["migration_detail"].as_array().expect("a list");
    let went_on = |one: &Value| one["method"] == "replication" && one["stopped"] == true;
    assert!(details.len() == 3 && details.iter().all(went_on), "{stopped:#}");
    source.database("two").execute("INSERT INTO numbers VALUES (0, 'late')");
    let running = migrate();
    until_all_follow();
    let cutover = between("cutover", &source, &target).args(["--json"]).run().expect_code(0);
    assert_eq!(object(&cutover.stdout)["migration"]["status"], "done");
    running.wait().expect_code(0);
    for name in ["one", "two", "three"] {
        assert_eq!(compare::rows(&source.database(name), &target.database(name)), Vec::<String>::new());
    }
    assert_eq!(source.postgres().value("SELECT count(*) FROM pg_replication_slots"), "0");
}

#[test]
fn a_missing_database_is_created_or_said_how_to() {
    let source = Cluster::start(15, &Options::default());
    let target = Cluster::start(18, &Options::default());
    create(
        &source,
        ODD,
        "TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'de-u-co-phonebk'",
    );
    fill(&source.database(ODD), 10);
    target.postgres().execute("CREATE ROLE plain LOGIN; CREATE ROLE maker LOGIN CREATEDB");
    let with = |command: &str, user: &str| {
        Pgstream::new(command).args([
            "--source",
            &source.uri(ODD),
            "--target",
            &target.uri_as(user, None, ODD),
        ])
    };

    with("check", "plain").run().expect_code(2).expect_words(&[
        "does not exist, and role \"plain\" may not create it",
        "CREATE DATABASE \"it's an \"\"odd\"\" näme\" TEMPLATE template0",
        "ALTER ROLE \"plain\" CREATEDB;",
    ]);
    with("migrate", "plain").run().expect_code(2);
    with("migrate", "postgres")
        .args(["--no-create-database"])
        .run()
        .expect_code(2)
        .expect_words(&["does not exist", "CREATE DATABASE"]);
    with("check", "maker").run().expect_code(0).expect_words(&["does not exist and will be created"]);
    with("migrate", "postgres").args(["--method", "copy"]).run().expect_code(0);
    let shape = "SELECT datlocprovider, pg_encoding_to_char(encoding), datcollate FROM pg_database WHERE datname LIKE 'it%'";
    assert_eq!(source.postgres().query(shape), target.postgres().query(shape));
    assert_eq!(
        target.postgres().value("SELECT datlocale FROM pg_database WHERE datname LIKE 'it%'"),
        "de-u-co-phonebk"
    );
    assert_eq!(compare::rows(&source.database(ODD), &target.database(ODD)), Vec::<String>::new());
}

#[test]
fn roles_whose_passwords_are_hidden_get_placeholders_that_only_the_operator_sees() {
    let source = Cluster::start(16, &Options::default());
    let target = Cluster::start(17, &Options { auth: crate::harness::Auth::Scram, ..Options::default() });
    source.postgres().execute(
        "CREATE ROLE reader LOGIN PASSWORD 'hidden'; CREATE ROLE group_role;
         CREATE ROLE asker LOGIN SUPERUSER; GRANT group_role TO reader WITH INHERIT FALSE, SET FALSE;
         CREATE DATABASE app OWNER reader",
    );
    let app = source.database("app");
    app.execute("CREATE TABLE t AS SELECT 1 AS a; ALTER TABLE t OWNER TO reader; GRANT SELECT ON t TO group_role, asker");
    let file = tempfile::tempdir().expect("a folder");
    let path = file.path().join("passwords");
    let path = path.to_str().expect("UTF-8");
    let finished = Pgstream::new("migrate")
        .args([
            "--source",
            &source.uri_as("reader", None, "app"),
            "--target",
            &target.uri("app"),
            "--method",
            "copy",
            "--role-password-file",
            path,
            "-vvv",
        ])
        .run()
        .expect_code(0);
    let lines = std::fs::read_to_string(path).expect("the file is there");
    let password =
        lines.lines().find_map(|line| line.strip_prefix("*:*:*:reader:")).expect("a line").to_owned();
    assert!(!format!("{}{}", finished.stdout, finished.stderr).contains(&password), "{finished:?}");
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).expect("the file is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // It works, and only it.
    let login = |password: &str| {
        Pgstream::new("status").args(["--target", &target.uri_as("reader", Some(password), "app")]).run()
    };
    login(&password).expect_code(1).expect_words(&["permission denied for schema pgstream"]);
    login("hidden").expect_code(2).expect_words(&["password authentication failed"]);
    let options = "SELECT inherit_option, set_option FROM pg_auth_members WHERE member = 'reader'::regrole AND roleid = 'group_role'::regrole";
    assert_eq!(target.postgres().query(options), [["f", "f"]]);

    // Roles that exist are kept as they are.
    target.postgres().execute("ALTER ROLE reader CONNECTION LIMIT 5");
    create(&source, "second", "OWNER reader");
    Pgstream::new("migrate")
        .args(["--source", &source.uri("second"), "--target", &target.uri("second"), "--method", "copy"])
        .run()
        .expect_code(0);
    assert_eq!(target.postgres().value("SELECT rolconnlimit FROM pg_roles WHERE rolname = 'reader'"), "5");
}

#[test]
fn a_target_role_without_superuser_says_which_roles_it_could_not_make_whole() {
    let source = Cluster::start(16, &Options::default());
    let target = Cluster::start(17, &Options::default());
    source.postgres().execute(
        "CREATE ROLE big SUPERUSER LOGIN; CREATE ROLE streams REPLICATION LOGIN; CREATE ROLE small LOGIN;
         ALTER ROLE small SET log_statement = 'all'; CREATE ROLE rds_superuser; CREATE DATABASE app",
    );
    target.postgres().execute("CREATE ROLE maker LOGIN CREATEDB CREATEROLE");
    let finished = Pgstream::new("migrate")
        .args([
            "--source",
            &source.uri("postgres"),
            "--target",
            &target.uri_as("maker", None, "postgres"),
            "--all-databases",
            "--exclude-database",
            "postgres",
            "--method",
            "copy",
            "--json",
        ])
        .run();
    let said = object(&finished.stdout);
    let role = |name: &str| of(&said["roles"], "name", name).clone();
    assert_eq!(finished.code, Some(3), "{finished:?}");
    for (name, word) in [("big", "SUPERUSER"), ("streams", "REPLICATION"), ("small", "log_statement")] {
        assert_eq!(role(name)["status"], "partial", "{said:#}");
        assert!(role(name)["reason"].as_str().expect("text").contains(word), "{said:#}");
    }
    assert!(said["roles"].as_array().expect("a list").iter().all(|role| role["name"] != "rds_superuser"));
    assert_eq!(said["migration"]["status"], "done");
}
