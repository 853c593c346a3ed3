//! The peer's side of one exchange over HTTP/2: a stream of a connection that many share.
//!
//! Not inlined, all of it: what is HTTP/1 steps over a call, and not over its code.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use super::count_interim;
use crate::error::UpstreamError;
use crate::http2::{ClientConnection, ClientStream, StreamError};
use crate::message::{BodySize, Headers, Piece, RequestHead, Scheme};
use crate::runtime::alarm::{Alarm, Alarms};

/// An exchange, from before its request to the end of its response.
pub struct Exchange {
    connection: Rc<ClientConnection>,
    scheme: Scheme,
    /// `None`: the request has not begun, or could not.
    stream: Option<ClientStream>,
    /// Error that is told when the exchange is waited for next.
    failed: Option<StreamError>,
    /// Piece of the response's body that has come and was not taken.
    received: Bytes,
    size: BodySize,
    /// `100 Continue` that have come.
    continues: usize,
    read_alarm: Alarm,
    write_alarm: Alarm,
}

impl Exchange {
    pub(super) fn new(connection: Rc<ClientConnection>, scheme: Scheme, alarms: &Alarms) -> Self {
        Self {
            connection,
            scheme,
            stream: None,
            failed: None,
            received: Bytes::new(),
            size: BodySize::None,
            continues: 0,
            read_alarm: alarms.alarm(),
            write_alarm: alarms.alarm(),
        }
    }

    #[inline(never)]
    pub(super) fn takes_upgrades(&self) -> bool {
        self.connection.takes_upgrades()
    }

    #[inline(never)]
    pub(super) fn retire(&self) {
        self.connection.retire();
    }

    #[inline(never)]
    pub(super) fn send_head(&mut self, request: &RequestHead, host: &[u8], body: BodySize) {
        match self.connection.begin(request, host, self.scheme, body) {
            Ok(stream) => self.stream = Some(stream),
            Err(error) => self.failed = Some(error),
        }
    }

    #[inline(never)]
    pub(super) fn is_full(&self) -> bool {
        self.stream.as_ref().is_some_and(ClientStream::is_full)
    }

    #[inline(never)]
    pub(super) fn send_data(&mut self, piece: Bytes) {
        if let Some(stream) = &mut self.stream {
            stream.send_data(piece);
        }
    }

    #[inline(never)]
    pub(super) fn finish(&mut self, trailers: &Headers) {
        if let Some(stream) = &mut self.stream {
            stream.finish(trailers);
        }
    }

    #[inline(never)]
    pub(super) fn end_tunnel(&mut self) -> io::Result<()> {
        match &mut self.stream {
            Some(stream) => {
                stream.finish(&Headers::new());
                stream.flush_now().map(drop)
            }
            None => Ok(()),
        }
    }

    /// Whether the request is handed over already.
    #[inline(never)]
    pub(super) fn post(&self) -> bool {
        self.stream.as_ref().is_some_and(ClientStream::is_sent)
    }

    #[inline(never)]
    pub(super) fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        limit: Duration,
        peer: &str,
    ) -> Poll<Result<(), UpstreamError>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(upstream_error(error, peer)));
        }
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Ok(()));
        };
        let flushed = stream.poll_flush(cx);
        if flushed.is_ready() || stream.has_progressed() {
            self.write_alarm.disarm();
        }
        if let Poll::Ready(flushed) = flushed {
            return Poll::Ready(flushed.map_err(|error| upstream_error(error, peer)));
        }
        ready!(self.write_alarm.poll_elapsed(limit, cx));
        self.connection.retire();
        Poll::Ready(Err(UpstreamError::SendTimeout {
            peer: peer.to_owned(),
            after: limit,
        }))
    }

    #[inline(never)]
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        headers: &mut Headers,
        peer: &str,
    ) -> Poll<Result<StatusCode, UpstreamError>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(upstream_error(error, peer)));
        }
        let Some(stream) = &mut self.stream else {
            return Poll::Pending;
        };
        loop {
            match ready!(stream.poll_head(cx, headers)) {
                Ok((StatusCode::CONTINUE, _)) => {
                    if let Err(error) = count_interim(&mut self.continues, peer) {
                        return Poll::Ready(Err(error));
                    }
                }
                Ok((status, size)) => {
                    self.size = size;
                    return Poll::Ready(Ok(status));
                }
                Err(error) => return Poll::Ready(Err(upstream_error(error, peer))),
            }
        }
    }

    /// Ready when this wait for the response has taken so long.
    #[inline(never)]
    pub(super) fn poll_late(&self, cx: &mut Context<'_>, limit: Duration) -> Poll<()> {
        self.read_alarm.poll_elapsed(limit, cx)
    }

    #[inline(never)]
    pub(super) fn size(&self) -> BodySize {
        self.size
    }

    /// Takes what has come. An error is told by [`Self::poll_fill`].
    #[inline(never)]
    pub(super) fn try_piece(&mut self) -> Piece {
        if !self.received.is_empty() {
            return Piece::Data(std::mem::take(&mut self.received));
        }
        let Some(stream) = &mut self.stream else {
            return Piece::End;
        };
        let mut cx = Context::from_waker(Waker::noop());
        match stream.poll_data(&mut cx) {
            Poll::Ready(Ok(Some(piece))) => Piece::Data(piece),
            Poll::Ready(Ok(None)) => Piece::End,
            Poll::Ready(Err(error)) => {
                self.failed = Some(StreamError::Failed(error));
                Piece::NeedMore
            }
            Poll::Pending => Piece::NeedMore,
        }
    }

    #[inline(never)]
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        peer: &str,
    ) -> Poll<Result<(), UpstreamError>> {
        if let Some(error) = self.failed.take() {
            return Poll::Ready(Err(upstream_error(error, peer)));
        }
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Ok(()));
        };
        if self.received.is_empty() && !stream.is_read() {
            match ready!(stream.poll_data(cx)) {
                Ok(piece) => self.received = piece.unwrap_or_default(),
                Err(error) => {
                    let error = StreamError::Failed(error);
                    return Poll::Ready(Err(upstream_error(error, peer)));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    #[inline(never)]
    pub(super) fn is_end(&self) -> bool {
        self.received.is_empty() && self.stream.as_ref().is_none_or(ClientStream::is_read)
    }

    #[inline(never)]
    pub(super) fn take_trailers(&mut self) -> Option<Headers> {
        self.stream.as_mut()?.take_trailers()
    }

    #[inline(never)]
    pub(super) fn disarm(&self) {
        self.read_alarm.disarm();
        self.write_alarm.disarm();
    }
}

fn upstream_error(error: StreamError, peer: &str) -> UpstreamError {
    let peer = peer.to_owned();
    match error {
        StreamError::NotProcessed(cause) => UpstreamError::NotProcessed { peer, cause },
        StreamError::Failed(cause) => UpstreamError::Io { peer, cause },
    }
}
