//! How many connections each client address has open.

use std::cell::RefCell;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::num::NonZeroU32;

use crate::transport::address::Network;

/// Only addresses that have a connection open take room.
#[derive(Debug, Default)]
pub struct Addresses(RefCell<HashMap<Network, NonZeroU32>>);

impl Addresses {
    /// Counts one more connection; false, and nothing counted, where there are `limit` already.
    pub fn enter(&self, network: Network, limit: NonZeroU32) -> bool {
        match self.0.borrow_mut().entry(network) {
            Entry::Vacant(first) => {
                first.insert(NonZeroU32::MIN);
                true
            }
            Entry::Occupied(open) if *open.get() >= limit => false,
            Entry::Occupied(mut open) => {
                let more = open.get().saturating_add(1);
                open.insert(more);
                true
            }
        }
    }

    /// Counts a connection as ended.
    pub fn leave(&self, network: Network) {
        if let Entry::Occupied(mut open) = self.0.borrow_mut().entry(network) {
            match NonZeroU32::new(open.get().get() - 1) {
                Some(fewer) => drop(open.insert(fewer)),
                None => drop(open.remove()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        Network::of(text.parse().unwrap())
    }

    #[test]
    fn an_ipv6_client_has_a_network_and_an_ipv4_client_an_address() {
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:2:ffff::9"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
    }

    #[test]
    fn what_has_ended_makes_room_and_leaves_nothing() {
        let limit = NonZeroU32::new(2).unwrap();
        let addresses = Addresses::default();
        let (one, other) = (network("192.0.2.1"), network("192.0.2.2"));
        assert!(addresses.enter(one, limit) && addresses.enter(one, limit));
        assert!(!addresses.enter(one, limit));
        assert!(addresses.enter(other, limit));
        addresses.leave(one);
        assert!(addresses.enter(one, limit));
        for network in [one, one, other] {
            addresses.leave(network);
        }
        assert!(addresses.0.borrow().is_empty());
    }
}
