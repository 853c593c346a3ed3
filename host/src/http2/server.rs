//! The server's side: connections of clients, and the streams that they bring.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{Method, Request, Response, StatusCode};
use tracing::debug;

use super::head::{self, Form, HeadError, ReceivedRequest};
use super::io::{Io, IoState};
use crate::config::Http2Settings;
use crate::message::{BodySize, HeadLimits, HeadRoom, Headers};
use crate::transport::Transport;

/// Settings of a listener's connections, made at load.
pub struct Builder {
    inner: h2::server::Builder,
    limits: HeadLimits,
}

/// A client's connection. Its frames move only while it is polled.
pub struct ServerConnection {
    inner: Connection<Io, Bytes>,
    state: Rc<IoState>,
    limits: HeadLimits,
    /// The client was told why its connection ends.
    is_ending: bool,
}

/// Request of a connection, and the way of its response. Dropped before its response has ended, it is reset.
pub struct ServerStream {
    request: Request<()>,
    body: RecvStream,
    response: Side,
    state: Rc<IoState>,
    limits: HeadLimits,
    /// Bytes that were handed out and for which the windows are not open again.
    held_bytes: usize,
    is_read: bool,
    trailers: Option<Headers>,
    /// The response has ended, or was given up.
    has_ended: bool,
}

enum Side {
    /// The head of the response is to come.
    Head(SendResponse<Bytes>),
    Body(SendStream<Bytes>),
}

/// Bytes of data that are kept for a stream beyond what the socket has taken.
const SEND_BUFFER_BYTES: usize = 64 << 10;

/// Streams that were reset before the gateway has looked at them. A client that resets at once gets here no further than
/// this (CVE-2023-44487); those that were looked at are counted by [`super::flood`].
const PENDING_RESETS: usize = 20;

/// Streams that the gateway has reset for a client's errors, in a connection's life (CVE-2025-8671).
const LOCAL_ERROR_RESETS: usize = 256;

/// RFC 9113 §6.5.2: name, value and 32 bytes are counted for each field, which HTTP/1's limit does not.
const FIELD_OVERHEAD_BYTES: u32 = 32;

/// Fields that are counted so for the size of a list.
const USUAL_FIELDS: u32 = 128;

impl Builder {
    pub fn new(settings: &Http2Settings, limits: &HeadLimits) -> Self {
        let mut inner = h2::server::Builder::new();
        let list_bytes = u32::try_from(limits.max_head_bytes).unwrap_or(u32::MAX);
        inner
            .max_concurrent_streams(settings.max_concurrent_streams)
            .initial_window_size(settings.stream_window_bytes)
            .initial_connection_window_size(settings.connection_window_bytes)
            .max_header_list_size(list_bytes.saturating_add(FIELD_OVERHEAD_BYTES * USUAL_FIELDS))
            .max_pending_accept_reset_streams(PENDING_RESETS)
            .max_local_error_reset_streams(Some(LOCAL_ERROR_RESETS))
            .max_send_buffer_size(SEND_BUFFER_BYTES);
        Self {
            inner,
            limits: *limits,
        }
    }

    /// Exchanges prefaces. `received`: what was read of the client's before.
    pub async fn handshake(
        &self,
        transport: Rc<Transport>,
        received: BytesMut,
    ) -> io::Result<ServerConnection> {
        let state = Rc::new(IoState::default());
        let io = Io::new(transport, received, Rc::clone(&state));
        let inner = self.inner.handshake(io).await.map_err(io_error)?;
        Ok(ServerConnection {
            inner,
            state,
            limits: self.limits,
            is_ending: false,
        })
    }
}

