//! Chooses the peer of each try and hears how it went. One policy a file.

mod candidates;
mod least_conn;
mod plugin;
mod round_robin;
mod target;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use castling_abi::PeerOutcome;
use http::StatusCode;
use tracing::{info, warn};

use crate::config::{self, CheckStart};
use crate::error::Error;
use crate::message::RequestHead;
use crate::runtime::clock;
use crate::upstream::{Active, Checks, PassiveHealth, Peer, PeerSet, PeerState};
use crate::wasm::{Plugin, PolicyResult};
use crate::zone::now_ns;
use candidates::{Candidates, Usable};
pub use plugin::PluginPolicy;

/// The peers of an upstream and the policy that chooses among them.
pub struct Balancer {
    upstream: Arc<str>,
    /// Swapped whole when other peers are to be balanced among.
    peers: RefCell<Rc<PeerSet>>,
    policy: Policy,
    health: Health,
    /// State of the upstream that all workers share.
    state: PeerState,
    candidates: RefCell<Candidates>,
    /// Time at which the candidates have to be looked for again, though nobody says so: [`now_ns`].
    due_ns: Cell<u64>,
    /// Epoch of the upstream's peers that the candidates are of.
    epoch: Cell<u64>,
    /// Time at which it was looked what other workers have under way.
    looked_at: Cell<Option<Instant>>,
}

/// Rules by which peers are available.
pub struct Health {
    pub passive: PassiveHealth,
    pub checks: Checks,
    /// See [`config::Upstream::panic_threshold`].
    pub panic_threshold: f64,
}

impl Health {
    pub fn of(config: &config::Upstream) -> Self {
        Self {
            passive: PassiveHealth::new(&config.passive),
            checks: match config.check.as_ref().map(|check| check.start) {
                None => Checks::None,
                Some(CheckStart::Optimistic) => Checks::Optimistic,
                Some(CheckStart::Mandatory) => Checks::Mandatory,
            },
            panic_threshold: config.panic_threshold,
        }
    }
}

/// Parts that a balancer is made of, besides its policy.
pub struct Parts<'a> {
    pub upstream: &'a Arc<str>,
    /// State of the upstream, in the same memory as those of its peers.
    pub state: PeerState,
    pub peers: Vec<Peer>,
    pub health: Health,
}

enum Policy {
    RoundRobin,
    LeastConn,
    Target,
    Plugin(PluginPolicy),
}

/// Outcome of a choice.
pub enum Choice {
    /// The peer for the next try, counted as active.
    Peer(Active),
    /// All that are available and were not tried have as many requests as they may.
    Full,
    /// All were tried, or none may be.
    Nobody,
}

/// Peers that were tried for one request, by slot. One is mostly all, and takes no allocation.
#[derive(Default)]
pub struct Tried {
    first: Option<u32>,
    others: Vec<u32>,
}

impl Tried {
    pub fn contains(&self, peer: &Peer) -> bool {
        self.first == Some(peer.slot) || self.others.contains(&peer.slot)
    }

    pub fn insert(&mut self, peer: &Peer) {
        match self.first {
            None => self.first = Some(peer.slot),
            Some(_) => self.others.push(peer.slot),
        }
    }

    fn count(&self) -> usize {
        usize::from(self.first.is_some()) + self.others.len()
    }
}

impl Balancer {
    pub fn round_robin(parts: Parts<'_>) -> Rc<Self> {
        Self::new(parts, Policy::RoundRobin)
    }

    pub fn least_conn(parts: Parts<'_>) -> Rc<Self> {
        Self::new(parts, Policy::LeastConn)
    }

    /// The host of each request names its peer.
    pub fn target(parts: Parts<'_>) -> Rc<Self> {
        Self::new(parts, Policy::Target)
    }

    /// The plugin must implement `balance`.
    pub fn plugin(parts: Parts<'_>, plugin: Rc<Plugin>) -> Rc<Self> {
        Self::new(parts, Policy::Plugin(PluginPolicy::new(plugin)))
    }

    fn new(parts: Parts<'_>, policy: Policy) -> Rc<Self> {
        let Parts {
            upstream,
            state,
            peers,
            health,
        } = parts;
        let balancer = Self {
            upstream: Arc::clone(upstream),
            peers: RefCell::new(PeerSet::new([])),
            policy,
            health,
            state,
            candidates: RefCell::default(),
            due_ns: Cell::new(u64::MAX),
            epoch: Cell::new(0),
            looked_at: Cell::new(None),
        };
        balancer.swap(PeerSet::new(peers.into_iter().map(Rc::new)));
        Rc::new(balancer)
    }

