//! Connection strings and all that completes them, resolved once into one value.
//!
//! In: the text of `--source` or `--target` (a URI, `key = value` pairs, or a database's name) and an [`Environment`].
//! Out: a [`Config`], in which nothing is left to look up: libpq 18's rules decide, in libpq's order of precedence: the
//! string, then the service file, then the environment, then defaults. Fails on what libpq refuses, and on the few
//! parameters that pgstream cannot honour; errors quote the key and the value, but never the string, which may hold a
//! password.
//!
//! Where this differs from libpq, on purpose:
//! - `client_encoding`, `PGDATESTYLE`, `PGTZ` and `PGGEQO` are accepted and not used: pgstream sets what makes its
//!   session's text exact.
//! - A URI whose host holds an `@`, or whose port is no number while an `@` follows, is refused at once: its password was
//!   not percent-encoded, and a piece of it would be shown as the host or the port.
//! - Where a client certificate's key can't be used, `sslmode=prefer` goes on without the certificate, not without TLS;
//!   encrypted keys are not supported, so `sslpassword` has no effect.
//! - Numbers are checked here, not when a socket of the kind that they concern is made.
//! - `gssencmode=require`, `replication`, `sslkeylogfile` and an LDAP service are refused; what only concerns Kerberos,
//!   OAuth, SCRAM keys in place of a password, or TLS compression is accepted and has no effect.

mod auth;
mod conninfo;
mod environment;
mod host;
mod parameters;
mod passfile;
mod secret;
mod service;
mod tls;
mod uri;

use std::fmt::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, Result};

pub use auth::RequiredPeer;
pub use environment::Environment;
pub use host::{Address, Host};
pub use parameters::Parameters;
pub use pgstream_proto::auth::{ChannelBinding, RequireAuth};
pub use secret::Secret;
pub use tls::{RootCert, SslMode, SslNegotiation, Tls, TlsVersion, Verification};

use host::DEFAULT_PORT;
use parameters::{Keyword, integer};
use passfile::Passfile;

/// Which of the two servers is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// The server that is copied from.
    Source,
    /// The server that is copied to.
    Target,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Source => "source",
            Side::Target => "target",
        })
    }
}

/// Resolved connection parameters.
#[derive(Debug, Clone)]
pub struct Config {
    /// The hosts to try, in this order; never empty.
    pub hosts: Vec<Host>,
    /// The role to log in as.
    pub user: String,
    /// The database.
    pub dbname: String,
    /// Command-line options for the server (`-c name=value`).
    pub options: Option<String>,
    /// The application's name, if the operator chose one, be it empty.
    pub application_name: Option<String>,
    /// How long one address may take to answer, login and all; `None` is for ever, as 0 asks for. libpq's minimum of 2 s is gone since version 17.
    pub connect_timeout: Option<Duration>,
    /// TCP keepalives.
    pub keepalives: Keepalives,
    /// How long sent data may stay unacknowledged before the connection is dropped.
    pub tcp_user_timeout: Option<Duration>,
    /// TLS, for hosts reached by TCP.
    pub tls: Tls,
    /// Whether SCRAM must be bound to the TLS session.
    pub channel_binding: ChannelBinding,
    /// The login methods that the server may use; `None` is all.
    pub require_auth: Option<RequireAuth>,
    /// The operating system's user that a server behind a unix socket must run as.
    pub required_peer: Option<RequiredPeer>,
    /// Which of the servers will do.
    pub target_session_attrs: TargetSessionAttrs,
    /// The primary of this standby, where one is named: what is written goes there.
    pub primary: Option<Box<Config>>,
    /// Whether hosts and their addresses are tried in random order.
    pub load_balance_hosts: bool,
    /// The versions of the protocol to accept, oldest and newest.
    pub protocol_versions: (ProtocolVersion, ProtocolVersion),
    /// What the operator should know, one line each, such as a password file that is not used.
    pub warnings: Vec<String>,
    passfile: Option<Passfile>,
    known_as: Vec<String>,
}

