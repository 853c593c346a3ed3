//! Peers of an upstream as the master tells its workers, and what a worker makes of them.

use std::rc::Rc;

use http::HeaderValue;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::alternate::pair;
use super::{KeepAlive, NewPeer, Peer, PeerSet, PeerStates};
use crate::config;
use crate::exchange::PeerFacts;
use crate::transport::PeerAddress;
use crate::transport::tls::ClientTls;

/// Peers of one upstream, by slot, ascending.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PeerList {
    /// Place of the upstream's own state in the peers' memory.
    pub cell: u32,
    pub peers: Vec<PeerEntry>,
    /// Places in that memory of what the upstream's breaker counts, [`LIMIT_CELLS`] of them; none where it has no breaker.
    #[serde(default)]
    pub limits: Vec<u32>,
}

/// Cells of what a breaker counts, two counts in each.
pub const LIMIT_CELLS: usize = 2;

/// One peer. The master has made sure that no other of the upstream has its slot, and none of the gateway its cell.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerEntry {
    /// Number of the peer in its upstream, which it keeps over reloads.
    pub slot: u32,
    /// Place of its state in the peers' memory.
    pub cell: u32,
    pub address: PeerAddress,
    /// Name by which the peer was listed.
    pub host: String,
    /// Share of the requests in relation to the other peers.
    pub weight: u32,
    /// Whether the peer is for the time when no other is available.
    pub is_backup: bool,
    /// Settings of the peer from the config.
    pub settings: config::Peer,
}

/// Makes the peers of one upstream.
pub struct PeerFactory {
    tls: Option<ClientTls>,
    keep_alive: Rc<KeepAlive>,
    states: PeerStates,
    /// Requests that may be under way at a peer whose settings do not say.
    max_active: Option<u32>,
    /// Told when a request has ended at a peer with a limit.
    room: Rc<Notify>,
    /// Whether peers of one name are connected to at whichever family answers first.
    pairs_families: bool,
}

impl PeerFactory {
    pub fn new(
        upstream: &config::Upstream,
        tls: Option<ClientTls>,
        keep_alive: Rc<KeepAlive>,
        states: &PeerStates,
    ) -> Self {
        Self {
            tls,
            keep_alive,
            states: states.clone(),
            max_active: upstream.max_active,
            room: Rc::default(),
            pairs_families: !upstream.happy_eyeballs.is_zero(),
        }
    }

    /// Told when a request has ended at a peer with a limit.
    pub fn room(&self) -> &Rc<Notify> {
        &self.room
    }

    /// Makes the peers of a list. The error is a line for a person.
    pub fn peers(&self, list: &PeerList) -> Result<Vec<Peer>, String> {
        let made = list.peers.iter().map(|entry| self.peer(entry));
        let peers = made.collect::<Result<Vec<Peer>, String>>()?;
        if self.pairs_families {
            pair(peers.iter());
        }
        Ok(peers)
    }

    /// Makes the set of a list that takes the place of another. Peers that stay are the same ones, with their kept connections. The error is a line for a person.
    pub fn set(&self, list: &PeerList, before: &PeerSet) -> Result<Rc<PeerSet>, String> {
        let mut peers = Vec::with_capacity(list.peers.len());
        for entry in &list.peers {
            let stays = before.by_slot(entry.slot).filter(|peer| stays(peer, entry));
            peers.push(match stays {
                Some(peer) => {
                    peer.reconfigure(entry.weight, entry.is_backup);
                    Rc::clone(peer)
                }
                None => Rc::new(self.peer(entry)?),
            });
        }
        if self.pairs_families {
            pair(peers.iter().map(Rc::as_ref));
        }
        Ok(PeerSet::new(peers))
    }

