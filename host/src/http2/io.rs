//! A transport as the codec reads and writes it.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, IoSlice};
use std::mem;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use h2::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::flood::{Allowance, FrameHeads};
use crate::transport::Transport;

/// Transport of a connection, with what was read and not taken by the codec, and frames that are gathered to be written at
/// once. Without an allocation of its own while there are none.
pub(super) struct Io {
    transport: Rc<Transport>,
    received: BytesMut,
    gathered: BytesMut,
    /// Bytes of the preface, which is no frame, still to come.
    preface_left: usize,
    /// `None`: the other side is a peer, which the operator has chosen.
    frames: Option<FrameHeads>,
    turn_bytes: usize,
    shared: Rc<IoState>,
}

/// State of a connection's bytes, as its task sees it.
#[derive(Default)]
pub(super) struct IoState {
    pub(super) allowance: Allowance,
    /// Something waits for the kernel to take it.
    pub(super) is_blocked: Cell<bool>,
    /// Bytes written so far.
    pub(super) written: Cell<u64>,
    /// A field block has begun to come and has not ended.
    pub(super) is_within_head: Cell<bool>,
    /// A frame has come with which the connection has to end.
    fault: Cell<Option<Reason>>,
}

impl IoState {
    /// Reason why the connection has to end, if it has.
    pub(super) fn end_reason(&self) -> Option<Reason> {
        let floods = self.allowance.is_used_up();
        let flood = floods.then_some(Reason::ENHANCE_YOUR_CALM);
        self.fault.get().or(flood)
    }
}

/// Buffers of the thread, which a connection has while there is something in them.
#[derive(Default)]
struct Scratch {
    received: BytesMut,
    gathered: BytesMut,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Bytes read at a time: a frame of the default size and some small ones.
const READ_BYTES: usize = 24 << 10;

/// Bytes gathered before they are written.
const GATHER_BYTES: usize = 32 << 10;

/// Bytes that one connection reads before others have their turn.
const TURN_BYTES: usize = 64 << 10;

/// A read counts as so many bytes at least.
const CALL_BYTES: usize = 1024;

/// Length of the client's preface (RFC 9113 §3.4).
const PREFACE_BYTES: usize = 24;

impl Io {
    /// `received`: what was read of the connection before.
    pub(super) fn new(transport: Rc<Transport>, received: BytesMut, shared: Rc<IoState>) -> Self {
        let mut io = Self {
            transport,
            received: BytesMut::new(),
            gathered: BytesMut::new(),
            preface_left: PREFACE_BYTES,
            frames: Some(FrameHeads::default()),
            turn_bytes: 0,
            shared,
        };
        let for_codec = io.look(&received);
        io.received = received;
        io.received.truncate(for_codec);
        io
    }

    /// The gateway is the client.
    pub(super) fn of_peer(transport: Rc<Transport>) -> Self {
        let mut io = Self::new(transport, BytesMut::new(), Rc::default());
        io.frames = None;
        io
    }

    /// Counts the frames that have come. Returns how many of the bytes are for the codec: those before a fault.
    fn look(&mut self, bytes: &[u8]) -> usize {
        let Some(frames) = &mut self.frames else {
            return bytes.len();
        };
        let of_preface = self.preface_left.min(bytes.len());
        self.preface_left -= of_preface;
        let looked = frames.look(&bytes[of_preface..], &self.shared.allowance);
        self.shared.is_within_head.set(frames.is_within_head());
        match looked {
            Ok(()) => bytes.len(),
            Err(fault) => {
                self.shared.fault.set(Some(fault.reason));
                of_preface + fault.at
            }
        }
    }

    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.shared.end_reason().is_some() {
            // Nothing more is read; the connection's task ends it.
            return Poll::Pending;
        }
        if self.turn_bytes >= TURN_BYTES {
            self.turn_bytes = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        if self.received.capacity() == 0 {
            self.received = SCRATCH.with_borrow_mut(|scratch| mem::take(&mut scratch.received));
        }
        self.received.reserve(READ_BYTES);
        loop {
            match self.transport.try_read(&mut self.received) {
                Ok(read) => {
                    self.turn_bytes += read.bytes.max(CALL_BYTES);
                    let received = mem::take(&mut self.received);
                    let for_codec = self.look(&received);
                    let is_refused = for_codec == 0 && !received.is_empty();
                    self.received = received;
                    self.received.truncate(for_codec);
                    // Nothing would be the connection's end.
                    return match is_refused {
                        true => Poll::Pending,
                        false => Poll::Ready(Ok(())),
                    };
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.turn_bytes = 0;
                    match self.transport.poll_read_ready(cx) {
                        Poll::Ready(Ok(())) => {}
                        other => {
                            self.keep_received();
                            return other;
                        }
                    }
                }
                Err(error) => {
                    self.keep_received();
                    return Poll::Ready(Err(error));
                }
            }
        }
    }

