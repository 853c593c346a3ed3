//! Computes variables, for hooks that may wait for that and for nothing else.

use crate::error::Error;
use crate::exchange::Exchange;
use crate::phase::Computed;
use crate::wasm::{self, HookCall, IoRequest, IoResult, Performing, PinnedInstances};

/// For hooks that may not wait for anything but a variable.
pub struct VariablesOnly<'p>(pub &'p [Computed]);

impl VariablesOnly<'_> {
    /// Computes one of them.
    pub async fn compute(
        &mut self,
        idx: usize,
        exchange: &mut Box<Exchange>,
        pinned: &mut PinnedInstances,
    ) -> Result<IoResult, Error> {
        compute(self.0, idx, exchange, pinned, self).await
    }
}

impl wasm::HostIo for VariablesOnly<'_> {
    fn perform<'a>(
        &'a mut self,
        request: IoRequest,
        exchange: &'a mut Box<Exchange>,
        pinned: &'a mut PinnedInstances,
    ) -> Performing<'a> {
        Box::pin(async move {
            match request {
                IoRequest::Variable(idx) => self.compute(idx, exchange, pinned).await,
                IoRequest::Body { .. }
                | IoRequest::Peek { .. }
                | IoRequest::Calls(_)
                | IoRequest::Delay(_)
                | IoRequest::Flight(_)
                | IoRequest::Password(..)
                | IoRequest::Raw(..)
                | IoRequest::Streamed(..)
                | IoRequest::Begin(_)
                | IoRequest::Write(_)
                | IoRequest::Emit(_) => Ok(IoResult::NotNow),
            }
        })
    }
}

/// Runs the `variable` hook of the plugin whose variable it is; at most once a request, also when it fails.
pub async fn compute(
    variables: &[Computed],
    idx: usize,
    exchange: &mut Box<Exchange>,
    pinned: &mut PinnedInstances,
    io: &mut dyn wasm::HostIo,
) -> Result<IoResult, Error> {
    let Some(variable) = variables.get(idx) else {
        return Ok(IoResult::NotNow);
    };
    exchange.context_mut().computed |= 1 << idx;
    let call = HookCall::variable(variable.idx);
    let run = variable.step.run(call, exchange, pinned, io);
    match run.await {
        // The failure is in the log; the variable has no value then.
        Ok(_) | Err(Error::Plugin { .. }) => Ok(IoResult::Computed),
        Err(error) => Err(error),
    }
}
