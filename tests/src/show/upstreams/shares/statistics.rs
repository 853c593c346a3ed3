//! Measures of how requests were shared out.

/// Bound of every statistical claim, in standard deviations: by chance a count is farther from its mean in one of 500 million.
pub(super) const SIGMAS: f64 = 6.0;

/// Counts of draws that peers have won, and the weights by which they should.
pub(super) struct Shares<'a> {
    pub(super) counts: &'a [u64],
    pub(super) weights: &'a [u32],
}

impl Shares<'_> {
    fn draws(&self) -> f64 {
        self.counts.iter().sum::<u64>() as f64
    }

    /// Count that each should have, and its share of all.
    fn expected(&self) -> impl Iterator<Item = (f64, f64, f64)> {
        let weight: f64 = self.weights.iter().copied().map(f64::from).sum();
        let draws = self.draws();
        let peers = self.counts.iter().zip(self.weights);
        peers.map(move |(count, own)| {
            let share = f64::from(*own) / weight;
            (*count as f64, draws * share, share)
        })
    }

    /// Most requests that one is off by.
    pub(super) fn farthest(&self) -> f64 {
        let off = |(count, mean, _): (f64, f64, f64)| (count - mean).abs();
        self.expected().map(off).fold(0.0, f64::max)
    }

    /// Most standard deviations that one is off by, where each request is drawn by itself. `spread`: standard deviation of the shares
    /// themselves, relative, of a peer of this weight.
    pub(super) fn deviations(&self, spread: impl Fn(u32) -> f64) -> f64 {
        let of_peer = |((count, mean, share), own): ((f64, f64, f64), &u32)| {
            let variance = mean * (1.0 - share) + (mean * spread(*own)).powi(2);
            (count - mean).abs() / variance.sqrt()
        };
        let peers = self.expected().zip(self.weights);
        peers.map(of_peer).fold(0.0, f64::max)
    }
}

/// How far the loads of peers are apart, in requests for each unit of weight. Where each request goes to the least load, it is 1 at
/// most. `next`: 1 where the load counts the request that is to come.
pub(super) fn apart(held: &[u64], weights: &[u32], next: f64) -> f64 {
    let load = |(held, weight): (&u64, &u32)| (*held as f64 + next) / f64::from(*weight);
    let loads = || held.iter().zip(weights).map(load);
    loads().fold(0.0, f64::max) - loads().fold(f64::INFINITY, f64::min)
}

/// Standard deviation of a ketama share, relative: 160 points for each unit of weight.
pub(super) fn of_ketama(weight: u32) -> f64 {
    1.0 / (160.0 * f64::from(weight)).sqrt()
}

/// Standard deviation of a Maglev share, relative: the table is even but for rounding.
pub(super) fn of_maglev(_weight: u32) -> f64 {
    0.02 / SIGMAS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_measured_by_its_own_deviation() {
        let shares = Shares {
            counts: &[60, 40],
            weights: &[1, 1],
        };
        assert!((shares.farthest() - 10.0).abs() < 1e-9);
        assert!((shares.deviations(|_| 0.0) - 2.0).abs() < 1e-9);
        assert!(shares.deviations(|_| 0.2) < 1.0);
    }

    #[test]
    fn loads_are_measured_by_weight() {
        assert!((apart(&[4, 2, 2], &[2, 1, 1], 0.0) - 0.0).abs() < 1e-9);
        assert!((apart(&[5, 2, 2], &[2, 1, 1], 0.0) - 0.5).abs() < 1e-9);
        assert!((apart(&[4, 1], &[2, 1], 1.0) - 0.5).abs() < 1e-9);
        assert!(apart(&[9, 1], &[1, 1], 0.0) > 7.0);
    }
}
