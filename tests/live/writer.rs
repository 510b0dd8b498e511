//! An application that writes to the source all the time.

use super::Database;
use crate::harness::{Random, change};
use std::sync::atomic::{AtomicBool, Ordering};

/// Every shape of table that the writer changes; `large` is cut into parts by key.
pub(super) const SCHEMA: &str = "
CREATE TABLE keyed (id integer PRIMARY KEY, v text, large text);
ALTER TABLE keyed ALTER large SET STORAGE EXTERNAL;
INSERT INTO keyed SELECT i, 'v', repeat(i::text, 3000) FROM generate_series(1, 60) i;
CREATE TABLE seen (id integer, v text);
ALTER TABLE seen REPLICA IDENTITY FULL;
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO seen VALUES (NEW.id, TG_OP); RETURN NULL; END$$;
CREATE TRIGGER note AFTER INSERT OR UPDATE ON keyed FOR EACH ROW EXECUTE PROCEDURE note();
CREATE TABLE bare (a integer, b numeric, c json);
ALTER TABLE bare REPLICA IDENTITY FULL;
INSERT INTO bare SELECT i % 30, i / 7.0, '{\"a\": 1}' FROM generate_series(1, 2000) i;
CREATE TABLE big (id bigint PRIMARY KEY, v text, large text);
ALTER TABLE big ALTER large SET STORAGE EXTERNAL;
INSERT INTO big SELECT i, md5(i::text), CASE WHEN i % 500 = 0 THEN repeat('x', 4000) END FROM generate_series(1, 60000) i;
CREATE TABLE parent (id integer PRIMARY KEY);
CREATE TABLE child (id integer PRIMARY KEY, parent integer REFERENCES parent);
CREATE TABLE swapped (id integer PRIMARY KEY, k integer UNIQUE DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE numbered (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text);
CREATE TABLE parted (id integer, v text) PARTITION BY RANGE (id);
CREATE TABLE parted_1 PARTITION OF parted (PRIMARY KEY (id)) FOR VALUES FROM (0) TO (50);
CREATE TABLE parted_2 PARTITION OF parted (PRIMARY KEY (id)) FOR VALUES FROM (50) TO (100);
CREATE TABLE bulk (id bigint PRIMARY KEY, v integer);
CREATE SEQUENCE loose INCREMENT BY -3 MAXVALUE 100 MINVALUE -200 CYCLE;
SELECT lo_from_bytea(1000 + i, decode(repeat('ab', 5000), 'hex')) FROM generate_series(1, 5) i;
";

/// How [`SCHEMA`] is copied in parts.
pub(super) const IN_PARTS: [&str; 4] = ["--split-tables-larger-than", "1MB", "--jobs", "2"];

/// One statement; keys are few, so that changes meet.
fn statement(random: &mut Random, major: u32) -> String {
    let (a, b) = (random.below(60), random.below(60));
    let far = 1 + random.below(60_000);
    match random.below(25) {
        which @ 0..=8 => change(which, a, b),
        9 | 10 => format!("UPDATE big SET v = 'w{b}' WHERE id BETWEEN {far} AND {far} + {a}"),
        11 => format!("DELETE FROM big WHERE id BETWEEN {far} AND {far} + 3"),
        12 => format!(
            "UPDATE big SET id = {far} + 100000 WHERE id = (SELECT max(id) FROM big WHERE id < {far}) \
             AND NOT EXISTS (SELECT FROM big WHERE id = {far} + 100000)"
        ),
        which @ (13 | 14) => change(which - 4, a, b),
        15 => format!(
            "INSERT INTO swapped VALUES ({a}, {a}) ON CONFLICT (id) DO NOTHING; UPDATE swapped SET k = 59 - k"
        ),
        16 => "DELETE FROM seen".to_owned(),
        17 | 18 => format!("INSERT INTO numbered (v) SELECT 'n{b}' FROM generate_series(0, {a})"),
        19 => format!("DELETE FROM numbered WHERE id % 60 = {a}"),
        20 => format!("INSERT INTO parted_{} VALUES ({a}, 'p') ON CONFLICT DO NOTHING", 1 + a / 50),
        21 => format!("UPDATE parted SET v = v || '{b}' WHERE id = {a}; DELETE FROM parted WHERE id = {b}"),
        22 => "SELECT nextval('loose')".to_owned(),
        // PostgreSQL 10 does not tell of it.
        23 if major > 10 && a < 8 => truncate(a),
        _ => format!(
            "SELECT CASE WHEN EXISTS (SELECT FROM pg_largeobject_metadata WHERE oid = 1000 + {a} % 10) \
             THEN lo_put(1000 + {a} % 10, {b} * 100, 'changed')::text ELSE lo_create(1000 + {a} % 10)::text END"
        ),
    }
}

fn truncate(which: u64) -> String {
    let sql = match which {
        0 => "TRUNCATE parent, child",
        1 => "TRUNCATE parent CASCADE",
        2 => "TRUNCATE numbered RESTART IDENTITY; INSERT INTO numbered (v) VALUES ('first')",
        3 => "TRUNCATE parted",
        4 => "TRUNCATE parted_1",
        5 => "TRUNCATE seen, bare, swapped RESTART IDENTITY",
        6 => {
            "TRUNCATE keyed; INSERT INTO keyed SELECT i, 'v', repeat(i::text, 3000) FROM generate_series(1, 60) i"
        }
        _ => {
            "TRUNCATE big; INSERT INTO big SELECT i, md5(i::text), CASE WHEN i % 500 = 0 THEN repeat('y', 4000) END FROM generate_series(1, 60000) i"
        }
    };
    sql.to_owned()
}

/// A transaction of up to 100,000 rows, which falls apart into a change of each row.
fn large_transaction(random: &mut Random) -> String {
    let rows = [1_000, 10_000, 100_000][random.below(3) as usize];
    match random.below(4) {
        0 | 1 => format!(
            "BEGIN; INSERT INTO bulk SELECT coalesce(m, 0) + i, 0 FROM (SELECT max(id) m FROM bulk) b, generate_series(1, {rows}) i; COMMIT;"
        ),
        2 => format!(
            "BEGIN; UPDATE bulk SET v = v + 1 WHERE id IN (SELECT id FROM bulk ORDER BY id LIMIT {rows}); SAVEPOINT s; \
             DELETE FROM bulk; ROLLBACK TO s; COMMIT;"
        ),
        _ => format!(
            "BEGIN; DELETE FROM bulk WHERE id IN (SELECT id FROM bulk ORDER BY id LIMIT {rows}); COMMIT;"
        ),
    }
}

fn transaction(random: &mut Random, major: u32) -> String {
    if random.below(60) == 0 {
        return large_transaction(random);
    }
    let mut sql = String::from("BEGIN;");
    for _ in 0..=random.below(6) {
        let inner = statement(random, major);
        match random.below(5) {
            0 => sql.push_str(&format!("SAVEPOINT s; {inner}; ROLLBACK TO s;")),
            1 => sql.push_str(&format!("SAVEPOINT s; {inner}; RELEASE s;")),
            _ => sql.push_str(&format!("{inner};")),
        }
    }
    sql.push_str(&match random.below(24) {
        0 | 1 => "ROLLBACK;".to_owned(),
        2 | 3 => format!("PREPARE TRANSACTION 'written {}';", random.below(u64::MAX)),
        _ => "COMMIT;".to_owned(),
    });
    sql
}

/// What comes before each batch: prepared transactions hold their locks and hold up the making of slots, so they end before long.
/// What waits for one fails as a whole.
const BEFORE: &str = "\\set ON_ERROR_STOP off
SET lock_timeout = '200ms';
SELECT format('%s PREPARED %L', CASE WHEN hashtext(gid) % 2 = 0 THEN 'COMMIT' ELSE 'ROLLBACK' END, gid)
FROM pg_prepared_xacts WHERE database = current_database() \\gexec
";

/// Writes until `done`. The source may be down, or a transaction may fail as a whole: then it is as if it had not been.
pub(super) fn write(source: &Database<'_>, seed: u64, done: &AtomicBool) {
    let (mut random, major) = (Random::new(seed), source.cluster().major());
    while !done.load(Ordering::Relaxed) {
        let sql: String = (0..15).map(|_| transaction(&mut random, major)).collect();
        let _ = source.try_execute(&format!("{BEFORE}{sql}"));
        std::thread::sleep(std::time::Duration::from_millis(150));
    }
    source.execute(BEFORE);
}

/// Tells the writer to end when it is dropped, so that a test that fails ends as well.
pub(super) struct Ends<'a>(pub(super) &'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
