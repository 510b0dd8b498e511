//! Roles that are no superusers on either side, with settings of their own, and every way in which one may silence triggers on the target.

use super::{
    assert_equal, assert_source_is_clean, cutover, migrate_until_in_step, until_in_step, wait_until,
};
use crate::harness::{Cluster, Database, Extensions, Options, Pgstream, compare};

/// What would change text, end sessions or hide warnings, were it not for the settings that a session begins with.
const SETTINGS: [(&str, &str); 24] = [
    ("datestyle", "'SQL, DMY'"),
    ("intervalstyle", "sql_standard"),
    ("extra_float_digits", "-5"),
    ("bytea_output", "escape"),
    ("timezone", "'Asia/Kolkata'"),
    ("lc_monetary", "'C.utf8'"),
    ("search_path", "'shadow, public'"),
    ("array_nulls", "off"),
    ("xmloption", "document"),
    ("quote_all_identifiers", "on"),
    ("standard_conforming_strings", "off"),
    ("client_encoding", "'LATIN1'"),
    ("client_min_messages", "error"),
    ("row_security", "on"),
    ("default_transaction_isolation", "serializable"),
    ("default_transaction_deferrable", "on"),
    ("statement_timeout", "'30ms'"),
    ("lock_timeout", "'30ms'"),
    ("idle_in_transaction_session_timeout", "'30ms'"),
    ("enable_indexscan", "off"),
    ("check_function_bodies", "on"),
    ("transform_null_equals", "on"),
    ("plan_cache_mode", "force_custom_plan"),
    ("wal_sender_timeout", "'2s'"),
];

const SCHEMA: &str = r#"CREATE SCHEMA shadow; CREATE FUNCTION shadow.now() RETURNS text LANGUAGE sql AS $$SELECT 'wrong'$$;
    CREATE TABLE shadow.values (id integer PRIMARY KEY);
    CREATE TABLE values (id integer PRIMARY KEY, d date, i interval, f float8, b bytea, t timestamptz, m money, a text[], x xml, e text);
    CREATE TABLE parent (id integer PRIMARY KEY); CREATE TABLE child (id integer PRIMARY KEY, parent integer REFERENCES parent);
    CREATE TABLE log (id serial PRIMARY KEY, what text);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
      $$BEGIN INSERT INTO public.log (what) VALUES (TG_NAME || ' ' || TG_OP || ' ' || NEW.id); RETURN NULL; END$$;
    CREATE TRIGGER ordinary AFTER INSERT OR UPDATE ON child FOR EACH ROW EXECUTE FUNCTION note();
    CREATE TRIGGER always AFTER INSERT ON child FOR EACH ROW EXECUTE FUNCTION note();
    ALTER TABLE child ENABLE ALWAYS TRIGGER always;
    CREATE TABLE guarded (id integer PRIMARY KEY, v text); ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
    CREATE POLICY half ON guarded USING (id % 2 = 0);"#;

fn changes(from: u32) -> String {
    format!(
        r"INSERT INTO parent SELECT generate_series({from}, {from} + 9);
        INSERT INTO child SELECT id, id FROM parent WHERE id >= {from}; UPDATE child SET id = id + 1000 WHERE id = {from};
        INSERT INTO guarded SELECT id, 'v' FROM parent WHERE id >= {from}; UPDATE guarded SET v = 'w' WHERE id = {from} + 1;
        INSERT INTO values SELECT {from}, '2024-03-04', '1 year -2 days 03:04:05', 0.1 + 0.2, '\x00ff5c', '2024-02-29 12:00+02', 12.34,
          ARRAY['NULL', NULL, 'a\b', 'ü'], '<a/>text', E'tab\there \\ é';
        DELETE FROM child WHERE id = {from} + 5; DELETE FROM parent WHERE id = {from} + 5;"
    )
}

