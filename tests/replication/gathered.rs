//! Changes that are gathered and applied together leave what one by one they would.

use bytes::BytesMut;
use pgstream::replication::OnConflict;
use pgstream_proto::binary;
use pgstream_proto::lsn::Lsn;

use super::stream::Stream;
use crate::harness::server;

#[test]
fn changes_that_meet_in_a_key_end_as_on_the_source() {
    let stream = Stream::between(
        server(15),
        server(18),
        "CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE two (a int, b text, v int, PRIMARY KEY (b, a)); CREATE TABLE bare (a int, v text)",
    );
    // Both as one transaction and as many, which are applied as a few.
    for around in ["BEGIN;", ""] {
        let end = if around.is_empty() { "" } else { "COMMIT;" };
        stream.source.execute(&format!(
            "TRUNCATE t, two; {around} INSERT INTO t SELECT n, 'new' FROM generate_series(1, 300) n; \
             INSERT INTO two SELECT n % 7, n::text, 0 FROM generate_series(1, 300) n; \
             UPDATE t SET v = 'once'; UPDATE two SET v = v + 1; UPDATE t SET v = v || ' twice' WHERE id % 2 = 0; \
             DELETE FROM t WHERE id % 3 = 0; INSERT INTO t SELECT n, 'again' FROM generate_series(1, 300) n WHERE n % 6 = 0; \
             INSERT INTO bare SELECT n, 'x' FROM generate_series(1, 60) n; \
             UPDATE t SET v = v || ' again' WHERE id % 4 = 0; DELETE FROM t WHERE id % 10 = 0; DELETE FROM two WHERE a = 3; \
             INSERT INTO t VALUES (10, 'last'); UPDATE two SET v = two.v + t.id FROM t WHERE t.id = two.a; {end}"
        ));
        stream.source.execute(
            "DO $$ BEGIN FOR n IN 1..80 LOOP UPDATE t SET v = n WHERE id = 1; UPDATE t SET v = v || n WHERE id = n; COMMIT; END LOOP; END $$",
        );
        stream.catch_up();
        assert!(stream.expect_same("SELECT * FROM t ORDER BY id").len() > 200);
        stream.expect_same("SELECT * FROM two ORDER BY b, a");
        stream.expect_same("SELECT a, count(*) FROM bare GROUP BY a ORDER BY a");
    }
}

#[test]
fn keys_that_change_from_row_to_row_arrive_in_order() {
    let stream = Stream::between(
        server(15),
        server(15),
        "CREATE TABLE t (id int PRIMARY KEY, v int); CREATE TABLE f (id int PRIMARY KEY, v int); ALTER TABLE f REPLICA IDENTITY FULL",
    );
    for table in ["t", "f"] {
        stream.source.execute(&format!(
            "INSERT INTO {table} SELECT n, n FROM generate_series(1, 200) n; UPDATE {table} SET v = v + 1; \
             BEGIN; UPDATE {table} SET id = 1000 WHERE id = 1; UPDATE {table} SET v = 0 WHERE id = 1000; UPDATE {table} SET id = 2000 WHERE id = 1000; \
             UPDATE {table} SET id = 1 WHERE id = 2; UPDATE {table} SET v = v * 2; UPDATE {table} SET id = 2 WHERE id = 2000; COMMIT; \
             UPDATE {table} SET id = id + 5000; DELETE FROM {table} WHERE id < 5100; UPDATE {table} SET v = -v"
        ));
    }
    stream.catch_up();
    for table in ["t", "f"] {
        assert_eq!(stream.expect_same(&format!("SELECT * FROM {table} ORDER BY id")).len(), 101);
    }
}