/// TCP keepalives; `None` is what the connection string leaves to the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keepalives {
    /// Whether they are sent.
    pub enabled: bool,
    /// The silence before the first one.
    pub idle: Option<Duration>,
    /// The time between two.
    pub interval: Option<Duration>,
    /// How many may be lost.
    pub count: Option<u32>,
}

/// Which servers of the list will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetSessionAttrs {
    /// Any.
    Any,
    /// One whose sessions may write: not in hot standby, and not `default_transaction_read_only`.
    ReadWrite,
    /// One whose sessions may not write.
    ReadOnly,
    /// One that is not in hot standby.
    Primary,
    /// One in hot standby.
    Standby,
    /// One in hot standby, or any if there is none.
    PreferStandby,
}

/// A version of the frontend/backend protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProtocolVersion {
    /// 3.0, which every server speaks.
    V3_0,
    /// 3.2, of servers of version 18 and newer, with long cancel keys.
    V3_2,
}

/// Resolves a connection string for one side.
///
/// # Errors
/// A usage error that starts with the side: syntax, unknown keywords, values that are invalid or cannot be honoured,
/// and service, key or root certificate files that cannot be used.
pub fn resolve(text: &str, side: Side, environment: &Environment) -> Result<Config> {
    parse(text)
        .and_then(|mut parameters| {
            complete(&mut parameters, environment)?;
            Config::new(&parameters, environment)
        })
        .map_err(|error| error.context(side))
}

/// Parses a connection string without completing it: a URI, `key = value` pairs, or the name of a database.
///
/// # Errors
/// A usage error: syntax and unknown keywords.
pub fn parse(text: &str) -> Result<Parameters> {
    if text.contains('\0') {
        return Err(Error::usage("connection string holds a zero byte"));
    }
    if let Some(rest) = uri::strip_scheme(text) {
        return uri::parse(rest);
    }
    // any other URI may hold a password, which must not be taken for a keyword or a database and then be shown
    if let Some((scheme, _)) = text.split_once("://")
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.:".contains(&byte))
    {
        return Err(Error::usage(format!("invalid scheme of connection URI: \"{scheme}\""))
            .with_hint("Start the URI with postgresql:// or postgres://."));
    }
    if text.contains('=') || text.trim().is_empty() {
        return conninfo::parse(text);
    }
    let mut parameters = Parameters::new();
    parameters.set(Keyword::Dbname, text);
    Ok(parameters)
}

/// Adds what the service file and the environment say and the string doesn't.
fn complete(parameters: &mut Parameters, environment: &Environment) -> Result<()> {
    service::apply(parameters, environment)?;
    for &keyword in Keyword::ALL {
        if let Some(value) = keyword.variable().and_then(|name| environment.variable(name)) {
            parameters.set_default(keyword, value);
        }
    }
    if environment.variable("PGREQUIRESSL").is_some_and(|value| value.starts_with(b"1")) {
        parameters.set_default(Keyword::Sslmode, "require");
    }
    Ok(())
}