/// What the functions of aiven_extras that pgstream uses do, with their signatures.
const AIVEN_EXTRAS: &str = "
    CREATE FUNCTION aiven_extras.session_replication_role(arg_parameter text) RETURNS text LANGUAGE plpgsql
        SECURITY DEFINER SET search_path = pg_catalog
        AS $$BEGIN RETURN set_config('session_replication_role', arg_parameter, false); END$$;
    CREATE FUNCTION aiven_extras.pg_create_publication(arg_publication_name text, arg_publish text, VARIADIC arg_tables text[] DEFAULT '{}')
        RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog
        AS $$DECLARE
          tables text;
        BEGIN
          SELECT ' FOR TABLE ' || string_agg((SELECT string_agg(quote_ident(part), '.') FROM unnest(parse_ident(name)) part), ', ')
            INTO tables FROM unnest(arg_tables) name;
          EXECUTE format('CREATE PUBLICATION %I%s WITH (publish = %L)', arg_publication_name, tables, arg_publish);
          EXECUTE format('ALTER PUBLICATION %I OWNER TO %I', arg_publication_name, session_user);
        END$$;";

/// An extension that has these functions of aiven_extras, and nothing else of it.
fn aiven_extras() -> Extensions {
    Extensions::new().with("aiven_extras", "1", "relocatable = false\nschema = aiven_extras", AIVEN_EXTRAS)
}

/// Makes a role whose sessions begin with [`SETTINGS`].
fn create_role(cluster: &Cluster, name: &str, attributes: &str) {
    let mut sql = format!("CREATE ROLE {name} LOGIN {attributes};");
    for (setting, value) in SETTINGS {
        sql += &format!("ALTER ROLE {name} SET {setting} = {value};");
    }
    cluster.postgres().execute(&sql);
}

fn by_mover(command: &str, source: &Database<'_>, target: &Database<'_>, role: &str) -> Pgstream {
    Pgstream::new(command).args([
        "--source",
        &source.cluster().uri_as("mover", None, source.name()),
        "--target",
        &target.cluster().uri_as(role, None, target.name()),
    ])
}

fn as_role(command: &str, source: &Database<'_>, target: &Database<'_>, role: &str) -> Pgstream {
    by_mover(command, source, target, role).args(["--no-owner", "--no-privileges"])
}

#[test]
fn plain_roles_move_a_database_by_every_way_to_silence_triggers_and_without_one() {
    let extensions = aiven_extras();
    let source = Cluster::start(17, &Options::default());
    let target = Cluster::start(18, &Options { settings: vec![extensions.setting()], ..Options::default() });
    create_role(&source, "mover", "REPLICATION");
    for role in ["plain", "granted", "extended"] {
        create_role(&target, role, "");
    }
    target.postgres().execute("GRANT SET ON PARAMETER session_replication_role TO granted");
    let from = source.create_database_with("roles", "OWNER mover");
    from.execute(&format!("SET ROLE mover; {SCHEMA} {}", changes(100)));
    // As a managed service gives it away: the database was made read-only once, say.
    from.execute("ALTER ROLE mover SET default_transaction_read_only = on");
    let running = ["plain", "granted", "extended"].map(|role| {
        let to = target.create_database_with(role, &format!("OWNER {role}"));
        if role == "extended" {
            to.execute("CREATE EXTENSION aiven_extras; GRANT USAGE ON SCHEMA aiven_extras TO extended");
        }
        let run =
            as_role("migrate", &from, &to, role).args(["--method", "replication", "--no-roles"]).spawn();
        (role, to, run)
    });
    let running = running.map(|(role, to, run)| {
        let run = until_in_step(&from, &to, run);
        (role, to, run)
    });
    from.execute(&changes(200));
    from.execute(&changes(300));
    for (role, to, run) in running {
        wait_until(|| to.value("SELECT count(*) FROM values") == "3");
        // What is silent may be there before the cutover; what isn't, may not.
        let triggers = to.query("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1");
        let expected: &[&[&str]] = if role == "plain" { &[] } else { &[&["ordinary"]] };
        assert_eq!(triggers, expected, "{role}");
        let own = if role == "extended" { 3 } else { 0 };
        let verified = as_role("verify", &from, &to, role).run().expect_code(own);
        let left = [
            "TRIGGER public.child ordinary",
            "TRIGGER public.child always",
            "FK CONSTRAINT public.child child_parent_fkey",
        ];
        let left: Vec<_> = left
            .iter()
            .filter(|item| verified.stdout.contains(&format!("{item} is made at the cutover")))
            .collect();
        assert_eq!(left.len(), if role == "plain" { 3 } else { 1 }, "{role}: {verified:?}");
        as_role("cutover", &from, &to, role).run().expect_code(0);
        run.wait().expect_code(0);
        assert_eq!(compare::rows(&from, &to), Vec::<String>::new(), "{role}");
        let triggers = "SELECT tgname, tgenabled FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1";
        assert_eq!(to.query(triggers), from.query(triggers), "{role}");
        let keys = "SELECT conname, convalidated FROM pg_constraint WHERE conrelid = 'child'::regclass AND contype = 'f'";
        assert_eq!(to.query(keys), from.query(keys), "{role}");
    }
    assert_source_is_clean(&from);
}

