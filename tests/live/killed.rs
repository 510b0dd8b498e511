//! pgstream, the source and the target die at random moments, while the source is written to: nothing is lost, nothing comes twice.
//!
//! `PGSTREAM_SEED` replays a run, `PGSTREAM_ROUNDS` says how often something dies.

use super::writer::{Ends, IN_PARTS, SCHEMA, write};
use super::{
    Pair, assert_equal, assert_source_is_clean, cutover, migrate, migrate_until_in_step, status, wait_until,
};
use crate::harness::Random;
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn whoever_dies_whenever_the_same_command_again_ends_equal() {
    let seed = variable("PGSTREAM_SEED", u64::from(std::process::id()));
    let rounds = variable("PGSTREAM_ROUNDS", 6);
    println!("PGSTREAM_SEED={seed} PGSTREAM_ROUNDS={rounds}");
    let pair = Pair::start(15, 16);
    let (source, target) = pair.databases(SCHEMA);
    let mut random = Random::new(seed);
    let done = AtomicBool::new(false);
    let mut kills = BTreeMap::new();
    std::thread::scope(|scope| {
        let _ends = Ends(&done);
        scope.spawn(|| write(&source, seed, &done));
        while kills.values().sum::<u64>() < rounds {
            let mut running = migrate(&source, &target, &IN_PARTS);
            // The first rounds fall into the copy, later ones into the stream; now and then a copy is let through.
            let longest = if random.below(4) == 0 { 6000 } else { 1500 };
            let pause = Duration::from_millis(200 + random.below(longest));
            let who = ["pgstream", "pgstream", "source", "target"][random.below(4) as usize];
            std::thread::sleep(pause);
            if running.ended() {
                let said = running.wait();
                // A backend that the last run left behind may work on for a moment.
                assert!(said.stderr.contains("another pgstream"), "after {kills:?}: {said:?}");
                continue;
            }
            let phase = target
                .try_execute("SELECT phase FROM pgstream.migration")
                .unwrap_or_default()
                .trim()
                .to_owned();
            println!("{who} dies after {pause:?}, in phase {phase}");
            *kills.entry((who, phase)).or_default() += 1;
            match who {
                "pgstream" => running.kill(),
                _ => {
                    let server = if who == "source" { &pair.source } else { &pair.target };
                    server.stop("immediate");
                    server.start_again();
                    // During the copy this ends the run; the stream is taken up again.
                    std::thread::sleep(Duration::from_millis(300));
                    running.kill();
                }
            }
        }
        println!("who died, and in which phase: {kills:?}");
        let mut running = migrate_until_in_step(&source, &target, &IN_PARTS);
        running.kill();
    });
    // Nothing runs: the cutover follows the rest by itself.
    wait_until(|| status(&source, &target).is_some_and(|status| status["worker"].is_null()));
    cutover(&source, &target).run().expect_code(0);
    assert_equal(&source, &target);
    assert_source_is_clean(&source);
}

#[test]
fn a_server_that_restarts_during_the_stream_is_waited_for() {
    let pair = Pair::start(17, 18);
    let (source, target) = pair.databases(SCHEMA);
    let done = AtomicBool::new(false);
    let running = std::thread::scope(|scope| {
        let _ends = Ends(&done);
        scope.spawn(|| write(&source, 4, &done));
        let mut running = migrate_until_in_step(&source, &target, &IN_PARTS);
        for server in [&pair.target, &pair.source] {
            server.stop("immediate");
            server.start_again();
            std::thread::sleep(Duration::from_millis(500));
            assert!(!running.ended(), "a restart ended the migration");
        }
        running
    });
    cutover(&source, &target).run().expect_code(0);
    running.wait().expect_code(0);
    assert_equal(&source, &target);
    assert_source_is_clean(&source);
}

/// A run that finds the phase `copy` and no open part concludes that all rows have been copied, and takes a snapshot whose position
/// is only about right.
#[test]
fn a_run_that_ends_while_it_plans_the_copy_has_not_begun_the_copy() {
    let pair = Pair::start(15, 15);
    let (source, target) = pair.databases(SCHEMA);
    target.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'no plan today'; END$$;
        CREATE FUNCTION arm() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN
            IF to_regclass('pgstream.part') IS NOT NULL THEN
                CREATE TRIGGER refuse BEFORE INSERT ON pgstream.part FOR EACH ROW EXECUTE FUNCTION public.refuse();
                ALTER TABLE pgstream.part ENABLE ALWAYS TRIGGER refuse;
                ALTER EVENT TRIGGER arm DISABLE;
            END IF;
        END$$;
        CREATE EVENT TRIGGER arm ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION arm()",
    );
    migrate(&source, &target, &IN_PARTS).wait().expect_code(1).expect_words(&["no plan today"]);
    assert_eq!(target.value("SELECT phase FROM pgstream.migration"), "pre-data");
    target.execute("DROP EVENT TRIGGER arm; DROP FUNCTION arm; DROP FUNCTION refuse CASCADE");
    migrate_until_in_step(&source, &target, &IN_PARTS);
    cutover(&source, &target).run().expect_code(0);
    assert_equal(&source, &target);
}
