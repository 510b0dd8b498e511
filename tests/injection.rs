//! Names and values that would be statements, if they got out of their quotes.

use crate::harness::{Cluster, Options, Pgstream, compare, server};
use crate::replication::stream::Stream;

/// Ends an identifier, a string and a dollar quote, and does harm.
const HARM: &str = "\"; CREATE TABLE harm(); --\n'; CREATE TABLE harm(); --$$\\";

fn string(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Replaces `{x}` by a harmful name that ends in x, `{}` by a harmful string, and `{!}` by the body of a function with harm in it.
fn harmful(sql: &str) -> String {
    let mut parts = sql.split('{');
    let mut harmful = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (what, rest) = part.split_once('}').expect("each { has its }");
        harmful.push_str(&match what {
            "" => string(HARM),
            "!" => string(&format!("BEGIN /* {HARM} */ RETURN NEW; END")),
            suffix => format!("\"{}{suffix}\"", HARM.replace('"', "\"\"")),
        });
        harmful.push_str(rest);
    }
    harmful
}

const OBJECTS: &str = "
    CREATE SCHEMA {s}; COMMENT ON SCHEMA {s} IS {};
    CREATE TYPE {s}.{e} AS ENUM ({}, 'b'); CREATE TYPE {s}.{c} AS ({f} integer); COMMENT ON COLUMN {s}.{c}.{f} IS {};
    CREATE DOMAIN {s}.{d} AS text DEFAULT {} CONSTRAINT {dc} CHECK (VALUE IS DISTINCT FROM {} || '!');
    CREATE SEQUENCE {s}.{q}; CREATE COLLATION {s}.{co} (locale = 'C');
    CREATE TABLE {s}.{t} ({i} integer CONSTRAINT {p} PRIMARY KEY, {v} text DEFAULT {}, {z} {s}.{d},
      CONSTRAINT {k} CHECK ({v} IS DISTINCT FROM {} || '!'), CONSTRAINT {u} UNIQUE ({v}, {i}));
    CREATE TABLE {s}.{r} ({i} integer CONSTRAINT {fk} REFERENCES {s}.{t}, {g} integer GENERATED ALWAYS AS IDENTITY, {y} {s}.{e} DEFAULT {});
    COMMENT ON TABLE {s}.{t} IS {}; COMMENT ON COLUMN {s}.{t}.{v} IS {}; COMMENT ON CONSTRAINT {k} ON {s}.{t} IS {};
    CREATE INDEX {x} ON {s}.{t} (({v} || {})) WHERE {v} <> {}; COMMENT ON INDEX {s}.{x} IS {};
    CREATE STATISTICS {s}.{st} ON {i}, {v} FROM {s}.{t};
    CREATE VIEW {s}.{w} AS SELECT {i} AS {wi}, {} AS {wv} FROM {s}.{t};
    CREATE MATERIALIZED VIEW {s}.{m} AS SELECT {v} AS {mv} FROM {s}.{t};
    CREATE FUNCTION {s}.{fn}({a} text DEFAULT {}) RETURNS text LANGUAGE sql SET application_name = {} AS 'SELECT $1';
    CREATE FUNCTION {s}.{tf}() RETURNS trigger LANGUAGE plpgsql AS {!};
    CREATE TRIGGER {tr} BEFORE UPDATE ON {s}.{t} FOR EACH ROW WHEN (NEW.{v} = {}) EXECUTE FUNCTION {s}.{tf}({});
    CREATE RULE {ru} AS ON DELETE TO {s}.{t} WHERE OLD.{v} = {} || '!' DO INSTEAD NOTHING;
    CREATE POLICY {po} ON {s}.{t} USING ({v} = {}); CREATE AGGREGATE {s}.{ag} (text) (SFUNC = textcat, STYPE = text, INITCOND = {});
    CREATE TEXT SEARCH CONFIGURATION {s}.{tc} (PARSER = default); CREATE TEXT SEARCH DICTIONARY {s}.{td} (TEMPLATE = simple);
    CREATE FOREIGN DATA WRAPPER {fw} OPTIONS ({o} {}); CREATE SERVER {sv} TYPE {} VERSION {} FOREIGN DATA WRAPPER {fw} OPTIONS ({o} {});
    CREATE FOREIGN TABLE {s}.{ft} ({i} integer OPTIONS ({o} {})) SERVER {sv} OPTIONS ({o} {});
    CREATE USER MAPPING FOR PUBLIC SERVER {sv} OPTIONS ({o} {}); CREATE PUBLICATION {pu} FOR TABLE {s}.{t};
    INSERT INTO {s}.{t} VALUES (1); INSERT INTO {s}.{r} ({i}) VALUES (1); REFRESH MATERIALIZED VIEW {s}.{m}";

