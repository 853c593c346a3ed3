//! A client's side of one exchange over HTTP/2: a stream.
//!
//! Not inlined, all of it: what is HTTP/1 steps over a call, and not over its code.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, StatusCode};

use super::{SendOptions, Settings};
use crate::error::ClientError;
use crate::http2::ServerStream;
use crate::message::{BodySize, Headers, Piece, Protocol, ReplyHead, never_has_body};
use crate::runtime::alarm::{Alarm, Disarm, Elapsed};
use crate::runtime::clock;

/// Alarms of one exchange.
pub struct Alarms<'c> {
    pub read: &'c Alarm,
    pub write: &'c Alarm,
}

/// A client's stream while its request is served.
pub struct Session<'c> {
    stream: Box<ServerStream>,
    alarms: Alarms<'c>,
    settings: &'c Settings,
    /// Piece of the request's body that has come and was not taken.
    received: Bytes,
    /// More of the request's body is waited for.
    is_waited_for: bool,
    /// The client waits for `100 Continue`.
    expects_continue: bool,
    /// Time that the client was waited for in all, with its response.
    waited: Duration,
}

impl<'c> Session<'c> {
    pub fn new(
        stream: Box<ServerStream>,
        alarms: Alarms<'c>,
        settings: &'c Settings,
        expects_continue: bool,
    ) -> Self {
        Self {
            stream,
            alarms,
            settings,
            received: Bytes::new(),
            is_waited_for: false,
            expects_continue,
            waited: Duration::ZERO,
        }
    }

    #[inline(never)]
    pub(super) fn try_piece(&mut self) -> Result<Piece, ClientError> {
        if !self.received.is_empty() {
            return Ok(Piece::Data(std::mem::take(&mut self.received)));
        }
        if self.is_waited_for && !self.stream.is_read() {
            // Whoever waits is to see the end of the wait, and counts its time.
            return Ok(Piece::NeedMore);
        }
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match self.stream.poll_data(&mut cx)? {
            Poll::Ready(Some(piece)) => Ok(Piece::Data(piece)),
            Poll::Ready(None) => Ok(Piece::End),
            Poll::Pending => Ok(Piece::NeedMore),
        }
    }

