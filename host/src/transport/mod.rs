//! Connected byte streams, as what is above sees them: it reads and writes bytes of messages, and knows nothing of sockets.
//!
//! A [`Transport`] is shared by the two halves of a connection, [`Reader`](halves::Reader) and [`Writer`](halves::Writer), and
//! by the batch in which small writes wait. What a short read means, whether a kept connection is still good and how it is
//! closed is known here, since it is another thing for bytes that are encrypted.

pub mod address;
mod coop_budget;
pub mod halves;
mod peer_address;
pub mod proxy_protocol;
mod socket;
pub mod tls;
pub mod write_batch;

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use rustix::io::Errno;
use rustix::net::{RecvFlags, Shutdown};
use tokio::net::TcpStream;

use crate::runtime::gate::Permit;
pub use peer_address::PeerAddress;
pub use socket::{Socket, keep_alive, put_off_port};
use tls::{SharedTls, Tls, TlsInfo};
use write_batch::Deferred;

/// A connected byte stream.
pub struct Transport {
    socket: Socket,
    /// `None`: bytes go as they are.
    tls: Option<Box<SharedTls>>,
    /// Writes that were put off: see [`write_batch`].
    deferred: RefCell<Deferred>,
    /// Counts the connection, where there is a limit.
    permit: Option<Box<Permit>>,
}

/// Result of one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Read {
    /// 0: the other side has ended its direction.
    pub bytes: usize,
    /// Nothing more is there now: another read would be in vain before [`Transport::poll_read_ready`] was pending.
    pub drained: bool,
}

impl Transport {
    /// Counts the connection as long as it is there.
    pub fn hold(&mut self, permit: Option<Permit>) {
        self.permit = permit.map(Box::new);
    }

    pub fn new(socket: Socket) -> Self {
        Self {
            socket,
            tls: None,
            deferred: RefCell::default(),
            permit: None,
        }
    }

    /// A socket on which a handshake was made.
    pub fn with_tls(socket: Socket, tls: Tls) -> Self {
        let mut transport = Self::new(socket);
        transport.tls = Some(SharedTls::new(tls));
        transport
    }

    /// What TLS knows of a client's connection. `None`: the connection is plain, or a peer's.
    pub fn tls_info(&self) -> Option<Arc<TlsInfo>> {
        self.tls.as_ref()?.info()
    }

    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// Whether HTTP/2 was agreed on in the handshake.
    pub fn is_http2(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_http2())
    }

    /// Reads into the room that `into` has, of which there must be some. `WouldBlock`: [`Self::poll_read_ready`] tells when.
    #[inline]
    pub fn try_read(&self, into: &mut BytesMut) -> io::Result<Read> {
        if let Some(tls) = &self.tls {
            return tls.try_read(&self.socket, into);
        }
        let bytes = self.socket.try_read(into)?;
        // The kernel fills all the room that it can.
        let drained = into.len() < into.capacity();
        Ok(Read { bytes, drained })
    }

    /// Writes as much as is taken now. `WouldBlock`: [`Self::poll_write_ready`] tells when.
    #[inline]
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match &self.tls {
            None => self.socket.try_write(bytes),
            Some(tls) => tls.try_write(&self.socket, &[IoSlice::new(bytes)]),
        }
    }

    #[inline]
    pub fn try_write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match &self.tls {
            None => self.socket.try_write_vectored(pieces),
            Some(tls) => tls.try_write(&self.socket, pieces),
        }
    }

    /// Readiness as the event loop has heard of it: it may be stale, and a new socket is ready at first.
    #[inline]
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.tls {
            None => self.socket.poll_read_ready(cx),
            Some(tls) => tls.poll_read_ready(&self.socket, cx),
        }
    }

    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.socket.poll_write_ready(cx)
    }

    /// Readiness to read, asked once.
    #[inline]
    pub fn is_read_ready(&self) -> bool {
        self.socket.is_read_ready() || self.has_opened()
    }

    /// Whether something that came is past the socket and not taken yet.
    #[inline]
    fn has_opened(&self) -> bool {
        match &self.tls {
            None => false,
            Some(tls) => tls.has_unread(),
        }
    }

    /// Whether something that was written is not with the kernel yet.
    #[inline]
    pub fn has_backlog(&self) -> bool {
        let has_deferred = !matches!(*self.deferred.borrow(), Deferred::Nothing);
        has_deferred || self.has_sealed()
    }

    /// Whether something is sealed and not with the kernel yet.
    #[inline]
    fn has_sealed(&self) -> bool {
        match &self.tls {
            None => false,
            Some(tls) => tls.has_backlog(),
        }
    }

    /// Writes what is sealed and not with the kernel. `WouldBlock`: some is left.
    #[inline]
    pub fn send_sealed(&self) -> io::Result<()> {
        match &self.tls {
            None => Ok(()),
            Some(tls) => tls.send(&self.socket),
        }
    }

    /// Ready when nothing is sealed and not with the kernel.
    #[inline]
    pub fn poll_sealed(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &self.tls {
            None => Poll::Ready(()),
            Some(tls) => tls.poll_flush(&self.socket, cx),
        }
    }

    /// Bytes that the kernel has taken and the other side has not acknowledged; 0 where it does not tell.
    pub fn unacknowledged_bytes(&self) -> u64 {
        self.socket.queued_bytes()
    }

    /// Whether an idle connection is still good: nothing came on it, not even its end. As the event loop has heard, which
    /// costs a system call only where something did; or `surely`, as the kernel knows it now, for one system call.
    #[inline]
    pub fn is_reusable(&self, surely: bool) -> bool {
        match &self.tls {
            // Readiness may be stale.
            None => {
                let is_ready = surely || self.socket.is_read_ready();
                !is_ready || matches!(self.peek(), Err(Errno::AGAIN))
            }
            Some(tls) => tls.is_reusable(&self.socket, surely),
        }
    }

    /// Whether bytes wait to be read, and not just an end.
    pub fn has_unread(&self) -> bool {
        self.has_opened() || self.peek().is_ok_and(|bytes| bytes > 0)
    }

    fn peek(&self) -> Result<usize, Errno> {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let (_, bytes) = rustix::net::recv(&self.socket, &mut [0_u8; 1], flags)?;
        Ok(bytes)
    }

    /// Whether closing the connection resets it, which tells the other side that something is missing, or ends it in
    /// order. A Unix socket knows no reset and ends in order.
    pub fn set_reset_on_close(&self, resets: bool) {
        if let Some(tls) = &self.tls {
            tls.set_cut(resets);
        }
        let linger = resets.then_some(Duration::ZERO);
        // A connection on which it cannot be set is gone already.
        let _ = rustix::net::sockopt::set_socket_linger(&self.socket, linger);
    }

    /// Says that nothing more comes; the other direction stays open.
    pub fn close(&self) -> io::Result<()> {
        if let Some(tls) = &self.tls {
            tls.close(&self.socket);
        }
        match rustix::net::shutdown(&self.socket, Shutdown::Write) {
            // The connection is reset already, which reading tells.
            Ok(()) | Err(Errno::NOTCONN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl From<Socket> for Transport {
    fn from(socket: Socket) -> Self {
        Self::new(socket)
    }
}

impl From<TcpStream> for Transport {
    fn from(stream: TcpStream) -> Self {
        Self::new(stream.into())
    }
}

impl Drop for Transport {
    /// Says in TLS's own way that nothing is missing (RFC 8446 §6.1), unless something is.
    fn drop(&mut self) {
        if let Some(tls) = &self.tls {
            tls.end(&self.socket);
        }
    }
}
