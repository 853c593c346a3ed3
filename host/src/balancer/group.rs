//! Peers of one level, and the order in which the policy takes them.

use std::rc::Rc;

use super::Ask;
use super::hashed::Hashed;
use super::least_load::LeastLoad;
use super::policy::{Load, Policy, Rules};
use super::round_robin::RoundRobin;
use super::slow_start::SlowStart;
use super::two_choices::TwoChoices;
use crate::runtime::random;
use crate::upstream::{Active, Peer};
use crate::zone::now_ns;

/// Peers that a policy chooses from.
pub(super) struct Group {
    /// By slot, ascending.
    peers: Box<[Rc<Peer>]>,
    order: Order,
    /// Draws for a plugin that asks for two of them.
    draws: Option<TwoChoices>,
    /// Weights of peers that have come up lately, while there are such.
    warming: Option<SlowStart>,
}

/// Order of the peers as the policy has it, by their place in the group.
enum Order {
    RoundRobin(Turns),
    LeastLoad(LeastLoad, Load),
    TwoChoices(TwoChoices, Load),
    Hash(Hashed),
}

/// Turns of first tries, and those of retries. Retries have turns of their own: of two peers the one that works would else have had
/// its turn with every retry, and all first tries would go to the one that fails.
struct Turns {
    first_tries: RoundRobin,
    retries: RoundRobin,
}

impl Turns {
    fn new(weights: &[f64], may_change: bool) -> Self {
        let turns = || RoundRobin::new(weights, may_change, random::next() as u32);
        Self {
            first_tries: turns(),
            retries: turns(),
        }
    }

    #[inline]
    fn of(&mut self, ask: &Ask<'_>) -> &mut RoundRobin {
        match ask.is_retry() {
            false => &mut self.first_tries,
            true => &mut self.retries,
        }
    }
}

/// Weights at one time.
#[derive(Clone, Copy)]
struct Weights {
    warming: Option<SlowStart>,
    now_ns: u64,
}

impl Weights {
    #[inline]
    fn of(self, peer: &Peer) -> f64 {
        let weight = f64::from(peer.weight.get());
        match self.warming {
            None => weight,
            Some(_) => weight * self.part(peer),
        }
    }

    /// Part of its weight that a peer has.
    fn part(self, peer: &Peer) -> f64 {
        let part = |ramp: SlowStart| ramp.part(peer.state.came_up_ns(), self.now_ns);
        self.warming.map_or(1.0, part)
    }
}

impl Group {
    /// `members`: all peers of the level; `peers`: those of them that may be chosen. Both by slot, ascending.
    pub(super) fn new(
        members: &[Rc<Peer>],
        peers: Vec<Rc<Peer>>,
        rules: &Rules,
        now_ns: u64,
    ) -> Self {
        let weights = Weights {
            warming: rules.slow_start,
            now_ns,
        };
        let is_warming = peers.iter().any(|peer| weights.part(peer) < 1.0);
        let of = |at: usize| weights.of(&peers[at]);
        let all: Vec<f64> = (0..peers.len()).map(of).collect();
        let least_load = |load: Load| {
            let of = |at: usize| load.of(&peers[at], peers[at].load(), now_ns);
            Order::LeastLoad(LeastLoad::new(&all, of, random::next() as u32), load)
        };
        let whole = || peers.iter().map(|peer| f64::from(peer.weight.get()));
        let two_choices =
            |load| Order::TwoChoices(TwoChoices::new(&whole().collect::<Vec<_>>()), load);
        let order = match &rules.policy {
            Policy::RoundRobin | Policy::Target | Policy::Plugin(_) => {
                Order::RoundRobin(Turns::new(&all, is_warming))
            }
            Policy::LeastConn => least_load(Load::Requests),
            Policy::LeastTime => least_load(Load::MeanTime),
            Policy::Random => two_choices(Load::Requests),
            Policy::Ewma => two_choices(Load::PeakTime),
            Policy::Hash(policy) => Order::Hash(policy.hashed(members, &peers)),
        };
        let draws = rules
            .policy
            .draws()
            .then(|| TwoChoices::new(&whole().collect::<Vec<_>>()));
        Self {
            peers: peers.into(),
            order,
            draws,
            warming: weights.warming.filter(|_| is_warming),
        }
    }

    /// Peers that are passed over: whatever the policy, they take turns where no other is left.
    pub(super) fn passed_over(peers: Vec<Rc<Peer>>, rules: &Rules) -> Self {
        let weights: Vec<f64> = peers.iter().map(|it| f64::from(it.weight.get())).collect();
        Self {
            peers: peers.into(),
            order: Order::RoundRobin(Turns::new(&weights, false)),
            draws: rules.policy.draws().then(|| TwoChoices::new(&weights)),
            warming: None,
        }
    }

