//! Choosing what is copied, by pg_dump's options: pg_dump itself says what each choice means.

use crate::harness::{Database, Pgstream, client, compare, fixture, server};
use std::collections::BTreeSet;
use std::io::Write as _;

/// Choices whose objects are compared with pg_dump's.
const CHOICES: &[&[&str]] = &[
    &["-n", "app"],
    &["--schema", "a*|VAL", "-N", "val"],
    &["--exclude-schema", "app", "--exclude-schema", "v1?"],
    &["-t", "app.events*"],
    &["-t", "app.*", "-T", "app.e*", "-T", "fixture.app.orders"],
    &["-T", "*.o*", "--no-policies", "--no-publications"],
    &["--table-and-children", "app.events", "-t", "app.*_seq"],
    &["--exclude-table-and-children", "app.events", "--exclude-extension", "*"],
    &["-e", "btree*", "-n", "app"],
    &["-e", "*"],
    &["-n", "\"Odd schema. with \"\"dots\"\"\"", "-t", "\"Odd schema. with \"\"dots\"\"\".*"],
];

/// Objects by kind and name, as far as pg_dump and pgstream call them the same: functions without arguments, without what goes with
/// another object here or there.
fn object(kind: &str, name: &str) -> Option<String> {
    const KINDS: [&str; 21] = [
        "SCHEMA",
        "EXTENSION",
        "TYPE",
        "DOMAIN",
        "FUNCTION",
        "PROCEDURE",
        "AGGREGATE",
        "COLLATION",
        "SERVER",
        "TABLE",
        "FOREIGN TABLE",
        "VIEW",
        "MATERIALIZED VIEW",
        "SEQUENCE",
        "INDEX",
        "CONSTRAINT",
        "FK CONSTRAINT",
        "TRIGGER",
        "STATISTICS",
        "PUBLICATION",
        "EVENT TRIGGER",
    ];
    let left_out = !KINDS.contains(&kind) || name == "public" || name == "rare.shell_only";
    (!left_out).then(|| format!("{kind} {}", name.split('(').next().unwrap_or_default()))
}

/// What a script of pg_dump makes.
fn of_pg_dump(script: &str) -> BTreeSet<String> {
    let entry = |line: &str| {
        let (name, rest) = line.strip_prefix("-- Name: ")?.split_once("; Type: ")?;
        let (kind, rest) = rest.split_once("; Schema: ")?;
        let (schema, _) = rest.split_once("; Owner: ")?;
        object(kind, &if schema == "-" { name.to_owned() } else { format!("{schema}.{name}") })
    };
    script.lines().filter_map(entry).collect()
}

/// What a script of pgstream makes: `-- KIND name`, kinds in capitals.
fn of_pgstream(script: &str) -> BTreeSet<String> {
    let entry = |line: &str| {
        let line = line.strip_prefix("-- ")?;
        let is_kind = |word: &&str| word.chars().all(|c| c.is_ascii_uppercase());
        let kind: Vec<&str> = line.split(' ').take_while(is_kind).collect();
        let kind = kind.join(" ");
        object(&kind, line.strip_prefix(&kind)?.trim_start())
    };
    script.lines().filter_map(entry).collect()
}

#[test]
fn a_choice_means_what_it_means_to_pg_dump() {
    let source = fixture(server(15));
    for choice in CHOICES {
        let mut pg_dump = client("pg_dump");
        let choice: Vec<String> =
            choice.iter().map(|o| o.replace("fixture.", &format!("{}.", source.quoted_name()))).collect();
        pg_dump.args(["--schema-only", "-d", &source.uri()]).args(&choice);
        let output = pg_dump.output().expect("pg_dump runs");
        assert!(output.status.success(), "{choice:?}: {}", String::from_utf8_lossy(&output.stderr));
        let expected = of_pg_dump(&String::from_utf8_lossy(&output.stdout));
        let run =
            Pgstream::new("schema").args(["--source", &source.uri()]).args(choice.iter().map(String::as_str));
        let found = of_pgstream(&run.run().expect_code(0).stdout);
        assert!(!expected.is_empty(), "{choice:?}");
        let differences: Vec<_> = expected.symmetric_difference(&found).collect();
        assert!(differences.is_empty(), "{choice:?}: {differences:#?}");
    }
}

#[test]
fn a_pattern_that_finds_nothing_or_reads_wrong_is_refused() {
    let source = server(15).create_database_with("patterns", "TEMPLATE template0");
    source.execute("CREATE SCHEMA s; CREATE TABLE s.t (); CREATE EXTENSION pg_trgm");
    let mut filter = tempfile::NamedTempFile::new().expect("a temporary file can be made");
    filter.write_all(b"include schema s\nexclude index x\n").expect("a temporary file is writable");
    let filter = filter.path().to_str().expect("its name is text");
    for (options, words) in [
        (vec!["-t", "s.none"], "no matching tables were found"),
        (vec!["-n", "none"], "no matching schemas were found"),
        (vec!["-e", "none"], "no matching extensions were found"),
        (
            vec!["-t", "s.t", "-t", "s.none", "--strict-names"],
            "no matching tables were found for pattern \"s.none\"",
        ),
        (vec!["-t", "a.b.c.d"], "improper qualified name (too many dotted names): a.b.c.d"),
        (vec!["-t", "other.s.t"], "cross-database references are not implemented: other.s.t"),
        (vec!["-t", "s.t("], "invalid regular expression"),
        (vec!["--filter", filter], "on line 2: unsupported filter object type: \"index\""),
        (
            vec!["--filter", "/nonexistent"],
            "could not read filter file \"/nonexistent\": no such file or directory",
        ),
    ] {
        let run = Pgstream::new("schema").args(["--source", &source.uri()]).args(options);
        run.run().expect_code(2).expect_words(&[words]);
    }
    let run =
        Pgstream::new("schema").args(["--source", &source.uri(), "-t", "s.t", "-t", "none", "-T", "none"]);
    run.run()
        .expect_code(0)
        .expect_words(&["CREATE TABLE \"s\".\"t\"", "TABLE s.t needs SCHEMA s, which is not selected"]);
}

