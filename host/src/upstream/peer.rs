//! A peer of an upstream: one address, what this worker knows of it, and the connections that it keeps to it.

use http::HeaderValue;
use std::cell::{Cell, OnceCell, RefCell};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::fence;
use tokio::sync::Notify;

use super::alternate::Alternate;
use super::multiplex::Multiplex;
use super::open_connection::OpenConnection;
use super::pool::{KeepAlive, Pool};
use super::state::{CheckState, PeerState};
use super::warming::Warming;
use crate::exchange::PeerFacts;
use crate::log::Changes;
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
    /// Address of the other family that its name has.
    pub(super) alternate: Alternate,
    /// `address` as text, for logs and plugins.
    pub label: Arc<str>,
    /// Name of the peer in the config, for the `Host` field; `localhost` for a Unix socket.
    pub host: HeaderValue,
    /// `None`: bytes go to it as they are.
    pub(super) tls: Option<PeerTls>,
    /// Weight by the config, or by who has listed the peer.
    configured_weight: Cell<u32>,
    /// Weight that counts now: the config's, or the operator's in its place.
    pub weight: Cell<u32>,
    /// Whether the peer is for the time when no other is available.
    pub is_backup: Cell<bool>,
    /// Zone that it is in, if that is known.
    pub zone: Option<Rc<str>>,
    /// Name by which requests are bound to it, if it has one.
    pub route: Option<Rc<str>>,
    /// Facts that plugins may ask for.
    pub facts: PeerFacts,
    /// Requests that may be under way there, from all workers; 0: any number.
    max_active: u32,
    /// Told when a request has ended at a peer with a limit.
    room: Option<Rc<Notify>>,
    /// Told when a request has ended, where the policy goes by load.
    ends: OnceCell<Rc<Ends>>,
    /// Whether `ends` has the peer already.
    has_ended: Cell<bool>,
    /// Requests under way there, from this worker.
    pub active: Cell<u32>,
    /// Open connections there, from this worker, those that are being made included.
    connections: Rc<Cell<u32>>,
    /// Tries to have connections ready.
    pub(super) warming: Warming,
    /// Requests under way there from other workers, as of some milliseconds ago, where the policy asks.
    pub active_of_others: Cell<u32>,
    /// Whether it is among those that the policy chooses from.
    pub(crate) is_candidate: Cell<bool>,
    /// State that all workers share.
    pub state: PeerState,
    /// Log of what checks have found, in the worker that makes them.
    pub(super) told: RefCell<Option<Changes<CheckState>>>,
    pub(super) pool: Pool,
    /// Connections of HTTP/2, where it is spoken.
    pub(super) multiplex: Multiplex,
}

/// Facts of a new peer.
pub struct NewPeer {
    pub slot: u32,
    pub address: PeerAddress,
    /// See [`Peer::host`].
    pub host: HeaderValue,
    pub tls: Option<PeerTls>,
    pub weight: u32,
    pub is_backup: bool,
    pub zone: Option<Rc<str>>,
    pub route: Option<Rc<str>>,
    /// See [`Peer::facts`].
    pub facts: PeerFacts,
    /// See [`Peer::max_active`].
    pub max_active: u32,
    /// Told when a request has ended at a peer with a limit.
    pub room: Option<Rc<Notify>>,
    pub state: PeerState,
}

/// Times that a worker claims a place that another one claims at the same moment.
const CLAIMS: u32 = 16;

impl Peer {
    pub fn new(new: NewPeer, keep_alive: &Rc<KeepAlive>) -> Self {
        let NewPeer {
            slot,
            address,
            host,
            tls,
            weight,
            is_backup,
            zone,
            route,
            facts,
            max_active,
            room,
            state,
        } = new;
        let label: Arc<str> = Arc::from(address.to_string());
        let facts = PeerFacts {
            address: Arc::clone(&label),
            ..facts
        };
        Self {
            slot,
            address,
            alternate: Alternate::default(),
            pool: Pool::new(keep_alive, &label),
            multiplex: Multiplex::new(keep_alive.idle_timeout()),
            label,
            host,
            tls,
            configured_weight: Cell::new(weight),
            weight: Cell::new(weight),
            is_backup: Cell::new(is_backup),
            zone,
            route,
            facts,
            max_active,
            room,
            ends: OnceCell::new(),
            has_ended: Cell::new(false),
            active: Cell::new(0),
            connections: Rc::default(),
            warming: Warming::default(),
            active_of_others: Cell::new(0),
            is_candidate: Cell::new(false),
            state,
            told: RefCell::default(),
        }
    }

    /// Counts a request as under way at this peer. `None`: there are as many as there may be.
    #[inline]
    pub fn begin(self: &Rc<Self>) -> Option<Active> {
        self.set_active(self.active.get() + 1);
        if self.max_active != 0 && !self.holds_limit() {
            return None;
        }
        Some(Active(Rc::clone(self)))
    }

    /// Whether the request that was counted may begin; else it is counted no more.
    ///
    /// Each worker counts itself before it looks at the others, so that two never take the last place together. Both may find it
    /// taken then, and look again.
    #[cold]
    #[inline(never)]
    fn holds_limit(&self) -> bool {
        for _ in 0..CLAIMS {
            fence(SeqCst);
            if self.active_of_all() <= self.max_active {
                return true;
            }
            self.set_active(self.active.get() - 1);
            if self.is_full() {
                return false;
            }
            self.set_active(self.active.get() + 1);
        }
        self.set_active(self.active.get() - 1);
        false
    }

    #[inline]
    fn set_active(&self, active: u32) {
        self.active.set(active);
        self.state.publish(active, self.connections.get());
    }

