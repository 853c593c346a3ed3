//! Plugins that see the request's body on its way to a peer.

use std::rc::Rc;

use bytes::Bytes;
use castling_abi::Hook;

use super::upload::UploadSource;
use crate::downstream::RequestBody;
use crate::error::Error;
use crate::exchange::{Answer, Exchange};
use crate::filter::{Chunks, Passed};
use crate::message::BodySize;
use crate::phase::Step;
use crate::wasm::{NoIo, PinnedInstances};

/// The filters of one request's body, and the one piece that is with them. They see each piece once, however many peers
/// are sent it.
pub struct UploadFilter {
    steps: Rc<[Step]>,
    chunks: Chunks,
    /// Piece that they are to see next, and whether it is the last.
    due: Option<(Bytes, bool)>,
    /// Bytes that they have let pass, to be sent.
    passed: Option<Bytes>,
    ended: bool,
}

impl UploadFilter {
    pub fn new(steps: &Rc<[Step]>) -> Self {
        Self {
            chunks: Chunks::new(Hook::RequestBody, steps),
            steps: Rc::clone(steps),
            due: None,
            passed: None,
            ended: false,
        }
    }

    pub(super) fn put(&mut self, piece: Bytes, last: bool) {
        self.due = Some((piece, last));
    }

    pub(super) fn is_due(&self) -> bool {
        self.due.is_some()
    }

    pub(super) fn take_passed(&mut self) -> Option<Bytes> {
        self.passed.take()
    }

    /// Whether they have seen the last piece.
    pub(super) fn is_ended(&self) -> bool {
        self.ended
    }
}

/// Has the filters see the piece that is due. An answer of one of them ends the exchange.
pub(super) async fn pass(
    source: &mut UploadSource<'_, '_>,
    exchange: &mut Box<Exchange>,
) -> Result<Option<Answer>, Error> {
    let Some(filter) = source.filter else {
        return Ok(None);
    };
    let Some((piece, last)) = filter.due.take() else {
        return Ok(None);
    };
    if last {
        exchange.body_mut().trailers = source.body.lend_trailers(source.downstream);
    }
    let passed = match &mut source.pinned {
        Some(pinned) => run(filter, exchange, pinned, piece, last).await,
        None => Ok(Passed::Bytes { bytes: piece, last }),
    };
    match last {
        true => source
            .body
            .give_trailers(std::mem::take(&mut exchange.body_mut().trailers)),
        false => exchange.body_mut().trailers.clear(),
    }
    match passed? {
        Passed::Bytes { bytes, last } => {
            filter.ended = last;
            filter.passed = (!bytes.is_empty()).then_some(bytes);
            Ok(None)
        }
        Passed::Answer(answer) => Ok(Some(answer)),
    }
}

/// Settles what the peers are told of the length of a body that is filtered: that of what the filters make of it where all of
/// it is there, none else.
pub(super) async fn begin(
    source: &mut UploadSource<'_, '_>,
    exchange: &mut Box<Exchange>,
) -> Result<Option<Answer>, Error> {
    source.body.hold_buffered(source.downstream)?;
    if !source.body.is_held(source.downstream) {
        source.body.size = BodySize::Unknown;
        return Ok(None);
    }
    let mut pieces = source.body.take_held();
    let mut passed_bytes = 0_u64;
    let mut passed = Vec::new();
    loop {
        let piece = pieces.pop_front().unwrap_or_default();
        let last = pieces.is_empty();
        if let Some(filter) = source.filter {
            filter.put(piece, last);
        }
        if let Some(answer) = pass(source, exchange).await? {
            return Ok(Some(answer));
        }
        let filter = source.filter.as_mut();
        let out = filter.and_then(|filter| filter.take_passed());
        passed_bytes += out.as_ref().map_or(0, |out| out.len() as u64);
        passed.extend(out);
        if last || source.filter.as_ref().is_some_and(|filter| filter.ended) {
            break;
        }
    }
    *source.filter = None;
    settle(source.body, passed, passed_bytes);
    Ok(None)
}

/// The body is now what the filters have made of it.
fn settle(body: &mut RequestBody, passed: Vec<Bytes>, bytes: u64) {
    body.size = BodySize::Exact(bytes);
    for piece in passed {
        body.hold(piece);
    }
}

async fn run(
    filter: &mut UploadFilter,
    exchange: &mut Box<Exchange>,
    pinned: &mut PinnedInstances,
    piece: Bytes,
    last: bool,
) -> Result<Passed, Error> {
    let steps = Rc::clone(&filter.steps);
    filter
        .chunks
        .pass(&steps, exchange, pinned, &mut NoIo, piece, last)
        .await
}