#[test]
fn unique_values_that_pass_from_row_to_row_arrive_in_order() {
    let stream = Stream::between(
        server(15),
        server(15),
        "CREATE TABLE u (id int PRIMARY KEY, k int UNIQUE); \
         CREATE TABLE x (id int PRIMARY KEY, r int4range, EXCLUDE USING gist (r WITH &&)); \
         CREATE TABLE e (id int PRIMARY KEY, v text); CREATE UNIQUE INDEX ON e (lower(v)) WHERE id > 0",
    );
    stream.source.execute(
        "INSERT INTO u SELECT n, n FROM generate_series(1, 100) n; INSERT INTO x SELECT n, int4range(n, n + 1) FROM generate_series(1, 100) n; \
         INSERT INTO e SELECT n, 'V' || n FROM generate_series(1, 100) n",
    );
    stream.source.execute(
        "DO $$ BEGIN FOR n IN 1..99 LOOP \
           DELETE FROM u WHERE id = n; UPDATE u SET k = n WHERE id = n + 1; INSERT INTO u VALUES (n, n + 1000); \
           UPDATE x SET r = int4range(n + 500, n + 501) WHERE id = n; UPDATE x SET r = int4range(n, n + 1) WHERE id = n + 1; \
           DELETE FROM e WHERE id = n; UPDATE e SET v = 'v' || n WHERE id = n + 1; \
           END LOOP; END $$; \
         DELETE FROM u WHERE id > 20; DELETE FROM x WHERE id > 20",
    );
    stream.catch_up();
    for table in ["u", "x", "e"] {
        stream.expect_same(&format!("SELECT * FROM {table} ORDER BY id"));
    }
}

/// The LSN that an error names.
fn named(error: &pgstream::error::Error) -> Lsn {
    let text = error.to_string();
    let lsn = text.split("source LSN ").nth(1).and_then(|rest| rest.split(':').next());
    lsn.expect("the error names an LSN").parse().expect("it is one")
}

#[test]
fn a_row_that_is_missing_among_many_is_named_with_its_own_transaction() {
    let mut stream = Stream::between(
        server(15),
        server(15),
        "CREATE TABLE t (id int PRIMARY KEY, v int); CREATE TABLE d (id int PRIMARY KEY)",
    );
    let position = |stream: &Stream<'_>| -> Lsn {
        stream.source.value("SELECT pg_current_wal_insert_lsn()").parse().expect("PostgreSQL writes an LSN")
    };
    let one_by_one = |stream: &Stream<'_>, statement: &str, from: u32, to: u32| {
        stream.source.execute(&format!(
            "DO $$ BEGIN FOR n IN {from}..{to} LOOP {statement} WHERE id = n; COMMIT; END LOOP; END $$"
        ));
    };
    stream
        .source
        .execute("INSERT INTO t SELECT n, 0 FROM generate_series(1, 300) n; INSERT INTO d SELECT id FROM t");
    stream.catch_up();
    stream.target.execute("DELETE FROM t WHERE id = 150; DELETE FROM d WHERE id = 150");
    one_by_one(&stream, "UPDATE t SET v = 1", 1, 149);
    let before = position(&stream);
    one_by_one(&stream, "UPDATE t SET v = 1", 150, 150);
    let after = position(&stream);
    one_by_one(&stream, "UPDATE t SET v = 1", 151, 300);
    let error = stream.try_catch_up().unwrap_err();
    assert!(error.to_string().starts_with("could not update table \"public.t\" at source LSN "), "{error}");
    assert!(error.to_string().ends_with(": the row is not on the target"), "{error}");
    assert!(before <= named(&error) && named(&error) < after, "{before} {error} {after}");
    assert_eq!(stream.target.value("SELECT count(*) FROM t WHERE v = 1"), "149");

    stream.options.on_conflict = OnConflict::Skip;
    stream.catch_up();
    assert_eq!(stream.progress.snapshot().conflicts, 1);
    assert_eq!(stream.target.value("SELECT sum(v) FROM t"), "299");

    // In one transaction, with a delete that finds nothing too.
    stream.options.on_conflict = OnConflict::Stop;
    stream.source.execute("BEGIN; UPDATE t SET v = 2 WHERE id <> 150; DELETE FROM d; COMMIT");
    let error = stream.try_catch_up().unwrap_err();
    assert!(
        error.to_string().starts_with("could not delete from table \"public.d\" at source LSN "),
        "{error}"
    );
    assert_eq!(
        stream.target.value("SELECT count(*) FROM d"),
        "299",
        "the transaction is applied whole or not at all"
    );
    assert_eq!(stream.target.value("SELECT max(v) FROM t"), "1");
    stream.options.on_conflict = OnConflict::Skip;
    stream.catch_up();
    assert_eq!(stream.progress.snapshot().conflicts, 2);
    assert_eq!(stream.target.value("SELECT count(*) FROM d"), "0");
    assert_eq!(stream.target.value("SELECT sum(v) FROM t"), "598");
}