    /// Counts a connection there as open.
    pub(super) fn open(&self) -> OpenConnection {
        OpenConnection::new(&self.connections, &self.state, self.pool.open())
    }

    /// Whether as many requests are under way there as there may be.
    #[inline]
    pub fn is_full(&self) -> bool {
        self.max_active != 0 && self.active_of_all() >= self.max_active
    }

    /// Requests under way there from all workers.
    pub fn active_of_all(&self) -> u32 {
        self.state.sum().active.max(self.active.get())
    }

    /// Requests under way there; those of other workers as of some milliseconds ago.
    pub fn load(&self) -> u32 {
        self.active.get() + self.active_of_others.get()
    }

    /// Takes over what it is listed with now; the set that it is in is about to be another.
    pub(super) fn reconfigure(&self, weight: u32, is_backup: bool) {
        self.configured_weight.set(weight);
        self.is_backup.set(is_backup);
        self.refresh_weight();
    }

    /// Whom to tell when requests end.
    pub(crate) fn tell_ends(&self, ends: &Rc<Ends>) {
        // A peer that stays in the next set tells the same one.
        let _ = self.ends.set(Rc::clone(ends));
    }

    /// Notes that whoever is told of ends has seen what the peer has under way.
    pub(crate) fn ends_are_known(&self) {
        self.has_ended.set(false);
    }

    /// Takes over what the operator has ordered.
    pub(crate) fn refresh_weight(&self) {
        let ordered = self.state.ordered_weight();
        self.weight
            .set(ordered.unwrap_or(self.configured_weight.get()));
    }
}

/// Slots of peers at which requests have ended, each of them once.
#[derive(Default)]
pub struct Ends(RefCell<Vec<u32>>);

impl Ends {
    fn note(&self, peer: &Peer) {
        if !peer.has_ended.replace(true) {
            self.0.borrow_mut().push(peer.slot);
        }
    }

    /// Hands out what was noted until now.
    pub fn take_each(&self, take: impl FnMut(u32)) {
        self.0.borrow_mut().drain(..).for_each(take);
    }
}

/// A request under way at a peer; counted until it is dropped.
pub struct Active(Rc<Peer>);

impl Active {
    pub(super) fn peer(&self) -> &Rc<Peer> {
        &self.0
    }
}

impl Deref for Active {
    type Target = Peer;

    fn deref(&self) -> &Peer {
        &self.0
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.set_active(self.0.active.get() - 1);
        if let Some(room) = &self.0.room {
            room.notify_one();
        }
        if let Some(ends) = self.0.ends.get() {
            ends.note(&self.0);
        }
    }
}

#[cfg(test)]
pub mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::super::state::PeerStates;
    use super::*;
    use crate::metrics::Count;

    /// Peers in the slots and cells from 0 on, of which each takes so many requests.
    pub fn limited(weights: &[u32], max_active: u32) -> Vec<Peer> {
        let keep_alive = KeepAlive::new("u", 8, Duration::MAX, Count::NOWHERE);
        let states = PeerStates::private().unwrap();
        let peer = |(slot, &weight): (u32, &u32)| {
            let new = NewPeer {
                slot,
                address: SocketAddr::from(([127, 0, 0, 1], 9000 + slot as u16)).into(),
                host: HeaderValue::from_static("h"),
                tls: None,
                weight,
                is_backup: false,
                zone: None,
                route: None,
                facts: PeerFacts::default(),
                max_active,
                room: None,
                state: states.of(slot),
            };
            Peer::new(new, &keep_alive)
        };
        (0..).zip(weights).map(peer).collect()
    }

    /// Peers in the slots and cells from 0 on.
    pub fn peers(weights: &[u32]) -> Vec<Peer> {
        limited(weights, 0)
    }

    /// Its state is that of an upstream in the same memory as that of [`peers`].
    pub fn upstream_of(peers: &[Peer]) -> PeerState {
        let memory = peers.first().map(|peer| peer.state.clone());
        let memory = memory.unwrap_or_else(|| PeerStates::private().unwrap().of(0));
        memory.neighbour(500)
    }

    #[test]
    fn what_is_under_way_is_counted_and_holds_the_peer() {
        let peer = Rc::new(peers(&[1]).remove(0));
        let active = [peer.begin(), peer.begin()];
        assert_eq!((peer.active.get(), peer.state.sum().active), (2, 2));
        let left = Rc::downgrade(&peer);
        drop(peer);
        assert!(left.upgrade().is_some());
        drop(active);
        assert!(left.upgrade().is_none());
    }

    #[test]
    fn open_connections_are_counted_and_do_not_hold_the_peer() {
        let peer = Rc::new(peers(&[1]).remove(0));
        let (first, second) = (peer.open(), peer.open());
        let active = peer.begin();
        let load = peer.state.sum();
        assert_eq!((load.active, load.connections), (1, 2));
        drop(first);
        assert_eq!(peer.state.sum().connections, 1);
        drop(active);
        let left = Rc::downgrade(&peer);
        drop(peer);
        assert!(left.upgrade().is_none());
        drop(second);
    }

    #[test]
    fn a_peer_takes_as_many_requests_as_it_may() {
        let peer = Rc::new(limited(&[1], 2).remove(0));
        let first = peer.begin();
        assert!(first.is_some() && !peer.is_full());
        let _second = peer.begin();
        assert!(peer.is_full() && peer.begin().is_none());
        assert_eq!(peer.state.sum().active, 2);
        drop(first);
        assert!(!peer.is_full() && peer.begin().is_some());
    }
}
