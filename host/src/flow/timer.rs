//! Runs the `timer` hooks of plugins, which belong to no request.

use std::rc::Rc;
use std::time::Duration;

use castling_abi::Hook;

use crate::exchange::Exchange;
use crate::flow::host_io::BackgroundIo;
use crate::wasm::{HookCall, PinnedInstances, Plugin};
use crate::worker_context::WorkerContext;

/// Runs the plugin's `timer` hook at once and then `every` so long after each run has ended, until the worker drains;
/// a run that waits then is dropped. A run that fails is in the log, and the next one comes all the same.
pub async fn run(plugin: Rc<Plugin>, every: Duration, worker: Rc<WorkerContext>) {
    let mut exchange = Exchange::idle();
    loop {
        tokio::select! {
            biased;
            () = worker.drain_begins() => return,
            () = run_once(&plugin, &mut exchange, &worker) => {}
        }
        tokio::select! {
            biased;
            () = worker.drain_begins() => return,
            () = tokio::time::sleep(every) => {}
        }
    }
}

async fn run_once(plugin: &Rc<Plugin>, exchange: &mut Box<Exchange>, worker: &WorkerContext) {
    // Each run has its `limits.request_cpu` for itself.
    exchange.context_mut().cpu_time.clear();
    let mut pinned = PinnedInstances::default();
    let mut io = BackgroundIo::new(worker);
    // Failures are counted and logged there.
    let _ = plugin
        .call(HookCall::plain(Hook::Timer), exchange, &mut pinned, &mut io)
        .await;
    pinned.release().await;
}
