//! The response's way to the client: plugins that change its head, then each chunk of its body.

use bytes::Bytes;
use castling_abi::Hook;

use crate::error::{Error, PluginFault};
use crate::exchange::{self, Answer, Exchange};
use crate::wasm::{Next, NoSupplier, PinnedInstances, Step, Supplier};

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
    for step in steps {
        match step
            .run(Hook::ResponseHeaders, exchange, pinned, supplier, (0, 0, 0))
            .await?
        {
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
    /// By step.
    stages: Vec<Stage>,
}

/// What a filter has had of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Nothing,
    /// It may hold back bytes that it has taken.
    Some,
    /// It failed on its first chunk and its `on_error` is `skip`: it sees no more of this body.
    Off,
}

impl<'a> Body<'a> {
    pub fn new(steps: &'a [Step]) -> Self {
        Self {
            steps,
            stages: vec![Stage::Nothing; steps.len()],
        }
    }

    /// Runs one chunk through; what comes out may be longer, shorter or empty. `last` is said once, with the end of the
    /// body, maybe on an empty chunk.
    ///
    /// A filter that fails when it has taken some of the body before fails the exchange, also with `skip`: what it has
    /// held back would be missing, and nobody could tell.
    pub async fn chunk(
        &mut self,
        exchange: &mut Box<Exchange>,
        pinned: &mut PinnedInstances,
        chunk: Bytes,
        last: bool,
    ) -> Result<Bytes, Error> {
        if self.steps.is_empty() {
            return Ok(chunk);
        }
        exchange.stage = exchange::Stage::Body;
        exchange.chunk = chunk;
        for (step, stage) in self.steps.iter().zip(&mut self.stages) {
            if exchange.chunk.is_empty() && !last {
                break;
            }
            if *stage == Stage::Off {
                continue;
            }
            let before = exchange.chunk.clone();
            let len = u32::try_from(before.len()).unwrap_or(u32::MAX);
            let args = (len, u32::from(last), 0);
            match step
                .run(Hook::ResponseBody, exchange, pinned, &mut NoSupplier, args)
                .await?
            {
                Next::Skipped if *stage == Stage::Some => {
                    let plugin = step.plugin.name.to_string();
                    return Err(Error::Plugin {
                        plugin,
                        what: PluginFault::Failed,
                    });
                }
                Next::Skipped => {
                    // The chunk goes on as it came, whatever the hook had done to it before it failed.
                    exchange.chunk = before;
                    *stage = Stage::Off;
                }
                Next::Step | Next::Answer(_) | Next::Reroute => *stage = Stage::Some,
            }
        }
        Ok(std::mem::take(&mut exchange.chunk))
    }
}
