//! Adaptive concurrency: as many requests are under way as the peers can take, and the others wait for a short time or are
//! refused.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::oneshot;

use super::PeerState;
use super::gradient::Gradient;
use super::learnt::Learnt;
use crate::config;
use crate::downstream::Downstream;
use crate::error::ClientError;
use crate::metrics::Gauge;

/// Limit of the requests of one worker to one upstream.
pub(super) struct Limiter {
    gradient: RefCell<Gradient>,
    under_way: Cell<u32>,
    /// Requests that wait, the first first. Some may have gone.
    waiting: RefCell<VecDeque<oneshot::Sender<Place>>>,
    config: config::Concurrency,
    workers: u32,
    /// The upstream's own state, which keeps what is learnt for workers to come.
    kept: PeerState,
    /// The limit, in the metrics.
    shown: Gauge,
}

/// Place of a request under way; given back when it is dropped.
pub(super) struct Place {
    limiter: Rc<Limiter>,
    /// Requests that were under way when it was given, itself included.
    under_way: u32,
}

/// Requests that wait at most, in relation to the limit.
const WAITING_RATIO: usize = 4;

impl Limiter {
    /// `workers`: so many share the bounds. `kept`: the upstream's own state, from which it takes what others have learnt.
    pub(super) fn new(
        config: &config::Concurrency,
        workers: u32,
        kept: PeerState,
        shown: Gauge,
    ) -> Rc<Self> {
        let workers = workers.max(1);
        let part = |all: u32| all.div_ceil(workers);
        let (min, max, initial) = (part(config.min), part(config.max), part(config.initial));
        let mut gradient = Gradient::new(min, max, initial, config.tolerance);
        if let Some(learnt) = learnt(&kept, config, workers) {
            gradient.resume(learnt);
        }
        shown.set(gradient.limit().into());
        Rc::new(Self {
            gradient: RefCell::new(gradient),
            under_way: Cell::new(0),
            waiting: RefCell::default(),
            config: config.clone(),
            workers,
            kept,
            shown,
        })
    }

    /// A place, which may have to be waited for while the client is there; `None`: there is none in time.
    pub(super) async fn enter(
        self: &Rc<Self>,
        downstream: &mut Downstream<'_>,
    ) -> Result<Option<Place>, ClientError> {
        let is_free = self.under_way.get() < self.limit() && self.waiting.borrow().is_empty();
        if is_free {
            return Ok(Some(self.place()));
        }
        let Some(turn) = self.queue() else {
            return Ok(None);
        };
        // A place that comes as the time is up goes to the next with the channel.
        let waited = downstream.while_there(tokio::time::timeout(self.config.queue_time, turn));
        let turn = waited.await.ok_or(ClientError::Gone)?;
        Ok(turn.ok().and_then(Result::ok))
    }

    /// Lines up; `None`: too many wait already.
    fn queue(&self) -> Option<oneshot::Receiver<Place>> {
        let mut waiting = self.waiting.borrow_mut();
        // All wait for as long, so that those who have gone are in front.
        while waiting.front().is_some_and(oneshot::Sender::is_closed) {
            waiting.pop_front();
        }
        let most = self.limit() as usize * WAITING_RATIO;
        if self.config.queue_time.is_zero() || waiting.len() >= most {
            return None;
        }
        let (sender, turn) = oneshot::channel();
        waiting.push_back(sender);
        Some(turn)
    }

    fn limit(&self) -> u32 {
        self.gradient.borrow().limit()
    }

    fn place(self: &Rc<Self>) -> Place {
        let under_way = self.under_way.get() + 1;
        self.under_way.set(under_way);
        Place {
            limiter: Rc::clone(self),
            under_way,
        }
    }

    /// Keeps what is learnt for workers to come; of all workers the last to do so is believed.
    fn keep(&self, gradient: &Gradient) {
        if let (Some(word), Some(learnt)) = (self.kept.learnt(), gradient.learnt()) {
            word.store(learnt.to_word(&self.config, self.workers), Relaxed);
        }
    }

    /// Gives free places to those that wait.
    fn call_next(self: &Rc<Self>) {
        while self.under_way.get() < self.limit() {
            let Some(next) = self.waiting.borrow_mut().pop_front() else {
                break;
            };
            if !next.is_closed() {
                // The request takes its place, or its place comes back here.
                drop(next.send(self.place()));
            }
        }
    }
}

