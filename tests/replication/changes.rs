//! Every kind of change arrives, and rows end up equal.

use pgstream::replication::OnConflict;

use super::stream::Stream;
use crate::harness::{MAJORS, server};

#[test]
fn inserts_updates_and_deletes_arrive_from_every_major() {
    for major in MAJORS {
        let stream =
            Stream::between(server(major), server(major), "CREATE TABLE t (id int PRIMARY KEY, v text)");
        stream.source.execute("INSERT INTO t SELECT n, 'row ' || n FROM generate_series(1, 100) n");
        stream
            .source
            .execute("UPDATE t SET v = v || ' changed' WHERE id % 2 = 0; DELETE FROM t WHERE id % 5 = 0");
        stream.catch_up();
        assert_eq!(stream.expect_same("SELECT * FROM t ORDER BY id").len(), 80);
        stream.source.execute("UPDATE t SET id = id + 1000 WHERE id < 10; INSERT INTO t VALUES (1, NULL)");
        stream.catch_up();
        stream.expect_same("SELECT * FROM t ORDER BY id");
    }
}

#[test]
fn an_older_source_streams_into_a_newer_target() {
    let stream = Stream::between(
        server(10),
        server(18),
        "CREATE TABLE t (id int PRIMARY KEY, f float8, d numeric(20, 5), ts timestamptz, b bytea)",
    );
    stream.source.execute(
        "INSERT INTO t SELECT n, n / 3.0, n / 7.0, '2024-02-29 12:00:00+02', decode(md5(n::text), 'hex') FROM generate_series(1, 50) n; \
         UPDATE t SET f = 'NaN', ts = '-infinity' WHERE id = 3",
    );
    stream.catch_up();
    stream.expect_same("SELECT id, float8send(f), d, ts, b FROM t ORDER BY id");
}

#[test]
fn unchanged_toast_values_stay_as_they_are() {
    let stream = Stream::between(
        server(15),
        server(15),
        "CREATE TABLE t (id int PRIMARY KEY, small text, large text); ALTER TABLE t ALTER large SET STORAGE EXTERNAL; \
         CREATE TABLE k (id text PRIMARY KEY, v int); ALTER TABLE k ALTER id SET STORAGE EXTERNAL; \
         CREATE TABLE f (id int, small text, large text); ALTER TABLE f ALTER large SET STORAGE EXTERNAL; ALTER TABLE f REPLICA IDENTITY FULL",
    );
    stream.source.execute(
        "INSERT INTO t SELECT n, 'a', repeat(n::text, 5000) FROM generate_series(1, 5) n; \
         INSERT INTO f SELECT * FROM t; INSERT INTO k SELECT repeat(n::text, 2500), n FROM generate_series(1, 3) n",
    );
    stream.catch_up();
    stream.source.execute(
        "UPDATE t SET small = 'b' WHERE id = 1; UPDATE t SET id = 7 WHERE id = 2; UPDATE t SET id = id WHERE id = 3; \
         UPDATE t SET large = NULL WHERE id = 4; UPDATE t SET large = repeat('new', 3000), id = 9 WHERE id = 5; \
         UPDATE f SET small = 'b' WHERE id < 4; DELETE FROM f WHERE id = 3; \
         UPDATE k SET v = v + 10; UPDATE k SET id = id || 'x' WHERE v = 11; DELETE FROM k WHERE v = 12",
    );
    stream.catch_up();
    for table in ["t", "f", "k"] {
        stream.expect_same(&format!("SELECT * FROM {table} ORDER BY 1"));
    }
}

#[test]
fn an_update_of_key_columns_alone_to_the_same_values_changes_nothing() {
    let stream = Stream::between(server(15), server(15), "CREATE TABLE t (a int, b int, PRIMARY KEY (a, b))");
    stream.source.execute("INSERT INTO t VALUES (1, 1), (2, 2); UPDATE t SET a = a, b = b");
    stream.catch_up();
    stream.expect_same("SELECT * FROM t ORDER BY a");
}

