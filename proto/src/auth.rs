//! Login as a state machine: trust, cleartext, md5, SCRAM-SHA-256 and SCRAM-SHA-256-PLUS.
//!
//! In: the server's [`AuthenticationRequest`]s, in order. Out: the answers, appended to a buffer. Fails when the server
//! asks for a method that isn't supported or allowed, when a password is missing, when a request comes out of turn, and when the server
//! ends a SCRAM exchange without proving that it knows the password. Nothing that depends on the password is sent before
//! the method was checked against `channel_binding` and `require_auth`.
//!
//! ```text
//!          AuthenticationOk (trust, peer, client certificate)
//! Start ────────────────────────────────────────────────────────────────────────────► Done
//!   ├─ CleartextPassword, Md5Password ─► PasswordSent ─ AuthenticationOk ─────────────►┤
//!   └─ Sasl ─► ClientFirst ─ SaslContinue ─► ClientFinal ─ SaslFinal ─► Verified ─ Ok ─►┘
//! ```
//!
//! Protocol: the manual's "Start-up" and "SASL Authentication"; RFC 5802, 7677 and 5929 (`tls-server-end-point`).

use std::fmt;
use std::str::FromStr;

use bytes::BytesMut;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{self, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256};

use crate::backend::AuthenticationRequest;
use crate::frontend::{self, EncodeError};

/// Whether a SCRAM exchange is to be bound to the TLS session it runs in (libpq's `channel_binding`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// When both sides can.
    #[default]
    Prefer,
    /// Always: any other way to log in is refused.
    Require,
}

/// A way to log in, with libpq's name in `require_auth`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Cleartext password.
    Password,
    /// Password hashed with md5.
    Md5,
    /// GSSAPI.
    Gss,
    /// SSPI.
    Sspi,
    /// SCRAM-SHA-256, with or without channel binding.
    ScramSha256,
    /// OAuth.
    OAuth,
    /// The server asks for nothing.
    None,
}

impl Method {
    const ALL: [Method; 7] = [
        Method::Password,
        Method::Md5,
        Method::Gss,
        Method::Sspi,
        Method::ScramSha256,
        Method::OAuth,
        Method::None,
    ];

