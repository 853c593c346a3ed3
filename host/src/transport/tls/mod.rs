//! TLS over a socket: records in and out, for one connection.
//!
//! rustls keeps the state of the protocol; sockets and buffers are ours. A worker has one thread and never waits in here: what
//! cannot be read or written now is tried again when the event loop says so.

mod by_name;
mod certificates;
mod challenge;
mod client_certificate;
mod connect;
mod handshake;
mod info;
mod key_log;
mod policy;
mod ticket_chain;
mod tickets;
mod verify;

use std::cell::RefCell;
use std::io::{self, BufRead as _, ErrorKind, IoSlice, Write as _};
use std::mem;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use rustix::net::RecvFlags;
use rustls::Connection;

use super::{Read, Socket};

pub use certificates::check_pair;
pub use connect::{ClientTls, Offer, PeerTls, SystemRoots};
pub use handshake::{HandshakeTurns, ServerTls};
pub use info::TlsInfo;
pub use ticket_chain::TicketChain;

/// TLS of a connection with a client or with a peer.
pub struct Tls {
    connection: Connection,
    /// Records that were read and not opened yet. Without an allocation while there are none.
    received: BytesMut,
    /// Sealed records that the kernel has not taken. Without an allocation while there are none.
    sealed: BytesMut,
    /// The other side has said that nothing more comes, or the socket has ended.
    has_ended: bool,
    /// Our side has said so.
    is_closed: bool,
    /// A close now would leave out the end of something.
    is_cut: bool,
    info: Option<Arc<TlsInfo>>,
}

/// Buffers of the thread, which a connection has while there is something in them.
#[derive(Default)]
struct Scratch {
    received: BytesMut,
    sealed: BytesMut,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Bytes read from the socket at a time: one record of the largest kind (RFC 8446 §5.2: 16 KiB and 256 bytes, and its head).
const READ_BYTES: usize = (16 << 10) + 256 + 5;

/// Bytes read at a time of a connection that should have nothing but tickets.
const TICKETS_BYTES: usize = 1 << 10;

/// Error where a peer's connection ends without a close_notify.
const UNSAID_END: &str = "the connection has ended, and TLS has not said so (close_notify)";

/// Plain bytes sealed in one go. So much is kept at most beyond what the kernel has taken.
const SEAL_BYTES: usize = 64 << 10;

impl Tls {
    /// `received`: what was read beyond the handshake.
    fn new(connection: impl Into<Connection>, received: BytesMut) -> Self {
        let mut connection = connection.into();
        // `try_write` has a bound of its own, and seals only when all of the last is out.
        connection.set_buffer_limit(None);
        Self {
            connection,
            received,
            sealed: BytesMut::new(),
            has_ended: false,
            is_closed: false,
            is_cut: false,
            info: None,
        }
    }

    /// Whether the session is one of before.
    fn is_resumed(&self) -> bool {
        self.info.as_ref().is_some_and(|info| info.is_resumed())
    }

    fn with_info(mut self, info: TlsInfo) -> Self {
        self.info = Some(Arc::new(info));
        self
    }

    /// Whether HTTP/2 was agreed on (RFC 7301, RFC 9113 §3.2).
    fn is_http2(&self) -> bool {
        self.connection.alpn_protocol() == Some(b"h2")
    }

    /// Reads plain bytes into the room of `into`, of which there must be some.
    fn try_read(&mut self, socket: &Socket, into: &mut BytesMut) -> io::Result<Read> {
        loop {
            let bytes = self.take_plain(into)?;
            if bytes > 0 || self.has_ended {
                let drained = bytes == 0;
                return Ok(Read { bytes, drained });
            }
            self.fill(socket)?;
        }
    }

    /// Moves opened bytes. 0: there are none.
    fn take_plain(&mut self, into: &mut BytesMut) -> io::Result<usize> {
        let mut taken = 0;
        let is_from_client = matches!(self.connection, Connection::Server(_));
        let mut reader = self.connection.reader();
        loop {
            let room = into.capacity() - into.len();
            let chunk = match reader.fill_buf() {
                Ok([]) => return Ok(taken),
                Ok(chunk) => chunk,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(taken),
                // No close_notify came before the socket's end. Many clients close so, and a request says itself where it
                // ends; a response may end with its connection, and then anybody on the way could cut it (RFC 9112 §9.8).
                Err(error) if error.kind() == ErrorKind::UnexpectedEof && is_from_client => {
                    return Ok(taken);
                }
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    return Err(io::Error::new(error.kind(), UNSAID_END));
                }
                Err(error) => return Err(error),
            };
            let part = &chunk[..chunk.len().min(room)];
            if part.is_empty() {
                return Ok(taken);
            }
            into.extend_from_slice(part);
            let bytes = part.len();
            reader.consume(bytes);
            taken += bytes;
        }
    }