impl ServerConnection {
    /// Moves frames, until a stream begins. `None`: the connection has ended.
    pub fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<Option<ServerStream>> {
        loop {
            match self.inner.poll_accept(cx) {
                Poll::Ready(Some(Ok(accepted))) => {
                    return Poll::Ready(Some(self.stream(accepted)));
                }
                Poll::Ready(Some(Err(error))) => {
                    debug!("HTTP/2: connection ended: {error}");
                    return Poll::Ready(None);
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending if self.state.allowance.is_used_up() && !self.is_ending => {
                    debug!("HTTP/2: connection ended: too many frames that bring nothing");
                    self.end(Reason::ENHANCE_YOUR_CALM);
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn stream(
        &self,
        (request, response): (Request<RecvStream>, SendResponse<Bytes>),
    ) -> ServerStream {
        let (parts, body) = request.into_parts();
        ServerStream {
            is_read: body.is_end_stream(),
            request: Request::from_parts(parts, ()),
            body,
            response: Side::Head(response),
            state: Rc::clone(&self.state),
            limits: self.limits,
            held_bytes: 0,
            trailers: None,
            has_ended: false,
        }
    }

    /// Has the client begin no more streams (GOAWAY twice, RFC 9113 §6.8). The connection ends when those that there are have.
    pub fn begin_drain(&mut self) {
        self.inner.graceful_shutdown();
    }

    /// Ends the connection, which has nothing to do any more. Streams that cross this were not looked at, and the client knows.
    pub fn end_idle(&mut self) {
        self.end(Reason::NO_ERROR);
    }

    fn end(&mut self, reason: Reason) {
        if !std::mem::replace(&mut self.is_ending, true) {
            self.inner.abrupt_shutdown(reason);
        }
    }

    /// Whether the client was told that the connection ends now.
    pub fn is_ending(&self) -> bool {
        self.is_ending
    }

    pub fn is_flooded(&self) -> bool {
        self.state.allowance.is_used_up()
    }

    pub fn has_streams(&self) -> bool {
        self.inner.has_streams()
    }

    /// Whether bytes wait for the client to take others.
    pub fn is_blocked(&self) -> bool {
        self.state.is_blocked.get()
    }

    /// Bytes written so far.
    pub fn written_bytes(&self) -> u64 {
        self.state.written.get()
    }

    /// Whether the fields of a head have begun to come and are not whole.
    pub fn is_within_head(&self) -> bool {
        self.state.is_within_head.get()
    }
}

impl ServerStream {
    /// Method by which the client has asked.
    pub fn method(&self) -> &Method {
        self.request.method()
    }

    /// Takes the request's head, once. `room` is for it.
    pub fn take_head(&mut self, room: &mut HeadRoom) -> Result<ReceivedRequest, HeadError> {
        let received = head::read_request(&self.request, self.is_read, &self.limits, room);
        // Fields that were taken over are of no use any more.
        *self.request.headers_mut() = http::HeaderMap::new();
        received
    }

    /// Polls for the next piece of the request's body, which is not empty. `None`: it has ended. Windows open for the piece
    /// before.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        self.release();
        while !self.is_read {
            match ready!(self.body.poll_data(cx)) {
                Some(Ok(piece)) if piece.is_empty() => {}
                Some(Ok(piece)) => {
                    self.held_bytes = piece.len();
                    return Poll::Ready(Ok(Some(piece)));
                }
                Some(Err(error)) => return Poll::Ready(Err(io_error(error))),
                None => {
                    let trailers = ready!(self.body.poll_trailers(cx)).map_err(io_error)?;
                    self.trailers = trailers.map(|fields| head::read_trailers(&fields));
                    self.is_read = true;
                }
            }
        }
        Poll::Ready(Ok(None))
    }

    /// Opens the windows for what was handed out.
    fn release(&mut self) {
        let bytes = std::mem::take(&mut self.held_bytes);
        if bytes > 0 {
            // Releasing fails only for more than was received.
            let _ = self.body.flow_control().release_capacity(bytes);
        }
    }

    /// Whether nothing of the request's body is left to come.
    pub fn is_read(&self) -> bool {
        self.is_read
    }

    /// Fields after the body, once.
    pub fn take_trailers(&mut self) -> Option<Headers> {
        self.trailers.take().filter(|trailers| !trailers.is_empty())
    }

    /// Sends an interim response.
    pub fn send_interim(&mut self, status: StatusCode, headers: &Headers) -> io::Result<()> {
        let form = Form {
            method: self.request.method(),
            size: BodySize::None,
            date: None,
        };
        let interim = head::response(status, headers, &form);
        match &mut self.response {
            Side::Head(response) => response.send_informational(interim).map_err(io_error),
            Side::Body(_) => Ok(()),
        }
    }

    /// Makes the head of a response, to be sent. `size` is of what there is to send.
    pub fn response(
        &self,
        status: StatusCode,
        headers: &Headers,
        size: BodySize,
        date: Option<&[u8; 29]>,
    ) -> Response<()> {
        let form = Form {
            method: self.request.method(),
            size,
            date,
        };
        head::response(status, headers, &form)
    }

    /// Sends the response's head, once. `is_end`: nothing follows.
    pub fn send_head(&mut self, head: Response<()>, is_end: bool) -> io::Result<()> {
        if let Side::Head(response) = &mut self.response {
            let body = response.send_response(head, is_end).map_err(io_error)?;
            self.response = Side::Body(body);
            self.note_end(is_end);
        }
        Ok(())
    }

    /// Bytes that windows and buffer have room for now, of these that are to be sent.
    pub fn room_for(&mut self, bytes: usize) -> usize {
        match &mut self.response {
            Side::Head(_) => 0,
            Side::Body(body) => {
                body.reserve_capacity(bytes);
                body.capacity()
            }
        }
    }

    /// Ready when there may be more room.
    pub fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Side::Body(body) = &mut self.response else {
            return Poll::Ready(Ok(()));
        };
        Poll::Ready(match ready!(body.poll_capacity(cx)) {
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(io_error(error)),
            None => Err(io::ErrorKind::ConnectionReset.into()),
        })
    }

    /// Sends a piece, for which there must be room.
    pub fn send_data(&mut self, piece: Bytes, is_end: bool) -> io::Result<()> {
        let Side::Body(body) = &mut self.response else {
            return Ok(());
        };
        self.state.allowance.sent(piece.len());
        body.send_data(piece, is_end).map_err(io_error)?;
        self.note_end(is_end);
        Ok(())
    }

    /// Ends the response with these fields.
    pub fn send_trailers(&mut self, trailers: &Headers) -> io::Result<()> {
        let Side::Body(body) = &mut self.response else {
            return Ok(());
        };
        body.send_trailers(head::trailers(trailers))
            .map_err(io_error)?;
        self.note_end(true);
        Ok(())
    }

    fn note_end(&mut self, is_end: bool) {
        if is_end {
            self.has_ended = true;
            self.state.allowance.responded();
        }
    }

    /// Ready when the client has reset the stream, or its connection has ended.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.response {
            Side::Head(response) => response.poll_reset(cx).map(drop),
            Side::Body(body) => body.poll_reset(cx).map(drop),
        }
    }

    /// Ends a stream that was not worked on: the client may send its request again.
    pub fn refuse(&mut self) {
        self.reset(Reason::REFUSED_STREAM);
    }

    fn reset(&mut self, reason: Reason) {
        self.has_ended = true;
        match &mut self.response {
            Side::Head(response) => response.send_reset(reason),
            Side::Body(body) => body.send_reset(reason),
        }
    }
}

impl Drop for ServerStream {
    /// Tells the client that something is missing, where it is. The codec itself resets a stream whose request nobody has read to
    /// its end (RFC 9113 §8.1).
    fn drop(&mut self) {
        if !self.has_ended {
            self.reset(Reason::INTERNAL_ERROR);
        }
    }
}

/// Kind of an error that ends a stream or a connection: the client's doing, however it has come about.
fn io_error(error: h2::Error) -> io::Error {
    match error.is_io() {
        true => error
            .into_io()
            .unwrap_or_else(|| io::ErrorKind::BrokenPipe.into()),
        false => io::Error::new(io::ErrorKind::ConnectionReset, error),
    }
}
