//! Steps that only some migrations take: places that are made, choices, comparisons, what changes on the source meanwhile, what is taken back.

use super::{Fault, SLOW, Way, assert_clean, at_each, at_each_from, copy, cutover, follow, follow_a_while};
use crate::harness::compare::assert_equal;
use crate::harness::{Database, Pgstream, Running};
use std::time::{Duration, Instant};

/// Steps that make the database and its roles.
const OF_A_NEW_PLACE: &[&str] = &["placeholder passwords", "roles", "database"];
/// Steps that make roles where the database is there.
const OF_ROLES: &[&str] = &["roles", "roles recorded"];
/// A choice that is made when a migration goes on.
const OF_A_CHOICE: &[&str] = &["choice recorded"];
/// Steps about what stays behind.
const OF_OMISSIONS: &[&str] = &["omission recorded"];
/// Steps after another error.
const OF_A_FAILURE: &[&str] = &["error recorded"];
/// Steps of beginning anew.
const OF_A_RESTART: &[&str] = &[
    "old slot gone",
    "old publication gone",
    "replica identity back",
    "replica identity forgotten",
    "source writable",
    "writable recorded",
    "state tables gone",
    "undone",
];
/// Steps by which a table joins that is new on the source.
const OF_A_NEWCOMER: &[&str] = &["newcomer published", "newcomers published again"];
/// Steps of a copy that goes on under another snapshot.
const OF_ANOTHER_SNAPSHOT: &[&str] = &["parts cut anew", "relation forgotten"];
/// Steps that have a table copied again.
const OF_A_RECOPY: &[&str] = &["rows forgotten"];
/// Steps of a spool whose folder was moved.
const OF_A_MOVED_SPOOL: &[&str] = &["spool found"];
/// Steps of a comparison beside the stream.
const OF_A_COMPARISON: &[&str] = &["pause asked for", "pause over"];
/// The step of the stream meanwhile.
const OF_THE_COMPARED: &[&str] = &["pause reached"];
/// Steps that take back a cutover which failed.
const OF_A_WAY_BACK: &[&str] = &["source writable", "writable recorded"];

/// All that is tried here.
pub(super) const ALL: &[&[&str]] = &[
    OF_A_NEW_PLACE,
    OF_ROLES,
    OF_A_CHOICE,
    OF_OMISSIONS,
    OF_A_FAILURE,
    OF_A_RESTART,
    OF_A_NEWCOMER,
    OF_ANOTHER_SNAPSHOT,
    OF_A_RECOPY,
    OF_A_MOVED_SPOOL,
    OF_A_COMPARISON,
    OF_THE_COMPARED,
    OF_A_WAY_BACK,
];

/// Stops a run at the step, which it must meet.
#[track_caller]
fn stop(step: &'static str, side: &'static str, command: Pgstream) {
    let fault = Fault::new(step, side, Way::Abort);
    fault.assert_met(&fault.arm(command).run());
}

#[test]
fn a_place_is_made_from_wherever_it_stopped() {
    at_each(OF_A_NEW_PLACE, |source, target, fault| {
        let name = target.name();
        let (owner, user) = (format!("owner_of_{name}"), format!("user_of_{name}"));
        source.execute(&format!(
            "CREATE ROLE \"{owner}\"; CREATE ROLE \"{user}\" LOGIN PASSWORD 'secret'; ALTER SCHEMA app OWNER TO \"{owner}\";
             GRANT USAGE ON SCHEMA app TO \"{user}\""
        ));
        target.cluster().postgres().execute(&format!("DROP DATABASE {}", target.quoted_name()));
        let folder = tempfile::tempdir().expect("a folder can be made");
        let passwords = folder.path().join("passwords");
        let file = passwords.to_str().expect("it is text");
        let make =
            || copy(source, target).args(["--role-passwords", "placeholder", "--role-password-file", file]);
        fault.assert_met(&fault.arm(make()).run());
        make().run().expect_code(0);
        assert_equal(source, target);
        let lines = std::fs::read_to_string(&passwords).expect("it was written");
        let lines: Vec<&str> = lines.lines().collect();
        assert_eq!(lines.len(), 1, "one role may log in");
        let password = lines[0].strip_prefix(&format!("*:*:*:{user}:")).expect("the line is the user's");
        let login = target.cluster().uri_as(&user, Some(password), target.name());
        let said = Pgstream::new("status").args(["--target", &login]).run().expect_code(1);
        said.expect_words(&["permission denied for schema pgstream"]);
    });
}

#[test]
fn roles_are_made_from_wherever_it_stopped() {
    at_each(OF_ROLES, |source, target, fault| {
        let role = format!("role_of_{}", target.name());
        source.execute(&format!("CREATE ROLE \"{role}\"; ALTER TABLE app.bare OWNER TO \"{role}\""));
        fault.assert_met(&fault.arm(copy(source, target)).run());
        copy(source, target).run().expect_code(0);
        assert_equal(source, target);
    });
}

