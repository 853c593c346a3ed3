//! The response's way to the client: plugins that change its head, then each chunk of its body.

use bytes::Bytes;
use castling_abi::Hook;

use crate::error::Error;
use crate::exchange::{self, Answer, Exchange};
use crate::wasm::{Chunks, Next, Passed, PinnedInstances, Step, Supplier};

/// Runs the head through its filters. An answer of one of them takes the place of the response, and the next ones see
/// that; the last such body is returned.
pub async fn head(
    steps: &[Step],
    exchange: &mut Box<Exchange>,
    pinned: &mut PinnedInstances,
    supplier: &mut impl Supplier,
) -> Result<Option<Bytes>, Error> {
    exchange.stage = exchange::Stage::Reply;
    let mut replaced = None;
    let mut steps = steps.iter();
    // An answer of the last one leaves none to run.
    while steps.len() > 0 {
        let hook = Hook::ResponseHeaders;
        match Step::run_all(&mut steps, hook, exchange, pinned, supplier).await? {
            Next::Step | Next::Skipped | Next::Reroute => {}
            Next::Answer(Answer {
                status,
                headers,
                body,
            }) => {
                exchange.replace_reply(status, headers);
                replaced = Some(body);
            }
        }
    }
    Ok(replaced)
}

/// The filters of one body.
pub struct Body<'a> {
    steps: &'a [Step],
    chunks: Chunks,
}

impl<'a> Body<'a> {
    pub fn new(steps: &'a [Step]) -> Self {
        Self {
            steps,
            chunks: Chunks::new(Hook::ResponseBody, steps),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Runs one chunk through: [`Chunks::pass`]. What goes on in its place, and whether the body ends with it.
    pub async fn chunk(
        &mut self,
        exchange: &mut Box<Exchange>,
        pinned: &mut PinnedInstances,
        supplier: &mut impl Supplier,
        chunk: Bytes,
        last: bool,
    ) -> Result<(Bytes, bool), Error> {
        if self.steps.is_empty() {
            return Ok((chunk, last));
        }
        exchange.stage = exchange::Stage::Body;
        let passed = self
            .chunks
            .pass(self.steps, exchange, pinned, supplier, chunk, last)
            .await?;
        match passed {
            Passed::Bytes { bytes, last } => Ok((bytes, last)),
            // Of `request_body` only.
            Passed::Answer(_) => Ok((Bytes::new(), last)),
        }
    }
}
