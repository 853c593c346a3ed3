//! Slots and cells by upstream, name and address: who has which, and when another may have it.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::transport::PeerAddress;

#[cfg(test)]
mod tests;

/// Name and address of a peer, by which it is known in its upstream.
pub type Key = (Box<str>, PeerAddress);

/// Slots of all upstreams, and cells of the gateway. Times are those of one clock, in nanoseconds.
///
/// A peer that nobody has any more keeps its slot and its cell for [`KEPT_NS`]: one that comes back within that time finds its
/// state again, and what plugins know by the slot is true. After that they go to the next new peer, those of the one that has
/// been gone longest first; sooner only where an upstream has had [`MANY_SLOTS`] or no cell is left.
pub struct Numbers {
    upstreams: BTreeMap<Rc<str>, Slots>,
    /// Owners of cells that nobody has, by when they went.
    gone: BTreeMap<(u64, u32), Owner>,
    next_cell: u32,
    /// Cells that there may be.
    cells: u32,
    /// Cells that may be given out while another master has an offer of this; None where there is none.
    offered: Option<u32>,
}

/// Owner of a cell: a peer, or with `None` its upstream.
struct Owner {
    upstream: Rc<str>,
    peer: Option<Key>,
}

#[derive(Default)]
struct Slots {
    own: Option<Place>,
    peers: BTreeMap<Key, Peer>,
    /// Peers that nobody has, by when they went and slot.
    gone: BTreeMap<(u64, u32), Key>,
    /// Slots below `next` that no peer has.
    free: BTreeSet<u32>,
    next: u32,
}

#[derive(Clone, Copy)]
struct Place {
    cell: u32,
    /// Lists that have it.
    leases: u32,
    /// Time when the last of them went.
    gone_ns: u64,
    /// Whether nobody has been told yet that the cell is this one's.
    is_new: bool,
}

struct Peer {
    slot: u32,
    place: Place,
}

/// Numbers of one peer, or with slot 0 of an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Given {
    pub slot: u32,
    pub cell: u32,
    /// Whether the cell was another's, or nobody's, until now.
    pub is_new: bool,
    /// Whether no list had the peer until now, and some had its upstream: it comes to those that serve.
    pub joins: bool,
}

/// Numbers of a list.
#[derive(Debug, PartialEq)]
pub struct Taken {
    pub own: Given,
    /// In the order in which they were asked for; `None` for one that is there twice.
    pub peers: Vec<Option<Given>>,
}

