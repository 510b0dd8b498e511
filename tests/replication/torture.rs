//! A random writer while everything is cut off at random: nothing twice, nothing lost.
//!
//! `PGSTREAM_SEED` replays a run, `PGSTREAM_ROUNDS` makes it longer.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::stream::Stream;
use crate::harness::{Cluster, Options, Random, change, variable};

const SCHEMA: &str = "\
    CREATE TABLE keyed (id int PRIMARY KEY, v text, large text); ALTER TABLE keyed ALTER large SET STORAGE EXTERNAL; \
    CREATE TABLE bare (a int, b numeric, c json); ALTER TABLE bare REPLICA IDENTITY FULL; \
    CREATE TABLE log (id int, at text); \
    CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent); \
    CREATE TABLE uniq (id int PRIMARY KEY, k int UNIQUE DEFERRABLE INITIALLY DEFERRED)";

/// One statement of the writer; keys are few, so that changes meet.
fn statement(random: &mut Random) -> String {
    let (a, b) = (random.below(50), random.below(50));
    match random.below(16) {
        which @ 0..=8 => change(which, a, b),
        9 | 10 => format!("INSERT INTO log SELECT n, 'x' FROM generate_series(1, {}) n", a * a),
        which @ (11 | 12) => change(which - 2, a, b),
        13 => format!(
            "INSERT INTO uniq VALUES ({a}, {a}) ON CONFLICT (id) DO NOTHING; UPDATE uniq SET k = 49 - k"
        ),
        14 if a < 5 => "TRUNCATE parent, child, log".to_owned(),
        14 => format!("UPDATE log SET at = at WHERE false; UPDATE keyed SET v = v WHERE id > {a}"),
        _ => format!(
            "UPDATE uniq SET id = id + 1000 WHERE id = {a} AND NOT EXISTS (SELECT FROM uniq WHERE id = {a} + 1000)"
        ),
    }
}

fn transaction(random: &mut Random) -> String {
    let mut sql = String::from("BEGIN;");
    for _ in 0..=random.below(6) {
        let inner = statement(random);
        match random.below(5) {
            0 => sql.push_str(&format!("SAVEPOINT s; {inner}; ROLLBACK TO s;")),
            1 => sql.push_str(&format!("SAVEPOINT s; {inner}; RELEASE s;")),
            _ => sql.push_str(&format!("{inner};")),
        }
    }
    sql.push_str(match random.below(12) {
        0 => "ROLLBACK;",
        1 => "PREPARE TRANSACTION 'two-phase'; COMMIT PREPARED 'two-phase';",
        _ => "COMMIT;",
    });
    sql
}

#[test]
fn whatever_is_killed_whenever_nothing_is_lost_and_nothing_comes_twice() {
    let seed = variable("PGSTREAM_SEED").unwrap_or(u64::from(std::process::id()) * 7919 + 1);
    let rounds = variable("PGSTREAM_ROUNDS").unwrap_or(12);
    println!("PGSTREAM_SEED={seed} PGSTREAM_ROUNDS={rounds}");
    let settings = vec!["logical_decoding_work_mem = '64kB'".to_owned()];
    let source = Cluster::start(15, &Options { settings, ..Options::default() });
    let target = Cluster::start(18, &Options::default());
    let mut stream = Stream::between(&source, &target, SCHEMA);
    stream.options.memory = 20_000;
    let mut random = Random::new(seed);
    let done = CancellationToken::new();
    let writer_seed = random.below(u64::MAX) | 1;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut random = Random::new(writer_seed);
            while !done.is_cancelled() {
                let sql: String = (0..20).map(|_| transaction(&mut random)).collect();
                // The source may be down, or a transaction may fail as a whole: then it is as if it had not been.
                let _ = stream.source.try_execute(&sql);
                let _ = stream.source.try_execute("ROLLBACK PREPARED 'two-phase'");
            }
        });
        // A failure ends the writer too.
        let _done = done.clone().drop_guard();
        for round in 0..rounds {
            let pause = Duration::from_millis(50 + random.below(600));
            let fate = random.below(6);
            stream.run_for(pause, || match fate {
                // The process dies: nothing is said to anyone.
                0..=2 => {}
                3 => {
                    source.stop("immediate");
                    source.start_again();
                }
                4 => {
                    target.stop("immediate");
                    target.start_again();
                }
                _ => {
                    for server in [&source, &target] {
                        let _ = server.postgres().try_execute(
                            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgstream'",
                        );
                    }
                    std::thread::sleep(Duration::from_millis(200));
                }
            });
            println!("round {round}: fate {fate} after {pause:?}, {:?}", stream.progress.snapshot().applied);
        }
    });
    stream.catch_up();
    for query in [
        "SELECT * FROM keyed ORDER BY id",
        "SELECT a, b, c::text, count(*) FROM bare GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
        "SELECT id, at, count(*) FROM log GROUP BY 1, 2 ORDER BY 1, 2",
        "SELECT * FROM parent ORDER BY id",
        "SELECT * FROM child ORDER BY id",
        "SELECT * FROM uniq ORDER BY id",
    ] {
        let query = format!("SELECT md5(string_agg(q::text, '|')), count(*) FROM ({query}) q");
        let rows = stream.expect_same(&query);
        println!("{rows:?}");
    }
}
