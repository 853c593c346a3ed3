//! Upstreams in `castling status`: their peers, and where these come from.

use std::rc::{Rc, Weak};

use serde::{Deserialize, Serialize};

use crate::upstream::{PeerEntry, PeerStates};

use super::operator::Orders;
use super::source::SourceReport;
use super::{GenerationPeers, UpstreamPeers, Upstreams};

/// An upstream of the newest generation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UpstreamReport {
    pub name: String,
    pub peers: Vec<PeerReport>,
    /// Addresses that are listed, and that the operator has taken out.
    #[serde(default)]
    pub removed: Vec<String>,
}

/// A peer, as the master has told it its workers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PeerReport {
    pub slot: u32,
    pub address: String,
    /// Name by which it is listed.
    pub host: String,
    /// Weight that counts: the operator's, or the one that it is listed with.
    pub weight: u32,
    pub backup: bool,
    /// Requests under way there, from all workers.
    #[serde(default)]
    pub active: u32,
    /// What the operator has ordered, in words; empty where that is nothing.
    #[serde(default)]
    pub operator: String,
}

impl Upstreams {
    /// Upstreams of a generation.
    pub fn report(&self, generation: &GenerationPeers) -> Vec<UpstreamReport> {
        let states = PeerStates::new(Rc::clone(self.zone()), None);
        let orders = self.orders.borrow();
        let none = Orders::default();
        let report = |(name, peers): (&String, &UpstreamPeers)| {
            let orders = orders.get(name).unwrap_or(&none);
            let peers = peers.leased.list.peers.iter();
            UpstreamReport {
                name: name.clone(),
                peers: peers
                    .map(|entry| PeerReport::of(entry, orders, &states))
                    .collect(),
                removed: orders.removed(),
            }
        };
        generation.with_lists(|lists| lists.iter().map(report).collect())
    }

    /// Sources of peers that some generation has.
    pub fn sources(&self) -> Vec<SourceReport> {
        let sources = self.sources.borrow();
        let sources = sources.iter().filter_map(Weak::upgrade);
        sources.map(|source| source.report()).collect()
    }
}

impl PeerReport {
    fn of(entry: &PeerEntry, orders: &Orders, states: &PeerStates) -> Self {
        let state = states.of(entry.cell);
        Self {
            slot: entry.slot,
            address: entry.address.to_string(),
            host: entry.host.clone(),
            weight: state.ordered_weight().unwrap_or(entry.weight),
            backup: entry.is_backup,
            active: state.sum().active,
            operator: orders.said_of(&entry.address),
        }
    }
}