    /// libpq's name.
    pub fn name(self) -> &'static str {
        match self {
            Method::Password => "password",
            Method::Md5 => "md5",
            Method::Gss => "gss",
            Method::Sspi => "sspi",
            Method::ScramSha256 => "scram-sha-256",
            Method::OAuth => "oauth",
            Method::None => "none",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The methods that a `require_auth` allows: a list of names, or of names with `!` in front that are all but allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequireAuth(u8);

impl RequireAuth {
    /// Whether the list allows `method`.
    pub fn allows(self, method: Method) -> bool {
        self.0 & method.bit() != 0
    }
}

/// A `require_auth` that libpq refuses too; `Display` gives libpq's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseRequireAuthError(String);

impl fmt::Display for ParseRequireAuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ParseRequireAuthError {}

impl FromStr for RequireAuth {
    type Err = ParseRequireAuthError;

    fn from_str(text: &str) -> Result<RequireAuth, ParseRequireAuthError> {
        let negative = text.starts_with('!');
        let mut named = 0;
        for item in text.split(',') {
            let (negated, name) = match item.strip_prefix('!') {
                Some(name) => (true, name),
                None => (false, item),
            };
            if negated != negative {
                let kinds = if negated { ("negative", "non-negative") } else { ("", "negative") };
                let what = format!(
                    "{} require_auth method \"{item}\" cannot be mixed with {} methods",
                    kinds.0, kinds.1
                );
                return Err(ParseRequireAuthError(what.trim_start().to_owned()));
            }
            let Some(method) = Method::ALL.into_iter().find(|method| method.name() == name) else {
                return Err(ParseRequireAuthError(format!("invalid require_auth value: \"{item}\"")));
            };
            if named & method.bit() != 0 {
                let what = format!("require_auth method \"{item}\" is specified more than once");
                return Err(ParseRequireAuthError(what));
            }
            named |= method.bit();
        }
        Ok(RequireAuth(if negative { !named } else { named }))
    }
}

/// Iterations of SCRAM that a server may ask for: what it says drives a loop here, before it has proved who it is.
pub const MAX_ITERATIONS: u64 = 100_000;

/// Why a login can't go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthError {
    /// The server asks for a method that this client doesn't have.
    Unsupported(String),
    /// The server asks for a password and there is none.
    NoPassword,
    /// The method isn't one that `require_auth` allows.
    NotAllowed(Method),
    /// `channel_binding=require`, and the reason why it can't be met.
    ChannelBinding(&'static str),
    /// The SCRAM exchange failed, or the server didn't prove that it knows the password.
    Scram(String),
    /// SCRAM with so many iterations, more than [`MAX_ITERATIONS`].
    Iterations(u64),
    /// A request out of turn.
    Unexpected {
        /// The request.
        got: &'static str,
        /// What may come instead.
        expected: &'static str,
    },
    /// The answer can't be sent.
    Encode(EncodeError),
}

impl fmt::Display for AuthError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AuthError::Unsupported(method) => {
                write!(f, "server asks for {method} authentication, which is not supported")
            }
            AuthError::NoPassword => f.write_str("server asks for a password, but none was supplied"),
            AuthError::NotAllowed(Method::None) => {
                f.write_str("server did not ask for authentication, which require_auth does not allow")
            }
            AuthError::NotAllowed(method) => {
                write!(
                    f,
                    "server asks for {} authentication, which require_auth does not allow",
                    method.name()
                )
            }
            AuthError::ChannelBinding(reason) => write!(f, "channel binding is required, but {reason}"),
            AuthError::Scram(reason) => write!(f, "SCRAM authentication failed: {reason}"),
            AuthError::Iterations(count) => {
                write!(f, "server asks for SCRAM with {count} iterations, and {MAX_ITERATIONS} are the most")
            }
            AuthError::Unexpected { got, expected } => {
                write!(f, "protocol violation during authentication: got {got}, expected {expected}")
            }
            AuthError::Encode(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for AuthError {}

impl From<EncodeError> for AuthError {
    fn from(error: EncodeError) -> AuthError {
        AuthError::Encode(error)
    }
}

/// A login in progress.
pub struct Login {
    user: String,
    password: Option<Vec<u8>>,
    channel_binding: ChannelBinding,
    tls_server_end_point: Option<Vec<u8>>,
    require_auth: Option<RequireAuth>,
    state: State,
}

enum State {
    Start,
    PasswordSent,
    ClientFirst { scram: Box<ScramSha256>, bound: bool },
    ClientFinal { scram: Box<ScramSha256>, bound: bool },
    Verified { bound: bool },
    Done,
    Failed,
}

impl State {
    fn expected(&self) -> &'static str {
        match self {
            State::Start => "an authentication request",
            State::PasswordSent | State::Verified { .. } => "AuthenticationOk",
            State::ClientFirst { .. } => "AuthenticationSASLContinue",
            State::ClientFinal { .. } => "AuthenticationSASLFinal",
            State::Done => "no more authentication requests",
            State::Failed => "nothing, as the login has failed",
        }
    }
}

impl fmt::Debug for Login {
    /// Shows no secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("user", &self.user)
            .field("expected", &self.state.expected())
            .finish_non_exhaustive()
    }
}

impl Login {
    /// Starts a login. An empty password counts as none, as in libpq. `tls_server_end_point` is the hash of the server's
    /// certificate (RFC 5929), when the connection is encrypted and the certificate's signature algorithm has one.
    pub fn new(
        user: &str,
        password: Option<&[u8]>,
        channel_binding: ChannelBinding,
        tls_server_end_point: Option<Vec<u8>>,
    ) -> Login {
        Login {
            user: user.to_owned(),
            password: password.filter(|password| !password.is_empty()).map(<[u8]>::to_vec),
            channel_binding,
            tls_server_end_point,
            require_auth: None,
            state: State::Start,
        }
    }