    fn peer(&self, entry: &PeerEntry) -> Result<Peer, String> {
        let name = name(entry);
        let host =
            HeaderValue::from_str(name).map_err(|_| format!("peer {name}: no valid host"))?;
        let max_active = entry.settings.max_active.or(self.max_active);
        let new = NewPeer {
            slot: entry.slot,
            address: entry.address.clone(),
            host,
            tls: self.tls.as_ref().map(|tls| tls.peer(name)).transpose()?,
            weight: entry.weight,
            is_backup: entry.is_backup,
            zone: entry.settings.zone.as_deref().map(Rc::from),
            route: entry.settings.route.as_deref().map(Rc::from),
            facts: PeerFacts::new(&entry.host, &entry.settings.tags),
            max_active: max_active.unwrap_or(0),
            room: max_active.map(|_| Rc::clone(&self.room)),
            state: self.states.of(entry.cell),
        };
        Ok(Peer::new(new, &self.keep_alive))
    }
}

/// Whether the peer is the one of this entry.
fn stays(peer: &Peer, entry: &PeerEntry) -> bool {
    peer.slot == entry.slot
        && peer.address == entry.address
        && peer.zone.as_deref() == entry.settings.zone.as_deref()
        && peer.route.as_deref() == entry.settings.route.as_deref()
        && peer.facts.is_of(&entry.host, &entry.settings.tags)
        && peer.host == name(entry)
}

/// Name of a peer for `Host` and for its certificate.
fn name(entry: &PeerEntry) -> &str {
    match entry.address {
        PeerAddress::Inet(_) => &entry.host,
        PeerAddress::Unix(_) => NAME_OF_UNIX,
    }
}

/// Name of the peer behind a Unix socket, which is on this host (nginx's as well).
const NAME_OF_UNIX: &str = "localhost";

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::num::NonZero;
    use std::time::Duration;

    use super::*;
    use crate::metrics::Count;

    fn entry(slot: u32, port: u16) -> PeerEntry {
        let settings = config::Peer {
            address: format!("app.test:{port}"),
            srv: false,
            weight: NonZero::<u16>::MIN,
            backup: false,
            zone: None,
            route: None,
            tags: Vec::new(),
            max_active: None,
        };
        PeerEntry {
            slot,
            cell: slot + 1,
            address: SocketAddr::from(([127, 0, 0, 1], port)).into(),
            host: settings.address.clone(),
            weight: 1,
            is_backup: false,
            settings,
        }
    }

    fn list(peers: &[PeerEntry]) -> PeerList {
        PeerList {
            cell: 0,
            peers: peers.to_vec(),
            limits: Vec::new(),
        }
    }

    fn factory() -> PeerFactory {
        PeerFactory {
            tls: None,
            keep_alive: KeepAlive::new("u", 8, Duration::MAX, Count::NOWHERE),
            states: PeerStates::private().unwrap(),
            max_active: None,
            room: Rc::default(),
            pairs_families: true,
        }
    }

    #[test]
    fn peers_that_stay_are_the_same_ones() {
        let factory = factory();
        let first = list(&[entry(0, 80), entry(1, 81), entry(2, 82)]);
        let first = factory.set(&first, &PeerSet::new([])).unwrap();
        let moved = PeerEntry {
            slot: 1,
            ..entry(1, 9)
        };
        let heavier = PeerEntry {
            weight: 5,
            ..entry(2, 82)
        };
        let second = list(&[entry(0, 80), moved, heavier, entry(7, 83)]);
        let second = factory.set(&second, &first).unwrap();
        let same = |slot| match (first.by_slot(slot), second.by_slot(slot)) {
            (Some(one), Some(other)) => Rc::ptr_eq(one, other),
            _ => false,
        };
        assert_eq!([0, 1, 2, 7].map(same), [true, false, true, false]);
        let weight = second.by_slot(2).map(|peer| peer.weight.get());
        assert_eq!(weight, Some(5), "its state and connections stay");
        let none = factory.set(&list(&[]), &second).unwrap();
        assert!(none.as_slice().is_empty());
    }

    #[test]
    fn a_name_that_no_field_can_have_is_refused_by_name() {
        let bad = PeerEntry {
            host: "a\nb:80".to_owned(),
            ..entry(0, 80)
        };
        let refused = factory().peers(&list(&[bad]));
        assert_eq!(refused.err().unwrap(), "peer a\nb:80: no valid host");
    }
}
