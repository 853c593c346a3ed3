//! A client's side of one exchange over HTTP/2: a stream.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Response, StatusCode};

use super::{SendOptions, Settings};
use crate::error::ClientError;
use crate::http2::ServerStream;
use crate::message::{BodySize, Headers, Piece, ReplyHead, never_has_body};
use crate::runtime::alarm::{Alarm, Disarm, Elapsed};
use crate::runtime::clock;

/// Alarms of one exchange.
pub struct Alarms<'c> {
    pub read: &'c Alarm,
    pub write: &'c Alarm,
}

/// A client's stream while its request is served.
pub struct Session<'c> {
    stream: ServerStream,
    alarms: Alarms<'c>,
    settings: &'c Settings,
    /// Piece of the request's body that has come and was not taken.
    received: Bytes,
    /// The client waits for `100 Continue`.
    expects_continue: bool,
    /// Head of the response that is not handed over yet.
    head: Option<Response<()>>,
    pieces: Pieces,
    trailers: Headers,
    end: End,
    /// Something of the response was handed over.
    has_begun: bool,
    /// Bytes of the response's body handed over.
    sent_bytes: u64,
    /// Bytes handed over since the write alarm was armed.
    progress_bytes: usize,
    /// Time that the client was waited for in all, with its response.
    waited: Duration,
}

/// State of the response's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// More is appended.
    Open,
    /// Nothing is appended any more.
    Appended,
    /// The end was handed over.
    Sent,
}

/// Pieces of the response's body in order, of which there are few.
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

/// A window that opens by less than this is no progress: opened byte by byte it would hold a stream for as long as the client
/// likes (CVE-2026-49975).
const PROGRESS_BYTES: usize = 1024;

impl<'c> Session<'c> {
    pub fn new(
        stream: ServerStream,
        alarms: Alarms<'c>,
        settings: &'c Settings,
        expects_continue: bool,
    ) -> Self {
        Self {
            stream,
            alarms,
            settings,
            received: Bytes::new(),
            expects_continue,
            head: None,
            pieces: Pieces::default(),
            trailers: Headers::new(),
            end: End::Open,
            has_begun: false,
            sent_bytes: 0,
            progress_bytes: 0,
            waited: Duration::ZERO,
        }
    }

