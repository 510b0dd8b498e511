//! `migrate --section`: pg_dump's sections, one run each, make what one run makes.

use crate::harness::{Cluster, Database, Options, Pgstream, compare, fixture, server};

fn section<'a>(
    source: &Database<'_>,
    target: &Database<'_>,
    names: impl IntoIterator<Item = &'a str>,
) -> Pgstream {
    let arguments: Vec<&str> = names.into_iter().flat_map(|name| ["--section", name]).collect();
    Pgstream::between("migrate", source, target).args(arguments)
}

/// Indexes, and constraints that need rows to be there before.
const LATE: &str = "SELECT (SELECT count(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid WHERE c.relnamespace::regnamespace::text = 'app')
    + (SELECT count(*) FROM pg_constraint WHERE contype IN ('p', 'u', 'f') AND connamespace::regnamespace::text = 'app')";

#[test]
fn sections_taken_one_after_the_other_make_what_one_run_makes() {
    let source = fixture(server(15));
    let cluster = Cluster::start(18, &Options::default());
    let target = cluster.unborn_database("parts");
    for name in ["data", "post-data"] {
        section(&source, &target, [name])
            .run()
            .expect_code(2)
            .expect_words(&["cannot begin with section", "--section pre-data first"]);
    }
    let there = "SELECT count(*) FROM pg_database WHERE datname LIKE 'parts%'";
    assert_eq!(cluster.postgres().value(there), "0", "nothing is touched");

    section(&source, &target, ["pre-data"])
        .run()
        .expect_code(0)
        .expect_words(&["left to do: section data, post-data"]);
    assert_eq!(target.value("SELECT count(*) FROM app.customers"), "0");
    assert_eq!(target.value(LATE), "0");
    for _ in 0..2 {
        section(&source, &target, ["data"])
            .run()
            .expect_code(0)
            .expect_words(&["left to do: section post-data"]);
        let mut rows = compare::rows(&source, &target);
        // Materialized views are filled last.
        rows.retain(|difference| !difference.contains("summary"));
        assert_eq!(rows, Vec::<String>::new());
        assert_eq!(compare::sequences(&source, &target), Vec::<String>::new());
        assert_eq!(compare::large_objects(&source, &target), Vec::<String>::new());
        assert_eq!(target.value(LATE), "0");
    }
    section(&source, &target, ["post-data"]).run().expect_code(0).expect_words(&["done: database"]);
    let differences = compare::databases(&source, &target);
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    section(&source, &target, ["post-data"]).run().expect_code(0).expect_words(&["done already"]);
}

#[test]
fn rows_may_come_by_other_means_between_pre_data_and_post_data() {
    let source = server(15).create_database("source");
    source.execute(
        "CREATE TABLE t (id serial PRIMARY KEY, v text); INSERT INTO t (v) VALUES ('of the source'), ('too');
         CREATE INDEX ON t (v); GRANT SELECT ON t TO PUBLIC",
    );
    let target = server(15).create_database("target");
    section(&source, &target, ["pre-data"]).run().expect_code(0);
    target.execute("INSERT INTO t VALUES (7, 'from elsewhere')");
    section(&source, &target, ["post-data"]).run().expect_code(0);
    assert_eq!(target.query("SELECT id, v FROM t"), [["7", "from elsewhere"]]);
    Pgstream::between("verify", &source, &target).args(["--schema-only"]).run().expect_code(0);
    // It stays so: nothing is copied on top.
    Pgstream::between("migrate", &source, &target).run().expect_code(0);
    assert_eq!(target.value("SELECT count(*) FROM t"), "1");
}

#[test]
fn pre_data_and_post_data_together_are_the_definitions_alone() {
    let source = server(15).create_database("source");
    source.execute("CREATE TABLE t (id integer PRIMARY KEY); INSERT INTO t VALUES (1)");
    let target = server(15).create_database("target");
    section(&source, &target, ["pre-data", "post-data"])
        .run()
        .expect_code(0)
        .expect_words(&["done: database"]);
    assert_eq!(target.value("SELECT count(*) FROM t"), "0");
    assert_eq!(compare::schemas(&source, &target), Vec::<String>::new());
}

#[test]
fn what_comes_later_waits_for_what_comes_first_and_a_stream_has_no_sections() {
    let source = server(15).create_database("source");
    source.execute("CREATE TABLE t (id integer PRIMARY KEY); INSERT INTO t VALUES (1)");
    let target = server(15).create_database("target");
    section(&source, &target, ["pre-data"]).run().expect_code(0);
    source.execute("CREATE TABLE newer (id integer PRIMARY KEY)");
    section(&source, &target, ["data"]).run().expect_code(2).expect_words(&[
        "section data needs section pre-data, which is not done",
        "TABLE public.newer is not on the target.",
    ]);
    section(&source, &target, ["pre-data"]).run().expect_code(0);
    section(&source, &target, ["data", "post-data"]).run().expect_code(0);
    compare::assert_equal(&source, &target);
    let other = server(15).create_database("other");
    section(&source, &other, ["pre-data"])
        .args(["--method", "replication"])
        .run()
        .expect_code(2)
        .expect_words(&["--section does not go with --method replication"]);
    Pgstream::new("schema")
        .args(["--source", &source.uri(), "--section", "data"])
        .run()
        .expect_code(2)
        .expect_words(&["rows are no part of a schema"]);
}
