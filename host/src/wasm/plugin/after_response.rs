//! Calls of `after_response`, for which no client waits: how many run at a time, how many wait for that, and for how long each runs.

use std::cell::Cell;
use std::rc::Rc;

use castling_abi::Hook;
use tokio::sync::Semaphore;

use super::super::hook_call::HookCall;
use super::super::hook_error::HookError;
use super::super::host_io::HostIo;
use super::super::instance_guard::PinnedInstances;
use super::Plugin;
use crate::config::PluginLimits;
use crate::exchange::Exchange;
use crate::metrics::AfterResponseMetrics;

/// Calls of a plugin's hook that are under way in one worker.
pub(super) struct AfterResponses {
    /// Turns of those that run.
    turns: Semaphore,
    /// Calls that run or wait.
    admitted: Cell<usize>,
    /// Most calls of both kinds.
    most: usize,
    lost: Cell<u64>,
    metrics: AfterResponseMetrics,
}

/// Call of these. Dropped before it is over, it is lost: the worker ends.
pub struct AfterResponseCall {
    plugin: Rc<Plugin>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Running,
    Over,
}

impl AfterResponses {
    pub(super) fn new(limits: &PluginLimits, metrics: AfterResponseMetrics) -> Self {
        // Requests of the plugin have the other half of its instances, however long these calls wait for others.
        let active = limits.after_response_active;
        let active = active.min(limits.instances / 2).max(1);
        Self {
            turns: Semaphore::new(active),
            admitted: Cell::new(0),
            most: active + limits.after_response_queue,
            lost: Cell::new(0),
            metrics,
        }
    }

    pub(super) fn admitted(&self) -> usize {
        self.admitted.get()
    }

    pub(super) fn lost(&self) -> u64 {
        self.lost.get()
    }

    fn lose(&self) {
        self.lost.set(self.lost.get() + 1);
    }
}

impl Plugin {
    /// A call of the hook, for a response that is out. `None`: as many run and wait as may, and this one is lost.
    pub fn admit_after_response(self: &Rc<Self>) -> Option<AfterResponseCall> {
        let after = &self.after_responses;
        if after.admitted.get() >= after.most {
            after.lose();
            after.metrics.lost_to_queue.inc();
            return None;
        }
        after.admitted.set(after.admitted.get() + 1);
        after.metrics.waiting.add(1.0);
        Some(AfterResponseCall {
            plugin: Rc::clone(self),
            state: State::Waiting,
        })
    }
}

impl AfterResponseCall {
    pub fn is_of(&self, plugin: &Rc<Plugin>) -> bool {
        Rc::ptr_eq(&self.plugin, plugin)
    }

    /// Runs it when its turn has come, for `limits.after_response` at most. Failures are counted and logged.
    pub async fn run(
        mut self,
        exchange: &mut Box<Exchange>,
        pinned: &mut PinnedInstances,
        io: &mut dyn HostIo,
    ) {
        let plugin = Rc::clone(&self.plugin);
        let after = &plugin.after_responses;
        // Turns are never closed.
        let _turn = after.turns.acquire().await;
        self.enter(State::Running);
        let hook = Hook::AfterResponse;
        let call = plugin.call(HookCall::plain(hook), exchange, pinned, io);
        let limit = plugin.limits.after_response;
        if tokio::time::timeout(limit, call).await.is_err() {
            after.lose();
            after.metrics.lost_to_timeout.inc();
            let what = format!("limits.after_response of {limit:?} reached");
            plugin.count(hook, None, &HookError::failed(what));
        }
        self.enter(State::Over);
    }

    fn enter(&mut self, state: State) {
        let metrics = &self.plugin.after_responses.metrics;
        let gauge = |state| match state {
            State::Waiting => Some(metrics.waiting),
            State::Running => Some(metrics.active),
            State::Over => None,
        };
        if let Some(left) = gauge(self.state) {
            left.add(-1.0);
        }
        if let Some(entered) = gauge(state) {
            entered.add(1.0);
        }
        self.state = state;
    }
}

impl Drop for AfterResponseCall {
    fn drop(&mut self) {
        let is_over = self.state == State::Over;
        self.enter(State::Over);
        let after = &self.plugin.after_responses;
        after.admitted.set(after.admitted.get() - 1);
        if !is_over {
            after.lose();
            after.metrics.lost_to_drain.inc();
        }
    }
}
