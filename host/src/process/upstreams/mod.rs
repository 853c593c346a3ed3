//! Upstreams, as the master knows them: which peers they have at this moment, by which numbers these are known, and the
//! memory of their state.

mod lookup;
mod numbers;
mod table;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use crate::config::Config;
use crate::upstream::{PeerList, PeerStates};
use crate::zone::PeersZone;

use super::upgrade::InheritedPeers;
use table::{LeasedList, PeerLease, PeerTable};

pub use numbers::NumbersOffer;

/// Peers of a generation, by upstream.
pub type Lists = BTreeMap<String, LeasedList>;

/// Upstreams of a gateway, over its generations.
pub struct Upstreams {
    table: Rc<PeerTable>,
    /// Peers that the master before this one has in use.
    before: RefCell<Vec<PeerLease>>,
}

impl Upstreams {
    /// Upstreams of a gateway that begins. The error is a line for a person.
    pub fn new() -> Result<Rc<Self>, String> {
        let zone = PeersZone::create().map_err(|error| error.to_string())?;
        Ok(Rc::new(Self {
            table: PeerTable::new(Rc::new(zone)),
            before: RefCell::default(),
        }))
    }

    /// Upstreams as another master hands them over. Those that were made in a way that this version does not know, or of a master that
    /// knew of none, begin anew. The error is a line for a person.
    pub fn inherit(handed_over: Option<InheritedPeers>) -> Result<Rc<Self>, String> {
        let Some(InheritedPeers { memory, numbers }) = handed_over else {
            return Self::new();
        };
        let zone = match PeersZone::open(memory) {
            Ok(zone) => Rc::new(zone),
            Err(error) => {
                tracing::warn!(%error, "all that is known of peers begins anew");
                return Self::new();
            }
        };
        let (table, before) = PeerTable::inherit(zone, numbers);
        Ok(Rc::new(Self {
            table,
            before: RefCell::new(before),
        }))
    }

    /// Resolves the peers of a config. The error is lines with places for a person.
    pub async fn lists(&self, config: &Config) -> Result<Lists, Vec<String>> {
        let (mut lists, mut errors) = (Lists::new(), Vec::new());
        for (name, peers) in lookup::resolve(config).await? {
            match self.table.lease(&name, peers) {
                Ok(list) => drop(lists.insert(name, list)),
                Err(error) => {
                    let place = &config.upstreams[&name].place;
                    errors.push(format!("{place}: upstream {name}: {error}"));
                }
            }
        }
        match errors.is_empty() {
            true => Ok(lists),
            false => Err(errors),
        }
    }

    /// Memory of the peers' state.
    pub fn zone(&self) -> &Rc<PeersZone> {
        self.table.zone()
    }

    /// Descriptor of that memory, for a worker or another master.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.zone().descriptor()
    }

    /// Everything that another master needs beside the memory.
    pub fn offer(&self) -> NumbersOffer {
        self.table.offer()
    }

    /// Takes an offer back of which nothing came.
    pub fn keep(&self) {
        self.table.keep();
    }

    /// Frees what the master had in use that has handed over: it has ended, and so have its workers.
    pub fn is_alone(&self) {
        drop(self.before.take());
    }
}

/// Peers of a config, and memory for their state which no gateway has, for `castling check`. The error is lines with places
/// for a person.
pub async fn peers_for_check(
    config: &Config,
) -> Result<(BTreeMap<String, PeerList>, PeerStates), Vec<String>> {
    let upstreams = Upstreams::new().map_err(|error| vec![error])?;
    let lists = upstreams.lists(config).await?;
    let lists = lists.into_iter().map(|(name, leased)| (name, leased.list));
    let states = PeerStates::new(Rc::clone(upstreams.zone()), None);
    Ok((lists.collect(), states))
}
