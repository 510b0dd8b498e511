//! The command line's options, as they are typed.
//!
//! In: the process's arguments. Out: [`Arguments`], raw; each command resolves them once. Names are pg_dump's wherever
//! pg_dump has the option.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::content::Content;
use crate::catalog::role::Scope;
use crate::error::Error;
use crate::migrate;
use crate::replication::MissingIdentity;
use crate::schema::pattern;

/// Moves PostgreSQL databases from one server to another.
#[derive(Debug, Parser)]
#[command(
    name = "pgstream",
    version,
    about,
    max_term_width = 100,
    disable_help_subcommand = true,
    arg_required_else_help = true,
    after_help = "Exit codes: 0 done; 1 failed; 2 usage, configuration or a failed check, nothing touched; \
                  3 finished, with differences or skipped objects; 4 stopped, the same command resumes."
)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
    #[command(flatten)]
    pub(super) common: Common,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "General options")]
pub(super) struct Common {
    /// Database to copy from: URI, key=value string or name [env: PGSTREAM_SOURCE]
    #[arg(long, global = true, value_name = "CONNINFO")]
    pub(super) source: Option<String>,
    /// Database to copy to: URI, key=value string or name [env: PGSTREAM_TARGET]
    #[arg(long, global = true, value_name = "CONNINFO")]
    pub(super) target: Option<String>,
    /// File that holds the source's password and nothing else
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) source_password_file: Option<PathBuf>,
    /// File that holds the target's password and nothing else
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) target_password_file: Option<PathBuf>,
    /// Print the result as one JSON object on standard output
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Say more: SQLSTATE and statement of errors, then what is done (-vv: each statement's notices, -vvv: everything)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
    /// Say nothing but errors and results
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(super) quiet: bool,
    /// Append all messages, and progress, to this file, with their times
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) log_file: Option<PathBuf>,
    /// Form of the log file (text, json); without one, of the messages on standard error
    #[arg(long, global = true, value_enum, default_value = "text", hide_possible_values = true)]
    pub(super) log_format: LogFormat,
    /// A name for this migration that stands in every message
    #[arg(long, global = true, value_name = "ID")]
    pub(super) migration_id: Option<String>,
}

/// Form of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    /// Lines for people
    Text,
    /// One JSON object a line
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Copy the source database into the target database; run again, it resumes
    Migrate(Migrate),
    /// Help a migrate that runs elsewhere to copy rows, until no part of a table is left
    Worker(Worker),
    /// Say what would stand in the way of a migration, without touching anything
    Check(Check),
    /// Show how far the migration into the target database is
    Status(Status),
    /// Apply the last changes and end the migration: the target is the database from then on
    Cutover(Cutover),
    /// Compare both databases: definitions, rows, sequences, large objects
    Verify(Verify),
    /// Print the statements that make the source's schema
    Schema(Schema),
    /// Remove what pgstream keeps on the servers for itself
    Cleanup(Cleanup),
    /// Write manual pages, completions of a shell, JSON Schemas, or a dashboard for Grafana
    #[command(subcommand)]
    Generate(Generate),
}

/// `pgstream generate`.
#[derive(Debug, Subcommand)]
pub(super) enum Generate {
    /// Write a manual page for pgstream and for each of its commands
    Man {
        /// Folder to write them into
        #[arg(value_name = "DIR", default_value = ".")]
        directory: PathBuf,
    },
    /// Print completions for a shell
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Print the JSON Schema of what a command prints with --json, or of a line of --log-format json
    JsonSchema {
        /// The command, or event
        #[arg(value_enum)]
        of: Printed,
    },
    /// Print a dashboard for Grafana that shows the metrics of --metrics-listen
    Dashboard,
}

/// What has a JSON Schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Printed {
    /// pgstream check
    Check,
    /// pgstream migrate
    Migrate,
    /// pgstream worker
    Worker,
    /// pgstream cutover
    Cutover,
    /// pgstream status
    Status,
    /// pgstream verify
    Verify,
    /// pgstream schema
    Schema,
    /// pgstream cleanup
    Cleanup,
    /// A line of --log-format json
    Event,
}

