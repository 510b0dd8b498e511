//! The password file (manual: "The Password File"), as libpq's `passwordFromFile` reads it.
//!
//! In: a path. Out: the file's lines, kept as a secret, which give the password of a host, port, database and user. A
//! file that others may read is not used, and a warning says so; a file that isn't there has no passwords.

use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::secret::Secret;

/// A password file that was read; prints only its path.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Passfile {
    path: PathBuf,
    content: Vec<u8>,
}

impl fmt::Debug for Passfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passfile").field("path", &self.path).finish_non_exhaustive()
    }
}

impl Passfile {
    /// Reads the file, or says in `warnings` why it is not used.
    pub(super) fn read(path: &Path, warnings: &mut Vec<String>) -> Option<Passfile> {
        let metadata = fs::metadata(path).ok()?;
        if !metadata.is_file() {
            warnings.push(format!("password file \"{}\" is not a plain file", path.display()));
            return None;
        }
        if metadata.permissions().mode() & 0o077 != 0 {
            warnings.push(format!(
                "password file \"{}\" has group or world access; permissions should be u=rw (0600) or less",
                path.display()
            ));
            return None;
        }
        Some(Passfile { path: path.to_owned(), content: fs::read(path).ok()? })
    }

    /// Where the file is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The password on the first line that matches; an empty one is none.
    pub(super) fn password(&self, host: &str, port: &str, dbname: &str, user: &str) -> Option<Secret> {
        let mut lines = self.content.split(|&byte| byte == b'\n').filter(|line| !line.starts_with(b"#"));
        let password = lines.find_map(|line| {
            // libpq reads C strings
            let line = line.split(|&byte| byte == 0).next().unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            [host, port, dbname, user].into_iter().try_fold(line, after_match).map(unescape)
        })?;
        (!password.is_empty()).then(|| Secret::new(password))
    }
}

/// What follows the field at the start of `line` when the field is `*` or equal to `value`.
fn after_match<'a>(line: &'a [u8], value: &str) -> Option<&'a [u8]> {
    if let Some(rest) = line.strip_prefix(b"*:") {
        return Some(rest);
    }
    let mut rest = line;
    let mut value = value.bytes();
    loop {
        let (escaped, byte) = match rest {
            [b'\\', byte, after @ ..] => {
                rest = after;
                (true, *byte)
            }
            [byte, after @ ..] => {
                rest = after;
                (false, *byte)
            }
            [] => return None,
        };
        match value.next() {
            None => return (byte == b':' && !escaped).then_some(rest),
            Some(expected) if expected == byte => {}
            Some(_) => return None,
        }
    }
}

/// The password ends at a colon that is not escaped, which leaves room for further fields.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut password = Vec::with_capacity(field.len());
    let mut bytes = field.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b':' => break,
            b'\\' => password.push(bytes.next().unwrap_or(b'\\')),
            byte => password.push(byte),
        }
    }
    password
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(content: &str, host: &str, port: &str, dbname: &str, user: &str) -> Option<String> {
        let file = Passfile { path: PathBuf::new(), content: content.into() };
        let secret = file.password(host, port, dbname, user)?;
        Some(String::from_utf8(secret.expose().to_vec()).unwrap())
    }

    #[test]
    fn the_first_line_that_matches_gives_the_password() {
        for (content, expected) in [
            ("h:5432:d:u:p", Some("p")),
            ("h:5432:d:u:p\r\n", Some("p")),
            ("#h:5432:d:u:no\n\nh:5432:d:u:p\nh:5432:d:u:later", Some("p")),
            ("*:*:*:*:p", Some("p")),
            ("x:*:*:*:no\nh:5432:*:u:p", Some("p")),
            ("h:5432:d:u:a\\:b\\\\c", Some("a:b\\c")),
            ("h:5432:d:u:p:more", Some("p")),
            ("h:5432:d:u:p\\", Some("p\\")),
            ("h:5432:d:u:\nh:5432:d:u:later", None),
            ("h:5432:d:u", None),
            ("h:5432:d:uu:p", None),
            ("hh:5432:d:u:p", None),
            ("h\\:5432:d:u:p", None),
            (" h:5432:d:u:p", None),
            ("", None),
        ] {
            assert_eq!(password(content, "h", "5432", "d", "u").as_deref(), expected, "{content:?}");
        }
    }

    #[test]
    fn colons_and_backslashes_of_a_field_are_escaped() {
        assert_eq!(password(r"\:\:1:5432:a\\b:u:p", "::1", "5432", r"a\b", "u").as_deref(), Some("p"));
        // libpq takes a colon that is expected for itself
        assert_eq!(password("::1:5432:d:u:p", "::1", "5432", "d", "u").as_deref(), Some("p"));
        // "*" stands for everything only when it is the whole field
        assert_eq!(password("*h:5432:d:u:p", "h", "5432", "d", "u"), None);
        assert_eq!(password(r"\*:5432:d:u:p", "h", "5432", "d", "u"), None);
    }

    #[test]
    fn a_file_that_others_may_read_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pgpass");
        fs::write(&path, "*:*:*:*:hunter2\n").unwrap();
        for (mode, used) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false), (0o610, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let mut warnings = Vec::new();
            let file = Passfile::read(&path, &mut warnings);
            assert_eq!((file.is_some(), warnings.len()), (used, usize::from(!used)), "{mode:o}");
            assert!(!format!("{file:?} {warnings:?}").contains("hunter2"));
        }
    }

    #[test]
    fn a_directory_is_no_password_file_and_a_missing_one_is_silent() {
        let directory = tempfile::tempdir().unwrap();
        let mut warnings = Vec::new();
        assert!(Passfile::read(&directory.path().join("missing"), &mut warnings).is_none());
        assert!(warnings.is_empty());
        assert!(Passfile::read(directory.path(), &mut warnings).is_none());
        assert!(warnings[0].ends_with("is not a plain file"));
    }
}
