//! `pgstream check` names what each server lacks, with what mends it, and `migrate` refuses for the same reasons.

use serde_json::Value;

use crate::harness::{Auth, Cluster, Extensions, Options, Pgstream, server};

/// Findings on an object, as `severity: message (hint)`.
fn findings(command: Pgstream, object: &str) -> Vec<String> {
    let finished = command.args(["--json"]).run();
    let said: Value = serde_json::from_str(&finished.stdout).unwrap_or_else(|e| panic!("{e}: {finished:?}"));
    let list = said["findings"].as_array().expect("findings are a list");
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or("-").to_owned();
    list.iter()
        .filter(|finding| finding["object"] == object)
        .map(|f| format!("{}: {} ({})", text(f, "severity"), text(f, "message"), text(f, "hint")))
        .collect()
}

#[track_caller]
fn expect(found: &[String], words: &[&str]) {
    let fits = found.iter().any(|finding| words.iter().all(|word| finding.contains(word)));
    assert!(fits, "{words:?} is not among {found:#?}");
}

/// An extension that is nothing but there.
fn with_extension(extensions: Extensions, name: &str, version: &str, control: &str) -> Extensions {
    let sql =
        format!("CREATE FUNCTION {name}_version() RETURNS text LANGUAGE sql AS $$SELECT '{version}'$$;");
    extensions.with(name, version, control, &sql)
}

/// A cluster with these extensions; of 18, which alone looks for them elsewhere too.
fn cluster_with(extensions: &Extensions, more: &[&str]) -> Cluster {
    let mut settings = vec![extensions.setting()];
    settings.extend(more.iter().map(|&setting| setting.to_owned()));
    Cluster::start(18, &Options { settings, ..Options::default() })
}

#[test]
fn extensions_are_judged_by_version_and_by_who_may_create_them() {
    let (mut old, mut new) = (Extensions::new(), Extensions::new());
    for (name, control) in
        [("missing", ""), ("older", ""), ("listed", ""), ("trusted_one", "trusted = true"), ("there", "")]
    {
        new = with_extension(new, name, "1.10", control);
        if name != "missing" {
            let version = if name == "older" || name == "there" { "1.9" } else { "1.10" };
            old = with_extension(old, name, version, control);
        }
    }
    let source = cluster_with(&new, &[]);
    let target = cluster_with(&old, &["extwlist.extensions = 'listed,another'"]);
    let (from, to) = (source.create_database("source"), target.create_database("target"));
    from.execute(
        "CREATE EXTENSION missing; CREATE EXTENSION older; CREATE EXTENSION listed; CREATE EXTENSION trusted_one;
         CREATE EXTENSION there; CREATE EXTENSION pg_trgm",
    );
    to.execute(&format!(
        "CREATE EXTENSION there; CREATE ROLE plain LOGIN; GRANT CREATE ON DATABASE {} TO plain",
        to.quoted_name()
    ));
    let as_plain = || {
        Pgstream::new("check").args([
            "--source",
            &from.uri(),
            "--target",
            &target.uri_as("plain", None, to.name()),
            "--method",
            "copy",
        ])
    };
    let on = |name: &str| findings(as_plain(), &format!("extension \"{name}\""));
    expect(&on("missing"), &["blocker: is not available on the target", "--exclude-extension"]);
    expect(
        &on("older"),
        &["blocker: has version 1.10 on the source, and the target makes the older 1.9", "newer package"],
    );
    expect(
        &findings(as_plain(), "source EXTENSION older"),
        &[
            "blocker: may be created by a superuser only",
            "CREATE EXTENSION",
            "\"older\"",
            "--skip-unprivileged",
        ],
    );
    expect(&on("there"), &["warning: is on the target in version 1.9", "ALTER EXTENSION \"there\" UPDATE;"]);
    assert_eq!(on("listed"), Vec::<String>::new());
    assert_eq!(on("trusted_one"), Vec::<String>::new());
    assert_eq!(on("pg_trgm"), Vec::<String>::new());
}