/// How a database is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Method {
    /// The best method whose preconditions are met
    Auto,
    /// One consistent copy, as pg_dump and pg_restore make it
    Copy,
    /// A copy that is kept in step with the source until cutover
    Replication,
}

/// `pgstream migrate`.
#[derive(Debug, Args)]
pub(super) struct Migrate {
    /// How the database is moved
    #[arg(long, value_enum, default_value = "auto")]
    pub(super) method: Method,
    /// Copy with this many connections to each server [default: the number of processors, at most 4]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) jobs: Option<u16>,
    /// Build indexes and constraints of large tables with this many connections to the target, and two more for small ones [default: as --jobs]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) index_jobs: Option<u16>,
    /// Cut larger tables into parts of about this size (such as 500MB); 0 cuts none
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "1GB")]
    pub(super) split_tables_larger_than: u64,
    /// Begin anew: drop what an earlier run of pgstream made in the target, and nothing else
    #[arg(long)]
    pub(super) restart: bool,
    /// Take only this part of the migration; may be given several times, and the parts come in this order [default: all]
    #[arg(long, value_enum)]
    pub(super) section: Vec<Section>,
    /// Only check, as pgstream check does
    #[arg(long, conflicts_with = "restart")]
    pub(super) validate: bool,
    #[command(flatten)]
    pub(super) windows: Windows,
    /// Wait at most this long for a lock on a source table (such as 30s; a plain number is milliseconds)
    #[arg(long, value_name = "TIMEOUT", value_parser = duration, default_value = "30s")]
    pub(super) lock_wait_timeout: Duration,
    /// When the target refuses an object, leave it out with all that needs it, and go on
    #[arg(long)]
    pub(super) keep_going: bool,
    #[command(flatten)]
    pub(super) limits: Limits,
    /// Don't create target databases that aren't there
    #[arg(long)]
    pub(super) no_create_database: bool,
    #[command(flatten)]
    pub(super) databases: Databases,
    #[command(flatten)]
    pub(super) roles: Roles,
    #[command(flatten)]
    pub(super) replication: Replication,
    #[command(flatten)]
    pub(super) content: Content,
}

/// Where others can watch a command at work.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Windows {
    /// Serve metrics for Prometheus at this address (such as 127.0.0.1:9187)
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(super) metrics_listen: Option<SocketAddr>,
    /// Serve a page that shows how far the work is, for a browser, at this port of this host alone, or at an address
    #[arg(long, value_name = "[ADDRESS:]PORT", value_parser = address)]
    pub(super) dashboard: Option<SocketAddr>,
}

/// Which databases of the servers.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Whole servers")]
pub(super) struct Databases {
    /// All databases of the server; --source and --target name any database of each
    #[arg(long)]
    pub(super) all_databases: bool,
    /// Leave out databases whose names match a pattern of psql's; a list with commas, and more than once
    #[arg(long, value_name = "PATTERN", requires = "all_databases")]
    pub(super) exclude_database: Vec<String>,
    /// Work on this many databases at the same time
    #[arg(long, value_name = "N", requires = "all_databases", default_value = "2", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(super) database_jobs: u16,
}

/// What a check lets pass.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct Limits {
    /// Refuse a source database that holds more (such as 500GB)
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(super) max_total_size: Option<u64>,
    /// Go on although the target is of an older major than the source
    #[arg(long)]
    pub(super) allow_older_target: bool,
}

impl From<Limits> for migrate::check::Limits {
    fn from(limits: Limits) -> migrate::check::Limits {
        migrate::check::Limits {
            max_total_size: limits.max_total_size,
            allow_older_target: limits.allow_older_target,
        }
    }
}

/// What is done about roles.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Roles")]
pub(super) struct Roles {
    /// Don't create roles that the target lacks
    #[arg(long)]
    pub(super) no_roles: bool,
    /// Leave out roles whose names match a pattern of psql's; a list with commas, and more than once
    #[arg(long, value_name = "PATTERN")]
    pub(super) exclude_role: Vec<String>,
    /// What becomes of the passwords of created roles
    #[arg(long, value_enum, default_value = "keep")]
    pub(super) role_passwords: RolePasswords,
    /// Write placeholder passwords into this password file, which nobody else may read
    #[arg(long, value_name = "FILE")]
    pub(super) role_password_file: Option<PathBuf>,
    /// Show placeholder passwords in the report
    #[arg(long)]
    pub(super) show_passwords: bool,
}

