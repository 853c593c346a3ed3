//! The body of a peer's response, which comes piece by piece.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};
use std::vec;

use bytes::Bytes;

use super::meter::Meter;
use super::pump::{Pump, Pumped, Upload, UploadError, UploadSink};
use super::{PeerStream, Released};
use crate::downstream::RequestBody;
use crate::error::{ClientError, Error, UpstreamError};
use crate::exchange::Exchange;
use crate::message::{BodySize, Headers, Piece, Protocol};
use crate::runtime::{PieceBudget, clock};
use crate::upstream::protection::Admitted;
use crate::upstream::upload::UploadSource;
use crate::upstream::{Active, ProxySettings, Upstream};

/// The body of an upstream's response, read piece by piece. Dropped before its end, it cuts the peer's stream.
pub struct Body {
    pub(super) stream: PeerStream,
    /// The request's body, which may still be on its way.
    pub(super) upload: Upload,
    pub(super) upstream: Rc<Upstream>,
    pub(super) settings: Rc<ProxySettings>,
    /// When its head had come, as long as nothing of it was waited for since.
    pub(super) came_at: Option<Instant>,
    pub(super) peer: Active,
    /// Counts the request among its upstream's until its response has ended.
    pub(in crate::upstream) admitted: Option<Box<Admitted>>,
    pub(super) meter: Option<Box<Meter>>,
    /// Was read for a plugin that wanted all of it, which was too much.
    pub(super) read_ahead: Option<Box<vec::IntoIter<Bytes>>>,
}

/// Bytes of an unwanted body that are looked at in search of its end.
const MOST_DISCARDED_BYTES: usize = 64 * 1024;

/// Event that came first.
enum Event {
    /// More of the body has come, or its end.
    Filled(Result<(), UpstreamError>),
    /// A piece of the request's body is to be filtered before it is sent.
    Filter,
    Client(ClientError),
}

impl Body {
    /// Protocol that the peer was spoken to.
    pub fn protocol(&self) -> Protocol {
        match self.stream {
            PeerStream::H1(_) => Protocol::Http11,
            PeerStream::H2(_) => Protocol::Http2,
        }
    }

    /// Whether the request's body need not be sent from its beginning any more.
    pub fn is_past_replay(&self, body: &RequestBody) -> bool {
        self.upload.is_past_replay(body)
    }

    pub fn size(&self) -> BodySize {
        self.stream.size()
    }

    /// Waits until all of it is there; `None` when it is longer than this. Then it goes on from its beginning all the
    /// same.
    pub async fn read_whole(
        &mut self,
        source: &mut UploadSource<'_, '_>,
        exchange: &mut Box<Exchange>,
        limit_bytes: usize,
    ) -> Result<Option<Bytes>, Error> {
        let read_ahead = self.read_ahead.take().map(|pieces| *pieces);
        let mut held: Vec<Bytes> = read_ahead.unwrap_or_default().collect();
        let mut held_bytes: usize = held.iter().map(Bytes::len).sum();
        let mut pieces = PieceBudget::default();
        let whole = loop {
            pieces.next().await;
            if held_bytes > limit_bytes {
                break false;
            }
            match self.try_piece()? {
                Piece::Data(piece) => {
                    held_bytes += piece.len();
                    held.push(piece);
                }
                Piece::NeedMore => self.fill(source, exchange).await?,
                Piece::End => break true,
            }
        };
        if !whole {
            self.read_ahead = Some(Box::new(held.into_iter()));
            return Ok(None);
        }
        Ok(Some(match &held[..] {
            [] => Bytes::new(),
            [piece] => piece.clone(),
            pieces => Bytes::from(pieces.concat()),
        }))
    }

    /// Takes what has come of the body, without waiting.
    pub fn try_piece(&mut self) -> Result<Piece, Error> {
        if let Some(pieces) = &mut self.read_ahead
            && let Some(piece) = pieces.next()
        {
            return Ok(Piece::Data(piece));
        }
        if self.meter.is_some() {
            return self.try_metered();
        }
        self.take_piece()
    }

    #[inline]
    fn take_piece(&mut self) -> Result<Piece, Error> {
        let piece = self.stream.try_piece();
        piece.map_err(|cause| {
            self.error(UpstreamError::BadBody {
                peer: self.peer.label.to_string(),
                cause,
            })
        })
    }

    /// Takes a piece of a body that has limits.
    #[cold]
    fn try_metered(&mut self) -> Result<Piece, Error> {
        if self.pause().is_some() {
            return Ok(Piece::NeedMore);
        }
        let piece = self.take_piece()?;
        if let (Some(meter), Piece::Data(data)) = (&mut self.meter, &piece) {
            let counted = meter.count(data.len());
            counted.map_err(|most| self.too_large(most))?;
        }
        Ok(piece)
    }

    /// Time until more of a body that has a rate may be taken.
    fn pause(&self) -> Option<Duration> {
        self.meter.as_ref()?.wait(clock::now())
    }

    /// Binds the request's session to the peer, where sessions are.
    #[inline]
    pub(in crate::upstream) fn bind_session(&self, exchange: &mut Exchange) {
        self.upstream.balancer.bind(&self.peer, exchange);
    }

