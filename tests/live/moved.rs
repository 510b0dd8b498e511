//! The whole way: copied under writes, in step, cut over beside the running `migrate`, equal.

use super::writer::{Ends, IN_PARTS, SCHEMA, write};
use super::{assert_equal, assert_source_is_clean, cutover, migrate, status, until_in_step};
use crate::harness::server;
use std::sync::atomic::AtomicBool;

/// Moves one source to several targets at once: each has its own slot and publication.
fn move_live(from: u32, to: &[u32]) {
    let source = server(from).create_database("live");
    source.execute(SCHEMA);
    let targets: Vec<_> = to.iter().map(|&major| server(major).create_database("live")).collect();
    let done = AtomicBool::new(false);
    let running: Vec<_> = std::thread::scope(|scope| {
        let ends = Ends(&done);
        let writer = scope.spawn(|| write(&source, u64::from(from), &done));
        let running: Vec<_> = targets.iter().map(|target| migrate(&source, target, &IN_PARTS)).collect();
        let running = running.into_iter().zip(&targets);
        let running = running.map(|(running, target)| until_in_step(&source, target, running)).collect();
        // Some more changes that only the stream can bring.
        std::thread::sleep(std::time::Duration::from_millis(500));
        // PostgreSQL 10 does not tell of TRUNCATE.
        if from > 10 {
            source.execute("TRUNCATE parent, child; TRUNCATE parted; TRUNCATE seen RESTART IDENTITY");
        }
        drop(ends);
        writer.join().expect("the writer ends");
        running
    });
    for (running, target) in running.into_iter().zip(&targets) {
        cutover(&source, target).run().expect_code(0);
        running.wait().expect_code(0).expect_words(&["cutover"]);
    }
    // Not before: each migration leaves a publication of another to its own cutover.
    for target in &targets {
        assert_equal(&source, target);
        assert_eq!(status(&source, target).expect("there is a migration")["status"], "done");
        cutover(&source, target).run().expect_code(0).expect_words(&["done already"]);
    }
    assert_source_is_clean(&source);
}

#[test]
fn from_10_to_10_and_18_under_writes() {
    move_live(10, &[10, 18]);
}

#[test]
fn from_12_to_12_and_18_under_writes() {
    move_live(12, &[12, 18]);
}

#[test]
fn from_14_to_14_and_18_under_writes() {
    move_live(14, &[14, 18]);
}

#[test]
fn from_15_to_15_and_18_under_writes() {
    move_live(15, &[15, 18]);
}

#[test]
fn from_16_to_16_and_18_under_writes() {
    move_live(16, &[16, 18]);
}

#[test]
fn from_17_to_17_and_18_under_writes() {
    move_live(17, &[17, 18]);
}

#[test]
fn from_18_to_18_under_writes() {
    move_live(18, &[18]);
}