    pub fn peers(&self) -> Rc<PeerSet> {
        Rc::clone(&self.peers.borrow())
    }

    /// Balances among these from now on. Requests that are under way at others end there.
    pub fn swap(&self, peers: Rc<PeerSet>) {
        self.peers.replace(peers);
        self.looked_at.set(None);
        self.find_candidates();
    }

    /// The peer for the next try. `result`: what the plugin has said, where one chooses. `request`: its host may name the
    /// peer.
    pub fn choose(
        &self,
        tried: &Tried,
        result: Option<PolicyResult>,
        request: &RequestHead,
    ) -> Result<Choice, Error> {
        self.keep_candidates_fresh();
        let candidates = self.candidates.borrow();
        let usable = candidates.usable(tried);
        let chosen = match (&self.policy, &*candidates.first, result) {
            (Policy::RoundRobin | Policy::LeastConn, [only], _) => {
                usable.allows(only).then_some(only)
            }
            (Policy::Target, ..) => {
                let set = self.peers.borrow();
                let chosen = target::choose(set.as_slice(), self.health.checks, tried, request)?;
                return Ok(begin(chosen));
            }
            (Policy::LeastConn, ..) => {
                self.look_at_others();
                least_conn::choose(&usable)
            }
            (Policy::Plugin(policy), _, Some(result)) => {
                let set = self.peers.borrow();
                let eligible = |peer: &Rc<Peer>| candidates.is_eligible(peer, tried);
                match policy.chosen(&set, eligible, result)? {
                    Some(peer) => return Ok(begin(Some(peer))),
                    None => round_robin::choose(&usable),
                }
            }
            (Policy::RoundRobin | Policy::Plugin(_), ..) => round_robin::choose(&usable),
        };
        match chosen.and_then(Peer::begin) {
            Some(active) => Ok(Choice::Peer(active)),
            None => Ok(candidates.choose_beyond(tried)),
        }
    }

    /// A try of this peer has ended so, with this status if it has answered.
    #[inline]
    pub fn note(&self, peer: &Peer, outcome: PeerOutcome, status: Option<StatusCode>) {
        let passive = &self.health.passive;
        if passive.note(peer, outcome, status, || self.peers()) {
            self.peers_have_changed();
        }
    }

    /// Tells all workers that peers have become available, or no longer are.
    pub fn peers_have_changed(&self) {
        self.state.raise_epoch();
    }

    /// Ejects peers that fail more often than others, for ever, if the config says so. One worker of the gateway is to.
    pub async fn compare_success_rates(&self) {
        let passive = &self.health.passive;
        let Some(interval) = passive.success_rate().map(|rate| rate.interval) else {
            return;
        };
        loop {
            tokio::time::sleep(interval).await;
            if passive.compare(&self.upstream, &self.peers()) {
                self.peers_have_changed();
            }
        }
    }

    /// Tells others how many requests wait for a peer here.
    pub fn publish_pending(&self, pending: u32) {
        self.state.publish(pending, 0);
    }

    /// Whether so few peers are available that all are chosen from.
    pub fn is_panicking(&self) -> bool {
        self.candidates.borrow().is_panic
    }

    /// The plugin that chooses, if one does: it wants to be told of each outcome.
    pub fn plugin_policy(&self) -> Option<&PluginPolicy> {
        match &self.policy {
            Policy::Plugin(policy) => Some(policy),
            Policy::RoundRobin | Policy::LeastConn | Policy::Target => None,
        }
    }

    #[inline]
    fn keep_candidates_fresh(&self) {
        let is_due = || self.due_ns.get() != u64::MAX && self.due_ns.get() <= now_ns();
        if self.epoch.get() != self.state.epoch() || is_due() {
            self.find_candidates();
        }
    }

    #[cold]
    #[inline(never)]
    fn find_candidates(&self) {
        // Before the peers are looked at: what changes meanwhile is looked at again.
        self.epoch.set(self.state.epoch());
        let found = Candidates::among(&self.peers.borrow(), &self.health, now_ns());
        self.due_ns.set(found.due_ns);
        let before = self.candidates.replace(found).is_panic;
        let (upstream, now) = (&*self.upstream, self.candidates.borrow());
        match (before, now.is_panic) {
            (false, true) if now.first.is_empty() => warn!(upstream, "no peer is available"),
            (false, true) => warn!(upstream, "too few peers are available: all are chosen from"),
            (true, false) => info!(upstream, "enough peers are available again"),
            (false, false) | (true, true) => {}
        }
    }