    pub(super) fn try_piece(&mut self) -> Result<Piece, ClientError> {
        if !self.received.is_empty() {
            return Ok(Piece::Data(std::mem::take(&mut self.received)));
        }
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match self.stream.poll_data(&mut cx)? {
            Poll::Ready(Some(piece)) => Ok(Piece::Data(piece)),
            Poll::Ready(None) => Ok(Piece::End),
            Poll::Pending => Ok(Piece::NeedMore),
        }
    }

    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        limit: Duration,
    ) -> Poll<Result<io::Result<usize>, Elapsed>> {
        if self.received.is_empty() && !self.stream.is_read() {
            match self.stream.poll_data(cx) {
                Poll::Ready(Ok(piece)) => self.received = piece.unwrap_or_default(),
                Poll::Ready(Err(error)) => return Poll::Ready(Ok(Err(error))),
                Poll::Pending => {
                    let elapsed = self.alarms.read.poll_elapsed(limit, cx);
                    return elapsed.map(|()| Err(Elapsed));
                }
            }
        }
        self.alarms.read.disarm();
        // The end of a body is something, too: what comes of it tells [`Self::try_piece`].
        Poll::Ready(Ok(Ok(self.received.len().max(1))))
    }

    pub(super) fn is_read(&self) -> bool {
        self.received.is_empty() && self.stream.is_read()
    }

    pub(super) fn take_trailers(&mut self) -> Option<Headers> {
        self.stream.take_trailers()
    }

    pub(super) fn invite(&mut self) -> Result<(), ClientError> {
        if std::mem::take(&mut self.expects_continue) {
            let none = Headers::new();
            self.stream.send_interim(StatusCode::CONTINUE, &none)?;
        }
        Ok(())
    }

    pub(super) fn send_interim(
        &mut self,
        status: StatusCode,
        headers: &mut Headers,
    ) -> Result<(), ClientError> {
        headers.remove_hop_by_hop();
        self.settings.marks.add_to_response(headers);
        Ok(self.stream.send_interim(status, headers)?)
    }

    pub(super) fn watch(&self) -> Disarm<'c> {
        self.alarms.read.disarmed()
    }

    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_reset(cx)
    }

    pub(super) fn is_bodiless(&self, status: StatusCode) -> bool {
        never_has_body(status, self.stream.method())
    }

    pub(super) fn send_head(&mut self, head: &ReplyHead, options: SendOptions<'_>) -> bool {
        let SendOptions { size, date, .. } = options;
        let response = self.stream.response(head.status, &head.headers, size, date);
        self.head = Some(response);
        !self.is_bodiless(head.status) && size != BodySize::None
    }

    pub(super) fn send_data(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.pieces.push(piece);
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.pieces.is_full()
    }

    pub(super) fn has_pending(&self) -> bool {
        self.head.is_some() || self.pieces.bytes > 0 || self.end == End::Appended
    }

    /// Hands over what was appended, as far as there is room for it. True: that was all.
    pub(super) fn flush_now(&mut self) -> Result<bool, ClientError> {
        let is_last = self.end == End::Appended && self.trailers.is_empty();
        if let Some(head) = self.head.take() {
            self.has_begun = true;
            let is_end = is_last && self.pieces.bytes == 0;
            self.stream.send_head(head, is_end)?;
            self.note_end(is_end);
        }
        while self.pieces.bytes > 0 {
            let room = self.stream.room_for(self.pieces.bytes);
            if room == 0 {
                return Ok(false);
            }
            let part = self.pieces.take(room);
            self.sent_bytes += part.len() as u64;
            self.progress_bytes += part.len();
            let is_end = is_last && self.pieces.bytes == 0;
            self.stream.send_data(part, is_end)?;
            self.note_end(is_end);
        }
        if self.end == End::Appended {
            match self.trailers.is_empty() {
                true => self.stream.send_data(Bytes::new(), true)?,
                false => self.stream.send_trailers(&self.trailers)?,
            }
            self.note_end(true);
        }
        Ok(true)
    }

    fn note_end(&mut self, is_end: bool) {
        if is_end {
            self.end = End::Sent;
        }
    }

    pub(super) async fn flush(&mut self) -> Result<(), ClientError> {
        let _disarmed = self.alarms.write.disarmed();
        self.progress_bytes = 0;
        let mut since = None;
        poll_fn(|cx| self.poll_flush(cx, &mut since)).await
    }

    fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        since: &mut Option<Instant>,
    ) -> Poll<Result<(), ClientError>> {
        loop {
            if self.flush_now()? {
                return Poll::Ready(Ok(()));
            }
            if self.progress_bytes >= PROGRESS_BYTES {
                self.progress_bytes = 0;
                self.alarms.write.disarm();
            }
            if let Poll::Ready(room) = self.stream.poll_room(cx) {
                room?;
                continue;
            }
            ready!(self.poll_late(cx, since));
            return Poll::Ready(Err(ClientError::SendTimeout(self.settings.send_timeout)));
        }
    }

    /// Ready when the client has been waited for for too long: since its last progress, or in all at the rate that there is.
    fn poll_late(&mut self, cx: &mut Context<'_>, since: &mut Option<Instant>) -> Poll<()> {
        let now = clock::now();
        self.waited += now - *since.get_or_insert(now);
        *since = Some(now);
        let by_rate = self.settings.send_rate.time_for(self.sent_bytes);
        if by_rate.is_some_and(|limit| self.waited > limit) {
            return Poll::Ready(());
        }
        let limit = match by_rate {
            Some(by_rate) => self.settings.send_timeout.min(by_rate - self.waited),
            None => self.settings.send_timeout,
        };
        self.alarms.write.poll_elapsed(limit, cx)
    }

    pub(super) fn finish(&mut self, trailers: &Headers) {
        self.trailers.clone_from(trailers);
        self.end = End::Appended;
    }

    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    pub(super) fn withdraw(&mut self) {
        self.head = None;
        self.pieces = Pieces::default();
        self.trailers.clear();
        self.end = End::Open;
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
        let mut out = Vec::new();
        out.push(pieces.take(1));
        out.push(pieces.take(9));
        assert!(pieces.is_full() || pieces.end == MAX_PIECES);
        out.push(pieces.take(9));
        pieces.push(Bytes::from("hi"));
        while pieces.bytes > 0 {
            out.push(pieces.take(2));
        }
        assert_eq!(out.concat(), b"abcdefghi");
    }
}
