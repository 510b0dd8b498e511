//! What `verify` says of rows: which ones differ, by their keys, and of a sample as of all.

use serde_json::{Value, json};

use crate::harness::{Database, Pgstream, server};

fn verify(source: &Database<'_>, target: &Database<'_>, arguments: &[&str]) -> (Option<i32>, Value) {
    let finished = Pgstream::between("verify", source, target)
        .args(["--data-only", "--json"])
        .args(arguments.iter().copied())
        .run();
    let said = serde_json::from_str(&finished.stdout).unwrap_or_else(|e| panic!("{e}: {finished:?}"));
    (finished.code, said)
}

#[track_caller]
fn copied(major: (u32, u32), schema: &str) -> (Database<'static>, Database<'static>) {
    let (source, target) =
        (server(major.0).create_database("source"), server(major.1).create_database("target"));
    source.execute(schema);
    Pgstream::between("migrate", &source, &target).args(["--method", "copy"]).run().expect_code(0);
    (source, target)
}

fn keys<'a>(said: &'a Value, table: &str) -> &'a Value {
    let list = said["differences"].as_array().expect("a list");
    let found = list.iter().find(|one| one["object"] == format!("TABLE public.{table}"));
    &found.unwrap_or_else(|| panic!("{table} is not in {said:#}"))["keys"]
}

const SCHEMA: &str = "
    CREATE TABLE numbers (id bigint PRIMARY KEY, v text);
    INSERT INTO numbers SELECT i, 'secret ' || i FROM generate_series(1, 20000) i;
    CREATE TABLE pairs (\"the (a)\" text, b integer, c date, v text, PRIMARY KEY (b, \"the (a)\"));
    INSERT INTO pairs VALUES (E'x\\ty, \"z\"', 1, '2024-02-29', 'one'), ('ü', 2, NULL, 'two');
    CREATE TABLE by_index (u integer NOT NULL, v text, n integer UNIQUE); CREATE UNIQUE INDEX ON by_index (u);
    INSERT INTO by_index VALUES (1, 'a', NULL), (2, 'b', NULL);
    CREATE TABLE without_key (n integer UNIQUE, v text); INSERT INTO without_key VALUES (1, 'a');";

#[test]
fn rows_that_differ_are_named_by_their_keys_and_never_by_what_they_hold() {
    for major in [(10, 15), (15, 17)] {
        let (source, target) = copied(major, SCHEMA);
        target.execute(
            "UPDATE numbers SET v = 'other' WHERE id IN (7, 19999); DELETE FROM numbers WHERE id = 10;
             INSERT INTO numbers VALUES (30000, 'new'); UPDATE pairs SET v = 'changed' WHERE b = 1;
             UPDATE by_index SET v = 'x' WHERE u = 2; UPDATE without_key SET v = 'x'",
        );
        let (code, said) = verify(&source, &target, &[]);
        assert_eq!((code, said["rows"].as_u64()), (Some(3), Some(20_005)), "{said:#}");
        let row = |key: &[&str], what: &str| json!({ "key": key, "difference": what });
        let expected = json!({ "columns": ["id"], "more": false, "rows": [
            row(&["7"], "differs"), row(&["10"], "is missing on the target"),
            row(&["19999"], "differs"), row(&["30000"], "is on the target only"),
        ]});
        assert_eq!(*keys(&said, "numbers"), expected);
        assert_eq!(keys(&said, "pairs")["columns"], json!(["b", "the (a)"]));
        assert_eq!(keys(&said, "pairs")["rows"], json!([row(&["1", "x\ty, \"z\""], "differs")]));
        assert_eq!(keys(&said, "by_index")["rows"], json!([row(&["2"], "differs")]));
        assert_eq!(*keys(&said, "without_key"), Value::Null);
        for word in ["secret", "other", "changed"] {
            assert!(!said.to_string().contains(word), "{said:#}");
        }

        let (_, said) = verify(&source, &target, &["--keys", "3"]);
        assert_eq!(keys(&said, "numbers")["more"], true);
        assert_eq!(keys(&said, "numbers")["rows"].as_array().map(Vec::len), Some(3));
        let (_, said) = verify(&source, &target, &["--keys", "0"]);
        assert_eq!(*keys(&said, "numbers"), Value::Null);
        let text = Pgstream::between("verify", &source, &target).args(["--keys", "1"]).run().expect_code(3);
        text.expect_words(&["    key (b, the (a))=(1, x\\ty, \"z\") differs\n", "    and more\n"]);
        assert!(!text.stderr.contains("key ("), "{}", text.stderr);
    }
}

#[test]
fn a_sample_looks_at_some_of_the_rows_and_finds_what_differs_among_them() {
    let (source, target) = copied((15, 18), SCHEMA);
    let (code, said) = verify(&source, &target, &["--sample", "10"]);
    assert_eq!((code, &said["sample_percent"]), (Some(0), &json!(10.0)), "{said:#}");
    // Two thousand of the rows of the large table, give or take: far off is as good as impossible.
    let rows = said["rows"].as_u64().expect("a number");
    assert!((1700..2300).contains(&rows), "{said:#}");
    // What differs in every tenth row is seen in any such sample, whatever the way in which it differs.
    target.execute(
        "UPDATE numbers SET v = '' WHERE id % 10 = 1; DELETE FROM numbers WHERE id % 10 = 2;
         INSERT INTO numbers SELECT i, '' FROM generate_series(30001, 32000) i",
    );
    let (code, said) = verify(&source, &target, &["--sample", "10%", "--keys", "1000"]);
    assert_eq!(code, Some(3), "{said:#}");
    let named = keys(&said, "numbers")["rows"].as_array().expect("a list").clone();
    assert!((400..800).contains(&named.len()), "{}", named.len());
    for what in ["differs", "is missing on the target", "is on the target only"] {
        assert!(named.iter().any(|row| row["difference"] == what), "{what}");
    }
    Pgstream::between("verify", &source, &target)
        .args(["--sample", "0"])
        .run()
        .expect_code(2)
        .expect_words(&["must be more than 0"]);
}
