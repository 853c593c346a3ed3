//! Weighted round robin, as smooth as nginx's: with weights 5, 1, 1 never five in a row.

use super::heap::Heap;
use super::turns::{Deadline, Turns};

/// Takes turns among peers.
pub(super) struct RoundRobin(Order);

enum Order {
    /// Weights are equal: one after the other.
    Rotation { members: Box<[u32]>, next: usize },
    /// The peer with the earliest deadline is next.
    Weighted { heap: Heap<Deadline>, turns: Turns },
}

impl RoundRobin {
    /// Weights of all peers by index; 0: takes no turns. `may_change`: weights may be others when [`Self::choose`] asks, as in slow
    /// start. `start`: a random number, so that not all workers begin with the same peer.
    pub(super) fn new(weights: &[f64], may_change: bool, start: u32) -> Self {
        let members = || (0..weights.len()).filter(|&index| weights[index] > 0.0);
        let is_even = members().is_sorted_by(|&a, &b| weights[a] == weights[b]);
        if is_even && !may_change {
            let members: Box<[u32]> = members().map(|index| index as u32).collect();
            let next = start as usize % members.len().max(1);
            return Self(Order::Rotation { members, next });
        }
        let first = |index| {
            let phase = start.wrapping_add(index as u32);
            (index, Turns::first(phase, weights[index]))
        };
        Self(Order::Weighted {
            heap: Heap::new(weights.len(), members().map(first)),
            turns: Turns::default(),
        })
    }

    /// The peer whose turn it is. One that is not allowed lets its turn pass.
    #[inline]
    pub(super) fn choose(
        &mut self,
        weight: impl Fn(usize) -> f64,
        allows: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        match &mut self.0 {
            Order::Rotation { members, next } => rotate(members, next, allows),
            Order::Weighted { heap, turns } => by_deadline(heap, turns, weight, allows),
        }
    }
}

#[inline]
fn by_deadline(
    heap: &mut Heap<Deadline>,
    turns: &mut Turns,
    weight: impl Fn(usize) -> f64,
    allows: impl Fn(usize) -> bool,
) -> Option<usize> {
    let mut take = |heap: &mut Heap<Deadline>, index, deadline| {
        heap.update(index, turns.take(deadline, weight(index)));
        if let Some(by) = turns.overdue() {
            heap.rekey(|_, deadline| deadline.moved_back(by));
        }
    };
    for _ in 0..PASSES {
        let (index, deadline) = heap.top()?;
        take(heap, index, deadline);
        if allows(index) {
            return Some(index);
        }
    }
    // Few are allowed, and those that are not may have most of the turns.
    let (index, deadline) = heap.first(allows)?;
    take(heap, index, deadline);
    Some(index)
}

/// Turns that may pass before one that is allowed is searched for.
const PASSES: usize = 8;

#[inline]
fn rotate(members: &[u32], next: &mut usize, allows: impl Fn(usize) -> bool) -> Option<usize> {
    for _ in 0..members.len() {
        let index = members[*next] as usize;
        *next += 1;
        if *next == members.len() {
            *next = 0;
        }
        if allows(index) {
            return Some(index);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn order(weights: &[f64], start: u32, count: usize) -> Vec<usize> {
        let mut peers = RoundRobin::new(weights, false, start);
        let choose = |_| peers.choose(|index| weights[index], |_| true);
        (0..count).filter_map(choose).collect()
    }

    fn count(order: &[usize], index: usize) -> usize {
        order.iter().filter(|&&chosen| chosen == index).count()
    }

    #[test]
    fn equals_take_turns_from_a_random_start() {
        assert_eq!(order(&[1.0; 3], 0, 6), [0, 1, 2, 0, 1, 2]);
        assert_eq!(order(&[7.0; 3], 5, 4), [2, 0, 1, 2]);
        assert_eq!(order(&[2.0, 0.0, 2.0], 0, 4), [0, 2, 0, 2]);
    }

    #[test]
    fn weights_are_interleaved() {
        for start in 0..100 {
            let order = order(&[5.0, 1.0, 1.0], start, 70);
            for turn in order.chunks(7) {
                let counts: Vec<usize> = (0..3).map(|index| count(turn, index)).collect();
                assert_eq!(counts, [5, 1, 1], "{order:?}");
            }
            let in_a_row = order.windows(6).filter(|six| count(six, 0) == 6).count();
            assert_eq!(in_a_row, 0, "{order:?}");
        }
    }

    proptest! {
        /// In any row of requests, each peer gets its share of them, give or take two.
        #[test]
        fn every_stretch_is_shared_by_weight(
            weights in prop::collection::vec(1_u16..100, 1..20),
            start in any::<u32>(),
            from in 0_usize..500,
            stretch in 1_usize..500,
        ) {
            let weights: Vec<f64> = weights.into_iter().map(f64::from).collect();
            let total: f64 = weights.iter().sum();
            let order = order(&weights, start, from + stretch);
            for (index, weight) in weights.iter().enumerate() {
                let share = stretch as f64 * weight / total;
                let got = count(&order[from..], index) as f64;
                prop_assert!((got - share).abs() <= 2.0, "{got} of {share}");
            }
        }
    }

    #[test]
    fn who_is_not_allowed_lets_its_turn_pass() {
        for weights in [[1.0, 1.0, 1.0], [2.0, 1.0, 1.0], [1.0, 65535.0, 1.0]] {
            let mut peers = RoundRobin::new(&weights, false, 0);
            let mut choose =
                |allowed: &dyn Fn(usize) -> bool| peers.choose(|index| weights[index], allowed);
            assert_eq!(choose(&|_| false), None);
            let without: Vec<_> = (0..30)
                .filter_map(|_| choose(&|index| index != 1))
                .collect();
            let firsts = (30.0 * weights[0] / (weights[0] + 1.0)) as usize;
            assert_eq!(count(&without, 1), 0);
            assert!(count(&without, 0).abs_diff(firsts) <= 2, "{without:?}");
            assert_eq!(without.len(), 30);
        }
    }

    #[test]
    fn a_weight_that_changes_counts_from_the_next_turn_on() {
        let mut peers = RoundRobin::new(&[1.0, 1.0], true, 0);
        let mut chosen = |weight: f64, turns| {
            let choose = |_| peers.choose(|index| [1.0, weight][index], |_| true);
            let chosen: Vec<_> = (0..turns).filter_map(choose).collect();
            count(&chosen, 1)
        };
        assert!((9..=11).contains(&chosen(0.1, 110)));
        chosen(1.0, 20);
        assert!((49..=51).contains(&chosen(1.0, 100)));
    }

    #[test]
    fn the_virtual_time_may_run_over() {
        let weights = [3.0, 1.0];
        let mut peers = RoundRobin::new(&weights, false, 0);
        if let Order::Weighted { turns, heap } = &mut peers.0 {
            *turns = Turns::late();
            heap.rekey(|_, _| turns.take(Deadline::default(), 7.0));
        }
        let choose = |_| peers.choose(|index| weights[index], |_| true);
        let order: Vec<usize> = (0..40).filter_map(choose).collect();
        assert!((29..=31).contains(&count(&order, 0)), "{order:?}");
    }

    #[test]
    fn nobody_is_nobody() {
        for weights in [&[][..], &[0.0], &[0.0, 0.0]] {
            assert_eq!(
                RoundRobin::new(weights, false, 9).choose(|_| 1.0, |_| true),
                None
            );
            assert_eq!(
                RoundRobin::new(weights, true, 9).choose(|_| 1.0, |_| true),
                None
            );
        }
    }
}
