//! Databases in other encodings.

use crate::harness::{Pgstream, compare, server};

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
