//! Connection URIs, as libpq's `conninfo_uri_parse` reads them (manual: "Connection URIs").
//!
//! `postgresql://[user[:password]@][host[:port]][,…][/dbname][?parameter=value[&…]]`: text in, [`Parameters`] out. A
//! URI that can't be parsed may hold a password anywhere, so errors name the part that is wrong and never repeat the
//! URI.

use crate::error::{Error, Result};

use super::parameters::{Keyword, Parameters};

const PREFIXES: [&str; 2] = ["postgresql://", "postgres://"];

const ENCODE_HINT: &str =
    "Percent-encode reserved characters in the user name and password, such as %2F for / and %40 for @.";

/// What follows the scheme when `text` is a connection URI.
pub(super) fn strip_scheme(text: &str) -> Option<&str> {
    PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix))
}

/// Parses what follows the scheme of a URI.
pub(super) fn parse(text: &str) -> Result<Parameters> {
    let mut parameters = Parameters::new();
    let (credentials, rest) = split_credentials(text);
    if let Some(credentials) = credentials {
        let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
        if !user.is_empty() {
            parameters.set(Keyword::User, decode(user, "user name")?);
        }
        if !password.is_empty() {
            parameters.set(Keyword::Password, decode(password, "password")?);
        }
    }

    let (hosts, ports, rest) = split_hosts(rest)?;
    if hosts.get(1..).is_some_and(|rest| rest.contains('@')) {
        return Err(Error::usage("invalid host in connection URI: it holds \"@\"").with_hint(ENCODE_HINT));
    }
    // "u:pa/ss@host": libpq takes "pa" for a port, which would show a piece of the password
    if credentials.is_none()
        && text.contains('@')
        && !ports.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b','))
    {
        return Err(Error::usage("invalid port number in connection URI").with_hint(ENCODE_HINT));
    }
    if !hosts.is_empty() {
        parameters.set(Keyword::Host, decode(&hosts, "host")?);
    }
    if !ports.is_empty() {
        parameters.set(Keyword::Port, decode(&ports, "port")?);
    }

    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, query),
        None => (rest, ""),
    };
    // an empty name would hide $PGDATABASE
    if let Some(dbname) = path.strip_prefix('/').filter(|dbname| !dbname.is_empty()) {
        parameters.set(Keyword::Dbname, decode(dbname, "database name")?);
    }
    parse_query(query, &mut parameters)?;
    Ok(parameters)
}

/// Splits `user[:password]@` off; an `@` after the first slash belongs to the database name or the query.
fn split_credentials(text: &str) -> (Option<&str>, &str) {
    match text.find(['@', '/']) {
        Some(index) if text.as_bytes()[index] == b'@' => (Some(&text[..index]), &text[index + 1..]),
        _ => (None, text),
    }
}

/// Splits `host[:port][,…]` into the list of hosts, the list of ports and what follows.
fn split_hosts(text: &str) -> Result<(String, String, &str)> {
    let (mut hosts, mut ports, mut rest) = (String::new(), String::new(), text);
    loop {
        let host;
        if let Some(literal) = rest.strip_prefix('[') {
            let Some((address, after)) = literal.split_once(']') else {
                return Err(Error::usage("missing \"]\" after IPv6 host address in connection URI"));
            };
            if address.is_empty() {
                return Err(Error::usage("IPv6 host address in connection URI is empty"));
            }
            if !after.is_empty() && !after.starts_with([':', '/', '?', ',']) {
                return Err(Error::usage(
                    "unexpected character after IPv6 host address in connection URI (expected \":\" or \"/\")",
                ));
            }
            (host, rest) = (address, after);
        } else {
            (host, rest) = rest.split_at(rest.find([':', '/', '?', ',']).unwrap_or(rest.len()));
        }
        hosts.push_str(host);
        if let Some(after) = rest.strip_prefix(':') {
            let (port, after) = after.split_at(after.find(['/', '?', ',']).unwrap_or(after.len()));
            ports.push_str(port);
            rest = after;
        }
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None => return Ok((hosts, ports, rest)),
        }
        hosts.push(',');
        ports.push(',');
    }
}

