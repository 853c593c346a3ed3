//! Orders of the operator for the peers of an upstream (`castling upstream`): they hold from one generation to the next, and
//! over upgrades, until they are taken back.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;

use serde::{Deserialize, Serialize};

use crate::config;
use crate::transport::PeerAddress;
use crate::upstream::{PeerEntry, PeerStates, Standing};

use super::table::Resolved;

/// Order of the operator for an upstream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerOrder {
    /// Adds a peer at this address.
    Add {
        address: PeerAddress,
        weight: NonZero<u16>,
        backup: bool,
    },
    /// No longer a peer, wherever it is listed.
    Remove(PeerAddress),
    /// No new requests for it; `down`: none at all, also none that is bound to it.
    Drain(PeerAddress),
    Down(PeerAddress),
    /// Uses the peer as its checks say. `force`: it is available, whatever they say.
    Up {
        address: PeerAddress,
        force: bool,
    },
    /// Weight in the place of the one that it is listed with. `None`: that one again.
    Weight {
        address: PeerAddress,
        weight: Option<NonZero<u16>>,
    },
}

/// Orders for one upstream that hold.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Orders {
    added: BTreeMap<PeerAddress, Added>,
    removed: BTreeSet<PeerAddress>,
    standings: BTreeMap<PeerAddress, Stands>,
    weights: BTreeMap<PeerAddress, NonZero<u16>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Added {
    weight: NonZero<u16>,
    backup: bool,
}

/// Standing that was ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Stands {
    Draining,
    Down,
    Up,
}

/// Peers that one upstream's operator may add.
const ADDED_AT_MOST: usize = 4096;

impl PeerOrder {
    pub fn address(&self) -> &PeerAddress {
        match self {
            Self::Add { address, .. }
            | Self::Remove(address)
            | Self::Drain(address)
            | Self::Down(address)
            | Self::Up { address, .. }
            | Self::Weight { address, .. } => address,
        }
    }

    /// Tells the log of an order that was taken, or why it was refused.
    pub fn tell(&self, upstream: &str, refused: Option<&str>) {
        let none = (None, None, None);
        let (order, (weight, backup, force)) = match self {
            Self::Add { weight, backup, .. } => ("add", (Some(*weight), Some(*backup), None)),
            Self::Remove(_) => ("remove", none),
            Self::Drain(_) => ("drain", none),
            Self::Down(_) => ("down", none),
            Self::Up { force, .. } => ("up", (None, None, Some(*force))),
            Self::Weight { weight, .. } => ("weight", (*weight, None, None)),
        };
        let is_listed = matches!(self, Self::Weight { weight: None, .. });
        let weight = weight.map(|weight| weight.to_string());
        let weight = weight.as_deref().or(is_listed.then_some("listed"));
        let peer = self.address();
        match refused {
            None => {
                tracing::info!(upstream, order, %peer, weight, backup, force, "the operator's order holds")
            }
            Some(reason) => {
                tracing::warn!(upstream, order, %peer, weight, backup, force, reason, "an order of the operator's is refused");
            }
        }
    }
}

