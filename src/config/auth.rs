//! What the operator demands of the login: `require_auth`, `channel_binding` and `requirepeer`.

use std::collections::BTreeSet;

use crate::error::{Error, Result};

use super::environment::Environment;
use super::parameters::{Keyword, Parameters, invalid_value};

/// A way for the server to ask who we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AuthMethod {
    /// The password as it is.
    Password,
    /// A salted MD5 of the password.
    Md5,
    /// GSSAPI, which pgstream doesn't speak.
    Gss,
    /// SSPI, which pgstream doesn't speak.
    Sspi,
    /// SCRAM-SHA-256, with or without channel binding.
    ScramSha256,
    /// An OAuth token, which pgstream doesn't speak.
    Oauth,
    /// No request at all, as with `trust` and `cert`.
    None,
}

const METHODS: [(&str, AuthMethod); 7] = [
    ("password", AuthMethod::Password),
    ("md5", AuthMethod::Md5),
    ("gss", AuthMethod::Gss),
    ("sspi", AuthMethod::Sspi),
    ("scram-sha-256", AuthMethod::ScramSha256),
    ("oauth", AuthMethod::Oauth),
    ("none", AuthMethod::None),
];

/// The login methods that the server may use, from `require_auth`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequireAuth {
    text: String,
    allowed: BTreeSet<AuthMethod>,
}

impl RequireAuth {
    /// Whether the server may log us in this way.
    pub fn allows(&self, method: AuthMethod) -> bool {
        self.allowed.contains(&method)
    }

    /// The list as the operator wrote it.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

/// Reads `require_auth`: a list of methods, or a list of methods that are not allowed, each with `!`.
pub(super) fn require_auth(parameters: &Parameters) -> Result<Option<RequireAuth>> {
    let Some(text) = parameters.filled_text(Keyword::RequireAuth)? else { return Ok(None) };
    let negated = text.starts_with('!');
    let mut named = BTreeSet::new();
    for item in text.split(',') {
        let name = match item.strip_prefix('!') {
            Some(name) if negated => name,
            None if !negated => item,
            Some(_) => {
                return Err(Error::usage(format!(
                    "negative require_auth method \"{item}\" cannot be mixed with non-negative methods"
                )));
            }
            None => {
                return Err(Error::usage(format!(
                    "require_auth method \"{item}\" cannot be mixed with negative methods"
                )));
            }
        };
        let Some(&(_, method)) = METHODS.iter().find(|(known, _)| *known == name) else {
            return Err(invalid_value(Keyword::RequireAuth, name, METHODS.iter().map(|(known, _)| *known)));
        };
        if !named.insert(method) {
            return Err(Error::usage(format!("require_auth method \"{item}\" is specified more than once")));
        }
    }
    let allowed = METHODS
        .iter()
        .map(|(_, method)| *method)
        .filter(|method| named.contains(method) != negated)
        .collect();
    Ok(Some(RequireAuth { text: text.to_owned(), allowed }))
}

/// Whether SCRAM must be bound to the TLS session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// When the server offers it.
    Prefer,
    /// Always; any other login fails.
    Require,
}

/// Reads `channel_binding`.
pub(super) fn channel_binding(parameters: &Parameters) -> Result<ChannelBinding> {
    parameters.choice(
        Keyword::ChannelBinding,
        ChannelBinding::Prefer,
        &[
            ("disable", ChannelBinding::Disable),
            ("prefer", ChannelBinding::Prefer),
            ("require", ChannelBinding::Require),
        ],
    )
}

/// The operating system's user that the server behind a unix socket must run as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequiredPeer {
    /// The name, as the operator wrote it.
    pub user: String,
    /// The uid to compare with the socket's peer credentials.
    pub uid: u32,
}

/// Reads `requirepeer`, which matters only for unix sockets.
pub(super) fn required_peer(
    parameters: &Parameters,
    environment: &Environment,
) -> Result<Option<RequiredPeer>> {
    let Some(user) = parameters.filled_text(Keyword::Requirepeer)? else { return Ok(None) };
    match environment.uid_of(user) {
        Some(uid) => Ok(Some(RequiredPeer { user: user.to_owned(), uid })),
        None => Err(Error::usage(format!("invalid requirepeer value: \"{user}\""))
            .with_detail("There is no user of this name in /etc/passwd.")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Option<RequireAuth>> {
        let mut parameters = Parameters::new();
        parameters.set(Keyword::RequireAuth, text);
        require_auth(&parameters)
    }

    #[test]
    fn require_auth_is_a_list_of_what_is_allowed_or_of_what_is_not() {
        use AuthMethod::{Gss, Md5, None, Oauth, Password, ScramSha256, Sspi};
        for (text, allowed) in [
            ("scram-sha-256", &[ScramSha256][..]),
            ("md5,scram-sha-256", &[Md5, ScramSha256]),
            ("none", &[None]),
            ("none,password", &[Password, None]),
            ("!password", &[Md5, Gss, Sspi, ScramSha256, Oauth, None]),
            ("!password,!md5,!none", &[Gss, Sspi, ScramSha256, Oauth]),
        ] {
            let required = parse(text).unwrap().unwrap();
            assert!(required.allowed.iter().eq(allowed), "{text}: {:?}", required.allowed);
        }
        assert_eq!(parse("").unwrap(), Option::None);
    }

    #[test]
    fn a_typo_in_require_auth_is_refused() {
        for (text, message) in [
            ("scram", "invalid require_auth value: \"scram\""),
            ("md5,", "invalid require_auth value: \"\""),
            (" md5", "invalid require_auth value: \" md5\""),
            ("md5,md5", "require_auth method \"md5\" is specified more than once"),
            ("!none,!none", "require_auth method \"!none\" is specified more than once"),
            ("!md5,password", "require_auth method \"password\" cannot be mixed with negative methods"),
            (
                "md5,!password",
                "negative require_auth method \"!password\" cannot be mixed with non-negative methods",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), message);
        }
    }
}
