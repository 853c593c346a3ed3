//! The response's way to the client: plugins that change its head, then each chunk of its body.

use bytes::Bytes;
use castling_abi::Hook;

use crate::error::Error;
use crate::exchange::{self, Answer, Exchange};
use crate::wasm::{Chunks, Next, Passed, PinnedInstances, Step, Supplier, Way};

/// Runs the head through its filters, after [`Step::go`]. An answer of one of them takes the place of the response, and the next
/// ones see that; the last such body is returned.
pub async fn head(
    mut steps: &[Step],
    mut way: Way,
    exchange: &mut Box<Exchange>,
    pinned: &mut PinnedInstances,
    supplier: &mut impl Supplier,
) -> Result<Option<Bytes>, Error> {
    let hook = Hook::ResponseHeaders;
    let mut replaced = None;
    loop {
        let (run, next) = Step::run_rest(steps, way, hook, exchange, pinned, supplier).await?;
        if let Next::Answer(Answer {
            status,
            headers,
            body,
        }) = next
        {
            exchange.replace_reply(status, headers);
            replaced = Some(body);
        }
        steps = &steps[run..];
        // An answer of the last one leaves none to run.
        if steps.is_empty() {
            return Ok(replaced);
        }
        way = Step::go(steps, hook, exchange).end().await;
    }
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