impl Orders {
    /// Takes an order in. `peers`: addresses of those that there are. `is_listed`: whether this one is listed, and there not by
    /// the operator's order alone. The error is a line for a person.
    pub fn take(
        &mut self,
        order: &PeerOrder,
        peers: &[PeerAddress],
        is_listed: bool,
    ) -> Result<(), String> {
        let is_there = peers.contains(order.address());
        let none_such = |address: &PeerAddress| {
            let mut known: Vec<String> = peers.iter().take(8).map(PeerAddress::to_string).collect();
            if peers.len() > known.len() {
                known.push("...".to_owned());
            }
            format!(
                "there is no peer {address}; expected one of {}",
                known.join(", ")
            )
        };
        match order {
            PeerOrder::Add {
                address,
                weight,
                backup,
            } => {
                if is_there {
                    return Err(format!("there is a peer {address} already"));
                }
                if self.added.len() >= ADDED_AT_MOST {
                    return Err(format!("{ADDED_AT_MOST} peers were added already"));
                }
                // A peer that is listed elsewhere comes back as it is there, too.
                self.removed.remove(address);
                let (weight, backup) = (*weight, *backup);
                self.added.insert(address.clone(), Added { weight, backup });
            }
            PeerOrder::Remove(address) if is_there => {
                self.forget(address);
                if is_listed {
                    self.removed.insert(address.clone());
                }
            }
            PeerOrder::Drain(address) if is_there => self.stand(address, Some(Stands::Draining)),
            PeerOrder::Down(address) if is_there => self.stand(address, Some(Stands::Down)),
            PeerOrder::Up { address, force } if is_there => {
                self.stand(address, force.then_some(Stands::Up));
            }
            PeerOrder::Weight { address, weight } if is_there => match weight {
                Some(weight) => drop(self.weights.insert(address.clone(), *weight)),
                None => drop(self.weights.remove(address)),
            },
            PeerOrder::Remove(address)
            | PeerOrder::Drain(address)
            | PeerOrder::Down(address)
            | PeerOrder::Up { address, .. }
            | PeerOrder::Weight { address, .. } => return Err(none_such(address)),
        }
        Ok(())
    }

    fn forget(&mut self, address: &PeerAddress) {
        self.added.remove(address);
        self.standings.remove(address);
        self.weights.remove(address);
    }

    fn stand(&mut self, address: &PeerAddress, stands: Option<Stands>) {
        match stands {
            Some(stands) => drop(self.standings.insert(address.clone(), stands)),
            None => drop(self.standings.remove(address)),
        }
    }

    /// The peers that are left of those, with those that were added.
    pub fn applied(&self, mut peers: Vec<Resolved>) -> Vec<Resolved> {
        peers.retain(|peer| !self.removed.contains(&peer.address));
        for (address, added) in &self.added {
            if peers.iter().any(|peer| peer.address == *address) {
                continue;
            }
            let settings = config::Peer {
                address: address.to_string(),
                srv: false,
                weight: added.weight,
                backup: added.backup,
                zone: None,
                route: None,
                tags: Vec::new(),
                max_active: None,
            };
            peers.push(Resolved {
                address: address.clone(),
                host: settings.address.clone(),
                weight: added.weight.get().into(),
                is_backup: added.backup,
                settings,
            });
        }
        peers
    }

    /// Writes what is ordered for these peers where their state is. True when something is other than it was.
    pub fn write(&self, peers: &[PeerEntry], states: &PeerStates) -> bool {
        let mut has_changed = false;
        for peer in peers {
            let state = states.of(peer.cell);
            let standing = match self.standings.get(&peer.address) {
                None => Standing::Usual,
                Some(Stands::Draining) => Standing::Draining,
                Some(Stands::Down) => Standing::Down,
                Some(Stands::Up) => Standing::Up,
            };
            let weight = self
                .weights
                .get(&peer.address)
                .map(|it| u32::from(it.get()));
            if (state.standing(), state.ordered_weight()) != (standing, weight) {
                state.order(standing, weight);
                has_changed = true;
            }
        }
        has_changed
    }

    /// Words for what is ordered for a peer; empty where nothing is.
    pub fn said_of(&self, address: &PeerAddress) -> String {
        let mut said = Vec::new();
        if self.added.contains_key(address) {
            said.push("added".to_owned());
        }
        match self.standings.get(address) {
            None => {}
            Some(Stands::Draining) => said.push("draining".to_owned()),
            Some(Stands::Down) => said.push("down".to_owned()),
            Some(Stands::Up) => said.push("up, whatever its checks say".to_owned()),
        }
        if let Some(weight) = self.weights.get(address) {
            said.push(format!("weight {weight}"));
        }
        said.join(", ")
    }