    /// Makes its draws, as a plugin's policy has them.
    #[cfg(test)]
    pub(super) fn draw_for_a_plugin(&mut self) {
        let weights = self.peers.iter().map(|it| f64::from(it.weight.get()));
        self.draws = Some(TwoChoices::new(&weights.collect::<Vec<_>>()));
    }

    pub(super) fn peers(&self) -> &[Rc<Peer>] {
        &self.peers
    }

    /// The peer for a request, counted as active. `None`: no other than those that were tried has room.
    #[inline]
    pub(super) fn choose(&mut self, ask: &Ask<'_>) -> Option<Active> {
        let peers = &*self.peers;
        if let [only] = peers {
            return ask.allows(only).then(|| only.begin()).flatten();
        }
        let weights = self.weights();
        let allows = |at: usize| ask.allows(&peers[at]);
        match &mut self.order {
            Order::RoundRobin(order) => {
                let order = order.of(ask);
                let at = order.choose(|at| weights.of(&peers[at]), allows)?;
                peers[at].begin()
            }
            Order::LeastLoad(order, load) => {
                let at = order.choose(allows)?;
                let peer = &peers[at];
                let active = peer.begin()?;
                let load = load.of(peer, peer.load(), weights.now_ns);
                match ask.is_retry() {
                    false => order.take(at, load, weights.of(peer)),
                    // A retry leaves the turns among equals as they are, too.
                    true => order.update(at, load, weights.of(peer)),
                }
                Some(active)
            }
            Order::TwoChoices(order, load) => {
                let cost = |at: usize| {
                    let peer = &*peers[at];
                    let active = peer.active_of_all();
                    load.of(peer, active, weights.now_ns) / weights.of(peer)
                };
                // A peer that is warming up is drawn, and left at that, more seldom.
                let is_drawn = |at: usize| allows(at) && is_kept(weights.part(&peers[at]));
                let at = match weights.warming {
                    None => order.choose(allows, cost),
                    Some(_) => order.choose(is_drawn, cost),
                };
                peers[at.or_else(|| order.choose(allows, cost))?].begin()
            }
            Order::Hash(order) => order.choose(ask),
        }
    }

    /// Two peers that may be chosen, drawn for a plugin.
    pub(super) fn draw_two(&self, ask: &Ask<'_>) -> [Option<&Rc<Peer>>; 2] {
        let weights = self.weights();
        let allows = |at: usize| ask.allows(&self.peers[at]);
        let is_drawn = |at: usize| allows(at) && is_kept(weights.part(&self.peers[at]));
        let drawn = self.draws.as_ref().and_then(|draws| match weights.warming {
            None => draws.two(allows),
            Some(_) => draws.two(is_drawn).or_else(|| draws.two(allows)),
        });
        match drawn {
            Some((first, second)) => [Some(first), second].map(|at| Some(&self.peers[at?])),
            None => [None; 2],
        }
    }

    #[inline]
    fn weights(&self) -> Weights {
        let asks_time = match &self.order {
            Order::RoundRobin(_) | Order::Hash(_) => false,
            Order::LeastLoad(_, load) | Order::TwoChoices(_, load) => load.asks_time(),
        };
        Weights {
            warming: self.warming,
            now_ns: match asks_time || self.warming.is_some() {
                true => now_ns(),
                false => 0,
            },
        }
    }

    /// Notes that a request has ended at one of them.
    pub(super) fn has_ended(&mut self, peer: &Rc<Peer>) {
        let weights = self.weights();
        let Order::LeastLoad(order, load) = &mut self.order else {
            return;
        };
        let found = self.peers.binary_search_by_key(&peer.slot, |it| it.slot);
        if let Ok(at) = found {
            let load = load.of(peer, peer.load(), weights.now_ns);
            order.update(at, load, weights.of(peer));
        }
    }

    /// Looks at the loads of all, which others have changed.
    pub(super) fn refresh(&mut self) {
        let (peers, weights) = (&*self.peers, self.weights());
        match &mut self.order {
            Order::LeastLoad(order, load) => order.refresh(
                |at| load.of(&peers[at], peers[at].load(), weights.now_ns),
                |at| weights.of(&peers[at]),
            ),
            Order::Hash(order) => order.refresh(),
            Order::RoundRobin(_) | Order::TwoChoices(..) => {}
        }
    }
}

/// True in this part of the cases.
fn is_kept(part: f64) -> bool {
    part >= 1.0 || (random::next() >> 32) as f64 <= part * f64::from(u32::MAX)
}
