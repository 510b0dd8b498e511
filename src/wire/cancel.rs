//! Cancel requests: a second socket that asks the server to stop what a session is doing.

use bytes::{Bytes, BytesMut};
use pgstream_proto::frontend;

use super::connect::{self, Endpoint};
use crate::config::Config;
use crate::error::{Error, Result};

/// What it takes to cancel the statement that a session is running; stays valid while the session lives.
#[derive(Debug, Clone)]
pub struct Canceller {
    pub(super) config: Config,
    pub(super) endpoint: Endpoint,
    pub(super) pid: u32,
    pub(super) key: Bytes,
}

impl Canceller {
    /// Asks the server to cancel the session's running statement. The server does not answer: success only says that the
    /// request was delivered. Cancel safe.
    pub async fn cancel(&self) -> Result<()> {
        let mut outbound = BytesMut::new();
        frontend::cancel_request(self.pid, &self.key, &mut outbound)
            .map_err(|e| Error::connection(format!("could not send a cancel request: {e}")))?;
        let mut socket = connect::open(&self.config, &self.endpoint, false).await?;
        let mut inbound = BytesMut::new();
        let sent = socket.stream.drain(&mut outbound, &mut inbound).await;
        // The server closes the socket once it has handled the request.
        if sent.is_ok() {
            while socket.stream.fill(&mut inbound).await.is_ok() {}
        }
        sent.map_err(|e| Error::connection(format!("could not send a cancel request: {e}")))
    }
}
