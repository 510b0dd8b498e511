//! `pgstream schema`: its script, restored by psql, makes the database that pg_dump sees at the source.

use crate::harness::{Cluster, Database, Options, Pgstream, client, compare, fixture, server};
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The script for a target's version, as `pgstream schema` prints it.
fn script(source: &Database<'_>, target: &Database<'_>) -> String {
    Pgstream::between("schema", source, target).run().expect_code(0).stdout
}

/// Runs a script by psql, which stops at the first error.
#[track_caller]
fn restore(database: &Database<'_>, script: &str) {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file can be made");
    file.write_all(script.as_bytes()).expect("a temporary file is writable");
    let mut psql = client("psql");
    psql.args(["-Xq", "-v", "ON_ERROR_STOP=1", "-d", &database.uri(), "-f"]).arg(file.path());
    let output = psql.output().expect("psql runs");
    assert!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr));
}

fn fixture_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

#[track_caller]
fn assert_same_schema(source: &Database<'_>, target: &Database<'_>) {
    let differences = compare::schemas(source, target);
    assert!(differences.is_empty(), "{} differences:\n{}", differences.len(), differences.join("\n"));
}

/// Restores the script of the fixture on a server that has its roles, and compares.
fn restores_the_fixture(source: &Database<'_>, cluster: &Cluster) {
    let target = cluster.create_database_with("restored", "TEMPLATE template0");
    restore(&target, &script(source, &target));
    assert_same_schema(source, &target);
}

/// Restores a database that has each loop, and compares; then once more from the copy.
fn restores_loops(source_major: u32, target_major: u32) {
    let source = server(source_major).create_database_with("loops", "TEMPLATE template0");
    source.load(&fixture_file("loops.sql"));
    let target = server(target_major).create_database_with("unlooped", "TEMPLATE template0");
    restore(&target, &script(&source, &target));
    assert_same_schema(&source, &target);
    let again = server(target_major).create_database_with("again", "TEMPLATE template0");
    restore(&again, &script(&target, &again));
    assert_same_schema(&target, &again);
}

#[test]
fn relations_in_odd_states_come_out_as_they_were() {
    for (source, target) in [(10, 10), (11, 11), (13, 13), (15, 15), (18, 18), (12, 16), (17, 18)] {
        let source = server(source).create_database_with("odd", "TEMPLATE template0");
        source.load(&fixture_file("relations.sql"));
        let target = server(target).create_database_with("even", "TEMPLATE template0");
        restore(&target, &script(&source, &target));
        assert_same_schema(&source, &target);
    }
}

#[test]
fn the_script_of_the_fixture_restores_on_its_own_major() {
    for major in [10, 15, 18] {
        restores_the_fixture(&fixture(server(major)), server(major));
    }
}

#[test]
fn the_script_of_the_fixture_restores_on_a_newer_major() {
    let cluster = Cluster::start(16, &Options::default());
    cluster.postgres().load(&fixture_file("roles.sql"));
    restores_the_fixture(&fixture(server(11)), &cluster);
}

#[test]
fn objects_that_need_each_other_are_taken_apart_and_put_together() {
    for (source, target) in [(10, 10), (13, 17), (18, 18)] {
        restores_loops(source, target);
    }
}

#[test]
fn the_same_database_gives_the_same_text_each_time() {
    let source = fixture(server(15));
    let first = script(&source, &source);
    assert_eq!(first, script(&source, &source));
    // What a restored copy prints differs in OIDs only, which the text must not depend on.
    let copy = server(15).create_database_with("copy", "TEMPLATE template0");
    restore(&copy, &first);
    let (first, second): (Vec<_>, Vec<_>) = (names(&first), names(&script(&copy, &copy)));
    assert_eq!(first, second);
}

/// The comments that name each object, in order.
fn names(script: &str) -> Vec<String> {
    script.lines().filter(|line| line.starts_with("-- ")).map(str::to_owned).collect()
}

#[test]
fn functions_that_parse_their_bodies_and_call_each_other_come_without_them_first() {
    let source = server(15).create_database_with("loop", "TEMPLATE template0");
    source.execute(
        "CREATE FUNCTION one(n integer DEFAULT 1) RETURNS integer LANGUAGE sql IMMUTABLE COST 7 RETURN 1;
         CREATE FUNCTION two(n integer) RETURNS integer LANGUAGE sql BEGIN ATOMIC SELECT one(n); END;
         CREATE OR REPLACE FUNCTION one(n integer DEFAULT 1) RETURNS integer LANGUAGE sql IMMUTABLE COST 7 RETURN two(n);
         CREATE VIEW ones AS SELECT one(); COMMENT ON FUNCTION one IS 'it turns'",
    );
    for major in [15, 18] {
        let target = server(major).create_database_with("unlooped", "TEMPLATE template0");
        restore(&target, &script(&source, &target));
        assert_same_schema(&source, &target);
    }
}

#[test]
fn a_role_without_superuser_reads_all_but_what_is_hidden_from_it_and_that_is_named() {
    for major in [10, 18] {
        let source = fixture(server(major));
        let target = server(major).create_database_with("read", "TEMPLATE template0");
        let uri = source.cluster().uri_as("pgs_app", Some("app's secret"), source.name());
        let text = Pgstream::new("schema").args(["--source", &uri]).run().expect_code(0).stdout;
        assert!(text.contains("-- not copied: SUBSCRIPTION pgs_nothing: "), "{major}");
        restore(&target, &text);
        let differences = compare::schemas(&source, &target);
        let unexplained: Vec<_> = differences
            .iter()
            .filter(|d| !d.contains("SUBSCRIPTION") && !d.contains("USER MAPPING"))
            .collect();
        assert!(unexplained.is_empty(), "{major}: {unexplained:#?}");
    }
}
