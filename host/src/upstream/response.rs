//! A peer's response: its head, and its body, which comes piece by piece.

use std::io;
use std::rc::Rc;
use std::time::Instant;
use std::vec;

use bytes::Bytes;
use http::{Method, StatusCode};

use super::connection::{Connection, Response};
use super::upload::{Sink, UploadError, UploadPause, UploadSource};
use super::{Active, Upstream, upload_filter};
use crate::error::{ClientError, Error, UpstreamError};
use crate::exchange::Exchange;
use crate::http1::{self, BodyDecoder, HeadLimits, ParsedResponse};
use crate::message::{BodySize, Headers, Piece};
use crate::runtime::alarm::Elapsed;
use crate::runtime::clock;
use crate::transport::halves::{BODY_ROOM_BYTES, HEAD_ROOM_BYTES, Reader};

/// The body of an upstream's response, read piece by piece. Dropped before its end, it closes the connection.
pub struct Body {
    connection: Box<Connection>,
    upstream: Rc<Upstream>,
    /// When its head had come, as long as nothing of it was waited for since.
    came_at: Option<Instant>,
    active: Active,
}

/// Event that came first.
enum Read {
    Response(Result<io::Result<usize>, Elapsed>),
    /// A piece of the request's body that is to be filtered before it is sent.
    Unfiltered,
}

impl Body {
    /// Makes the body of a response whose head has come on this connection, at `came_at`.
    pub(super) fn new(
        connection: Box<Connection>,
        upstream: Rc<Upstream>,
        active: Active,
        came_at: Instant,
    ) -> Self {
        Self {
            connection,
            upstream,
            came_at: Some(came_at),
            active,
        }
    }

    pub fn size(&self) -> BodySize {
        self.connection.response.size
    }

    /// Waits until all of it is there; `None` when it is longer than this. Then it goes on from its beginning all the
    /// same.
    pub async fn read_whole(
        &mut self,
        source: &mut UploadSource<'_, '_>,
        exchange: &mut Box<Exchange>,
        limit_bytes: usize,
    ) -> Result<Option<Bytes>, Error> {
        let read_ahead = &mut self.connection.response.read_ahead;
        let mut held: Vec<Bytes> = std::mem::take(read_ahead).collect();
        let mut held_bytes: usize = held.iter().map(Bytes::len).sum();
        let mut pieces = clock::PieceBudget::default();
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
            self.connection.response.read_ahead = held.into_iter();
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
        let Connection {
            reader, response, ..
        } = &mut *self.connection;
        if let Some(piece) = response.read_ahead.next() {
            return Ok(Piece::Data(piece));
        }
        let decoded = response.decoder.decode(&mut reader.buf);
        decoded.map_err(|cause| {
            self.error(UpstreamError::BadBody {
                peer: self.label(),
                cause,
            })
        })
    }

    /// The last piece was handed out.
    pub fn is_end(&self) -> bool {
        let response = &self.connection.response;
        response.decoder.is_end() && response.read_ahead.len() == 0
    }

    /// The fields after a chunked body, once.
    pub fn take_trailers(&mut self) -> Option<Headers> {
        self.connection.response.decoder.take_trailers()
    }

    /// Waits for more of it. Meanwhile the rest of the request's body is sent, and the client is watched.
    pub async fn fill(
        &mut self,
        source: &mut UploadSource<'_, '_>,
        exchange: &mut Box<Exchange>,
    ) -> Result<(), Error> {
        self.came_at = None;
        loop {
            match self.read_once(source).await? {
                Read::Response(read) => return self.filled(read),
                // The response has begun, and a hook that would rather answer is told that it cannot. What it makes of that
                // costs the upload, not the response.
                Read::Unfiltered => {
                    if upload_filter::pass(source, exchange).await.is_err() {
                        self.connection.response.upload_broken = true;
                    }
                }
            }
        }
    }