impl Config {
    /// Checks and interprets complete parameters.
    fn new(parameters: &Parameters, environment: &Environment) -> Result<Config> {
        refuse_unsupported(parameters)?;
        let mut warnings = Vec::new();
        let (hosts, known_as): (Vec<Host>, Vec<String>) =
            host::resolve(parameters, environment.socket_directory())?.into_iter().unzip();
        let tcp = hosts.iter().any(|host| matches!(host.address, Address::Tcp { .. }));
        let unix = hosts.iter().any(|host| matches!(host.address, Address::Unix(_)));
        let user = match parameters.filled_text(Keyword::User)? {
            Some(user) => user.to_owned(),
            None => environment.user().map(str::to_owned).ok_or_else(|| {
                Error::usage("could not find the name of the current user")
                    .with_hint("Give the user in the connection string or in PGUSER.")
            })?,
        };
        let dbname = parameters.filled_text(Keyword::Dbname)?.map_or_else(|| user.clone(), str::to_owned);
        let tls = tls::resolve(parameters, environment, tcp, &mut warnings)?;
        if tls.verification == Verification::ChainAndHost && parameters.filled(Keyword::Host).is_none() {
            return Err(Error::usage("host name must be specified for a verified SSL connection"));
        }
        // an empty name is a name: none is shown, not the fallback
        let application_name = match parameters.bytes(Keyword::ApplicationName) {
            Some(_) => Some(parameters.filled_text(Keyword::ApplicationName)?.unwrap_or_default()),
            None => parameters.filled_text(Keyword::FallbackApplicationName)?,
        };
        let mut config = Config {
            hosts,
            user,
            dbname,
            options: parameters.filled_text(Keyword::Options)?.map(str::to_owned),
            application_name: application_name.map(str::to_owned),
            connect_timeout: connect_timeout(parameters)?,
            keepalives: keepalives(parameters)?,
            tcp_user_timeout: positive(parameters, Keyword::TcpUserTimeout)?
                .map(|milliseconds| Duration::from_millis(milliseconds.into())),
            tls,
            channel_binding: auth::channel_binding(parameters)?,
            require_auth: auth::require_auth(parameters)?,
            required_peer: if unix { auth::required_peer(parameters, environment)? } else { None },
            target_session_attrs: target_session_attrs(parameters)?,
            primary: None,
            load_balance_hosts: parameters.choice(
                Keyword::LoadBalanceHosts,
                false,
                &[("disable", false), ("random", true)],
            )?,
            protocol_versions: protocol_versions(parameters)?,
            warnings,
            passfile: None,
            known_as,
        };
        match parameters.filled(Keyword::Password) {
            Some(password) => Ok(config.with_password(Secret::new(password))),
            None => {
                let path = parameters.path(Keyword::Passfile).or_else(|| environment.home_file(".pgpass"));
                config.passfile = path.and_then(|path| Passfile::read(&path, &mut config.warnings));
                config.look_up_passwords();
                Ok(config)
            }
        }
    }

    /// Asks the password file, if it is used, for the password of each host.
    fn look_up_passwords(&mut self) {
        let Some(passfile) = &self.passfile else { return };
        for (host, known_as) in self.hosts.iter_mut().zip(&self.known_as) {
            host.password = passfile.password(known_as, &host.port.to_string(), &self.dbname, &self.user);
        }
    }

    /// The same with a password for every host, in place of any other.
    #[must_use]
    pub fn with_password(mut self, password: Secret) -> Config {
        self.passfile = None;
        for host in &mut self.hosts {
            host.password = Some(password.clone());
        }
        self
    }

    /// The same for another database, for which the password file may hold another password.
    #[must_use]
    pub fn with_dbname(&self, dbname: &str) -> Config {
        let primary = self.primary.as_ref().map(|primary| Box::new(primary.with_dbname(dbname)));
        let mut config = Config { dbname: dbname.to_owned(), primary, ..self.clone() };
        config.look_up_passwords();
        config
    }

    /// The same with the primary that this standby has.
    #[must_use]
    pub fn with_primary(self, primary: &Config) -> Config {
        Config { primary: Some(Box::new(primary.with_dbname(&self.dbname))), ..self }
    }

    /// The file that a password came from, for the message about a login that failed.
    pub fn passfile(&self) -> Option<&Path> {
        self.passfile
            .as_ref()
            .filter(|_| self.hosts.iter().any(|host| host.password.is_some()))
            .map(Passfile::path)
    }

    /// Where this connects to, as a URI without the password.
    pub fn redacted(&self) -> String {
        let mut uri = format!("postgresql://{}@", encode(&self.user));
        for (index, host) in self.hosts.iter().enumerate() {
            if index > 0 {
                uri.push(',');
            }
            match &host.address {
                Address::Unix(directory) => uri.push_str(&encode(&directory.to_string_lossy())),
                Address::Tcp { host, .. } if host.contains(':') => {
                    uri.push('[');
                    uri.push_str(host);
                    uri.push(']');
                }
                Address::Tcp { host, .. } => uri.push_str(&encode(host)),
            }
            if host.port != DEFAULT_PORT {
                uri.push(':');
                uri.push_str(&host.port.to_string());
            }
        }
        uri.push('/');
        uri.push_str(&encode(&self.dbname));
        uri
    }
}