/// Passwords of created roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum RolePasswords {
    /// As stored on the source; placeholders where the source doesn't show them
    Keep,
    /// A random one for each role that may log in
    Placeholder,
    /// None
    None,
}

/// What concerns the method replication.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Replication")]
pub(super) struct Replication {
    /// Wait at most this long for transactions of the source that keep the slot from being made (such as 5min)
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10min")]
    pub(super) slot_timeout: Duration,
    /// What to do about tables that have no replica identity
    #[arg(long, value_enum, default_value = "error")]
    pub(super) replica_identity: ReplicaIdentity,
    /// What to do when the row of an UPDATE or DELETE is not on the target
    #[arg(long, value_enum, default_value = "stop")]
    pub(super) on_conflict: OnConflict,
    /// Cut over by itself once the target is close to the source; nothing may write to the source then
    #[arg(long)]
    pub(super) stop_when_caught_up: bool,
    /// How close that is, in bytes of write-ahead log (such as 64kB)
    #[arg(long, value_name = "BYTES", value_parser = size, default_value = "0", requires = "stop_when_caught_up")]
    pub(super) max_replication_lag: u64,
    /// Folder for transactions that don't fit into memory
    #[arg(long, value_name = "DIR", default_value = "/tmp")]
    pub(super) spill_dir: PathBuf,
    /// While rows are copied, keep the changes in files below this folder, so that the source can let go of its log
    #[arg(long, value_name = "DIR")]
    pub(super) spool_dir: Option<PathBuf>,
}

/// Tables without replica identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum ReplicaIdentity {
    /// Refuse to begin, and name them
    Error,
    /// Give them REPLICA IDENTITY FULL on the source until the cutover
    Full,
    /// Copy them, and leave out what changes later
    Skip,
}

/// Rows that are not on the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum OnConflict {
    /// Stop before the change
    Stop,
    /// Leave the change out, and count it
    Skip,
}

/// `pgstream cutover`.
#[derive(Debug, Args)]
pub(super) struct Cutover {
    /// Begin once the target is at most this far behind, in bytes of write-ahead log (such as 1MB)
    #[arg(long, value_name = "BYTES", value_parser = size, default_value = "1MB")]
    pub(super) max_lag: u64,
    /// Wait at most this long for that
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "5min")]
    pub(super) timeout: Duration,
    #[command(flatten)]
    pub(super) windows: Windows,
    /// Make the source database read-only first, and end the sessions that others have in it
    #[arg(long)]
    pub(super) make_source_read_only: bool,
    /// Refresh materialized views at the end
    #[arg(long)]
    pub(super) refresh_materialized_views: bool,
    /// Analyze with this many connections [default: the number of processors, at most 4]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) jobs: Option<u16>,
    #[command(flatten)]
    pub(super) databases: Databases,
    #[command(flatten)]
    pub(super) replication: Replication,
    #[command(flatten)]
    pub(super) content: Content,
}

/// `pgstream worker`.
#[derive(Debug, Args)]
pub(super) struct Worker {
    /// Copy with this many connections to each server [default: the number of processors, at most 4]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) jobs: Option<u16>,
    /// Wait at most this long for a copy to begin, or to begin again (such as 10min)
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "0")]
    pub(super) wait: Duration,
}

/// `pgstream check`.
#[derive(Debug, Args)]
pub(super) struct Check {
    /// How the database would be moved
    #[arg(long, value_enum, default_value = "auto")]
    pub(super) method: Method,
    /// What would be done about tables that have no replica identity
    #[arg(long, value_enum, default_value = "error")]
    pub(super) replica_identity: ReplicaIdentity,
    /// Connections that the copy would open to each server
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) jobs: Option<u16>,
    #[command(flatten)]
    pub(super) limits: Limits,
    /// Target databases that aren't there would not be created
    #[arg(long)]
    pub(super) no_create_database: bool,
    #[command(flatten)]
    pub(super) databases: Databases,
    #[command(flatten)]
    pub(super) roles: Roles,
    #[command(flatten)]
    pub(super) content: Content,
}