#[test]
fn a_choice_is_remembered_from_wherever_it_stopped() {
    at_each(OF_A_CHOICE, |source, target, fault| {
        // Rows come by other means: here, there are none.
        source.execute(
            "TRUNCATE app.keyed, app.bare; SELECT lo_unlink(4242); DROP MATERIALIZED VIEW app.counted",
        );
        let section = |name| copy(source, target).args(["--section", name]);
        section("pre-data").run().expect_code(0);
        fault.assert_met(&fault.arm(section("post-data")).run());
        section("post-data").run().expect_code(0);
        assert_equal(source, target);
    });
}

#[test]
fn what_stays_behind_is_told_wherever_it_stopped() {
    at_each(OF_OMISSIONS, |source, target, fault| {
        source.execute("CREATE UNLOGGED TABLE app.unlogged (id integer PRIMARY KEY); INSERT INTO app.unlogged VALUES (1)");
        let stopped = follow_a_while(fault.arm(follow(source, target)), source, target);
        fault.assert_met(&stopped.expect("it ended"));
        follow_a_while(follow(source, target), source, target);
        cutover(source, target).run().expect_code(3).expect_words(&["app.unlogged", "leave no trace"]);
        assert_equal(source, target);
        assert_clean(source);
    });
}

#[test]
fn an_error_that_could_not_be_recorded_is_no_obstacle() {
    at_each(OF_A_FAILURE, |source, target, fault| {
        let first = Fault::new("recorded parts", "after", Way::Error);
        fault.assert_met(&fault.arm_behind(&[first], copy(source, target)).run());
        copy(source, target).run().expect_code(0);
        assert_equal(source, target);
        assert_eq!(target.value("SELECT error IS NULL FROM pgstream.migration"), "t");
    });
}

#[test]
fn beginning_anew_goes_on_from_wherever_it_stopped() {
    at_each(OF_A_RESTART, |source, target, fault| {
        follow_a_while(follow(source, target), source, target);
        // Killed, so that the source stays read-only.
        stop("source read-only", "after", cutover(source, target).args(["--make-source-read-only"]));
        let anew = || copy(source, target).args(["--restart"]);
        fault.assert_met(&fault.arm(anew()).run());
        // What the first run left is known, or gone.
        anew().run().expect_code(0);
        assert_equal(source, target);
        assert_clean(source);
        assert_eq!(source.value("SHOW default_transaction_read_only"), "off");
    });
}

#[test]
fn a_newcomer_joins_from_wherever_it_stopped() {
    at_each(OF_A_NEWCOMER, |source, target, fault| {
        stop("recorded parts", "after", follow(source, target));
        source.execute(
            "CREATE TABLE app.newcomer (id integer PRIMARY KEY); INSERT INTO app.newcomer VALUES (1)",
        );
        let stopped = follow_a_while(fault.arm(follow(source, target)), source, target);
        fault.assert_met(&stopped.expect("it ended"));
        source.execute("INSERT INTO app.newcomer VALUES (2)");
        follow_a_while(follow(source, target), source, target);
        source.execute("INSERT INTO app.newcomer VALUES (3)");
        cutover(source, target).run().expect_code(0);
        assert_equal(source, target);
        assert_clean(source);
    });
}

/// In parts of about 3 MB, one after the other.
fn in_parts(command: Pgstream) -> Pgstream {
    command.args(["--split-tables-larger-than", "3MB", "--jobs", "1"])
}

#[test]
fn a_copy_goes_on_under_another_snapshot_from_wherever_it_stopped() {
    at_each(OF_ANOTHER_SNAPSHOT, |source, target, fault| {
        // By pages, as it has no key; the largest, so that it comes first.
        source.execute(
            "CREATE TABLE app.pages AS SELECT i AS a, repeat('p', 200) AS b FROM generate_series(1, 30000) i;
             CREATE TABLE app.dropped (id integer); INSERT INTO app.dropped VALUES (1)",
        );
        stop("part commit", "after", in_parts(copy(source, target)));
        source.execute("DROP TABLE app.dropped");
        fault.assert_met(&fault.arm(in_parts(copy(source, target))).run());
        in_parts(copy(source, target))
            .run()
            .expect_code(3)
            .expect_words(&["app.dropped", "dropped on the source"]);
        target.execute("DROP TABLE app.dropped");
        assert_equal(source, target);
    });
}

