//! Databases in other encodings.

use crate::harness::{Database, Pgstream, compare, server};

#[test]
fn latin1_becomes_utf8() {
    let source = server(12)
        .create_database_with("latin", "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    let target = server(18).create_database("utf8");
    source.execute(
        "CREATE TABLE \"Straße\" (\"ñ\" text, c char(4), v varchar(3), j jsonb, a text[]);
         COMMENT ON TABLE \"Straße\" IS 'é';
         INSERT INTO \"Straße\" VALUES ('äöüß', 'é', 'ÿ¿¡', '{\"ü\": \"ö\"}', '{ä,NULL}'), (NULL, NULL, NULL, NULL, NULL);
         CREATE FUNCTION \"größe\"() RETURNS text LANGUAGE sql AS 'SELECT ''ø''::text';",
    );
    Pgstream::between("migrate", &source, &target).args(["--method", "copy"]).run().expect_code(0);
    assert_eq!(compare::schemas(&source, &target), Vec::<String>::new());
    let rows = "SELECT * FROM \"Straße\" ORDER BY 1";
    assert_eq!(source.query(rows), target.query(rows));
    assert_eq!(target.value("SELECT \"größe\"()"), "ø");
}

#[test]
fn sql_ascii_is_reported_by_check() {
    let source = server(15)
        .create_database_with("ascii", "ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    source.execute("CREATE TABLE t (a text); INSERT INTO t VALUES (E'\\xE9')");
    let target = server(15).create_database("utf8");
    Pgstream::between("check", &source, &target).run().expect_code(0).expect_words(&[
        "warning",
        "SQL_ASCII",
        "hint:",
    ]);
}

/// Moves by replication, with a change while it is followed.
fn follow(source: &Database<'_>, target: &Database<'_>, change: &str) {
    let running = Pgstream::between("migrate", source, target)
        .args(["--method", "replication", "--stop-when-caught-up", "--max-replication-lag", "64kB"])
        .spawn();
    // The slot is there before the first row is copied: what comes after it comes by the stream.
    let slot = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database() AND confirmed_flush_lsn IS NOT NULL";
    while source.value(slot) == "0" {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    source.execute(change);
    running.wait().expect_code(0);
}

#[test]
fn changes_in_latin1_arrive_in_utf8() {
    let source = server(15)
        .create_database_with("latin", "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
    let target = server(15).create_database("utf8");
    source.execute(
        "CREATE TABLE \"ß\" (\"ñ\" text PRIMARY KEY, v text); INSERT INTO \"ß\" VALUES ('äöü', 'é')",
    );
    follow(
        &source,
        &target,
        "INSERT INTO \"ß\" SELECT 'ÿ¿¡' || i, 'ü' FROM generate_series(1, 50) i; UPDATE \"ß\" SET v = 'þ' WHERE \"ñ\" = 'äöü'",
    );
    let rows = "SELECT * FROM \"ß\" ORDER BY length(\"ñ\"), \"ñ\" COLLATE \"C\"";
    assert_eq!(source.query(rows), target.query(rows));
    assert_eq!(target.value("SELECT v FROM \"ß\" WHERE \"ñ\" = 'äöü'"), "þ");
}

#[test]
fn bytes_of_no_encoding_are_copied_and_followed_as_they_are() {
    let make = |name| {
        server(15)
            .create_database_with(name, "ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    };
    let (source, target) = (make("source"), make("target"));
    source.execute("CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t SELECT i, E'caf\\xE9' FROM generate_series(1, 50) i");
    follow(
        &source,
        &target,
        "INSERT INTO t SELECT i, E'\\xFF' FROM generate_series(51, 100) i; UPDATE t SET v = E'na\\xEFve' WHERE id < 5",
    );
    let bytes = "SELECT id, encode(v::bytea, 'hex') FROM t ORDER BY id";
    assert_eq!(source.query(bytes), target.query(bytes));
}