    /// Gives the buffer back where nothing is in it.
    fn keep_received(&mut self) {
        if self.received.is_empty() {
            let received = mem::take(&mut self.received);
            SCRATCH.with_borrow_mut(|scratch| scratch.received = received);
        }
    }

    /// Writes what is gathered, and `more` after it. Returns how much of `more` was written.
    fn poll_write_out(
        &mut self,
        cx: &mut Context<'_>,
        more: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut pieces = [IoSlice::new(&[]); 4];
            pieces[0] = IoSlice::new(&self.gathered);
            let count = more.len().min(pieces.len() - 1);
            pieces[1..=count].copy_from_slice(&more[..count]);
            match self.transport.try_write_vectored(&pieces[..=count]) {
                Ok(0) => return Poll::Ready(Err(ErrorKind::WriteZero.into())),
                Ok(bytes) => {
                    let shared = &self.shared;
                    shared.written.set(shared.written.get() + bytes as u64);
                    shared.is_blocked.set(false);
                    let of_gathered = bytes.min(self.gathered.len());
                    self.gathered.advance(of_gathered);
                    let of_more = bytes - of_gathered;
                    // 0 of what is there would say that the connection takes no more.
                    if self.gathered.is_empty() && (of_more > 0 || more.is_empty()) {
                        self.keep_gathered();
                        return Poll::Ready(Ok(of_more));
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.shared.is_blocked.set(true);
                    ready!(self.transport.poll_write_ready(cx))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn keep_gathered(&mut self) {
        let mut gathered = mem::take(&mut self.gathered);
        gathered.clear();
        SCRATCH.with_borrow_mut(|scratch| scratch.gathered = gathered);
    }

    fn gather(&mut self, bytes: &[u8]) {
        if self.gathered.capacity() == 0 {
            self.gathered = SCRATCH.with_borrow_mut(|scratch| mem::take(&mut scratch.gathered));
            self.gathered.reserve(GATHER_BYTES);
        }
        self.gathered.extend_from_slice(bytes);
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let io = self.get_mut();
        if io.received.is_empty() {
            ready!(io.poll_fill(cx))?;
        }
        let bytes = io.received.len().min(into.remaining());
        into.put_slice(&io.received[..bytes]);
        io.received.advance(bytes);
        io.keep_received();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let io = self.get_mut();
        let bytes = pieces.iter().map(|piece| piece.len()).sum::<usize>();
        if io.gathered.len() + bytes > GATHER_BYTES {
            return io.poll_write_out(cx, pieces);
        }
        for piece in pieces {
            io.gather(piece);
        }
        Poll::Ready(Ok(bytes))
    }

    /// True, so that the codec copies only what is small.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let io = self.get_mut();
        if !io.gathered.is_empty() {
            ready!(io.poll_write_out(cx, &[]))?;
        }
        let is_out = io.transport.poll_sealed(cx);
        io.shared.is_blocked.set(is_out.is_pending());
        is_out.map(Ok)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let io = self.get_mut();
        if !io.gathered.is_empty() {
            ready!(io.poll_write_out(cx, &[]))?;
        }
        ready!(io.transport.poll_sealed(cx));
        Poll::Ready(io.transport.close())
    }
}