/// Percent-encodes all but RFC 3986's unreserved characters.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}"); // a String takes all that is written
        }
    }
    encoded
}

/// Refuses what would be given up in silence otherwise.
fn refuse_unsupported(parameters: &Parameters) -> Result<()> {
    let gss = parameters.choice(
        Keyword::Gssencmode,
        false,
        &[("disable", false), ("prefer", false), ("require", true)],
    )?;
    if gss {
        return Err(Error::usage("gssencmode value \"require\" is not supported")
            .with_detail("pgstream does not speak GSSAPI.")
            .with_hint("Encrypt the connection with sslmode, such as sslmode=verify-full."));
    }
    if parameters.filled(Keyword::Replication).is_some() {
        return Err(Error::usage("connection option \"replication\" is not supported")
            .with_detail("pgstream opens replication connections by itself where it needs them."));
    }
    Ok(())
}

fn keepalives(parameters: &Parameters) -> Result<Keepalives> {
    let enabled = match parameters.filled_text(Keyword::Keepalives)? {
        Some(text) => {
            integer(text).ok_or_else(|| {
                Error::usage(format!("invalid integer value \"{text}\" for connection option \"keepalives\""))
            })? != 0
        }
        // libpq's strtol reads an empty value as 0
        None => parameters.bytes(Keyword::Keepalives).is_none(),
    };
    Ok(Keepalives {
        enabled,
        idle: seconds(parameters, Keyword::KeepalivesIdle)?,
        interval: seconds(parameters, Keyword::KeepalivesInterval)?,
        count: positive(parameters, Keyword::KeepalivesCount)?,
    })
}

/// A number of seconds; zero and less are the same as none.
/// Where the connection string doesn't say: a peer that takes the connection and then says nothing is noticed so.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

fn connect_timeout(parameters: &Parameters) -> Result<Option<Duration>> {
    match parameters.integer(Keyword::ConnectTimeout)? {
        None => Ok(Some(CONNECT_TIMEOUT)),
        Some(_) => seconds(parameters, Keyword::ConnectTimeout),
    }
}

fn seconds(parameters: &Parameters, keyword: Keyword) -> Result<Option<Duration>> {
    Ok(positive(parameters, keyword)?.map(|seconds| Duration::from_secs(seconds.into())))
}

fn positive(parameters: &Parameters, keyword: Keyword) -> Result<Option<u32>> {
    let value = parameters.integer(keyword)?;
    Ok(value.and_then(|value| u32::try_from(value).ok()).filter(|&value| value > 0))
}

fn target_session_attrs(parameters: &Parameters) -> Result<TargetSessionAttrs> {
    parameters.choice(
        Keyword::TargetSessionAttrs,
        TargetSessionAttrs::Any,
        &[
            ("any", TargetSessionAttrs::Any),
            ("read-write", TargetSessionAttrs::ReadWrite),
            ("read-only", TargetSessionAttrs::ReadOnly),
            ("primary", TargetSessionAttrs::Primary),
            ("standby", TargetSessionAttrs::Standby),
            ("prefer-standby", TargetSessionAttrs::PreferStandby),
        ],
    )
}

/// `min_protocol_version` and `max_protocol_version`; 3.1 was never used and is refused, as by libpq.
fn protocol_versions(parameters: &Parameters) -> Result<(ProtocolVersion, ProtocolVersion)> {
    const VERSIONS: [(&str, ProtocolVersion); 3] =
        [("3.0", ProtocolVersion::V3_0), ("3.2", ProtocolVersion::V3_2), ("latest", ProtocolVersion::V3_2)];
    let min = parameters.choice(Keyword::MinProtocolVersion, ProtocolVersion::V3_0, &VERSIONS)?;
    let max = parameters.choice(Keyword::MaxProtocolVersion, min, &VERSIONS)?;
    if min > max {
        return Err(Error::usage("min_protocol_version is greater than max_protocol_version"));
    }
    Ok((min, max))
}

#[cfg(test)]
mod tests;
