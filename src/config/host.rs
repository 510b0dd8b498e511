//! The hosts that a connection may be made to, from `host`, `hostaddr` and `port` (manual: "Specifying Multiple Hosts").

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

use super::parameters::{Keyword, Parameters, integer};
use super::secret::Secret;

/// The port that PostgreSQL listens on unless told otherwise.
pub(super) const DEFAULT_PORT: u16 = 5432;

/// The longest path of a socket: what `sockaddr_un` holds on Linux, without the final zero byte.
const SOCKET_PATH_LIMIT: usize = 107;

/// One host to try, in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Where it is.
    pub address: Address,
    /// The TCP port, or the number in the socket's name.
    pub port: u16,
    /// The password for this host: the one given, or what the password file has for it.
    pub password: Option<Secret>,
}

/// How a host is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// By TCP, perhaps with TLS.
    Tcp {
        /// The name to look up, to show, and to verify in the server's certificate; the text of `hostaddr` when no
        /// name was given.
        host: String,
        /// The address to connect to without looking the name up.
        hostaddr: Option<IpAddr>,
    },
    /// By the unix socket in this directory, never with TLS; a name that starts with `@` is in Linux's abstract
    /// namespace.
    Unix(PathBuf),
}

impl Host {
    /// The path of the unix socket: the directory and `.s.PGSQL.` with the port; `None` for TCP.
    ///
    /// A path that starts with `@` names an abstract socket: a zero byte stands for the `@`.
    pub fn socket_path(&self) -> Option<PathBuf> {
        match &self.address {
            Address::Unix(directory) => Some(directory.join(format!(".s.PGSQL.{}", self.port))),
            Address::Tcp { .. } => None,
        }
    }
}

impl fmt::Display for Host {
    /// As in libpq's messages: `host "h", port 5432`, or `socket "/tmp/.s.PGSQL.5432"`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.address, self.socket_path()) {
            (_, Some(path)) => write!(f, "socket \"{}\"", path.display()),
            (Address::Tcp { host, hostaddr: Some(address) }, _) if *host != address.to_string() => {
                write!(f, "host \"{host}\" ({address}), port {}", self.port)
            }
            (Address::Tcp { host, .. }, _) => write!(f, "host \"{host}\", port {}", self.port),
            (Address::Unix(directory), None) => write!(f, "socket directory \"{}\"", directory.display()),
        }
    }
}

/// The hosts in order, without passwords, with the name under which the password file knows each.
pub(super) fn resolve(parameters: &Parameters, socket_directory: &Path) -> Result<Vec<(Host, String)>> {
    let names = parameters.filled_text(Keyword::Host)?.map(list);
    let addresses = parameters.filled_text(Keyword::Hostaddr)?.map(list);
    let count = addresses.as_ref().or(names.as_ref()).map_or(1, Vec::len);
    if let Some(names) = &names
        && names.len() != count
    {
        return Err(Error::usage(format!(
            "could not match {} host names to {count} hostaddr values",
            names.len()
        )));
    }
    let ports = ports(parameters, count)?;

    let item = |list: &Option<Vec<&str>>, index: usize| -> Option<String> {
        list.as_ref()
            .and_then(|list| list.get(index))
            .filter(|item| !item.is_empty())
            .map(|item| (*item).to_owned())
    };
    let mut hosts = Vec::with_capacity(count);
    for (index, port) in ports.into_iter().enumerate() {
        let (name, hostaddr) = (item(&names, index), item(&addresses, index));
        let (address, known_as) = match (name, hostaddr) {
            (name, Some(text)) => {
                let hostaddr = text
                    .parse()
                    .map_err(|_| Error::usage(format!("could not parse network address \"{text}\"")))?;
                // libpq asks the password file for the name as given, even a directory's
                let host = name.unwrap_or(text);
                (Address::Tcp { host: host.clone(), hostaddr: Some(hostaddr) }, host)
            }
            (Some(name), None) if name.starts_with(['/', '@']) => (Address::Unix(PathBuf::from(&name)), name),
            (Some(name), None) => (Address::Tcp { host: name.clone(), hostaddr: None }, name),
            (None, None) => {
                (Address::Unix(socket_directory.to_owned()), socket_directory.to_string_lossy().into_owned())
            }
        };
        let known_as =
            if Path::new(&known_as) == socket_directory { "localhost".to_owned() } else { known_as };
        let host = Host { address, port, password: None };
        if let Some(path) = host.socket_path()
            && path.as_os_str().len() > SOCKET_PATH_LIMIT
        {
            return Err(Error::usage(format!(
                "Unix-domain socket path \"{}\" is too long (maximum {SOCKET_PATH_LIMIT} bytes)",
                path.display()
            )));
        }
        hosts.push((host, known_as));
    }
    Ok(hosts)
}

