//! Running the program under test.

use super::database::Database;
use super::json_schema;
use super::programs::forget_postgres_variables;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longer than any command of the tests takes, shorter than the patience of who waits for them.
const TIME_LIMIT: Duration = Duration::from_secs(150);

/// A `pgstream` command line. Nothing of the surrounding environment that PostgreSQL's clients read reaches it, and
/// it has no terminal.
#[derive(Debug)]
pub(crate) struct Pgstream {
    command: Command,
    subcommand: String,
    json: bool,
}

/// What a run of pgstream said.
#[derive(Debug)]
pub(crate) struct Finished {
    /// The exit code; `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    /// All of stdout.
    pub(crate) stdout: String,
    /// All of stderr.
    pub(crate) stderr: String,
}

/// A pgstream that runs; killed when dropped.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    /// With `--json`, the subcommand whose schema the output has.
    schema: Option<String>,
    stdout: Option<JoinHandle<String>>,
    stderr: Option<JoinHandle<String>>,
}

impl Pgstream {
    /// `pgstream` with a subcommand.
    pub(crate) fn new(subcommand: &str) -> Pgstream {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgstream"));
        forget_postgres_variables(&mut command);
        command.arg(subcommand).env("NO_COLOR", "1").env("HOME", "/nonexistent");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Pgstream { command, subcommand: subcommand.to_owned(), json: false }
    }

    /// `pgstream SUBCOMMAND --source … --target …`.
    pub(crate) fn between(subcommand: &str, source: &Database<'_>, target: &Database<'_>) -> Pgstream {
        Pgstream::new(subcommand).args(["--source", &source.uri(), "--target", &target.uri()])
    }

    /// More arguments.
    pub(crate) fn args<'a>(mut self, arguments: impl IntoIterator<Item = &'a str>) -> Pgstream {
        for argument in arguments {
            // With --watch there is more than one object.
            self.json = argument != "--watch" && (self.json || argument == "--json");
            self.command.arg(argument);
        }
        self
    }

    /// An environment variable.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Pgstream {
        self.command.env(name, value);
        self
    }

    /// Bytes beyond which no file that it writes may grow: a disk that runs full. To be called last.
    pub(crate) fn limit_file_size(self, bytes: u64) -> Pgstream {
        let mut limited = Command::new("bash");
        // Else the signal would end it before it sees the error.
        let script = "trap '' XFSZ; ulimit -f $1; shift; exec \"$@\"";
        limited.args(["-c", script, "bash", &(bytes / 1024).to_string()]);
        limited.arg(self.command.get_program()).args(self.command.get_args());
        for (name, value) in self.command.get_envs() {
            match value {
                Some(value) => limited.env(name, value),
                None => limited.env_remove(name),
            };
        }
        limited.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Pgstream { command: limited, ..self }
    }

    /// Runs it to its end.
    #[track_caller]
    pub(crate) fn run(self) -> Finished {
        self.spawn().wait()
    }

    /// Starts it.
    pub(crate) fn spawn(mut self) -> Running {
        let mut child = self.command.spawn().expect("pgstream starts");
        let stdout = child.stdout.take().map(collect);
        let stderr = child.stderr.take().map(collect);
        Running { child, schema: self.json.then_some(self.subcommand), stdout, stderr }
    }
}

impl Running {
    /// Waits for its end; panics with what it said when it takes far too long.
    #[track_caller]
    pub(crate) fn wait(mut self) -> Finished {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                break Some(status);
            }
            if start.elapsed() > TIME_LIMIT {
                break None;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        if status.is_none() {
            self.kill();
        }
        let text = |reader: Option<JoinHandle<String>>| {
            reader.map(|reader| reader.join().expect("the reader ends")).unwrap_or_default()
        };
        let (stdout, stderr) = (text(self.stdout.take()), text(self.stderr.take()));
        match status {
            Some(status) => {
                if let Some(command) = self.schema.as_deref().filter(|_| status.code().is_some()) {
                    expect_schema(command, &stdout);
                }
                Finished { code: status.code(), stdout, stderr }
            }
            None => panic!("pgstream did not end within {TIME_LIMIT:?}; stderr:\n{stderr}"),
        }
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        // Already ended is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Its command line, as every user of this host can read it.
    pub(crate) fn command_line(&self) -> String {
        let path = format!("/proc/{}/cmdline", self.child.id());
        String::from_utf8_lossy(&std::fs::read(path).expect("Linux tells")).into_owned()
    }

    /// Sends a signal such as `TERM`.
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("bash").args(["-c", &format!("kill -{name} {}", self.child.id())]).status();
        assert!(sent.expect("bash runs").success(), "pgstream ended before it was sent SIG{name}");
    }

    /// Whether it has ended already.
    pub(crate) fn ended(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_some()
    }
}

/// Panics where what a command printed with `--json` is neither what the published schema says of it nor an error.
#[track_caller]
fn expect_schema(command: &str, stdout: &str) {
    let Ok(value) = serde_json::from_str(stdout) else {
        // Wrong usage is told as text.
        assert!(stdout.is_empty(), "{command} --json printed something else than one JSON object: {stdout}");
        return;
    };
    if json_schema::fits("error", &value).is_err() {
        json_schema::assert_fits(command, &value);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Finished {
    /// Panics with all that was said unless the exit code is `code`.
    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Finished {
        assert!(
            self.code == Some(code),
            "expected exit code {code}, got {:?}\nstdout:\n{}\nstderr:\n{}",
            self.code,
            self.stdout,
            self.stderr
        );
        self
    }

    /// Panics with all that was said unless it holds each of these.
    #[track_caller]
    pub(crate) fn expect_words(&self, words: &[&str]) {
        let said = format!("{}{}", self.stdout, self.stderr);
        for word in words {
            assert!(said.contains(word), "{word:?} is not said:\n{said}");
        }
    }
}

fn collect(mut stream: impl Read + Send + 'static) -> JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // A reading error can only mean that the program is gone: what came before it is kept.
        let _ = stream.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
