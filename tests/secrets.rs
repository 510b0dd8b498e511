//! Passwords: whichever way they are given, they are in nothing that is shown or left behind; and logins that servers make unusually cheap or dear.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::harness::http::{free_port, get};
use crate::harness::{Auth, Cluster, Database, Options, PASSWORD, PASSWORD_IN_URI, Pgstream};

/// How the two servers' password is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Uri,
    Environment,
    PasswordFile,
    FilesOfOneSide,
}

/// What ways need of files.
fn write_files(folder: &Path) {
    use std::os::unix::fs::OpenOptionsExt;
    let escaped = PASSWORD.replace('\\', "\\\\").replace(':', "\\:");
    for (name, text) in [("one", PASSWORD.to_owned()), ("all", format!("*:*:*:*:{escaped}\n"))] {
        let mut options = std::fs::File::options();
        let mut file =
            options.create(true).write(true).mode(0o600).open(folder.join(name)).expect("it can be made");
        std::io::Write::write_all(&mut file, text.as_bytes()).expect("it can be written");
    }
}

fn between(
    subcommand: &str,
    source: &Database<'_>,
    target: &Database<'_>,
    way: Way,
    folder: &Path,
) -> Pgstream {
    let path = |name: &str| folder.join(name).to_str().expect("it is text").to_owned();
    let bare = |database: &Database<'_>| {
        format!("postgresql://postgres@127.0.0.1:{}/{}", database.cluster().port(), database.name())
    };
    let command = match way {
        Way::Uri => Pgstream::between(subcommand, source, target),
        _ => Pgstream::new(subcommand).args(["--source", &bare(source), "--target", &bare(target)]),
    };
    match way {
        Way::Uri => command,
        Way::Environment => command.env("PGPASSWORD", PASSWORD),
        Way::PasswordFile => command.env("PGPASSFILE", &path("all")),
        Way::FilesOfOneSide => {
            command.args(["--source-password-file", &path("one"), "--target-password-file", &path("one")])
        }
    }
}

/// All that the target's state tables hold, and what sessions of the server are told to run.
fn state(target: &Database<'_>) -> String {
    let tables = target.query(
        "SELECT query_to_xml(format('SELECT * FROM pgstream.%I', relname), true, false, '') FROM pg_class \
         WHERE relnamespace = 'pgstream'::regnamespace AND relkind = 'r' UNION ALL SELECT query_to_xml('SELECT * FROM pg_stat_activity', true, false, '')",
    );
    tables.concat().join("\n")
}

#[test]
fn a_password_is_in_nothing_that_is_shown_or_left_behind() {
    let options =
        Options { auth: Auth::Scram, settings: vec!["log_statement = all".to_owned()], ..Options::default() };
    let (source, target) = (Cluster::start(15, &options), Cluster::start(17, &options));
    let folder = tempfile::tempdir().expect("a folder can be made");
    write_files(folder.path());
    for way in [Way::Uri, Way::Environment, Way::PasswordFile, Way::FilesOfOneSide] {
        let (from, to) = (source.create_database("secret"), target.create_database("secret"));
        from.execute("CREATE TABLE t (id integer PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 100)");
        let log = folder.path().join(format!("{way:?}.log"));
        let (dashboard, metrics) = (free_port(), free_port());
        let mut running = between("migrate", &from, &to, way, folder.path())
            .args(["--method", "replication", "-vvv", "--log-format", "json"])
            .args(["--log-file", log.to_str().expect("it is text"), "--dashboard", &dashboard.to_string()])
            .args(["--metrics-listen", &format!("127.0.0.1:{metrics}")])
            .spawn();
        let begun = Instant::now();
        while to.try_execute("SELECT phase FROM pgstream.migration").unwrap_or_default().trim() != "syncing" {
            assert!(!running.ended(), "it ended: {:?}", running.wait());
            assert!(begun.elapsed() < Duration::from_secs(60), "it does not get in step");
            std::thread::sleep(Duration::from_millis(100));
        }
        let page = |port, path| get(port, path).expect("it is served").body;
        let mut texts = vec![
            ("page", page(dashboard, "/")),
            ("its data", page(dashboard, "/data.json")),
            ("metrics", page(metrics, "/metrics")),
            ("state", state(&to)),
        ];
        // Nobody can take back what the operator has typed: it is warned of.
        if way != Way::Uri {
            texts.push(("command line", running.command_line()));
        }
        let status = between("status", &from, &to, way, folder.path()).args(["--json"]).run().expect_code(0);
        texts.push(("status", status.stdout + &status.stderr));
        running.signal("TERM");
        let run = running.wait().expect_code(4);
        let in_sight = run.stderr.contains("a password on the command line can be read by other users");
        assert_eq!(in_sight, way == Way::Uri, "{way:?}: {}", run.stderr);
        texts.push(("messages", run.stdout + &run.stderr));
        texts.push(("log", std::fs::read_to_string(&log).expect("it was written")));
        for cluster in [&source, &target] {
            let log = std::fs::read(cluster.directory().join("log")).expect("the server writes one");
            texts.push(("a server's log", String::from_utf8_lossy(&log).into_owned()));
        }
        for (what, text) in texts {
            assert!(!text.is_empty(), "{way:?}: nothing in the {what}");
            for secret in [PASSWORD, PASSWORD_IN_URI] {
                assert!(!text.contains(secret), "{way:?}: {what} shows the password");
            }
        }
    }
}

#[test]
fn few_and_many_iterations_of_scram_are_taken_up_to_a_limit() {
    let options = Options { auth: Auth::Scram, ..Options::default() };
    let cluster = Cluster::start(16, &options);
    for (iterations, fits) in [(1, true), (4096, true), (100_000, true), (100_001, false), (500_000, false)] {
        let role = format!("iterated_{iterations}");
        cluster.postgres().execute(&format!(
            "SET scram_iterations = {iterations}; CREATE ROLE {role} LOGIN PASSWORD '{role}'"
        ));
        let uri = cluster.uri_as(&role, Some(&role), "postgres");
        let said = Pgstream::new("status").args(["--target", &uri]).run();
        let refused =
            format!("{}{}", said.stdout, said.stderr).contains("On the target: SET scram_iterations");
        assert_eq!(refused, !fits, "{iterations}: {said:?}");
        // There is no migration here to tell of, which only who is let in is told.
        let let_in = said.stderr.contains("holds no migration") || said.code == Some(0);
        assert_eq!(let_in, fits, "{iterations}: {said:?}");
    }
}
