//! The better of two random peers (nginx `random two`, Envoy `LEAST_REQUEST`): nearly as good as the best of all, and a crowd of
//! workers that know the same does not go to the same peer.

use crate::runtime::random;

/// Draws peers by weight, each in O(1).
pub(super) struct TwoChoices {
    /// Walker's alias table: every peer has a slot, which it shares with at most one other.
    slots: Box<[Slot]>,
}

struct Slot {
    index: u32,
    /// Peer that has the rest of the slot.
    alias: u32,
    /// Share of the slot that is the peer's own, of 2^32.
    own: u32,
}

impl TwoChoices {
    /// Weights of all peers by index; 0: never drawn.
    pub(super) fn new(weights: &[f64]) -> Self {
        Self {
            slots: slots(weights),
        }
    }

    /// Draws two peers, and chooses the one whose `cost` is less. Draws those again that are not allowed, and chooses the only one where
    /// no other is.
    #[inline]
    pub(super) fn choose(
        &self,
        allows: impl Fn(usize) -> bool,
        cost: impl Fn(usize) -> f64,
    ) -> Option<usize> {
        let (first, second) = self.two(allows)?;
        Some(match second {
            Some(second) => better(first, second, cost),
            None => first,
        })
    }

    /// Draws two peers that are allowed; the second is `None` where no other is.
    #[inline]
    pub(super) fn two(&self, allows: impl Fn(usize) -> bool) -> Option<(usize, Option<usize>)> {
        if let [] | [_] = *self.slots {
            let only = self.slots.first()?.index as usize;
            return allows(only).then_some((only, None));
        }
        let mut first = None;
        for _ in 0..DRAWS {
            let drawn = self.draw();
            if first == Some(drawn) || !allows(drawn) {
                continue;
            }
            match first {
                None => first = Some(drawn),
                Some(first) => return Some((first, Some(drawn))),
            }
        }
        self.search(first, allows)
    }

    #[inline]
    fn draw(&self) -> usize {
        let random = random::next();
        // The upper half chooses a slot, the lower one a part of it.
        let at = ((random >> 32) * self.slots.len() as u64) >> 32;
        let slot = &self.slots[at as usize];
        match (random as u32) < slot.own {
            true => slot.index as usize,
            false => slot.alias as usize,
        }
    }

    /// Looks at one after the other for two that are allowed, where few are.
    #[cold]
    fn search(
        &self,
        first: Option<usize>,
        allows: impl Fn(usize) -> bool,
    ) -> Option<(usize, Option<usize>)> {
        let start = random::next() % self.slots.len() as u64;
        let (before, after) = self.slots.split_at(start as usize);
        let all = after.iter().chain(before).map(|slot| slot.index as usize);
        let mut allowed = all.filter(|&index| Some(index) != first && allows(index));
        let first = first.or_else(|| allowed.next())?;
        Some((first, allowed.next()))
    }
}

#[inline]
fn better(first: usize, second: usize, cost: impl Fn(usize) -> f64) -> usize {
    match cost(second) < cost(first) {
        true => second,
        false => first,
    }
}

/// Draws after which it is taken for granted that few are allowed: with one peer in four, two are found in 16 draws but once in 16
/// times.
const DRAWS: usize = 16;

/// Vose's way to an alias table: O(n).
fn slots(weights: &[f64]) -> Box<[Slot]> {
    let members: Vec<usize> = (0..weights.len())
        .filter(|&index| weights[index] > 0.0)
        .collect();
    let total: f64 = members.iter().map(|&index| weights[index]).sum();
    let mean = total / members.len() as f64;
    let mut slots: Vec<Slot> = members.iter().map(|&index| whole(index as u32)).collect();
    let mut left: Vec<f64> = members.iter().map(|&index| weights[index] / mean).collect();
    let (mut small, mut large): (Vec<usize>, Vec<usize>) =
        (0..left.len()).partition(|&at| left[at] < 1.0);
    while let (Some(lesser), Some(&greater)) = (small.pop(), large.last()) {
        slots[lesser].own = (left[lesser] * f64::from(u32::MAX)) as u32;
        slots[lesser].alias = slots[greater].index;
        left[greater] -= 1.0 - left[lesser];
        if left[greater] < 1.0 {
            large.pop();
            small.push(greater);
        }
    }
    // A slot that rounding has left in either is whole.
    slots.into()
}

fn whole(index: u32) -> Slot {
    Slot {
        index,
        alias: index,
        own: u32::MAX,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Share of the draws that each peer's slots give it.
    fn shares(weights: &[f64]) -> Vec<f64> {
        let slots = slots(weights);
        let mut shares = vec![0.0; weights.len()];
        for slot in &slots {
            let own = f64::from(slot.own) / f64::from(u32::MAX);
            shares[slot.index as usize] += own / slots.len() as f64;
            shares[slot.alias as usize] += (1.0 - own) / slots.len() as f64;
        }
        shares
    }

    proptest! {
        #[test]
        fn each_is_drawn_by_its_weight(weights in prop::collection::vec(0_u16.., 1..50)) {
            let weights: Vec<f64> = weights.into_iter().map(f64::from).collect();
            let total: f64 = weights.iter().sum();
            prop_assume!(total > 0.0);
            for (share, weight) in shares(&weights).iter().zip(&weights) {
                prop_assert!((share - weight / total).abs() < 1e-6);
            }
        }
    }

    fn counts(weights: &[f64], draws: usize, cost: impl Fn(usize) -> f64) -> Vec<usize> {
        let policy = TwoChoices::new(weights);
        let mut counts = vec![0; weights.len()];
        for _ in 0..draws {
            counts[policy.choose(|_| true, &cost).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn where_costs_are_equal_draws_are_by_weight() {
        let counts = counts(&[1.0; 10], 100_000, |_| 0.0);
        // Standard deviation of a share of a tenth: 95.
        assert!(
            counts.iter().all(|count| count.abs_diff(10_000) < 6 * 95),
            "{counts:?}"
        );
    }

    #[test]
    fn the_dearest_is_never_the_better_of_two() {
        let counts = counts(&[1.0; 4], 60_000, |index| index as f64);
        assert_eq!(counts[3], 0);
        // The cheapest wins whenever it is one of the two: in half of the pairs of four. Standard deviation: 122.
        assert!(counts[0].abs_diff(30_000) < 6 * 122, "{counts:?}");
    }

    #[test]
    fn few_that_are_allowed_are_found() {
        let policy = TwoChoices::new(&[1.0; 1000]);
        for _ in 0..100 {
            assert_eq!(policy.choose(|index| index == 700, |_| 0.0), Some(700));
            let two = policy.choose(|index| index == 3 || index == 998, |index| index as f64);
            assert_eq!(two, Some(3));
            assert_eq!(policy.choose(|_| false, |_| 0.0), None);
        }
    }

    #[test]
    fn nobody_is_nobody() {
        assert_eq!(TwoChoices::new(&[]).choose(|_| true, |_| 0.0), None);
        assert_eq!(TwoChoices::new(&[0.0]).choose(|_| true, |_| 0.0), None);
        assert_eq!(
            TwoChoices::new(&[0.0, 2.0]).choose(|_| true, |_| 0.0),
            Some(1)
        );
    }
}
