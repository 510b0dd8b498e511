//! One byte stream for the three kinds of socket.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;
use tokio_util::io::{poll_read_buf, poll_write_buf};

use super::socket::Socket;

/// A connected socket, encrypted or not.
pub(super) enum Stream {
    Tcp(Socket<TcpStream>),
    Unix(Socket<UnixStream>),
    Tls(Box<TlsStream<Socket<TcpStream>>>),
    #[cfg(test)]
    Simulated(tokio::io::DuplexStream),
}

macro_rules! delegate {
    ($self:ident, $inner:ident => $call:expr) => {
        match $self.get_mut() {
            Stream::Tcp($inner) => $call,
            Stream::Unix($inner) => $call,
            Stream::Tls($inner) => $call,
            #[cfg(test)]
            Stream::Simulated($inner) => $call,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        delegate!(self, s => Pin::new(s).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        delegate!(self, s => Pin::new(s).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, s => Pin::new(s).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        delegate!(self, s => Pin::new(s).poll_shutdown(cx))
    }
}

/// How much free room a read is given, in bytes: large enough that a bulk copy makes few system calls.
const READ_SIZE: usize = 256 * 1024;

/// A buffer that one message made larger than this is given back when the message is gone, in bytes.
pub(super) const MOST_KEPT: usize = 4 << 20;

impl Stream {
    /// Is not woken by what arrives until somebody waits for it again. What has been taken in is still there.
    pub(super) fn leave_alone(&mut self) -> io::Result<()> {
        match self {
            Stream::Tcp(tcp) => tcp.leave_alone(),
            Stream::Unix(unix) => unix.leave_alone(),
            Stream::Tls(tls) => tls.get_mut().0.leave_alone(),
            #[cfg(test)]
            Stream::Simulated(_) => Ok(()),
        }
    }

    fn glance(&mut self, glances: bool) {
        match self {
            Stream::Tcp(tcp) => tcp.glance(glances),
            Stream::Unix(unix) => unix.glance(glances),
            Stream::Tls(tls) => tls.get_mut().0.glance(glances),
            #[cfg(test)]
            Stream::Simulated(_) => {}
        }
    }

    /// Reads what there is, appended to `inbound`; an end of the stream is an error. Cancel safe.
    pub(super) async fn fill(&mut self, inbound: &mut BytesMut) -> io::Result<()> {
        std::future::poll_fn(|cx| self.poll_fill(cx, inbound)).await
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>, inbound: &mut BytesMut) -> Poll<io::Result<()>> {
        if inbound.is_empty() && inbound.capacity() > MOST_KEPT {
            *inbound = BytesMut::new();
        }
        if inbound.capacity() - inbound.len() < READ_SIZE / 4 {
            inbound.reserve(READ_SIZE);
        }
        match ready!(poll_read_buf(Pin::new(self), cx, inbound))? {
            0 => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// Writes all of `outbound`, and reads into `inbound` whenever the peer does not take more.
    ///
    /// Cancel safe as far as bytes go: what is written has left `outbound`, the rest stays.
    pub(super) async fn drain(&mut self, outbound: &mut impl Buf, inbound: &mut BytesMut) -> io::Result<()> {
        std::future::poll_fn(|cx| {
            loop {
                if self.poll_write_all(cx, outbound)?.is_ready() {
                    return Poll::Ready(Ok(()));
                }
                ready!(self.poll_fill(cx, inbound))?;
            }
        })
        .await
    }

    /// Writes of `outbound` what the peer takes at once.
    pub(super) async fn offer(&mut self, outbound: &mut impl Buf) -> io::Result<()> {
        std::future::poll_fn(|cx| match self.poll_write_all(cx, outbound) {
            Poll::Pending => Poll::Ready(Ok(())),
            written => written,
        })
        .await
    }

    fn poll_write_all(&mut self, cx: &mut Context<'_>, outbound: &mut impl Buf) -> Poll<io::Result<()>> {
        while outbound.has_remaining() {
            if ready!(poll_write_buf(Pin::new(&mut *self), cx, outbound))? == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
        }
        Pin::new(&mut *self).poll_flush(cx)
    }

    /// Writes `outbound` as far as the peer takes it, and reads into `inbound` unless `read` is false. Ends as soon as anything arrived, or
    /// when all is written and nothing is to be read. Cancel safe, as [`Stream::drain`] is.
    pub(super) async fn exchange(
        &mut self,
        outbound: &mut BytesMut,
        inbound: &mut BytesMut,
        read: bool,
    ) -> io::Result<()> {
        std::future::poll_fn(|cx| {
            let written = self.poll_write_all(cx, outbound)?.is_ready();
            if read {
                self.poll_fill(cx, inbound)
            } else if written {
                Poll::Ready(Ok(()))
            } else {
                Poll::Pending
            }
        })
        .await
    }

    /// Takes what has already arrived, without waiting; true when there was anything.
    pub(super) async fn take_arrived(&mut self, inbound: &mut BytesMut) -> io::Result<bool> {
        std::future::poll_fn(|cx| {
            self.glance(true);
            let filled = self.poll_fill(cx, inbound);
            self.glance(false);
            Poll::Ready(match filled {
                Poll::Ready(filled) => filled.map(|()| true),
                Poll::Pending => Ok(false),
            })
        })
        .await
    }
}