#[test]
fn with_full_identity_exactly_one_of_several_rows_alike_is_changed() {
    for major in [10, 15, 18] {
        let stream = Stream::between(
            server(major),
            server(major),
            "CREATE TABLE t (a int, j json, x xml, p point, n numeric, f float4, i interval, c char(5), r int4range, g json[]); \
             ALTER TABLE t REPLICA IDENTITY FULL",
        );
        stream.source.execute(
            r#"INSERT INTO t SELECT 1, '{"a": 1}', '<a/>', '(1,2)', 1.10, 1.1, '1 mon', 'ab', '[1,2]', ARRAY['1'::json] FROM generate_series(1, 3);
               INSERT INTO t VALUES (1, '{"a":1}', '<a/>', '(1,2)', 1.1, 1.1, '30 days', 'ab', '[1,2]', NULL);
               INSERT INTO t VALUES (NULL), (NULL), (NULL);
               INSERT INTO t (a, f, n) VALUES (5, '-0', 0), (5, '0', 0.0)"#,
        );
        stream.catch_up();
        stream.source.execute(
            "DELETE FROM t WHERE ctid = (SELECT ctid FROM t WHERE n::text = '1.10' LIMIT 1); \
             DELETE FROM t WHERE n::text = '1.1'; \
             DELETE FROM t WHERE ctid = (SELECT min(ctid::text)::tid FROM t WHERE a IS NULL); \
             UPDATE t SET a = 2, j = NULL WHERE ctid = (SELECT max(ctid::text)::tid FROM t WHERE a = 1); \
             DELETE FROM t WHERE f::text = '0'; \
             UPDATE t SET c = 'x' WHERE ctid = (SELECT min(ctid::text)::tid FROM t WHERE a IS NULL)",
        );
        stream.catch_up();
        stream.expect_same(
            "SELECT a, j::text, x::text, p::text, n, f::text, i, c, r, g::text FROM t ORDER BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10",
        );
        assert_eq!(stream.target.value("SELECT count(*) FROM t"), "5", "of PostgreSQL {major}");
    }
}

#[test]
fn a_key_of_an_extension_type_and_an_index_identity_find_their_rows() {
    let stream = Stream::between(
        server(15),
        server(15),
        "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN code AS char(4); \
         CREATE TABLE e (m mood, c code, n numeric NOT NULL, v text, PRIMARY KEY (m, c)); \
         CREATE TABLE i (a bytea NOT NULL, b text, v int); CREATE UNIQUE INDEX i_a ON i (a); \
         ALTER TABLE i REPLICA IDENTITY USING INDEX i_a",
    );
    stream.source.execute(
        "INSERT INTO e VALUES ('sad', 'ab', 1, 'x'), ('ok', 'ab', 2, 'y'), ('ok', 'cd', 3, NULL); \
         INSERT INTO i VALUES ('\\x01', 'a', 1), ('\\x', 'b', 2)",
    );
    stream.catch_up();
    stream.source.execute(
        "UPDATE e SET v = 'z' WHERE m = 'ok' AND c = 'ab'; UPDATE e SET c = 'ef' WHERE m = 'sad'; DELETE FROM e WHERE c = 'cd'; \
         UPDATE i SET v = 9 WHERE a = '\\x'; UPDATE i SET a = '\\x02' WHERE v = 1; DELETE FROM i WHERE v = 9",
    );
    stream.catch_up();
    stream.expect_same("SELECT * FROM e ORDER BY m, c");
    stream.expect_same("SELECT * FROM i ORDER BY a");
}

#[test]
fn identity_columns_that_only_the_system_fills_are_kept_and_changed() {
    let stream = Stream::between(
        server(15),
        server(15),
        "CREATE TABLE a (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v int); \
         CREATE TABLE b (k int PRIMARY KEY, id int GENERATED ALWAYS AS IDENTITY, v int); \
         CREATE TABLE c (id int GENERATED ALWAYS AS IDENTITY, v int); ALTER TABLE c REPLICA IDENTITY FULL",
    );
    stream.source.execute(
        "INSERT INTO a (v) SELECT n FROM generate_series(1, 60) n; INSERT INTO b (k, v) SELECT n, n FROM generate_series(1, 5) n; \
         INSERT INTO c (v) SELECT n FROM generate_series(1, 5) n",
    );
    stream.catch_up();
    stream.source.execute(
        "UPDATE a SET v = 0 WHERE id < 10; UPDATE a SET id = DEFAULT WHERE id = 3; UPDATE b SET v = 0 WHERE k = 1; \
         UPDATE b SET id = DEFAULT WHERE k = 2; UPDATE c SET v = 0 WHERE v = 1; UPDATE c SET id = DEFAULT WHERE v = 2",
    );
    stream.catch_up();
    stream.expect_same("SELECT * FROM a ORDER BY id");
    stream.expect_same("SELECT * FROM b ORDER BY k");
    stream.expect_same("SELECT * FROM c ORDER BY id");
    let identity = "SELECT attidentity FROM pg_attribute WHERE attrelid = 'b'::regclass AND attname = 'id'";
    assert_eq!(stream.target.value(identity), "a");
}

