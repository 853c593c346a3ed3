//! Filters of a response's body.

use bytes::Bytes;
use castling_abi::Hook;

use super::chain::{Chunks, Passed};
use super::emit::BodySink;
use crate::error::Error;
use crate::exchange::{Exchange, Stage};
use crate::phase::Step;
use crate::wasm::{HostIo, PinnedInstances};

/// The filters of one response's body.
pub struct ResponseBodyFilter<'a> {
    steps: &'a [Step],
    chunks: Chunks,
}

/// Whether any of the steps sees the body of this response.
pub fn is_active(steps: &[Step], exchange: &Exchange) -> bool {
    let skips = &exchange.body().skips;
    let sees = |step: &Step| step.key().is_none_or(|key| !skips.contains(&key));
    match skips.is_empty() {
        true => !steps.is_empty(),
        false => steps.iter().any(sees),
    }
}

impl<'a> ResponseBodyFilter<'a> {
    /// Filters for the body of a response whose head has passed its own.
    pub fn new(steps: &'a [Step], exchange: &Exchange) -> Self {
        Self {
            steps,
            chunks: Chunks::without(Hook::ResponseBody, steps, &exchange.body().skips),
        }
    }

    /// Whether a filter may send on more than the pieces that it was given.
    pub fn emits(&self) -> bool {
        self.steps.iter().any(Step::emits)
    }

    /// Runs one chunk through: [`Chunks::pass`]. What goes on in its place, and whether the body ends with it.
    pub async fn chunk(
        &mut self,
        exchange: &mut Box<Exchange>,
        pinned: &mut PinnedInstances,
        io: &mut dyn HostIo,
        sink: &mut dyn BodySink,
        chunk: Bytes,
        last: bool,
    ) -> Result<(Bytes, bool), Error> {
        if self.steps.is_empty() {
            return Ok((chunk, last));
        }
        exchange.enter(Stage::Body);
        let passed = self
            .chunks
            .pass(self.steps, exchange, pinned, io, sink, chunk, last)
            .await?;
        match passed {
            Passed::Bytes { bytes, last } => Ok((bytes, last)),
            // An answer comes of `request_body` only.
            Passed::Answer(_) => Ok((Bytes::new(), last)),
        }
    }
}
