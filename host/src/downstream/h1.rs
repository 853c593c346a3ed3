//! A client's side of one exchange over HTTP/1: its connection, lent for as long as the exchange lasts.

use std::future::poll_fn;
use std::io;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, StatusCode};

use super::{AfterResponse, SendOptions, Settings};
use crate::config::Rate;
use crate::error::ClientError;
use crate::http1::{self, BodyDecoder, Framing, ReplyTo};
use crate::message::{
    BodySize, Headers, KnownHeader, Piece, Protocol, ReplyHead, RequestHead, Scheme, Upgrade,
    never_has_body,
};
use crate::runtime::alarm::{Alarm, Disarm, Elapsed};
use crate::runtime::{PieceBudget, clock};
use crate::transport::Transport;
use crate::transport::address::{ClientAddress, ServerAddress};
use crate::transport::halves::{self, BODY_ROOM_BYTES, Ended, Reader, Writer};
use crate::transport::tls::TlsInfo;

/// A client's connection, which serves one request after the other.
pub struct Client {
    pub reader: Reader,
    pub writer: Writer,
    pub address: ClientAddress,
    /// The gateway's end.
    pub server: ServerAddress,
    /// `None`: the connection is plain.
    pub tls: Option<Arc<TlsInfo>>,
    opened: Instant,
    requests: u32,
}

/// Alarms of one exchange.
pub struct Alarms<'c> {
    pub read: &'c Alarm,
    pub write: &'c Alarm,
}

/// A client's connection while one of its requests is served.
pub struct Session<'c> {
    reader: &'c mut Reader,
    writer: &'c mut Writer,
    alarms: Alarms<'c>,
    settings: &'c Settings,
    /// Method and protocol as the client sent them: what it is answered must fit its request, not what a plugin made of it.
    method: Method,
    protocol: Protocol,
    decoder: BodyDecoder,
    /// The client waits for `100 Continue`.
    expects_continue: bool,
    /// When the client has ended its direction of the connection, or was last sent something after that.
    half_closed: Option<Instant>,
    keep_alive: bool,
    /// How the response's body follows its head. `None` before there is a head.
    framing: Framing,
    /// Bytes of the response may be on their way.
    has_begun: bool,
    /// The client need not take the response at the rate that there is: events come when there are some.
    is_event_stream: bool,
}

/// Longest time in which the rest of a request's body is read after its response.
const DISCARD_TIME: Duration = Duration::from_secs(5);

/// A body that nobody wanted is read up to this, to keep the connection; a longer one costs it.
const DISCARD_LIMIT_BYTES: usize = 256 * 1024;

impl Client {
    pub fn new(transport: Transport, address: ClientAddress, server: ServerAddress) -> Self {
        let tls = transport.tls_info();
        let (reader, writer) = halves::split(transport);
        Self {
            reader,
            writer,
            address,
            server,
            tls,
            opened: clock::now(),
            requests: 0,
        }
    }

    /// Counts a request. Whether another may follow it.
    #[inline]
    pub fn count_request(&mut self, settings: &Settings) -> bool {
        self.requests = self.requests.saturating_add(1);
        let is_young = |age| clock::now().duration_since(self.opened) < age;
        self.requests < settings.max_requests && settings.max_age.is_none_or(is_young)
    }

    /// Scheme of its requests.
    #[inline]
    pub fn scheme(&self) -> Scheme {
        match self.writer.is_tls() {
            true => Scheme::Https,
            false => Scheme::Http,
        }
    }
}

impl<'c> Session<'c> {
    /// `head`: of the request, whose body follows in this framing.
    pub fn new(
        (reader, writer): (&'c mut Reader, &'c mut Writer),
        alarms: Alarms<'c>,
        settings: &'c Settings,
        head: &RequestHead,
        (framing, keep_alive, expects_continue): (Framing, bool, bool),
    ) -> Self {
        Self {
            reader,
            writer,
            alarms,
            settings,
            method: head.method.clone(),
            protocol: head.protocol,
            decoder: BodyDecoder::new(framing),
            expects_continue,
            half_closed: None,
            keep_alive,
            framing: Framing::None,
            has_begun: false,
            is_event_stream: false,
        }
    }

