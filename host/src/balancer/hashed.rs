//! Policies by hash: which key a request has, and the table of each level's peers.

use std::cell::RefCell;
use std::rc::Rc;

use super::Ask;
use super::bounded_load::Bound;
use super::hash::HashTable;
use super::ip_hash::IpKey;
use super::round_robin::RoundRobin;
use crate::config::{HashBalance, HashMethod};
use crate::exchange::{Exchange, Template};
use crate::runtime::random;
use crate::upstream::{Active, Peer};

/// Policy that sends requests with the same key to the same peer.
pub struct HashPolicy {
    key: Key,
    method: HashMethod,
    bounded: Option<f64>,
    /// Tables that were made, to be used again while their peers and weights stay: most changes are of which peers may be chosen.
    tables: RefCell<Vec<Rc<Table>>>,
    /// Key of the request that is under way; its memory is used again.
    text: RefCell<Vec<u8>>,
}

enum Key {
    ClientAddress,
    Template(Template),
}

/// Keys of a level's peers.
struct Table {
    /// All peers of the level, also those that may not be chosen now, and their weights.
    members: Box<[(Rc<Peer>, u32)]>,
    table: HashTable,
}

/// Peers of a level by their keys.
pub(super) struct Hashed {
    table: Rc<Table>,
    /// Whether each of the members may be chosen.
    is_available: Box<[bool]>,
    /// Takes turns for requests that have no key.
    turns: RoundRobin,
    bounded: Option<f64>,
    /// Weight of those that may be chosen.
    weight: f64,
    /// Requests under way at them: as of some milliseconds ago, and those since.
    active: f64,
}

/// Tables that are kept: those of the levels.
const MOST_TABLES: usize = 3;

impl HashPolicy {
    pub(super) fn of_client() -> Self {
        Self::new(Key::ClientAddress, HashMethod::Maglev, None)
    }

    /// The error is a line for a person.
    pub(super) fn of_key(config: &HashBalance) -> Result<Self, String> {
        let key = Template::parse(&config.key).map_err(|e| format!("hash: {e}"))?;
        Ok(Self::new(Key::Template(key), config.method, config.bounded))
    }

    fn new(key: Key, method: HashMethod, bounded: Option<f64>) -> Self {
        Self {
            key,
            method,
            bounded,
            tables: RefCell::default(),
            text: RefCell::default(),
        }
    }

    /// Whether it goes by what the peers have under way, too.
    pub(super) fn is_bounded(&self) -> bool {
        self.bounded.is_some()
    }

    /// Calls this with the request's key, which is empty where the request has none.
    #[inline]
    pub(super) fn with_key<T>(&self, exchange: &Exchange, then: impl FnOnce(&[u8]) -> T) -> T {
        match &self.key {
            Key::ClientAddress => match exchange.context().client.ip() {
                Some(client) => then(IpKey::new(client).as_bytes()),
                None => then(b""),
            },
            Key::Template(template) => {
                let mut text = self.text.borrow_mut();
                text.clear();
                if !template.write(&mut text, exchange) {
                    text.clear();
                }
                then(&text)
            }
        }
    }

    /// `members`: all peers of a level; `available`: those of them that may be chosen. Both by slot, ascending.
    pub(super) fn hashed(&self, members: &[Rc<Peer>], available: &[Rc<Peer>]) -> Hashed {
        let table = self.table(members);
        let is_in = |peer: &Rc<Peer>| {
            let found = available.binary_search_by_key(&peer.slot, |it| it.slot);
            found.is_ok()
        };
        let is_available: Box<[bool]> = members.iter().map(is_in).collect();
        let weight = |(peer, is_available): (&Rc<Peer>, &bool)| match is_available {
            true => f64::from(peer.weight.get()),
            false => 0.0,
        };
        let weights: Vec<f64> = members.iter().zip(&is_available).map(weight).collect();
        let mut hashed = Hashed {
            table,
            turns: RoundRobin::new(&weights, false, random::next() as u32),
            bounded: self.bounded,
            weight: weights.iter().sum(),
            is_available,
            active: 0.0,
        };
        hashed.refresh();
        hashed
    }

    fn table(&self, members: &[Rc<Peer>]) -> Rc<Table> {
        let is_same = |(known, peer): (&(Rc<Peer>, u32), &Rc<Peer>)| {
            Rc::ptr_eq(&known.0, peer) && known.1 == peer.weight.get()
        };
        let mut tables = self.tables.borrow_mut();
        let known = tables.iter().find(|table| {
            let pairs = table.members.iter().zip(members);
            table.members.len() == members.len() && { pairs }.all(is_same)
        });
        if let Some(known) = known {
            return Rc::clone(known);
        }
        let weighted = members
            .iter()
            .map(|peer| (Rc::clone(peer), peer.weight.get()));
        let members: Box<[(Rc<Peer>, u32)]> = weighted.collect();
        let named = members.iter().map(|(peer, weight)| (&*peer.label, *weight));
        let table = HashTable::new(self.method, &named.collect::<Vec<_>>());
        let table = Rc::new(Table { members, table });
        if tables.len() == MOST_TABLES {
            tables.remove(0);
        }
        tables.push(Rc::clone(&table));
        table
    }
}

impl Hashed {
    /// The peer for a request, counted as active.
    #[inline]
    pub(super) fn choose(&mut self, ask: &Ask<'_>) -> Option<Active> {
        let Table { members, table } = &*self.table;
        let (active, weight) = (self.active, self.weight);
        let bound = self
            .bounded
            .map(|factor| Bound::new(factor, active, weight));
        let allows = |at: usize| self.is_available[at] && ask.allows(&members[at].0);
        let admits = |at: usize| {
            let (peer, weight) = &members[at];
            allows(at) && bound.is_none_or(|it| it.admits(peer.load(), f64::from(*weight)))
        };
        let at = match ask.key {
            b"" => self.turns.choose(|at| f64::from(members[at].1), allows),
            // Where those that were tried would have room, any of the others is taken.
            key => table
                .choose(key, admits)
                .or_else(|| table.choose(key, allows)),
        };
        let active = members[at?].0.begin()?;
        self.active += 1.0;
        Some(active)
    }

    /// Looks at what is under way at them.
    pub(super) fn refresh(&mut self) {
        if self.bounded.is_some() {
            let members = self.table.members.iter().zip(&self.is_available);
            let available = members.filter(|(_, is_available)| **is_available);
            self.active = available.map(|((peer, _), _)| f64::from(peer.load())).sum();
        }
    }
}
