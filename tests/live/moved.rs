//! The whole way: copied under writes, in step, cut over beside the running `migrate`, equal.

use super::writer::{Ends, IN_PARTS, SCHEMA, write};
use super::{Pair, assert_equal, assert_source_is_clean, cutover, migrate_until_in_step, status};
use std::sync::atomic::AtomicBool;

fn move_live(from: u32, to: u32) {
    let pair = Pair::start(from, to);
    let (source, target) = pair.databases(SCHEMA);
    let done = AtomicBool::new(false);
    let running = std::thread::scope(|scope| {
        let ends = Ends(&done);
        let writer = scope.spawn(|| write(&source, u64::from(from * 100 + to), &done));
        let running = migrate_until_in_step(&source, &target, &IN_PARTS);
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
    cutover(&source, &target).run().expect_code(0);
    running.wait().expect_code(0).expect_words(&["cutover"]);
    assert_equal(&source, &target);
    assert_source_is_clean(&source);
    assert_eq!(status(&source, &target).expect("there is a migration")["status"], "done");
    cutover(&source, &target).run().expect_code(0).expect_words(&["done already"]);
}

#[test]
fn from_10_to_18_under_writes() {
    move_live(10, 18);
}

#[test]
fn from_12_to_12_under_writes() {
    move_live(12, 12);
}

#[test]
fn from_14_to_15_under_writes() {
    move_live(14, 15);
}

#[test]
fn from_15_to_15_under_writes() {
    move_live(15, 15);
}

#[test]
fn from_17_to_18_under_writes() {
    move_live(17, 18);
}
