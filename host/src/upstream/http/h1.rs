//! The peer's side of one exchange over HTTP/1: a connection, on which one follows the other.

use std::io;
use std::num::NonZeroUsize;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, StatusCode};

use super::{PeerStream, Released, count_interim};
use crate::error::UpstreamError;
use crate::http1::{self, BodyDecoder, BodyError, Framing, HeadProgress, ParsedResponse};
use crate::message::HeadLimits;
use crate::message::{BodySize, Headers, Piece, RequestHead, Upgrade};
use crate::runtime::alarm::{Alarm, Alarms, Elapsed};
use crate::transport::halves::{BODY_ROOM_BYTES, HEAD_ROOM_BYTES, Reader, Writer};
use crate::upstream::life::Life;
use crate::upstream::open_connection::OpenConnection;

/// A connection to a peer, with the state of the exchange that is under way on it.
pub struct Connection {
    reader: Reader,
    writer: Writer,
    progress: HeadProgress,
    read_alarm: Alarm,
    write_alarm: Alarm,
    is_reused: bool,
    life: Life,
    _open: OpenConnection,
    request_size: BodySize,
    /// All of the request was appended.
    request_ended: bool,
    size: BodySize,
    decoder: BodyDecoder,
    /// The peer allows another request on this connection.
    keep_alive: bool,
    /// Protocol that the peer was asked to go on with.
    upgrade: Option<Upgrade>,
    /// `100 Continue` that have come for the request.
    continues: usize,
}

impl Connection {
    pub(super) fn new(
        (reader, writer): (Reader, Writer),
        alarms: &Alarms,
        life: Life,
        open: OpenConnection,
    ) -> Self {
        Self {
            reader,
            writer,
            progress: HeadProgress::new(),
            read_alarm: alarms.alarm(),
            write_alarm: alarms.alarm(),
            is_reused: false,
            life,
            _open: open,
            request_size: BodySize::None,
            request_ended: false,
            size: BodySize::None,
            decoder: BodyDecoder::new(Framing::None),
            keep_alive: false,
            upgrade: None,
            continues: 0,
        }
    }

    pub(super) fn is_reused(&self) -> bool {
        self.is_reused
    }

    pub(super) fn set_reused(&mut self) {
        self.is_reused = true;
    }

    pub(super) fn expires(&self) -> Option<Instant> {
        self.life.expires
    }

    pub(super) fn is_quiet(&self, surely: bool) -> bool {
        match surely {
            true => self.reader.is_quiet_now(),
            false => self.reader.is_quiet(),
        }
    }

    pub(super) fn has_unasked(&self) -> bool {
        self.reader.has_bytes()
    }

    pub(super) fn send_head(&mut self, request: &RequestHead, host: &[u8], body: BodySize) {
        self.request_size = body;
        self.request_ended = body == BodySize::None;
        http1::write_request_head(
            self.writer.small(),
            &request.method,
            &request.target,
            host,
            &request.headers,
            body,
            request.upgrade,
        );
        self.upgrade = request.upgrade;
        self.continues = 0;
    }

    pub(super) fn is_full(&self) -> bool {
        self.writer.is_full()
    }

    pub(super) fn send_data(&mut self, piece: Bytes) {
        match (self.request_size, NonZeroUsize::new(piece.len())) {
            (BodySize::Unknown, Some(len)) => {
                http1::write_chunk_head(self.writer.small(), len);
                self.writer.push(piece);
                self.writer.small().extend_from_slice(http1::CHUNK_END);
            }
            (_, _) => self.writer.push(piece),
        }
    }

    pub(super) fn finish(&mut self, trailers: &Headers) {
        if self.request_size == BodySize::Unknown {
            http1::write_trailers(self.writer.small(), trailers);
        }
        self.request_ended = true;
    }

    pub(super) fn post(&mut self) -> bool {
        self.writer.post()
    }