    /// Opens records until there are plain bytes; reads some first where none are left.
    fn fill(&mut self, socket: &Socket) -> io::Result<()> {
        if self.received.is_empty() {
            self.received = SCRATCH.with_borrow_mut(|scratch| mem::take(&mut scratch.received));
            self.received.reserve(READ_BYTES);
            match socket.try_read(&mut self.received) {
                Ok(bytes) => self.has_ended |= bytes == 0,
                Err(error) => {
                    self.keep_received();
                    return Err(error);
                }
            }
        }
        let opened = self.open(socket);
        self.keep_received();
        opened
    }

    /// Gives the buffer back where nothing is in it.
    fn keep_received(&mut self) {
        if self.received.is_empty() {
            let received = mem::take(&mut self.received);
            SCRATCH.with_borrow_mut(|scratch| scratch.received = received);
        }
    }

    fn open(&mut self, socket: &Socket) -> io::Result<()> {
        loop {
            let bytes = self.connection.read_tls(&mut &self.received[..])?;
            self.received.advance(bytes);
            let opened = self.connection.process_new_packets();
            // Alerts, tickets and updates of keys; before an error its alert.
            self.collect();
            self.send_now(socket)?;
            let state = opened.map_err(io::Error::other)?;
            self.has_ended |= state.peer_has_closed();
            let is_done = state.plaintext_bytes_to_read() > 0 || self.received.is_empty();
            if is_done || self.has_ended {
                return Ok(());
            }
        }
    }

    /// Seals and writes. Returns how many plain bytes were sealed: they count as written, though some may wait here
    /// ([`Self::has_backlog`]). `WouldBlock`: nothing was sealed, since not all of the last is out.
    fn try_write(&mut self, socket: &Socket, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.send(socket)?;
        let mut sealed = 0;
        for piece in pieces {
            let part = &piece[..piece.len().min(SEAL_BYTES - sealed)];
            self.connection.writer().write_all(part)?;
            sealed += part.len();
        }
        self.collect();
        self.send_now(socket)?;
        Ok(sealed)
    }

    /// Whether sealed bytes are not with the kernel yet.
    fn has_backlog(&self) -> bool {
        !self.sealed.is_empty()
    }

    /// Writes what waits. Ready when nothing does, also after an error, which reading tells.
    fn poll_flush(&mut self, socket: &Socket, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match self.send(socket) {
                Ok(()) => return Poll::Ready(()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if ready!(socket.poll_write_ready(cx)).is_err() {
                        return Poll::Ready(());
                    }
                }
                Err(_) => {
                    self.sealed = BytesMut::new();
                    return Poll::Ready(());
                }
            }
        }
    }

    /// Says that nothing more comes (close_notify), as far as the kernel takes it at once.
    fn close(&mut self, socket: &Socket) {
        if self.is_closed {
            return;
        }
        self.is_closed = true;
        self.connection.send_close_notify();
        self.collect();
        // A client that takes nothing learns it from the socket's end.
        let _ = self.send_now(socket);
    }

    /// Whether a close would leave out the end of something: then it does not say that nothing more comes.
    fn set_cut(&mut self, is_cut: bool) {
        self.is_cut = is_cut;
    }

    /// Whether something that was read has not been taken yet.
    fn has_unread(&mut self) -> bool {
        let mut reader = self.connection.reader();
        let has_plain = reader.fill_buf().is_ok_and(|chunk| !chunk.is_empty());
        has_plain || !self.received.is_empty()
    }

    /// Whether an idle connection is still good: nothing has come but what TLS itself says, such as a ticket, which is
    /// taken. `surely` asks the kernel, and not just the event loop.
    fn is_reusable(&mut self, socket: &Socket, surely: bool) -> bool {
        loop {
            if self.has_ended || self.has_unread() {
                return false;
            }
            let opened = match surely {
                true => self.fill_now(socket),
                false if socket.is_read_ready() => self.fill(socket),
                false => return true,
            };
            match opened {
                Ok(()) => {}
                Err(error) => return error.kind() == ErrorKind::WouldBlock,
            }
        }
    }

    /// Fills with what the kernel has, of which the event loop may not have heard.
    fn fill_now(&mut self, socket: &Socket) -> io::Result<()> {
        let mut room = [0; TICKETS_BYTES];
        let (_, bytes) = rustix::net::recv(socket, &mut room[..], RecvFlags::DONTWAIT)?;
        self.has_ended |= bytes == 0;
        self.received = SCRATCH.with_borrow_mut(|scratch| mem::take(&mut scratch.received));
        self.received.extend_from_slice(&room[..bytes]);
        let opened = self.open(socket);
        self.keep_received();
        opened
    }

    /// Takes over what rustls has sealed.
    fn collect(&mut self) {
        if self.connection.wants_write() && self.sealed.is_empty() {
            self.sealed = SCRATCH.with_borrow_mut(|scratch| mem::take(&mut scratch.sealed));
        }
        while self.connection.wants_write() {
            let mut out = Appending(&mut self.sealed);
            // Appending to memory cannot fail.
            if self.connection.write_tls(&mut out).is_err() {
                return;
            }
        }
    }

    /// Writes all of what waits. `WouldBlock`: some is left.
    fn send(&mut self, socket: &Socket) -> io::Result<()> {
        while !self.sealed.is_empty() {
            let written = socket.try_write(&self.sealed)?;
            if written == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            self.sealed.advance(written);
        }
        if self.sealed.capacity() > 0 {
            let sealed = mem::take(&mut self.sealed);
            SCRATCH.with_borrow_mut(|scratch| scratch.sealed = sealed);
        }
        Ok(())
    }

    /// Writes what the kernel takes now of it.
    fn send_now(&mut self, socket: &Socket) -> io::Result<()> {
        match self.send(socket) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(()),
            sent => sent,
        }
    }
}