#[test]
fn truncate_empties_all_its_tables_at_once_and_restarts_identities() {
    let stream = Stream::between(
        server(15),
        server(15),
        "CREATE TABLE p (id serial PRIMARY KEY); CREATE TABLE c (id int REFERENCES p); CREATE TABLE o (id int PRIMARY KEY); \
         CREATE TABLE parent (id int); CREATE TABLE child () INHERITS (parent)",
    );
    stream.source.execute(
        "INSERT INTO p DEFAULT VALUES; INSERT INTO p DEFAULT VALUES; INSERT INTO c VALUES (1); INSERT INTO o VALUES (1); \
         INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2)",
    );
    stream.catch_up();
    stream.target.execute("SELECT setval('p_id_seq', 100)");
    stream
        .source
        .execute("TRUNCATE p RESTART IDENTITY CASCADE; INSERT INTO o VALUES (2); TRUNCATE ONLY parent");
    stream.catch_up();
    for table in ["p", "c", "o", "parent", "child"] {
        stream.expect_same(&format!("SELECT * FROM {table} ORDER BY 1"));
    }
    assert_eq!(stream.target.value("SELECT nextval('p_id_seq')"), "1");
}

#[test]
fn values_that_swap_places_in_one_transaction_arrive() {
    let stream = Stream::between(
        server(15),
        server(15),
        "CREATE TABLE d (id int PRIMARY KEY, k int UNIQUE DEFERRABLE INITIALLY DEFERRED); CREATE TABLE u (id int PRIMARY KEY, k int UNIQUE)",
    );
    stream.source.execute("INSERT INTO d VALUES (1, 1), (2, 2); INSERT INTO u VALUES (1, 1), (2, 2)");
    stream.catch_up();
    stream.source.execute(
        "UPDATE d SET k = 3 - k; BEGIN; DELETE FROM u WHERE id = 1; UPDATE u SET k = 1 WHERE id = 2; INSERT INTO u VALUES (1, 2); COMMIT",
    );
    stream.catch_up();
    stream.expect_same("SELECT * FROM d ORDER BY id");
    stream.expect_same("SELECT * FROM u ORDER BY id");
}

#[test]
fn any_name_is_a_name() {
    let long = "x".repeat(63);
    let schema = format!(
        r#"CREATE SCHEMA "We""ird %s"; CREATE TABLE "We""ird %s"."Select" ("from" int PRIMARY KEY, "a ""b" text, "ü" int);
           CREATE SCHEMA s1; CREATE SCHEMA s2; CREATE TABLE s1.t (id int PRIMARY KEY); CREATE TABLE s2.t (id int PRIMARY KEY);
           CREATE TABLE "{long}" ("{long}" int PRIMARY KEY)"#
    );
    let stream = Stream::between(server(15), server(15), &schema);
    stream.source.execute(&format!(
        r#"INSERT INTO "We""ird %s"."Select" VALUES (1, 'x', 2); UPDATE "We""ird %s"."Select" SET "ü" = 3;
           INSERT INTO s1.t VALUES (1); INSERT INTO s2.t VALUES (2); INSERT INTO "{long}" VALUES (1); UPDATE "{long}" SET "{long}" = 2"#
    ));
    stream.catch_up();
    for table in [r#""We""ird %s"."Select""#, "s1.t", "s2.t", &format!("\"{long}\"")] {
        assert_eq!(stream.expect_same(&format!("SELECT * FROM {table}")).len(), 1);
    }
}

#[test]
fn tables_without_columns_and_with_the_most_columns_arrive() {
    let columns: Vec<String> = (1..1600).map(|n| format!("c{n} int")).collect();
    let schema = format!("CREATE TABLE z (); CREATE TABLE w (id int PRIMARY KEY, {})", columns.join(", "));
    let stream = Stream::between(server(15), server(15), &schema);
    stream.source.execute(
        "INSERT INTO z DEFAULT VALUES; INSERT INTO z DEFAULT VALUES; INSERT INTO w (id, c1599) SELECT n, n FROM generate_series(1, 60) n; \
         UPDATE w SET c1 = 1 WHERE id < 3; DELETE FROM w WHERE id = 9",
    );
    stream.catch_up();
    stream.expect_same("SELECT count(*) FROM z");
    stream.expect_same("SELECT * FROM w ORDER BY id");
}

