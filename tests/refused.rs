//! Objects that the target can't have: known before anything is touched, or refused when they are made.

use crate::harness::{Cluster, Database, Options, Pgstream, compare, server};

/// A trigger on the target that refuses to have any object of this name.
fn refuse(target: &Database<'_>, name: &str) {
    target.execute(&format!(
        "CREATE SCHEMA house;
         CREATE FUNCTION house.refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
           IF EXISTS (SELECT FROM pg_event_trigger_ddl_commands() c WHERE c.object_identity = '{name}') THEN
             RAISE 'not in this house';
           END IF;
         END $$;
         CREATE EVENT TRIGGER house_rule ON ddl_command_end EXECUTE FUNCTION house.refuse();"
    ));
}

fn forgive(target: &Database<'_>) {
    target.execute("DROP EVENT TRIGGER house_rule; DROP FUNCTION house.refuse(); DROP SCHEMA house");
}

/// Views upon views, and a table that a type keeps.
const TOWER: &str = "CREATE TYPE kind AS ENUM ('a'); CREATE TABLE base (id integer PRIMARY KEY, kind kind);
    INSERT INTO base VALUES (1, 'a'); CREATE TABLE other (id integer PRIMARY KEY); INSERT INTO other VALUES (1);
    CREATE VIEW first AS SELECT id FROM base; CREATE VIEW second AS SELECT id FROM first;
    CREATE INDEX by_kind ON base (kind); GRANT SELECT ON second TO PUBLIC;";

#[test]
fn a_refused_object_stops_the_run_with_its_dependents_and_after_the_mend_it_goes_on() {
    let (source, target) = (server(15).create_database("tower"), server(15).create_database("house"));
    source.execute(TOWER);
    refuse(&target, "public.first");
    let migrate = || Pgstream::between("migrate", &source, &target).args(["--method", "copy", "-v"]);
    migrate().run().expect_code(1).expect_words(&[
        "could not create view \"public.first\" on the target: not in this house",
        "These need it: VIEW public.second.",
        "CREATE VIEW \"public\".\"first\"",
        "--keep-going",
    ]);
    migrate().run().expect_code(1);
    forgive(&target);
    migrate().run().expect_code(0);
    compare::assert_equal(&source, &target);
}

#[test]
fn many_objects_are_made_by_several_sessions_and_a_refused_one_is_reported_all_the_same() {
    let (source, target) = (server(15).create_database("town"), server(15).create_database("house"));
    source.execute(
        "SELECT format('CREATE TABLE t%1$s (id integer); CREATE VIEW v%1$s AS SELECT id FROM t%1$s; GRANT SELECT ON v%1$s TO PUBLIC', n)
           FROM generate_series(1, 500) n \\gexec
         CREATE VIEW below AS SELECT id FROM v250",
    );
    refuse(&target, "public.v250");
    target.execute(
        "CREATE TABLE house.maker (pid integer);
         CREATE FUNCTION house.note() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO house.maker VALUES (pg_backend_pid()); END';
         CREATE EVENT TRIGGER house_note ON ddl_command_end WHEN TAG IN ('CREATE VIEW') EXECUTE FUNCTION house.note()",
    );
    let migrate = || Pgstream::between("migrate", &source, &target).args(["--method", "copy", "--jobs", "2"]);
    migrate().run().expect_code(1).expect_words(&[
        "could not create view \"public.v250\" on the target: not in this house",
        "These need it: VIEW public.below.",
    ]);
    assert_eq!(target.value("SELECT count(DISTINCT pid) > 1 AND count(*) = 499 FROM house.maker"), "t");
    target.execute("DROP EVENT TRIGGER house_note; DROP FUNCTION house.note(); DROP TABLE house.maker");
    forgive(&target);
    migrate().run().expect_code(0);
    compare::assert_equal(&source, &target);
}

#[test]
fn keep_going_leaves_out_what_needs_a_refused_object_and_reports_all_of_it() {
    let (source, target) = (server(15).create_database("tower"), server(15).create_database("house"));
    source.execute(TOWER);
    refuse(&target, "public.kind");
    let migrate = Pgstream::between("migrate", &source, &target).args(["--method", "copy", "--keep-going"]);
    migrate.run().expect_code(3).expect_words(&[
        "not made TYPE public.kind: not in this house",
        "not made TABLE public.base: needs TYPE public.kind, which could not be made",
        "not made VIEW public.first: needs TABLE public.base, which could not be made",
        "not made VIEW public.second: needs VIEW public.first, which could not be made",
        "not made INDEX public.by_kind: needs TABLE public.base, which could not be made",
    ]);
    assert_eq!(target.value("SELECT count(*) FROM other"), "1");
    assert_eq!(target.value("SELECT to_regclass('base') IS NULL"), "t");
}

