//! A listening socket, for who wants to look at the program; what is said over it is not this module's matter.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

/// A socket that others connect to.
#[derive(Debug)]
pub struct Listener(TcpListener);

impl Listener {
    /// Listens at an address; port 0 is one that is free.
    ///
    /// # Errors
    /// The system's: an address in use, or none of this host's.
    pub async fn bind(address: SocketAddr) -> io::Result<Listener> {
        TcpListener::bind(address).await.map(Listener)
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system's.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// The next connection. Cancel-safe: one that is not taken waits.
    ///
    /// # Errors
    /// The system's, such as no more file descriptors; the next call may succeed.
    pub async fn accept(&self) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<>> {
        self.0.accept().await.map(|(stream, _)| stream)
    }
}
