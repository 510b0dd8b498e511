//! A password, or anything else that must never be printed.

use std::fmt;
use std::path::Path;

use crate::error::{Error, Result, io_reason};

/// Bytes that can't print themselves: `Debug` shows that there is a secret, not what it is, and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Keeps `bytes` from being printed.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Secret {
        Secret(bytes.into())
    }

    /// Reads a file that holds nothing but the secret; the end of its line is not part of it.
    ///
    /// # Errors
    /// A usage error: the file can't be read, or is empty.
    pub fn read(path: &Path) -> Result<Secret> {
        let could_not = |reason: &dyn fmt::Display| {
            Error::usage(format!("could not read password file \"{}\": {reason}", path.display()))
        };
        let content = std::fs::read(path).map_err(|e| could_not(&io_reason(&e)))?;
        let line = content.strip_suffix(b"\n").unwrap_or(&content);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() { Err(could_not(&"it is empty")) } else { Ok(Secret::new(line)) }
    }

    /// The secret itself, for the login exchange only.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_file_holds_the_password_and_at_most_the_end_of_a_line() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("password");
        for (content, expected) in
            [("a b ", Some("a b ")), ("x\n", Some("x")), ("x\r\n", Some("x")), ("\n", None), ("", None)]
        {
            std::fs::write(&path, content).unwrap();
            let secret = Secret::read(&path).ok();
            assert_eq!(secret.as_ref().map(Secret::expose), expected.map(str::as_bytes), "{content:?}");
        }
        assert!(Secret::read(&directory.path().join("missing")).is_err());
    }

    #[test]
    fn a_secret_does_not_print_itself() {
        let secret = Secret::new("hunter2");
        assert_eq!(secret.expose(), b"hunter2");
        assert!(!format!("{secret:?} {:#?}", Some(&secret)).contains("hunter"));
    }
}
