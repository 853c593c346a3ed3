//! Chooses the peer of each try and hears how it went. One policy a file.

mod bounded_load;
mod candidates;
mod group;
mod hash;
mod hashed;
mod heap;
mod ip_hash;
mod latency;
mod least_load;
mod levels;
mod plugin;
mod policy;
mod round_robin;
mod slow_start;
mod sticky;
mod sticky_learn;
mod sticky_tags;
mod supply;
mod target;
mod turns;
mod two_choices;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use castling_abi::PeerOutcome;
use http::StatusCode;

use crate::config;
use crate::error::Error;
use crate::exchange::Exchange;
use crate::runtime::clock;
use crate::upstream::{Active, Checks, Ends, PassiveHealth, Peer, PeerSet, PeerState};
use crate::wasm::PolicyResult;
use crate::zone::now_ns;
use candidates::Candidates;
use latency::Latency;
pub use plugin::PluginPolicy;
pub use policy::{Policy, Rules};
pub use slow_start::SlowStart;
pub use sticky_learn::SessionStore;
use supply::{Supply, SupplyLog};
use target::Targets;

/// The peers of an upstream and the policy that chooses among them.
pub struct Balancer {
    upstream: Arc<str>,
    /// Swapped whole when other peers are to be balanced among.
    peers: RefCell<Rc<PeerSet>>,
    rules: Rules,
    health: Health,
    /// State of the upstream that all workers share.
    state: PeerState,
    candidates: RefCell<Candidates>,
    /// Candidates by name, where the request's host names its peer.
    targets: RefCell<Targets>,
    /// Whether so few peers are available that all are chosen from.
    is_panicking: Cell<bool>,
    /// Log of whom there is to choose from.
    told: RefCell<SupplyLog>,
    /// Time at which the candidates have to be looked for again, though nobody says so: [`now_ns`].
    due_ns: Cell<u64>,
    /// Epoch of the upstream's peers that the candidates are of.
    epoch: Cell<u64>,
    /// Time at which it was looked what other workers have under way.
    looked_at: Cell<Option<Instant>>,
    /// Peers at which requests have ended since a peer was chosen, for policies that go by load.
    ends: Rc<Ends>,
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
            checks: Checks::of(config),
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

/// A request that a peer is chosen for.
struct Ask<'a> {
    tried: &'a Tried,
    /// Key that it is sent by, where that is a hash; empty: it has none.
    key: &'a [u8],
}

impl Ask<'_> {
    #[inline]
    fn is_retry(&self) -> bool {
        self.tried.first.is_some()
    }

    /// Whether this one of the candidates may be chosen: it was not tried, and has room.
    #[inline]
    fn allows(&self, peer: &Peer) -> bool {
        !self.tried.contains(peer) && !peer.is_full()
    }
}

impl Balancer {
    pub fn new(parts: Parts<'_>, rules: Rules) -> Rc<Self> {
        let Parts {
            upstream,
            state,
            peers,
            health,
        } = parts;
        let set = PeerSet::new(peers.into_iter().map(Rc::new));
        let balancer = Self {
            upstream: Arc::clone(upstream),
            peers: RefCell::new(PeerSet::new([])),
            candidates: RefCell::new(Candidates::among(&[], &rules, &health, 0)),
            rules,
            health,
            state,
            targets: RefCell::default(),
            is_panicking: Cell::new(false),
            told: RefCell::default(),
            due_ns: Cell::new(u64::MAX),
            epoch: Cell::new(0),
            looked_at: Cell::new(None),
            ends: Rc::default(),
        };
        balancer.swap(set);
        Rc::new(balancer)
    }

    /// Checks that a peer has to pass before it is available.
    pub fn checks(&self) -> Checks {
        self.health.checks
    }

    pub fn peers(&self) -> Rc<PeerSet> {
        Rc::clone(&self.peers.borrow())
    }

    /// Balances among these from now on. Requests that are under way at others end there.
    pub fn swap(&self, peers: Rc<PeerSet>) {
        if self.rules.policy.goes_by_load() {
            for peer in peers.as_slice() {
                peer.tell_ends(&self.ends);
            }
        }
        if let Some(sticky) = &self.rules.sticky {
            sticky.know(&peers);
        }
        self.peers.replace(peers);
        self.looked_at.set(None);
        self.find_candidates();
    }

    /// The peer for the next try. `result`: what the plugin has said, where one chooses.
    #[inline]
    pub fn choose(
        &self,
        tried: &Tried,
        result: Option<PolicyResult>,
        exchange: &mut Exchange,
    ) -> Result<Choice, Error> {
        self.keep_candidates_fresh();
        match self.rules.asks_candidates_alone {
            true => {
                let ask = Ask { tried, key: b"" };
                Ok(self.candidates.borrow_mut().choose(&ask))
            }
            false => self.choose_by_rules(tried, result, exchange),
        }
    }

