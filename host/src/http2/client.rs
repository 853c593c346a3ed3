//! The client's side: connections to peers, and the streams on them.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Ping, Reason};
use http::{Method, StatusCode};
use tokio::sync::Notify;

use super::incoming::Incoming;
use super::io::Io;
use super::outgoing::Outgoing;
use super::{head, io_error};
use crate::message::{BodySize, HeadLimits, Headers, RequestHead, Scheme, Upgrade};
use crate::transport::Transport;

/// Settings of an upstream's connections, made at load.
pub struct ClientBuilder(h2::client::Builder);

/// A connection to a peer, for many streams at a time.
pub struct ClientConnection {
    requests: SendRequest<Bytes>,
    /// Streams under way.
    active: Cell<usize>,
    /// No more streams are begun.
    is_retired: Cell<bool>,
    state: Rc<State>,
}

/// State of a connection, as its driver tells it.
#[derive(Default)]
struct State {
    has_ended: Cell<bool>,
    /// The peer's settings have come, or never will.
    is_settled: Cell<bool>,
    /// The peer has answered as HTTP/2 has it.
    has_answered: Cell<bool>,
    settled: Notify,
}

impl State {
    fn settle(&self) {
        self.is_settled.set(true);
        self.settled.notify_waiters();
    }
}

/// A request on its way to a peer, and its response. Dropped before both have ended, it is reset.
pub struct ClientStream {
    connection: Rc<ClientConnection>,
    out: Outgoing,
    response: ResponseFuture,
    /// `None`: the head of the response has not come.
    body: Option<Incoming>,
    method: Method,
    /// Protocol that the peer is asked to go on with.
    upgrade: Option<Upgrade>,
}

/// Error of a stream.
#[derive(Debug)]
pub enum StreamError {
    /// The peer has not looked at the request for sure, and it may be sent again: the stream was refused, or is beyond the last
    /// one that the peer says it has taken (RFC 9113 §8.7).
    NotProcessed(io::Error),
    Failed(io::Error),
}

/// Streams on one connection, whatever the peer allows.
const MAX_STREAMS: usize = 100;

/// Bytes of a response's body that a peer may send before they are passed on.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;

/// Window of a connection: all its streams may be stalled by slow clients, and yet hold up no other.
const CONNECTION_WINDOW_BYTES: u32 = STREAM_WINDOW_BYTES * (MAX_STREAMS as u32 + 1);

/// Streams that are sent before the peer has said how many it allows.
const FIRST_STREAMS: usize = 0;

/// Bytes of data that are kept for a stream beyond what the socket has taken.
const SEND_BUFFER_BYTES: usize = 64 << 10;

impl ClientBuilder {
    pub fn new(limits: &HeadLimits) -> Self {
        let mut builder = h2::client::Builder::new();
        let list_bytes = u32::try_from(limits.max_head_bytes).unwrap_or(u32::MAX);
        builder
            .enable_push(false)
            .initial_max_send_streams(FIRST_STREAMS)
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_header_list_size(list_bytes)
            .max_send_buffer_size(SEND_BUFFER_BYTES);
        Self(builder)
    }

    /// Exchanges prefaces. The future moves the connection's frames, until it has ended.
    pub async fn handshake(
        &self,
        transport: Rc<Transport>,
    ) -> io::Result<(Rc<ClientConnection>, impl Future<Output = ()> + use<>)> {
        let io = Io::of_peer(transport);
        let (requests, mut connection) = self.0.handshake(io).await.map_err(io_error)?;
        let pings = connection.ping_pong();
        let state = Rc::new(State::default());
        let shared = Rc::clone(&state);
        let driver = async move {
            let settled = async {
                if let Some(mut pings) = pings {
                    // Its settings come before its answer.
                    let answered = pings.ping(Ping::opaque()).await;
                    shared.has_answered.set(answered.is_ok());
                }
                shared.settle();
            };
            let (_, ended) = tokio::join!(settled, connection);
            drop(ended);
            shared.has_ended.set(true);
            shared.settle();
        };
        let connection = Rc::new(ClientConnection {
            requests,
            active: Cell::new(0),
            is_retired: Cell::new(false),
            state,
        });
        Ok((connection, driver))
    }
}

impl ClientConnection {
    /// Whether the peer goes on with other protocols on its streams (RFC 8441 §3). Known when it is settled.
    pub fn takes_upgrades(&self) -> bool {
        self.requests.is_extended_connect_protocol_enabled()
    }

    /// Whether one more stream can be begun now.
    pub fn has_room(&self) -> bool {
        let allowed = self.requests.current_max_send_streams().min(MAX_STREAMS);
        self.is_open() && self.active.get() < allowed
    }

    /// Whether streams can be begun, if only later.
    pub fn is_open(&self) -> bool {
        !self.is_retired.get() && !self.state.has_ended.get()
    }

    /// Waits until the peer has said what it allows, or the connection has ended. Returns whether it has.
    pub async fn settled(&self) -> bool {
        while !self.state.is_settled.get() {
            self.state.settled.notified().await;
        }
        self.state.has_answered.get()
    }

    pub fn is_idle(&self) -> bool {
        self.active.get() == 0
    }

    /// Begins no more streams here: something is wrong with the connection.
    pub fn retire(&self) {
        self.is_retired.set(true);
    }