    /// Allows only the methods of `require_auth`.
    #[must_use]
    pub fn with_require_auth(mut self, require_auth: Option<RequireAuth>) -> Login {
        self.require_auth = require_auth;
        self
    }

    /// Takes the server's next request and appends the answer, if it needs one, to `out`. After an error the login can't go on.
    pub fn on(&mut self, request: AuthenticationRequest, out: &mut BytesMut) -> Result<(), AuthError> {
        let state = std::mem::replace(&mut self.state, State::Failed);
        self.state = match (state, request) {
            (State::Start, AuthenticationRequest::Ok) => {
                self.allow(Method::None)?;
                if self.channel_binding == ChannelBinding::Require {
                    return Err(AuthError::ChannelBinding("server authenticated the client without it"));
                }
                State::Done
            }
            (State::Start, AuthenticationRequest::CleartextPassword) => {
                self.allow_unbound(Method::Password)?;
                frontend::password(self.password()?, out)?;
                State::PasswordSent
            }
            (State::Start, AuthenticationRequest::Md5Password { salt }) => {
                self.allow_unbound(Method::Md5)?;
                let hash = md5_hash(self.user.as_bytes(), self.password()?, salt);
                frontend::password(hash.as_bytes(), out)?;
                State::PasswordSent
            }
            (State::Start, AuthenticationRequest::Sasl(mechanisms)) => self.start_sasl(&mechanisms, out)?,
            (State::Start, request) if unsupported(&request).is_some() => {
                return Err(AuthError::Unsupported(unsupported(&request).unwrap_or_default()));
            }
            (State::ClientFirst { mut scram, bound }, AuthenticationRequest::SaslContinue(challenge)) => {
                match iterations(&challenge) {
                    // Not even once: nobody asks for that who means well.
                    Some(0) => return Err(AuthError::Scram("invalid iteration count".to_owned())),
                    Some(count) if count > MAX_ITERATIONS => return Err(AuthError::Iterations(count)),
                    _ => {}
                }
                // Checks that the nonce goes on from ours.
                scram.update(&challenge).map_err(|error| AuthError::Scram(error.to_string()))?;
                frontend::sasl_response(scram.message(), out)?;
                State::ClientFinal { scram, bound }
            }
            (State::ClientFinal { mut scram, bound }, AuthenticationRequest::SaslFinal(outcome)) => {
                // Checks the server's signature, which only one that knows the password's verifier can make.
                scram.finish(&outcome).map_err(|error| AuthError::Scram(error.to_string()))?;
                State::Verified { bound }
            }
            (State::Verified { bound }, AuthenticationRequest::Ok) => {
                if self.channel_binding == ChannelBinding::Require && !bound {
                    return Err(AuthError::ChannelBinding("server authenticated the client without it"));
                }
                State::Done
            }
            (State::PasswordSent, AuthenticationRequest::Ok) => State::Done,
            (state, request) => {
                return Err(AuthError::Unexpected { got: name(&request), expected: state.expected() });
            }
        };
        Ok(())
    }

    /// Ends the login, when the first message comes that is no authentication request: fails unless the server has said
    /// AuthenticationOk at the right point.
    pub fn finish(self) -> Result<(), AuthError> {
        match self.state {
            State::Done => Ok(()),
            state => Err(AuthError::Unexpected { got: "another message", expected: state.expected() }),
        }
    }

