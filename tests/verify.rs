//! What `verify` says of rows: which ones differ, by their keys, and of a sample as of all.

use serde_json::{Value, json};

use crate::harness::{Database, Pgstream, compare, server};

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

/// What servers write in another way once they have read it, or another major does.
const DEFINITIONS: &str = "
    CREATE TABLE t (id integer PRIMARY KEY, v varchar(10) CHECK (v IN ('a', 'b')), c char(3), CHECK (v NOT IN ('x', 'y') OR c IN ('q', 'r')));
    CREATE TABLE u (id integer CHECK (id BETWEEN 1 AND 10), v text, d date DEFAULT 'now'::text::date, n numeric(5, 2) DEFAULT 1.5, b bit(3) DEFAULT B'101');
    CREATE DOMAIN d AS varchar(5) DEFAULT 'a' CHECK (VALUE IN ('a', 'b')) NOT NULL;
    CREATE INDEX ON t (id) WHERE v IN ('a', 'b'); CREATE INDEX ON u (lower(v), (id + 1) DESC NULLS LAST) WHERE id IN (1, 2, 3);
    ALTER TABLE t ENABLE ROW LEVEL SECURITY;
    CREATE POLICY p ON t USING (c = current_user AND v IN ('a', 'b')) WITH CHECK (EXISTS (SELECT 1 FROM u WHERE u.v = t.v));
    CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER g BEFORE UPDATE OF v ON t FOR EACH ROW WHEN (OLD.v IS DISTINCT FROM NEW.v AND NEW.v IN ('a', 'b')) EXECUTE PROCEDURE f();
    CREATE VIEW one AS SELECT * FROM t WHERE v IN ('a', 'b') AND c IN ('q', 'r');
    CREATE VIEW two AS SELECT u.id, count(*) OVER w AS n, extract(year FROM d) AS y, position('a' IN u.v) AS p, substring(u.v FROM 1 FOR 2) AS s,
      trim(BOTH FROM u.v) AS b, overlay(u.v PLACING 'x' FROM 1) AS o, now() AT TIME ZONE 'UTC' AS z,
      CASE WHEN u.id IS DISTINCT FROM 3 THEN 1 ELSE 2 END AS k, (SELECT max(id) FROM t) AS m, ARRAY(SELECT id FROM t) AS a
      FROM u LEFT JOIN t USING (id) WINDOW w AS (PARTITION BY u.id ORDER BY u.v ROWS BETWEEN 1 PRECEDING AND CURRENT ROW);
    CREATE VIEW three AS WITH RECURSIVE r(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 10) SELECT n, lag(n) OVER (ORDER BY n) FROM r
      UNION (SELECT 5, 6 ORDER BY 1 LIMIT 1) INTERSECT SELECT 1, 2 ORDER BY 1 DESC NULLS LAST;
    CREATE VIEW four AS SELECT x.id, l.v FROM t x JOIN LATERAL (SELECT v FROM u WHERE u.id = x.id LIMIT 1) l ON true
      WHERE EXISTS (SELECT 1 FROM u z WHERE z.id = x.id) ORDER BY x.id;
    CREATE VIEW five AS SELECT DISTINCT ON (v) v, sum(id) FILTER (WHERE id > 1) AS s, grouping(v) AS g FROM u GROUP BY ROLLUP (v), v ORDER BY v;
    CREATE VIEW six AS SELECT i::text AS t, i::numeric(4, 1) AS n, 'x' COLLATE \"C\" < 'y' AS c, -i AS m, (i, 2) IN ((1, 2), (3, 4)) AS r,
      i BETWEEN SYMMETRIC 3 AND 1 AS b, nullif(i, 1) AS u, localtimestamp(2) AS l, o FROM generate_series(1, 2) WITH ORDINALITY g(i, o);
    CREATE VIEW seven AS VALUES (1, 'a'), (2, 'b'); CREATE VIEW eight AS SELECT x.v, (x).id, x AS whole FROM u x;
    CREATE MATERIALIZED VIEW nine AS SELECT v, count(*) FROM t WHERE v IN ('a', 'b') GROUP BY v;
    CREATE RULE r AS ON UPDATE TO u WHERE OLD.id IN (1, 2) AND NEW.v IS DISTINCT FROM OLD.v DO ALSO UPDATE t SET v = 'a' WHERE t.id = NEW.id;
    CREATE COLLATION phonebook (provider = icu, locale = 'de@collation=phonebook'); CREATE COLLATION american (provider = icu, locale = 'en_US');
    CREATE COLLATION strong (provider = icu, locale = 'und@colStrength=primary;colNumeric=yes');
    CREATE COLLATION tag (provider = icu, locale = 'en-u-kn-true-ks-level2'); CREATE TABLE w (a text COLLATE phonebook);";