#[test]
fn what_a_role_without_superuser_may_not_make_is_known_before_and_can_be_left_out() {
    let source = server(15).create_database("mixed");
    source.execute(
        "CREATE FUNCTION small(text) RETURNS text LANGUAGE internal IMMUTABLE AS 'lower';
         CREATE TABLE words (id integer PRIMARY KEY, word text); INSERT INTO words VALUES (1, 'A');
         CREATE VIEW small_words AS SELECT small(word) FROM words; CREATE INDEX by_small ON words (small(word));
         CREATE FUNCTION quiet() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN END $$;
         CREATE EVENT TRIGGER watch ON ddl_command_end EXECUTE FUNCTION quiet();
         CREATE PUBLICATION everything FOR ALL TABLES;
         CREATE FUNCTION safe(integer) RETURNS boolean LANGUAGE sql LEAKPROOF AS 'SELECT true';
         CREATE OPERATOR FAMILY rare USING btree;
         CREATE AGGREGATE gather(bigint) (SFUNC = int8_avg_accum, STYPE = internal, FINALFUNC = numeric_poly_avg);",
    );
    let cluster = Cluster::start(16, &Options::default());
    cluster.postgres().execute("CREATE ROLE app LOGIN; CREATE DATABASE mine OWNER app TEMPLATE template0");
    let target = cluster.uri_as("app", None, "mine");
    let run = |command: &str| {
        Pgstream::new(command).args([
            "--source",
            &source.uri(),
            "--target",
            &target,
            "--method",
            "copy",
            "-O",
            "-x",
        ])
    };
    run("check").run().expect_code(2).expect_words(&[
        "blocker: source FUNCTION public.small(\"text\"): is written in internal, which only a superuser may use",
        "blocker: source EVENT TRIGGER watch: may be created by a superuser only",
        "blocker: source PUBLICATION everything: publishes all tables",
        "blocker: source FUNCTION public.safe(integer): is LEAKPROOF",
        "blocker: source OPERATOR FAMILY public.rare USING btree: may be created by a superuser only",
        "blocker: source AGGREGATE public.gather(bigint): has a state of type internal",
        "--skip-unprivileged",
    ]);
    run("migrate").run().expect_code(2).expect_words(&["Nothing has been touched"]);
    run("migrate").args(["--skip-unprivileged"]).run().expect_code(3).expect_words(&[
        "EVENT TRIGGER watch: may be created by a superuser only",
        "VIEW public.small_words: needs FUNCTION public.small(\"text\"), which is left out",
        "INDEX public.by_small: needs FUNCTION public.small(\"text\"), which is left out",
    ]);
    let made = cluster.database("mine");
    assert_eq!(made.value("SELECT word FROM words"), "A");
    assert_eq!(made.value("SELECT to_regproc('small') IS NULL AND to_regproc('quiet') IS NOT NULL"), "t");
}

#[test]
fn what_a_newer_major_no_longer_has_is_named_with_the_object_that_uses_it() {
    let source = server(11).create_database("old");
    source.execute(
        "CREATE FUNCTION last(anyarray) RETURNS anyarray LANGUAGE sql AS 'SELECT $1';
         CREATE AGGREGATE gathered(anyelement) (SFUNC = array_append, STYPE = anyarray, FINALFUNC = last, INITCOND = '{}');
         CREATE FUNCTION own_latin1(integer, integer, cstring, internal, integer) RETURNS void LANGUAGE c STRICT AS '$libdir/utf8_and_iso8859_1', 'iso8859_1_to_utf8';
         CREATE CONVERSION own FOR 'LATIN1' TO 'UTF8' FROM own_latin1;
         CREATE OPERATOR %% (LEFTARG = bigint, PROCEDURE = numeric_fac);
         CREATE TABLE times (id integer PRIMARY KEY, at abstime, spans tinterval[]) WITH OIDS;
         CREATE TABLE lasting (at interval, fine integer); CREATE INDEX by_text ON lasting ((at::text));
         CREATE INDEX by_fine ON lasting ((fine::text), lower(fine::text));
         CREATE VIEW factorials AS SELECT id ! AS many FROM times;
         CREATE VIEW boxes AS SELECT b FROM (VALUES (box '((0,0),(1,1))')) v(b) WHERE b @ box '((0,0),(2,2))';
         CREATE VIEW defaults AS SELECT adrelid, adsrc FROM pg_attrdef;
         CREATE FUNCTION careful() RETURNS void LANGUAGE sql SET synchronize_seqscans = on AS 'SELECT';
         UPDATE pg_proc SET proconfig = '{no_such_setting=on}' WHERE proname = 'careful';
         CREATE VIEW fine AS SELECT array_append(ARRAY[id], 1) || 2 AS a, lower('A'), reltuples
           FROM times JOIN pg_class ON true;",
    );
    let target = server(17).create_database("new");
    let check = |options: &[&'static str]| {
        Pgstream::between("check", &source, &target)
            .args(["--method", "copy"])
            .args(options.iter().copied())
            .run()
    };
    let said = check(&[]).expect_code(2);
    said.expect_words(&[
        "source function public.gathered(anyelement): uses function array_append(anyarray, anyelement), which PostgreSQL 17 does not have",
        "source column at of table public.times: uses type abstime, which PostgreSQL 17 does not have",
        "Change it on the source to timestamp with time zone, or leave it out.",
        "source column spans of table public.times: uses type _tinterval",
        "source view public.factorials: uses operator ! (int8, NONE)",
        "source view public.boxes: uses operator @ (box, box)",
        "source view public.defaults: uses system column pg_attrdef.adsrc",
        "source function public.careful(): uses setting no_such_setting",
        "tables WITH OIDS are gone since PostgreSQL 12",
        "source conversion \"public.own\": calls",
        "source index public.by_text: uses function interval_out(interval), which is not immutable in PostgreSQL 17",
        "servers from 14 on know no postfix operators",
    ]);
    assert!(!said.stdout.contains("view public.fine") && !said.stdout.contains("by_fine"), "{}", said.stdout);
    let said = check(&["-t", "fine", "-t", "boxes"]).expect_code(2);
    assert!(
        said.stdout.contains("view public.boxes") && !said.stdout.contains("view public.factorials"),
        "{}",
        said.stdout
    );
}

