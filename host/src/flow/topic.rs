//! Runs the `message` hooks of plugins, which belong to no request.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use crate::exchange::Exchange;
use crate::flow::host_io::BackgroundIo;
use crate::metrics::TopicMetrics;
use crate::runtime::readiness::watch_readable;
use crate::wasm::{HookCall, HookError, PinnedInstances, Plugin};
use crate::worker_context::WorkerContext;
use crate::zone::{Next, Topic};

/// Reader of a topic for one plugin, at its own pace: one that is slow loses messages of its own, and nobody waits for it.
pub struct Reader {
    plugin: Rc<Plugin>,
    /// Place of the topic among the zones that the plugin is granted.
    topic_idx: u32,
    topic: Arc<Topic>,
    metrics: TopicMetrics,
    /// Number of the message that comes next.
    at: u64,
}

/// Time for which a message that is being written is waited for. A writer takes a microsecond, unless it has been killed.
const UNFINISHED: Duration = Duration::from_millis(100);
/// Time between two looks at it.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

impl Reader {
    /// Begins with what is published from now on.
    pub fn new(
        plugin: &Rc<Plugin>,
        topic_idx: u32,
        topic: &Arc<Topic>,
        metrics: TopicMetrics,
    ) -> Self {
        Self {
            plugin: Rc::clone(plugin),
            topic_idx,
            topic: Arc::clone(topic),
            metrics,
            at: topic.zone().end(),
        }
    }

    /// Calls the plugin's hook for each message, one after the other, until the worker drains; a run that waits then is dropped. A run
    /// that fails is in the log, and the next message comes all the same.
    pub async fn run(mut self, worker: Rc<WorkerContext>) {
        let bell = self.topic.bell().as_fd().try_clone_to_owned();
        let bell = match bell.and_then(watch_readable) {
            Ok(bell) => bell,
            Err(error) => {
                let plugin = &*self.plugin.name;
                tracing::error!(plugin, %error, "it hears no messages");
                return;
            }
        };
        tokio::select! {
            biased;
            () = worker.drain_begins() => {}
            () = self.hear(&bell, &worker) => {}
        }
    }

    async fn hear(&mut self, bell: &AsyncFd<OwnedFd>, worker: &WorkerContext) {
        let mut exchange = Exchange::idle();
        let mut unfinished_since = None;
        loop {
            let next = self.topic.zone().read(&mut self.at);
            if next != Next::Unfinished {
                unfinished_since = None;
            }
            match next {
                Next::Message(message) => {
                    match self.call(message, &mut exchange, worker).await {
                        true => self.metrics.heard.inc(),
                        false => self.metrics.lost.inc(),
                    }
                    // Requests and other readers have their turn, however many messages there are.
                    tokio::task::yield_now().await;
                }
                Next::Lost(count) => self.metrics.lost.add(count as f64),
                Next::Unfinished => {
                    let since = *unfinished_since.get_or_insert_with(Instant::now);
                    match since.elapsed() < UNFINISHED {
                        true => tokio::time::sleep(LOOK_AGAIN).await,
                        false => {
                            self.at += 1;
                            self.metrics.lost.inc();
                            unfinished_since = None;
                        }
                    }
                }
                Next::End => match bell.readable().await {
                    Ok(mut rung) => rung.clear_ready(),
                    // The runtime ends.
                    Err(_) => return,
                },
            }
        }
    }

    /// Has the plugin hear it. False: no instance was free in time, or the plugin is out of service.
    async fn call(
        &self,
        message: Vec<u8>,
        exchange: &mut Box<Exchange>,
        worker: &WorkerContext,
    ) -> bool {
        // Each run has its `limits.request_cpu` for itself.
        exchange.context_mut().cpu_time.clear();
        let call = HookCall::message(self.topic_idx, message.len());
        exchange.body_mut().chunk = message.into();
        let mut pinned = PinnedInstances::default();
        let mut io = BackgroundIo::new(worker);
        // Failures are counted and logged there.
        let called = self.plugin.call(call, exchange, &mut pinned, &mut io).await;
        exchange.body_mut().chunk.clear();
        pinned.release().await;
        !matches!(
            called,
            Err(HookError::Exhausted(_) | HookError::Quarantined)
        )
    }
}