    fn start_sasl(&self, mechanisms: &[String], out: &mut BytesMut) -> Result<State, AuthError> {
        let offered = |name: &str| mechanisms.iter().any(|mechanism| mechanism == name);
        if !offered(SCRAM_SHA_256) && !offered(SCRAM_SHA_256_PLUS) {
            let list = mechanisms.join(", ");
            return Err(AuthError::Unsupported(format!("SASL ({})", list.escape_debug())));
        }
        self.allow(Method::ScramSha256)?;
        let wanted = self.channel_binding != ChannelBinding::Disable;
        let (mechanism, binding, bound) = match &self.tls_server_end_point {
            Some(hash) if wanted && offered(SCRAM_SHA_256_PLUS) => {
                (SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(hash.clone()), true)
            }
            _ if self.channel_binding == ChannelBinding::Require => {
                return Err(AuthError::ChannelBinding(if self.tls_server_end_point.is_none() {
                    "the connection is not encrypted or the server's certificate has no hash for it"
                } else {
                    "server does not offer it"
                }));
            }
            _ if !offered(SCRAM_SHA_256) => {
                return Err(AuthError::Unsupported(format!("{SCRAM_SHA_256_PLUS} without channel binding")));
            }
            // "y": we could, and believe that the server can't; a server that can then knows that someone between has
            // taken its offer away.
            Some(_) if wanted => (SCRAM_SHA_256, sasl::ChannelBinding::unrequested(), false),
            _ => (SCRAM_SHA_256, sasl::ChannelBinding::unsupported(), false),
        };
        let scram = Box::new(ScramSha256::new(self.password()?, binding));
        frontend::sasl_initial_response(mechanism, scram.message(), out)?;
        Ok(State::ClientFirst { scram, bound })
    }

    fn allow(&self, method: Method) -> Result<(), AuthError> {
        match self.require_auth {
            Some(require_auth) if !require_auth.allows(method) => Err(AuthError::NotAllowed(method)),
            _ => Ok(()),
        }
    }

    fn allow_unbound(&self, method: Method) -> Result<(), AuthError> {
        self.allow(method)?;
        match self.channel_binding {
            ChannelBinding::Require => {
                Err(AuthError::ChannelBinding("server asks for an authentication method that has none"))
            }
            _ => Ok(()),
        }
    }

    fn password(&self) -> Result<&[u8], AuthError> {
        self.password.as_deref().ok_or(AuthError::NoPassword)
    }
}

/// How often a SCRAM challenge wants the password hashed, as far as it says so.
fn iterations(challenge: &[u8]) -> Option<u64> {
    let count = challenge.split(|byte| *byte == b',').find_map(|attribute| attribute.strip_prefix(b"i="))?;
    std::str::from_utf8(count).ok()?.parse().ok()
}

/// The name of a method that this client doesn't have.
fn unsupported(request: &AuthenticationRequest) -> Option<String> {
    Some(match request {
        AuthenticationRequest::KerberosV5 => "Kerberos V5".to_owned(),
        AuthenticationRequest::ScmCredential => "SCM credential".to_owned(),
        AuthenticationRequest::Gss => "GSSAPI".to_owned(),
        AuthenticationRequest::Sspi => "SSPI".to_owned(),
        AuthenticationRequest::Other(code) => format!("method {code}"),
        _ => return None,
    })
}

fn name(request: &AuthenticationRequest) -> &'static str {
    match request {
        AuthenticationRequest::Ok => "AuthenticationOk",
        AuthenticationRequest::KerberosV5 => "AuthenticationKerberosV5",
        AuthenticationRequest::CleartextPassword => "AuthenticationCleartextPassword",
        AuthenticationRequest::Md5Password { .. } => "AuthenticationMD5Password",
        AuthenticationRequest::ScmCredential => "AuthenticationSCMCredential",
        AuthenticationRequest::Gss => "AuthenticationGSS",
        AuthenticationRequest::GssContinue(_) => "AuthenticationGSSContinue",
        AuthenticationRequest::Sspi => "AuthenticationSSPI",
        AuthenticationRequest::Sasl(_) => "AuthenticationSASL",
        AuthenticationRequest::SaslContinue(_) => "AuthenticationSASLContinue",
        AuthenticationRequest::SaslFinal(_) => "AuthenticationSASLFinal",
        AuthenticationRequest::Other(_) => "an authentication request of another kind",
    }
}
