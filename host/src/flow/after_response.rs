//! The `after_response` hooks of a request: a task of their own, which has the exchange when the client's connection needs it no more.

use std::rc::Rc;

use super::host_io::BackgroundIo;
use super::pipeline::Pipeline;
use crate::exchange::Exchange;
use crate::phase::{Computed, PluginStep};
use crate::service::Service;
use crate::wasm::{AfterResponseCall, PinnedInstances};
use crate::worker_context::{AfterResponseUnderWay, WorkerContext};

/// Calls of a route's hooks that are admitted, and the instances that hold state for them.
pub(super) struct Admitted {
    calls: Vec<AfterResponseCall>,
    pinned: PinnedInstances,
}

impl Admitted {
    /// Admits calls of these plugins, as far as their limits allow. `None`: there are none, as on most routes.
    #[inline]
    pub(super) fn new(steps: &[PluginStep], pinned: &mut PinnedInstances) -> Option<Box<Self>> {
        match steps.is_empty() {
            true => None,
            false => Self::admit(steps, pinned),
        }
    }

    #[cold]
    fn admit(steps: &[PluginStep], pinned: &mut PinnedInstances) -> Option<Box<Self>> {
        let calls = steps.iter();
        let calls: Vec<_> = calls
            .filter_map(|step| step.plugin.admit_after_response())
            .collect();
        let pinned = pinned.split_off(|plugin| calls.iter().any(|call| call.is_of(plugin)));
        (!calls.is_empty()).then(|| Box::new(Self { calls, pinned }))
    }

    /// Has them run, with the exchange of a request that is logged and over.
    pub(super) fn begin(self, pipeline: &mut Pipeline<'_>) {
        let (Some(worker), Some(service)) = (pipeline.worker.handle(), pipeline.service.handle())
        else {
            return;
        };
        let mut exchange = std::mem::replace(pipeline.exchange, Exchange::idle());
        exchange.leave_client();
        let Self { calls, pinned } = self;
        let task = Task {
            exchange,
            pinned,
            calls,
            variables: Rc::clone(&pipeline.plan.get().variables),
            service,
            _under_way: worker.count_after_response(),
            worker,
        };
        tokio::task::spawn_local(task.run());
    }
}

struct Task {
    exchange: Box<Exchange>,
    pinned: PinnedInstances,
    calls: Vec<AfterResponseCall>,
    variables: Rc<[Computed]>,
    service: Rc<Service>,
    worker: Rc<WorkerContext>,
    _under_way: AfterResponseUnderWay,
}

impl Task {
    /// Runs one hook after the other. What one fails in is its own affair.
    async fn run(mut self) {
        // Small responses are written at the end of the turn that they were made in.
        tokio::task::yield_now().await;
        for call in self.calls {
            let mut io = BackgroundIo::of_request(&self.worker, &self.service, &self.variables);
            call.run(&mut self.exchange, &mut self.pinned, &mut io)
                .await;
        }
        self.pinned.release().await;
    }
}