#[test]
fn generated_columns_are_made_on_each_side() {
    for major in [12, 18] {
        let stream = Stream::between(
            server(major),
            server(major),
            "CREATE TABLE t (id int PRIMARY KEY, a int, g int GENERATED ALWAYS AS (a * 2) STORED)",
        );
        stream.source.execute("INSERT INTO t (id, a) SELECT n, n FROM generate_series(1, 60) n; UPDATE t SET a = 5 WHERE id = 1");
        stream.catch_up();
        stream.expect_same("SELECT * FROM t ORDER BY id");
    }
}

#[test]
fn columns_are_matched_by_name() {
    let source = server(15).create_database("source");
    let target = server(15).create_database("target");
    source.execute("CREATE TABLE t (gone int, id int PRIMARY KEY, a text, b text); ALTER TABLE t DROP gone");
    target.execute("CREATE TABLE t (b text, x int, a text, id bigint PRIMARY KEY); ALTER TABLE t DROP x");
    let stream = Stream::over(source, target);
    stream.source.execute("INSERT INTO t SELECT n, 'a' || n, 'b' || n FROM generate_series(1, 60) n; UPDATE t SET a = 'z' WHERE id = 1");
    stream.catch_up();
    stream.expect_same("SELECT id, a, b FROM t ORDER BY id");
}

#[test]
fn partitions_arrive_and_rows_move_between_them() {
    for major in [11, 15, 18] {
        let stream = Stream::between(
            server(major),
            server(major),
            "CREATE TABLE p (id int, v text) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (100); \
             CREATE TABLE p2 (v text, id int); ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (100) TO (200); \
             ALTER TABLE p1 ADD PRIMARY KEY (id); ALTER TABLE p2 ADD PRIMARY KEY (id)",
        );
        stream.source.execute("INSERT INTO p SELECT n, 'x' FROM generate_series(0, 199) n; UPDATE p SET id = id + 150 WHERE id = 7 AND v = 'y'");
        stream
            .source
            .execute("DELETE FROM p WHERE id = 150; UPDATE p SET id = 150 WHERE id = 7; TRUNCATE p1");
        stream.catch_up();
        stream.expect_same("SELECT tableoid::regclass::text, id, v FROM p ORDER BY 2");
    }
}

#[test]
fn partitions_that_take_other_rows_on_the_target_are_changed_through_their_root() {
    // The hash of an enum value is that of its OID.
    let schema = "CREATE TYPE letter AS ENUM ('a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'); \
        CREATE TABLE h (l letter, id int, v text, PRIMARY KEY (l, id)) PARTITION BY HASH (l); \
        CREATE TABLE h_0 PARTITION OF h FOR VALUES WITH (MODULUS 2, REMAINDER 0) PARTITION BY LIST (id); \
        CREATE TABLE h_0_1 PARTITION OF h_0 FOR VALUES IN (1); CREATE TABLE h_0_n PARTITION OF h_0 DEFAULT; \
        CREATE TABLE h_1 PARTITION OF h FOR VALUES WITH (MODULUS 2, REMAINDER 1);";
    let fill =
        "INSERT INTO h SELECT l, n, 'v' FROM unnest(enum_range(NULL::letter)) l, generate_series(1, 9) n;";
    for (from, to) in [(12, 18), (18, 18)] {
        let (source, target) = (server(from).create_database("source"), server(to).create_database("target"));
        source.execute(schema);
        target.execute("CREATE TYPE before AS ENUM ('x', 'y', 'z')");
        target.execute(schema);
        let stream = Stream::over(source, target);
        let changes = format!(
            "{fill} UPDATE h SET v = 'changed' WHERE id < 4; DELETE FROM h WHERE id = 5; UPDATE h SET id = 1000 + id WHERE id = 6; \
             UPDATE h SET l = 'b', id = 2000 WHERE l = 'a' AND id = 7; UPDATE h SET l = 'a', id = 3000 WHERE l = 'b' AND id = 8;"
        );
        stream.source.execute(&changes);
        stream.catch_up();
        assert_eq!(stream.expect_same("SELECT * FROM h ORDER BY l, id").len(), 64);
        assert_ne!(
            stream.source.query("SELECT l FROM h_1 GROUP BY l"),
            stream.target.query("SELECT l FROM h_1 GROUP BY l"),
            "the test shows nothing where rows are in the same partitions"
        );
        stream.source.execute(&format!("TRUNCATE h; {changes}"));
        stream.catch_up();
        assert_eq!(stream.expect_same("SELECT * FROM h ORDER BY l, id").len(), 64);
        // Which rows those are can't be told here.
        stream.source.execute("TRUNCATE h_1");
        let error = stream.try_catch_up().expect_err("a part of the tree");
        assert!(error.to_string().contains("could not truncate table \"public.h_1\""), "{error}");
        assert_eq!(stream.target.value("SELECT count(*) FROM h"), "64");
    }
}

