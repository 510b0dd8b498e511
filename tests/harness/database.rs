//! A database of a test, spoken to by psql.

use super::cluster::Cluster;
use super::programs::{client, run_to_end};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Stdio};

/// Characters that no test data holds, between columns and rows of psql's output.
const COLUMN_END: &str = "\u{1f}";
const ROW_END: &str = "\u{1e}";

/// A database; dropped with the handle where a test made it.
#[derive(Debug)]
pub(crate) struct Database<'a> {
    cluster: &'a Cluster,
    name: String,
    dropped: bool,
}

impl<'a> Database<'a> {
    pub(super) fn new(cluster: &'a Cluster, name: String, dropped: bool) -> Database<'a> {
        Database { cluster, name, dropped }
    }

    /// The server it is on.
    pub(crate) fn cluster(&self) -> &'a Cluster {
        self.cluster
    }

    /// Its name, not quoted.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Its name as SQL writes it.
    pub(crate) fn quoted_name(&self) -> String {
        format!("\"{}\"", self.name.replace('"', "\"\""))
    }

    /// A superuser's URI, over TCP.
    pub(crate) fn uri(&self) -> String {
        self.cluster.uri(&self.name)
    }

    /// Runs statements by psql; the error is psql's stderr.
    pub(crate) fn try_execute(&self, sql: &str) -> Result<String, String> {
        self.psql(sql.as_bytes())
    }

    /// Runs statements by psql; panics with psql's words when one fails.
    #[track_caller]
    pub(crate) fn execute(&self, sql: &str) {
        if let Err(error) = self.try_execute(sql) {
            panic!("PostgreSQL {}, database {}: {error}", self.cluster.major(), self.name);
        }
    }

    /// Runs a file by psql; panics with psql's words when a statement fails.
    #[track_caller]
    pub(crate) fn load(&self, file: &Path) {
        let sql =
            std::fs::read(file).unwrap_or_else(|error| panic!("could not read {}: {error}", file.display()));
        if let Err(error) = self.psql(&sql) {
            panic!("PostgreSQL {}, {}: {error}", self.cluster.major(), file.display());
        }
    }

    /// The rows of a query as text, NULL as the empty string; panics with psql's words when it fails.
    #[track_caller]
    pub(crate) fn query(&self, sql: &str) -> Vec<Vec<String>> {
        let text = match self.try_execute(sql) {
            Ok(text) => text,
            Err(error) => panic!("PostgreSQL {}, database {}: {error}", self.cluster.major(), self.name),
        };
        let rows = text.strip_suffix('\n').unwrap_or(&text);
        let rows = rows.strip_suffix(ROW_END).unwrap_or(rows);
        if rows.is_empty() {
            return Vec::new();
        }
        rows.split(ROW_END).map(|row| row.split(COLUMN_END).map(str::to_owned).collect()).collect()
    }

    /// The first column of a query's first row; panics when there is none.
    #[track_caller]
    pub(crate) fn value(&self, sql: &str) -> String {
        self.query(sql).swap_remove(0).swap_remove(0)
    }

    /// Runs statements in a session that stays, with the locks it took, until the holder is dropped.
    pub(crate) fn hold(&self, sql: &str) -> Holder {
        let mut command = client("psql");
        command.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", &self.uri()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut holder = Holder(command.spawn().expect("psql runs"));
        holder.execute(sql);
        holder
    }

    fn psql(&self, sql: &[u8]) -> Result<String, String> {
        let mut command = client("psql");
        command.args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-F", COLUMN_END, "-R", ROW_END, "-f", "-", "-d"]);
        command.arg(self.uri()).env("PGOPTIONS", "-c client_min_messages=warning");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("psql runs");
        let mut stdin = child.stdin.take().expect("stdin is piped");
        let output = std::thread::scope(|scope| {
            // psql may stop reading at the first error: that is no failure of the writer's.
            scope.spawn(move || drop(stdin.write_all(sql)));
            child.wait_with_output().expect("psql ends")
        });
        let text = |bytes| String::from_utf8(bytes).expect("psql writes UTF-8");
        if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
    }
}

/// A session that holds what it took; it ends when dropped.
#[derive(Debug)]
pub(crate) struct Holder(Child);

impl Holder {
    /// Runs more statements in the session.
    #[track_caller]
    pub(crate) fn execute(&mut self, sql: &str) {
        let stdin = self.0.stdin.as_mut().expect("stdin is piped");
        writeln!(stdin, "{sql}\n;\n\\echo held").expect("psql reads");
        let mut said = String::new();
        let stdout = self.0.stdout.as_mut().expect("stdout is piped");
        while !said.ends_with("held\n") {
            let mut byte = [0];
            assert_eq!(stdout.read(&mut byte).expect("psql writes"), 1, "psql ended: {said}");
            said.push(char::from(byte[0]));
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // psql's end closes the session. That it has ended already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Database<'_> {
    fn drop(&mut self) {
        if self.dropped {
            let (name, literal) = (self.quoted_name(), self.name.replace('\'', "''"));
            let mut command = client("psql");
            // Subscriptions, slots and sessions, of a test that was cut short say, stand in the way of dropping.
            if let Ok(subscriptions) = self.try_execute(
                "SELECT format('ALTER SUBSCRIPTION %1$I DISABLE; ALTER SUBSCRIPTION %1$I SET (slot_name = NONE);
                 DROP SUBSCRIPTION %1$I;', subname) FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
                 WHERE datname = current_database()",
            ) {
                let _ = self.try_execute(&subscriptions.replace(ROW_END, "\n"));
            }
            command.args(["-XAtq", "-d", &self.cluster.uri("postgres")]);
            for statement in [
                format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{literal}'"),
                format!(
                    "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '{literal}'"
                ),
                format!("DROP DATABASE IF EXISTS {name}"),
            ] {
                command.args(["-c", &statement]);
            }
            run_to_end(&mut command);
        }
    }
}