/// One port for each host; a single one is everybody's, an empty one is the default.
fn ports(parameters: &Parameters, count: usize) -> Result<Vec<u16>> {
    let Some(ports) = parameters.filled_text(Keyword::Port)?.map(list) else {
        return Ok(vec![DEFAULT_PORT; count]);
    };
    if ports.len() != 1 && ports.len() != count {
        return Err(Error::usage(format!("could not match {} port numbers to {count} hosts", ports.len())));
    }
    let ports: Vec<u16> = ports.into_iter().map(port).collect::<Result<_>>()?;
    Ok(match ports.as_slice() {
        &[port] => vec![port; count],
        _ => ports,
    })
}

fn port(text: &str) -> Result<u16> {
    if text.is_empty() {
        return Ok(DEFAULT_PORT);
    }
    let number = integer(text).ok_or_else(|| {
        Error::usage(format!("invalid integer value \"{text}\" for connection option \"port\""))
    })?;
    match u16::try_from(number) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(Error::usage(format!("invalid port number: \"{text}\""))),
    }
}

fn list(text: &str) -> Vec<&str> {
    text.split(',').collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(given: &[(Keyword, &str)]) -> Result<Vec<String>> {
        let mut parameters = Parameters::new();
        for &(keyword, value) in given {
            parameters.set(keyword, value);
        }
        let hosts = resolve(&parameters, Path::new("/run/pg"))?;
        Ok(hosts.into_iter().map(|(host, known_as)| format!("{host} as {known_as}")).collect())
    }

    #[test]
    fn lists_of_hosts_addresses_and_ports_are_matched() {
        use Keyword::{Host, Hostaddr, Port};
        for (given, expected) in [
            (&[][..], &["socket \"/run/pg/.s.PGSQL.5432\" as localhost"][..]),
            (&[(Host, "")], &["socket \"/run/pg/.s.PGSQL.5432\" as localhost"]),
            (&[(Port, "5433")], &["socket \"/run/pg/.s.PGSQL.5433\" as localhost"]),
            (&[(Host, "/run/pg")], &["socket \"/run/pg/.s.PGSQL.5432\" as localhost"]),
            (&[(Host, "/tmp")], &["socket \"/tmp/.s.PGSQL.5432\" as /tmp"]),
            (&[(Host, "@pg")], &["socket \"@pg/.s.PGSQL.5432\" as @pg"]),
            (&[(Host, "h"), (Port, " 7 ")], &["host \"h\", port 7 as h"]),
            (&[(Host, "a,b"), (Port, "7")], &["host \"a\", port 7 as a", "host \"b\", port 7 as b"]),
            (&[(Host, "a,b"), (Port, "7,")], &["host \"a\", port 7 as a", "host \"b\", port 5432 as b"]),
            (
                &[(Host, "a,"), (Port, "7,8")],
                &["host \"a\", port 7 as a", "socket \"/run/pg/.s.PGSQL.8\" as localhost"],
            ),
            (&[(Hostaddr, "::1")], &["host \"::1\", port 5432 as ::1"]),
            (&[(Host, "h"), (Hostaddr, "10.0.0.1")], &["host \"h\" (10.0.0.1), port 5432 as h"]),
            (
                &[(Host, "a,,b"), (Hostaddr, "10.0.0.1,10.0.0.2,")],
                &[
                    "host \"a\" (10.0.0.1), port 5432 as a",
                    "host \"10.0.0.2\", port 5432 as 10.0.0.2",
                    "host \"b\", port 5432 as b",
                ],
            ),
        ] {
            assert_eq!(resolved(given).unwrap(), expected, "{given:?}");
        }
    }

    #[test]
    fn lists_that_do_not_match_and_ports_that_are_none_are_refused() {
        use Keyword::{Host, Hostaddr, Port};
        let long = format!("/{}", "d".repeat(100));
        for (given, expected) in [
            (&[(Host, "a,b"), (Hostaddr, "::1")][..], "could not match 2 host names to 1 hostaddr values"),
            (&[(Host, "a"), (Hostaddr, "::1,::1")], "could not match 1 host names to 2 hostaddr values"),
            (&[(Host, "a,b,c"), (Port, "1,2")], "could not match 2 port numbers to 3 hosts"),
            (&[(Host, "a"), (Port, "1,2")], "could not match 2 port numbers to 1 hosts"),
            (&[(Hostaddr, "localhost")], "could not parse network address \"localhost\""),
            (&[(Port, "0")], "invalid port number: \"0\""),
            (&[(Port, "65536")], "invalid port number: \"65536\""),
            (&[(Port, "-1")], "invalid port number: \"-1\""),
            (&[(Port, "x")], "invalid integer value \"x\" for connection option \"port\""),
            (&[(Port, " ")], "invalid integer value \" \" for connection option \"port\""),
            (
                &[(Host, &long)],
                &format!("Unix-domain socket path \"{long}/.s.PGSQL.5432\" is too long (maximum 107 bytes)"),
            ),
        ] {
            assert_eq!(resolved(given).unwrap_err().to_string(), expected, "{given:?}");
        }
    }
}
