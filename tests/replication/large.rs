//! Values and rows that are large.

use super::stream::Stream;
use crate::harness::server;

#[test]
fn a_row_that_takes_longer_to_arrive_than_the_sources_patience_arrives() {
    let mut stream = Stream::between(
        server(15),
        server(15),
        "CREATE TABLE t (id int PRIMARY KEY, a text, b text); ALTER TABLE t ALTER a SET STORAGE EXTERNAL",
    );
    stream.options.source.options = Some("-c wal_sender_timeout=500ms".to_owned());
    stream.source.execute(
        "INSERT INTO t SELECT n, repeat('abcdefghi' || n, 8000000), repeat('x', 10) FROM generate_series(1, 2) n; UPDATE t SET b = 'y', id = 10 WHERE id = 1",
    );
    stream.catch_up();
    stream.expect_same("SELECT id, md5(a), length(a), b FROM t ORDER BY id");
    assert_eq!(stream.progress.snapshot().reconnects, 0);
}
