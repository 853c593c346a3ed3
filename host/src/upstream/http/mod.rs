//! HTTP with a peer: a request goes out, and a response comes in, whichever version of HTTP the peer speaks.
//!
//! What is above speaks of messages. Framing, keep-alive and connections are a variant's own, as they are of the client's side
//! (`downstream/`): an enum, whose operations can be polled beside one another, and dropped and taken up again.

mod connector;
mod h1;
mod h2;
mod meter;
mod probe;
mod pump;
mod request;
mod response;
#[cfg(test)]
pub(super) mod tests;
mod tunnel;

use std::io;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, StatusCode};

use crate::error::UpstreamError;
use crate::http1::BodyError;
use crate::http2::ClientConnection;
use crate::message::HeadLimits;
use crate::message::{BodySize, Headers, Piece, RequestHead, Scheme};
use crate::runtime::alarm::Alarms;
use crate::transport::halves::{Reader, Writer};
use crate::upstream::life::Life;
use crate::upstream::open_connection::OpenConnection;

pub(super) use connector::Connector;
pub(super) use probe::{ProbeAnswer, ProbeError};
pub(super) use request::{Deadline, Try, TryError};
pub use response::Body;
pub use tunnel::{Moved, TunnelEnd};

/// The peer's side of one exchange after the other.
pub(super) enum PeerStream {
    /// A connection, in a box for as long as it lives: what goes from hand to hand with each request is a pointer.
    H1(Box<h1::Connection>),
    /// A stream of a connection that others share.
    H2(Box<h2::Exchange>),
}

/// Fate of a stream after an exchange.
pub(super) enum Released {
    /// Another exchange may follow.
    Reusable(PeerStream),
    /// The peer has sent more than it was asked for, or before it was.
    OutOfStep,
    /// The stream is at its end, or in the middle of the exchange.
    Closed,
}

/// A stream that is waited on: its alarms are disarmed when the wait ends, however it ends.
pub(super) struct Waiting<'s>(&'s mut PeerStream);

/// Interim responses that a peer sends before one response, `100 Continue` and others each.
const MAX_INTERIMS: usize = 32;

/// Counts one that goes no further. The error: there were as many as there may be.
#[cold]
fn count_interim(count: &mut usize, peer: &str) -> Result<(), UpstreamError> {
    *count += 1;
    match *count > MAX_INTERIMS {
        false => Ok(()),
        true => Err(UpstreamError::TooManyInterims {
            peer: peer.to_owned(),
            most: MAX_INTERIMS,
        }),
    }
}

impl PeerStream {
    /// A new connection, on which HTTP/1 is spoken.
    pub(super) fn h1(
        halves: (Reader, Writer),
        alarms: &Alarms,
        life: Life,
        open: OpenConnection,
    ) -> Self {
        Self::H1(Box::new(h1::Connection::new(halves, alarms, life, open)))
    }

    /// A new connection, whose bytes go as they are.
    pub(super) fn tunnel(
        halves: (Reader, Writer),
        alarms: &Alarms,
        life: Life,
        open: OpenConnection,
    ) -> Self {
        let mut connection = h1::Connection::new(halves, alarms, life, open);
        connection.begin_tunnel();
        Self::H1(Box::new(connection))
    }

    /// A stream of this connection, which has room for one.
    pub(super) fn h2(connection: Rc<ClientConnection>, scheme: Scheme, alarms: &Alarms) -> Self {
        Self::H2(Box::new(h2::Exchange::new(connection, scheme, alarms)))
    }

    /// Whether the peer may go on with another protocol.
    fn takes_upgrades(&self) -> bool {
        match self {
            Self::H1(_) => true,
            Self::H2(exchange) => exchange.takes_upgrades(),
        }
    }

    /// Whether the stream has served a request before, so that the peer may end it at any moment.
    pub(super) fn is_reused(&self) -> bool {
        match self {
            Self::H1(connection) => connection.is_reused(),
            Self::H2(_) => false,
        }
    }

    /// Has a new stream count as one that the peer may end at any moment.
    fn set_reused(&mut self) {
        match self {
            Self::H1(connection) => connection.set_reused(),
            Self::H2(_) => {}
        }
    }

    /// Moment from which the stream's connection takes no further request. `None`: it is not known here, or never.
    #[inline]
    pub(super) fn expires(&self) -> Option<Instant> {
        match self {
            Self::H1(connection) => connection.expires(),
            Self::H2(_) => None,
        }
    }

    /// Whether an idle stream is still good: nothing has come on it. As the event loop has heard, or `surely`, as the
    /// kernel knows it now, for one system call.
    pub(super) fn is_quiet(&self, surely: bool) -> bool {
        match self {
            Self::H1(connection) => connection.is_quiet(surely),
            Self::H2(_) => true,
        }
    }

    /// Whether something has come on an idle stream that is not its end.
    pub(super) fn has_unasked(&self) -> bool {
        match self {
            Self::H1(connection) => connection.has_unasked(),
            Self::H2(_) => false,
        }
    }

    /// Lets no more requests share the stream's connection: something took too long there.
    fn retire(&self) {
        match self {
            Self::H1(_) => {}
            Self::H2(exchange) => exchange.retire(),
        }
    }

