//! Each durable step, stopped before and after it, by an error and by the sudden end of the process: the same command again goes on, and the
//! end is as if nothing had happened.
//!
//! Every place is stopped at once, the way of it in turn; `PGSTREAM_FAULTS=all` tries both ways everywhere.
//!
//! Needs the feature `fault-points` of the program, which `tests/run` asks for.

mod rare;

use crate::harness::compare::assert_equal;
use crate::harness::{Cluster, Database, Finished, Options, Pgstream};
use pgstream::fault::STEPS;
use std::time::{Duration, Instant};

/// Steps that a copy takes.
const OF_A_COPY: &[&str] = &[
    "state tables",
    "error cleared",
    "items",
    "single item",
    "recorded parts",
    "phase copy",
    "snapshot offered",
    "part commit",
    "snapshot withdrawn",
    "phase post-data",
    "sequences",
    "phase finish",
    "phase done",
];
/// Steps that lead to a stream.
const OF_THE_SET_UP: &[&str] = &[
    "old slot gone",
    "old publication gone",
    "replica identity recorded",
    "replica identity",
    "publication",
    "slot",
    "first checkpoint",
    "temporary slot",
    "cutover forgotten",
];
/// Steps of a stream.
const OF_A_STREAM: &[&str] = &["phase catch-up", "durable checkpoint", "batch commit", "phase syncing"];
/// Steps of a spool.
const OF_A_SPOOL: &[&str] =
    &["spool recorded", "spool segment", "spool sync", "spool advanced", "spool gone"];
/// Steps of a cutover up to the one that can't be taken back.
const OF_A_CUTOVER: &[&str] = &[
    "read-only recorded",
    "source read-only",
    "end position",
    "relation renamed",
    "sequences",
    "changed large objects",
];
/// Steps of a cutover from there on.
const AFTER_THE_CUT: &[&str] = &[
    "phase cutover",
    "items",
    "drop slot",
    "drop publication",
    "replica identity back",
    "replica identity forgotten",
    "phase done",
];
/// Steps of a cleanup of a migration that is under way.
const OF_A_CLEANUP: &[&str] = &[
    "drop slot",
    "drop publication",
    "replica identity back",
    "replica identity forgotten",
    "source writable",
    "writable recorded",
    "state tables gone",
];

const SCHEMA: &str = "
CREATE SCHEMA app;
CREATE TABLE app.keyed (id integer PRIMARY KEY, v text);
INSERT INTO app.keyed SELECT i, md5(i::text) FROM generate_series(1, 20000) i;
CREATE TABLE app.bare (a integer, b text);
INSERT INTO app.bare SELECT i % 7, 'b' FROM generate_series(1, 100) i;
CREATE INDEX ON app.keyed (v);
CREATE SEQUENCE app.loose INCREMENT BY -2;
CREATE VIEW app.few AS SELECT * FROM app.keyed WHERE id < 10;
CREATE MATERIALIZED VIEW app.counted AS SELECT count(*) FROM app.few;
CREATE FUNCTION app.one() RETURNS integer LANGUAGE sql AS 'SELECT 1';
SELECT lo_from_bytea(4242, 'large');
CREATE TABLE app.old_name (id integer PRIMARY KEY);
CREATE FUNCTION app.quiet() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER always BEFORE INSERT ON app.keyed FOR EACH ROW EXECUTE FUNCTION app.quiet();
CREATE TRIGGER on_replica BEFORE INSERT ON app.keyed FOR EACH ROW EXECUTE FUNCTION app.quiet();
ALTER TABLE app.keyed ENABLE ALWAYS TRIGGER always, ENABLE REPLICA TRIGGER on_replica;
";

/// Makes the copy last until something has come.
const SLOW: &str = "
CREATE FUNCTION app.slow(integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS
    $$ BEGIN PERFORM pg_catalog.pg_sleep(0.1); RETURN $1; END $$;
CREATE TABLE app.small (a integer);
INSERT INTO app.small SELECT generate_series(1, 8);
CREATE INDEX ON app.small (app.slow(a));
";

/// Whether the process ends, or the step fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Abort,
    Error,
}

/// A place and how a run is stopped there, once.
#[derive(Debug, Clone, Copy)]
struct Fault {
    step: &'static str,
    side: &'static str,
    way: Way,
}

impl Fault {
    const fn new(step: &'static str, side: &'static str, way: Way) -> Fault {
        Fault { step, side, way }
    }

    fn arm(self, command: Pgstream) -> Pgstream {
        self.arm_behind(&[], command)
    }

    /// The same, where the run gets there only after it met `others`.
    fn arm_behind(self, others: &[Fault], command: Pgstream) -> Pgstream {
        let points = others.iter().chain([&self]).map(|fault| {
            let way = if fault.way == Way::Abort { "abort" } else { "error" };
            format!("{} {}=1*return({way})", fault.side, fault.step)
        });
        // What is tried again, or passed over, is told to who wants to know everything.
        command.args(["-vvv"]).env("FAILPOINTS", &points.collect::<Vec<_>>().join(";"))
    }

