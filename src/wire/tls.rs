//! TLS by rustls.

use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::config::Tls;
use crate::error::{Error, Result};

/// An encrypted socket.
pub(super) struct Negotiated {
    pub(super) stream: TlsStream<TcpStream>,
    /// The hash of the server's certificate that a login can be bound to (RFC 5929).
    pub(super) server_end_point: Option<Vec<u8>>,
}

/// Encrypts `tcp`.
pub(super) async fn handshake(_tcp: TcpStream, _tls: &Tls, _host: &str, _direct: bool) -> Result<Negotiated> {
    Err(Error::failed("TLS is not built yet"))
}
