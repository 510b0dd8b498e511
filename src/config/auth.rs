//! What the operator demands of the login: `require_auth`, `channel_binding` and `requirepeer`.

use pgstream_proto::auth::{ChannelBinding, RequireAuth};

use crate::error::{Error, Result};

use super::environment::Environment;
use super::parameters::{Keyword, Parameters};

/// Reads `require_auth`: a list of methods, or a list of methods that are not allowed, each with `!`.
pub(super) fn require_auth(parameters: &Parameters) -> Result<Option<RequireAuth>> {
    let text = parameters.filled_text(Keyword::RequireAuth)?;
    text.map(|text| text.parse().map_err(|error| Error::usage(format!("{error}")))).transpose()
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