#[test]
fn what_servers_write_in_their_own_way_is_no_difference() {
    for major in [(10, 18), (13, 17), (15, 15), (15, 18), (18, 18)] {
        let (source, target) = copied(major, DEFINITIONS);
        Pgstream::between("verify", &source, &target).args(["--schema-only"]).run().expect_code(0);
        // Nor is it where psql restored what pg_dump wrote.
        if major.0 == major.1 {
            let restored = server(major.1).create_database("restored");
            let dump = compare::dump_with(&source, &["--no-owner"]);
            restored.execute(&dump.replace("SET transaction_timeout = 0;", ""));
            restored.execute("REFRESH MATERIALIZED VIEW public.nine");
            Pgstream::between("verify", &source, &restored).args(["--schema-only"]).run().expect_code(0);
        }
        target.execute(
            "CREATE OR REPLACE VIEW one AS SELECT * FROM t WHERE v IN ('a', 'c') AND c IN ('q', 'r'); DROP COLLATION american;
             CREATE COLLATION american (provider = icu, locale = 'en-GB');
             ALTER TABLE t DROP CONSTRAINT t_v_check, ADD CONSTRAINT t_v_check CHECK (v IN ('a', 'b', 'c'))",
        );
        let said = Pgstream::between("verify", &source, &target).args(["--schema-only"]).run().expect_code(3);
        said.expect_words(&[
            "VIEW public.one is",
            "COLLATION public.american is",
            "TABLE public.t is",
            "3 differences",
        ]);
    }
}

#[test]
fn what_a_server_would_write_in_another_way_once_it_has_read_it_arrives_as_it_is() {
    for major in [(10, 10), (10, 18), (15, 15), (16, 18), (18, 18)] {
        let (source, target) = copied(major, DEFINITIONS);
        let mut differences = compare::schemas(&source, &target);
        // Bits are written without their mark by newer servers.
        differences.retain(|difference| !(major.0 != major.1 && difference.contains("B'101'")));
        assert_eq!(differences, Vec::<String>::new(), "{major:?}");
    }
}

#[test]
fn partitions_that_take_other_rows_elsewhere_are_compared_through_their_root() {
    let schema = "
        CREATE TYPE letter AS ENUM ('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h');
        CREATE TABLE by_enum (l letter, id integer, v text, PRIMARY KEY (l, id)) PARTITION BY HASH (l);
        CREATE TABLE by_enum_0 PARTITION OF by_enum FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE by_enum_1 PARTITION OF by_enum FOR VALUES WITH (MODULUS 2, REMAINDER 1);
        INSERT INTO by_enum SELECT l, n, 'v' FROM unnest(enum_range(NULL::letter)) l, generate_series(1, 100) n;
        CREATE TABLE by_text (t text, v text, PRIMARY KEY (t)) PARTITION BY HASH (t);
        CREATE TABLE by_text_0 PARTITION OF by_text FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE by_text_1 PARTITION OF by_text FOR VALUES WITH (MODULUS 2, REMAINDER 1);
        INSERT INTO by_text SELECT chr(233) || n, 'v' FROM generate_series(1, 100) n;";
    let template = "TEMPLATE template0 LOCALE 'C' ENCODING";
    let together = |table: &str| json!({ "object": format!("TABLE public.{table}"), "partitions": 2 });
    for (encoding, expected) in [
        ("UTF8", json!([together("by_enum")])),
        ("LATIN1", json!([together("by_enum"), together("by_text")])),
    ] {
        let source = server(14).create_database_with("source", &format!("{template} '{encoding}'"));
        let target = server(17).create_database_with("target", &format!("{template} 'UTF8'"));
        target.execute("CREATE TYPE before AS ENUM ('x', 'y', 'z')");
        source.execute(&format!("SET client_encoding = 'UTF8'; {schema}"));
        Pgstream::between("migrate", &source, &target).args(["--method", "copy"]).run().expect_code(0);
        let (code, said) = verify(&source, &target, &[]);
        assert_eq!((code, &said["together"], &said["rows"]), (Some(0), &expected, &json!(900)), "{said:#}");
        target.execute("UPDATE by_enum SET v = 'w' WHERE l = 'c' AND id = 7");
        let (code, said) = verify(&source, &target, &[]);
        assert_eq!(code, Some(3), "{said:#}");
        assert_eq!(keys(&said, "by_enum")["rows"], json!([{ "key": ["c", "7"], "difference": "differs" }]));
        let text = Pgstream::between("verify", &source, &target).run().expect_code(3);
        text.expect_words(&["TABLE public.by_enum: 2 partitions compared together"]);
    }
}
