//! Every kind of change arrives.

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
