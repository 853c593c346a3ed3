//! The gateway's peers: each has a slot in its upstream and a cell in the peers' memory, and finds both again when it comes
//! back.

use std::cell::RefCell;
use std::rc::Rc;

use crate::config;
use crate::transport::PeerAddress;
use crate::upstream::{LIMIT_CELLS, PeerEntry, PeerList, PeerStates};
use crate::zone::{PeersZone, now_ns};

use super::numbers::{Given, Key, Numbers, NumbersOffer};

/// A peer that an upstream is to have.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    pub address: PeerAddress,
    /// Name by which it is listed.
    pub host: String,
    /// Share of the requests in relation to the other peers.
    pub weight: u32,
    /// Whether it is for the time when no other is available.
    pub is_backup: bool,
    pub settings: config::Peer,
}

/// Numbers of a gateway's peers, over its generations, and the memory that they are places in.
pub struct PeerTable {
    numbers: RefCell<Numbers>,
    zone: Rc<PeersZone>,
}

/// List whose peers keep their numbers until this is dropped.
pub struct LeasedList {
    pub list: PeerList,
    /// Leases of the list's numbers.
    leases: Vec<PeerLease>,
}

/// Numbers of an upstream and of its peers, in use until this is dropped.
pub struct PeerLease {
    upstream: String,
    keys: Vec<Key>,
    table: Rc<PeerTable>,
}

impl PeerTable {
    pub fn new(zone: Rc<PeersZone>) -> Rc<Self> {
        Self::over(zone, Numbers::new(PeersZone::CELLS))
    }

    fn over(zone: Rc<PeersZone>, numbers: Numbers) -> Rc<Self> {
        Rc::new(Self {
            numbers: RefCell::new(numbers),
            zone,
        })
    }

    /// The table that another master hands over with this memory, and what that has in use.
    pub fn inherit(zone: Rc<PeersZone>, offer: NumbersOffer) -> (Rc<Self>, Vec<PeerLease>) {
        let (numbers, in_use) = Numbers::inherit(offer, PeersZone::CELLS);
        let table = Self::over(zone, numbers);
        let lease = |(upstream, keys)| PeerLease {
            upstream,
            keys,
            table: Rc::clone(&table),
        };
        let leases = in_use.into_iter().map(lease).collect();
        (table, leases)
    }

    /// Numbers for the peers of an upstream; two of the same name and address are one, the first. A peer that gets a cell
    /// which was not its own finds nothing in it, and one that comes to others is noted to have come up now. The error is a
    /// line for a person.
    pub fn lease(
        self: &Rc<Self>,
        upstream: &str,
        peers: Vec<Resolved>,
    ) -> Result<LeasedList, String> {
        let key = |peer: &Resolved| (Box::from(&*peer.host), peer.address.clone());
        let keys: Vec<Key> = peers.iter().map(key).collect();
        let taken = self.numbers.borrow_mut().take(upstream, &keys, now_ns())?;
        let mut lease = PeerLease {
            upstream: upstream.to_owned(),
            keys: Vec::with_capacity(keys.len()),
            table: Rc::clone(self),
        };
        let mut entries = Vec::with_capacity(keys.len());
        for ((peer, key), given) in peers.into_iter().zip(keys).zip(&taken.peers) {
            if let Some(given) = given {
                lease.keys.push(key);
                entries.push(entry(peer, given));
            }
        }
        let all = taken.peers.iter().flatten().chain([&taken.own]);
        for given in all.filter(|given| given.is_new) {
            let made = self.zone.take_cells(given.cell + 1);
            made.map_err(|error| error.to_string())?;
            self.zone.clear_cell(given.cell);
        }
        let states = PeerStates::new(Rc::clone(&self.zone), None);
        for given in taken.peers.iter().flatten().filter(|given| given.joins) {
            states.of(given.cell).comes_up(now_ns());
        }
        entries.sort_by_key(|entry| entry.slot);
        Ok(LeasedList {
            list: PeerList {
                cell: taken.own.cell,
                peers: entries,
                limits: Vec::new(),
            },
            leases: vec![lease],
        })
    }

    /// The same, with cells for what the upstream's breaker counts.
    pub fn lease_limited(
        self: &Rc<Self>,
        upstream: &str,
        peers: Vec<Resolved>,
    ) -> Result<LeasedList, String> {
        let mut leased = self.lease(upstream, peers)?;
        for number in 0..LIMIT_CELLS {
            // No upstream can be named so.
            let counts = self.lease(&format!("{upstream}/limits/{number}"), Vec::new())?;
            leased.list.limits.push(counts.list.cell);
            leased.leases.extend(counts.leases);
        }
        Ok(leased)
    }