#[test]
fn rows_with_most_keys_of_a_range_are_found_by_reading_it_once() {
    for (source, target) in [(15, 15), (10, 18)] {
        let stream = Stream::between(
            server(source),
            server(target),
            "CREATE TABLE i (id int PRIMARY KEY, v int); CREATE TABLE s (id smallint PRIMARY KEY, v text); \
             CREATE TABLE b (id bigint PRIMARY KEY, v text)",
        );
        stream.source.execute(
            "INSERT INTO i SELECT n, 0 FROM generate_series(-1000, 5000) n; \
             INSERT INTO s SELECT n, 'new' FROM generate_series(-32768, -31000) n; \
             INSERT INTO b SELECT 9223372036854775807 - n, 'new' FROM generate_series(0, 2000) n",
        );
        stream.catch_up();
        let scans = || -> u32 {
            let scans = "SELECT sum(idx_scan) FROM pg_stat_user_indexes WHERE relname IN ('i', 's', 'b')";
            stream.target.value(scans).parse().expect("it is a number")
        };
        let before = scans();
        stream.source.execute(
            "UPDATE i SET v = v + 1 WHERE id BETWEEN -500 AND 2499; DELETE FROM i WHERE id BETWEEN 0 AND 1500 AND id % 3 <> 0; \
             UPDATE s SET v = 'changed'; UPDATE b SET v = v || id WHERE id % 2 = 0",
        );
        stream.catch_up();
        assert!(scans() - before < 100, "{} scans", scans() - before);
        assert_eq!(stream.expect_same("SELECT * FROM i ORDER BY id").len(), 5001);
        stream.expect_same("SELECT * FROM s ORDER BY id");
        stream.expect_same("SELECT * FROM b ORDER BY id");

        // Far from each other, each is looked for: there may be any number of rows between.
        stream.source.execute("UPDATE i SET v = -1 WHERE id % 4 = 0; DELETE FROM b WHERE id % 5 = 0");
        stream.catch_up();
        stream.expect_same("SELECT * FROM i ORDER BY id");
        stream.expect_same("SELECT * FROM b ORDER BY id");

        stream.target.execute("DELETE FROM i WHERE id = 3333");
        stream.source.execute("UPDATE i SET v = 5 WHERE id > 2000");
        let error = stream.try_catch_up().unwrap_err();
        assert!(error.to_string().ends_with(": the row is not on the target"), "{error}");
        assert_eq!(stream.target.value("SELECT count(*) FROM i WHERE v = 5"), "0");
    }
}