/// One worker's part of what all have learnt so far.
fn learnt(kept: &PeerState, config: &config::Concurrency, workers: u32) -> Option<Learnt> {
    Learnt::from_word(kept.learnt()?.load(Relaxed), config, workers)
}

impl Place {
    /// The request has had its response's head, or its time-out, after so long.
    pub(super) fn sample(&self, latency: Duration) {
        let mut gradient = self.limiter.gradient.borrow_mut();
        if !gradient.is_known()
            && let Some(learnt) = learnt(
                &self.limiter.kept,
                &self.limiter.config,
                self.limiter.workers,
            )
        {
            gradient.follow(learnt);
        }
        if gradient.sample(latency, self.under_way) {
            self.limiter.keep(&gradient);
        }
        self.limiter.shown.set(gradient.limit().into());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let under_way = &self.limiter.under_way;
        under_way.set(under_way.get() - 1);
        self.limiter.call_next();
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::downstream::Collector;
    use crate::upstream::PeerStates;

    fn limiter(most: u32, queue_time: Duration) -> Rc<Limiter> {
        let config = config::Concurrency {
            min: most,
            max: most,
            initial: most,
            tolerance: 1.2,
            queue_time,
        };
        let kept = PeerStates::private().unwrap().of(0);
        Limiter::new(&config, 1, kept, Gauge::default())
    }

    async fn enter(limiter: &Rc<Limiter>) -> Option<Place> {
        let mut client = Downstream::Collect(Collector::new(&Method::GET, 0));
        limiter.enter(&mut client).await.expect("nobody leaves")
    }

    fn run(test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(test);
    }

    #[test]
    fn without_a_queue_those_beyond_the_limit_are_refused_at_once() {
        run(async {
            let limiter = limiter(2, Duration::ZERO);
            let held = [enter(&limiter).await, enter(&limiter).await];
            assert!(held.iter().all(Option::is_some));
            assert!(enter(&limiter).await.is_none());
            drop(held);
            assert!(enter(&limiter).await.is_some());
            assert_eq!(limiter.under_way.get(), 0);
        });
    }

    #[test]
    fn a_new_one_begins_with_what_the_others_have_learnt() {
        let config = config::Concurrency {
            min: 2,
            max: 100,
            initial: 40,
            tolerance: 1.2,
            queue_time: Duration::ZERO,
        };
        let kept = PeerStates::private().unwrap().of(0);
        let limiter = |workers| Limiter::new(&config, workers, kept.clone(), Gauge::default());
        run(async {
            let first = limiter(2);
            assert_eq!(first.limit(), 20);
            // The latency grows with what is under way, so that less is better.
            while first.limit() == 20 {
                let places: Vec<_> = std::iter::from_fn(|| {
                    (first.under_way.get() < first.limit()).then(|| first.place())
                })
                .collect();
                for place in places {
                    place.sample(Duration::from_millis(10) * place.under_way);
                }
            }
            let learnt = first.limit();
            assert_eq!(limiter(2).limit(), learnt);
            assert!((2 * learnt..=2 * learnt + 1).contains(&limiter(1).limit()));
            kept.learnt().unwrap().store(u64::MAX, Relaxed);
            assert_eq!(limiter(2).limit(), 20);
        });
    }

    #[test]
    fn places_go_to_those_that_wait_in_their_order() {
        run(async {
            let limiter = limiter(1, Duration::from_secs(60));
            let held = enter(&limiter).await;
            let order = RefCell::new(Vec::new());
            let waits = async |number| {
                let place = enter(&limiter).await;
                order.borrow_mut().push((number, place.is_some()));
            };
            let gone = async { drop(tokio::time::timeout(Duration::ZERO, enter(&limiter)).await) };
            tokio::join!(waits(1), gone, waits(2), async { drop(held) });
            assert_eq!(*order.borrow(), [(1, true), (2, true)]);
            assert_eq!(limiter.under_way.get(), 0);
        });
    }

    #[test]
    fn who_has_waited_long_enough_is_refused_and_the_queue_has_an_end() {
        run(async {
            let limiter = limiter(1, Duration::from_millis(1));
            let _held = enter(&limiter).await;
            assert!(enter(&limiter).await.is_none());
            for _ in 0..WAITING_RATIO {
                limiter.waiting.borrow_mut().clear();
            }
            let turns: Vec<_> = (0..10).filter_map(|_| limiter.queue()).collect();
            assert_eq!(turns.len(), WAITING_RATIO);
        });
    }
}
