//! The folder of one test run, and its end.
//!
//! nextest runs every test in a process of its own, `cargo test` all of them in one. Clusters are shared through a
//! folder named after the run (nextest's run id, or this process): whoever needs a server first starts it, under a
//! file lock. A watchdog, started with the folder, waits for the runner to end (passed, failed, killed), stops
//! every server in the folder and removes it.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::process::{CommandExt, parent_id};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// `$1`: the process to outlive, `$2`: the run's folder. SIGQUIT is PostgreSQL's immediate shutdown.
const WATCHDOG: &str = r#"
tail --pid="$1" -f /dev/null
servers=$(head -qn 1 "$2"/*/data/postmaster.pid)
kill -QUIT $servers
for server in $servers; do timeout 10 tail --pid="$server" -s 0.1 -f /dev/null; done
rm -rf "$2"
"#;

/// The folder of this test run; made, with its watchdog, by the first process that asks.
pub(crate) fn directory() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let (name, watched) = match std::env::var("NEXTEST_RUN_ID") {
            Ok(id) => (id, parent_id()),
            Err(_) => (format!("process-{}", std::process::id()), std::process::id()),
        };
        // Not below $TMPDIR: a socket's path has room for 107 bytes, and the servers' user must reach it.
        let directory = Path::new("/tmp/pgstream-tests").join(name);
        fs::create_dir_all("/tmp/pgstream-tests").expect("the folder of test runs can be made");
        match fs::create_dir(&directory) {
            Ok(()) => {
                #[expect(clippy::zombie_processes, reason = "the watchdog outlives this process")]
                Command::new("bash")
                    .args(["-c", WATCHDOG, "watchdog", &watched.to_string()])
                    .arg(&directory)
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    // Ctrl-C and the runner's time limit go to the test's process group: not to this one.
                    .process_group(0)
                    .spawn()
                    .expect("the watchdog starts");
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => panic!("could not make {}: {error}", directory.display()),
        }
        directory
    })
}

/// Runs `work` while no other process of this run holds the lock `name`.
pub(crate) fn exclusively<T>(name: &str, work: impl FnOnce() -> T) -> T {
    let file = File::create(directory().join(format!("{name}.lock"))).expect("a lock file can be made");
    file.lock().expect("a lock file can be locked");
    work()
}
