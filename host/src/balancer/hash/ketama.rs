//! Ketama: each peer stands at many points of a circle, and a key belongs to the first point at or after its own hash.
//!
//! Points and keys are hashed as nginx and the memcached clients of Perl do it.

use crc32fast::Hasher;

pub(super) struct Ketama {
    /// In the order of the circle.
    points: Box<[Point]>,
    /// For each value of a hash's upper bits, where its points begin.
    starts: Box<[u32]>,
    /// How far a hash is shifted for these bits.
    shift: u32,
}

#[derive(Clone, Copy)]
struct Point {
    hash: u32,
    index: u32,
}

impl Ketama {
    pub(super) fn new(peers: &[(&str, u32)]) -> Self {
        let total = peers.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let counts = peers.iter().map(|(_, weight)| points_of(*weight, total));
        // Some two points for each start: a look at one or two is quicker than a search among all.
        let count = counts.clone().sum::<u64>();
        let shift = u32::BITS - (count / 2).max(2).next_power_of_two().ilog2();
        let mut points = Vec::with_capacity(count as usize);
        for (index, ((address, _), count)) in (0..).zip(peers.iter().zip(counts)) {
            points.extend(hashes(address, count).map(|hash| Point { hash, index }));
        }
        let starts = starts(&points, shift);
        Self {
            points: sorted(&points, &starts, shift),
            starts,
            shift,
        }
    }

    /// Peers from a key's point on, round the circle.
    #[inline]
    pub(super) fn walk(&self, key: &[u8]) -> impl Iterator<Item = usize> + use<'_> {
        let hash = crc32fast::hash(key);
        let start = self.starts[(hash >> self.shift) as usize] as usize;
        let rest = self.points[start..].iter();
        let at = start + rest.take_while(|point| point.hash < hash).count();
        let (before, after) = self.points.split_at(at);
        after.iter().chain(before).map(|point| point.index as usize)
    }
}

/// Where the points of each value of the upper bits begin.
fn starts(points: &[Point], shift: u32) -> Box<[u32]> {
    let mut starts = vec![0; 1 << (u32::BITS - shift)];
    for point in points {
        starts[(point.hash >> shift) as usize] += 1;
    }
    let mut sum = 0;
    for start in &mut starts {
        sum += std::mem::replace(start, sum);
    }
    starts.into()
}

/// Points in their order: each is laid where those of its upper bits begin, and they are few. Hashes are spread evenly, so that
/// this takes a fifth of the time of sorting.
fn sorted(points: &[Point], starts: &[u32], shift: u32) -> Box<[Point]> {
    let mut sorted = vec![Point { hash: 0, index: 0 }; points.len()];
    let mut ends: Box<[u32]> = starts.into();
    for point in points {
        let end = &mut ends[(point.hash >> shift) as usize];
        sorted[*end as usize] = *point;
        *end += 1;
    }
    for (start, end) in starts.iter().zip(&ends) {
        let few = &mut sorted[*start as usize..*end as usize];
        few.sort_unstable_by_key(|point| (point.hash, point.index));
    }
    sorted.into()
}

/// Points of a peer of this weight (nginx: 160 for each unit).
fn points_of(weight: u32, total: u64) -> u64 {
    let points = u64::from(weight) * POINTS;
    match total * POINTS > MOST_POINTS {
        false => points,
        true => (u64::from(weight) * MOST_POINTS / total).max(u64::from(weight.min(1))),
    }
}

const POINTS: u64 = 160;

/// Points of a circle, 8 bytes each. Weights that would make more are cut down, beyond what nginx is used for: 6,500 peers of
/// weight 1.
const MOST_POINTS: u64 = 1 << 20;

/// `crc32(HOST \0 PORT PREVIOUS_HASH)`.
fn hashes(address: &str, count: u64) -> impl Iterator<Item = u32> {
    let (host, port) = host_and_port(address);
    let mut base = Hasher::new();
    base.update(host.as_bytes());
    base.update(b"\0");
    base.update(port.as_bytes());
    let mut previous = 0_u32;
    (0..count).map(move |_| {
        let mut hasher = base.clone();
        hasher.update(&previous.to_le_bytes());
        previous = hasher.finalize();
        previous
    })
}

/// A socket's path is a host without a port.
fn host_and_port(address: &str) -> (&str, &str) {
    match (address.strip_prefix("unix:"), address.rsplit_once(':')) {
        (Some(path), _) => (path, ""),
        (None, Some((host, port))) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
            (host, port)
        }
        (None, _) => (address, ""),
    }
}