    async fn read_once(&mut self, source: &mut UploadSource<'_, '_>) -> Result<Read, ClientError> {
        let after = self.upstream.idle_timeout;
        let Self {
            connection, active, ..
        } = self;
        let Connection {
            reader,
            writer,
            read_alarm,
            write_alarm,
            upload,
            response: Response { upload_broken, .. },
            ..
        } = &mut **connection;
        let peer = &active.label;
        let mut reading = std::pin::pin!(read_alarm.limit(after, reader.fill(BODY_ROOM_BYTES)));
        if !upload.is_done() && !*upload_broken {
            let to = Sink {
                writer,
                alarm: write_alarm,
                timeout: after,
                peer,
            };
            let sending = upload.run(source, to);
            tokio::select! {
                biased;
                read = &mut reading => return Ok(Read::Response(read)),
                sent = sending => match sent {
                    Ok(UploadPause::Done) => {}
                    Ok(UploadPause::Unfiltered) => return Ok(Read::Unfiltered),
                    Err(UploadError::Client(error)) => return Err(error),
                    Err(UploadError::Upstream(_)) => *upload_broken = true,
                },
            }
        }
        let read = source.downstream.while_there(reading).await;
        read.map(Read::Response).ok_or(ClientError::Gone)
    }

    fn filled(&mut self, read: Result<io::Result<usize>, Elapsed>) -> Result<(), Error> {
        match read {
            Ok(Ok(0)) => self
                .connection
                .response
                .decoder
                .finish_at_eof()
                .map_err(|cause| {
                    self.error(UpstreamError::BadBody {
                        peer: self.label(),
                        cause,
                    })
                }),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(cause)) => Err(self.error(UpstreamError::Io {
                peer: self.label(),
                cause,
            })),
            Err(Elapsed) => {
                let after = self.upstream.idle_timeout;
                Err(self.error(UpstreamError::BodyTimeout {
                    peer: self.label(),
                    after,
                }))
            }
        }
    }

    /// Ends a body that was read to its end: the connection is kept if both sides are through with it.
    pub fn finish(self) {
        let Self {
            mut connection,
            active,
            came_at,
            ..
        } = self;
        let reusable = connection.response.keep_alive
            && connection.response.decoder.is_end()
            && connection.upload.is_done()
            && !connection.writer.has_pending();
        // A peer that has answered more than it was asked, or before it was.
        let is_in_step = connection.reader.buf.is_empty() && connection.writer.is_settled();
        if reusable && !is_in_step {
            active.pool.ban();
        }
        if reusable && is_in_step {
            connection.reused = true;
            // Nothing of the body stays with an idle connection: what nobody has asked for, or what came after a filter's end.
            drop(connection.response.decoder.take_trailers());
            if connection.response.read_ahead.len() > 0 {
                connection.response.read_ahead = vec::IntoIter::default();
            }
            let since = came_at.unwrap_or_else(clock::now);
            active.pool.put(connection, since);
        }
    }

    fn error(&self, cause: UpstreamError) -> Error {
        Error::Upstream {
            upstream: self.upstream.name.to_string(),
            cause,
        }
    }

    fn label(&self) -> String {
        self.active.label.to_string()
    }
}

/// Reads until a response's head is there, which may be an interim one's. `100` is dropped: the gateway has answered the
/// client's expectation, and asks for none itself.
pub(super) async fn read_head(
    reader: &mut Reader,
    progress: &mut http1::HeadProgress,
    limits: &HeadLimits,
    method: &Method,
    headers: &mut Headers,
    peer: &str,
) -> Result<ParsedResponse, UpstreamError> {
    loop {
        let parsed = http1::parse_response(&mut reader.buf, progress, limits, method, headers);
        match parsed.map_err(|cause| UpstreamError::BadHead {
            peer: peer.to_owned(),
            cause,
        })? {
            Some(response) if response.status == StatusCode::SWITCHING_PROTOCOLS => {
                // The peer was not asked to: `Upgrade` is not passed on.
                return Err(UpstreamError::UnexpectedUpgrade {
                    peer: peer.to_owned(),
                });
            }
            Some(response) if response.status == StatusCode::CONTINUE => {}
            Some(response) => return Ok(response),
            None => match reader.fill(HEAD_ROOM_BYTES).await {
                Ok(0) => {
                    return Err(UpstreamError::Closed {
                        peer: peer.to_owned(),
                    });
                }
                Ok(_) => {}
                Err(cause) => {
                    return Err(UpstreamError::Io {
                        peer: peer.to_owned(),
                        cause,
                    });
                }
            },
        }
    }
}

impl Connection {
    /// Begins a response: its body comes next.
    pub(super) fn begin_response(&mut self, parsed: ParsedResponse) -> StatusCode {
        let ParsedResponse {
            status,
            body,
            keep_alive,
        } = parsed;
        self.response.size = body.size();
        self.response.decoder = BodyDecoder::new(body);
        self.response.keep_alive = keep_alive;
        self.response.upload_broken = false;
        status
    }
}