#[test]
fn size_age_and_what_surrounds_the_databases_is_judged() {
    let source = Cluster::start(
        17,
        &Options {
            settings: vec![
                "default_text_search_config = 'pg_catalog.german'".to_owned(),
                "shared_preload_libraries = 'pg_stat_statements'".to_owned(),
            ],
            ..Options::default()
        },
    );
    let target = Cluster::start(
        16,
        &Options {
            auth: Auth::Md5,
            settings: vec!["aiven.pg_security_agent_reserved_roles = 'avnadmin,boss'".to_owned()],
            ..Options::default()
        },
    );
    let newer = Cluster::start(18, &Options::default());
    let (from, to) = (source.create_database("source"), target.create_database("target"));
    from.execute(
        "CREATE ROLE boss SUPERUSER LOGIN; CREATE TABLE t (a int PRIMARY KEY); ALTER TABLE t OWNER TO boss;
         SELECT lo_create(1); BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'half done'",
    );
    let check = || Pgstream::between("check", &from, &to).args(["--max-total-size", "1kB"]);
    expect(
        &findings(check(), &format!("source database \"{}\"", from.name())),
        &["blocker: holds ", "more than the 1024 that are allowed", "--max-total-size"],
    );
    expect(
        &findings(check(), "target"),
        &["blocker: PostgreSQL 16 is older than the source's 17", "--allow-older-target"],
    );
    let older = || check().args(["--allow-older-target"]);
    expect(&findings(older(), "target"), &["warning: PostgreSQL 16 is older"]);
    expect(&findings(check(), "large objects"), &["info: 1 are copied with the rows"]);
    expect(
        &findings(check(), "role \"boss\""),
        &["blocker: is a superuser", "reserved", "NOSUPERUSER", "--exclude-role"],
    );
    let without_boss = || check().args(["--exclude-role", "boss"]);
    assert_eq!(findings(without_boss(), "role \"boss\""), Vec::<String>::new());
    // 18 has checksums unless it is told otherwise, and 17 hasn't: what is better on the target needs no word.
    let to_18 = || Pgstream::new("check").args(["--source", &from.uri(), "--target", &newer.uri("postgres")]);
    assert_eq!(findings(to_18(), "setting data_checksums"), Vec::<String>::new());
    let back = Pgstream::new("check").args(["--source", &newer.uri("postgres"), "--target", &from.uri()]);
    expect(
        &findings(back, "setting data_checksums"),
        &["info: is on for the source's cluster", "pg_checksums --enable"],
    );
    expect(&findings(check(), "setting default_text_search_config"), &["german", "ALTER DATABASE"]);
    expect(
        &findings(check(), "library \"pg_stat_statements\""),
        &["preloaded on the source and not on the target"],
    );
    to.execute("SET password_encryption = 'md5'; CREATE ROLE old_way SUPERUSER LOGIN PASSWORD 'x'");
    let old_way = target.uri_as("old_way", Some("x"), to.name());
    let by_old_way = Pgstream::new("check").args(["--source", &from.uri(), "--target", &old_way]);
    expect(&findings(by_old_way, "target role \"old_way\""), &["stored as MD5", "scram-sha-256"]);
    expect(&findings(check(), "source"), &["warning: holds 1 prepared transactions", "ROLLBACK PREPARED"]);

    Pgstream::between("migrate", &from, &to)
        .args(["--max-total-size", "1kB"])
        .run()
        .expect_code(2)
        .expect_words(&["more than the 1024 that are allowed", "Nothing has been touched"]);
    from.execute("ROLLBACK PREPARED 'half done'");
}

#[test]
fn the_way_to_a_server_on_another_host_is_to_be_encrypted() {
    // All clusters are on this host; what is judged is what the server says of the session.
    let (source, target) = (server(15).create_database("source"), server(17).create_database("target"));
    let found = findings(Pgstream::between("check", &source, &target), "way to the source");
    assert_eq!(found, Vec::<String>::new());
}

#[test]
fn a_target_must_have_room_for_those_who_make_indexes_too() {
    let source = server(15).create_database("source");
    let cluster = Cluster::start(15, &Options::default());
    let target = cluster.create_database("target");
    let name = target.quoted_name();
    target.execute(&format!("CREATE ROLE plain LOGIN; GRANT CREATE ON DATABASE {name} TO plain"));
    let check = |limit: u32| {
        target.execute(&format!("ALTER ROLE plain CONNECTION LIMIT {limit}"));
        let uri = cluster.uri_as("plain", None, target.name());
        let command = Pgstream::new("check").args(["--source", &source.uri(), "--target", &uri]);
        findings(command.args(["--jobs", "4", "--method", "copy"]), "target")
    };
    // The check has one itself.
    expect(
        &check(10),
        &["warning: there is room for 9 more sessions, and the copy opens 10", "--jobs and --index-jobs"],
    );
    let enough = check(11);
    assert!(!enough.iter().any(|finding| finding.contains("more sessions")), "{enough:#?}");
}
