//! The two halves of a connection, each with its buffer. Clients and peers are talked to through these alike.
//!
//! All waiting here can be dropped and taken up again: what was read is in the buffer, what was written is crossed off.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::alarm::{Alarm, Elapsed};
use crate::stream::{ReadHalf, Stream, WriteHalf};

pub struct Reader {
    half: ReadHalf,
    /// What was read and not yet taken.
    pub buf: BytesMut,
}

/// Collects small pieces and hands large ones to the kernel where they lie.
pub struct Writer {
    half: WriteHalf,
    /// Copied pieces, before `body`.
    front: Cursor,
    /// One large piece, uncopied.
    body: Bytes,
    /// Copied pieces, after `body`.
    back: Cursor,
}

/// Buffers that one connection after the other uses.
#[derive(Default)]
pub struct Spare {
    read: BytesMut,
    front: Vec<u8>,
    back: Vec<u8>,
}

/// Bytes to write, and how many of them are written.
#[derive(Default)]
struct Cursor {
    bytes: Vec<u8>,
    written: usize,
}

/// Room for one read of a head. Heads are mostly far smaller; a larger one grows the buffer.
pub const HEAD_ROOM_BYTES: usize = 8 * 1024;

/// Room for one read of a body. Larger reads gain little more (measured by clash-rs: 4 KiB cost several times this).
pub const BODY_ROOM_BYTES: usize = 64 * 1024;

/// A piece up to this size is cheaper copied into the same write than given to the kernel as one more vector.
const COPY_LIMIT_BYTES: usize = 4 * 1024;

/// Copied pieces are written when they have grown to this.
const FULL_BYTES: usize = 32 * 1024;

pub fn split(stream: impl Into<Stream>) -> (Reader, Writer) {
    let (read, write) = stream.into().into_split();
    let reader = Reader {
        half: read,
        buf: BytesMut::new(),
    };
    let writer = Writer {
        half: write,
        front: Cursor::default(),
        body: Bytes::new(),
        back: Cursor::default(),
    };
    (reader, writer)
}

impl Spare {
    /// Gives the buffers to a connection that has none in use.
    pub fn lend(&mut self, reader: &mut Reader, writer: &mut Writer) {
        if reader.buf.is_empty() {
            std::mem::swap(&mut reader.buf, &mut self.read);
        }
        for (cursor, spare) in self.cursors(writer) {
            if cursor.is_done() {
                std::mem::swap(&mut cursor.bytes, spare);
            }
        }
    }

    /// Takes the buffers of a connection that is idle now; large ones are freed. One that is in use stays.
    pub fn take_back(&mut self, reader: &mut Reader, writer: &mut Writer) {
        if reader.buf.is_empty() {
            self.read = std::mem::take(&mut reader.buf);
            if self.read.capacity() > 2 * HEAD_ROOM_BYTES {
                self.read = BytesMut::new();
            }
        }
        for (cursor, spare) in self.cursors(writer) {
            if cursor.is_done() {
                *spare = std::mem::take(&mut cursor.bytes);
                spare.clear();
                if spare.capacity() > HEAD_ROOM_BYTES {
                    *spare = Vec::new();
                }
            }
        }
    }

    fn cursors<'a>(&'a mut self, writer: &'a mut Writer) -> [(&'a mut Cursor, &'a mut Vec<u8>); 2] {
        [
            (&mut writer.front, &mut self.front),
            (&mut writer.back, &mut self.back),
        ]
    }
}

impl Reader {
    /// Reads once, appending to `buf`. 0: the other side has ended the connection.
    pub async fn fill(&mut self, room_bytes: usize) -> io::Result<usize> {
        // Reserving takes the old allocation again when nobody holds a slice of it any more.
        if self.buf.capacity() - self.buf.len() < room_bytes / 2 {
            self.buf.reserve(room_bytes);
        }
        self.half.read_buf(&mut self.buf).await
    }

