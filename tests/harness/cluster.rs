//! Throw-away clusters on a free loopback port and a unix socket.

use super::database::Database;
use super::programs::{as_owner, owner, server_program, succeed};
use super::run;
use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// Fast, and with everything on that a migration may ask for. None of it is durable.
const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
wal_level = logical
max_connections = 120
max_wal_senders = 40
max_replication_slots = 40
max_prepared_transactions = 10
max_locks_per_transaction = 256
max_wal_size = 2GB
shared_buffers = 64MB
fsync = off
synchronous_commit = off
full_page_writes = off
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] %q%u@%d '
";

/// The superuser of every cluster.
pub(crate) const SUPERUSER: &str = "postgres";
/// Its password, asked for where [`Options::auth`] is not [`Auth::Trust`].
pub(crate) const PASSWORD: &str = "p@ss:w/ord %";
/// [`PASSWORD`] percent-encoded, for URIs.
pub(crate) const PASSWORD_IN_URI: &str = "p%40ss%3Aw%2Ford%20%25";

/// How a cluster asks its users who they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Auth {
    /// It doesn't.
    #[default]
    Trust,
    /// `md5`, with passwords stored so.
    Md5,
    /// `scram-sha-256`, with passwords stored so.
    Scram,
}

impl Auth {
    fn method(self) -> &'static str {
        match self {
            Auth::Trust => "trust",
            Auth::Md5 => "md5",
            Auth::Scram => "scram-sha-256",
        }
    }
}

/// What a cluster of a test's own differs in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// How users log in, over TCP and the socket.
    pub(crate) auth: Auth,
    /// With a server certificate for `localhost` and `127.0.0.1`, signed by `ca.crt` in [`Cluster::directory`].
    pub(crate) tls: bool,
    /// More lines of `postgresql.conf`.
    pub(crate) settings: Vec<String>,
    /// Lines of `pg_hba.conf` that come before the others.
    pub(crate) hba: Vec<String>,
    /// Bytes beyond which no file of the server may grow, until it is started again: a disk that runs full.
    pub(crate) file_size_limit: Option<u64>,
}

/// A running server. One that a test started for itself stops, and its files go, when it is dropped.
#[derive(Debug)]
pub(crate) struct Cluster {
    major: u32,
    port: u16,
    directory: PathBuf,
    password: bool,
    shared: bool,
}

/// The server of a major that all tests of this run share. Roles and settings made there are seen by others: make
/// only databases.
pub(crate) fn server(major: u32) -> &'static Cluster {
    static SERVERS: [OnceLock<Cluster>; 32] = [const { OnceLock::new() }; 32];
    SERVERS[major as usize].get_or_init(|| {
        run::exclusively(&format!("shared-{major}"), || {
            let directory = run::directory().join(format!("shared-{major}"));
            let port_file = directory.join("port");
            if let Ok(port) = fs::read_to_string(&port_file) {
                let port = port.parse().expect("the port file holds a port");
                return Cluster { major, port, directory, password: false, shared: true };
            }
            copy_data(&template(major), &directory);
            let cluster = Cluster::start_in(directory, major, &Options::default(), true);
            fs::write(port_file, cluster.port.to_string()).expect("the run's folder is writable");
            cluster
        })
    })
}

impl Cluster {
    /// Starts a cluster of the test's own.
    pub(crate) fn start(major: u32, options: &Options) -> Cluster {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("own-{}-{number}", std::process::id());
        let directory = run::directory().join(name);
        copy_data(&template(major), &directory);
        Cluster::start_in(directory, major, options, false)
    }

    /// Starts a hot standby of this cluster (PostgreSQL 12 or newer), which is stopped for a moment to be copied. Like one made by pg_basebackup,
    /// it has no replication slots.
    pub(crate) fn start_standby(&self) -> Cluster {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let slot = format!("standby_{number}");
        self.postgres().execute(&format!("SELECT pg_create_physical_replication_slot('{slot}')"));
        self.stop("fast");
        let conninfo = format!("host=127.0.0.1 port={} user={SUPERUSER} dbname=postgres", self.port);
        let mut settings = vec![
            format!("primary_conninfo = '{conninfo}'"),
            format!("primary_slot_name = '{slot}'"),
            "hot_standby_feedback = on".to_owned(),
            "wal_receiver_status_interval = '1s'".to_owned(),
            "wal_retrieve_retry_interval = '100ms'".to_owned(),
        ];
        if self.major >= 17 {
            settings.push("sync_replication_slots = on".to_owned());
        }
        let directory = run::directory().join(format!("standby-{}-{number}", std::process::id()));
        copy_data(&self.directory.join("data"), &directory);
        self.start_again();
        let mut prepare = as_owner("bash");
        prepare.args(["-c", "cd \"$1\" && rm -rf pg_replslot/* && touch standby.signal", "bash"]);
        prepare.arg(directory.join("data"));
        succeed(prepare);
        Cluster::start_in(directory, self.major, &Options { settings, ..Options::default() }, false)
    }