/// TLS as both halves of a connection share it. Not inlined: what is plain steps over a call and not over its code.
pub(super) struct SharedTls(RefCell<Tls>);

impl SharedTls {
    pub(super) fn new(tls: Tls) -> Box<Self> {
        Box::new(Self(RefCell::new(tls)))
    }

    pub(super) fn info(&self) -> Option<Arc<TlsInfo>> {
        self.0.borrow().info.clone()
    }

    pub(super) fn is_http2(&self) -> bool {
        self.0.borrow().is_http2()
    }

    #[inline(never)]
    pub(super) fn try_read(&self, socket: &Socket, into: &mut BytesMut) -> io::Result<Read> {
        self.0.borrow_mut().try_read(socket, into)
    }

    #[inline(never)]
    pub(super) fn try_write(&self, socket: &Socket, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.borrow_mut().try_write(socket, pieces)
    }

    #[inline(never)]
    pub(super) fn poll_read_ready(
        &self,
        socket: &Socket,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        match self.has_unread() {
            true => Poll::Ready(Ok(())),
            false => socket.poll_read_ready(cx),
        }
    }

    #[inline(never)]
    pub(super) fn has_unread(&self) -> bool {
        self.0.borrow_mut().has_unread()
    }

    #[inline(never)]
    pub(super) fn is_reusable(&self, socket: &Socket, surely: bool) -> bool {
        self.0.borrow_mut().is_reusable(socket, surely)
    }

    #[inline(never)]
    pub(super) fn has_backlog(&self) -> bool {
        self.0.borrow().has_backlog()
    }

    #[inline(never)]
    pub(super) fn send(&self, socket: &Socket) -> io::Result<()> {
        self.0.borrow_mut().send(socket)
    }

    #[inline(never)]
    pub(super) fn poll_flush(&self, socket: &Socket, cx: &mut Context<'_>) -> Poll<()> {
        self.0.borrow_mut().poll_flush(socket, cx)
    }

    #[inline(never)]
    pub(super) fn set_cut(&self, is_cut: bool) {
        self.0.borrow_mut().set_cut(is_cut);
    }

    #[inline(never)]
    pub(super) fn close(&self, socket: &Socket) {
        self.0.borrow_mut().close(socket);
    }

    /// Ends the connection: [`Self::close`], unless the end of something is left out.
    #[inline(never)]
    pub(super) fn end(&self, socket: &Socket) {
        let mut tls = self.0.borrow_mut();
        if !tls.is_cut {
            tls.close(socket);
        }
    }
}

/// Writer that appends.
struct Appending<'a>(&'a mut BytesMut);

impl io::Write for Appending<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
