//! Filters of a request's body, on its way to a peer.

use std::rc::Rc;

use bytes::Bytes;
use castling_abi::Hook;

use super::chain::{Chunks, Passed};
use super::emit::{Nobody, PeerSink, Upload};
use crate::downstream::{BodyPiece, Downstream, RequestBody};
use crate::error::{ClientError, Error};
use crate::exchange::{Answer, Exchange};
use crate::message::BodySize;
use crate::phase::Step;
use crate::wasm::{NoIo, PinnedInstances};

/// The filters of one request's body, and the one piece that is with them. They see each piece once, however many peers
/// are sent it.
pub struct RequestBodyFilter {
    steps: Rc<[Step]>,
    chunks: Chunks,
    /// Piece that they are to see next, and whether it is the last.
    due: Option<(Bytes, bool)>,
    /// Bytes that they have let pass, to be sent.
    passed: Option<Bytes>,
    ended: bool,
}

impl RequestBodyFilter {
    pub fn new(steps: &Rc<[Step]>) -> Self {
        Self {
            chunks: Chunks::new(Hook::RequestBody, steps),
            steps: Rc::clone(steps),
            due: None,
            passed: None,
            ended: false,
        }
    }

    /// Takes what is to be sent next, without waiting. `None`: there is a piece, which the filters must see first
    /// ([`Self::pass`]).
    pub fn next(
        &mut self,
        body: &mut RequestBody,
        downstream: &mut Downstream<'_>,
    ) -> Result<Option<BodyPiece>, ClientError> {
        if let Some(passed) = self.passed.take() {
            return Ok(Some(BodyPiece::Owned(passed)));
        }
        if self.due.is_some() {
            return Ok(None);
        }
        if self.ended {
            return Ok(Some(BodyPiece::End));
        }
        let piece = match body.next(downstream)? {
            BodyPiece::Borrowed(data) | BodyPiece::Owned(data) => data,
            BodyPiece::End => Bytes::new(),
            BodyPiece::NeedMore => return Ok(Some(BodyPiece::NeedMore)),
        };
        self.due = Some((piece, body.is_end(downstream)));
        Ok(None)
    }

    /// Whether a filter may send on more than the pieces that it was given: what it makes of a body must not be held in memory.
    pub fn emits(&self) -> bool {
        self.steps.iter().any(Step::emits)
    }

    /// Has the filters see the piece that is due. An answer of one of them ends the exchange. Without instances of the
    /// request's plugins it passes as it is. What they send on before they are through with it is sent to the peer at once.
    pub async fn pass(
        &mut self,
        body: &mut RequestBody,
        downstream: &mut Downstream<'_>,
        pinned: Option<&mut PinnedInstances>,
        exchange: &mut Box<Exchange>,
        peer: &mut dyn PeerSink,
    ) -> Result<Option<Answer>, Error> {
        let Some((piece, last)) = self.due.take() else {
            return Ok(None);
        };
        if last {
            exchange.body_mut().trailers = body.lend_trailers(downstream);
        }
        let passed = match pinned {
            Some(pinned) => {
                let mut upload = Upload { body, peer };
                self.chunks
                    .pass(
                        &self.steps,
                        exchange,
                        pinned,
                        &mut NoIo,
                        &mut upload,
                        piece,
                        last,
                    )
                    .await
            }
            None => Ok(Passed::Bytes { bytes: piece, last }),
        };
        let trailers = &mut exchange.body_mut().trailers;
        match last {
            true => body.give_trailers(std::mem::take(trailers)),
            false => trailers.clear(),
        }
        match passed? {
            Passed::Bytes { bytes, last } => {
                self.ended = last;
                self.passed = (!bytes.is_empty()).then_some(bytes);
                Ok(None)
            }
            Passed::Answer(answer) => Ok(Some(answer)),
        }
    }

    /// Has the filters see all of a body that is there whole, and settles its length by what they make of it. An answer of
    /// one of them ends the exchange. For filters of which none [`Self::emits`].
    pub async fn pass_whole(
        &mut self,
        body: &mut RequestBody,
        downstream: &mut Downstream<'_>,
        mut pinned: Option<&mut PinnedInstances>,
        exchange: &mut Box<Exchange>,
    ) -> Result<Option<Answer>, Error> {
        let mut pieces = body.take_held();
        let mut passed_bytes = 0_u64;
        let mut passed = Vec::new();
        let mut is_last = false;
        while !is_last && !self.ended {
            let piece = pieces.pop_front().unwrap_or_default();
            is_last = pieces.is_empty();
            self.due = Some((piece, is_last));
            let pinned = pinned.as_deref_mut();
            if let Some(answer) = self
                .pass(body, downstream, pinned, exchange, &mut Nobody)
                .await?
            {
                return Ok(Some(answer));
            }
            let out = self.passed.take();
            passed_bytes += out.as_ref().map_or(0, |out| out.len() as u64);
            passed.extend(out);
        }
        body.size = BodySize::Exact(passed_bytes);
        for piece in passed {
            body.hold(piece);
        }
        Ok(None)
    }
}
