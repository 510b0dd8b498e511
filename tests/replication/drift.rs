//! The source's schema changes while the stream runs.

use super::stream::Stream;
use crate::harness::server;

#[test]
fn a_new_column_stops_the_stream_before_its_first_row_until_the_target_has_it() {
    let stream = Stream::between(server(15), server(15), "CREATE TABLE t (id int PRIMARY KEY)");
    stream.source.execute("INSERT INTO t VALUES (1)");
    stream.source.execute("ALTER TABLE t ADD n int DEFAULT 5");
    stream.source.execute("INSERT INTO t VALUES (2, 6)");
    let error = stream.try_catch_up().unwrap_err();
    assert_eq!(error.to_string(), "column \"n\" of table \"public.t\" of the source is not on the target");
    assert_eq!(stream.target.query("SELECT * FROM t"), [["1"]]);
    stream.target.execute("ALTER TABLE t ADD n int DEFAULT 5");
    stream.catch_up();
    stream.expect_same("SELECT * FROM t ORDER BY id");
}

#[test]
fn a_changed_type_or_name_stops_the_stream_and_is_named() {
    let stream = Stream::between(
        server(15),
        server(15),
        "CREATE TABLE t (id int PRIMARY KEY, v numeric(10, 1)); CREATE TABLE r (id int PRIMARY KEY)",
    );
    stream.source.execute("ALTER TABLE t ALTER v TYPE numeric(10, 3); INSERT INTO t VALUES (1, 1.234)");
    let error = stream.try_catch_up().unwrap_err();
    assert!(error.to_string().starts_with("column \"v\" of table \"public.t\" has another type"), "{error}");
    stream.target.execute("ALTER TABLE t ALTER v TYPE numeric(10, 3)");
    stream.source.execute("ALTER TABLE r RENAME TO renamed; INSERT INTO renamed VALUES (1)");
    let error = stream.try_catch_up().unwrap_err();
    assert_eq!(error.to_string(), "table \"public.renamed\" of the source is not on the target");
    stream.target.execute("ALTER TABLE r RENAME TO renamed");
    stream.catch_up();
    stream.expect_same("SELECT * FROM t");
    stream.expect_same("SELECT * FROM renamed");
}

#[test]
fn a_column_that_is_dropped_and_a_table_made_again_are_followed() {
    let stream = Stream::between(
        server(15),
        server(15),
        "CREATE TABLE t (a int, id int PRIMARY KEY, b int); CREATE TABLE again (id int PRIMARY KEY)",
    );
    stream.source.execute(
        "BEGIN; INSERT INTO t VALUES (1, 1, 1); ALTER TABLE t DROP a; INSERT INTO t VALUES (2, 2); COMMIT; \
         DROP TABLE again; CREATE TABLE again (id int PRIMARY KEY); INSERT INTO again VALUES (1)",
    );
    stream.catch_up();
    stream.expect_same("SELECT id, b FROM t ORDER BY id");
    stream.expect_same("SELECT * FROM again");
}