    /// The peer by what is fresh: the candidates, and whatever else has a say in it.
    #[inline(never)]
    fn choose_by_rules(
        &self,
        tried: &Tried,
        result: Option<PolicyResult>,
        exchange: &mut Exchange,
    ) -> Result<Choice, Error> {
        if let Some(active) = self.bound(tried, exchange) {
            return Ok(Choice::Peer(active));
        }
        let ask = Ask { tried, key: b"" };
        match (&self.rules.policy, result) {
            (Policy::Target, _) => {
                return self.targets.borrow_mut().choose(exchange.request(), &ask);
            }
            (Policy::LeastConn | Policy::LeastTime, _) => self.keep_loads_fresh(),
            (Policy::Hash(policy), _) => {
                if policy.is_bounded() {
                    self.keep_loads_fresh();
                }
                return Ok(policy.with_key(exchange, |key| {
                    self.candidates.borrow_mut().choose(&Ask { tried, key })
                }));
            }
            (Policy::Plugin(policy), Some(result)) => {
                let (set, candidates) = (self.peers.borrow(), self.candidates.borrow());
                let eligible = |peer: &Rc<Peer>| candidates.is_eligible(peer, &ask);
                if let Some(peer) = policy.chosen(&set, eligible, result)? {
                    return Ok(begin(Some(peer)));
                }
            }
            (Policy::RoundRobin | Policy::Random | Policy::Ewma | Policy::Plugin(_), _) => {}
        }
        Ok(self.candidates.borrow_mut().choose(&ask))
    }

    /// The peer that a session is bound to, for the first try of its request.
    #[inline]
    fn bound(&self, tried: &Tried, exchange: &mut Exchange) -> Option<Active> {
        let sticky = self.rules.sticky.as_ref()?;
        match tried.count() {
            0 => {
                let (set, checks) = (self.peers.borrow(), self.health.checks);
                sticky.peer(&set, checks, exchange)?.begin()
            }
            _ => None,
        }
    }

    /// Name of the cookie by which sessions are bound, which is the gateway's own and no origin's.
    pub fn session_cookie(&self) -> Option<&str> {
        self.rules.sticky.as_ref()?.cookie_name()
    }

    /// This peer has answered, and its response is the client's: binds the session to it, where sessions are.
    #[inline]
    pub fn bind(&self, peer: &Peer, exchange: &mut Exchange) {
        if let Some(sticky) = &self.rules.sticky {
            sticky.bind(&self.peers.borrow(), peer, exchange);
        }
    }

    /// A try of this peer has ended so, after this time. `status`: of its response, if it has answered.
    #[inline]
    pub fn note(
        &self,
        peer: &Peer,
        outcome: PeerOutcome,
        took: Duration,
        status: Option<StatusCode>,
    ) {
        let passive = &self.health.passive;
        if passive.note(peer, outcome, status, || self.peers()) {
            self.peers_have_changed();
        }
        match self.rules.policy {
            Policy::LeastTime => note_time(peer, outcome, took),
            Policy::Ewma => note_peak(peer, outcome, took, status),
            Policy::RoundRobin
            | Policy::LeastConn
            | Policy::Random
            | Policy::Hash(_)
            | Policy::Target
            | Policy::Plugin(_) => {}
        }
    }

    /// State of the upstream itself.
    pub fn state(&self) -> &PeerState {
        &self.state
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
        self.is_panicking.get()
    }