    /// Lets the stream be waited on.
    fn wait(&mut self) -> Waiting<'_> {
        Waiting(self)
    }

    /// Begins an exchange: appends the request's head, which a body of this size follows.
    fn send_head(&mut self, request: &RequestHead, host: &[u8], body: BodySize) {
        match self {
            Self::H1(connection) => connection.send_head(request, host, body),
            Self::H2(exchange) => exchange.send_head(request, host, body),
        }
    }

    /// Whether it is time to flush before more is appended.
    fn is_full(&self) -> bool {
        match self {
            Self::H1(connection) => connection.is_full(),
            Self::H2(exchange) => exchange.is_full(),
        }
    }

    /// Appends a piece of the request's body. [`Self::is_full`] must be false.
    fn send_data(&mut self, piece: Bytes) {
        match self {
            Self::H1(connection) => connection.send_data(piece),
            Self::H2(exchange) => exchange.send_data(piece),
        }
    }

    /// Ends the request's body, with these trailers where its framing has room for any.
    fn finish(&mut self, trailers: &Headers) {
        match self {
            Self::H1(connection) => connection.finish(trailers),
            Self::H2(exchange) => exchange.finish(trailers),
        }
    }

    /// Has what was appended sent together with what others send. False: it is too much, and must be flushed.
    fn post(&mut self) -> bool {
        match self {
            Self::H1(connection) => connection.post(),
            Self::H2(exchange) => exchange.post(),
        }
    }

    /// Sends what was appended; `limit` is for each wait. `peer`: for errors, here and below.
    fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        limit: Duration,
        peer: &str,
    ) -> Poll<Result<(), UpstreamError>> {
        match self {
            Self::H1(connection) => connection.poll_flush(cx, limit, peer),
            Self::H2(exchange) => exchange.poll_flush(cx, limit, peer),
        }
    }

    /// Reads the head of the response to a request with this method. The head of an interim response (1xx) is followed by
    /// another. `100` is left out: the gateway has answered the client's expectation, and asks for none itself.
    fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        limits: &HeadLimits,
        method: &Method,
        headers: &mut Headers,
        peer: &str,
    ) -> Poll<Result<StatusCode, UpstreamError>> {
        match self {
            Self::H1(connection) => connection.poll_head(cx, limits, method, headers, peer),
            Self::H2(exchange) => exchange.poll_head(cx, headers, peer),
        }
    }

    /// Ready when this wait for the response has taken so long.
    fn poll_late(&mut self, cx: &mut Context<'_>, limit: Duration) -> Poll<()> {
        match self {
            Self::H1(connection) => connection.poll_late(cx, limit),
            Self::H2(exchange) => exchange.poll_late(cx, limit),
        }
    }

    /// Size of the response's body, as far as it is known.
    fn size(&self) -> BodySize {
        match self {
            Self::H1(connection) => connection.size(),
            Self::H2(exchange) => exchange.size(),
        }
    }

    /// Takes what has come of the response's body, without waiting.
    #[inline]
    fn try_piece(&mut self) -> Result<Piece, BodyError> {
        match self {
            Self::H1(connection) => connection.try_piece(),
            Self::H2(exchange) => Ok(exchange.try_piece()),
        }
    }

    /// Waits for more of the response's body.
    fn poll_fill(&mut self, cx: &mut Context<'_>, peer: &str) -> Poll<Result<(), UpstreamError>> {
        match self {
            Self::H1(connection) => connection.poll_fill(cx, peer),
            Self::H2(exchange) => exchange.poll_fill(cx, peer),
        }
    }

    /// Whether the last piece of the response's body was taken.
    #[inline]
    fn is_end(&self) -> bool {
        match self {
            Self::H1(connection) => connection.is_end(),
            Self::H2(exchange) => exchange.is_end(),
        }
    }

    /// The fields after the response's body, once; `None` when there were none.
    fn take_trailers(&mut self) -> Option<Headers> {
        match self {
            Self::H1(connection) => connection.take_trailers(),
            Self::H2(exchange) => exchange.take_trailers(),
        }
    }

    /// Says that no more bytes of the protocol come that both have gone on with.
    fn end_tunnel(&mut self) -> io::Result<()> {
        match self {
            Self::H1(connection) => connection.end_tunnel(),
            Self::H2(exchange) => exchange.end_tunnel(),
        }
    }

    /// Says that nothing is missing of a tunnel.
    fn settle_tunnel(&self) {
        match self {
            Self::H1(connection) => connection.settle_tunnel(),
            // Its stream has ended, or is reset.
            Self::H2(_) => {}
        }
    }

    /// Ends an exchange whose response was read. A stream that is dropped in place of that is cut.
    fn release(self) -> Released {
        match self {
            Self::H1(connection) => connection.release(),
            Self::H2(_) => Released::Closed,
        }
    }

    fn disarm(&self) {
        match self {
            Self::H1(connection) => connection.disarm(),
            Self::H2(exchange) => exchange.disarm(),
        }
    }
}

impl Deref for Waiting<'_> {
    type Target = PeerStream;

    fn deref(&self) -> &PeerStream {
        self.0
    }
}

impl DerefMut for Waiting<'_> {
    fn deref_mut(&mut self) -> &mut PeerStream {
        self.0
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.disarm();
    }
}
