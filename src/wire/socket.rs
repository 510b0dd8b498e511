//! A socket that can be left alone for a while.
//!
//! The runtime watches every socket that it has, and is woken by each segment that arrives. Where a peer sends many small segments and nobody wants
//! to read before many have come, that costs both ends more than the data itself. A socket that is [left alone](Socket::leave_alone) is
//! not watched until somebody has to wait for it: what it takes or gives at once goes without the runtime.

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A socket of the runtime that can be taken from it and given back.
pub(super) trait Watched: AsyncRead + AsyncWrite + Unpin + Sized {
    /// The same socket while nobody watches it.
    type Alone: Read + Write;

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

/// How much is read of a socket that nobody watches, in bytes: its room is filled with zeros before.
const GLANCE: usize = 16 << 10;

/// One of the two is there, but after a failure to change from one to the other.
#[derive(Debug)]
pub(super) struct Socket<W: Watched> {
    watched: Option<W>,
    alone: Option<W::Alone>,
    /// Whoever reads doesn't wait for more than is there.
    glances: bool,
}

impl<W: Watched> From<W> for Socket<W> {
    fn from(watched: W) -> Socket<W> {
        Socket { watched: Some(watched), alone: None, glances: false }
    }
}

impl<W: Watched> Socket<W> {
    /// Takes the socket from the runtime's watch until somebody waits for it.
    pub(super) fn leave_alone(&mut self) -> io::Result<()> {
        if let Some(watched) = self.watched.take() {
            self.alone = Some(watched.into_alone()?);
        }
        Ok(())
    }

    /// Whether reads from here on only look at what is there: one that finds nothing is pending, but nobody is told when something comes.
    pub(super) fn glance(&mut self, glances: bool) {
        self.glances = glances;
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
        if self.glances
            && let Some(alone) = &mut self.alone
        {
            let room = buf.remaining().min(GLANCE);
            return at_once(|| alone.read(buf.initialize_unfilled_to(room)))
                .map(|read| read.map(|size| buf.advance(size)));
        }
        self.watched()?.poll_read(cx, buf)
    }
}

impl<W: Watched> AsyncWrite for Socket<W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(alone) = &mut self.alone
            && let written @ Poll::Ready(_) = at_once(|| alone.write(buf))
        {
            return written;
        }
        self.watched()?.poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.alone {
            // Sockets keep nothing back.
            Some(_) => Poll::Ready(Ok(())),
            None => self.watched()?.poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watched()?.poll_shutdown(cx)
    }
}

/// Pending where it would have to wait.
fn at_once(mut work: impl FnMut() -> io::Result<usize>) -> Poll<io::Result<usize>> {
    loop {
        match work() {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Poll::Pending,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            done => return Poll::Ready(done),
        }
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
        assert!(ours.alone.is_some(), "what is taken at once is no reason to watch");
    }

    #[tokio::test]
    async fn a_glance_finds_what_is_there_and_watches_nothing() {
        let (ours, mut peer) = UnixStream::pair().unwrap();
        let mut ours = Socket::from(ours);
        ours.leave_alone().unwrap();
        let mut room = vec![0; 2 * GLANCE];
        for sent in [0, 3, 2 * GLANCE] {
            peer.write_all(&vec![7; sent]).await.unwrap();
            let mut left = sent;
            ours.glance(true);
            loop {
                let mut buf = ReadBuf::new(&mut room);
                let read =
                    std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut ours).poll_read(cx, &mut buf)));
                match read.await {
                    Poll::Ready(read) => {
                        read.unwrap();
                        assert!(buf.filled().iter().all(|byte| *byte == 7));
                        left -= buf.filled().len();
                    }
                    Poll::Pending => break,
                }
            }
            ours.glance(false);
            assert!(left == 0 && ours.alone.is_some(), "{left} of {sent} are missing");
        }
        drop(peer);
        ours.glance(true);
        assert_eq!(ours.read(&mut room).await.unwrap(), 0, "the end is seen as well");
    }

    #[tokio::test]
    async fn whoever_has_to_wait_for_a_socket_that_was_left_alone_is_woken() {
        let (ours, mut peer) = UnixStream::pair().unwrap();
        let mut ours = Socket::from(ours);
        ours.leave_alone().unwrap();
        // More than the socket takes at once.
        let sent = vec![7; 8 << 20];
        let reader = tokio::spawn(async move {
            let mut read = Vec::new();
            peer.read_to_end(&mut read).await.unwrap();
            read
        });
        ours.write_all(&sent).await.unwrap();
        drop(ours);
        assert!(reader.await.unwrap() == sent);
    }
}
