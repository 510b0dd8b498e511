//! The objects that pg_dump's own test makes (src/bin/pg_dump/t/002_pg_dump.pl), copied.
//!
//! `PGSTREAM_POSTGRES_SOURCE=/path/to/postgresql-15.x tests/run pg_dumps_own_objects --run-ignored all`, with perl: the sources are not part of
//! this project (`apt-get source postgresql-15` fetches them).

use crate::harness::{Cluster, Options, Pgstream, compare};
use std::path::PathBuf;
use std::process::Command;

/// Prints the statements of the test's table of objects, in its order: what stands before the table is declarations.
const EXTRACT: &str = r#"
local $/; open my $file, '<', $ARGV[0] or die "$ARGV[0]: $!"; my $text = <$file>;
$text =~ s/# Create a PG instance to test actually dumping from.*//s;
$text =~ s/^use (PostgreSQL|Test::More).*$//mg;
$text =~ s/PostgreSQL::Test::Utils::tempdir(_short)?\b(\(\))?/''/g;
$text =~ s/\$PostgreSQL::Test::Utils::\w+/''/g;
$text .= q{
  my $place = sub { $tests{$_[0]}->{create_order} // 9999 };
  foreach my $name (sort { $place->($a) <=> $place->($b) || $a cmp $b } keys %tests) {
    my $test = $tests{$name};
    print $test->{create_sql}, ";\n" if $test->{create_sql} && ($test->{database} // 'postgres') eq 'postgres';
  }
};
no strict; no warnings; eval $text; die $@ if $@;
"#;

#[test]
#[ignore = "needs the sources of PostgreSQL 15"]
fn pg_dumps_own_objects_arrive_as_they_are() {
    let sources =
        std::env::var("PGSTREAM_POSTGRES_SOURCE").expect("PGSTREAM_POSTGRES_SOURCE names the sources");
    let test = PathBuf::from(sources).join("src/bin/pg_dump/t/002_pg_dump.pl");
    let extracted = Command::new("perl").args(["-e", EXTRACT]).arg(&test).output().expect("perl runs");
    assert!(extracted.status.success(), "{}", String::from_utf8_lossy(&extracted.stderr));
    let statements = String::from_utf8(extracted.stdout).expect("the statements are text");
    let cluster = Cluster::start(15, &Options::default());
    let source = cluster.create_database("objects");
    source.execute(&format!("\\set ON_ERROR_STOP off\n{statements}"));
    let tables =
        source.value("SELECT count(*) FROM pg_class WHERE relnamespace::regnamespace::text ~ '^dump_test'");
    assert!(tables.parse::<u32>().expect("a number") > 50, "{tables} relations");
    for major in [15, 17, 18] {
        let newer = (major != 15).then(|| Cluster::start(major, &Options::default()));
        let target = newer.as_ref().unwrap_or(&cluster).create_database("copied");
        let said = Pgstream::between("migrate", &source, &target).args(["--method", "copy"]).run();
        // A server may be built without lz4: the tables are there, without the choice of how they are compressed.
        let lost: Vec<_> = said.stderr.lines().filter(|line| line.contains("not on the target as")).collect();
        assert!(lost.iter().all(|line| line.contains("lz4 not supported")), "{lost:#?}");
        let code = if lost.is_empty() { 0 } else { 3 };
        said.expect_code(code);
        let mut differences = compare::schemas(&source, &target);
        differences.extend(compare::rows(&source, &target));
        differences.extend(compare::sequences(&source, &target));
        differences.extend(compare::large_objects(&source, &target));
        // It counts the rows of pg_class, and so those of pgstream's state.
        differences.retain(|d| !d.starts_with("rows of dump_test.regress_pg_dump_matview_am"));
        assert!(differences.is_empty(), "15 to {major}: {}\n{}", differences.len(), differences.join("\n"));
    }
}
