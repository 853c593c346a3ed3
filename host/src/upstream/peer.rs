//! A peer of an upstream: one address, what this worker knows of it, and the connections that it keeps to it.

use std::cell::Cell;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use castling_abi::PeerOutcome;
use http::HeaderValue;

use super::multiplex::Multiplex;
use super::pool::{KeepAlive, Pool};
use crate::transport::PeerAddress;
use crate::transport::tls::PeerTls;

/// Address that requests can be sent to.
///
/// Whoever has begun with a peer holds it: a peer that leaves its set serves what is under way, and is dropped with the last
/// of it, its kept connections with it.
pub struct Peer {
    /// Number by which plugins know the peer. No other peer of the upstream gets it while the upstream lives, since plugins keep
    /// what they have learnt by it.
    pub slot: u32,
    pub address: PeerAddress,
    /// `address` as text, for logs and plugins.
    pub label: Arc<str>,
    /// Name of the peer in the config, for the `Host` field; `localhost` for a Unix socket.
    pub host: HeaderValue,
    /// `None`: bytes go to it as they are.
    pub(super) tls: Option<PeerTls>,
    pub weight: u32,
    /// Requests under way there, from this worker.
    pub active: Cell<u32>,
    /// Smooth weighted round robin's score.
    pub score: Cell<i64>,
    /// Taken only when no other is left until then.
    cooling_until: Cell<Option<Instant>>,
    pub(super) pool: Pool,
    /// Connections of HTTP/2, where it is spoken.
    pub(super) multiplex: Multiplex,
}

/// A peer that did not answer is passed over for this long while others are there (nginx `fail_timeout`).
const COOLING: Duration = Duration::from_secs(10);

impl Peer {
    pub fn new(
        slot: u32,
        address: PeerAddress,
        host: HeaderValue,
        tls: Option<PeerTls>,
        weight: u32,
        keep_alive: &Rc<KeepAlive>,
    ) -> Self {
        let label = Arc::from(address.to_string());
        Self {
            slot,
            address,
            pool: Pool::new(keep_alive, &label),
            multiplex: Multiplex::new(keep_alive.idle_timeout()),
            label,
            host,
            tls,
            weight,
            active: Cell::new(0),
            score: Cell::new(0),
            cooling_until: Cell::new(None),
        }
    }

    /// Counts a request as under way at this peer.
    pub fn begin(self: &Rc<Self>) -> Active {
        self.active.set(self.active.get() + 1);
        Active(Rc::clone(self))
    }

    /// A try has ended, at this moment.
    pub fn note(&self, outcome: PeerOutcome, at: Instant) {
        match outcome {
            PeerOutcome::Responded => self.cooling_until.set(None),
            PeerOutcome::ConnectFailed | PeerOutcome::Broken | PeerOutcome::TimedOut => {
                self.cooling_until.set(Some(at + COOLING));
            }
            PeerOutcome::Cancelled => {}
        }
    }

    /// Whether the peer has failed and not answered since. The cooling time may have passed.
    pub fn has_failed(&self) -> bool {
        self.cooling_until.get().is_some()
    }

    pub fn is_cooling(&self, now: Instant) -> bool {
        self.cooling_until.get().is_some_and(|until| now < until)
    }
}

/// A request under way at a peer; counted until it is dropped.
pub struct Active(Rc<Peer>);

impl Deref for Active {
    type Target = Peer;

    fn deref(&self) -> &Peer {
        &self.0
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        let active = &self.0.active;
        active.set(active.get() - 1);
    }
}

#[cfg(test)]
pub mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::metrics::Count;

    /// Peers in the slots from 0 on.
    pub fn peers(weights: &[u32]) -> Vec<Peer> {
        let keep_alive = KeepAlive::new("u", 8, Duration::MAX, Count::NOWHERE);
        let peer = |(slot, &weight): (u32, &u32)| {
            let address = SocketAddr::from(([127, 0, 0, 1], 9000));
            let host = HeaderValue::from_static("h");
            Peer::new(slot, address.into(), host, None, weight, &keep_alive)
        };
        (0..).zip(weights).map(peer).collect()
    }

    fn peer() -> Rc<Peer> {
        Rc::new(peers(&[1]).remove(0))
    }

    #[test]
    fn a_failed_peer_cools_until_it_answers_or_the_time_has_passed() {
        let (peer, now) = (peer(), Instant::now());
        peer.note(PeerOutcome::Cancelled, now);
        assert!(!peer.has_failed());
        peer.note(PeerOutcome::Broken, now);
        assert!(peer.is_cooling(now) && !peer.is_cooling(now + COOLING));
        peer.note(PeerOutcome::Responded, now);
        assert!(!peer.is_cooling(now) && !peer.has_failed());
    }

    #[test]
    fn what_is_under_way_is_counted_and_holds_the_peer() {
        let peer = peer();
        let active = [peer.begin(), peer.begin()];
        assert_eq!(peer.active.get(), 2);
        let left = Rc::downgrade(&peer);
        drop(peer);
        assert!(left.upgrade().is_some());
        drop(active);
        assert!(left.upgrade().is_none());
    }
}