    #[inline]
    pub(super) fn try_piece(&mut self) -> Result<Piece, ClientError> {
        Ok(self.decoder.decode(&mut self.reader.buf)?)
    }

    async fn fill(&mut self, limit: Duration) -> Result<io::Result<usize>, Elapsed> {
        let _disarmed = self.watch();
        poll_fn(|cx| self.poll_fill(cx, limit)).await
    }

    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        limit: Duration,
    ) -> Poll<Result<io::Result<usize>, Elapsed>> {
        match self.reader.poll_fill(cx, BODY_ROOM_BYTES) {
            Poll::Ready(filled) => {
                self.alarms.read.disarm();
                Poll::Ready(Ok(filled))
            }
            Poll::Pending => {
                let elapsed = self.alarms.read.poll_elapsed(limit, cx);
                elapsed.map(|()| Err(Elapsed))
            }
        }
    }

    #[inline]
    pub(super) fn is_read(&self) -> bool {
        self.decoder.is_end()
    }

    pub(super) fn take_trailers(&mut self) -> Option<Headers> {
        self.decoder.take_trailers()
    }

    pub(super) async fn invite(&mut self, send_timeout: Duration) -> Result<(), ClientError> {
        if !self.expects_continue {
            return Ok(());
        }
        self.expects_continue = false;
        let out = self.writer.small();
        out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        self.flush_interim(send_timeout).await
    }

    pub(super) async fn send_interim(
        &mut self,
        status: StatusCode,
        headers: &mut Headers,
        send_timeout: Duration,
    ) -> Result<(), ClientError> {
        // HTTP/1.0 knows none.
        if self.protocol == Protocol::Http10 {
            return Ok(());
        }
        headers.remove_hop_by_hop();
        self.settings
            .marks
            .add_to_response(headers, Protocol::Http11);
        let to = ReplyTo {
            method: &Method::GET,
            protocol: self.protocol,
            keep_alive: true,
            date: None,
        };
        let out = self.writer.small();
        http1::write_response_head(out, status, headers, BodySize::None, &to);
        self.flush_interim(send_timeout).await
    }

    async fn flush_interim(&mut self, limit: Duration) -> Result<(), ClientError> {
        let flushed = self.writer.flush(self.alarms.write, limit).await;
        flushed.map_err(|Elapsed| ClientError::SendTimeout(limit))??;
        Ok(())
    }

    /// Disarms the alarm that [`Self::poll_fill`] and [`Self::poll_gone`] use when it is dropped.
    #[inline]
    pub(super) fn watch(&self) -> Disarm<'c> {
        self.alarms.read.disarmed()
    }

    /// Ready when the client has left: at once where it has reset the connection, and after `half_close` where it has ended
    /// its direction. Limited by the read alarm, which nothing else uses once the request is read; a request that is not
    /// read yet tells by reading, as long as no response has begun: then its rest may stay unread.
    #[inline]
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.is_read() && !self.has_begun {
            return Poll::Pending;
        }
        let ended = match self.half_closed {
            Some(_) => Ended::InOrder,
            None => ready!(self.reader.poll_ended(cx)),
        };
        self.poll_left(cx, ended)
    }

    #[cold]
    #[inline(never)]
    fn poll_left(&mut self, cx: &mut Context<'_>, ended: Ended) -> Poll<()> {
        let since = match (ended, self.half_closed) {
            (Ended::Reset, _) => return Poll::Ready(()),
            (Ended::InOrder, Some(since)) => since,
            (Ended::InOrder, None) => {
                // An upload that was broken off may have armed it, for its own wait.
                self.alarms.read.disarm();
                *self.half_closed.insert(clock::now())
            }
        };
        // Many short waits without a byte for the client are as good as a long one.
        let left = self.settings.half_close.checked_sub(clock::now() - since);
        match left.filter(|left| !left.is_zero()) {
            Some(left) => self.alarms.read.poll_elapsed(left, cx),
            None => Poll::Ready(()),
        }
    }

    pub(super) fn is_bodiless(&self, status: StatusCode) -> bool {
        never_has_body(status, &self.method)
    }

    pub(super) fn send_head(&mut self, head: &ReplyHead, options: SendOptions<'_>) -> bool {
        // Only a body that the client was told to send is worth waiting for.
        let keep_alive =
            self.keep_alive && options.keep_alive && (self.is_read() || !self.expects_continue);
        let to = ReplyTo {
            method: &self.method,
            protocol: self.protocol,
            keep_alive,
            date: options.date,
        };
        // Rates alone need it, and mostly there is none.
        self.is_event_stream = self.settings.send_rate.min != 0
            && !matches!(options.size, BodySize::Exact(_))
            && is_event_stream(head);
        let out = self.writer.small();
        let framing =
            http1::write_response_head(out, head.status, &head.headers, options.size, &to);
        self.keep_alive = framing.keep_alive;
        self.framing = framing.body;
        if framing.body == Framing::UntilClose {
            // RFC 9112 §8: the close would tell the client that a cut body is whole. Set now, it holds for all that may
            // end the connection early: a peer that breaks off, a drain's time-out, a worker that dies.
            self.writer.set_reset_on_close(true);
        }
        framing.body != Framing::None
    }

    #[inline]
    pub(super) fn send_data(&mut self, piece: Bytes) {
        let Some(len) = NonZeroUsize::new(piece.len()) else {
            return;
        };
        if self.framing == Framing::Chunked {
            http1::write_chunk_head(self.writer.small(), len);
            self.writer.push(piece);
            self.writer.small().extend_from_slice(http1::CHUNK_END);
        } else {
            self.writer.push(piece);
        }
    }

    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.writer.is_full()
    }

    #[inline]
    pub(super) fn has_pending(&self) -> bool {
        self.writer.has_pending()
    }

    #[inline]
    pub(super) fn flush_now(&mut self) -> Result<bool, ClientError> {
        self.begin_sending();
        Ok(self.writer.flush_now()?)
    }

    pub(super) async fn flush(&mut self) -> Result<(), ClientError> {
        let limit = self.settings.send_timeout;
        let rate = match self.is_event_stream {
            true => Rate::NONE,
            false => self.settings.send_rate,
        };
        self.begin_sending();
        let flushed = self.writer.flush_at(self.alarms.write, limit, rate).await;
        flushed
            .map_err(|Elapsed| ClientError::SendTimeout(limit))?
            .map_err(ClientError::Io)
    }

    pub(super) fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        limit: Duration,
    ) -> Poll<Result<(), ClientError>> {
        self.begin_sending();
        let flushed = ready!(self.writer.poll_flush(cx, self.alarms.write, limit));
        let flushed = flushed.map_err(|Elapsed| ClientError::SendTimeout(limit));
        Poll::Ready(flushed.and_then(|flushed| flushed.map_err(ClientError::Io)))
    }

    pub(super) fn switch(&mut self, head: &ReplyHead, upgrade: Upgrade) {
        http1::write_switching_head(self.writer.small(), &head.headers, upgrade);
        self.decoder = BodyDecoder::new(Framing::UntilClose);
        // Bytes go as they are, and no request follows them.
        self.framing = Framing::Length(0);
        self.keep_alive = false;
        self.writer.set_reset_on_close(true);
    }

    pub(super) fn settle_tunnel(&self) {
        self.writer.set_reset_on_close(false);
    }

    pub(super) fn end_tunnel(&mut self) -> Result<(), ClientError> {
        Ok(self.writer.close()?)
    }

    #[inline]
    fn begin_sending(&mut self) {
        self.has_begun = true;
        if self.half_closed.is_some() {
            self.half_closed = Some(clock::now());
        }
    }

    #[inline]
    pub(super) fn finish(&mut self, trailers: &Headers) -> bool {
        if self.framing == Framing::Chunked {
            http1::write_trailers(self.writer.small(), trailers);
        }
        let is_posted = self.keep_alive && self.is_read() && self.writer.post();
        self.has_begun |= is_posted;
        is_posted
    }

    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    pub(super) fn withdraw(&mut self) {
        self.writer.clear();
        if std::mem::replace(&mut self.framing, Framing::None) == Framing::UntilClose {
            // No head that ends with the close is out: the reply in its place has a length and ends in order.
            self.writer.set_reset_on_close(false);
        }
    }

    pub(super) fn end_connection(&mut self) {
        self.keep_alive = false;
    }

    #[inline]
    pub(super) fn after_response(&mut self) -> Option<AfterResponse> {
        if self.framing == Framing::UntilClose {
            self.writer.set_reset_on_close(false);
        }
        (self.keep_alive && self.is_read()).then_some(AfterResponse::KeepAlive)
    }

    /// Decides by the rest of the request's body, which stands between this request and the next.
    pub(super) async fn end_request(&mut self) -> AfterResponse {
        // Bounded as a whole too: a client may send a byte a minute.
        if self.keep_alive
            && matches!(
                tokio::time::timeout(DISCARD_TIME, self.discard()).await,
                Ok(true)
            )
        {
            return AfterResponse::KeepAlive;
        }
        // Closed with bytes unread, the kernel would reset the connection and with it the response.
        match self.is_read() && self.reader.is_quiet_now() {
            true => AfterResponse::Close,
            false => AfterResponse::Linger,
        }
    }

    /// Reads and throws away what is left of the request's body, up to a bound. True: the next request can follow.
    async fn discard(&mut self) -> bool {
        let mut left = DISCARD_LIMIT_BYTES;
        let mut pieces = PieceBudget::default();
        loop {
            pieces.next().await;
            match self.decoder.decode(&mut self.reader.buf) {
                Ok(Piece::End) => return true,
                Ok(Piece::Data(data)) if data.len() <= left => left -= data.len(),
                Ok(Piece::Data(_)) | Err(_) => return false,
                Ok(Piece::NeedMore) => {
                    let filled = self.fill(self.settings.body_timeout).await;
                    if !matches!(filled, Ok(Ok(1..))) {
                        return false;
                    }
                }
            }
        }
    }
}

