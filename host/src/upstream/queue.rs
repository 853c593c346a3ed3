//! Requests that wait for a peer with room (`max_active`, `queue`).

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout_at};

use super::{Active, Upstream};
use crate::balancer::{Choice, Tried};
use crate::config;
use crate::error::{Error, UpstreamError};
use crate::exchange::Exchange;

/// Queue of an upstream in one worker.
pub(super) struct Queue {
    size: usize,
    timeout: Duration,
    waiting: Cell<usize>,
    /// Told when a request of this worker has ended at a peer.
    room: Rc<Notify>,
}

/// How often it is looked whether requests of other workers have ended.
const LOOK_EACH: Duration = Duration::from_millis(10);

impl Queue {
    pub(super) fn new(config: &config::Queue, room: Rc<Notify>) -> Self {
        Self {
            size: config.size,
            timeout: config.timeout,
            waiting: Cell::new(0),
            room,
        }
    }

    /// Whether others wait already, who come first.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.get() == 0
    }
}

/// Place in the queue, until this is dropped.
struct Place<'a>(&'a Upstream);

impl<'a> Place<'a> {
    /// `None`: the queue is full.
    fn take(upstream: &'a Upstream) -> Option<Self> {
        let waiting = upstream.queue.waiting.get();
        (waiting < upstream.queue.size).then(|| {
            let place = Self(upstream);
            place.are_waiting(waiting + 1);
            place
        })
    }

    fn are_waiting(&self, count: usize) {
        let upstream = self.0;
        upstream.queue.waiting.set(count);
        let pending = u32::try_from(count).unwrap_or(u32::MAX);
        upstream.balancer.publish_pending(pending);
        upstream.metrics.pending.set(count as f64);
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.are_waiting(self.0.queue.waiting.get() - 1);
    }
}

impl Upstream {
    /// Waits for a peer that has room, in the order in which requests have begun to wait. `None`: none is left to be tried. The
    /// future is in a box: requests that need not wait keep no room for it.
    pub(super) fn wait_for_room<'a>(
        &'a self,
        tried: &'a Tried,
        exchange: &'a mut Exchange,
    ) -> impl Future<Output = Result<Option<Active>, Error>> {
        Box::pin(async move {
            let until = Instant::now() + self.queue.timeout;
            let Some(_place) = Place::take(self) else {
                self.metrics.queue_full.inc();
                return Err(self.no_room(None));
            };
            while Instant::now() < until {
                let heard = async {
                    tokio::select! {
                        () = self.queue.room.notified() => {}
                        () = sleep(LOOK_EACH) => {}
                    }
                };
                // The loop looks at the time.
                let _ = timeout_at(until, heard).await;
                match self.balancer.choose(tried, None, exchange)? {
                    Choice::Peer(peer) => return Ok(Some(peer)),
                    Choice::Nobody => return Ok(None),
                    Choice::Full => {}
                }
            }
            self.metrics.queue_timeouts.inc();
            Err(self.no_room(Some(self.queue.timeout)))
        })
    }

    fn no_room(&self, after: Option<Duration>) -> Error {
        Error::Upstream {
            upstream: self.name.to_string(),
            cause: UpstreamError::NoRoom { after },
        }
    }
}
