//! Connections that are made before a request needs them.

use std::rc::Rc;
use std::time::Duration;

use tracing::debug;

use super::http::{Connector, TryError};
use super::state::Availability;
use super::{Peer, Upstream};
use crate::zone::now_ns;

/// Pause between two connections to a peer, where some are missing.
const PACE: Duration = Duration::from_millis(20);

/// Time between two looks, where none are missing.
const INTERVAL: Duration = Duration::from_millis(500);

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
        if peer.warming.begin() {
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