    /// Addresses that are listed and were taken out.
    pub fn removed(&self) -> Vec<String> {
        self.removed.iter().map(PeerAddress::to_string).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    fn address(port: u16) -> PeerAddress {
        SocketAddr::from(([10, 0, 0, 1], port)).into()
    }

    fn resolved(port: u16) -> Resolved {
        let orders = Orders {
            added: BTreeMap::from([(
                address(port),
                Added {
                    weight: NonZero::<u16>::MIN,
                    backup: false,
                },
            )]),
            ..Orders::default()
        };
        orders.applied(Vec::new()).remove(0)
    }

    #[test]
    fn peers_are_added_and_taken_out_until_they_are_added_again() {
        let mut orders = Orders::default();
        let ports = |orders: &Orders| -> Vec<PeerAddress> {
            let peers = orders.applied(vec![resolved(1), resolved(2)]);
            peers.into_iter().map(|peer| peer.address).collect()
        };
        let add = |port| PeerOrder::Add {
            address: address(port),
            weight: NonZero::new(3).unwrap(),
            backup: true,
        };
        orders.take(&add(3), &ports(&orders), false).unwrap();
        assert_eq!(ports(&orders), [1, 2, 3].map(address));
        let again = orders.take(&add(3), &ports(&orders), false).unwrap_err();
        assert_eq!(again, "there is a peer 10.0.0.1:3 already");
        for (port, is_listed) in [(3, false), (1, true)] {
            let remove = PeerOrder::Remove(address(port));
            orders.take(&remove, &ports(&orders), is_listed).unwrap();
        }
        assert_eq!(
            orders.removed(),
            ["10.0.0.1:1"],
            "the other was nowhere else"
        );
        assert_eq!(ports(&orders), [address(2)]);
        let gone = PeerOrder::Drain(address(1));
        let gone = orders.take(&gone, &ports(&orders), true).unwrap_err();
        assert_eq!(
            gone,
            "there is no peer 10.0.0.1:1; expected one of 10.0.0.1:2"
        );
        orders.take(&add(1), &ports(&orders), true).unwrap();
        assert_eq!(ports(&orders), [1, 2].map(address));
    }

    #[test]
    fn nothing_is_left_of_a_peer_that_was_added_and_taken_out() {
        let (mut orders, peers) = (Orders::default(), [address(3)]);
        let add = PeerOrder::Add {
            address: address(3),
            weight: NonZero::<u16>::MIN,
            backup: false,
        };
        orders.take(&add, &[], false).unwrap();
        for order in [PeerOrder::Drain(address(3)), PeerOrder::Remove(address(3))] {
            orders.take(&order, &peers, false).unwrap();
        }
        assert_eq!(orders, Orders::default());
    }

    #[test]
    fn what_is_ordered_is_written_where_the_state_is_and_taken_back() {
        let states = PeerStates::private().unwrap();
        let peer = resolved(1);
        let entry = PeerEntry {
            slot: 0,
            cell: 1,
            address: peer.address.clone(),
            host: peer.host,
            weight: 1,
            is_backup: false,
            settings: peer.settings,
        };
        let peers = [entry];
        let listed = [address(1)];
        let mut orders = Orders::default();
        assert!(!orders.write(&peers, &states));
        let weight = |weight| PeerOrder::Weight {
            address: address(1),
            weight: NonZero::new(weight),
        };
        orders
            .take(&PeerOrder::Drain(address(1)), &listed, true)
            .unwrap();
        orders.take(&weight(7), &listed, true).unwrap();
        assert!(orders.write(&peers, &states) && !orders.write(&peers, &states));
        let state = states.of(1);
        assert_eq!(
            (state.standing(), state.ordered_weight()),
            (Standing::Draining, Some(7))
        );
        assert_eq!(orders.said_of(&address(1)), "draining, weight 7");
        let up = PeerOrder::Up {
            address: address(1),
            force: false,
        };
        orders.take(&up, &listed, true).unwrap();
        orders.take(&weight(0), &listed, true).unwrap();
        assert!(orders.write(&peers, &states));
        assert_eq!(
            (state.standing(), state.ordered_weight()),
            (Standing::Usual, None)
        );
    }
}