#[test]
fn names_and_values_stay_inside_of_their_quotes_in_every_kind_of_object() {
    let (source, target) = (server(15).create_database("harm"), server(15).create_database("harm"));
    source.execute(&harmful(OBJECTS));
    assert_eq!(source.value(&harmful("SELECT {v} = {} FROM {s}.{t}")), "t");
    Pgstream::between("migrate", &source, &target).args(["--method", "copy"]).run().expect_code(0);
    compare::assert_equal(&source, &target);
    Pgstream::between("verify", &source, &target).run().expect_code(0);
    Pgstream::new("cleanup").args(["--target", &target.uri(), "--yes"]).run().expect_code(0);
    for database in [&source, &target] {
        assert_eq!(database.value("SELECT to_regclass('harm') IS NULL"), "t");
    }
}

#[test]
fn names_and_values_of_the_stream_stay_inside_of_their_quotes() {
    let schema = harmful(
        "CREATE SCHEMA {s}; CREATE TABLE {s}.{t} ({i} integer PRIMARY KEY, {v} text, {w} text);
         CREATE TABLE {s}.{b} ({v} text); ALTER TABLE {s}.{b} REPLICA IDENTITY FULL",
    );
    let stream = Stream::between(server(15), server(18), &schema);
    for change in [
        "INSERT INTO {s}.{t} SELECT n, {} || n, {} FROM generate_series(1, 200) n",
        "INSERT INTO {s}.{b} VALUES ({}), ({}), (NULL), ('\\N'), ('\\.')",
        "UPDATE {s}.{t} SET {v} = {v} || {} WHERE {i} < 100",
        "UPDATE {s}.{t} SET {i} = {i} + 1000 WHERE {i} = 5",
        "DELETE FROM {s}.{t} WHERE {i} BETWEEN 110 AND 190",
        "UPDATE {s}.{b} SET {v} = {v} || '!' WHERE {v} IS NOT NULL",
        "DELETE FROM {s}.{b} WHERE {v} IS NULL",
    ] {
        stream.source.execute(&harmful(change));
        stream.catch_up();
    }
    stream.expect_same(&harmful("SELECT * FROM {s}.{t} ORDER BY {i}"));
    stream.expect_same(&harmful("SELECT * FROM {s}.{b} ORDER BY {v}"));
    stream.source.execute(&harmful("TRUNCATE {s}.{t}, {s}.{b}"));
    stream.catch_up();
    stream.expect_same(&harmful("SELECT count(*) FROM {s}.{t}"));
    assert_eq!(stream.target.value("SELECT to_regclass('harm') IS NULL"), "t");
}

#[test]
fn names_and_values_of_roles_and_databases_stay_inside_of_their_quotes() {
    let cluster = |major| Cluster::start(major, &Options::default());
    let (source, target) = (cluster(16), cluster(18));
    for statement in [
        "CREATE ROLE {ro} LOGIN PASSWORD {}; CREATE ROLE {me}; GRANT {ro} TO {me}; COMMENT ON ROLE {ro} IS {}",
        "ALTER ROLE {ro} SET my.value = {}; ALTER ROLE {ro} VALID UNTIL '2100-01-01'",
        "CREATE DATABASE {db} OWNER {ro}",
        "COMMENT ON DATABASE {db} IS {}; ALTER DATABASE {db} SET my.value = {}",
        "ALTER ROLE {me} IN DATABASE {db} SET my.value = {}; GRANT CREATE ON DATABASE {db} TO {me}",
    ] {
        source.postgres().execute(&harmful(statement));
    }
    let name = source.postgres().value("SELECT datname FROM pg_database WHERE datname ~ 'harm'");
    let (from, to) = (source.database(&name), target.database(&name));
    from.execute(&harmful("CREATE TABLE {t} ({i} integer PRIMARY KEY); ALTER TABLE {t} OWNER TO {me}; INSERT INTO {t} VALUES (1)"));
    let all = ["--all-databases", "--exclude-database", "postgres"];
    let servers =
        |command: &str| Pgstream::between(command, &source.postgres(), &target.postgres()).args(all);
    servers("migrate").args(["--method", "copy"]).run().expect_code(0);
    compare::assert_equal(&from, &to);
    servers("verify").run().expect_code(0);
    for query in [
        "SELECT rolname, rolcanlogin, rolpassword, rolvaliduntil, shobj_description(oid, 'pg_authid') FROM pg_authid WHERE rolname ~ 'harm' ORDER BY 1",
        "SELECT roleid::regrole, member::regrole FROM pg_auth_members WHERE member::regrole::text ~ 'harm'",
        "SELECT datname, datdba::regrole, datacl, shobj_description(oid, 'pg_database') FROM pg_database WHERE datname ~ 'harm'",
        "SELECT datname, setrole::regrole, setconfig FROM pg_db_role_setting LEFT JOIN pg_database d ON d.oid = setdatabase ORDER BY 1, 2::text",
    ] {
        let rows = source.postgres().query(query);
        assert!(!rows.is_empty(), "{query}");
        assert_eq!(rows, target.postgres().query(query), "{query}");
    }
    servers("cleanup").args(["--yes"]).run().expect_code(0);
    for database in [&from, &to, &source.postgres(), &target.postgres()] {
        assert_eq!(database.value("SELECT to_regclass('harm') IS NULL"), "t");
    }
}