    /// Starts a cluster whose data folder is in `directory`.
    fn start_in(directory: PathBuf, major: u32, options: &Options, shared: bool) -> Cluster {
        if options.tls {
            make_certificates(&directory);
        }
        write_hba(&directory, options);
        for _ in 0..5 {
            let port = free_port();
            write_settings(&directory, port, options);
            let password = options.auth != Auth::Trust;
            // Nothing is removed as long as it doesn't run: the next try needs its folder.
            let mut cluster = Cluster { major, port, directory: directory.clone(), password, shared: true };
            if cluster.launch(options.file_size_limit) {
                cluster.shared = shared;
                return cluster;
            }
            // Someone else may have taken the port in between.
        }
        let log = fs::read_to_string(directory.join("log")).unwrap_or_default();
        panic!("PostgreSQL {major} does not start:\n{log}");
    }

    fn launch(&self, file_size_limit: Option<u64>) -> bool {
        let mut start = match file_size_limit {
            None => self.control(),
            Some(bytes) => {
                let control = self.control();
                let mut limited = Command::new("bash");
                limited.args(["-c", "ulimit -f $1; shift; exec \"$@\"", "bash", &(bytes / 1024).to_string()]);
                limited.arg(control.get_program()).args(control.get_args());
                limited.current_dir("/").process_group(0);
                limited
            }
        };
        start.args(["-w", "-t", "60", "-l"]).arg(self.directory.join("log")).arg("start");
        start.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        start.status().expect("pg_ctl runs").success()
    }

    fn control(&self) -> Command {
        let mut command = as_owner(server_program(self.major, "pg_ctl"));
        // The server outlives the test that started it, and the signals that end that test.
        command.arg("-D").arg(self.directory.join("data")).process_group(0);
        command
    }

    /// Starts a server that was stopped.
    pub(crate) fn start_again(&self) {
        assert!(self.launch(None), "the server does not start again");
    }

    /// Stops the server: `smart`, `fast`, or `immediate`, which is a crash.
    pub(crate) fn stop(&self, mode: &str) {
        let mut stop = self.control();
        stop.args(["-w", "-m", mode, "stop"]);
        succeed(stop);
    }

    /// Makes a primary of a standby.
    pub(crate) fn promote(&self) {
        let mut promote = self.control();
        promote.args(["-w", "-t", "60", "promote"]);
        succeed(promote);
    }

    /// The server's major version.
    pub(crate) fn major(&self) -> u32 {
        self.major
    }

    /// Its port on 127.0.0.1, and of its socket.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Its folder: `data`, `log`, the socket, and the certificates where TLS is on.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// A superuser's URI of a database, over TCP.
    pub(crate) fn uri(&self, database: &str) -> String {
        let password = if self.password { format!(":{PASSWORD_IN_URI}") } else { String::new() };
        format!("postgresql://{SUPERUSER}{password}@127.0.0.1:{}/{}", self.port, encoded(database))
    }

    /// A URI of a database for another user, over TCP; with a password or without.
    pub(crate) fn uri_as(&self, user: &str, password: Option<&str>, database: &str) -> String {
        let password = password.map(|password| format!(":{}", encoded(password))).unwrap_or_default();
        format!("postgresql://{}{password}@127.0.0.1:{}/{}", encoded(user), self.port, encoded(database))
    }

    /// A superuser's URI of a database, over the unix socket.
    pub(crate) fn socket_uri(&self, database: &str) -> String {
        let directory = self.directory.display();
        let password = if self.password { format!("&password={PASSWORD_IN_URI}") } else { String::new() };
        let database = encoded(database);
        format!("postgresql:///{database}?host={directory}&port={}&user={SUPERUSER}{password}", self.port)
    }