    #[inline(never)]
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
                    self.is_waited_for = true;
                    let elapsed = self.alarms.read.poll_elapsed(limit, cx);
                    return elapsed.map(|()| Err(Elapsed));
                }
            }
        }
        self.alarms.read.disarm();
        self.is_waited_for = false;
        // The end of a body is something, too: what comes of it tells [`Self::try_piece`].
        Poll::Ready(Ok(Ok(self.received.len().max(1))))
    }

    #[inline(never)]
    pub(super) fn is_read(&self) -> bool {
        self.received.is_empty() && self.stream.is_read()
    }

    #[inline(never)]
    pub(super) fn take_trailers(&mut self) -> Option<Headers> {
        self.stream.take_trailers()
    }

    #[inline(never)]
    pub(super) fn invite(&mut self) -> Result<(), ClientError> {
        if std::mem::take(&mut self.expects_continue) {
            let none = Headers::new();
            self.stream.send_interim(StatusCode::CONTINUE, &none)?;
        }
        Ok(())
    }

    #[inline(never)]
    pub(super) fn send_interim(
        &mut self,
        status: StatusCode,
        headers: &mut Headers,
    ) -> Result<(), ClientError> {
        headers.remove_hop_by_hop();
        self.settings
            .marks
            .add_to_response(headers, Protocol::Http11);
        Ok(self.stream.send_interim(status, headers)?)
    }

    #[inline(never)]
    pub(super) fn watch(&self) -> Disarm<'c> {
        self.alarms.read.disarmed()
    }

    #[inline(never)]
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.poll_reset(cx)
    }

    #[inline(never)]
    pub(super) fn is_bodiless(&self, status: StatusCode) -> bool {
        never_has_body(status, self.stream.method())
    }

    #[inline(never)]
    pub(super) fn send_head(&mut self, head: &ReplyHead, options: SendOptions<'_>) -> bool {
        let SendOptions { size, date, .. } = options;
        let ReplyHead { status, headers } = head;
        self.stream.send_head(*status, headers, size, date);
        !self.is_bodiless(*status) && size != BodySize::None
    }

    #[inline(never)]
    pub(super) fn is_connect(&self) -> bool {
        *self.stream.method() == Method::CONNECT
    }

    /// RFC 8441 §5: 200 and no field of the handshake over HTTP/1.
    #[inline(never)]
    pub(super) fn switch(&mut self, head: &ReplyHead) {
        let mut headers = head.headers.clone();
        headers.retain(|name, _| name != b"sec-websocket-accept");
        let (status, size) = (StatusCode::OK, BodySize::Unknown);
        self.stream.send_head(status, &headers, size, None);
    }

    #[inline(never)]
    pub(super) fn send_data(&mut self, piece: Bytes) {
        self.stream.send_data(piece);
    }

    #[inline(never)]
    pub(super) fn is_full(&self) -> bool {
        self.stream.is_full()
    }

    #[inline(never)]
    pub(super) fn has_pending(&self) -> bool {
        self.stream.has_pending()
    }

    #[inline(never)]
    pub(super) fn flush_now(&mut self) -> Result<bool, ClientError> {
        Ok(self.stream.flush_now()?)
    }

    pub(super) async fn flush(&mut self) -> Result<(), ClientError> {
        let _disarmed = self.alarms.write.disarmed();
        let mut since = None;
        poll_fn(|cx| self.poll_flush(cx, &mut since)).await
    }

    #[inline(never)]
    pub(super) fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        since: &mut Option<Instant>,
    ) -> Poll<Result<(), ClientError>> {
        if let Poll::Ready(sent) = self.poll_sent(cx) {
            return Poll::Ready(sent);
        }
        ready!(self.poll_late(cx, since));
        Poll::Ready(Err(ClientError::SendTimeout(self.settings.send_timeout)))
    }

    /// Hands over what was appended, however long that takes.
    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        loop {
            if self.flush_now()? {
                self.alarms.write.disarm();
                return Poll::Ready(Ok(()));
            }
            if self.stream.has_progressed() {
                self.alarms.write.disarm();
            }
            ready!(self.stream.poll_room(cx))?;
        }
    }

    /// Polls as [`Self::poll_flush`] does, with this limit for each wait and at any rate.
    #[inline(never)]
    pub(super) fn poll_flush_within(
        &mut self,
        cx: &mut Context<'_>,
        limit: Duration,
    ) -> Poll<Result<(), ClientError>> {
        if let Poll::Ready(sent) = self.poll_sent(cx) {
            return Poll::Ready(sent);
        }
        ready!(self.alarms.write.poll_elapsed(limit, cx));
        Poll::Ready(Err(ClientError::SendTimeout(limit)))
    }

    /// Ready when the client has been waited for for too long: since its last progress, or in all at the rate that there is.
    fn poll_late(&mut self, cx: &mut Context<'_>, since: &mut Option<Instant>) -> Poll<()> {
        let now = clock::now();
        self.waited += now - *since.get_or_insert(now);
        *since = Some(now);
        let by_rate = self.settings.send_rate.time_for(self.stream.sent_bytes());
        if by_rate.is_some_and(|limit| self.waited > limit) {
            return Poll::Ready(());
        }
        let limit = match by_rate {
            Some(by_rate) => self.settings.send_timeout.min(by_rate - self.waited),
            None => self.settings.send_timeout,
        };
        self.alarms.write.poll_elapsed(limit, cx)
    }

    #[inline(never)]
    pub(super) fn finish(&mut self, trailers: &Headers) {
        self.stream.finish(trailers);
    }

    #[inline(never)]
    pub(super) fn has_begun(&self) -> bool {
        self.stream.has_begun()
    }

    #[inline(never)]
    pub(super) fn withdraw(&mut self) {
        self.stream.withdraw();
    }
}
