//! A body that goes out on a stream, of either side, as far as windows and buffers have room for it.

use std::io::{self, ErrorKind};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, SendStream};

use super::{head, io_error};
use crate::message::Headers;

/// Body on its way out.
#[derive(Default)]
pub(super) struct Outgoing {
    /// `None`: the head before it is not sent yet.
    stream: Option<SendStream<Bytes>>,
    pieces: Pieces,
    trailers: Headers,
    end: End,
    /// Bytes handed over.
    sent_bytes: u64,
    /// Bytes handed over when progress was last asked for.
    asked_at_bytes: u64,
}

/// State of the body's end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum End {
    /// More is appended.
    #[default]
    Open,
    /// Nothing is appended any more.
    Appended,
    /// The end was handed over.
    Sent,
}

/// Pieces in order, of which there are few.
#[derive(Default)]
struct Pieces {
    pieces: [Bytes; MAX_PIECES],
    begin: usize,
    end: usize,
    bytes: usize,
}

const MAX_PIECES: usize = 4;

/// Pieces of so many bytes are handed over before more are appended: a frame of the default size.
const FULL_BYTES: usize = 16 << 10;

/// A window that opens by less than this is no progress: opened byte by byte it would hold a stream for as long as the other
/// side likes (CVE-2026-49975).
const PROGRESS_BYTES: u64 = 1024;

impl Outgoing {
    /// Appends a piece. [`Self::is_full`] must be false.
    pub(super) fn push(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.pieces.push(piece);
        }
    }

    /// Whether it is time to flush before more is appended.
    pub(super) fn is_full(&self) -> bool {
        self.pieces.is_full()
    }

    /// Whether something was appended and not handed over.
    pub(super) fn has_pending(&self) -> bool {
        self.pieces.bytes > 0 || self.end == End::Appended
    }

    /// Ends the body with these fields.
    pub(super) fn finish(&mut self, trailers: &Headers) {
        self.trailers.clone_from(trailers);
        self.end = End::Appended;
    }

    /// Whether nothing follows the head, so that it ends the stream.
    pub(super) fn ends_with_head(&self) -> bool {
        self.end == End::Appended && self.pieces.bytes == 0 && self.trailers.is_empty()
    }

    /// The head is sent. `is_end`: it has ended the stream.
    pub(super) fn begin(&mut self, stream: SendStream<Bytes>, is_end: bool) {
        self.stream = Some(stream);
        if is_end {
            self.end = End::Sent;
        }
    }

    /// Takes back what was appended.
    pub(super) fn clear(&mut self) {
        self.pieces = Pieces::default();
        self.trailers.clear();
        self.end = End::Open;
    }

    pub(super) fn has_ended(&self) -> bool {
        self.end == End::Sent
    }

    /// Bytes handed over so far.
    pub(super) fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// Whether enough was handed over, since this was last true, to call it progress.
    pub(super) fn has_progressed(&mut self) -> bool {
        let has_progressed = self.sent_bytes - self.asked_at_bytes >= PROGRESS_BYTES;
        if has_progressed {
            self.asked_at_bytes = self.sent_bytes;
        }
        has_progressed
    }

    /// Hands over what was appended, as far as there is room for it. True: that was all.
    pub(super) fn flush_now(&mut self) -> io::Result<bool> {
        let Some(stream) = &mut self.stream else {
            return Ok(false);
        };
        let is_last = self.end == End::Appended && self.trailers.is_empty();
        while self.pieces.bytes > 0 {
            stream.reserve_capacity(self.pieces.bytes);
            let room = stream.capacity();
            if room == 0 {
                return Ok(false);
            }
            let part = self.pieces.take(room);
            self.sent_bytes += part.len() as u64;
            let is_end = is_last && self.pieces.bytes == 0;
            stream.send_data(part, is_end).map_err(io_error)?;
            if is_end {
                self.end = End::Sent;
            }
        }
        if self.end == End::Appended {
            let ended = match self.trailers.is_empty() {
                true => stream.send_data(Bytes::new(), true),
                false => stream.send_trailers(head::trailers(&self.trailers)),
            };
            ended.map_err(io_error)?;
            self.end = End::Sent;
        }
        Ok(true)
    }

    /// Ready when there may be more room.
    pub(super) fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Ok(()));
        };
        Poll::Ready(match ready!(stream.poll_capacity(cx)) {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(io_error(error)),
            None => Err(ErrorKind::ConnectionReset.into()),
        })
    }

    /// Ready when the other side has reset the stream, or the connection has ended. Pending before the head is sent.
    pub(super) fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.stream {
            Some(stream) => stream.poll_reset(cx).map(drop),
            None => Poll::Pending,
        }
    }

    /// Resets the stream. False: its head is not sent yet.
    pub(super) fn reset(&mut self, reason: Reason) -> bool {
        self.end = End::Sent;
        match &mut self.stream {
            Some(stream) => {
                stream.send_reset(reason);
                true
            }
            None => false,
        }
    }
}

impl Pieces {
    /// There must be room: see [`Self::is_full`].
    fn push(&mut self, piece: Bytes) {
        if self.end == MAX_PIECES {
            self.pieces.rotate_left(self.begin);
            self.end -= self.begin;
            self.begin = 0;
        }
        self.bytes += piece.len();
        self.pieces[self.end] = piece;
        self.end += 1;
    }

    fn is_full(&self) -> bool {
        self.end - self.begin == MAX_PIECES || self.bytes >= FULL_BYTES
    }

    /// Takes the first piece, or so many bytes of it.
    fn take(&mut self, bytes: usize) -> Bytes {
        let first = &mut self.pieces[self.begin];
        let part = match bytes < first.len() {
            true => first.split_to(bytes),
            false => {
                self.begin += 1;
                std::mem::take(first)
            }
        };
        self.bytes -= part.len();
        if self.begin == self.end {
            (self.begin, self.end) = (0, 0);
        }
        part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_out_in_order_and_in_parts() {
        let mut pieces = Pieces::default();
        for text in ["ab", "c", "def", "g"] {
            assert!(!pieces.is_full());
            pieces.push(Bytes::from(text));
        }
        assert!(pieces.is_full());
        let mut out = vec![pieces.take(1), pieces.take(9), pieces.take(9)];
        pieces.push(Bytes::from("hi"));
        while pieces.bytes > 0 {
            out.push(pieces.take(2));
        }
        assert_eq!(out.concat(), b"abcdefghi");
    }
}
