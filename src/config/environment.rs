//! What a connection string is resolved against: variables, the user, and the places of files.
//!
//! [`Environment`] is a plain value; tests build their own. [`Environment::from_process`] is the only reader of the
//! process's environment in the program.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::Side;

/// The surroundings of a run, as libpq looks at them.
#[derive(Clone)]
pub struct Environment {
    variables: BTreeMap<String, Vec<u8>>,
    home: Option<PathBuf>,
    user: Option<String>,
    socket_directory: PathBuf,
    system_directories: Vec<PathBuf>,
    password_database: PathBuf,
}

impl fmt::Debug for Environment {
    /// Names the variables without values: PGPASSWORD may be among them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("variables", &self.variables.keys())
            .field("home", &self.home)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

impl Environment {
    /// No variables, no home directory, no user; the default socket directory is `/tmp`.
    pub fn empty() -> Environment {
        Environment {
            variables: BTreeMap::new(),
            home: None,
            user: None,
            socket_directory: PathBuf::from("/tmp"),
            system_directories: Vec::new(),
            password_database: PathBuf::from("/etc/passwd"),
        }
    }

    /// The environment of this process.
    ///
    /// The default socket directory is `/var/run/postgresql` where it exists, as in the packages of Debian, Red Hat and
    /// PGDG, else `/tmp`, as in libpq built from source; `pg_service.conf` is looked for where these have it. The
    /// user's name comes from `/etc/passwd`, or `LOGNAME` and `USER` where users are kept elsewhere.
    pub fn from_process() -> Environment {
        let variables: BTreeMap<String, Vec<u8>> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_vec())))
            .collect();
        let mut environment = Environment { variables, ..Environment::empty() };

        let packaged = Path::new("/var/run/postgresql");
        if packaged.is_dir() {
            environment.socket_directory = packaged.to_owned();
        }
        environment.system_directories =
            ["/etc/postgresql-common", "/etc/sysconfig/pgsql", "/usr/local/pgsql/etc"]
                .map(PathBuf::from)
                .into();

        let entry = environment.password_entry(|entry| entry.uid == rustix::process::geteuid().as_raw());
        environment.home = environment
            .text("HOME")
            .filter(|home| !home.is_empty())
            .map(PathBuf::from)
            .or_else(|| entry.as_ref().map(|entry| entry.home.clone()));
        environment.user = entry.map(|entry| entry.name).or_else(|| {
            ["LOGNAME", "USER"].into_iter().find_map(|name| environment.text(name)).map(str::to_owned)
        });
        environment
    }

    /// Sets a variable.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: impl Into<Vec<u8>>) -> Environment {
        self.variables.insert(name.to_owned(), value.into());
        self
    }

    /// Sets the home directory, where `.pgpass`, `.pg_service.conf` and `.postgresql/` are looked for.
    #[must_use]
    pub fn with_home(mut self, home: impl Into<PathBuf>) -> Environment {
        self.home = Some(home.into());
        self
    }

    /// Sets the name of the operating system's user.
    #[must_use]
    pub fn with_user(mut self, user: &str) -> Environment {
        self.user = Some(user.to_owned());
        self
    }

    /// Sets the directory of the socket that is used when no host is given.
    #[must_use]
    pub fn with_socket_directory(mut self, directory: impl Into<PathBuf>) -> Environment {
        self.socket_directory = directory.into();
        self
    }

    /// The connection string of a side, from `PGSTREAM_SOURCE` or `PGSTREAM_TARGET`.
    pub fn connection_string(&self, side: Side) -> Option<&str> {
        self.text(match side {
            Side::Source => "PGSTREAM_SOURCE",
            Side::Target => "PGSTREAM_TARGET",
        })
    }

    /// The connection string of a standby's primary, from `PGSTREAM_SOURCE_PRIMARY`.
    pub fn primary(&self) -> Option<&str> {
        self.text("PGSTREAM_SOURCE_PRIMARY")
    }

    /// Whether a terminal may be written to in colour: `NO_COLOR` (no-color.org) is not set, and the terminal isn't `dumb`.
    pub fn wants_color(&self) -> bool {
        self.variable("NO_COLOR").is_none_or(<[u8]>::is_empty) && self.text("TERM") != Some("dumb")
    }

    /// The value of a variable.
    pub(super) fn variable(&self, name: &str) -> Option<&[u8]> {
        self.variables.get(name).map(Vec::as_slice)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.variable(name).and_then(|value| std::str::from_utf8(value).ok())
    }

    /// A file of the user, by its path in the home directory.
    pub(super) fn home_file(&self, path: &str) -> Option<PathBuf> {
        self.home.as_ref().map(|home| home.join(path))
    }

    /// The operating system's user, who is the default user of a connection.
    pub(super) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Where the socket is when no host is given.
    pub(super) fn socket_directory(&self) -> &Path {
        &self.socket_directory
    }

    /// The directories that may hold the system's `pg_service.conf`.
    pub(super) fn system_directories(&self) -> Vec<PathBuf> {
        match self.text("PGSYSCONFDIR") {
            Some(directory) => vec![PathBuf::from(directory)],
            None => self.system_directories.clone(),
        }
    }

    /// The uid of a user of this machine.
    pub(super) fn uid_of(&self, name: &str) -> Option<u32> {
        self.password_entry(|entry| entry.name == name).map(|entry| entry.uid)
    }

    fn password_entry(&self, wanted: impl Fn(&PasswordEntry) -> bool) -> Option<PasswordEntry> {
        let text = fs::read_to_string(&self.password_database).ok()?;
        text.lines().filter_map(PasswordEntry::parse).find(wanted)
    }
}

/// A line of `/etc/passwd`.
struct PasswordEntry {
    name: String,
    uid: u32,
    home: PathBuf,
}

impl PasswordEntry {
    fn parse(line: &str) -> Option<PasswordEntry> {
        let mut fields = line.split(':');
        let name = fields.next()?.to_owned();
        let uid = fields.nth(1)?.parse().ok()?;
        let home = fields.nth(2)?.into();
        Some(PasswordEntry { name, uid, home })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_names_variables_without_values() {
        let environment = Environment::empty().with_variable("PGPASSWORD", "hunter2");
        let shown = format!("{environment:?}");
        assert!(shown.contains("PGPASSWORD") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn a_line_of_the_password_database_has_name_uid_and_home() {
        let entry = PasswordEntry::parse("jan:x:1000:1001:Jan,,,:/home/jan:/bin/bash").unwrap();
        assert_eq!((entry.name.as_str(), entry.uid, entry.home), ("jan", 1000, PathBuf::from("/home/jan")));
        assert!(PasswordEntry::parse("+::::::").is_none());
        assert!(PasswordEntry::parse("").is_none());
    }

    #[test]
    fn the_process_has_a_user_and_root_has_uid_0() {
        let environment = Environment::from_process();
        assert!(environment.user().is_some());
        assert_eq!(environment.uid_of("root"), Some(0));
        assert_eq!(environment.uid_of("no such user"), None);
    }
}