#[test]
fn values_of_every_kind_come_out_exact_whatever_the_sources_settings() {
    let source = server(15).create_database("source");
    let target = server(15).create_database("target");
    let schema = "CREATE TYPE c AS (a int, b text); CREATE TYPE m AS ENUM ('a b', 'c'); CREATE DOMAIN d AS int[]; \
         CREATE TABLE t (id int PRIMARY KEY, f4 float4, f8 float8, n numeric, dt date, ts timestamp, tz timestamptz, ttz timetz, iv interval, \
           by bytea, js jsonb, ar int[], ma text[][], co c, en m[], dm d, rg tstzrange, bp char(6), ch \"char\", bt bit(3), mo money, tx text, \
           ne inet, ui uuid, tsv tsvector, rc regclass, bo boolean, xm xml)";
    source.execute(schema);
    target.execute(schema);
    source.execute(&format!(
        "ALTER DATABASE {0} SET datestyle = 'SQL, DMY'; ALTER DATABASE {0} SET intervalstyle = 'iso_8601'; \
         ALTER DATABASE {0} SET extra_float_digits = -5; ALTER DATABASE {0} SET timezone = 'Asia/Kolkata'; \
         ALTER DATABASE {0} SET bytea_output = 'escape'",
        source.quoted_name()
    ));
    let stream = Stream::over(source, target);
    stream.source.execute(
        r#"INSERT INTO t (id, f4, f8, n, dt, ts, tz, ttz, iv) VALUES
             (1, 0.1, 0.30000000000000004, 'NaN', '0044-03-15 BC', 'infinity', '-infinity', '24:00:00+05:30:15', '1 year -2 mons 3.5 sec'),
             (2, '-0', '1e-310', 1e100, '294276-12-31'::timestamp::date, '294276-12-31 23:59:59.999999', '4713-01-01 00:00:00+00 BC', '00:00-12', '-1 day 1 hour'),
             (3, '1.17549435e-38', 1.7976931348623157e308, 0.000, 'infinity', NULL, now(), NULL, NULL);
           INSERT INTO t (id, by, js, ar, ma, co, en, dm, rg, bp, ch, bt, mo, tx, ne, ui, tsv, rc, bo, xm) VALUES
             (4, '\x00ff5c', '{"a": 1e400, "b": null}', '[0:1]={1,2}', '{{a,"b c"},{NULL,""}}', ROW(1, 'x "y" \ '), '{"a b",c}', '{1,NULL}',
              '[2024-01-01,)', 'ab', '', B'101', 12.34, E'tab\tnew\nline\\ back\r\u0001 ü €', '::1/64', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
              '''it''''s'':1A b', 'pg_class', true, '<a b="c">x</a>'),
             (5, '', 'null', '{}', '{}', ROW(NULL, ''), '{}', '{}', 'empty', '', 'x', NULL, NULL, '', NULL, NULL, '', '-', false, 'text only'),
             (6, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, E'\\N', NULL, NULL, NULL, NULL, NULL, NULL)"#,
    );
    // Once more as rows of a COPY and as updates.
    stream.source.execute(
        "CREATE TEMP TABLE copy AS SELECT * FROM t; DO $$ BEGIN FOR i IN 1..20 LOOP UPDATE copy SET id = id + 10; INSERT INTO t SELECT * FROM copy; END LOOP; END $$; \
         UPDATE t SET tx = tx || '!' WHERE id > 100",
    );
    stream.catch_up();
    stream.source.execute(&format!("ALTER DATABASE {} RESET ALL", stream.source.quoted_name()));
    assert_eq!(stream.expect_same("SELECT t::text FROM t ORDER BY id").len(), 126);
}