/// Everything of the numbers, for another master.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct NumbersOffer {
    next_cell: u32,
    upstreams: BTreeMap<String, SlotsOffer>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct SlotsOffer {
    own: Option<PlaceOffer>,
    next: u32,
    free: BTreeSet<u32>,
    peers: Vec<PeerOffer>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct PlaceOffer {
    cell: u32,
    /// `None`: somebody has it.
    gone_ns: Option<u64>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct PeerOffer {
    name: Box<str>,
    address: PeerAddress,
    slot: u32,
    place: PlaceOffer,
}

/// Time for which the numbers of a peer that is gone are kept for it.
pub const KEPT_NS: u64 = 600 * 1_000_000_000;

/// Slots of an upstream from which on those of peers that are gone are given out at once: plugins have tables of that size.
pub const MANY_SLOTS: u32 = 4096;

/// Cells that a master keeps for new peers while another has its offer.
const SPARE_CELLS: u32 = 1024;

impl Numbers {
    pub fn new(cells: u32) -> Self {
        Self {
            upstreams: BTreeMap::new(),
            gone: BTreeMap::new(),
            next_cell: 0,
            cells,
            offered: None,
        }
    }

    /// Takes numbers for an upstream and these peers, until they are released. Takes none where there are not enough; the error
    /// is a line for a person.
    pub fn take(&mut self, upstream: &str, keys: &[Key], now_ns: u64) -> Result<Taken, String> {
        let name: Rc<str> = Rc::from(upstream);
        let slots = self.upstreams.entry(Rc::clone(&name)).or_default();
        let is_running = slots.own.as_ref().is_some_and(|own| own.leases > 0);
        let mut seen = BTreeSet::new();
        let mut held = Vec::new();
        // Those that are known first: none of them is to be given to another.
        let known = keys.iter().map(|key| {
            if !seen.insert(key) {
                return Known::Twice;
            }
            let Some(peer) = slots.peers.get_mut(key) else {
                return Known::New(key);
            };
            let joins = is_running && peer.place.leases == 0;
            if peer.place.leases == 0 {
                slots.gone.remove(&(peer.place.gone_ns, peer.slot));
                self.gone.remove(&(peer.place.gone_ns, peer.place.cell));
            }
            peer.place.leases += 1;
            held.push(key.clone());
            let given = peer.given();
            Known::Old(Given { joins, ..given })
        });
        let known: Vec<Known<'_>> = known.collect();
        let Some(own) = self.take_own(&name, now_ns) else {
            self.release_peers(&name, &held, now_ns);
            return Err(self.full());
        };
        let mut given = Vec::with_capacity(keys.len());
        for peer in known {
            given.push(match peer {
                Known::Twice => None,
                Known::Old(given) => Some(given),
                Known::New(key) => {
                    let Some(new) = self.give(&name, key, now_ns) else {
                        self.release(&name, &held, now_ns);
                        return Err(self.full());
                    };
                    held.push(key.clone());
                    let joins = is_running;
                    Some(Given { joins, ..new })
                }
            });
        }
        self.told(&name, &held);
        Ok(Taken { own, peers: given })
    }

    /// Notes that a list has what is given to it.
    fn told(&mut self, name: &Rc<str>, keys: &[Key]) {
        let Some(slots) = self.upstreams.get_mut(name) else {
            return;
        };
        if let Some(own) = &mut slots.own {
            own.is_new = false;
        }
        for key in keys {
            if let Some(peer) = slots.peers.get_mut(key) {
                peer.place.is_new = false;
            }
        }
    }

    /// The upstream's own cell, held once more.
    fn take_own(&mut self, name: &Rc<str>, now_ns: u64) -> Option<Given> {
        let slots = self.upstreams.entry(Rc::clone(name)).or_default();
        if let Some(own) = &mut slots.own {
            if own.leases == 0 {
                self.gone.remove(&(own.gone_ns, own.cell));
            }
            own.leases += 1;
            return Some(own.given(0));
        }
        let own = Place::new(self.free_cell(now_ns)?);
        let slots = self.upstreams.entry(Rc::clone(name)).or_default();
        slots.own = Some(own);
        Some(own.given(0))
    }

    /// Numbers for a peer that has none. Its upstream's own cell is held.
    fn give(&mut self, name: &Rc<str>, key: &Key, now_ns: u64) -> Option<Given> {
        let (slot, cell) = match self.oldest_of(name, now_ns) {
            Some(numbers) => numbers,
            None => {
                let cell = self.free_cell(now_ns)?;
                let slots = self.upstreams.get_mut(name)?;
                let slot = slots.free.pop_first().unwrap_or_else(|| {
                    slots.next += 1;
                    slots.next - 1
                });
                (slot, cell)
            }
        };
        let peer = Peer {
            slot,
            place: Place::new(cell),
        };
        let given = peer.given();
        self.upstreams
            .get_mut(name)?
            .peers
            .insert(key.clone(), peer);
        Some(given)
    }

    /// Slot and cell of the upstream's peer that has been gone longest, where another may have them.
    fn oldest_of(&mut self, name: &Rc<str>, now_ns: u64) -> Option<(u32, u32)> {
        if self.offered.is_some() {
            return None;
        }
        let slots = self.upstreams.get_mut(name)?;
        let oldest = slots.gone.first_entry()?;
        let (gone_ns, _) = *oldest.key();
        if now_ns.saturating_sub(gone_ns) < KEPT_NS && slots.next < MANY_SLOTS {
            return None;
        }
        let key = oldest.remove();
        let peer = slots.peers.remove(&key)?;
        self.gone.remove(&(gone_ns, peer.place.cell));
        Some((peer.slot, peer.place.cell))
    }

    /// A cell that nobody has.
    fn free_cell(&mut self, now_ns: u64) -> Option<u32> {
        let oldest = self.gone.first_key_value();
        let is_over =
            oldest.is_some_and(|((gone_ns, _), _)| now_ns.saturating_sub(*gone_ns) >= KEPT_NS);
        if is_over && self.offered.is_none() {
            return self.take_oldest_cell();
        }
        if self.next_cell < self.offered.unwrap_or(self.cells) {
            self.next_cell += 1;
            return Some(self.next_cell - 1);
        }
        match self.offered {
            None => self.take_oldest_cell(),
            Some(_) => None,
        }
    }

    /// Takes the cell that has been without use longest from its owner, who is forgotten.
    fn take_oldest_cell(&mut self) -> Option<u32> {
        let ((gone_ns, cell), owner) = self.gone.pop_first()?;
        let slots = self.upstreams.get_mut(&owner.upstream)?;
        match owner.peer {
            Some(key) => {
                if let Some(peer) = slots.peers.remove(&key) {
                    slots.gone.remove(&(gone_ns, peer.slot));
                    slots.free.insert(peer.slot);
                }
            }
            None => slots.own = None,
        }
        if slots.own.is_none() && slots.peers.is_empty() {
            self.upstreams.remove(&owner.upstream);
        }
        Some(cell)
    }

    fn full(&self) -> String {
        let cells = self.cells;
        match self.offered {
            Some(_) => "there are too many new peers while the gateway is upgraded".to_owned(),
            None => format!(
                "the gateway has too many peers: expected at most {cells}, upstreams counted in"
            ),
        }
    }

    /// Lets go of what [`Self::take`] has taken for a list.
    pub fn release(&mut self, upstream: &str, keys: &[Key], now_ns: u64) {
        let name: Rc<str> = Rc::from(upstream);
        self.release_peers(&name, keys, now_ns);
        self.release_own(&name, now_ns);
    }

    fn release_own(&mut self, name: &Rc<str>, now_ns: u64) {
        let own = self.upstreams.get_mut(name).and_then(|it| it.own.as_mut());
        if let Some(own) = own
            && own.release(now_ns)
        {
            let owner = Owner {
                upstream: Rc::clone(name),
                peer: None,
            };
            self.gone.insert((now_ns, own.cell), owner);
        }
    }

    fn release_peers(&mut self, name: &Rc<str>, keys: &[Key], now_ns: u64) {
        let Some(slots) = self.upstreams.get_mut(name) else {
            return;
        };
        for key in keys {
            let Some(peer) = slots.peers.get_mut(key) else {
                continue;
            };
            if peer.place.release(now_ns) {
                slots.gone.insert((now_ns, peer.slot), key.clone());
                let owner = Owner {
                    upstream: Rc::clone(name),
                    peer: Some(key.clone()),
                };
                self.gone.insert((now_ns, peer.place.cell), owner);
            }
        }
    }

    /// Tells another master all of it. Until [`Self::keep`] this one gives out what is new below a bound from which on the other
    /// one counts, and nothing that was another's.
    pub fn offer(&mut self) -> NumbersOffer {
        let next_cell = self.next_cell.saturating_add(SPARE_CELLS).min(self.cells);
        self.offered = Some(next_cell);
        let upstreams = self.upstreams.iter().map(|(name, slots)| {
            let peers = slots.peers.iter().map(|((name, address), peer)| PeerOffer {
                name: name.clone(),
                address: address.clone(),
                slot: peer.slot,
                place: peer.place.offer(),
            });
            let offer = SlotsOffer {
                own: slots.own.as_ref().map(Place::offer),
                next: slots.next,
                free: slots.free.clone(),
                peers: peers.collect(),
            };
            (name.to_string(), offer)
        });
        NumbersOffer {
            next_cell,
            upstreams: upstreams.collect(),
        }
    }

    /// Takes an offer back of which nothing came.
    pub fn keep(&mut self) {
        self.offered = None;
    }

    /// Numbers that another master has offered, and what it has in use, by upstream: that counts as taken, and is to be released
    /// when that master has ended.
    pub fn inherit(offer: NumbersOffer, cells: u32) -> (Self, Vec<(String, Vec<Key>)>) {
        let mut numbers = Self::new(cells);
        numbers.next_cell = offer.next_cell.min(cells);
        let mut known = BTreeSet::new();
        let mut in_use = Vec::new();
        for (upstream, offer) in offer.upstreams {
            let used = numbers.inherit_upstream(&upstream, offer, &mut known);
            in_use.extend(used.map(|keys| (upstream, keys)));
        }
        (numbers, in_use)
    }

    /// Numbers of one upstream; returns its peers that are in use, if it is. A number that another has, or that is none, is
    /// nobody's: its peer begins anew.
    fn inherit_upstream(
        &mut self,
        upstream: &str,
        offer: SlotsOffer,
        known: &mut BTreeSet<u32>,
    ) -> Option<Vec<Key>> {
        let cells = self.cells;
        let mut is_good = |place: &PlaceOffer| place.cell < cells && known.insert(place.cell);
        let own = offer.own.filter(&mut is_good)?;
        let mut slots = Slots {
            own: Some(Place::inherited(own.cell)),
            next: offer.next,
            free: offer.free,
            ..Slots::default()
        };
        let (mut in_use, mut gone, mut known_slots) = (Vec::new(), Vec::new(), BTreeSet::new());
        for peer in offer.peers {
            let key = (peer.name, peer.address);
            let is_known = slots.peers.contains_key(&key) || !known_slots.insert(peer.slot);
            if is_known || !is_good(&peer.place) {
                continue;
            }
            slots.next = slots.next.max(peer.slot.saturating_add(1));
            slots.free.remove(&peer.slot);
            match peer.place.gone_ns {
                None => in_use.push(key.clone()),
                Some(gone_ns) => gone.push((gone_ns, key.clone())),
            }
            let (slot, place) = (peer.slot, Place::inherited(peer.place.cell));
            slots.peers.insert(key, Peer { slot, place });
        }
        let name: Rc<str> = Rc::from(upstream);
        self.upstreams.insert(Rc::clone(&name), slots);
        for (gone_ns, key) in gone {
            self.release_peers(&name, &[key], gone_ns);
        }
        match own.gone_ns {
            None => Some(in_use),
            Some(gone_ns) => {
                self.release(upstream, &in_use, gone_ns);
                None
            }
        }
    }
}

/// A peer that numbers are asked for.
enum Known<'a> {
    Twice,
    Old(Given),
    New(&'a Key),
}

impl Place {
    fn new(cell: u32) -> Self {
        Self {
            cell,
            leases: 1,
            gone_ns: 0,
            is_new: true,
        }
    }

    /// Place whose state another master has kept.
    fn inherited(cell: u32) -> Self {
        Self {
            is_new: false,
            ..Self::new(cell)
        }
    }

    fn given(&self, slot: u32) -> Given {
        Given {
            slot,
            cell: self.cell,
            is_new: self.is_new,
            joins: false,
        }
    }

    /// Whether nobody has it any more since just now.
    fn release(&mut self, now_ns: u64) -> bool {
        let was_last = self.leases == 1;
        self.leases = self.leases.saturating_sub(1);
        if was_last {
            self.gone_ns = now_ns;
        }
        was_last
    }

    fn offer(&self) -> PlaceOffer {
        PlaceOffer {
            cell: self.cell,
            gone_ns: (self.leases == 0).then_some(self.gone_ns),
        }
    }
}

impl Peer {
    fn given(&self) -> Given {
        self.place.given(self.slot)
    }
}
