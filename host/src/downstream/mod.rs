//! The client's side of one exchange: the request's body comes from here, and the response goes here.
//!
//! What is above speaks of messages. Framing, keep-alive, `100 Continue`, and how a connection ends are a variant's own. An
//! enum, and neither generics nor boxed traits: one predicted branch for each of a handful of operations a request.

mod collect;
pub mod h1;
pub mod h2;
mod kept_pieces;
mod request_body;
mod spill;

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use crate::config::{Linger, Rate};
use crate::error::ClientError;
use crate::message::forwarded::Marks;
use crate::message::{BodySize, Headers, Piece, ReplyHead, Upgrade};
use crate::runtime::alarm::{Disarm, Elapsed};

pub use collect::Collector;
pub use kept_pieces::KeptPieces;
pub use request_body::{BodyPiece, RequestBody};
pub use spill::SpillFile;

/// The client's side of one exchange.
pub enum Downstream<'c> {
    H1(h1::Session<'c>),
    H2(h2::Session<'c>),
    /// Side of a sub-request: its response is collected, and nobody could leave.
    Collect(Collector),
}

/// Limits of a client's side, and what is added to heads for it. A listener's; the same for all protocols.
pub struct Settings {
    /// Longest body of a request in bytes. 0: no limit.
    pub max_body_bytes: u64,
    /// Requests of one connection.
    pub max_requests: u32,
    /// Age from which on a connection ends with its next response. `None`: it may have any.
    pub max_age: Option<Duration>,
    pub body_timeout: Duration,
    pub body_rate: Rate,
    pub send_timeout: Duration,
    pub send_rate: Rate,
    /// How long a request goes on whose client has ended its direction. Zero: not at all.
    pub half_close: Duration,
    pub linger: Linger,
    pub marks: Marks,
}

/// Fate of a client's connection after a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterResponse {
    /// The next request may follow.
    KeepAlive,
    /// The connection ends now.
    Close,
    /// The connection ends, but bytes of the client's may be on their way that would destroy the response if it ended at
    /// once.
    Linger,
}

/// Facts of a response beside its head.
#[derive(Clone, Copy, Debug)]
pub struct SendOptions<'a> {
    /// Body that follows, as far as its size is known.
    pub size: BodySize,
    /// For `Date`, if the headers have none: an IMF-fixdate (RFC 9110 §5.6.7). `None`: they have one.
    pub date: Option<&'a [u8; 29]>,
    /// Whether the client may send another request on its connection.
    pub keep_alive: bool,
}

impl<'c> Downstream<'c> {
    /// Takes what has come of the request's body, without waiting.
    #[inline]
    pub fn try_piece(&mut self) -> Result<Piece, ClientError> {
        match self {
            Self::H1(session) => session.try_piece(),
            Self::H2(session) => session.try_piece(),
            Self::Collect(collector) => Ok(collector.try_piece()),
        }
    }

