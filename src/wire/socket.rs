//! A socket that can be left alone for a while.
//!
//! The runtime watches every socket that it has, and is woken by each segment that arrives. Where a peer sends many small segments and nobody wants
//! to read before many have come, that costs both ends more than the data itself. A socket that is [left alone](Socket::leave_alone) is
//! not watched until it is used again.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A socket of the runtime that can be taken from it and given back.
pub(super) trait Watched: AsyncRead + AsyncWrite + Unpin + Sized {
    /// The same socket while nobody watches it.
    type Alone;

    fn into_alone(self) -> io::Result<Self::Alone>;
    fn from_alone(alone: Self::Alone) -> io::Result<Self>;
}

impl Watched for TcpStream {
    type Alone = std::net::TcpStream;

    fn into_alone(self) -> io::Result<Self::Alone> {
        self.into_std()
    }

    fn from_alone(alone: Self::Alone) -> io::Result<Self> {
        TcpStream::from_std(alone)
    }
}

impl Watched for UnixStream {
    type Alone = std::os::unix::net::UnixStream;

    fn into_alone(self) -> io::Result<Self::Alone> {
        self.into_std()
    }

    fn from_alone(alone: Self::Alone) -> io::Result<Self> {
        UnixStream::from_std(alone)
    }
}

/// One of the two is there, but after a failure to change from one to the other.
#[derive(Debug)]
pub(super) struct Socket<W: Watched> {
    watched: Option<W>,
    alone: Option<W::Alone>,
}

impl<W: Watched> From<W> for Socket<W> {
    fn from(watched: W) -> Socket<W> {
        Socket { watched: Some(watched), alone: None }
    }
}

impl<W: Watched> Socket<W> {
    /// Takes the socket from the runtime's watch until something is read or written.
    pub(super) fn leave_alone(&mut self) -> io::Result<()> {
        if let Some(watched) = self.watched.take() {
            self.alone = Some(watched.into_alone()?);
        }
        Ok(())
    }

    fn watched(&mut self) -> io::Result<Pin<&mut W>> {
        if let Some(alone) = self.alone.take() {
            self.watched = Some(W::from_alone(alone)?);
        }
        self.watched.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

// Only the socket is pinned, which is so anyway; what is alone is moved.
impl<W: Watched> Unpin for Socket<W> {}

impl<W: Watched> AsyncRead for Socket<W> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.watched()?.poll_read(cx, buf)
    }
}

impl<W: Watched> AsyncWrite for Socket<W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.watched()?.poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watched()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watched()?.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn what_arrives_while_a_socket_is_left_alone_is_there_afterwards() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut peer, _) = listener.accept().await.unwrap();
        let mut ours = Socket::from(ours);
        for round in [b"one", b"two"] {
            ours.leave_alone().unwrap();
            ours.leave_alone().unwrap();
            peer.write_all(round).await.unwrap();
            let mut read = [0; 3];
            ours.read_exact(&mut read).await.unwrap();
            assert_eq!(&read, round);
        }
        ours.leave_alone().unwrap();
        ours.write_all(b"three").await.unwrap();
        let mut read = [0; 5];
        peer.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"three");
    }
}