    pub(super) fn poll_flush(
        &mut self,
        cx: &mut Context<'_>,
        limit: Duration,
        peer: &str,
    ) -> Poll<Result<(), UpstreamError>> {
        let flushed = ready!(self.writer.poll_flush(cx, &self.write_alarm, limit));
        let flushed = flushed.map_err(|Elapsed| UpstreamError::SendTimeout {
            peer: peer.to_owned(),
            after: limit,
        });
        Poll::Ready(flushed.and_then(|flushed| {
            flushed.map_err(|cause| UpstreamError::Io {
                peer: peer.to_owned(),
                cause,
            })
        }))
    }

    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        limits: &HeadLimits,
        method: &Method,
        headers: &mut Headers,
        peer: &str,
    ) -> Poll<Result<StatusCode, UpstreamError>> {
        let name = peer;
        let peer = || peer.to_owned();
        loop {
            let (buf, progress) = (&mut self.reader.buf, &mut self.progress);
            // Mostly nothing has come at first, and nothing is parsed.
            let parsed = match buf.is_empty() {
                true => Ok(None),
                false => http1::parse_response(buf, progress, limits, method, headers),
            };
            let parsed = parsed.map_err(|cause| UpstreamError::BadHead {
                peer: peer(),
                cause,
            });
            match parsed? {
                Some(response) if response.status == StatusCode::SWITCHING_PROTOCOLS => {
                    return Poll::Ready(match self.switches_to(headers) {
                        true => Ok(response.status),
                        false => Err(UpstreamError::UnexpectedUpgrade { peer: peer() }),
                    });
                }
                Some(response) if response.status == StatusCode::CONTINUE => {
                    if let Err(error) = count_interim(&mut self.continues, name) {
                        return Poll::Ready(Err(error));
                    }
                }
                Some(response) => return Poll::Ready(Ok(self.begin_body(response))),
                None => match ready!(self.reader.poll_fill(cx, HEAD_ROOM_BYTES)) {
                    Ok(0) => return Poll::Ready(Err(UpstreamError::Closed { peer: peer() })),
                    Ok(_) => {}
                    Err(cause) => {
                        let peer = peer();
                        return Poll::Ready(Err(UpstreamError::Io { peer, cause }));
                    }
                },
            }
        }
    }

    /// Goes on with the protocol that the peer was asked for, if that is what it has chosen.
    #[cold]
    fn switches_to(&mut self, headers: &Headers) -> bool {
        let is_asked = self.upgrade.is_some() && Upgrade::of(headers) == self.upgrade;
        if is_asked {
            self.begin_tunnel();
        }
        is_asked
    }

    /// Has bytes go as they are, both ways. A connection that is dropped in the midst is reset.
    #[cold]
    pub(super) fn begin_tunnel(&mut self) {
        self.size = BodySize::Unknown;
        self.decoder = BodyDecoder::new(Framing::UntilClose);
        self.keep_alive = false;
        self.request_size = BodySize::Exact(0);
        self.writer.set_reset_on_close(true);
    }

    pub(super) fn settle_tunnel(&self) {
        self.writer.set_reset_on_close(false);
    }

    /// Says that no more bytes of the other protocol come.
    pub(super) fn end_tunnel(&mut self) -> io::Result<()> {
        self.writer.close()
    }

    /// Takes a head over. That of an interim response has no body, and the next one overwrites it.
    fn begin_body(&mut self, response: ParsedResponse) -> StatusCode {
        let ParsedResponse {
            status,
            body,
            keep_alive,
        } = response;
        self.size = body.size();
        self.decoder = BodyDecoder::new(body);
        self.keep_alive = keep_alive;
        status
    }

    pub(super) fn poll_late(&self, cx: &mut Context<'_>, limit: Duration) -> Poll<()> {
        self.read_alarm.poll_elapsed(limit, cx)
    }

    pub(super) fn size(&self) -> BodySize {
        self.size
    }

    #[inline]
    pub(super) fn try_piece(&mut self) -> Result<Piece, BodyError> {
        self.decoder.decode(&mut self.reader.buf)
    }

    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        peer: &str,
    ) -> Poll<Result<(), UpstreamError>> {
        let filled = ready!(self.reader.poll_fill(cx, BODY_ROOM_BYTES));
        Poll::Ready(match filled {
            Ok(0) => {
                let ended = self.decoder.finish_at_eof();
                ended.map_err(|cause| UpstreamError::BadBody {
                    peer: peer.to_owned(),
                    cause,
                })
            }
            Ok(_) => Ok(()),
            Err(cause) => Err(UpstreamError::Io {
                peer: peer.to_owned(),
                cause,
            }),
        })
    }

    #[inline]
    pub(super) fn is_end(&self) -> bool {
        self.decoder.is_end()
    }

    pub(super) fn take_trailers(&mut self) -> Option<Headers> {
        self.decoder.take_trailers()
    }

    #[inline]
    pub(super) fn release(mut self: Box<Self>) -> Released {
        let both_are_through = self.keep_alive
            && self.decoder.is_end()
            && self.request_ended
            && !self.writer.has_pending();
        if !both_are_through {
            return Released::Closed;
        }
        let is_in_step = self.reader.buf.is_empty() && self.writer.is_settled();
        if !is_in_step {
            return Released::OutOfStep;
        }
        if !self.life.has_more() {
            return Released::Closed;
        }
        self.is_reused = true;
        // Nothing of the body stays with an idle connection: trailers that nobody has asked for.
        drop(self.decoder.take_trailers());
        Released::Reusable(PeerStream::H1(self))
    }

    pub(super) fn disarm(&self) {
        self.read_alarm.disarm();
        self.write_alarm.disarm();
    }
}
