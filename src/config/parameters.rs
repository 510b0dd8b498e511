//! The connection parameters as they are written: keyword and value, nothing interpreted yet.
//!
//! The table of keywords and environment variables is that of libpq 18 (`PQconninfoOptions` in `fe-connect.c`). Values
//! are bytes, since percent-encoding, password files and the environment may hold any; what must be text is checked
//! when it is read.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::error::{Error, Result};

macro_rules! keywords {
    ($($keyword:ident $name:literal $variable:expr;)*) => {
        /// A connection parameter that libpq 18 knows.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Keyword {
            $($keyword,)*
        }

        impl Keyword {
            /// Every keyword, in the order of their declaration.
            pub(super) const ALL: &'static [Keyword] = &[$(Keyword::$keyword,)*];

            /// The keyword as it is written.
            pub(super) fn name(self) -> &'static str {
                match self {
                    $(Keyword::$keyword => $name,)*
                }
            }

            /// The environment variable that stands in when the keyword is given neither directly nor by a service.
            pub(super) fn variable(self) -> Option<&'static str> {
                match self {
                    $(Keyword::$keyword => $variable,)*
                }
            }
        }
    };
}

keywords! {
    Service "service" Some("PGSERVICE");
    User "user" Some("PGUSER");
    Password "password" Some("PGPASSWORD");
    Passfile "passfile" Some("PGPASSFILE");
    ChannelBinding "channel_binding" Some("PGCHANNELBINDING");
    ConnectTimeout "connect_timeout" Some("PGCONNECT_TIMEOUT");
    Dbname "dbname" Some("PGDATABASE");
    Host "host" Some("PGHOST");
    Hostaddr "hostaddr" Some("PGHOSTADDR");
    Port "port" Some("PGPORT");
    ClientEncoding "client_encoding" Some("PGCLIENTENCODING");
    Options "options" Some("PGOPTIONS");
    ApplicationName "application_name" Some("PGAPPNAME");
    FallbackApplicationName "fallback_application_name" None;
    Keepalives "keepalives" None;
    KeepalivesIdle "keepalives_idle" None;
    KeepalivesInterval "keepalives_interval" None;
    KeepalivesCount "keepalives_count" None;
    TcpUserTimeout "tcp_user_timeout" None;
    Sslmode "sslmode" Some("PGSSLMODE");
    Sslnegotiation "sslnegotiation" Some("PGSSLNEGOTIATION");
    Sslcompression "sslcompression" Some("PGSSLCOMPRESSION");
    Sslcert "sslcert" Some("PGSSLCERT");
    Sslkey "sslkey" Some("PGSSLKEY");
    Sslcertmode "sslcertmode" Some("PGSSLCERTMODE");
    Sslpassword "sslpassword" None;
    Sslrootcert "sslrootcert" Some("PGSSLROOTCERT");
    Sslcrl "sslcrl" Some("PGSSLCRL");
    Sslcrldir "sslcrldir" Some("PGSSLCRLDIR");
    Sslsni "sslsni" Some("PGSSLSNI");
    Requirepeer "requirepeer" Some("PGREQUIREPEER");
    RequireAuth "require_auth" Some("PGREQUIREAUTH");
    MinProtocolVersion "min_protocol_version" Some("PGMINPROTOCOLVERSION");
    MaxProtocolVersion "max_protocol_version" Some("PGMAXPROTOCOLVERSION");
    SslMinProtocolVersion "ssl_min_protocol_version" Some("PGSSLMINPROTOCOLVERSION");
    SslMaxProtocolVersion "ssl_max_protocol_version" Some("PGSSLMAXPROTOCOLVERSION");
    Gssencmode "gssencmode" Some("PGGSSENCMODE");
    Krbsrvname "krbsrvname" Some("PGKRBSRVNAME");
    Gsslib "gsslib" Some("PGGSSLIB");
    Gssdelegation "gssdelegation" Some("PGGSSDELEGATION");
    Replication "replication" None;
    TargetSessionAttrs "target_session_attrs" Some("PGTARGETSESSIONATTRS");
    LoadBalanceHosts "load_balance_hosts" Some("PGLOADBALANCEHOSTS");
    ScramClientKey "scram_client_key" None;
    ScramServerKey "scram_server_key" None;
    OauthIssuer "oauth_issuer" None;
    OauthClientId "oauth_client_id" None;
    OauthClientSecret "oauth_client_secret" None;
    OauthScope "oauth_scope" None;
    Sslkeylogfile "sslkeylogfile" None;
}

impl Keyword {
    /// The keyword of exactly this spelling.
    pub(super) fn find(name: &[u8]) -> Option<Keyword> {
        Keyword::ALL.iter().copied().find(|keyword| keyword.name().as_bytes() == name)
    }

    /// Whether the value must never be shown.
    pub(super) fn is_secret(self) -> bool {
        matches!(
            self,
            Keyword::Password
                | Keyword::Sslpassword
                | Keyword::ScramClientKey
                | Keyword::ScramServerKey
                | Keyword::OauthClientSecret
        )
    }
}

/// Keywords and their values, from one source or merged from several.
#[derive(Clone, PartialEq, Eq)]
pub struct Parameters {
    values: Vec<Option<Vec<u8>>>,
}

impl fmt::Debug for Parameters {
    /// Names what is set, without values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.keywords().map(Keyword::name)).finish()
    }
}