    /// Reads what is there already; `None` when nothing is.
    pub async fn fill_now(&mut self, room_bytes: usize) -> Option<io::Result<usize>> {
        let mut fill = pin!(self.fill(room_bytes));
        poll_fn(|cx| match fill.as_mut().poll(cx) {
            Poll::Ready(filled) => Poll::Ready(Some(filled)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }

    /// Ready when there may be something to read, if only an error. It may be wrong, and is of a new socket.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.half.poll_read_ready(cx).map(drop)
    }

    /// Waits for the other side to end the connection. What it sends before that is kept for later, up to a bound,
    /// beyond which nothing is read and so no end is seen.
    pub async fn ended(&mut self) {
        loop {
            if self.buf.len() >= BODY_ROOM_BYTES {
                std::future::pending::<()>().await;
            }
            if self.buf.is_empty() {
                // No room is made for what may never come.
                poll_fn(|cx| self.poll_readable(cx)).await;
            }
            match self.fill(HEAD_ROOM_BYTES).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    /// Whether an idle connection is still good: nothing came, not even its end, as far as the event loop has heard.
    /// Costs no system call unless something did.
    pub fn is_quiet(&self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        if !self.buf.is_empty() {
            return false;
        }
        match self.half.poll_read_ready(&mut cx) {
            Poll::Pending => true,
            // Readiness may be stale.
            Poll::Ready(_) => self.is_quiet_now(),
        }
    }

    /// The same, as the kernel knows it at this moment; one system call.
    pub fn is_quiet_now(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        self.buf.is_empty()
            && matches!(
                rustix::net::recv(&self.half, &mut [0_u8; 1], flags),
                Err(Errno::AGAIN)
            )
    }
}

impl Writer {
    /// Where to append what is small: heads and chunk marks.
    pub fn small(&mut self) -> &mut Vec<u8> {
        match self.body.is_empty() {
            true => &mut self.front.bytes,
            false => &mut self.back.bytes,
        }
    }

    /// Appends a piece of a body. [`Self::is_full`] must be false.
    pub fn push(&mut self, piece: Bytes) {
        if piece.len() <= COPY_LIMIT_BYTES || !self.body.is_empty() {
            self.small().extend_from_slice(&piece);
        } else {
            self.body = piece;
        }
    }

    /// It is time to [`Self::flush`] before more is appended.
    pub fn is_full(&self) -> bool {
        !self.body.is_empty() || self.front.bytes.len() >= FULL_BYTES
    }

    /// Something waits to be written.
    pub fn has_pending(&self) -> bool {
        !self.front.is_done() || !self.body.is_empty() || !self.back.is_done()
    }

    /// Writes all that was appended; `limit` is for each write that has to wait. An elapsed or dropped flush can be
    /// taken up again.
    pub async fn flush(
        &mut self,
        alarm: &Alarm,
        limit: Duration,
    ) -> Result<io::Result<()>, Elapsed> {
        while self.has_pending() {
            if let Err(error) = alarm.limit(limit, self.write_once()).await? {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }

    /// Forgets what was appended and not written.
    pub fn clear(&mut self) {
        self.front = Cursor::default();
        self.body = Bytes::new();
        self.back = Cursor::default();
    }

    async fn write_once(&mut self) -> io::Result<()> {
        let pieces = [
            IoSlice::new(self.front.rest()),
            IoSlice::new(&self.body),
            IoSlice::new(self.back.rest()),
        ];
        // One piece goes as a plain write; empty vectors cost the kernel a look each.
        let used = match (self.body.is_empty(), self.back.is_done()) {
            (true, true) => self.half.write(self.front.rest()).await?,
            (false, true) if self.front.is_done() => self.half.write(&self.body).await?,
            (_, _) => self.half.write_vectored(&pieces).await?,
        };
        if used == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.cross_off(used);
        Ok(())
    }

    /// Says that nothing more comes; the other direction stays open.
    pub async fn shutdown(&mut self) -> io::Result<()> {
        self.half.shutdown().await
    }

    fn cross_off(&mut self, used: usize) {
        let rest = self.front.cross_off(used);
        let of_body = rest.min(self.body.len());
        self.body.advance(of_body);
        self.back.cross_off(rest - of_body);
        if self.body.is_empty() && self.front.is_done() {
            self.body = Bytes::new();
            std::mem::swap(&mut self.front, &mut self.back);
        }
    }
}

impl Cursor {
    fn rest(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    fn is_done(&self) -> bool {
        self.written == self.bytes.len()
    }

    /// Returns what is left of `used` for what comes after.
    fn cross_off(&mut self, used: usize) -> usize {
        let here = used.min(self.bytes.len() - self.written);
        self.written += here;
        if self.is_done() {
            self.bytes.clear();
            self.written = 0;
        }
        used - here
    }
}

/// Reads and throws away until the other side ends or `max_bytes` have come: closing a socket with unread bytes in it
/// makes the kernel reset the connection, which may destroy a response that is still on its way.
pub async fn linger(reader: &mut Reader, writer: &mut Writer, max_bytes: usize) {
    if writer.shutdown().await.is_err() {
        return;
    }
    let mut thrown_away = 0;
    while thrown_away < max_bytes {
        reader.buf.clear();
        match reader.fill(BODY_ROOM_BYTES).await {
            Ok(0) | Err(_) => return,
            Ok(read) => thrown_away += read,
        }
    }
}
