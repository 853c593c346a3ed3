//! Maglev: a table of peers, in which each of them fills places in an order of its own (Eisenbud et al., "Maglev: A Fast and
//! Reliable Software Network Load Balancer", 2016; weighted as in Envoy).

use super::{KEY_SEED, hash};

pub(super) struct Maglev {
    /// Index of the peer at each place; empty: there is none.
    places: Box<[u32]>,
}

impl Maglev {
    pub(super) fn new(peers: &[(&str, u32)]) -> Self {
        let members = peers.iter().enumerate();
        let members = members.filter(|(_, (_, weight))| *weight > 0);
        let size = size(members.clone().count());
        let mut orders: Vec<Order> = members
            .map(|(index, (address, weight))| Order::new(index, address, *weight, size))
            .collect();
        let mut places = vec![FREE; size as usize];
        let heaviest = orders.iter().map(|order| order.weight).max().unwrap_or(0);
        let mut left = if orders.is_empty() { 0 } else { places.len() };
        while left > 0 {
            for order in &mut orders {
                // The heaviest takes a place in each round, others in as many as their weight is of it.
                order.credit += order.weight;
                if order.credit < heaviest || left == 0 {
                    continue;
                }
                order.credit -= heaviest;
                let place = order.find(|&place| places[place] == FREE);
                if let Some(place) = place {
                    places[place] = order.index;
                    left -= 1;
                }
            }
        }
        if orders.is_empty() {
            places.clear();
        }
        Self {
            places: places.into(),
        }
    }

    /// Peers from a key's place on.
    #[inline]
    pub(super) fn walk(&self, key: &[u8]) -> impl Iterator<Item = usize> + use<'_> {
        let at = match self.places.len() as u64 {
            0 => 0,
            size => (hash(key, KEY_SEED) % size) as usize,
        };
        let (before, after) = self.places.split_at(at);
        after.iter().chain(before).map(|&index| index as usize)
    }
}

/// The order in which a peer wants places: every place once, since the size of the table is prime.
struct Order {
    index: u32,
    weight: u64,
    credit: u64,
    next: u64,
    step: u64,
    size: u64,
}

impl Order {
    fn new(index: usize, address: &str, weight: u32, size: u64) -> Self {
        Self {
            index: index as u32,
            weight: weight.into(),
            credit: 0,
            next: hash(address.as_bytes(), OFFSET_SEED) % size,
            step: hash(address.as_bytes(), STEP_SEED) % (size - 1) + 1,
            size,
        }
    }
}

impl Iterator for Order {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let place = self.next;
        self.next += self.step;
        if self.next >= self.size {
            self.next -= self.size;
        }
        Some(place as usize)
    }
}

const OFFSET_SEED: u64 = 2;
const STEP_SEED: u64 = 3;
const FREE: u32 = u32::MAX;

/// Places for so many peers, a prime number: at least 65 for each, so that shares are even to 2 %.
fn size(peers: usize) -> u64 {
    // A size of its own for each number of peers would move all keys whenever a peer comes or goes.
    let fits = |&size: &u64| peers as u64 * 65 <= size;
    SIZES
        .into_iter()
        .find(fits)
        .unwrap_or(SIZES[SIZES.len() - 1])
}

/// Envoy's default, and ten and a hundred times as many.
pub(super) const SIZES: [u64; 3] = [65_537, 655_373, 6_553_577];