impl Parameters {
    /// No parameter set.
    pub(super) fn new() -> Parameters {
        Parameters { values: vec![None; Keyword::ALL.len()] }
    }

    /// Sets a parameter, over a value given before.
    pub(super) fn set(&mut self, keyword: Keyword, value: impl Into<Vec<u8>>) {
        self.values[keyword as usize] = Some(value.into());
    }

    /// Sets a parameter that has no value yet.
    pub(super) fn set_default(&mut self, keyword: Keyword, value: impl Into<Vec<u8>>) {
        self.values[keyword as usize].get_or_insert_with(|| value.into());
    }

    /// Sets a parameter by name; false when there is none of this name.
    ///
    /// `requiressl`, gone from the manual since version 8, is still read as libpq does.
    pub(super) fn set_by_name(&mut self, name: &[u8], value: Vec<u8>) -> bool {
        if name == b"requiressl" {
            self.set(Keyword::Sslmode, if value.first() == Some(&b'1') { "require" } else { "prefer" });
            return true;
        }
        match Keyword::find(name) {
            Some(keyword) => self.set(keyword, value),
            None => return false,
        }
        true
    }

    /// Whether a password is among them, which other users of the machine could read in the list of processes.
    pub fn hold_a_secret(&self) -> bool {
        Keyword::ALL.iter().any(|&keyword| keyword.is_secret() && self.filled(keyword).is_some())
    }

    /// The keywords that have a value, be it empty.
    pub(super) fn keywords(&self) -> impl Iterator<Item = Keyword> + '_ {
        Keyword::ALL.iter().copied().filter(|&keyword| self.bytes(keyword).is_some())
    }

    /// The value, if the parameter is set.
    pub(super) fn bytes(&self, keyword: Keyword) -> Option<&[u8]> {
        self.values[keyword as usize].as_deref()
    }

    /// The value, if the parameter is set and not empty.
    pub(super) fn filled(&self, keyword: Keyword) -> Option<&[u8]> {
        self.bytes(keyword).filter(|value| !value.is_empty())
    }

    /// The value as text, if the parameter is set and not empty.
    pub(super) fn filled_text(&self, keyword: Keyword) -> Result<Option<&str>> {
        self.filled(keyword).map(|value| text(keyword, value)).transpose()
    }

    /// The value as a file's path, if the parameter is set and not empty.
    pub(super) fn path(&self, keyword: Keyword) -> Option<PathBuf> {
        self.filled(keyword).map(|value| PathBuf::from(OsString::from_vec(value.to_vec())))
    }

    /// The value as an integer, spaces around it allowed; an empty value is an error, as in libpq.
    pub(super) fn integer(&self, keyword: Keyword) -> Result<Option<i32>> {
        let Some(value) = self.bytes(keyword) else { return Ok(None) };
        let value = text(keyword, value)?;
        integer(value).map(Some).ok_or_else(|| {
            Error::usage(format!(
                "invalid integer value \"{value}\" for connection option \"{}\"",
                keyword.name()
            ))
        })
    }

    /// The choice that the value names, or `default` when the parameter is not set.
    pub(super) fn choice<T: Copy>(&self, keyword: Keyword, default: T, choices: &[(&str, T)]) -> Result<T> {
        let Some(value) = self.bytes(keyword) else { return Ok(default) };
        match choices.iter().find(|(name, _)| name.as_bytes() == value) {
            Some(&(_, choice)) => Ok(choice),
            None => Err(invalid_value(keyword, text(keyword, value)?, choices.iter().map(|(name, _)| *name))),
        }
    }
}

/// `invalid KEY value: "VALUE"`, with the values that are valid as a hint.
pub(super) fn invalid_value<'a>(
    keyword: Keyword,
    value: &str,
    choices: impl IntoIterator<Item = &'a str>,
) -> Error {
    let choices: Vec<String> = choices.into_iter().map(|choice| format!("\"{choice}\"")).collect();
    Error::usage(format!("invalid {} value: \"{value}\"", keyword.name()))
        .with_hint(format!("Use one of {}.", choices.join(", ")))
}

/// What C's `isspace` takes as a space.
pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r')
}

/// An integer as libpq's `pqParseIntParam` reads it.
pub(super) fn integer(value: &str) -> Option<i32> {
    value.trim_matches(|c: char| c.is_ascii() && is_space(c as u8)).parse().ok()
}

fn text(keyword: Keyword, value: &[u8]) -> Result<&str> {
    std::str::from_utf8(value)
        .map_err(|_| Error::usage(format!("invalid {} value: not valid UTF-8", keyword.name())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_integer_may_have_spaces_around_it_and_nothing_else() {
        for (text, expected) in [
            ("5432", Some(5432)),
            (" \t5432\n ", Some(5432)),
            ("+7", Some(7)),
            ("-1", Some(-1)),
            ("", None),
            (" ", None),
            ("5 432", None),
            ("5432x", None),
            ("2147483648", None),
        ] {
            assert_eq!(integer(text), expected, "{text:?}");
        }
    }

    #[test]
    fn debug_output_names_parameters_without_values() {
        let mut parameters = Parameters::new();
        parameters.set(Keyword::Password, "hunter2");
        parameters.set(Keyword::User, "jan");
        assert_eq!(format!("{parameters:?}"), r#"{"user", "password"}"#);
    }
}