#[test]
fn values_of_every_kind_are_exact_in_updates_of_many_rows() {
    let schema = "CREATE TYPE mood AS ENUM ('sad', 'it''s \"ok\"'); CREATE TYPE pair AS (a int, b text); \
        CREATE DOMAIN short AS varchar(5) CHECK (value <> 'no'); CREATE DOMAIN ints AS int[]; \
        CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, n numeric(20, 5), free numeric, f float8, g float4, d date, ts timestamp(3), \
          tz timestamptz, iv interval, by bytea, j json, jb jsonb, m mood, p pair, s short, li ints, tt text[], two int[][], c char(5), b bit(3), vb varbit, \
          r int4range, mr int4multirange, ip inet, u uuid, bo boolean, mo money, doubled numeric GENERATED ALWAYS AS (n * 2) STORED); \
        CREATE TABLE k (a uuid, b timestamptz, c text, d date, v xml, ch \"char\", na name, PRIMARY KEY (a, b, c, d))";
    let stream = Stream::between(server(15), server(17), schema);
    stream.source.execute("INSERT INTO t (n) SELECT n FROM generate_series(1, 120) n; \
        INSERT INTO k SELECT md5(n::text)::uuid, '2024-01-01'::timestamptz + n * interval '1.5 s', 'k' || n, '4000-01-01 BC'::date + n, '<a/>' FROM generate_series(1, 90) n");
    stream.catch_up();
    stream.source.execute(
        r#"UPDATE t SET n = 'NaN', free = '-Infinity', f = '-0', g = 'NaN', d = '4713-01-01 BC', ts = '294276-12-31 23:59:59.999', tz = '4713-01-01 00:00:00+00 BC',
             iv = '1 year -2 mons 3.5 sec', by = '\x00ff5c', j = '{"a" : 1e400, "a": null}', jb = '{"b": [1, null]}', m = 'it''s "ok"', p = ROW(1, 'x "y" \ ,'),
             s = 'abcde', li = '{1,NULL}', tt = ARRAY['a,b', NULL, '', 'NULL', '"\'], two = '[0:1][1:2]={{1,2},{3,4}}', c = 'ab', b = B'101', vb = B'1', r = '[1,5)',
             mr = '{[1,3),[5,6)}', ip = '::1/64', u = 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', bo = true, mo = 12.34 WHERE id <= 60;
           UPDATE t SET free = 1.50, n = 0, f = 1e-310, g = 1.17549435e-38, d = 'infinity', ts = '-infinity', tz = 'infinity', by = '', j = '[]', jb = 'null', m = 'sad',
             p = ROW(NULL, ''), s = '', li = '{}', tt = '{}', c = '', vb = B'', r = 'empty', mr = '{}', bo = false WHERE id > 60 AND id <= 115;
           UPDATE k SET v = ('<b>' || c || '</b>')::xml; DELETE FROM k WHERE d > '4000-01-20 BC'"#,
    );
    stream.catch_up();
    stream
        .source
        .execute("UPDATE t SET tt = tt || 'more'::text WHERE id < 100; UPDATE k SET ch = '\\377', na = c");
    stream.catch_up();
    assert_eq!(stream.expect_same("SELECT t::text FROM t ORDER BY id").len(), 120);
    stream.expect_same("SELECT k::text FROM k ORDER BY c");
}

#[test]
fn binary_forms_are_those_of_the_server() {
    const VALUES: &[(u32, &str, &str)] = &[
        (16, "bool", "n % 2 = 0"),
        (20, "int8", "(n::numeric * n * n * n * 8000001)::int8"),
        (21, "int2", "n * 32"),
        (23, "int4", "n * 2147483"),
        (700, "float4", "(n / 7.0) * power(10::float8, n % 30)"),
        (701, "float8", "(n / 7.0) * power(10::float8, n % 300)"),
        (1082, "date", "'4000-01-01'::date + n * 1460"),
        (1114, "timestamp", "'4000-06-05 04:03:02.1'::timestamp + n * interval '1460 days 1.000301 seconds'"),
        (1184, "timestamptz", "'4000-06-05 04:03:02Z'::timestamptz + n * interval '1460 days 0.33 seconds'"),
        (1700, "numeric", "round(n / 7.0 * power(10::numeric, n % 40), abs(n) % 21)"),
        (2950, "uuid", "md5(n::text)::uuid"),
    ];
    for major in [10, 15, 18] {
        let database = server(major).postgres();
        for (type_oid, name, value) in VALUES {
            // Their functions are named after them, but for two.
            let send = match *name {
                "date" | "timestamp" | "timestamptz" | "numeric" | "uuid" => format!("{name}_send"),
                _ => format!("{name}send"),
            };
            let rows = database.query(&format!(
                "SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET extra_float_digits = 3; \
                 SELECT v::text, encode({send}(v), 'hex') FROM (SELECT ({value})::{name} AS v FROM generate_series(-1000, 1000) n) x"
            ));
            let mut known = 0;
            for row in &rows {
                let [text, expected] = &row[..] else { panic!("two columns") };
                // The output function writes one letter, unlike the cast.
                let text = if *name == "bool" { &text[..1] } else { text };
                let mut out = BytesMut::new();
                if binary::append(*type_oid, text.as_bytes(), &mut out).is_some() {
                    let hex: String = out.iter().map(|byte| format!("{byte:02x}")).collect();
                    assert_eq!(hex, *expected, "{name} {text} of {major}");
                    known += 1;
                }
            }
            assert!(known > 1500, "{known} of {} values of type {name}", rows.len());
        }
    }
}

#[test]
fn with_full_identity_runs_with_nulls_and_rows_alike_arrive() {
    let stream = Stream::between(
        server(15),
        server(15),
        "CREATE TABLE t (a int, b numeric, c json); ALTER TABLE t REPLICA IDENTITY FULL; \
         CREATE TABLE k (id int PRIMARY KEY, v text); ALTER TABLE k REPLICA IDENTITY FULL",
    );
    stream.source.execute(
        "INSERT INTO t SELECT n % 30, CASE WHEN n % 3 = 0 THEN NULL WHEN n % 3 = 1 THEN 1.0 ELSE 1.00 END, CASE n % 5 WHEN 0 THEN NULL ELSE '{}' END::json \
           FROM generate_series(1, 200) n; \
         INSERT INTO k SELECT n, CASE WHEN n % 2 = 0 THEN 'v' END FROM generate_series(1, 200) n; \
         DELETE FROM t WHERE ctid IN (SELECT min(ctid::text)::tid FROM t GROUP BY a, b::text); UPDATE t SET a = NULL WHERE a < 10; \
         UPDATE k SET v = v || 'w'; UPDATE k SET v = 'x' WHERE v IS NULL AND id > 50; DELETE FROM k WHERE id % 3 = 0; DELETE FROM t WHERE a IS NULL AND b IS NULL",
    );
    stream.catch_up();
    stream.expect_same("SELECT a, b::text, c::text, count(*) FROM t GROUP BY 1, 2, 3 ORDER BY 1, 2, 3");
    stream.expect_same("SELECT * FROM k ORDER BY id");
}

#[test]
fn triggers_that_act_always_see_the_other_tables_as_they_were() {
    let source = server(15).create_database("source");
    let target = server(15).create_database("target");
    let schema =
        "CREATE TABLE seen (id int PRIMARY KEY, v int); CREATE TABLE t (id int PRIMARY KEY, total int)";
    source.execute(schema);
    target.execute(schema);
    target.execute(
        "CREATE TABLE log (id int, total bigint); \
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS \
           $$ BEGIN INSERT INTO public.log SELECT NEW.id, sum(v) FROM public.seen; RETURN NEW; END $$; \
         CREATE TRIGGER note AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION note(); ALTER TABLE t ENABLE ALWAYS TRIGGER note",
    );
    let stream = Stream::over(source, target);
    stream.source.execute(
        "DO $$ BEGIN FOR n IN 1..100 LOOP INSERT INTO seen VALUES (n, 1); UPDATE seen SET v = v + 1 WHERE id = 1; \
         INSERT INTO t SELECT n, sum(v) FROM seen; END LOOP; END $$",
    );
    stream.catch_up();
    assert_eq!(
        stream.target.value("SELECT count(*) FROM log JOIN t USING (id) WHERE log.total = t.total"),
        "100"
    );
}