#[test]
fn what_a_newer_major_has_in_another_form_comes_in_that_form() {
    let source = server(13).create_database("old");
    source.execute(
        "CREATE AGGREGATE gathered(anyelement) (SFUNC = array_append, STYPE = anyarray, INITCOND = '{}');
         CREATE AGGREGATE flat(VARIADIC anyarray) (SFUNC = array_cat, STYPE = anyarray);
         CREATE AGGREGATE numbers(integer) (SFUNC = array_append, STYPE = integer[], INITCOND = '{}');
         CREATE OPERATOR +> (LEFTARG = anyarray, RIGHTARG = anyelement, PROCEDURE = array_append);
         COMMENT ON AGGREGATE gathered(anyelement) IS 'all of them'; COMMENT ON OPERATOR +> (anyarray, anyelement) IS 'and one';
         REVOKE ALL ON FUNCTION gathered(anyelement) FROM PUBLIC;
         CREATE TABLE t (id integer PRIMARY KEY, kind text); INSERT INTO t VALUES (1, 'a'), (2, 'b');
         CREATE VIEW kinds AS SELECT gathered(kind ORDER BY id) AS kinds, numbers(id ORDER BY id) +> 3 AS numbers FROM t;
         CREATE FUNCTION careful(text DEFAULT 'x
 SET y') RETURNS text LANGUAGE sql SET operator_precedence_warning = on SET work_mem = '1MB' SET force_parallel_mode = on
           AS $$ SELECT '
 SET \"work_mem\" TO ''2MB''
' $$;",
    );
    let target = server(18).create_database("new");
    source.execute(&format!(
        "ALTER DATABASE {0} SET vacuum_cleanup_index_scale_factor = 0.2; ALTER DATABASE {0} SET work_mem = '2MB'",
        source.quoted_name()
    ));
    Pgstream::between("check", &source, &target).args(["--method", "copy"]).run().expect_code(0).expect_words(&[
        "source aggregate \"public.gathered\": comes with anycompatible and anycompatiblearray",
        "source operator \"public.+>\": comes with anycompatible",
        "source function \"public.careful\": comes without setting operator_precedence_warning",
        "source function \"public.careful\": comes with setting debug_parallel_query in place of force_parallel_mode",
    ]);
    Pgstream::between("migrate", &source, &target).args(["--method", "copy"]).run().expect_code(0);
    assert_eq!(target.query("SELECT kinds, numbers FROM kinds"), [["{a,b}", "{1,2,3}"]]);
    assert_eq!(
        target.query(
            "SELECT proconfig, prosrc LIKE '%2MB%' FROM pg_proc WHERE proname = 'careful'
             UNION ALL SELECT setconfig, true FROM pg_db_role_setting s JOIN pg_database d ON d.oid = setdatabase AND datname = current_database()
             UNION ALL SELECT ARRAY[obj_description(oid, 'pg_proc'), proacl::text], true FROM pg_proc WHERE proname = 'gathered'
             UNION ALL SELECT ARRAY[obj_description(oid, 'pg_operator')], true FROM pg_operator WHERE oprname = '+>'"
        ),
        [
            ["{work_mem=1MB,debug_parallel_query=on}", "t"],
            ["{work_mem=2MB}", "t"],
            ["{\"all of them\",\"{postgres=X/postgres}\"}", "t"],
            ["{\"and one\"}", "t"],
        ]
    );
    Pgstream::between("verify", &source, &target).run().expect_code(0);
}