/// A shop whose orders need what is in another schema.
fn shop(major: u32) -> Database<'static> {
    let source = server(major).create_database_with("shop", "TEMPLATE template0");
    source.execute(
        "CREATE SCHEMA app; CREATE SCHEMA other;
         CREATE TABLE other.customers (id integer PRIMARY KEY); INSERT INTO other.customers VALUES (1);
         CREATE TABLE app.orders (id serial PRIMARY KEY, customer integer REFERENCES other.customers);
         INSERT INTO app.orders (customer) SELECT 1 FROM generate_series(1, 100);
         CREATE TABLE app.log (id integer PRIMARY KEY, line text); INSERT INTO app.log SELECT 1, 'x';
         CREATE VIEW app.ordered AS SELECT c.id FROM app.orders o JOIN other.customers c ON c.id = o.customer;
         COMMENT ON TABLE other.customers IS 'theirs'; COMMENT ON TABLE app.orders IS 'ours';
         SELECT lo_create(1234567)",
    );
    source
}

#[test]
fn only_what_is_chosen_is_migrated_and_what_that_leaves_dangling_is_named() {
    let source = shop(15);
    let target = server(17).create_database_with("part", "TEMPLATE template0");
    let choice = ["--schema", "app", "--exclude-table-data", "app.log"];
    let needs = "needs TABLE other.customers, which is neither selected nor on the target";
    let check = Pgstream::between("check", &source, &target).args(["--method", "copy"]).args(choice);
    check.run().expect_code(0).expect_words(&[
        "warning: source FK CONSTRAINT app.orders orders_customer_fkey: is not copied: it needs",
        "warning: source VIEW app.ordered: is not copied: it needs",
    ]);
    let migrate = Pgstream::between("migrate", &source, &target).args(["--method", "copy"]).args(choice);
    migrate.run().expect_code(3).expect_words(&[
        &format!("FK CONSTRAINT app.orders orders_customer_fkey: {needs}"),
        &format!("VIEW app.ordered: {needs}"),
    ]);
    assert_eq!(target.value("SELECT count(*) FROM app.orders"), "100");
    assert_eq!(target.value("SELECT count(*) FROM app.log"), "0");
    assert_eq!(target.value("SELECT last_value FROM app.orders_id_seq"), "100");
    assert_eq!(target.value("SELECT to_regnamespace('other') IS NULL"), "t");
    assert_eq!(target.value("SELECT count(*) FROM pg_largeobject_metadata"), "0");
    let verify = Pgstream::between("verify", &source, &target).run().expect_code(3);
    verify.expect_words(&[
        "VIEW app.ordered",
        "FK CONSTRAINT app.orders orders_customer_fkey",
        "2 differences",
    ]);
}

#[test]
fn a_chosen_table_whose_needs_are_nowhere_is_refused_before_anything_is_touched() {
    let source = shop(15);
    let target = server(15).create_database_with("nowhere", "TEMPLATE template0");
    let migrate = Pgstream::between("migrate", &source, &target).args(["--table", "app.orders"]);
    migrate
        .run()
        .expect_code(2)
        .expect_words(&["TABLE app.orders: needs SCHEMA app, which is neither selected nor on the target"]);
    assert_eq!(target.value("SELECT to_regnamespace('pgstream') IS NULL"), "t");
}

#[test]
fn chosen_tables_are_followed_and_the_choice_stays() {
    let source = shop(15);
    let target = server(16).create_database_with("tables", "TEMPLATE template0");
    target.execute(
        "CREATE SCHEMA app; CREATE SCHEMA other; CREATE TABLE other.customers (id integer PRIMARY KEY)",
    );
    target.execute("INSERT INTO other.customers VALUES (1)");
    let choice = ["--table", "app.orders", "--table", "app.log", "--exclude-table-data", "app.log"];
    let migrate = |choice: &[&'static str]| {
        Pgstream::between("migrate", &source, &target)
            .args(["--method", "replication"])
            .args(choice.iter().copied())
    };
    let mut running = migrate(&choice).spawn();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let status = || Pgstream::new("status").args(["--target", &target.uri(), "--json"]).run().stdout;
    while !status().contains("\"syncing\"") {
        assert!(std::time::Instant::now() < deadline && !running.ended(), "{}", status());
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    let published =
        "SELECT string_agg(tablename, ' ') FROM pg_publication_tables WHERE pubname ~ '^pgstream'";
    assert_eq!(source.value(published), "orders");
    running.signal("TERM");
    running.wait().expect_code(4);
    migrate(&["--table", "app.log"])
        .run()
        .expect_code(2)
        .expect_words(&["begun with another choice of what is copied"]);
    source.execute("INSERT INTO app.orders (customer) VALUES (1); INSERT INTO app.log VALUES (2, 'y')");
    Pgstream::between("cutover", &source, &target).run().expect_code(0);
    assert_eq!(target.value("SELECT count(*) FROM app.orders"), "101");
    assert_eq!(target.value("SELECT count(*) FROM app.log"), "0");
    assert_eq!(target.value("SELECT nextval('app.orders_id_seq')"), "102");
    Pgstream::between("verify", &source, &target).args(["--data-only"]).run().expect_code(3);
    target.execute("SELECT setval('app.orders_id_seq', 101)");
    Pgstream::between("verify", &source, &target).run().expect_code(0);
    assert!(compare::rows(&source, &target).iter().all(|difference| difference.contains("app.log")));
}