    /// A new, empty database, named after `name` so that no other test has it; dropped with the handle.
    pub(crate) fn create_database(&self, name: &str) -> Database<'_> {
        self.create_database_with(name, "")
    }

    /// Like [`Cluster::create_database`], with more clauses of `CREATE DATABASE`.
    pub(crate) fn create_database_with(&self, name: &str, clauses: &str) -> Database<'_> {
        let database = self.unborn_database(name);
        self.postgres().execute(&format!("CREATE DATABASE {} {clauses}", database.quoted_name()));
        database
    }

    /// The handle of a database that does not exist yet, such as one that a migration is to make; dropped with the
    /// handle if it exists by then.
    pub(crate) fn unborn_database(&self, name: &str) -> Database<'_> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Database::new(self, format!("{name}_{}_{number}", std::process::id()), true)
    }

    /// The database `postgres`, for statements about the cluster.
    pub(crate) fn postgres(&self) -> Database<'_> {
        self.database("postgres")
    }

    /// A database that is there, and stays when the handle goes.
    pub(crate) fn database(&self, name: &str) -> Database<'_> {
        Database::new(self, name.to_owned(), false)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.shared {
            let mut stop = self.control();
            stop.args(["-w", "-m", "immediate", "stop"]).stdout(Stdio::null()).stderr(Stdio::null());
            // A test may have stopped it already; what is left, the run's watchdog removes.
            let _ = stop.status();
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

/// A data folder fresh from initdb, made once per run and major, to be copied: a third of the time.
fn template(major: u32) -> PathBuf {
    run::exclusively(&format!("template-{major}"), || {
        let directory = run::directory().join(format!("template-{major}"));
        let template = directory.join("pristine");
        if template.join("PG_VERSION").exists() {
            return template;
        }
        make_owned(&directory);
        let password_file = directory.join("password");
        fs::write(&password_file, PASSWORD).expect("the run's folder is writable");
        let mut initdb = as_owner(server_program(major, "initdb"));
        initdb.args(["-N", "-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--locale", "C.UTF-8"]);
        initdb.arg("--pwfile").arg(password_file).arg("-D").arg(&template);
        succeed(initdb);
        template
    })
}

/// Copies a data folder, of a server that doesn't run, into `directory`.
fn copy_data(data: &Path, directory: &Path) {
    make_owned(directory);
    let mut copy = as_owner("cp");
    copy.arg("-a").arg(data).arg(directory.join("data"));
    succeed(copy);
}

fn make_owned(directory: &Path) {
    fs::create_dir_all(directory).expect("the run's folder is writable");
    if let Some(owner) = owner() {
        owner.own(directory);
    }
}

fn write_settings(directory: &Path, port: u16, options: &Options) {
    let mut text = String::from(SETTINGS);
    let mut line = |line: &str| writeln!(text, "{line}").expect("a String takes all text");
    line(&format!("port = {port}"));
    line(&format!("unix_socket_directories = '{}'", directory.display()));
    match options.auth {
        Auth::Trust => {}
        Auth::Md5 => line("password_encryption = 'md5'"),
        Auth::Scram => line("password_encryption = 'scram-sha-256'"),
    }
    if options.tls {
        line("ssl = on");
        for (setting, file) in [("cert", "server.crt"), ("key", "server.key"), ("ca", "ca.crt")] {
            line(&format!("ssl_{setting}_file = '{}'", directory.join(file).display()));
        }
    }
    options.settings.iter().for_each(|setting| line(setting));
    // Read after postgresql.conf, so its values win.
    fs::write(directory.join("data/postgresql.auto.conf"), text).expect("the data folder is writable");
}

fn write_hba(directory: &Path, options: &Options) {
    let method = options.auth.method();
    let mut text = options.hba.join("\n");
    for connection in [
        "local all all",
        "local replication all",
        "host all all 127.0.0.1/32",
        "host replication all 127.0.0.1/32",
    ] {
        write!(text, "\n{connection} {method}").expect("a String takes all text");
    }
    text.push('\n');
    fs::write(directory.join("data/pg_hba.conf"), text).expect("the data folder is writable");
}

/// An own authority, a server certificate for localhost and 127.0.0.1, a client certificate for the superuser.
fn make_certificates(directory: &Path) {
    const SCRIPT: &str = r"
set -e
umask 077
openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj '/CN=pgstream test authority' -keyout ca.key -out ca.crt
printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\n' >san.ext
openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout server.key -out server.csr
openssl x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile san.ext -out server.crt
openssl req -newkey rsa:2048 -nodes -subj /CN=postgres -keyout client.key -out client.csr
openssl x509 -req -in client.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -out client.crt
chmod 644 ca.crt
";
    let mut command = as_owner("bash");
    command.args(["-c", SCRIPT]).current_dir(directory);
    succeed(command);
}

fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a loopback port is free");
    listener.local_addr().expect("a bound socket has an address").port()
}

/// Percent-encodes everything but ASCII letters and digits.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => out.push(char::from(byte)),
            _ => write!(out, "%{byte:02X}").expect("a String takes all text"),
        }
        out
    })
}
