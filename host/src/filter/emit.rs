//! Parts of a body that a filter sends on before its hook returns: what one chunk becomes need not fit into memory.

use std::mem;
use std::pin::Pin;

use bytes::Bytes;

use super::chain::{Passed, Way, pass};
use crate::downstream::RequestBody;
use crate::error::Error;
use crate::exchange::{Answer, Exchange};
use crate::phase::{Next, Step};
use crate::transport::halves::BODY_ROOM_BYTES;
use crate::wasm::{HookCall, HostIo, IoRequest, IoResult, Performing, PinnedInstances};

/// Receiver of a body that has passed all filters.
pub trait BodySink {
    /// Takes a part as soon as there is room for it. False: nobody takes more of the body.
    fn take<'a>(&'a mut self, part: Bytes, exchange: &'a mut Exchange) -> Taking<'a>;
}

/// Peer that is sent the body of a request.
pub trait PeerSink {
    /// Takes a part as soon as there is room for it, and has the body remember it where it may be sent again. False: the peer takes
    /// no more.
    fn take<'a>(&'a mut self, part: Bytes, body: &'a mut RequestBody) -> Taking<'a>;
}

/// A part on its way into a sink.
pub type Taking<'a> = Pin<Box<dyn Future<Output = Result<bool, Error>> + 'a>>;

/// A peer with the body that it is sent.
pub(super) struct Upload<'a> {
    pub(super) body: &'a mut RequestBody,
    pub(super) peer: &'a mut dyn PeerSink,
}

impl BodySink for Upload<'_> {
    fn take<'a>(&'a mut self, part: Bytes, _exchange: &'a mut Exchange) -> Taking<'a> {
        self.peer.take(part, self.body)
    }
}

/// Sink of a body that no filter sends parts of.
pub(super) struct Nobody;

impl PeerSink for Nobody {
    fn take<'a>(&'a mut self, _part: Bytes, _body: &'a mut RequestBody) -> Taking<'a> {
        Box::pin(async { Ok(false) })
    }
}

/// Way of the parts that one filter sends on: the filters after it, and the sink.
pub(super) struct Emitter<'a> {
    later: Way<'a>,
    /// For what else the filters wait for.
    io: &'a mut dyn HostIo,
    sink: &'a mut dyn BodySink,
    call: HookCall,
    outcome: Emitted,
}

/// Outcome of what a filter has sent on.
#[derive(Default)]
pub(super) struct Emitted {
    /// The filter has sent something on.
    pub(super) any: bool,
    /// The body is over, and nobody takes more: a filter after it has ended it, or the peer takes no more.
    pub(super) is_over: bool,
    /// Answer of a filter after it, which ends the exchange.
    pub(super) answer: Option<Answer>,
}

impl<'a> Emitter<'a> {
    /// Emitter for a step that is called so and has these after it.
    pub(super) fn new(
        call: HookCall,
        later: Way<'a>,
        io: &'a mut dyn HostIo,
        sink: &'a mut dyn BodySink,
    ) -> Self {
        Self {
            later,
            io,
            sink,
            call,
            outcome: Emitted::default(),
        }
    }

    /// Runs the step whose parts go this way.
    pub(super) async fn run(
        mut self,
        step: &Step,
        exchange: &mut Box<Exchange>,
        pinned: &mut PinnedInstances,
    ) -> Result<(Next, Emitted), Error> {
        let next = step.run(self.call, exchange, pinned, &mut self).await?;
        Ok((next, self.outcome))
    }

    async fn emit(
        &mut self,
        mut whole: Bytes,
        exchange: &mut Box<Exchange>,
        pinned: &mut PinnedInstances,
    ) -> Result<IoResult, Error> {
        let chunk = mem::take(&mut exchange.body_mut().chunk);
        let ends = exchange.body().ends;
        // Trailers come with the last chunk, which is still with its filter.
        let trailers = mem::take(&mut exchange.body_mut().trailers);
        while !whole.is_empty() && !self.outcome.is_over {
            // Parts are as large as those of a peer: a filter need not have room for more.
            let part = whole.split_to(whole.len().min(BODY_ROOM_BYTES));
            self.outcome.any = true;
            self.send(part, exchange, pinned).await?;
        }
        let body = exchange.body_mut();
        (body.chunk, body.ends, body.trailers) = (chunk, ends, trailers);
        let is_wanted = !self.outcome.is_over;
        Ok(IoResult::Written { is_wanted })
    }

    async fn send(
        &mut self,
        part: Bytes,
        exchange: &mut Box<Exchange>,
        pinned: &mut PinnedInstances,
    ) -> Result<(), Error> {
        exchange.body_mut().chunk = part;
        let later = &mut self.later;
        let later = Way::new(later.hook, later.steps, later.stages);
        match pass(later, exchange, pinned, self.io, self.sink, false).await? {
            Passed::Bytes { bytes, last } => {
                let is_taken = bytes.is_empty() || self.sink.take(bytes, exchange).await?;
                self.outcome.is_over = last || !is_taken;
            }
            Passed::Answer(answer) => {
                self.outcome.is_over = true;
                self.outcome.answer = Some(answer);
            }
        }
        Ok(())
    }
}

impl HostIo for Emitter<'_> {
    fn perform<'a>(
        &'a mut self,
        request: IoRequest,
        exchange: &'a mut Box<Exchange>,
        pinned: &'a mut PinnedInstances,
    ) -> Performing<'a> {
        match request {
            IoRequest::Emit(part) => Box::pin(self.emit(part, exchange, pinned)),
            request => self.io.perform(request, exchange, pinned),
        }
    }
}
