//! The request's body on its way from the client to a peer.

use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::Bytes;

use super::upload_filter::UploadFilter;
use crate::downstream::{BodyPiece, Downstream, RequestBody};
use crate::error::{ClientError, UpstreamError};
use crate::http1;
use crate::message::BodySize;
use crate::runtime::alarm::Alarm;
use crate::runtime::clock;
use crate::transport::halves::Writer;
use crate::wasm::PinnedInstances;

/// The other side of an upstream's exchange: the body that it sends, and who waits for the response.
pub struct UploadSource<'a, 'c> {
    pub downstream: &'a mut Downstream<'c>,
    pub body: &'a mut RequestBody,
    /// The plugins on the body's way.
    pub filter: &'a mut Option<Box<UploadFilter>>,
    /// Instances of the request's plugins, for those that filter the body. Without them it is not filtered.
    pub pinned: Option<&'a mut PinnedInstances>,
}

/// Next thing that an upload has to send.
enum UploadPiece {
    Body(BodyPiece),
    /// There is a piece, which the filters must see first.
    Unfiltered,
}

/// Error that ended an upload early.
pub(super) enum UploadError {
    Client(ClientError),
    Upstream(UpstreamError),
}

impl UploadSource<'_, '_> {
    /// Takes what is to be sent next, without waiting.
    fn next(&mut self) -> Result<UploadPiece, ClientError> {
        let (body, downstream) = (&mut *self.body, &mut *self.downstream);
        let Some(filter) = self.filter else {
            return body.next(downstream).map(UploadPiece::Body);
        };
        if let Some(passed) = filter.take_passed() {
            return Ok(UploadPiece::Body(BodyPiece::Owned(passed)));
        }
        if filter.is_due() {
            return Ok(UploadPiece::Unfiltered);
        }
        if filter.is_ended() {
            return Ok(UploadPiece::Body(BodyPiece::End));
        }
        let piece = match body.next(downstream)? {
            BodyPiece::Borrowed(data) | BodyPiece::Owned(data) => data,
            BodyPiece::End => Bytes::new(),
            BodyPiece::NeedMore => return Ok(UploadPiece::Body(BodyPiece::NeedMore)),
        };
        filter.put(piece, body.is_end(downstream));
        Ok(UploadPiece::Unfiltered)
    }
}

/// Why an upload has stopped for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UploadPause {
    /// All of it is sent.
    Done,
    /// The filters must see the next piece: [`super::upload_filter::pass`]. Not done here, because what runs here may
    /// be dropped at any time, and a plugin's call may not.
    Unfiltered,
}

/// Copy of the body for one peer; begins with what an earlier peer was sent.
pub(super) struct Upload {
    /// Bytes of the replay that were sent.
    replayed: usize,
    stage: UploadStage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UploadStage {
    Sending,
    /// All of it was appended, not all of that is written.
    Ending,
    Done,
}

impl Upload {
    /// Nothing is to be sent.
    pub(super) const DONE: Self = Self {
        replayed: 0,
        stage: UploadStage::Done,
    };

    pub(super) fn new(body: &RequestBody) -> Self {
        Self {
            replayed: 0,
            stage: match body.size {
                BodySize::None => UploadStage::Done,
                BodySize::Exact(_) | BodySize::Unknown => UploadStage::Sending,
            },
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.stage == UploadStage::Done
    }

    /// Sends what is still to send. May be dropped and called again.
    pub(super) async fn run(
        &mut self,
        source: &mut UploadSource<'_, '_>,
        mut to: Sink<'_>,
    ) -> Result<UploadPause, UploadError> {
        let mut pieces = clock::PieceBudget::default();
        while self.stage == UploadStage::Sending {
            pieces.next().await;
            if to.writer.is_full() {
                to.flush().await.map_err(UploadError::Upstream)?;
            }
            match self.next_piece(source).map_err(UploadError::Client)? {
                UploadPiece::Body(BodyPiece::Owned(piece) | BodyPiece::Borrowed(piece)) => {
                    append(to.writer, source.body.size, piece);
                }
                UploadPiece::Unfiltered => {
                    to.flush().await.map_err(UploadError::Upstream)?;
                    return Ok(UploadPause::Unfiltered);
                }
                UploadPiece::Body(BodyPiece::NeedMore) => {
                    to.flush().await.map_err(UploadError::Upstream)?;
                    let filled = source.body.fill(source.downstream).await;
                    filled.map_err(UploadError::Client)?;
                }
                UploadPiece::Body(BodyPiece::End) => {
                    if source.body.size == BodySize::Unknown {
                        http1::write_trailers(to.writer.small(), source.body.trailers());
                    }
                    self.stage = UploadStage::Ending;
                }
            }
        }
        to.flush().await.map_err(UploadError::Upstream)?;
        self.stage = UploadStage::Done;
        Ok(UploadPause::Done)
    }

    fn next_piece(
        &mut self,
        source: &mut UploadSource<'_, '_>,
    ) -> Result<UploadPiece, ClientError> {
        if let Some(piece) = source.body.replayed_at(self.replayed) {
            self.replayed += piece.len();
            return Ok(UploadPiece::Body(BodyPiece::Owned(piece)));
        }
        let piece = source.next()?;
        if let UploadPiece::Body(piece) = &piece {
            source.body.remember(piece);
        }
        if let Some(bytes) = source.body.replayable_bytes() {
            self.replayed = bytes;
        }
        Ok(piece)
    }
}

/// Appends one piece in the body's framing.
fn append(to: &mut Writer, size: BodySize, piece: Bytes) {
    match (size, NonZeroUsize::new(piece.len())) {
        (BodySize::Unknown, Some(len)) => {
            http1::write_chunk_head(to.small(), len);
            to.push(piece);
            to.small().extend_from_slice(http1::CHUNK_END);
        }
        (_, _) => to.push(piece),
    }
}

/// The peer's end of an upload.
pub(super) struct Sink<'a> {
    pub(super) writer: &'a mut Writer,
    pub(super) alarm: &'a Alarm,
    /// Between two writes.
    pub(super) timeout: Duration,
    /// For errors.
    pub(super) peer: &'a str,
}

impl Sink<'_> {
    pub(super) async fn flush(&mut self) -> Result<(), UpstreamError> {
        let (peer, after) = (self.peer, self.timeout);
        let flushed = self.writer.flush(self.alarm, after).await;
        let flushed = flushed.map_err(|_| UpstreamError::SendTimeout {
            peer: peer.to_owned(),
            after,
        })?;
        flushed.map_err(|cause| UpstreamError::Io {
            peer: peer.to_owned(),
            cause,
        })
    }
}