/// `pgstream status`.
#[derive(Debug, Args)]
pub(super) struct Status {
    /// Show it again and again, until the migration is done or has failed
    #[arg(long)]
    pub(super) watch: bool,
    /// Time between two looks, with --watch
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "2s", requires = "watch")]
    pub(super) interval: Duration,
    #[command(flatten)]
    pub(super) databases: Databases,
}

/// `pgstream verify`.
#[derive(Debug, Args)]
pub(super) struct Verify {
    /// Compare this many tables at the same time [default: the number of processors, at most 4]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) jobs: Option<u16>,
    /// Compare only rows, sequences and large objects
    #[arg(short = 'a', long, conflicts_with = "schema_only")]
    pub(super) data_only: bool,
    /// Compare only so many percent of the rows of each table that has a key, chosen anew each time (such as 5 or 0.1)
    #[arg(long, value_name = "PERCENT", value_parser = percent, conflicts_with = "schema_only")]
    pub(super) sample: Option<u32>,
    /// Name so many rows of a table that differs by their keys, at most; 0 shows no keys
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u16).range(0..=10_000))]
    pub(super) keys: u16,
    /// While a run follows the source: wait at most this long for it to stand still at one position
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "1min")]
    pub(super) timeout: Duration,
    #[command(flatten)]
    pub(super) databases: Databases,
    #[command(flatten)]
    pub(super) content: Content,
}

/// pg_dump's sections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Section {
    /// What is made before the rows are copied
    PreData,
    /// Rows, large objects, positions of sequences
    Data,
    /// Indexes, constraints, triggers, privileges
    PostData,
}

/// `pgstream schema`.
#[derive(Debug, Args)]
pub(super) struct Schema {
    /// Print this part alone; may be given several times [default: all]
    #[arg(long, value_enum)]
    pub(super) section: Vec<Section>,
    #[command(flatten)]
    pub(super) content: Content,
}

/// `pgstream cleanup`.
#[derive(Debug, Args)]
pub(super) struct Cleanup {
    /// Don't ask
    #[arg(short, long)]
    pub(super) yes: bool,
    #[command(flatten)]
    pub(super) databases: Databases,
}

impl From<Method> for migrate::Method {
    fn from(method: Method) -> migrate::Method {
        match method {
            Method::Auto => migrate::Method::Auto,
            Method::Copy => migrate::Method::Copy,
            Method::Replication => migrate::Method::Replication,
        }
    }
}

impl From<ReplicaIdentity> for MissingIdentity {
    fn from(policy: ReplicaIdentity) -> MissingIdentity {
        match policy {
            ReplicaIdentity::Error => MissingIdentity::Error,
            ReplicaIdentity::Full => MissingIdentity::Full,
            ReplicaIdentity::Skip => MissingIdentity::Skip,
        }
    }
}

impl Databases {
    /// Regular expressions of the names that are left out.
    pub(super) fn excluded(&self) -> crate::error::Result<Vec<String>> {
        expressions("--exclude-database", &self.exclude_database)
    }
}

impl Roles {
    /// The options of the roles of `scope`.
    pub(super) fn options(&self, scope: Scope) -> crate::error::Result<migrate::roles::Options> {
        Ok(migrate::roles::Options {
            make: !self.no_roles,
            exclude: expressions("--exclude-role", &self.exclude_role)?,
            scope,
            passwords: match self.role_passwords {
                RolePasswords::Keep => migrate::roles::Passwords::Keep,
                RolePasswords::Placeholder => migrate::roles::Passwords::Placeholder,
                RolePasswords::None => migrate::roles::Passwords::None,
            },
            password_file: self.role_password_file.clone(),
            show_passwords: self.show_passwords,
        })
    }
}