    /// Everything that another master needs to go on with the same numbers. Until [`Self::keep`], this table gives out
    /// such as the other one does not.
    pub fn offer(&self) -> NumbersOffer {
        self.numbers.borrow_mut().offer()
    }

    /// Takes an offer back of which nothing came.
    pub fn keep(&self) {
        self.numbers.borrow_mut().keep();
    }

    /// Memory that the cells are places in.
    pub fn zone(&self) -> &Rc<PeersZone> {
        &self.zone
    }
}

fn entry(peer: Resolved, given: &Given) -> PeerEntry {
    PeerEntry {
        slot: given.slot,
        cell: given.cell,
        address: peer.address,
        host: peer.host,
        weight: peer.weight,
        is_backup: peer.is_backup,
        settings: peer.settings,
    }
}

impl Drop for PeerLease {
    fn drop(&mut self) {
        let mut numbers = self.table.numbers.borrow_mut();
        numbers.release(&self.upstream, &self.keys, now_ns());
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::num::NonZero;
    use std::sync::atomic::Ordering::Relaxed;

    use super::*;

    fn peer(number: u8) -> Resolved {
        let settings = config::Peer {
            address: "app.test:80".to_owned(),
            srv: false,
            weight: NonZero::<u16>::MIN,
            backup: false,
            zone: None,
            route: None,
            tags: Vec::new(),
            max_active: None,
        };
        Resolved {
            address: SocketAddr::from(([10, 0, 0, number], 80)).into(),
            host: settings.address.clone(),
            weight: 1,
            is_backup: false,
            settings,
        }
    }

    fn table() -> Rc<PeerTable> {
        PeerTable::new(Rc::new(PeersZone::create().unwrap()))
    }

    #[test]
    fn what_is_known_of_a_peer_stays_over_lists_and_masters() {
        let old = table();
        let first = old.lease("u", vec![peer(1), peer(2)]).unwrap();
        let of_second = first.list.peers[1].clone();
        let word = |table: &PeerTable, cell| {
            let record = table.zone.record(cell).unwrap();
            record.check.load(Relaxed)
        };
        let record = old.zone.record(of_second.cell).unwrap();
        record.check.store(7, Relaxed);
        let second = old.lease("u", vec![peer(3), peer(2)]).unwrap();
        drop(first);
        assert_eq!(second.list.peers[0], of_second, "by slot");
        assert_eq!(word(&old, of_second.cell), 7);

        let (new, in_use) = PeerTable::inherit(Rc::clone(&old.zone), old.offer());
        assert_eq!(in_use.len(), 1);
        let third = new.lease("u", vec![peer(2), peer(4)]).unwrap();
        assert_eq!(third.list.peers[0], of_second);
        assert_eq!(third.list.cell, second.list.cell);
        assert_eq!(word(&new, of_second.cell), 7);
        assert_eq!(word(&new, third.list.peers[1].cell), 0);
    }

    #[test]
    fn a_peer_that_comes_to_others_has_come_up_just_now() {
        let table = table();
        let first = table.lease("u", vec![peer(1)]).unwrap();
        let second = table.lease("u", vec![peer(1), peer(2)]).unwrap();
        let came_up = |list: &LeasedList| -> Vec<bool> {
            let record = |cell| table.zone.record(cell).unwrap();
            let peers = list.list.peers.iter();
            let times = peers.map(|peer| record(peer.cell).up_since_ns.load(Relaxed));
            times.map(|time_ns| time_ns > 0).collect()
        };
        assert_eq!(came_up(&first), [false], "at the start all are new");
        assert_eq!(came_up(&second), [false, true]);
    }

    #[test]
    fn what_a_breaker_counts_has_cells_of_its_own_that_stay() {
        let old = table();
        let of_peers = old.lease("u", vec![peer(1)]).unwrap();
        let first = old.lease_limited("u", vec![peer(1)]).unwrap();
        assert_eq!(of_peers.list.peers, first.list.peers);
        let limits = first.list.limits.clone();
        let peers = [first.list.cell, first.list.peers[0].cell];
        assert!(limits.len() == LIMIT_CELLS && !limits.iter().any(|it| peers.contains(it)));
        let (new, _in_use) = PeerTable::inherit(Rc::clone(&old.zone), old.offer());
        let second = new.lease_limited("u", vec![peer(1)]).unwrap();
        assert_eq!(second.list, first.list);
    }

    #[test]
    fn a_peer_that_is_listed_twice_is_one() {
        let table = table();
        let list = table.lease("u", vec![peer(1), peer(1)]).unwrap().list;
        assert_eq!(list.peers.len(), 1);
    }
}
