//! pgstream, the source and the target die at random moments, while the source is written to: nothing is lost, nothing comes twice.
//!
//! `PGSTREAM_SEED` replays a run, `PGSTREAM_ROUNDS` says how often something dies.

use super::writer::{Ends, IN_PARTS, SCHEMA, write};
use super::{
    Pair, assert_equal, assert_source_is_clean, cutover, migrate, migrate_until_in_step, status, wait_until,
};
use crate::harness::{Database, Random, variable};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

#[test]
fn whoever_dies_whenever_the_same_command_again_ends_equal() {
    let seed = variable("PGSTREAM_SEED").unwrap_or(u64::from(std::process::id()));
    let rounds = variable("PGSTREAM_ROUNDS").unwrap_or(6);
    println!("PGSTREAM_SEED={seed} PGSTREAM_ROUNDS={rounds}");
    let pair = Pair::start(15, 16);
    let mut random = Random::new(seed);
    let mut kills = BTreeMap::new();
    let mut left = rounds;
    while left > 0 {
        let of_this = left.min(DEATHS);
        left -= of_this;
        die_and_end_equal(&pair, &mut random, of_this, &IN_PARTS, &mut kills);
    }
    println!("who died, and in which phase: {kills:?}");
}

/// The phases that deaths of one migration wait for, in turn; a phase may be over by then.
const WHEN: [&str; 10] =
    ["", "pre-data", "copy", "copy", "copy", "post-data", "finish", "catch-up", "syncing", "syncing"];

/// How often something dies in the course of one migration.
const DEATHS: u64 = WHEN.len() as u64;

/// How often whom, and in which phase.
pub(super) type Kills = BTreeMap<(&'static str, String), u64>;

/// The migration's phase; empty while there are no state tables.
fn phase(target: &Database<'_>) -> String {
    target.try_execute("SELECT phase FROM pgstream.migration").unwrap_or_default().trim().to_owned()
}

/// Where a phase stands among the others.
fn position(phase: &str) -> Option<usize> {
    WHEN.iter().position(|at| *at == phase)
}

/// One migration with these arguments, from an empty target to the cutover, in which something dies so many times.
pub(super) fn die_and_end_equal(
    pair: &Pair,
    random: &mut Random,
    deaths: u64,
    arguments: &[&str],
    kills: &mut Kills,
) {
    let (source, target) = pair.databases(SCHEMA);
    let done = AtomicBool::new(false);
    let writer_seed = random.below(u64::MAX) | 1;
    std::thread::scope(|scope| {
        let _ends = Ends(&done);
        scope.spawn(|| write(&source, writer_seed, &done));
        let mut died = 0;
        while died < deaths {
            let mut running = migrate(&source, &target, arguments);
            let who = ["pgstream", "pgstream", "source", "target"][random.below(4) as usize];
            let wanted = WHEN[(died * DEATHS / deaths) as usize];
            wait_until(|| running.ended() || position(&phase(&target)) >= position(wanted));
            let pause = Duration::from_millis(random.below(if wanted == "syncing" { 2000 } else { 300 }));
            std::thread::sleep(pause);
            if running.ended() {
                let said = running.wait();
                // A backend that the last run left behind may work on for a moment.
                assert!(said.stderr.contains("another pgstream"), "after {kills:?}: {said:?}");
                continue;
            }
            let phase = phase(&target);
            println!("{who} dies in phase {phase:?}");
            died += 1;
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
        let mut running = migrate_until_in_step(&source, &target, arguments);
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
        // The target has forgotten the run's lock: without it, a cutover would take the run for gone.
        wait_until(|| status(&source, &target).is_some_and(|status| status["worker"].is_string()));
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