/// Answers on a connection whose request's head could not be read, after which it ends.
pub async fn refuse(
    client: &mut Client,
    alarm: &Alarm,
    limit: Duration,
    (head, body): (&ReplyHead, Bytes),
    date: &[u8; 29],
) -> AfterResponse {
    let to = ReplyTo {
        method: &Method::GET,
        protocol: Protocol::Http11,
        keep_alive: false,
        date: Some(date),
    };
    let (out, size) = (client.writer.small(), BodySize::Exact(body.len() as u64));
    http1::write_response_head(out, head.status, &head.headers, size, &to);
    client.writer.push(body);
    match client.writer.flush(alarm, limit).await {
        Ok(Ok(())) => AfterResponse::Linger,
        Ok(Err(_)) | Err(Elapsed) => AfterResponse::Close,
    }
}

/// Whether a response is `text/event-stream` (the HTML standard, section 9.2).
#[inline(never)]
fn is_event_stream(reply: &ReplyHead) -> bool {
    const EVENT_STREAM: &[u8] = b"text/event-stream";
    let content_type = reply.headers.get(KnownHeader::ContentType);
    let begins = content_type.and_then(|value| value.get(..EVENT_STREAM.len()));
    begins.is_some_and(|begins| begins.eq_ignore_ascii_case(EVENT_STREAM))
}
