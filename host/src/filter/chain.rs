//! A body's chunks on their way through the steps that filter it.

use bytes::Bytes;
use castling_abi::Hook;

use super::emit::{BodySink, Emitted, Emitter};
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
pub(super) enum ChunkStage {
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
    /// body, maybe on an empty chunk. Parts that a filter sends on before its hook returns go into the sink.
    ///
    /// A filter that fails when it has taken some of the body before fails the exchange, also with `skip`: what it has
    /// held back would be missing, and nobody could tell.
    #[expect(
        clippy::too_many_arguments,
        reason = "a chunk, its way, and who runs the hooks"
    )]
    pub fn pass<'a>(
        &'a mut self,
        steps: &'a [Step],
        exchange: &'a mut Box<Exchange>,
        pinned: &'a mut PinnedInstances,
        io: &'a mut dyn HostIo,
        sink: &'a mut dyn BodySink,
        chunk: Bytes,
        last: bool,
    ) -> impl Future<Output = Result<Passed, Error>> + 'a {
        exchange.body_mut().chunk = chunk;
        let way = Way::new(self.hook, steps, &mut self.stages);
        pass(way, exchange, pinned, io, sink, last)
    }
}

/// Steps that a chunk has before it.
pub(super) struct Way<'a> {
    pub(super) hook: Hook,
    pub(super) steps: &'a [Step],
    pub(super) stages: &'a mut [ChunkStage],
}

impl<'a> Way<'a> {
    pub(super) fn new(hook: Hook, steps: &'a [Step], stages: &'a mut [ChunkStage]) -> Self {
        Self {
            hook,
            steps,
            stages,
        }
    }
}

/// Runs the exchange's chunk through these steps: [`Chunks::pass`].
pub(super) async fn pass(
    way: Way<'_>,
    exchange: &mut Box<Exchange>,
    pinned: &mut PinnedInstances,
    io: &mut dyn HostIo,
    sink: &mut dyn BodySink,
    mut last: bool,
) -> Result<Passed, Error> {
    exchange.body_mut().ends = false;
    for (idx, step) in way.steps.iter().enumerate() {
        if exchange.body().chunk.is_empty() && !last {
            break;
        }
        let Some((stage, stages)) = way.stages[idx..].split_first_mut() else {
            break;
        };
        if *stage == ChunkStage::Off {
            continue;
        }
        let before = exchange.body().chunk.clone();
        let call = HookCall::chunk(way.hook, before.len(), last);
        let (next, emitted) = if step.emits() {
            let later = Way::new(way.hook, &way.steps[idx + 1..], stages);
            let emitter = Emitter::new(call, later, &mut *io, &mut *sink);
            Box::pin(emitter.run(step, exchange, pinned)).await?
        } else {
            let next = step.run(call, exchange, pinned, &mut *io).await?;
            (next, Emitted::default())
        };
        if let Some(answer) = emitted.answer {
            return Ok(Passed::Answer(answer));
        }
        match next {
            Next::Skipped if *stage == ChunkStage::Some || emitted.any => {
                return Err(half_done(way.hook, step));
            }
            Next::Skipped => {
                // The chunk goes on as it came, whatever the hook had done to it before it failed.
                exchange.body_mut().chunk = before;
                exchange.body_mut().ends = last;
                *stage = ChunkStage::Off;
            }
            Next::Answer(answer) if way.hook == Hook::RequestBody => {
                return Ok(Passed::Answer(answer));
            }
            Next::Step | Next::Answer(_) | Next::Reroute | Next::Streamed | Next::Native(_) => {
                *stage = ChunkStage::Some;
            }
        }
        if emitted.is_over {
            exchange.body_mut().chunk = Bytes::new();
            let (bytes, last) = (Bytes::new(), true);
            return Ok(Passed::Bytes { bytes, last });
        }
        last |= exchange.body().ends;
    }
    let bytes = std::mem::take(&mut exchange.body_mut().chunk);
    Ok(Passed::Bytes { bytes, last })
}

#[cold]
fn half_done(hook: Hook, step: &Step) -> Error {
    let name = |step: &PluginStep| step.plugin.name.to_string();
    let plugin = step.plugin().map(name).unwrap_or_default();
    let what = match hook {
        Hook::ResponseBody => PluginFault::HalfDone,
        _ => PluginFault::Failed,
    };
    Error::Plugin { plugin, what }
}