    /// The plugin that chooses, if one does: it wants to be told of each outcome.
    pub fn plugin_policy(&self) -> Option<&PluginPolicy> {
        match &self.rules.policy {
            Policy::Plugin(policy) => Some(policy),
            Policy::RoundRobin
            | Policy::LeastConn
            | Policy::LeastTime
            | Policy::Random
            | Policy::Ewma
            | Policy::Hash(_)
            | Policy::Target => None,
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
        let (set, now_ns) = (self.peers.borrow(), now_ns());
        if matches!(self.rules.policy, Policy::Target) {
            let targets = Targets::among(set.as_slice(), &self.rules, &self.health, now_ns);
            self.targets.replace(targets);
        }
        let found = Candidates::among(set.as_slice(), &self.rules, &self.health, now_ns);
        self.is_panicking.set(found.supply == Supply::TooFew);
        let told_again_ns = self
            .told
            .borrow_mut()
            .note(&self.upstream, found.supply, now_ns);
        self.due_ns.set(found.due_ns.min(told_again_ns));
        self.candidates.replace(found);
    }

    /// Looks at what has ended here, and, if that was some time ago, at what other workers have under way.
    fn keep_loads_fresh(&self) {
        let (set, mut candidates) = (self.peers.borrow(), self.candidates.borrow_mut());
        self.ends.take_each(|slot| {
            if let Some(peer) = set.by_slot(slot) {
                peer.ends_are_known();
                candidates.has_ended(peer);
            }
        });
        if self.look_at_others() {
            candidates.refresh();
        }
    }

    /// Looks at what other workers have under way, if that was some time ago: true.
    fn look_at_others(&self) -> bool {
        let now = clock::now();
        let looked_at = self.looked_at.get();
        let is_due = looked_at.is_none_or(|at| now.saturating_duration_since(at) >= LOOK_EACH);
        if is_due {
            self.looked_at.set(Some(now));
            self.peers.borrow().look_at_others(&self.state);
        }
        is_due
    }
}

/// Notes how long a peer took to answer. Of one that fails nothing is noted, so that it does not look quick.
fn note_time(peer: &Peer, outcome: PeerOutcome, took: Duration) {
    if outcome == PeerOutcome::Responded {
        let now_ns = now_ns();
        Latency::update(peer.state.latency(), |known| match known {
            Some(known) => known.mean(took, now_ns, policy::DECAY),
            None => Latency::new(took, now_ns),
        });
    }
}

/// Notes how long a peer took to answer; a failure counts as a long time, however soon it came.
fn note_peak(peer: &Peer, outcome: PeerOutcome, took: Duration, status: Option<StatusCode>) {
    let is_error = status.is_some_and(|status| status.is_server_error());
    let seen = match outcome {
        PeerOutcome::Responded if !is_error => took,
        PeerOutcome::Responded
        | PeerOutcome::ConnectFailed
        | PeerOutcome::Broken
        | PeerOutcome::TimedOut => took.max(PENALTY),
        // Says nothing about the peer.
        PeerOutcome::Cancelled => return,
    };
    let now_ns = now_ns();
    Latency::update(peer.state.latency(), |known| {
        let known = known.unwrap_or_else(|| Latency::new(Duration::ZERO, now_ns));
        known.peak(seen, now_ns, policy::DECAY)
    });
}

/// Latency that a failed try counts as, at least (Linkerd's load biaser: 5 s).
const PENALTY: Duration = Duration::from_secs(1);

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
    use super::*;
    use crate::upstream::peer_tests;

    pub(super) fn peers(weights: &[u32]) -> Vec<Rc<Peer>> {
        let peers = peer_tests::peers(weights);
        peers.into_iter().map(Rc::new).collect()
    }

    pub(super) fn tried(slots: &[u32]) -> Tried {
        let mut tried = Tried::default();
        let peers = peers(&[1; 9]);
        slots
            .iter()
            .for_each(|&slot| tried.insert(&peers[slot as usize]));
        tried
    }

    pub(super) fn health() -> Health {
        Health {
            passive: PassiveHealth::new(&config::Passive::default()),
            checks: Checks::None,
            panic_threshold: 0.0,
        }
    }

    fn by_policy(state: PeerState, peers: Vec<Peer>, policy: Policy) -> Rc<Balancer> {
        let parts = Parts {
            upstream: &Arc::from("u"),
            state,
            peers,
            health: health(),
        };
        Balancer::new(parts, policy.into())
    }

    fn balancer(peers: Vec<Peer>) -> Rc<Balancer> {
        let state = peer_tests::upstream_of(&peers);
        by_policy(state, peers, Policy::RoundRobin)
    }

    /// Slots that requests get in turn; each stays there.
    fn chosen(balancer: &Balancer, tried: &Tried) -> Choice {
        let choice = balancer.choose(tried, None, &mut Exchange::idle());
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
        let mut of_both = slots();
        of_both.sort_unstable();
        assert_eq!(of_both, [0, 0, 1, 1]);
        balancer.note(
            &set.as_slice()[0],
            PeerOutcome::Broken,
            Duration::ZERO,
            None,
        );
        assert_eq!(slots(), [1; 4]);
        balancer.note(
            &set.as_slice()[0],
            PeerOutcome::Responded,
            Duration::ZERO,
            None,
        );
        assert!(slots().contains(&0));
    }

    #[test]
    fn first_tries_take_turns_whatever_is_tried_again() {
        for policy in [Policy::RoundRobin, Policy::LeastConn] {
            let peers = peer_tests::peers(&[1, 1]);
            let state = peer_tests::upstream_of(&peers);
            let balancer = by_policy(state, peers, policy);
            let mut first_tries = [0; 2];
            for _ in 0..20 {
                let Choice::Peer(active) = chosen(&balancer, &Tried::default()) else {
                    panic!("nobody");
                };
                let slot = active.slot;
                first_tries[slot as usize] += 1;
                drop(active);
                let again = chosen(&balancer, &tried(&[slot]));
                assert!(matches!(again, Choice::Peer(other) if other.slot != slot));
            }
            assert_eq!(first_tries, [10, 10]);
        }
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
