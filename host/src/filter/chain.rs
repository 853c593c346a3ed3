//! A body's chunks on their way through the steps that filter it.

use bytes::Bytes;
use castling_abi::Hook;

use crate::error::{Error, PluginFault};
use crate::exchange::{Answer, Exchange, PluginKey};
use crate::phase::{Next, PluginStep, Step};
use crate::wasm::{HookCall, HostIo, PinnedInstances};

/// State of the filters of one body.
pub struct Chunks {
    hook: Hook,
    /// By step.
    stages: Vec<ChunkStage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChunkStage {
    Nothing,
    /// The filter may hold back bytes that it has taken.
    Some,
    /// The plugin sees no more of this body: it has skipped it, or failed on its first chunk with `on_error = "skip"`.
    Off,
}

/// Outcome of a chunk.
pub enum Passed {
    /// These bytes go on in its place; none is possible. `last`: they end the body, because it ends there, or because a
    /// filter has ended it.
    Bytes { bytes: Bytes, last: bool },
    /// From `request_body` only: the exchange ends with this.
    Answer(Answer),
}

impl Chunks {
    /// For a body that these many steps filter with `hook`: `request_body` or `response_body`.
    pub fn new(hook: Hook, steps: &[Step]) -> Self {
        Self::without(hook, steps, &[])
    }

    /// Chunks of a body of which these plugins see nothing.
    pub fn without(hook: Hook, steps: &[Step], skips: &[PluginKey]) -> Self {
        let stage = |step: &Step| match step.key().is_some_and(|key| skips.contains(&key)) {
            true => ChunkStage::Off,
            false => ChunkStage::Nothing,
        };
        Self {
            hook,
            stages: steps.iter().map(stage).collect(),
        }
    }

    /// Runs one chunk through; what comes out may be longer, shorter or empty. `last` is said once, with the end of the
    /// body, maybe on an empty chunk.
    ///
    /// A filter that fails when it has taken some of the body before fails the exchange, also with `skip`: what it has
    /// held back would be missing, and nobody could tell.
    pub async fn pass(
        &mut self,
        steps: &[Step],
        exchange: &mut Box<Exchange>,
        pinned: &mut PinnedInstances,
        io: &mut dyn HostIo,
        chunk: Bytes,
        mut last: bool,
    ) -> Result<Passed, Error> {
        exchange.body_mut().chunk = chunk;
        exchange.body_mut().ends = false;
        for (step, stage) in steps.iter().zip(&mut self.stages) {
            if exchange.body().chunk.is_empty() && !last {
                break;
            }
            if *stage == ChunkStage::Off {
                continue;
            }
            let before = exchange.body().chunk.clone();
            let call = HookCall::chunk(self.hook, before.len(), last);
            match step.run(call, exchange, pinned, io).await? {
                Next::Skipped if *stage == ChunkStage::Some => {
                    let name = |step: &PluginStep| step.plugin.name.to_string();
                    let plugin = step.plugin().map(name).unwrap_or_default();
                    let what = match self.hook {
                        Hook::ResponseBody => PluginFault::HalfDone,
                        _ => PluginFault::Failed,
                    };
                    return Err(Error::Plugin { plugin, what });
                }
                Next::Skipped => {
                    // The chunk goes on as it came, whatever the hook had done to it before it failed.
                    exchange.body_mut().chunk = before;
                    exchange.body_mut().ends = last;
                    *stage = ChunkStage::Off;
                }
                Next::Answer(answer) if self.hook == Hook::RequestBody => {
                    return Ok(Passed::Answer(answer));
                }
                Next::Step | Next::Answer(_) | Next::Reroute | Next::Streamed | Next::Native(_) => {
                    *stage = ChunkStage::Some;
                }
            }
            last |= exchange.body().ends;
        }
        let bytes = std::mem::take(&mut exchange.body_mut().chunk);
        Ok(Passed::Bytes { bytes, last })
    }
}
