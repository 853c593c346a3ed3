//! The server's side: connections of clients, and the streams that they bring.

use std::io;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use tracing::debug;

use super::head::{self, Form, HeadError, ReceivedRequest};
use super::incoming::Incoming;
use super::io::{Io, IoState};
use super::io_error;
use super::outgoing::Outgoing;
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
    body: Incoming,
    /// The response's head is sent by it, once.
    respond: SendResponse<Bytes>,
    /// Head of the response that is not handed over yet.
    head: Option<Response<()>>,
    out: Outgoing,
    /// Something of the response was handed over.
    has_begun: bool,
    state: Rc<IoState>,
    limits: HeadLimits,
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
    /// `takes_tunnels`: clients are told that they may ask to go on with another protocol (RFC 8441 §3). A browser that is told so
    /// does, and does not try HTTP/1 where it is refused.
    pub fn new(settings: &Http2Settings, limits: &HeadLimits, takes_tunnels: bool) -> Self {
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
        if takes_tunnels {
            inner.enable_connect_protocol();
        }
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
    pub fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<Option<Box<ServerStream>>> {
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
                Poll::Pending => match self.state.end_reason() {
                    Some(reason) if !self.is_ending => {
                        debug!("HTTP/2: connection ended for what its client sends: {reason}");
                        self.end(reason);
                    }
                    _ => return Poll::Pending,
                },
            }
        }
    }

    fn stream(
        &self,
        (request, response): (Request<RecvStream>, SendResponse<Bytes>),
    ) -> Box<ServerStream> {
        let (parts, body) = request.into_parts();
        Box::new(ServerStream {
            request: Request::from_parts(parts, ()),
            body: Incoming::new(body),
            respond: response,
            head: None,
            out: Outgoing::default(),
            has_begun: false,
            state: Rc::clone(&self.state),
            limits: self.limits,
        })
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
        let is_end = self.body.is_read();
        let received = head::read_request(&self.request, is_end, &self.limits, room);
        // Fields that were taken over are of no use any more.
        *self.request.headers_mut() = HeaderMap::new();
        received
    }

    /// Polls for the next piece of the request's body, which is not empty. `None`: it has ended. Windows open for the piece
    /// before.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        self.body.poll_data(cx)
    }

    /// Whether nothing of the request's body is left to come.
    pub fn is_read(&self) -> bool {
        self.body.is_read()
    }

    /// Fields after the body, once; `None` when there were none.
    pub fn take_trailers(&mut self) -> Option<Headers> {
        self.body.take_trailers()
    }

    /// Sends an interim response, unless the response has begun.
    pub fn send_interim(&mut self, status: StatusCode, headers: &Headers) -> io::Result<()> {
        if self.has_begun {
            return Ok(());
        }
        let interim = head::response(status, headers, &self.form(BodySize::None, None));
        self.respond.send_informational(interim).map_err(io_error)
    }

    fn form<'f>(&'f self, size: BodySize, date: Option<&'f [u8; 29]>) -> Form<'f> {
        Form {
            method: self.request.method(),
            size,
            date,
        }
    }

    /// Appends the head of a response. `size` is of what there is to send; `date` is for a head that has none.
    pub fn send_head(
        &mut self,
        status: StatusCode,
        headers: &Headers,
        size: BodySize,
        date: Option<&[u8; 29]>,
    ) {
        let head = head::response(status, headers, &self.form(size, date));
        self.head = Some(head);
    }

    /// Appends a piece of the response's body. [`Self::is_full`] must be false.
    pub fn send_data(&mut self, piece: Bytes) {
        self.out.push(piece);
    }

    /// Whether it is time to flush before more is appended.
    pub fn is_full(&self) -> bool {
        self.out.is_full()
    }

    /// Whether something was appended and not handed over.
    pub fn has_pending(&self) -> bool {
        self.head.is_some() || self.out.has_pending()
    }

    /// Ends the response with these fields.
    pub fn finish(&mut self, trailers: &Headers) {
        self.out.finish(trailers);
    }

    /// Hands over what was appended, as far as there is room for it. True: that was all.
    pub fn flush_now(&mut self) -> io::Result<bool> {
        if let Some(head) = self.head.take() {
            self.has_begun = true;
            let is_end = self.out.ends_with_head();
            let body = self.respond.send_response(head, is_end);
            self.out.begin(body.map_err(io_error)?, is_end);
        }
        let before = self.out.sent_bytes();
        let flushed = self.out.flush_now();
        let allowance = &self.state.allowance;
        allowance.sent(self.out.sent_bytes() - before);
        if self.out.has_ended() {
            allowance.responded();
        }
        flushed
    }

    /// Ready when there may be more room.
    pub fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.out.poll_room(cx)
    }

    /// Whether enough was handed over, since this was last true, to call it progress.
    pub fn has_progressed(&mut self) -> bool {
        self.out.has_progressed()
    }

    /// Bytes of the response's body handed over.
    pub fn sent_bytes(&self) -> u64 {
        self.out.sent_bytes()
    }

    /// Whether something of the response was handed over.
    pub fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Takes back what was appended of a response that has not begun.
    pub fn withdraw(&mut self) {
        self.head = None;
        self.out.clear();
    }

    /// Ready when the client has reset the stream, or its connection has ended.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.has_begun {
            false => self.respond.poll_reset(cx).map(drop),
            true => self.out.poll_reset(cx),
        }
    }

    /// Ends a stream that was not worked on: the client may send its request again.
    pub fn refuse(&mut self) {
        self.reset(Reason::REFUSED_STREAM);
    }

    fn reset(&mut self, reason: Reason) {
        if !self.out.reset(reason) {
            self.respond.send_reset(reason);
        }
    }
}

impl Drop for ServerStream {
    /// Tells the client that something is missing, where it is. The codec itself resets a stream whose request nobody has read to
    /// its end (RFC 9113 §8.1).
    fn drop(&mut self) {
        if !self.out.has_ended() {
            // RFC 9113 §8.5: of a tunnel, it is the peer's connection that has failed.
            let is_tunnel = self.has_begun && *self.request.method() == Method::CONNECT;
            self.reset(match is_tunnel {
                true => Reason::CONNECT_ERROR,
                false => Reason::INTERNAL_ERROR,
            });
        }
    }
}
