//! Connections that are made before a request needs them.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tracing::debug;

use super::http::{Connector, TryError};
use super::state::Availability;
use super::{Peer, Upstream};
use crate::zone::now_ns;

/// Tries to have connections to a peer ready.
#[derive(Default)]
pub(super) struct Warming {
    /// A connection is being made.
    is_under_way: Cell<bool>,
    /// Failures in a row.
    failures: Cell<u32>,
    /// End of the pause after a failure.
    resumes: Cell<Option<Instant>>,
}

/// Pause between two connections to a peer, where some are missing.
const PACE: Duration = Duration::from_millis(20);

/// Time between two looks, where none are missing.
const INTERVAL: Duration = Duration::from_millis(500);

/// Pause after the first failure. It doubles with each that follows.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

const LONGEST_PAUSE: Duration = Duration::from_secs(30);

impl Upstream {
    /// Has as many idle connections ready to each available peer as is configured, until they are not needed any more. Run by a
    /// task of the worker.
    pub async fn keep_warm(self: Rc<Self>) {
        while !self.is_left_cold.get() {
            let mut is_short = false;
            for peer in self.balancer.peers().as_slice() {
                is_short |= self.warm(peer);
            }
            tokio::time::sleep(if is_short { PACE } else { INTERVAL }).await;
        }
    }

    /// Makes no more connections in advance: the worker takes no new requests.
    pub fn leave_cold(&self) {
        self.is_left_cold.set(true);
    }

    /// Connections to a peer that a request could take, or of HTTP/2, share.
    pub(super) fn idle_connections(&self, peer: &Peer) -> usize {
        match self.shares_connections(peer) {
            true => peer.multiplex.len(),
            false => peer.pool.len(),
        }
    }

    /// Begins to make a connection to a peer that has too few. Whether it has.
    fn warm(self: &Rc<Self>, peer: &Rc<Peer>) -> bool {
        let min_idle = peer.pool.min_idle();
        let is_short = self.idle_connections(peer) < min_idle;
        if !is_short || !peer.warming.may_begin() || !self.is_available(peer) {
            return false;
        }
        if !peer.warming.is_under_way.replace(true) {
            tokio::task::spawn_local(Rc::clone(self).make_idle(Rc::clone(peer), min_idle));
        }
        true
    }

    /// Whether requests are sent to the peer now. One that has failed is left to them, and to checks.
    fn is_available(&self, peer: &Peer) -> bool {
        let checks = self.balancer.checks();
        peer.state.availability(checks, now_ns) == Availability::Available
    }

    async fn make_idle(self: Rc<Self>, peer: Rc<Peer>, min_idle: usize) {
        let connector = Connector {
            upstream: &self,
            peer: &peer,
            exchange: None,
            timeout: self.settings.connect_timeout,
            deadline: None,
        };
        let made = connector.make_idle(min_idle).await;
        peer.warming.note(made.is_ok());
        if let Err(TryError::Upstream { cause, .. }) = made {
            debug!(upstream = &*self.name, "no connection in advance: {cause}");
        }
    }
}

impl Warming {
    fn may_begin(&self) -> bool {
        let resumes = self.resumes.get();
        resumes.is_none_or(|resumes| resumes <= Instant::now())
    }

    /// A try has ended.
    fn note(&self, is_made: bool) {
        self.is_under_way.set(false);
        if is_made {
            self.failures.set(0);
            self.resumes.set(None);
            return;
        }
        let failures = self.failures.get();
        self.failures.set(failures.saturating_add(1));
        let pause = FIRST_PAUSE.saturating_mul(1 << failures.min(5));
        let pause = pause.min(LONGEST_PAUSE);
        self.resumes.set(Instant::now().checked_add(pause));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_paused_after_for_longer_and_longer() {
        let warming = Warming::default();
        assert!(warming.may_begin());
        let mut before = Duration::ZERO;
        for _ in 0..4 {
            let now = Instant::now();
            warming.note(false);
            assert!(!warming.may_begin());
            let pause = warming.resumes.get().map(|resumes| resumes - now);
            let pause = pause.expect("it has failed");
            assert!(pause > before, "{pause:?} after {before:?}");
            before = pause;
        }
        for _ in 0..100 {
            warming.note(false);
        }
        let resumes = warming.resumes.get().expect("it has failed");
        assert!(resumes <= Instant::now() + LONGEST_PAUSE);
        warming.note(true);
        assert!(warming.may_begin());
    }
}
