//! The ring: where each peer stands on the circle of 64-bit hashes, many times over.

use castling_sdk::prelude::*;
use xxhash_rust::xxh64::xxh64;

/// Points on a circle. A key belongs to the peer of the first point at or after its hash.
pub(crate) struct Ring {
    /// In their order on the circle.
    points: Box<[Point]>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    hash: u64,
    peer_idx: u32,
}

impl Ring {
    /// `points` for each unit of weight. A peer's points depend on its address and weight alone (until there are more
    /// than [`POINTS_LIMIT`]), so that a peer's coming or going moves no key but those that it gains or loses.
    pub(crate) fn new(peers: &Peers, points: u32) -> Self {
        let counts = counts(peers.iter().map(|peer| peer.weight), points);
        let mut ring = Vec::with_capacity(counts.iter().sum::<u64>() as usize);
        for (peer, (peer_idx, count)) in peers.iter().zip((0..).zip(counts)) {
            let address = peer.address();
            ring.extend((0..count).map(|seed| Point {
                hash: xxh64(address.as_bytes(), seed),
                peer_idx,
            }));
        }
        ring.sort_unstable();
        Self {
            points: ring.into(),
        }
    }

    /// Peers by index, once round from where the key stands; each as often as it has points.
    pub(crate) fn walk(&self, key: &[u8]) -> impl Iterator<Item = usize> {
        let hash = xxh64(key, KEY_SEED);
        let start = self.points.partition_point(|point| point.hash < hash);
        let (before, after) = self.points.split_at(start);
        let points = after.iter().chain(before);
        points.map(|point| point.peer_idx as usize)
    }
}

/// How many points each peer has: at least one, and beyond [`POINTS_LIMIT`] all divided by a power of two.
fn counts(weights: impl Iterator<Item = u32>, points: u32) -> Vec<u64> {
    let mut counts: Vec<u64> = weights
        .map(|weight| u64::from(weight) * u64::from(points))
        .collect();
    while counts.iter().sum::<u64>() > POINTS_LIMIT && counts.iter().any(|&count| count > 1) {
        counts
            .iter_mut()
            .for_each(|count| *count = (*count / 2).max(1));
    }
    counts
}

/// 16 bytes each. So many are hashed and sorted well within a hook's default CPU time.
const POINTS_LIMIT: u64 = 100_000;

/// None that a point has, so that a key that is an address does not stand where the address does.
const KEY_SEED: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_count_and_many_points_are_too_many() {
        assert_eq!(counts([1, 2, 5].into_iter(), 160), [160, 320, 800]);
        assert_eq!(counts([65_535, 1].into_iter(), 160), [81_918, 1]);
        assert_eq!(counts([1, 1].into_iter(), 50_000), [50_000, 50_000]);
        assert_eq!(counts([1, 1].into_iter(), 50_001), [25_000, 25_000]);
        let many = counts(std::iter::repeat_n(1, 1_000), 160);
        assert_eq!(many, [80; 1_000]);
    }
}