#[test]
fn a_role_that_may_not_end_the_applications_sessions_gives_the_source_back() {
    let source = Cluster::start(15, &Options::default());
    let target = Cluster::start(15, &Options::default());
    source.postgres().execute("CREATE ROLE mover LOGIN REPLICATION");
    let from = source.create_database_with("roles", "OWNER mover");
    from.execute("SET ROLE mover; CREATE TABLE t (id integer PRIMARY KEY)");
    let to = target.create_database("roles");
    let mut running = migrate_until_in_step(&from, &to, &[]);
    let session = from.hold("SELECT 1");
    let cut = || by_mover("cutover", &from, &to, "postgres").args(["--make-source-read-only"]).run();
    cut().expect_code(1).expect_words(&["GRANT pg_signal_backend TO \"mover\"", "writable again"]);
    from.execute("INSERT INTO t VALUES (1)");
    drop(session);
    running.kill();
    cutover(&from, &to).args(["--make-source-read-only"]).run().expect_code(0);
    assert_eq!(compare::rows(&from, &to), Vec::<String>::new());
}

/// Tables that the role which moves them doesn't own, but for one; of a child, nothing identifies the rows.
const OF_OTHERS: &str = r#"CREATE ROLE app; CREATE ROLE mover LOGIN REPLICATION;
    CREATE SCHEMA "it's %I ""odd""" AUTHORIZATION app; GRANT USAGE ON SCHEMA "it's %I ""odd""" TO mover; GRANT ALL ON SCHEMA public TO app;
    SET ROLE app; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO mover;
    CREATE TABLE t (id integer PRIMARY KEY, v text); INSERT INTO t SELECT i, 'v' FROM generate_series(1, 100) i;
    CREATE TABLE "it's %I ""odd"""."%s, t" (id integer PRIMARY KEY);
    CREATE TABLE base (id integer PRIMARY KEY); CREATE TABLE child () INHERITS (base); INSERT INTO child VALUES (1);
    CREATE TABLE whole (id integer PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE whole_1 PARTITION OF whole FOR VALUES FROM (0) TO (10);
    RESET ROLE; CREATE TABLE mine (id integer PRIMARY KEY); ALTER TABLE mine OWNER TO mover;"#;

fn tables_of_others_are_followed(source: &Cluster, install: &str, leave_out: [&str; 2]) {
    let target = Cluster::start(18, &Options::default());
    let (from, to) = (source.create_database("others"), target.create_database("others"));
    from.execute(OF_OTHERS);
    // Anybody may give a function this name.
    from.execute(
        "CREATE SCHEMA aiven_extras AUTHORIZATION app; SET ROLE app; GRANT USAGE ON SCHEMA aiven_extras TO PUBLIC;
         CREATE FUNCTION aiven_extras.pg_create_publication(text, text, VARIADIC text[]) RETURNS void SECURITY DEFINER LANGUAGE sql AS ''",
    );
    let run = |command: &str| {
        by_mover(command, &from, &to, "postgres")
            .args(["--method", "replication", "--replica-identity", "skip", "--no-roles"])
            .args(leave_out)
    };
    run("check").run().expect_code(2).expect_words(&[
        "source: the user may not make a publication",
        "source table \"public.t\": the user does not own it",
    ]);
    from.execute("DROP SCHEMA aiven_extras CASCADE");
    from.execute(install);
    from.execute("GRANT USAGE ON SCHEMA aiven_extras TO mover");
    run("check").run().expect_code(0);

    // The publication is there, and the snapshot isn't.
    let before = from.hold("BEGIN; SELECT txid_current();");
    let running = run("migrate").spawn();
    let publication = "SELECT pubowner::regrole, pubtruncate, obj_description(oid, 'pg_publication') LIKE 'made by pgstream%' FROM pg_publication";
    wait_until(|| !from.query(publication).is_empty());
    from.execute("SET ROLE app; CREATE TABLE late (id integer PRIMARY KEY); INSERT INTO late VALUES (1)");
    drop(before);
    let running = until_in_step(&from, &to, running);
    assert_eq!(from.query(publication), [["mover", "t", "t"]]);
    let published =
        from.query("SELECT c.relname FROM pg_publication_rel JOIN pg_class c ON c.oid = prrelid ORDER BY 1");
    let expected = ["%s, t", "base", "mine", "t", "whole", "whole_1"];
    let nameable = |name: &&str| *name != "whole" || source.major() >= 13;
    assert_eq!(published.concat(), expected.into_iter().filter(nameable).collect::<Vec<_>>());
    from.execute(
        r#"UPDATE child SET id = 2; UPDATE t SET v = 'changed' WHERE id < 50; DELETE FROM t WHERE id > 90; INSERT INTO base VALUES (7);
           INSERT INTO "it's %I ""odd"""."%s, t" VALUES (1), (2); INSERT INTO whole VALUES (1), (2); UPDATE whole SET id = 3 WHERE id = 2;
           INSERT INTO mine VALUES (1); TRUNCATE mine; INSERT INTO mine VALUES (2)"#,
    );
    by_mover("cutover", &from, &to, "postgres").run().expect_code(3).expect_words(&[
        "public.child: no replica identity",
        "public.late: neither its rows nor their changes are on the target",
        "must be owner of",
    ]);
    running.wait().expect_code(0);
    assert_source_is_clean(&from);
    from.execute("TRUNCATE child, late");
    to.execute("TRUNCATE child");
    assert_eq!(compare::rows(&from, &to), Vec::<String>::new());
}

#[test]
fn tables_of_others_are_followed_where_the_extension_aiven_extras_publishes_them() {
    let extensions = aiven_extras();
    let source = Cluster::start(18, &Options { settings: vec![extensions.setting()], ..Options::default() });
    let leave_out = ["--exclude-extension", "aiven_extras"];
    tables_of_others_are_followed(&source, "CREATE EXTENSION aiven_extras", leave_out);
}

#[test]
fn tables_of_others_are_followed_from_a_major_that_publishes_no_partitioned_table() {
    let source = Cluster::start(12, &Options::default());
    let install = format!("CREATE SCHEMA aiven_extras; {AIVEN_EXTRAS}");
    tables_of_others_are_followed(&source, &install, ["--exclude-schema", "aiven_extras"]);
}

#[test]
fn membership_in_a_providers_role_counts_as_far_as_the_server_honours_it() {
    for (major, refusal) in
        [(15, "must be superuser or replication role"), (18, "permission denied to start WAL sender")]
    {
        let source = Cluster::start(major, &Options::default());
        let target = Cluster::start(18, &Options::default());
        source.postgres().execute("CREATE ROLE rds_replication; CREATE ROLE mover LOGIN");
        let from = source.create_database_with("member", "OWNER mover");
        from.execute("SET ROLE mover; CREATE TABLE t (id integer PRIMARY KEY); INSERT INTO t VALUES (1)");
        let to = target.create_database("member");
        let run = |command: &str, method: &str| {
            by_mover(command, &from, &to, "postgres").args(["--method", method]).run()
        };
        run("check", "replication")
            .expect_code(2)
            .expect_words(&["the user may not make a replication slot"]);
        // As a managed server would have it, where a member may replicate; this one takes the attribute alone.
        source.postgres().execute("GRANT rds_replication TO mover");
        let refused = format!("the user may open no replication session: {refusal}");
        for command in ["check", "migrate"] {
            let said = run(command, "replication").expect_code(2);
            said.expect_words(&[&refused, "ALTER ROLE … REPLICATION"]);
            assert!(!said.stdout.contains("may not make a replication slot"), "{}", said.stdout);
        }
        assert_eq!(to.value("SELECT to_regnamespace('pgstream') IS NULL"), "t");
        run("check", "auto").expect_code(0).expect_words(&[&refused, "so the source can't be followed"]);
        run("migrate", "auto").expect_code(0).expect_words(&[&refused, "method copy"]);
        assert_equal(&from, &to);
        assert_source_is_clean(&from);
    }
}