    /// Looks at what other workers have under way, if that was some time ago.
    fn look_at_others(&self) {
        let now = clock::now();
        let looked_at = self.looked_at.get();
        if looked_at.is_none_or(|at| now.saturating_duration_since(at) >= LOOK_EACH) {
            self.looked_at.set(Some(now));
            self.peers.borrow().look_at_others(&self.state);
        }
    }
}

/// Age of what is known of other workers' requests.
const LOOK_EACH: Duration = Duration::from_millis(10);

fn begin(peer: Option<&Rc<Peer>>) -> Choice {
    match peer.map(Peer::begin) {
        Some(Some(active)) => Choice::Peer(active),
        Some(None) => Choice::Full,
        None => Choice::Nobody,
    }
}

#[cfg(test)]
mod tests {
    use super::candidates::Usable;
    use super::*;
    use crate::upstream::peer_tests;

    pub(super) fn peers(weights: &[u32]) -> Vec<Rc<Peer>> {
        let peers = peer_tests::peers(weights);
        peers.into_iter().map(Rc::new).collect()
    }

    /// All of them, of which none was tried.
    pub(super) fn all(peers: &[Rc<Peer>]) -> Usable<'_> {
        const NONE: &Tried = &Tried {
            first: None,
            others: Vec::new(),
        };
        Usable { peers, tried: NONE }
    }

    pub(super) fn health() -> Health {
        Health {
            passive: PassiveHealth::new(&config::Passive::default()),
            checks: Checks::None,
            panic_threshold: 0.0,
        }
    }

    pub(super) fn tried(slots: &[u32]) -> Tried {
        let mut tried = Tried::default();
        let peers = peers(&[1; 9]);
        slots
            .iter()
            .for_each(|&slot| tried.insert(&peers[slot as usize]));
        tried
    }

    fn balancer(peers: Vec<Peer>) -> Rc<Balancer> {
        let state = peer_tests::upstream_of(&peers);
        let parts = Parts {
            upstream: &Arc::from("u"),
            state,
            peers,
            health: health(),
        };
        Balancer::round_robin(parts)
    }

    /// Slots that requests get in turn; each stays there.
    fn chosen(balancer: &Balancer, tried: &Tried) -> Choice {
        let choice = balancer.choose(tried, None, &RequestHead::default());
        choice.unwrap_or(Choice::Nobody)
    }

    #[test]
    fn the_only_peer_is_chosen_once() {
        let balancer = balancer(peer_tests::peers(&[1]));
        let Choice::Peer(active) = chosen(&balancer, &tried(&[])) else {
            panic!("nobody");
        };
        assert_eq!((active.slot, active.active.get()), (0, 1));
        drop(active);
        assert!(matches!(chosen(&balancer, &tried(&[0])), Choice::Nobody));
        assert_eq!(balancer.peers().as_slice()[0].active.get(), 0);
    }

    #[test]
    fn what_was_tried_is_known_however_much_it_is() {
        let (tried, peers) = (tried(&[3, 0, 7]), peers(&[1; 9]));
        assert_eq!(tried.count(), 3);
        let found = peers.iter().filter(|peer| tried.contains(peer));
        assert_eq!(found.map(|peer| peer.slot).collect::<Vec<_>>(), [0, 3, 7]);
    }

    #[test]
    fn a_failure_is_heard_of_and_so_is_the_answer_after_it() {
        let balancer = balancer(peer_tests::peers(&[1, 1]));
        let set = balancer.peers();
        let slots = || -> Vec<u32> {
            let slot = |_| match chosen(&balancer, &Tried::default()) {
                Choice::Peer(active) => Some(active.slot),
                Choice::Full | Choice::Nobody => None,
            };
            (0..4).filter_map(slot).collect()
        };
        assert_eq!(slots(), [0, 1, 0, 1]);
        balancer.note(&set.as_slice()[0], PeerOutcome::Broken, None);
        assert_eq!(slots(), [1; 4]);
        balancer.note(&set.as_slice()[0], PeerOutcome::Responded, None);
        assert!(slots().contains(&0));
    }

    #[test]
    fn full_peers_are_told_from_tried_ones() {
        let balancer = balancer(peer_tests::limited(&[1, 1], 1));
        let held = [(); 2].map(|()| chosen(&balancer, &Tried::default()));
        assert!(held.iter().all(|it| matches!(it, Choice::Peer(_))));
        assert!(matches!(chosen(&balancer, &tried(&[0])), Choice::Full));
        assert!(matches!(chosen(&balancer, &tried(&[0, 1])), Choice::Nobody));
    }
}