fn parse_query(query: &str, parameters: &mut Parameters) -> Result<()> {
    let mut previous: Option<Keyword> = None;
    let mut rest = query;
    while !rest.is_empty() {
        let (parameter, after) = rest.split_once('&').unwrap_or((rest, ""));
        rest = after;
        // a word after a secret's value may be a part of it whose "&" was not encoded
        let shown = |keyword: &str| match previous {
            Some(previous) if previous.is_secret() => format!("after the value of \"{}\"", previous.name()),
            _ => format!("\"{keyword}\""),
        };
        let Some((keyword, value)) = parameter.split_once('=') else {
            return Err(Error::usage(format!(
                "missing key/value separator \"=\" in URI query parameter: {}",
                shown(parameter)
            )));
        };
        if value.contains('=') {
            return Err(Error::usage(format!(
                "extra key/value separator \"=\" in URI query parameter: {}",
                shown(keyword)
            ))
            .with_hint("Percent-encode \"=\" in a value as %3D."));
        }
        let name = decode(keyword, "query parameter's name")?;
        let value = decode(value, "query parameter's value")?;
        if name == b"ssl" && value == b"true" {
            parameters.set(Keyword::Sslmode, "require"); // as JDBC writes it
        } else if !parameters.set_by_name(&name, value) {
            let name = String::from_utf8_lossy(&name).into_owned();
            return Err(Error::usage(format!("invalid URI query parameter: {}", shown(&name))));
        }
        previous = Keyword::find(&name);
    }
    Ok(())
}