#[test]
fn a_row_that_is_missing_stops_the_stream_or_is_counted() {
    let mut stream = Stream::between(server(15), server(15), "CREATE TABLE t (id int PRIMARY KEY, v text)");
    stream.source.execute("INSERT INTO t SELECT n, 'secret' FROM generate_series(1, 10) n");
    stream.catch_up();
    stream.target.execute("DELETE FROM t WHERE id = 3");
    stream.source.execute("UPDATE t SET v = 'kept' WHERE id = 1");
    stream.source.execute("UPDATE t SET v = 'missed' WHERE id = 3");
    stream.source.execute("UPDATE t SET v = 'later' WHERE id = 4");
    let error = stream.try_catch_up().unwrap_err();
    assert!(error.to_string().starts_with("could not update table \"public.t\" at source LSN "), "{error}");
    assert!(error.to_string().ends_with(": the row is not on the target"), "{error}");
    assert_eq!(
        stream.target.query("SELECT id, v FROM t WHERE v <> 'secret' ORDER BY id"),
        [["1", "kept"]],
        "what came before the conflict is kept, and nothing after it"
    );
    stream.options.on_conflict = OnConflict::Skip;
    stream.catch_up();
    assert_eq!(stream.progress.snapshot().conflicts, 1);
    assert_eq!(stream.target.value("SELECT v FROM t WHERE id = 4"), "later");
}

#[test]
fn a_change_that_the_target_refuses_is_named_without_its_values() {
    let stream = Stream::between(server(15), server(15), "CREATE TABLE t (id int PRIMARY KEY, v text)");
    stream.target.execute("ALTER TABLE t ADD CONSTRAINT short CHECK (length(v) < 10)");
    stream.source.execute("INSERT INTO t VALUES (1, 'short')");
    stream.source.execute("INSERT INTO t SELECT n, 'a very secret value' FROM generate_series(2, 90) n");
    let error = stream.try_catch_up().unwrap_err();
    assert!(
        error.to_string().starts_with("could not insert into table \"public.t\" at source LSN "),
        "{error}"
    );
    assert!(error.detail().unwrap().contains("SQLSTATE is 23514"), "{error:?}");
    assert!(!format!("{error} {:?} {:?}", error.detail(), error.hint()).contains("secret"));
    assert_eq!(stream.target.query("SELECT id FROM t"), [["1"]]);
    stream.target.execute("ALTER TABLE t DROP CONSTRAINT short");
    stream.catch_up();
    stream.expect_same("SELECT * FROM t ORDER BY id");
}

#[test]
fn triggers_and_foreign_keys_of_the_target_stay_silent() {
    let stream = Stream::between(
        server(15),
        server(15),
        "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE log (what text); \
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.log VALUES (TG_OP); RETURN NEW; END $$; \
         CREATE TRIGGER note AFTER INSERT ON t FOR EACH ROW EXECUTE PROCEDURE note(); \
         CREATE RULE r AS ON INSERT TO log DO ALSO NOTIFY x",
    );
    stream.source.execute("INSERT INTO t SELECT generate_series(1, 60)");
    stream.source.execute("INSERT INTO t VALUES (100)");
    stream.catch_up();
    assert_eq!(stream.expect_same("SELECT count(*) FROM log"), [["61"]]);
}

#[test]
fn without_the_right_to_silence_triggers_order_is_kept() {
    let source = server(15).create_database("source");
    let target = server(15).create_database("target");
    let schema = "CREATE TABLE p (id int PRIMARY KEY, up int REFERENCES p); CREATE TABLE c (id int PRIMARY KEY, p int REFERENCES p); \
                  CREATE TABLE d (id int PRIMARY KEY, k int UNIQUE DEFERRABLE)";
    source.execute(schema);
    target.execute(schema);
    let mut stream = Stream::over(source, target);
    let role = format!("plain_{}", stream.target.name());
    stream.target.execute(&format!(
        "CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA pgstream, public TO {role}; \
         GRANT ALL ON ALL TABLES IN SCHEMA pgstream, public TO {role}"
    ));
    stream.options.target.user = role.clone();
    stream.source.execute(
        "INSERT INTO p VALUES (1, NULL), (2, 1); INSERT INTO c SELECT n, 1 + n % 2 FROM generate_series(1, 50) n; INSERT INTO d VALUES (1, 1), (2, 2)",
    );
    stream.source.execute("BEGIN; DELETE FROM c; DELETE FROM p WHERE id = 2; INSERT INTO p VALUES (3, 1); INSERT INTO c VALUES (1, 3); COMMIT; UPDATE d SET k = 3 - k");
    stream.catch_up();
    for table in ["p", "c", "d"] {
        stream.expect_same(&format!("SELECT * FROM {table} ORDER BY id"));
    }
    stream.target.execute(&format!("DROP OWNED BY {role}; DROP ROLE {role}"));
}