    /// Whether the run was stopped there; one that follows a stream may have tried again and gone on.
    fn is_met(self, run: &Finished) -> bool {
        match self.way {
            Way::Abort => run.code.is_none(),
            Way::Error => run.stderr.contains(&format!("stopped {} {}", self.side, self.step)),
        }
    }

    #[track_caller]
    fn assert_met(self, run: &Finished) {
        assert!(self.is_met(run), "{self:?} was not met: {run:?}");
    }
}

/// The faults at these steps.
fn faults(steps: &[&'static str]) -> Vec<Fault> {
    let all = std::env::var("PGSTREAM_FAULTS").is_ok_and(|which| which == "all");
    let mut faults = Vec::new();
    for (number, &step) in steps.iter().enumerate() {
        for (shift, side) in ["before", "after"].into_iter().enumerate() {
            for (turn, way) in [Way::Abort, Way::Error].into_iter().enumerate() {
                if all || (number + shift + turn) % 2 == 0 {
                    faults.push(Fault::new(step, side, way));
                }
            }
        }
    }
    faults
}

/// Runs `scenario` for each fault between fresh databases of two clusters of its own.
fn at_each(steps: &[&'static str], scenario: impl Fn(&Database<'_>, &Database<'_>, Fault)) {
    at_each_from(15, steps, scenario);
}

/// The same, with a source of that major.
fn at_each_from(major: u32, steps: &[&'static str], scenario: impl Fn(&Database<'_>, &Database<'_>, Fault)) {
    let (source, target) = std::thread::scope(|scope| {
        let source = scope.spawn(|| Cluster::start(major, &Options::default()));
        // Those who get a password must have it.
        let hba = vec!["host all \"/^user_of_\" 127.0.0.1/32 scram-sha-256".to_owned()];
        let target = Cluster::start(17, &Options { hba, ..Options::default() });
        (source.join().expect("the source starts"), target)
    });
    for fault in faults(steps) {
        println!("{fault:?}");
        let (source, target) = (source.create_database("fault"), target.create_database("fault"));
        source.execute(SCHEMA);
        scenario(&source, &target, fault);
    }
}

fn copy(source: &Database<'_>, target: &Database<'_>) -> Pgstream {
    Pgstream::between("migrate", source, target).args(["--method", "copy"])
}

fn follow(source: &Database<'_>, target: &Database<'_>) -> Pgstream {
    Pgstream::between("migrate", source, target).args([
        "--method",
        "replication",
        "--replica-identity",
        "full",
    ])
}

fn cutover(source: &Database<'_>, target: &Database<'_>) -> Pgstream {
    Pgstream::between("cutover", source, target)
}

/// Follows the source, under writes, until it is in step or ends. What it said, if it ended by itself.
fn follow_a_while(command: Pgstream, source: &Database<'_>, target: &Database<'_>) -> Option<Finished> {
    let mut running = command.spawn();
    let begun = Instant::now();
    let mut in_step = 0;
    // A while longer than until it is in step, so that batches come.
    while in_step < 5 {
        source.execute(
            "BEGIN; UPDATE app.keyed SET v = v || '.' WHERE id <= 3; INSERT INTO app.bare VALUES (1, 'more'); COMMIT;
             BEGIN; DELETE FROM app.bare WHERE ctid = (SELECT max(ctid) FROM app.bare WHERE a = 2);
             SELECT nextval('app.loose'); SELECT lo_put(4242, 0, 'L'); COMMIT",
        );
        if running.ended() {
            return Some(running.wait());
        }
        let whole = "SELECT phase = 'syncing' AND NOT EXISTS (SELECT FROM pgstream.part WHERE state = 'pending') FROM pgstream.migration";
        in_step += u32::from(target.try_execute(whole).unwrap_or_default().trim() == "t");
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not get in step");
        std::thread::sleep(Duration::from_millis(30));
    }
    running.signal("TERM");
    Some(running.wait())
}

#[track_caller]
fn assert_clean(source: &Database<'_>) {
    let left = source.query(
        "SELECT slot_name FROM pg_replication_slots WHERE database = current_database() UNION ALL SELECT pubname FROM pg_publication \
         UNION ALL SELECT relname FROM pg_class WHERE relreplident = 'f'",
    );
    assert!(left.is_empty(), "left on the source: {left:?}");
}

/// What is there before a run that comes to the step: a run that goes well from its beginning has no need of some.
fn prepare(source: &Database<'_>, target: &Database<'_>, step: &str) {
    let (run, cut_at, leave) = match step {
        "error cleared" => (copy(source, target), "state tables", Some("error = 'lost'")),
        "cutover forgotten" => (follow(source, target), "first checkpoint", Some("cutover_lsn = '0/1'")),
        // Only a copy that was cut short needs one.
        "temporary slot" => (follow(source, target), "recorded parts", None),
        _ => return,
    };
    let first = Fault::new(cut_at, "after", Way::Abort);
    first.assert_met(&first.arm(run).run());
    if let Some(leave) = leave {
        target.execute(&format!("UPDATE pgstream.migration SET {leave}"));
    }
}

#[test]
fn a_copy_goes_on_from_wherever_it_stopped() {
    at_each(OF_A_COPY, |source, target, fault| {
        prepare(source, target, fault.step);
        let stopped = fault.arm(copy(source, target)).run();
        fault.assert_met(&stopped);
        copy(source, target).run().expect_code(0);
        assert_equal(source, target);
    });
}

#[test]
fn a_copy_section_by_section_goes_on_from_wherever_it_stopped() {
    at_each(OF_A_COPY, |source, target, fault| {
        prepare(source, target, fault.step);
        let mut met = false;
        for section in ["pre-data", "data", "post-data"] {
            let take = || copy(source, target).args(["--section", section]);
            let run = fault.arm(take()).run();
            met |= fault.is_met(&run);
            if run.code != Some(0) {
                fault.assert_met(&run);
                take().run().expect_code(0);
            }
        }
        assert!(met, "{fault:?} was not met");
        assert_equal(source, target);
    });
}

fn goes_on_to_the_end(source: &Database<'_>, target: &Database<'_>, fault: Fault) {
    prepare(source, target, fault.step);
    let stopped = follow_a_while(fault.arm(follow(source, target)), source, target);
    fault.assert_met(&stopped.expect("it ended"));
    follow_a_while(follow(source, target), source, target);
    cutover(source, target).run().expect_code(0);
    assert_equal(source, target);
    assert_clean(source);
}

#[test]
fn the_set_up_of_a_stream_goes_on_from_wherever_it_stopped() {
    at_each(OF_THE_SET_UP, goes_on_to_the_end);
}

#[test]
fn a_stream_goes_on_from_wherever_it_stopped() {
    at_each(OF_A_STREAM, goes_on_to_the_end);
}

#[test]
fn a_spool_goes_on_from_wherever_it_stopped() {
    at_each(OF_A_SPOOL, |source, target, fault| {
        source.execute(SLOW);
        let folder = tempfile::tempdir().expect("a folder can be made");
        let spooled =
            || follow(source, target).args(["--spool-dir", folder.path().to_str().expect("it is text")]);
        let stopped = follow_a_while(fault.arm(spooled()), source, target);
        fault.assert_met(&stopped.expect("it ended"));
        follow_a_while(spooled(), source, target);
        assert_eq!(std::fs::read_dir(folder.path()).expect("it is there").count(), 0, "files are left");
        cutover(source, target).run().expect_code(0);
        assert_equal(source, target);
        assert_clean(source);
    });
}

fn cuts_over_in_the_end(source: &Database<'_>, target: &Database<'_>, fault: Fault) {
    follow_a_while(follow(source, target), source, target);
    for side in [source, target] {
        side.execute("ALTER TABLE app.old_name RENAME TO new_name");
    }
    // What only the cutover brings over.
    source.execute("UPDATE app.keyed SET v = 'last' WHERE id = 1; SELECT nextval('app.loose'); SELECT lo_put(4242, 0, 'last')");
    let stopped = fault.arm(cutover(source, target).args(["--make-source-read-only"])).run();
    fault.assert_met(&stopped);
    cutover(source, target).args(["--make-source-read-only"]).run().expect_code(0);
    assert_equal(source, target);
    assert_clean(source);
}

#[test]
fn a_cutover_goes_on_from_wherever_it_stopped() {
    at_each(OF_A_CUTOVER, cuts_over_in_the_end);
}

#[test]
fn a_cutover_past_the_last_change_goes_on_from_wherever_it_stopped() {
    at_each(AFTER_THE_CUT, cuts_over_in_the_end);
}

#[test]
fn a_cleanup_goes_on_from_wherever_it_stopped() {
    at_each(OF_A_CLEANUP, |source, target, fault| {
        follow_a_while(follow(source, target), source, target);
        // Killed, so that the source stays read-only.
        let killed = Fault::new("source read-only", "after", Way::Abort);
        killed.assert_met(&killed.arm(cutover(source, target).args(["--make-source-read-only"])).run());
        let cleanup = || Pgstream::between("cleanup", source, target).args(["--yes"]);
        fault.assert_met(&fault.arm(cleanup()).run());
        cleanup().run().expect_code(0);
        assert_eq!(target.value("SELECT to_regnamespace('pgstream') IS NULL"), "t");
        assert_eq!(source.value("SHOW default_transaction_read_only"), "off");
        assert_clean(source);
    });
}

#[test]
fn every_step_is_tried() {
    let tried: Vec<&str> =
        [OF_A_COPY, OF_THE_SET_UP, OF_A_STREAM, OF_A_SPOOL, OF_A_CUTOVER, AFTER_THE_CUT, OF_A_CLEANUP]
            .into_iter()
            .chain(rare::ALL.iter().copied())
            .flatten()
            .copied()
            .collect();
    let missing: Vec<_> = STEPS.iter().filter(|step| !tried.contains(step)).collect();
    assert!(missing.is_empty(), "no test stops at {missing:?}");
}
