//! The database that PostgreSQL's own regression tests leave behind, moved.
//!
//! `tests/regress.sh` fetches the tests and builds their libraries: they are not part of this project.

use crate::harness::{Cluster, Database, Options, Pgstream, as_owner, compare, server_program};
use std::path::PathBuf;

/// What `tests/regress.sh` names by an environment variable.
fn folder(variable: &str) -> PathBuf {
    PathBuf::from(std::env::var_os(variable).unwrap_or_else(|| panic!("tests/regress.sh sets {variable}")))
}

/// A server that loads the C functions of the tests from libraries of its own major.
fn start(major: u32) -> Cluster {
    let libraries = folder("PGSTREAM_REGRESS_LIBRARIES").join(major.to_string());
    let settings = vec![format!("dynamic_library_path = '{}:$libdir'", libraries.display())];
    Cluster::start(major, &Options { settings, ..Options::default() })
}

/// The schedule of the tests, run to its end.
fn run_regression_tests(cluster: &Cluster) -> Database<'_> {
    let tests = folder("PGSTREAM_POSTGRES_SOURCE").join("src/test/regress");
    let libraries = folder("PGSTREAM_REGRESS_LIBRARIES").join("15");
    let output = cluster.directory().join("regress");
    let programs = server_program(15, "").canonicalize().expect("the server's programs are there");
    let regress = programs.parent().map(|package| package.join("lib/pgxs/src/test/regress/pg_regress"));
    let mut command = as_owner(regress.expect("programs are in a folder"));
    command.args(["--host=127.0.0.1", "--user=postgres", "--max-concurrent-tests=20"]);
    command.arg(format!("--port={}", cluster.port()));
    for (option, folder) in [("inputdir", &tests), ("outputdir", &output), ("dlpath", &libraries)] {
        command.arg(format!("--{option}={}", folder.display()));
    }
    command.arg(format!("--bindir={}", programs.display()));
    command.arg(format!("--schedule={}", tests.join("parallel_schedule").display()));
    // A few results depend on the machine and its locales; what counts is the database that is left.
    let run = command.output().expect("pg_regress runs");
    let said = String::from_utf8_lossy(&run.stdout);
    let failed = said.lines().filter(|line| line.contains("... FAILED")).count();
    let ended = said.contains("test fast_default ");
    assert!(ended && failed < 10, "{failed} failed\n{said}{}", String::from_utf8_lossy(&run.stderr));
    let database = cluster.database("regression");
    // A library without a folder is looked for where each server has its own.
    database.execute(
        "UPDATE pg_proc SET probin = regexp_replace(probin, '.*/', '') WHERE probin LIKE '%/lib/15/%'",
    );
    database
}

/// Tables that PostgreSQL from 16 on doesn't take: a generated column that is a plain one of its parent.
const REFUSED: [&str; 2] = ["TABLE public.gtest_normal_child", "TABLE public.gtest_normal_child2"];

#[test]
#[ignore = "needs the regression tests of PostgreSQL 15"]
fn the_regression_database_arrives_as_it_is() {
    let cluster = start(15);
    let source = run_regression_tests(&cluster);
    for major in [15, 17, 18] {
        let there = start(major);
        let target = there.create_database_with("moved", "TEMPLATE template0");
        let migrate = |options: &[&'static str]| {
            Pgstream::between("migrate", &source, &target)
                .args(["--method", "copy", "--schema-only"])
                .args(options.iter().copied())
                .run()
        };
        let mut differences;
        if major == 15 {
            migrate(&[]).expect_code(0);
            differences = compare::schemas(&source, &target);
        } else {
            migrate(&[]).expect_code(2).expect_words(&["Nothing has been touched", "gtest_normal_child\""]);
            let said = migrate(&["--keep-going"]).expect_code(3);
            said.expect_words(
                &REFUSED.map(|table| format!("not made {table}: ")).each_ref().map(String::as_str),
            );
            assert_eq!(said.stderr.matches(": not made ").count(), REFUSED.len(), "{}", said.stderr);
            differences = compare::schemas(&source, &target);
            assert_eq!(
                differences.iter().filter(|d| d.starts_with("gtest_normal_child")).count(),
                REFUSED.len()
            );
            differences.retain(|difference| !difference.starts_with("gtest_normal_child"));
        }
        assert!(differences.is_empty(), "15 to {major}: {}\n{}", differences.len(), differences.join("\n"));
    }
    // With its rows. What a materialized view holds is not copied but computed anew.
    source.execute(
        "SELECT format('REFRESH MATERIALIZED VIEW %s', oid::regclass) FROM pg_class WHERE relkind = 'm' AND relispopulated ORDER BY oid \\gexec",
    );
    let target = cluster.create_database_with("moved", "TEMPLATE template0");
    Pgstream::between("migrate", &source, &target).args(["--method", "copy"]).run().expect_code(0);
    compare::assert_equal(&source, &target);
}
