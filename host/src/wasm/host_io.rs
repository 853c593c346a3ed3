//! The performer of host calls that wait.

use bytes::Bytes;

use super::instance_guard::PinnedInstances;
use super::io_request::{IoRequest, IoResult, Perform, Performing};
use crate::exchange::Exchange;

/// The flow's side. Dynamic, since few hooks wait: so the futures of phases and filters exist once, not once for each
/// implementor.
pub trait HostIo {
    /// Performs what a guest waits for. An error ends the request, and with it the hook.
    fn perform<'a>(
        &'a mut self,
        request: IoRequest,
        exchange: &'a mut Box<Exchange>,
        pinned: &'a mut PinnedInstances,
    ) -> Performing<'a>;

    /// A filter of heads has put another response in the place of the one that there was: later filters read this body. Nothing
    /// by default, for hooks that read none.
    fn replace_response(&mut self, _body: &Bytes) {}
}

/// Serves hooks that may not wait.
pub struct NoIo;

impl HostIo for NoIo {
    fn perform<'a>(
        &'a mut self,
        _request: IoRequest,
        _exchange: &'a mut Box<Exchange>,
        _pinned: &'a mut PinnedInstances,
    ) -> Performing<'a> {
        Box::pin(async { Ok(IoResult::NotNow) })
    }
}

/// The flow's side with the instances of the request, as one call has it.
pub(super) struct CallIo<'a> {
    pub(super) io: &'a mut dyn HostIo,
    pub(super) pinned: &'a mut PinnedInstances,
}

impl Perform for CallIo<'_> {
    fn perform<'a>(
        &'a mut self,
        request: IoRequest,
        exchange: &'a mut Box<Exchange>,
    ) -> Performing<'a> {
        self.io.perform(request, exchange, self.pinned)
    }
}