    /// Waits for more of the request's body, at most for so long. 0: the client has ended its direction.
    /// [`Self::watch`] must outlive the calls.
    pub fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        limit: Duration,
    ) -> Poll<Result<io::Result<usize>, Elapsed>> {
        match self {
            Self::H1(session) => session.poll_fill(cx, limit),
            Self::H2(session) => session.poll_fill(cx, limit),
            Self::Collect(collector) => collector.poll_fill(cx).map(|()| Ok(Ok(1))),
        }
    }

    /// Whether nothing of the request's body is left to be read, so that the next request could follow.
    #[inline]
    pub fn is_read(&self) -> bool {
        match self {
            Self::H1(session) => session.is_read(),
            Self::H2(session) => session.is_read(),
            Self::Collect(collector) => collector.is_read(),
        }
    }

    /// Fields after the request's body, once; `None` when there were none.
    pub fn take_trailers(&mut self) -> Option<Headers> {
        match self {
            Self::H1(session) => session.take_trailers(),
            Self::H2(session) => session.take_trailers(),
            Self::Collect(_) => None,
        }
    }

    /// Asks for the request's body, once, where the client waits for that (RFC 9110 §10.1.1).
    pub async fn invite(&mut self, send_timeout: Duration) -> Result<(), ClientError> {
        match self {
            Self::H1(session) => session.invite(send_timeout).await,
            Self::H2(session) => session.invite(),
            Self::Collect(_) => Ok(()),
        }
    }

    /// Sends an interim response (RFC 9110 §15.2) to a client whose protocol knows any.
    pub async fn send_interim(
        &mut self,
        status: StatusCode,
        headers: &mut Headers,
        send_timeout: Duration,
    ) -> Result<(), ClientError> {
        match self {
            Self::H1(session) => session.send_interim(status, headers, send_timeout).await,
            Self::H2(session) => session.send_interim(status, headers),
            Self::Collect(_) => Ok(()),
        }
    }

    /// Does `work` while the client is there; `None` when it leaves. A client that still sends its body is there: reading
    /// tells when it is not.
    pub async fn while_there<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let mut work = pin!(work);
        let _disarmed = self.watch();
        poll_fn(|cx| match work.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => self.poll_gone(cx).map(|()| None),
        })
        .await
    }

    /// Disarms the alarm that waits for the client use when it is dropped.
    #[inline]
    pub fn watch(&self) -> Option<Disarm<'c>> {
        match self {
            Self::H1(session) => Some(session.watch()),
            Self::H2(session) => Some(session.watch()),
            Self::Collect(_) => None,
        }
    }

    /// Polls for the end that [`Self::while_there`] watches for. [`Self::watch`] must outlive the calls.
    #[inline]
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::H1(session) => session.poll_gone(cx),
            Self::H2(session) => session.poll_gone(cx),
            Self::Collect(_) => Poll::Pending,
        }
    }

    /// Ready when the client has given up its request, as far as its protocol tells while the request's body is on its way.
    /// HTTP/1 tells by reading.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::H1(_) | Self::Collect(_) => Poll::Pending,
            Self::H2(session) => session.poll_gone(cx),
        }
    }

    /// Appends the response's head. Returns whether a body is to follow.
    pub fn send_head(&mut self, head: &ReplyHead, options: SendOptions<'_>) -> bool {
        match self {
            Self::H1(session) => session.send_head(head, options),
            Self::H2(session) => session.send_head(head, options),
            Self::Collect(collector) => collector.send_head(head.status),
        }
    }

    /// Appends a piece of the response's body. [`Self::is_full`] must be false.
    #[inline]
    pub fn send_data(&mut self, piece: Bytes) {
        match self {
            Self::H1(session) => session.send_data(piece),
            Self::H2(session) => session.send_data(piece),
            Self::Collect(collector) => collector.send_data(&piece),
        }
    }

    /// Whether it is time to [`Self::flush`] before more is appended.
    #[inline]
    pub fn is_full(&self) -> bool {
        match self {
            Self::H1(session) => session.is_full(),
            Self::H2(session) => session.is_full(),
            Self::Collect(collector) => collector.is_too_large(),
        }
    }

    /// Whether something waits to be flushed.
    #[inline]
    pub fn has_pending(&self) -> bool {
        match self {
            Self::H1(session) => session.has_pending(),
            Self::H2(session) => session.has_pending(),
            Self::Collect(collector) => collector.is_too_large(),
        }
    }

    /// Sends what was appended, as far as it is taken at once. True: that was all; else it is to be flushed.
    #[inline]
    pub fn flush_now(&mut self) -> Result<bool, ClientError> {
        match self {
            Self::H1(session) => session.flush_now(),
            Self::H2(session) => session.flush_now(),
            Self::Collect(collector) => collector.check().map(|()| true),
        }
    }

    /// Sends what was appended.
    pub async fn flush(&mut self) -> Result<(), ClientError> {
        match self {
            Self::H1(session) => session.flush().await,
            Self::H2(session) => session.flush().await,
            Self::Collect(collector) => collector.check(),
        }
    }

    /// Polls [`Self::flush`], with this limit for each wait. [`Self::watch`] must outlive the calls.
    pub fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        limit: Duration,
    ) -> Poll<Result<(), ClientError>> {
        match self {
            Self::H1(session) => session.poll_flush(cx, limit),
            Self::H2(session) => session.poll_flush_within(cx, limit),
            Self::Collect(collector) => Poll::Ready(collector.check()),
        }
    }

    /// Whether the request was an extended CONNECT (RFC 8441), which is answered by another protocol or refused.
    pub fn is_connect(&self) -> bool {
        match self {
            Self::H1(_) | Self::Collect(_) => false,
            Self::H2(session) => session.is_connect(),
        }
    }

    /// Appends a head that says that this protocol goes on: its bytes are the pieces of both bodies from then on.
    pub fn switch(&mut self, head: &ReplyHead, upgrade: Upgrade) {
        match self {
            Self::H1(session) => session.switch(head, upgrade),
            Self::H2(session) => session.switch(head),
            Self::Collect(_) => {}
        }
    }

    /// Says that no more bytes of that protocol come.
    pub fn end_tunnel(&mut self) -> Result<(), ClientError> {
        match self {
            Self::H1(session) => session.end_tunnel(),
            Self::H2(session) => {
                session.finish(&Headers::new());
                session.flush_now().map(drop)
            }
            Self::Collect(_) => Ok(()),
        }
    }

    /// Says that nothing is missing of a tunnel; else its connection is reset, or its stream.
    pub fn settle_tunnel(&mut self) {
        match self {
            Self::H1(session) => session.settle_tunnel(),
            Self::H2(_) | Self::Collect(_) => {}
        }
    }

    /// Ends the response's body, with these trailers where the protocol has any. False: it is to be flushed. It need not be out
    /// yet when the client is to speak next.
    #[inline]
    pub fn finish(&mut self, trailers: &Headers) -> bool {
        match self {
            Self::H1(session) => session.finish(trailers),
            Self::H2(session) => {
                session.finish(trailers);
                false
            }
            Self::Collect(_) => false,
        }
    }

    /// Whether bytes of the response may be on their way.
    pub fn has_begun(&self) -> bool {
        match self {
            Self::H1(session) => session.has_begun(),
            Self::H2(session) => session.has_begun(),
            Self::Collect(_) => false,
        }
    }

    /// Takes back what was appended of a response that has not begun: another takes its place.
    pub fn withdraw(&mut self) {
        match self {
            Self::H1(session) => session.withdraw(),
            Self::H2(session) => session.withdraw(),
            Self::Collect(collector) => collector.withdraw(),
        }
    }

    /// Lets the connection end after this response.
    pub fn end_connection(&mut self) {
        match self {
            Self::H1(session) => session.end_connection(),
            // A stream ends, and its connection goes on.
            Self::H2(_) | Self::Collect(_) => {}
        }
    }

    /// Whether a response of this status has no body for the client: by its status, or since the client's own request was HEAD,
    /// whatever a plugin has made of it.
    pub fn is_bodiless(&self, status: StatusCode) -> bool {
        match self {
            Self::H1(session) => session.is_bodiless(status),
            Self::H2(session) => session.is_bodiless(status),
            Self::Collect(collector) => collector.is_bodiless(status),
        }
    }

    /// Fate of the connection when the response is out. `None`: the rest of the request is in the way, see
    /// [`Self::end_request`].
    #[inline]
    pub fn after_response(&mut self) -> Option<AfterResponse> {
        match self {
            Self::H1(session) => session.after_response(),
            Self::H2(_) | Self::Collect(_) => Some(AfterResponse::Close),
        }
    }

    /// Settles what becomes of a connection whose client has not sent all of its request, or may send no other.
    pub async fn end_request(&mut self) -> AfterResponse {
        match self {
            Self::H1(session) => session.end_request().await,
            Self::H2(_) | Self::Collect(_) => AfterResponse::Close,
        }
    }
}