    /// Whether its length or its rate is limited.
    #[inline]
    pub(in crate::upstream) fn has_limits(&self) -> bool {
        self.meter.is_some()
    }

    /// Refuses a response that says that it is too large.
    #[cold]
    pub(in crate::upstream) fn check_size(self) -> Result<Self, Error> {
        if let (Some(meter), BodySize::Exact(bytes)) = (&self.meter, self.size()) {
            let checked = meter.check(bytes);
            checked.map_err(|most| self.too_large(most))?;
        }
        Ok(self)
    }

    fn too_large(&self, most: u64) -> Error {
        let peer = self.peer.label.to_string();
        self.error(UpstreamError::BodyTooLarge { peer, most })
    }

    /// The last piece was handed out.
    pub fn is_end(&self) -> bool {
        let read_ahead = self.read_ahead.as_ref();
        self.stream.is_end() && read_ahead.is_none_or(|pieces| pieces.len() == 0)
    }

    /// The fields after a chunked body, once.
    pub fn take_trailers(&mut self) -> Option<Headers> {
        self.stream.take_trailers()
    }

    /// Waits for more of it. Meanwhile the rest of the request's body is sent, and the client is watched.
    pub async fn fill(
        &mut self,
        source: &mut UploadSource<'_, '_>,
        exchange: &mut Box<Exchange>,
    ) -> Result<(), Error> {
        self.came_at = None;
        if let Some(pause) = self.pause() {
            // Bytes that come meanwhile wait in the stream.
            let paused = Box::pin(tokio::time::sleep(pause));
            let paused = source.downstream.while_there(paused).await;
            return paused.ok_or_else(|| ClientError::Gone.into());
        }
        loop {
            match self.wait(source).await {
                Event::Filled(filled) => return filled.map_err(|cause| self.error(cause)),
                Event::Client(error) => return Err(error.into()),
                // The response has begun, and a hook that would rather answer is told that it cannot. What it makes of that
                // costs the upload, not the response.
                Event::Filter => {
                    let mut sink = UploadSink {
                        upload: &mut self.upload,
                        stream: &mut self.stream,
                        timeout: self.settings.idle_timeout,
                        peer: &self.peer.label,
                    };
                    let filtered = Box::pin(source.filter(exchange, &mut sink));
                    if filtered.await.is_err() {
                        self.upload.break_off();
                    }
                }
            }
        }
    }

    async fn wait(&mut self, source: &mut UploadSource<'_, '_>) -> Event {
        let after = self.settings.idle_timeout;
        let peer = &*self.peer.label;
        let mut stream = self.stream.wait();
        let mut pump = Pump::new(&mut self.upload, source.downstream, after, peer);
        poll_fn(|cx| {
            if let Poll::Ready(filled) = stream.poll_fill(cx, peer) {
                return Poll::Ready(Event::Filled(filled));
            }
            if stream.poll_late(cx, after).is_ready() {
                stream.retire();
                let peer = peer.to_owned();
                return Poll::Ready(Event::Filled(Err(UpstreamError::BodyTimeout {
                    peer,
                    after,
                })));
            }
            if !pump.is_over() {
                match pump.poll(cx, &mut stream, source) {
                    Poll::Pending => {
                        let reset = source.downstream.poll_reset(cx);
                        return reset.map(|()| Event::Client(ClientError::Gone));
                    }
                    Poll::Ready(Ok(Pumped::Done)) => {}
                    Poll::Ready(Ok(Pumped::Filter)) => return Poll::Ready(Event::Filter),
                    Poll::Ready(Err(UploadError::Client(error))) => {
                        return Poll::Ready(Event::Client(error));
                    }
                    Poll::Ready(Err(UploadError::Upstream(_) | UploadError::Lost(_))) => {
                        pump.break_off()
                    }
                }
            }
            let gone = source.downstream.poll_gone(cx);
            gone.map(|()| Event::Client(ClientError::Gone))
        })
        .await
    }

    /// Ends a body that was read to its end: the stream is kept if both sides are through with it.
    #[inline]
    pub fn finish(self) {
        let Self {
            stream,
            came_at,
            peer,
            ..
        } = self;
        match stream.release() {
            Released::Reusable(stream) => {
                peer.pool.put(stream, came_at.unwrap_or_else(clock::now));
            }
            Released::OutOfStep => peer.pool.ban(),
            Released::Closed => {}
        }
    }

    /// Ends a body of which nothing is wanted, where nothing more comes of it; else it is cut.
    pub fn finish_if_over(self) {
        if self.is_end() || self.size() == BodySize::None {
            self.finish();
        }
    }

    /// Gives a body up that nobody wants. One that is there whole costs the peer's stream nothing.
    pub(in crate::upstream) fn discard(mut self) {
        let mut seen_bytes = 0;
        while seen_bytes <= MOST_DISCARDED_BYTES {
            match self.try_piece() {
                Ok(Piece::Data(piece)) => seen_bytes += piece.len(),
                Ok(Piece::End) => return self.finish(),
                Ok(Piece::NeedMore) | Err(_) => return,
            }
        }
    }

    pub(super) fn error(&self, cause: UpstreamError) -> Error {
        Error::Upstream {
            upstream: self.upstream.name.to_string(),
            cause,
        }
    }
}
