//! The two halves of a connection, each with its buffer. Clients and peers are talked to through these alike.
//!
//! All waiting here can be dropped and taken up again: what was read is in the buffer, what was written is crossed off.

use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice};
use std::mem;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};

use crate::config::Rate;
use crate::runtime::alarm::{Alarm, Elapsed};
use crate::transport::coop_budget::CoopBudget;
use crate::transport::{Read, Transport};

pub struct Reader {
    transport: Rc<Transport>,
    budget: CoopBudget,
    /// The last read has left room: to read again would be in vain before there was a wait.
    drained: bool,
    /// Bytes that were read and not yet taken.
    pub buf: BytesMut,
}

/// Collects small pieces and hands large ones to the kernel where they lie.
pub struct Writer {
    transport: Rc<Transport>,
    budget: CoopBudget,
    /// Copied pieces, before `body`.
    front: Cursor,
    /// A large piece, uncopied.
    body: Bytes,
    /// Copied pieces, after `body`.
    back: Cursor,
}

/// Buffers that one connection after the other uses.
#[derive(Default)]
pub struct BufferSet {
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

/// End of a connection by the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The other side has ended its direction, or all of the connection: the two cannot be told apart (RFC 9112 §9.6).
    InOrder,
    Reset,
}

/// Result of writing as much as goes at once.
enum Written {
    All,
    /// Others must have their turn first.
    TurnOver,
    /// The kernel takes no more for now.
    Blocked {
        has_progressed: bool,
    },
}

/// Room for one read of a head. Heads are mostly far smaller; a larger one grows the buffer.
pub const HEAD_ROOM_BYTES: usize = 8 * 1024;

/// Room for one read of a body. Larger reads gain little more (measured by clash-rs: 4 KiB cost several times this).
pub const BODY_ROOM_BYTES: usize = 64 * 1024;

/// A piece up to this size is cheaper copied into the same write than given to the kernel as one more vector.
const COPY_LIMIT_BYTES: usize = 4 * 1024;

/// Copied pieces are written when they have grown to this.
const FULL_BYTES: usize = 32 * 1024;

pub fn split(transport: impl Into<Transport>) -> (Reader, Writer) {
    let transport = Rc::new(transport.into());
    let reader = Reader {
        transport: Rc::clone(&transport),
        budget: CoopBudget::default(),
        drained: false,
        buf: BytesMut::new(),
    };
    let writer = Writer {
        transport,
        budget: CoopBudget::default(),
        front: Cursor::default(),
        body: Bytes::new(),
        back: Cursor::default(),
    };
    (reader, writer)
}

/// Puts the halves together again: their transport, and what was read of it and not taken.
pub fn rejoin(reader: Reader, writer: Writer) -> (Rc<Transport>, BytesMut) {
    drop(writer);
    (reader.transport, reader.buf)
}

impl BufferSet {
    /// Gives the buffers to a connection that has none in use.
    pub fn lend(&mut self, reader: &mut Reader, writer: &mut Writer) {
        if reader.buf.is_empty() {
            mem::swap(&mut reader.buf, &mut self.read);
        }
        for (cursor, spare) in self.cursors(writer) {
            if cursor.is_done() {
                mem::swap(&mut cursor.bytes, spare);
            }
        }
    }

