//! Requests of one route shared out between upstreams by weight.

use std::cell::RefCell;

use siphasher::sip::SipHasher13;

use super::plan::UpstreamIdx;
use crate::exchange::{Exchange, Template};
use crate::runtime::random;

/// The upstreams of a route.
#[derive(Default)]
pub enum Upstreams {
    #[default]
    None,
    One(UpstreamIdx),
    Split(Box<Split>),
}

/// Upstreams with their shares. One is chosen for each request, once; whether its peers are well does not matter.
pub struct Split {
    /// Each with the sum of the weights up to it. The last sum is that of all, and not 0.
    shares: Box<[(u64, UpstreamIdx)]>,
    /// Requests with the same text go to the same upstream. Without one, or where none of its variables has a value: at random.
    by: Option<Template>,
    /// Room for that text.
    key: RefCell<Vec<u8>>,
}

impl Upstreams {
    /// The one for this request.
    #[inline]
    pub fn choose(&self, exchange: &Exchange) -> Option<UpstreamIdx> {
        match self {
            Self::None => None,
            Self::One(idx) => Some(*idx),
            Self::Split(split) => Some(split.choose(exchange)),
        }
    }

    /// The one for this request, if that is not left to chance.
    pub fn decided(&self, exchange: &Exchange) -> Option<UpstreamIdx> {
        match self {
            Self::None => None,
            Self::One(idx) => Some(*idx),
            Self::Split(split) => split.point(exchange).map(|point| split.at(point)),
        }
    }

    /// All of them, each with its weight.
    pub fn all(&self) -> Vec<(UpstreamIdx, u64)> {
        match self {
            Self::None => Vec::new(),
            Self::One(idx) => vec![(*idx, 1)],
            Self::Split(split) => {
                let mut before = 0;
                let weight = |&(end, idx): &(u64, UpstreamIdx)| {
                    let weight = end - before;
                    before = end;
                    (idx, weight)
                };
                split.shares.iter().map(weight).collect()
            }
        }
    }
}

impl Split {
    /// At least one weight is not 0.
    pub fn new(
        upstreams: impl IntoIterator<Item = (UpstreamIdx, u16)>,
        by: Option<Template>,
    ) -> Self {
        let mut sum = 0;
        let share = |(idx, weight): (UpstreamIdx, u16)| {
            sum += u64::from(weight);
            (sum, idx)
        };
        Self {
            shares: upstreams.into_iter().map(share).collect(),
            by,
            key: RefCell::default(),
        }
    }

    #[cold]
    #[inline(never)]
    fn choose(&self, exchange: &Exchange) -> UpstreamIdx {
        self.at(self.point(exchange).unwrap_or_else(random::next))
    }

    /// Point of the request's key. The same in all workers, after reloads and on other machines.
    fn point(&self, exchange: &Exchange) -> Option<u64> {
        let by = self.by.as_ref()?;
        let mut key = self.key.borrow_mut();
        key.clear();
        let has_key = by.write(&mut key, exchange);
        has_key.then(|| SipHasher13::new().hash(&key))
    }

    /// The upstream whose share a point is in. Shares lie side by side in the order of the config, so that a point moves to another
    /// upstream only as far as the bounds between them move.
    fn at(&self, point: u64) -> UpstreamIdx {
        let (total, _) = self.shares[self.shares.len() - 1];
        let at = (u128::from(point) * u128::from(total)) >> 64;
        let behind = |&(end, _): &(u64, UpstreamIdx)| u128::from(end) <= at;
        self.shares[self.shares.partition_point(behind)].1
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(weights: &[u16], by: Option<&str>) -> Split {
        let upstreams = weights.iter().enumerate();
        let by = by.map(|text| Template::parse(text).unwrap());
        Split::new(
            upstreams.map(|(idx, weight)| (UpstreamIdx(idx), *weight)),
            by,
        )
    }

    fn shares(
        split: &Split,
        requests: usize,
        user: impl Fn(usize) -> Option<String>,
    ) -> Vec<usize> {
        let mut counts = vec![0; split.shares.len()];
        let mut exchange = Exchange::idle();
        for n in 0..requests {
            exchange.context_mut().vars.clear();
            if let Some(user) = user(n) {
                exchange.context_mut().vars.set("user", user.as_bytes());
            }
            counts[split.choose(&exchange).0] += 1;
        }
        counts
    }

    #[test]
    fn each_gets_its_share() {
        for (by, keyed) in [(None, false), (Some("$user"), true), (Some("$user"), false)] {
            let split = split(&[70, 0, 30], by);
            let counts = shares(&split, 10_000, |n| keyed.then(|| n.to_string()));
            // Six standard deviations of a binomial distribution.
            let bound = 6.0 * (10_000.0_f64 * 0.7 * 0.3).sqrt();
            assert_eq!(counts[1], 0);
            assert!((counts[0] as f64 - 7000.0).abs() < bound, "{counts:?}");
        }
    }

    #[test]
    fn a_key_stays_where_it_is() {
        let split = split(&[50, 50], Some("$user"));
        let counts = shares(&split, 100, |_| Some("alice".to_owned()));
        assert!(counts.contains(&100), "{counts:?}");
    }

    #[test]
    fn the_hash_is_for_good() {
        let mut exchange = Exchange::idle();
        exchange.context_mut().vars.set("user", b"alice");
        let point = split(&[1, 1], Some("$user")).point(&exchange);
        assert_eq!(point, Some(SipHasher13::new_with_keys(0, 0).hash(b"alice")));
    }

    proptest! {
        /// A share that grows at its beginning takes from its neighbour in front and from nobody else, also where the sum changes.
        #[test]
        fn a_point_moves_only_with_the_bounds(point: u64, weights in prop::collection::vec(0..=1000_u16, 1..6)) {
            prop_assume!(weights.iter().any(|weight| *weight > 0));
            let split = split(&weights, None);
            let idx = split.at(point).0;
            prop_assert!(weights[idx] > 0);
            let total: u128 = weights.iter().map(|it| u128::from(*it)).sum();
            let before: u128 = weights[..idx].iter().map(|it| u128::from(*it)).sum();
            let at = (u128::from(point) * total) >> 64;
            prop_assert!((before..before + u128::from(weights[idx])).contains(&at));
            let twice: Vec<_> = weights.iter().map(|it| it * 2).collect();
            prop_assert_eq!(self::split(&twice, None).at(point).0, idx);
        }
    }
}
