//! The peer with the least load for its weight; weighted round robin among equals (nginx `least_conn` and `least_time`).

use super::heap::Heap;
use super::turns::{Deadline, Turns};

/// Peers by load. What a load is, a number of requests or the time that they will take, is the caller's to say.
pub(super) struct LeastLoad {
    heap: Heap<Key>,
    turns: Turns,
}

/// Load for each unit of weight, and below it whose turn it is among equals. The bits of a float that is not negative are in the
/// order of the floats; those of equal fractions are equal, since a division is rounded correctly.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key(u128);

impl Key {
    fn new(load: f64, weight: f64, deadline: Deadline) -> Self {
        let load = (load / weight).max(0.0).to_bits();
        Self(u128::from(load) << 64 | u128::from(deadline.0))
    }

    fn deadline(self) -> Deadline {
        Deadline(self.0 as u64)
    }
}

impl LeastLoad {
    /// Weights of all peers by index; 0: never chosen. `load` is asked for each of them. `start`: a random number, so that not
    /// all workers begin with the same peer.
    pub(super) fn new(weights: &[f64], load: impl Fn(usize) -> f64, start: u32) -> Self {
        let members = (0..weights.len()).filter(|&index| weights[index] > 0.0);
        let entry = |index| {
            let phase = start.wrapping_add(index as u32);
            let deadline = Turns::first(phase, weights[index]);
            (index, Key::new(load(index), weights[index], deadline))
        };
        Self {
            heap: Heap::new(weights.len(), members.map(entry)),
            turns: Turns::default(),
        }
    }

    /// The peer with the least load. Its load is as it was until [`Self::update`].
    #[inline]
    pub(super) fn choose(&self, allows: impl Fn(usize) -> bool) -> Option<usize> {
        self.heap.first(allows).map(|(index, _)| index)
    }

    /// Notes that a peer was chosen, what its load is with it, and that it has had its turn: O(log n).
    #[inline]
    pub(super) fn take(&mut self, index: usize, load: f64, weight: f64) {
        let Some(key) = self.heap.key(index) else {
            return;
        };
        let deadline = self.turns.take(key.deadline(), weight);
        self.heap.update(index, Key::new(load, weight, deadline));
        if let Some(by) = self.turns.overdue() {
            self.heap
                .rekey(|_, key| Key(key.0 - u128::from(by.min(key.deadline().0))));
        }
    }

    /// Notes that a peer's load has changed: O(log n).
    #[inline]
    pub(super) fn update(&mut self, index: usize, load: f64, weight: f64) {
        if let Some(key) = self.heap.key(index) {
            let key = Key::new(load, weight, key.deadline());
            self.heap.update(index, key);
        }
    }

    /// Asks for the loads of all peers, divided by their weights: O(n).
    pub(super) fn refresh(&mut self, load: impl Fn(usize) -> f64, weight: impl Fn(usize) -> f64) {
        self.heap
            .rekey(|index, key| Key::new(load(index), weight(index), key.deadline()));
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use proptest::prelude::*;

    use super::*;

    /// Peers with the requests that are under way there.
    struct Peers {
        policy: LeastLoad,
        weights: Vec<f64>,
        active: RefCell<Vec<u32>>,
    }

    impl Peers {
        fn new(weights: &[f64]) -> Self {
            Self {
                policy: LeastLoad::new(weights, |_| 0.0, 0),
                weights: weights.to_vec(),
                active: RefCell::new(vec![0; weights.len()]),
            }
        }

        fn begin(&mut self) -> usize {
            let index = self.policy.choose(|_| true).unwrap();
            self.active.borrow_mut()[index] += 1;
            let load = f64::from(self.active.borrow()[index]);
            self.policy.take(index, load, self.weights[index]);
            index
        }

        fn set(&mut self, index: usize, active: u32) {
            self.active.borrow_mut()[index] = active;
            self.policy
                .update(index, active.into(), self.weights[index]);
        }

        fn end(&mut self, index: usize) {
            let active = self.active.borrow()[index];
            self.set(index, active - 1);
        }
    }

    #[test]
    fn the_idle_peer_is_preferred() {
        let mut peers = Peers::new(&[1.0, 1.0, 1.0]);
        peers.set(0, 1);
        peers.set(2, 2);
        assert_eq!(peers.begin(), 1);
    }

    #[test]
    fn activity_counts_in_relation_to_weight() {
        let mut peers = Peers::new(&[4.0, 1.0]);
        peers.set(0, 2);
        peers.set(1, 1);
        assert_eq!(peers.begin(), 0);
    }

    #[test]
    fn idle_peers_take_turns_by_weight() {
        let mut peers = Peers::new(&[5.0, 1.0, 1.0]);
        let mut counts = [0; 3];
        for _ in 0..70 {
            let index = peers.begin();
            counts[index] += 1;
            peers.end(index);
        }
        assert_eq!(counts, [50, 10, 10]);
    }

    #[test]
    fn requests_that_stay_are_spread_by_weight() {
        let mut peers = Peers::new(&[4.0, 2.0, 1.0]);
        for _ in 0..70 {
            peers.begin();
        }
        assert_eq!(*peers.active.borrow(), [40, 20, 10]);
    }

    #[test]
    fn loads_that_others_have_made_are_asked_for() {
        let mut peers = Peers::new(&[1.0, 1.0]);
        peers.policy.refresh(|index| [3.0, 0.0][index], |_| 1.0);
        assert_eq!([peers.begin(), peers.begin()], [1, 1]);
        assert_eq!(peers.policy.choose(|index| index == 0), Some(0));
        assert_eq!(peers.policy.choose(|_| false), None);
    }

    #[test]
    fn weight_0_is_never_chosen() {
        let mut policy = LeastLoad::new(&[0.0, 1.0], |_| 0.0, 0);
        policy.take(1, 9.0, 1.0);
        policy.update(0, 0.0, 1.0);
        assert_eq!(policy.choose(|_| true), Some(1));
    }

    proptest! {
        /// The one that is chosen has no more load for its weight than any other.
        #[test]
        fn no_other_has_less(
            weights in prop::collection::vec(1_u16.., 1..40),
            ends in prop::collection::vec(any::<prop::sample::Index>(), 200),
        ) {
            let weights: Vec<f64> = weights.into_iter().map(f64::from).collect();
            let mut peers = Peers::new(&weights);
            let mut under_way = Vec::new();
            for (n, end) in ends.iter().enumerate() {
                let before = peers.active.borrow().clone();
                let chosen = peers.begin();
                let load = |index: usize| f64::from(before[index]) / weights[index];
                prop_assert!((0..weights.len()).all(|other| load(chosen) <= load(other)));
                under_way.push(chosen);
                if n % 3 > 0 {
                    peers.end(under_way.swap_remove(end.index(under_way.len())));
                }
            }
        }
    }
}
