//! Consistent hashing: requests with the same key go to the same peer, and when a peer comes or goes, hardly any but its own keys
//! move.

mod ketama;
mod maglev;

use std::hash::Hasher;

use siphasher::sip::SipHasher13;

use crate::config::HashMethod;
use ketama::Ketama;
use maglev::Maglev;

/// Keys of all peers of a set.
pub(super) struct HashTable {
    layout: Layout,
    /// Peers that have keys, by their own hash, for the rare keys whose walk finds nobody.
    members: Box<[Member]>,
}

enum Layout {
    Ketama(Ketama),
    Maglev(Maglev),
}

struct Member {
    index: u32,
    hash: u64,
}

impl HashTable {
    /// Address of each peer, as the config has it, and its weight; 0: has no keys. Peers that cannot be chosen for a while keep
    /// their keys: others are chosen in their place, and nothing moves for good.
    pub(super) fn new(method: HashMethod, peers: &[(&str, u32)]) -> Self {
        let members = peers.iter().enumerate();
        let members = members.filter(|(_, (_, weight))| *weight > 0);
        Self {
            members: members
                .map(|(index, (address, _))| Member {
                    index: index as u32,
                    hash: hash(address.as_bytes(), MEMBER_SEED),
                })
                .collect(),
            layout: match method {
                HashMethod::Ketama => Layout::Ketama(Ketama::new(peers)),
                HashMethod::Maglev => Layout::Maglev(Maglev::new(peers)),
            },
        }
    }

    /// The first allowed peer for the key.
    #[inline]
    pub(super) fn choose(&self, key: &[u8], allows: impl Fn(usize) -> bool) -> Option<usize> {
        let found = match &self.layout {
            Layout::Ketama(table) => table.walk(key).take(STEPS).find(|&index| allows(index)),
            Layout::Maglev(table) => table.walk(key).take(STEPS).find(|&index| allows(index)),
        };
        found.or_else(|| self.highest(key, allows))
    }

    /// Rendezvous hashing among those that are allowed, where they are few: O(n).
    #[cold]
    fn highest(&self, key: &[u8], allows: impl Fn(usize) -> bool) -> Option<usize> {
        let key = hash(key, KEY_SEED);
        let allowed = self
            .members
            .iter()
            .filter(|member| allows(member.index as usize));
        let highest = allowed.max_by_key(|member| mixed(member.hash ^ key))?;
        Some(highest.index as usize)
    }
}

/// Places of a table that are looked at for an allowed peer. With half of the peers down, one key in 2^64 has none of them.
const STEPS: usize = 64;

/// Hash that is the same in all workers, gateways and versions, which are to agree where a key belongs.
fn hash(bytes: &[u8], seed: u64) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(seed, 0);
    hasher.write(bytes);
    hasher.finish()
}

const KEY_SEED: u64 = 0;
const MEMBER_SEED: u64 = 1;

/// Every bit of the number depends on every bit of what it was (the finalizer of SplitMix64).
fn mixed(mut bits: u64) -> u64 {
    bits = (bits ^ bits >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^ bits >> 31
}

#[cfg(test)]
mod tests;