    /// Takes the buffers of a connection that is idle now; large ones are freed. One that is in use stays.
    pub fn take_back(&mut self, reader: &mut Reader, writer: &mut Writer) {
        if reader.buf.is_empty() {
            mem::swap(&mut reader.buf, &mut self.read);
            if self.read.capacity() > 2 * HEAD_ROOM_BYTES {
                self.read = BytesMut::new();
            }
            if reader.buf.capacity() > 0 {
                reader.buf = BytesMut::new();
            }
        }
        for (cursor, spare) in self.cursors(writer) {
            if cursor.is_done() {
                cursor.bytes.clear();
                mem::swap(&mut cursor.bytes, spare);
                if spare.capacity() > HEAD_ROOM_BYTES {
                    *spare = Vec::new();
                }
                if cursor.bytes.capacity() > 0 {
                    cursor.bytes = Vec::new();
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
        poll_fn(|cx| self.poll_fill(cx, room_bytes)).await
    }

    /// Reads what is there already; `None` when nothing is.
    #[inline]
    pub fn fill_now(&mut self, room_bytes: usize) -> Option<io::Result<usize>> {
        // Reserving takes the old allocation again when nobody holds a slice of it any more.
        if self.buf.capacity() - self.buf.len() < room_bytes / 2 {
            self.buf.reserve(room_bytes);
        }
        match self.transport.try_read(&mut self.buf) {
            Ok(Read { bytes, drained }) => {
                self.drained = drained;
                Some(Ok(bytes))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Polls [`Self::fill`].
    pub fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        room_bytes: usize,
    ) -> Poll<io::Result<usize>> {
        if !self.budget.goes_on() {
            ready!(pin!(tokio::task::yield_now()).poll(cx));
        }
        loop {
            if !mem::take(&mut self.drained)
                && let Some(filled) = self.fill_now(room_bytes)
            {
                self.budget.add(*filled.as_ref().unwrap_or(&0));
                return Poll::Ready(filled);
            }
            self.budget.end();
            ready!(self.transport.poll_read_ready(cx))?;
        }
    }

    /// Ready when there may be something to read, if only an error. It may be wrong, and is of a new socket.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.transport.poll_read_ready(cx).map(drop)
    }

    /// Whether the wait is over, for a reader that has waited.
    pub fn is_readable(&self) -> bool {
        self.transport.is_read_ready()
    }

    /// Ready when the other side has ended the connection, in order or by a reset. Must not be called again then: the event
    /// loop tells an end in order again and again. What it sends before that is kept for later, up to a bound,
    /// beyond which nothing is read and so no end is seen.
    pub fn poll_ended(&mut self, cx: &mut Context<'_>) -> Poll<Ended> {
        loop {
            if self.buf.len() >= BODY_ROOM_BYTES {
                return Poll::Pending;
            }
            if self.buf.is_empty() {
                // No room is made for what may never come.
                ready!(self.poll_readable(cx));
            }
            match ready!(self.poll_fill(cx, HEAD_ROOM_BYTES)) {
                Ok(0) => return Poll::Ready(Ended::InOrder),
                Err(_) => return Poll::Ready(Ended::Reset),
                Ok(_) => {}
            }
        }
    }

    /// Whether an idle connection is still good: nothing came on it, not even its end ([`Transport::is_reusable`]).
    pub fn is_quiet(&self) -> bool {
        self.buf.is_empty() && self.transport.is_reusable(false)
    }

    /// Whether it is, as the kernel knows it at this moment; one system call.
    pub fn is_quiet_now(&self) -> bool {
        self.buf.is_empty() && self.transport.is_reusable(true)
    }

    /// Whether bytes have come, and not just an end.
    pub fn has_bytes(&self) -> bool {
        !self.buf.is_empty() || self.transport.has_unread()
    }
}

impl Writer {
    /// Whether what is written is sealed.
    pub fn is_tls(&self) -> bool {
        self.transport.is_tls()
    }

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

    /// Whether it is time to [`Self::flush`] before more is appended.
    pub fn is_full(&self) -> bool {
        !self.body.is_empty() || self.front.bytes.len() >= FULL_BYTES
    }

    /// Something waits to be written.
    pub fn has_pending(&self) -> bool {
        !self.front.is_done() || !self.body.is_empty() || !self.back.is_done()
    }

    /// Has all that was appended written together with what others have to write, as soon as what has come meanwhile is worked
    /// on: for the last piece before the other side is to speak. False: it is too much, and must be flushed. What cannot be
    /// written is learnt from the reader.
    pub fn post(&mut self) -> bool {
        let is_small = self.body.is_empty() && self.back.is_done() && self.front.written == 0;
        is_small && self.transport.post(&mut self.front.bytes)
    }

    /// Nothing is left of what was posted.
    pub fn is_settled(&self) -> bool {
        !self.transport.has_backlog()
    }

    /// Waits until nothing is, at most for so long.
    pub async fn settle(&self, alarm: &Alarm, limit: Duration) -> Result<(), Elapsed> {
        if self.is_settled() {
            return Ok(());
        }
        let settled = poll_fn(|cx| self.transport.poll_settled(cx));
        alarm.limit(limit, settled).await
    }

    /// Writes what was appended, as far as the kernel takes it at once. True: that was all; else it is to be flushed.
    pub fn flush_now(&mut self) -> io::Result<bool> {
        if !self.is_settled() || !self.has_pending() {
            return Ok(false);
        }
        match self.write_now() {
            Ok(used) => self.budget.add(used),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
        Ok(!self.has_pending() && self.is_settled())
    }

    /// Writes all that was appended; `limit` is for each write that has to wait. An elapsed or dropped flush can be
    /// taken up again.
    pub async fn flush(
        &mut self,
        alarm: &Alarm,
        limit: Duration,
    ) -> Result<io::Result<()>, Elapsed> {
        let _disarmed = alarm.disarmed();
        poll_fn(|cx| self.poll_flush(cx, alarm, limit)).await
    }

    /// Polls [`Self::flush`], as which it arms the alarm: what [`Alarm::disarmed`] returns must outlive the calls.
    pub fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        alarm: &Alarm,
        limit: Duration,
    ) -> Poll<Result<io::Result<()>, Elapsed>> {
        if !self.is_settled() {
            if self.transport.poll_settled(cx).is_pending() {
                return alarm.poll_elapsed(limit, cx).map(|()| Err(Elapsed));
            }
            alarm.disarm();
        }
        loop {
            match self.write_at_once() {
                Ok(Written::All) => {
                    // The next flush has its own time, also where one `Disarm` is for both, as that of a pump.
                    alarm.disarm();
                    return Poll::Ready(Ok(Ok(())));
                }
                Ok(Written::TurnOver) => {
                    alarm.disarm();
                    ready!(pin!(tokio::task::yield_now()).poll(cx));
                }
                Ok(Written::Blocked { has_progressed }) => {
                    if has_progressed {
                        alarm.disarm();
                    }
                    match self.transport.poll_write_ready(cx) {
                        Poll::Ready(Ok(())) => alarm.disarm(),
                        Poll::Ready(Err(error)) => return Poll::Ready(Ok(Err(error))),
                        Poll::Pending => {
                            return alarm.poll_elapsed(limit, cx).map(|()| Err(Elapsed));
                        }
                    }
                }
                Err(error) => return Poll::Ready(Ok(Err(error))),
            }
        }
    }

    /// Flushes at a rate: the bytes that the other side has taken, and not just the kernel, are looked at each
    /// `rate.after`.
    pub async fn flush_at(
        &mut self,
        alarm: &Alarm,
        limit: Duration,
        rate: Rate,
    ) -> Result<io::Result<()>, Elapsed> {
        if !self.is_settled() {
            self.settle(alarm, limit).await?;
        }
        loop {
            match self.write_at_once() {
                Ok(Written::All) => return Ok(Ok(())),
                Ok(Written::TurnOver) => tokio::task::yield_now().await,
                Ok(Written::Blocked { .. }) => {
                    if let Err(error) = self.writable(alarm, limit, rate).await? {
                        return Ok(Err(error));
                    }
                }
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    fn write_at_once(&mut self) -> io::Result<Written> {
        let mut has_progressed = false;
        while self.has_pending() {
            match self.write_now() {
                Ok(used) => {
                    has_progressed = true;
                    self.budget.add(used);
                    if self.has_pending() && !self.budget.goes_on() {
                        return Ok(Written::TurnOver);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.budget.end();
                    return Ok(Written::Blocked { has_progressed });
                }
                Err(error) => return Err(error),
            }
        }
        match self.transport.send_sealed() {
            Ok(()) => Ok(Written::All),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                Ok(Written::Blocked { has_progressed })
            }
            Err(error) => Err(error),
        }
    }

    /// Waits until the kernel takes more.
    async fn writable(
        &self,
        alarm: &Alarm,
        limit: Duration,
        rate: Rate,
    ) -> Result<io::Result<()>, Elapsed> {
        let writable = || poll_fn(|cx| self.transport.poll_write_ready(cx));
        if rate.min == 0 || limit <= rate.after {
            return alarm.limit(limit, writable()).await;
        }
        let least = rate.after.as_millis() * u128::from(rate.min) / 1000;
        let mut waited = Duration::ZERO;
        let mut queued = self.transport.unacknowledged_bytes();
        loop {
            let look = rate.after.min(limit - waited);
            if let Ok(writable) = alarm.limit(look, writable()).await {
                return Ok(writable);
            }
            waited += look;
            let left = self.transport.unacknowledged_bytes();
            if waited >= limit || (queued.saturating_sub(left) as u128) < least {
                return Err(Elapsed);
            }
            queued = left;
        }
    }

    /// Forgets what was appended and not written.
    pub fn clear(&mut self) {
        self.front = Cursor::default();
        self.body = Bytes::new();
        self.back = Cursor::default();
    }

    /// Writes once; returns how many bytes were taken.
    fn write_now(&mut self) -> io::Result<usize> {
        // A single piece goes as a plain write; empty vectors cost the kernel a look each.
        let used = if self.body.is_empty() && self.back.is_done() {
            self.transport.try_write(self.front.rest())?
        } else if self.front.is_done() && self.back.is_done() {
            self.transport.try_write(&self.body)?
        } else {
            self.transport.try_write_vectored(&[
                IoSlice::new(self.front.rest()),
                IoSlice::new(&self.body),
                IoSlice::new(self.back.rest()),
            ])?
        };
        if used == 0 {
            return Err(ErrorKind::WriteZero.into());
        }
        self.cross_off(used);
        Ok(used)
    }

    /// Whether closing the connection resets it: [`Transport::set_reset_on_close`].
    pub fn set_reset_on_close(&self, resets: bool) {
        self.transport.set_reset_on_close(resets);
    }

    /// Says that nothing more comes; the other direction stays open.
    pub fn close(&self) -> io::Result<()> {
        self.transport.close()
    }

    fn cross_off(&mut self, used: usize) {
        let rest = self.front.cross_off(used);
        let of_body = rest.min(self.body.len());
        self.body.advance(of_body);
        self.back.cross_off(rest - of_body);
        if self.body.is_empty() && self.front.is_done() {
            self.body = Bytes::new();
            mem::swap(&mut self.front, &mut self.back);
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
    if writer.close().is_err() {
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

#[cfg(test)]
mod tests;