/// The regular expressions of patterns of names that have no schema.
fn expressions(option: &str, values: &[String]) -> crate::error::Result<Vec<String>> {
    let patterns = values.iter().flat_map(|value| pattern::split_list(value));
    patterns
        .map(|pattern| {
            let mut parts = pattern::regular_expressions(&pattern);
            match (parts.pop(), parts.is_empty()) {
                (Some(expression), true) => Ok(expression),
                _ => Err(Error::usage(format!("invalid {option} value: \"{pattern}\""))
                    .with_hint("Put a name that holds a dot into double quotes.")),
            }
        })
        .collect()
}

/// The number of connections where none is asked for.
pub(super) fn default_jobs() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get().min(4))
}

/// `127.0.0.1:8080`, or a port of the loopback address.
fn address(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<u16>() {
        Ok(port) => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        Err(_) => text.parse().map_err(|_| "it is neither a port nor an IP address with a port".to_owned()),
    }
}

/// A share in percent, as parts of a million.
fn percent(text: &str) -> Result<u32, String> {
    match text.trim_end_matches('%').parse::<f64>() {
        Ok(percent) if percent > 0.0 && percent <= 100.0 => Ok(((percent * 1e4).round() as u32).max(1)),
        Ok(_) => Err("it must be more than 0 and at most 100".to_owned()),
        Err(_) => Err("it is not a number".to_owned()),
    }
}

/// A size in bytes, with PostgreSQL's units: `500MB`, `1 GB`, `65536`.
fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = number_and_unit(text)?;
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" => 10,
        "m" | "mb" => 20,
        "g" | "gb" => 30,
        "t" | "tb" => 40,
        _ => return Err("valid units are \"B\", \"kB\", \"MB\", \"GB\" and \"TB\"".to_owned()),
    };
    number.checked_mul(1 << shift).ok_or_else(|| "it is too large".to_owned())
}

/// A time with PostgreSQL's units: `30s`, `5min`; a plain number is milliseconds, as for `lock_timeout`.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = number_and_unit(text)?;
    let milliseconds = match unit {
        "" | "ms" => 1,
        "s" => 1000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err("valid units are \"ms\", \"s\", \"min\", \"h\" and \"d\"".to_owned()),
    };
    // lock_timeout is a 32-bit number of milliseconds.
    match number.checked_mul(milliseconds) {
        Some(total) if total <= i32::MAX as u64 => Ok(Duration::from_millis(total)),
        _ => Err("it is too long".to_owned()),
    }
}

fn number_and_unit(text: &str) -> Result<(u64, &str), String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number = text[..end].parse().map_err(|_| "it does not begin with a number".to_owned())?;
    Ok((number, text[end..].trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_are_consistent() {
        <Arguments as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn sizes_have_the_units_of_postgresql() {
        assert_eq!(size("0"), Ok(0));
        assert_eq!(size("8kB"), Ok(8192));
        assert_eq!(size("1 gb"), Ok(1 << 30));
        assert_eq!(size("16777215TB"), Ok(16_777_215 << 40));
        for wrong in ["", "GB", "1.5GB", "-1", "5 parsecs", "16777216TB", "99999999999999999999"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_have_the_units_of_postgresql() {
        assert_eq!(duration("250"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(duration("2 min"), Ok(Duration::from_secs(120)));
        for wrong in ["", "s", "1 fortnight", "25d", "1m"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_share_is_a_number_of_percent() {
        for (text, parts) in [("5", 50_000), ("0.1", 1000), ("100%", 1_000_000), ("0.00001", 1)] {
            assert_eq!(percent(text), Ok(parts));
        }
        for wrong in ["0", "-1", "101", "", "NaN", "many"] {
            assert!(percent(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_port_alone_is_one_of_this_host() {
        assert_eq!(address("8080"), "127.0.0.1:8080".parse().map_err(|_| String::new()));
        assert_eq!(address("[::]:8080"), "[::]:8080".parse().map_err(|_| String::new()));
        for wrong in ["", "host:80", "127.0.0.1", "99999", ":80"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn global_options_are_taken_after_the_command_too() {
        let arguments =
            Arguments::try_parse_from(["pgstream", "status", "--target", "t", "-vv", "--json"]).unwrap();
        assert_eq!(arguments.common.target.as_deref(), Some("t"));
        assert_eq!(arguments.common.verbose, 2);
        assert!(arguments.common.json);
    }
}
