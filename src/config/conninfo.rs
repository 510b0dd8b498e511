//! The `key = value` form of a connection string, as libpq's `conninfo_parse` reads it (manual: "Keyword/Value
//! Connection Strings").
//!
//! Text in, [`Parameters`] out; fails on a missing `=`, an open quote, and a keyword that doesn't exist. What follows a
//! secret's value may be a part of it that was not quoted, so errors there don't repeat the text.

use crate::error::{Error, Result};

use super::parameters::{Keyword, Parameters, is_space};

const QUOTE_HINT: &str =
    "Put a value that holds spaces in single quotes, and write \\' and \\\\ for ' and \\ in it.";

/// Parses `key = value` pairs; the last value of a keyword counts.
pub(super) fn parse(text: &str) -> Result<Parameters> {
    let mut parameters = Parameters::new();
    let mut rest = skip_spaces(text.as_bytes());
    let mut previous: Option<Keyword> = None;
    while !rest.is_empty() {
        let end = rest.iter().position(|&byte| byte == b'=' || is_space(byte)).unwrap_or(rest.len());
        let (name, after_name) = rest.split_at(end);
        let Some(after_equals) = skip_spaces(after_name).strip_prefix(b"=") else {
            return Err(misplaced(name, previous, |name| {
                format!("missing \"=\" after \"{name}\" in connection string")
            }));
        };
        let (value, after_value) = value(skip_spaces(after_equals), name)?;
        if !parameters.set_by_name(name, value) {
            return Err(misplaced(name, previous, |name| format!("invalid connection option \"{name}\"")));
        }
        previous = Keyword::find(name);
        rest = skip_spaces(after_value);
    }
    Ok(parameters)
}

/// Reads one value, quoted or not, and returns what follows.
fn value<'a>(text: &'a [u8], name: &[u8]) -> Result<(Vec<u8>, &'a [u8])> {
    let (quoted, text) = match text.strip_prefix(b"'") {
        Some(text) => (true, text),
        None => (false, text),
    };
    let mut value = Vec::new();
    let mut bytes = text.iter().copied().enumerate();
    while let Some((index, byte)) = bytes.next() {
        match byte {
            b'\\' => value.extend(bytes.next().map(|(_, escaped)| escaped)),
            b'\'' if quoted => return Ok((value, &text[index + 1..])),
            byte if !quoted && is_space(byte) => return Ok((value, &text[index + 1..])),
            byte => value.push(byte),
        }
    }
    if quoted {
        let name = String::from_utf8_lossy(name);
        return Err(Error::usage(format!(
            "unterminated quoted string in connection string, in the value of \"{name}\""
        ))
        .with_hint(QUOTE_HINT));
    }
    Ok((value, b""))
}

/// The error for a word that should have been a keyword; it is shown only if it can't be the rest of a secret.
fn misplaced(name: &[u8], previous: Option<Keyword>, message: impl FnOnce(&str) -> String) -> Error {
    match previous {
        Some(previous) if previous.is_secret() => Error::usage(format!(
            "unexpected text after the value of \"{}\" in connection string",
            previous.name()
        ))
        .with_hint(QUOTE_HINT),
        _ => Error::usage(message(&String::from_utf8_lossy(name))),
    }
}

fn skip_spaces(text: &[u8]) -> &[u8] {
    let start = text.iter().position(|&byte| !is_space(byte)).unwrap_or(text.len());
    &text[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is set, as text.
    fn parsed(text: &str) -> Result<Vec<(&'static str, String)>> {
        let parameters = parse(text)?;
        let value =
            |keyword| String::from_utf8_lossy(parameters.bytes(keyword).unwrap_or_default()).into_owned();
        Ok(parameters.keywords().map(|keyword| (keyword.name(), value(keyword))).collect())
    }

    #[test]
    fn values_are_read_as_libpq_reads_them() {
        for (text, expected) in [
            ("", vec![]),
            ("  \t\n", vec![]),
            ("host=h", vec![("host", "h")]),
            ("host = h\tport\n=\n5", vec![("host", "h"), ("port", "5")]),
            ("host='a b' port=1", vec![("host", "a b"), ("port", "1")]),
            (r"user='it\'s' dbname='a\\b'", vec![("user", "it's"), ("dbname", r"a\b")]),
            (r"user=a\ b dbname=\'x", vec![("user", "a b"), ("dbname", "'x")]),
            // no space is needed after a closing quote
            ("user='a'dbname='b'", vec![("user", "a"), ("dbname", "b")]),
            // a quote inside an unquoted value is a character like another
            ("user=a'b'c", vec![("user", "a'b'c")]),
            // empty values: before a space the next word is taken
            ("user=", vec![("user", "")]),
            ("user='' dbname=x", vec![("user", ""), ("dbname", "x")]),
            ("user= dbname=x", vec![("user", "dbname=x")]),
            // a backslash at the end escapes nothing
            (r"user=a\", vec![("user", "a")]),
            // the last one counts
            ("port=1 port=2", vec![("port", "2")]),
            ("requiressl=1", vec![("sslmode", "require")]),
            ("requiressl=0", vec![("sslmode", "prefer")]),
            ("dbname='host=evil'", vec![("dbname", "host=evil")]),
            ("user=Jürgen", vec![("user", "Jürgen")]),
        ] {
            let expected: Vec<_> =
                expected.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
            assert_eq!(parsed(text).unwrap(), expected, "{text:?}");
        }
    }

    #[test]
    fn what_libpq_refuses_is_refused() {
        for (text, message) in [
            ("host", r#"missing "=" after "host" in connection string"#),
            ("host=a mydb", r#"missing "=" after "mydb" in connection string"#),
            ("host x=1", r#"missing "=" after "host" in connection string"#),
            ("=x", r#"invalid connection option """#),
            ("hots=a", r#"invalid connection option "hots""#),
            ("HOST=a", r#"invalid connection option "HOST""#),
            ("host='a", r#"unterminated quoted string in connection string, in the value of "host""#),
            (r"host='a\'", r#"unterminated quoted string in connection string, in the value of "host""#),
        ] {
            assert_eq!(parsed(text).unwrap_err().to_string(), message, "{text:?}");
        }
    }

    #[test]
    fn an_unquoted_rest_of_a_password_is_not_repeated() {
        for text in ["password=correct horse", "password=correct horse=battery", "password='correct'horse"] {
            let error = parsed(text).unwrap_err();
            assert_eq!(
                error.to_string(),
                r#"unexpected text after the value of "password" in connection string"#
            );
            assert!(!format!("{error:?}").contains("horse"), "{text:?}");
        }
    }
}