#[test]
fn a_table_is_copied_again_from_wherever_it_stopped() {
    // Tables of newer servers are cut by pages, and so copied again where a copy is cut short.
    at_each_from(13, OF_A_RECOPY, |source, target, fault| {
        source.execute(
            "CREATE TABLE app.moved (id integer PRIMARY KEY, large text);
             ALTER TABLE app.moved ALTER large SET STORAGE EXTERNAL;
             INSERT INTO app.moved SELECT i, repeat('m', 5000) FROM generate_series(1, 2000) i",
        );
        stop("part commit", "after", in_parts(follow(source, target)));
        // Into the part that is copied, from one that is not: its large value is in no message.
        source.execute("UPDATE app.moved SET id = -id WHERE id = 2000");
        let stopped = follow_a_while(fault.arm(in_parts(follow(source, target))), source, target);
        fault.assert_met(&stopped.expect("it ended"));
        // Without the table, there is nothing to cut over to.
        let refused = cutover(source, target).run();
        assert_ne!(refused.code, Some(0), "{refused:?}");
        refused.expect_words(&["cop", "pgstream migrate again"]);
        follow_a_while(in_parts(follow(source, target)), source, target);
        cutover(source, target).run().expect_code(0);
        assert_equal(source, target);
        assert_clean(source);
    });
}

#[test]
fn a_spool_that_was_moved_is_found_from_wherever_it_stopped() {
    at_each(OF_A_MOVED_SPOOL, |source, target, fault| {
        let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder can be made"));
        let [from, to] = [0, 1].map(|which| folders[which].path().join("spool"));
        let spooled = |folder: &std::path::Path| {
            std::fs::create_dir_all(folder).expect("it can be made");
            follow(source, target).args(["--spool-dir", folder.to_str().expect("it is text")])
        };
        source.execute(SLOW);
        let begun = Fault::new("spool advanced", "after", Way::Abort);
        begun.assert_met(&follow_a_while(begun.arm(spooled(&from)), source, target).expect("it ended"));
        std::fs::rename(&from, &to).expect("it can be moved");
        let stopped = follow_a_while(fault.arm(spooled(&to)), source, target);
        fault.assert_met(&stopped.expect("it ended"));
        follow_a_while(spooled(&to), source, target);
        cutover(source, target).run().expect_code(0);
        assert_equal(source, target);
        assert_clean(source);
    });
}

/// Waits until a run follows the source.
#[track_caller]
fn until_in_step(running: Running, target: &Database<'_>) -> Running {
    let begun = Instant::now();
    while target.try_execute("SELECT phase FROM pgstream.migration").unwrap_or_default().trim() != "syncing" {
        assert!(begun.elapsed() < Duration::from_secs(60), "it does not get in step");
        std::thread::sleep(Duration::from_millis(50));
    }
    running
}

/// A stream that follows is compared with the source as ever, and cut over.
#[track_caller]
fn compares_and_cuts_over(running: Running, source: &Database<'_>, target: &Database<'_>) {
    source.execute("INSERT INTO app.bare VALUES (3, 'compared')");
    compare(source, target).run().expect_code(0);
    cutover(source, target).run().expect_code(0);
    running.wait().expect_code(0);
    assert_equal(source, target);
}

fn compare(source: &Database<'_>, target: &Database<'_>) -> Pgstream {
    Pgstream::between("verify", source, target).args(["--data-only", "--timeout", "10s"])
}

#[test]
fn a_comparison_that_stops_anywhere_lets_the_stream_go_on() {
    at_each(OF_A_COMPARISON, |source, target, fault| {
        let running = until_in_step(follow(source, target).spawn(), target);
        fault.assert_met(&fault.arm(compare(source, target)).run());
        compares_and_cuts_over(running, source, target);
    });
}

#[test]
fn a_stream_that_stops_in_a_comparison_goes_on() {
    at_each(OF_THE_COMPARED, |source, target, fault| {
        let running = until_in_step(fault.arm(follow(source, target)).spawn(), target);
        // It is told that nobody answers, or that another run does not stand still.
        let compared = compare(source, target).run();
        fault.assert_met(&running.wait());
        assert_ne!(compared.code, Some(0), "{compared:?}");
        let running = until_in_step(follow(source, target).spawn(), target);
        compares_and_cuts_over(running, source, target);
    });
}

#[test]
fn a_cutover_is_taken_back_from_wherever_it_stopped() {
    at_each(OF_A_WAY_BACK, |source, target, fault| {
        follow_a_while(follow(source, target), source, target);
        let read_only = || cutover(source, target).args(["--make-source-read-only"]);
        let first = Fault::new("sequences", "before", Way::Error);
        let stopped = fault.arm_behind(&[first], read_only()).run();
        fault.assert_met(&stopped);
        // Read-only or not, it is known: the next one takes it back, or goes through.
        let again = first.arm(read_only()).run();
        first.assert_met(&again);
        again.expect_words(&["writable again"]);
        assert_eq!(source.value("SHOW default_transaction_read_only"), "off");
        follow_a_while(follow(source, target), source, target);
        read_only().run().expect_code(0);
        assert_equal(source, target);
        assert_clean(source);
    });
}