/// Decodes percent-encoding; spaces at both ends are dropped and spaces inside refused, as libpq 18 does.
fn decode(text: &str, part: &str) -> Result<Vec<u8>> {
    let text = text.trim_matches(' ');
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b' ' => {
                return Err(Error::usage(format!("unexpected space in the {part} of the connection URI"))
                    .with_hint("Use percent-encoded spaces (%20) instead."));
            }
            b'%' => match (bytes.next().and_then(hex_digit), bytes.next().and_then(hex_digit)) {
                (Some(0), Some(0)) => {
                    return Err(Error::usage(format!(
                        "forbidden value %00 in the {part} of the connection URI"
                    )));
                }
                (Some(high), Some(low)) => decoded.push(high << 4 | low),
                _ => {
                    return Err(Error::usage(format!(
                        "invalid percent-encoded token in the {part} of the connection URI"
                    ))
                    .with_hint("Write % itself as %25."));
                }
            },
            byte => decoded.push(byte),
        }
    }
    Ok(decoded)
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(uri: &str) -> Result<Vec<(&'static str, String)>> {
        let parameters = parse(strip_scheme(uri).unwrap_or_else(|| panic!("{uri:?} has no scheme")))?;
        let value =
            |keyword| String::from_utf8_lossy(parameters.bytes(keyword).unwrap_or_default()).into_owned();
        Ok(parameters.keywords().map(|keyword| (keyword.name(), value(keyword))).collect())
    }

    #[test]
    fn uris_are_read_as_libpq_reads_them() {
        // most of these are the cases of libpq's own t/001_uri.pl
        for (uri, expected) in [
            ("postgresql://", vec![]),
            ("postgres://", vec![]),
            ("postgresql:///", vec![]),
            ("postgresql://?", vec![]),
            ("postgresql://host", vec![("host", "host")]),
            ("postgresql://host/", vec![("host", "host")]),
            ("postgresql://host:12345/db", vec![("dbname", "db"), ("host", "host"), ("port", "12345")]),
            ("postgresql://host:/db", vec![("dbname", "db"), ("host", "host")]),
            ("postgresql://:12345/", vec![("port", "12345")]),
            ("postgresql:///db", vec![("dbname", "db")]),
            ("postgresql:///db/with/slash", vec![("dbname", "db/with/slash")]),
            ("postgresql:///?dbname=a%3Db", vec![("dbname", "a=b")]),
            (
                "postgresql://uri-user:secret@host:12345/db",
                vec![
                    ("user", "uri-user"),
                    ("password", "secret"),
                    ("dbname", "db"),
                    ("host", "host"),
                    ("port", "12345"),
                ],
            ),
            ("postgresql://user@", vec![("user", "user")]),
            ("postgresql://:p@host", vec![("password", "p"), ("host", "host")]),
            ("postgresql://user:@host", vec![("user", "user"), ("host", "host")]),
            ("postgresql://@host", vec![("host", "host")]),
            ("postgresql://u:p:w@host", vec![("user", "u"), ("password", "p:w"), ("host", "host")]),
            ("postgresql://u:p?w@host", vec![("user", "u"), ("password", "p?w"), ("host", "host")]),
            (
                "postgresql://us%20er:p%40ss@host",
                vec![("user", "us er"), ("password", "p@ss"), ("host", "host")],
            ),
            ("postgresql://%68ost", vec![("host", "host")]),
            ("postgresql://[::1]:12345/db", vec![("dbname", "db"), ("host", "::1"), ("port", "12345")]),
            ("postgresql://[2001:db8::1234]", vec![("host", "2001:db8::1234")]),
            ("postgresql://[::1],h:2", vec![("host", "::1,h"), ("port", ",2")]),
            ("postgresql://h1:1,h2,h3:3/db", vec![("dbname", "db"), ("host", "h1,h2,h3"), ("port", "1,,3")]),
            ("postgresql://,h2", vec![("host", ",h2"), ("port", ",")]),
            ("postgresql://%2Fvar%2Flib/db", vec![("dbname", "db"), ("host", "/var/lib")]),
            ("postgresql://host?user=u&port=5", vec![("user", "u"), ("host", "host"), ("port", "5")]),
            ("postgresql://host/db?", vec![("dbname", "db"), ("host", "host")]),
            ("postgresql://host?user=u&", vec![("user", "u"), ("host", "host")]),
            ("postgresql://?host=/path/to/socket", vec![("host", "/path/to/socket")]),
            ("postgresql://host?ssl=true", vec![("host", "host"), ("sslmode", "require")]),
            ("postgresql://host?sslmode=", vec![("host", "host"), ("sslmode", "")]),
            ("postgresql://h/?us%65r=u", vec![("user", "u"), ("host", "h")]),
            (
                "postgresql://h?  user  =  uri-user  & port  = 12345 ",
                vec![("user", "uri-user"), ("host", "h"), ("port", "12345")],
            ),
            (
                "postgresql://h/db?application_name=a%20b@c",
                vec![("dbname", "db"), ("host", "h"), ("application_name", "a b@c")],
            ),
        ] {
            let expected: Vec<_> =
                expected.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
            assert_eq!(parsed(uri).unwrap(), expected, "{uri:?}");
        }
    }

    #[test]
    fn what_libpq_refuses_is_refused_without_repeating_the_uri() {
        for (uri, message) in [
            ("postgresql://u:secret@[::1", "missing \"]\" after IPv6 host address in connection URI"),
            ("postgresql://u:secret@[]", "IPv6 host address in connection URI is empty"),
            (
                "postgresql://u:secret@[::1]z",
                "unexpected character after IPv6 host address in connection URI (expected \":\" or \"/\")",
            ),
            (
                "postgresql://u:secret%zz@h",
                "invalid percent-encoded token in the password of the connection URI",
            ),
            (
                "postgresql://u:secret%1@h",
                "invalid percent-encoded token in the password of the connection URI",
            ),
            (
                "postgresql://u:secret%@h",
                "invalid percent-encoded token in the password of the connection URI",
            ),
            ("postgresql://u:secret%00@h", "forbidden value %00 in the password of the connection URI"),
            ("postgresql://u:secret words@h", "unexpected space in the password of the connection URI"),
            ("postgresql://h?zzz", "missing key/value separator \"=\" in URI query parameter: \"zzz\""),
            ("postgresql://h?&user=a", "missing key/value separator \"=\" in URI query parameter: \"\""),
            (
                "postgresql://h?password=secret==",
                "extra key/value separator \"=\" in URI query parameter: \"password\"",
            ),
            ("postgresql://h?uzer=u", "invalid URI query parameter: \"uzer\""),
            ("postgresql://h?ssl=false", "invalid URI query parameter: \"ssl\""),
            (
                "postgresql://h?password=x&secret=y",
                "invalid URI query parameter: after the value of \"password\"",
            ),
            (
                "postgresql://h?password=x&secret",
                "missing key/value separator \"=\" in URI query parameter: after the value of \"password\"",
            ),
            ("postgresql://u:secret/word@h/db", "invalid port number in connection URI"),
            ("postgresql://u:p@secret@h/db", "invalid host in connection URI: it holds \"@\""),
        ] {
            let error = parsed(uri).unwrap_err();
            assert_eq!(error.to_string(), message, "{uri:?}");
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
    }
}