    /// Begins a request for this host. `size` is of the body that follows.
    pub fn begin(
        self: &Rc<Self>,
        request: &RequestHead,
        host: &[u8],
        scheme: Scheme,
        size: BodySize,
    ) -> Result<ClientStream, StreamError> {
        let message = head::request(request, host, scheme, size).ok_or_else(|| {
            let error = io::Error::other("the request cannot be said by HTTP/2");
            StreamError::NotProcessed(error)
        })?;
        if request.upgrade.is_some() && !self.takes_upgrades() {
            let error = io::Error::other("it takes no WebSocket by HTTP/2 (RFC 8441)");
            return Err(StreamError::NotProcessed(error));
        }
        let is_end = size == BodySize::None && request.upgrade.is_none();
        let begun = self.requests.clone().send_request(message, is_end);
        let (response, sending) = begun.map_err(|error| {
            // The connection takes no more requests.
            self.retire();
            StreamError::NotProcessed(io_error(error))
        })?;
        let mut out = Outgoing::default();
        out.begin(sending, is_end);
        self.active.set(self.active.get() + 1);
        Ok(ClientStream {
            connection: Rc::clone(self),
            out,
            response,
            body: None,
            method: request.method.clone(),
            upgrade: request.upgrade,
        })
    }
}

impl ClientStream {
    /// Appends a piece of the request's body. [`Self::is_full`] must be false.
    pub fn send_data(&mut self, piece: Bytes) {
        self.out.push(piece);
    }

    /// Whether it is time to flush before more is appended.
    pub fn is_full(&self) -> bool {
        self.out.is_full()
    }

    /// Ends the request's body with these fields.
    pub fn finish(&mut self, trailers: &Headers) {
        if !self.out.has_ended() {
            self.out.finish(trailers);
        }
    }

    /// Whether all of the request was handed over.
    pub fn is_sent(&self) -> bool {
        self.out.has_ended()
    }

    /// Hands over what was appended, as far as there is room for it. True: that was all.
    pub fn flush_now(&mut self) -> io::Result<bool> {
        self.out.flush_now()
    }

    /// Hands over what was appended. Ready when that was all.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamError>> {
        while !self.out.flush_now().map_err(StreamError::Failed)? {
            ready!(self.out.poll_room(cx)).map_err(StreamError::Failed)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Whether enough was handed over, since this was last true, to call it progress.
    pub fn has_progressed(&mut self) -> bool {
        self.out.has_progressed()
    }

    /// Polls for the head of the response, whose fields it puts into `headers`. Heads of interim responses (1xx) come first.
    pub fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        headers: &mut Headers,
    ) -> Poll<Result<(StatusCode, BodySize), StreamError>> {
        if let Poll::Ready(Some(interim)) = self.response.poll_informational(cx) {
            let interim = interim.map_err(|error| self.error(error))?;
            refuse_switching(interim.status())?;
            head::read_response(&interim, headers);
            return Poll::Ready(Ok((interim.status(), BodySize::None)));
        }
        let response = ready!(std::pin::Pin::new(&mut self.response).poll(cx));
        let (parts, body) = response.map_err(|error| self.error(error))?.into_parts();
        let body = Incoming::new(body);
        let is_end = body.is_read();
        self.body = Some(body);
        let response = http::Response::from_parts(parts, ());
        refuse_switching(response.status())?;
        head::read_response(&response, headers);
        if self.upgrade.is_some() && response.status().is_success() {
            // RFC 8441 §5: what 101 says over HTTP/1.
            let status = StatusCode::SWITCHING_PROTOCOLS;
            return Poll::Ready(Ok((status, BodySize::Unknown)));
        }
        let size = head::response_size(&response, &self.method, is_end);
        Poll::Ready(Ok((response.status(), size)))
    }

    fn error(&self, error: h2::Error) -> StreamError {
        let is_refused = error.reason() == Some(Reason::REFUSED_STREAM);
        if error.is_go_away() {
            self.connection.retire();
        }
        match is_refused || error.is_go_away() && error.is_remote() {
            true => StreamError::NotProcessed(io_error(error)),
            false => StreamError::Failed(io_error(error)),
        }
    }

    /// Polls for the next piece of the response's body, which is not empty. `None`: it has ended. Windows open for the piece
    /// before.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Bytes>>> {
        match &mut self.body {
            Some(body) => body.poll_data(cx),
            None => Poll::Ready(Ok(None)),
        }
    }

    /// Whether nothing of the response's body is left to come.
    pub fn is_read(&self) -> bool {
        self.body.as_ref().is_some_and(Incoming::is_read)
    }

    /// Fields after the response's body, once; `None` when there were none.
    pub fn take_trailers(&mut self) -> Option<Headers> {
        self.body.as_mut()?.take_trailers()
    }
}

/// RFC 9113 §8.6: there is no such response by HTTP/2. Passed on, it would be another protocol's begin to whoever reads it.
fn refuse_switching(status: StatusCode) -> Result<(), StreamError> {
    match status == StatusCode::SWITCHING_PROTOCOLS {
        true => Err(StreamError::Failed(io::Error::other("101 by HTTP/2"))),
        false => Ok(()),
    }
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        let active = &self.connection.active;
        active.set(active.get() - 1);
        // The codec resets what has not ended (CANCEL); a request that is not whole must not seem so.
        if !self.out.has_ended() {
            self.out.reset(Reason::CANCEL);
        }
    }
}
