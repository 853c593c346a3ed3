//! State of peers that all workers share: what the words of a record mean, and what a worker's row counts.
//!
//! All of it lies in [`PeersZone`], outlives workers, reloads and upgrades, and is there for the master to show. What says
//! which peers may be chosen is cached by each worker: whoever changes it raises the upstream's epoch.

use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::time::Duration;

use crate::zone::{Load, PeerRecord, PeersZone, Word, ZoneError, now_ns};

/// The memory as one process sees it.
#[derive(Clone)]
pub struct PeerStates {
    zone: Rc<PeersZone>,
    /// Row that the worker writes to. `None`: what it has under way is not seen by others.
    row: Option<u32>,
}

/// State of one peer, or of one upstream.
#[derive(Clone)]
pub struct PeerState {
    states: PeerStates,
    cell: u32,
    /// This worker's word.
    word: Option<Word>,
}

/// Whether new requests may be sent to a peer, and why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Availability {
    Available,
    /// The operator lets it finish what it has; requests that are bound to it may still come.
    Draining,
    /// The operator has taken it out.
    Down,
    /// Active checks have found it bad.
    Unhealthy,
    /// Active checks have not seen it yet, and it must be seen good before.
    Unchecked,
    /// Passed over because of its failures, until then ([`now_ns`]).
    Ejected {
        until_ns: u64,
    },
}

/// Order of the operator for a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// As the checks say.
    #[default]
    Usual,
    Draining,
    Down,
    /// Available whatever the checks say.
    Up,
}

/// Result of active checks so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CheckState {
    /// Not checked: it may be chosen.
    #[default]
    None,
    /// Not checked yet, and not to be chosen before.
    Awaited,
    Up,
    Down,
}

impl PeerStates {
    pub fn new(zone: Rc<PeersZone>, row: Option<u32>) -> Self {
        Self { zone, row }
    }

    /// States of some hundred cells that no other process shares.
    pub fn private() -> Result<Self, ZoneError> {
        let zone = PeersZone::create()?;
        zone.take_cells(1)?;
        zone.take_row(OWN_ROW)?;
        Ok(Self::new(Rc::new(zone), Some(OWN_ROW)))
    }

    /// Handle of a cell, which must have memory; else nothing of it is shared.
    pub fn of(&self, cell: u32) -> PeerState {
        PeerState {
            states: self.clone(),
            cell,
            word: self.row.and_then(|row| self.zone.word_of(row, cell)),
        }
    }
}

/// Row of the only process that there is.
const OWN_ROW: u32 = 1;

impl PeerState {
    fn record(&self) -> &PeerRecord {
        static NOBODY: PeerRecord = PeerRecord::new();
        self.states.zone.record(self.cell).unwrap_or(&NOBODY)
    }

    /// State of another cell in the same memory.
    #[cfg(test)]
    pub fn neighbour(&self, cell: u32) -> Self {
        self.states.of(cell)
    }

    /// Number of the cell.
    pub fn cell(&self) -> u32 {
        self.cell
    }

    /// Adds what other workers have under way, by cell.
    pub fn add_active_of_others(&self, cells: &[u32], sums: &mut [u32]) {
        let PeerStates { zone, row } = &self.states;
        zone.add_active_of_others(*row, cells, sums);
    }

    /// Tells others what this worker has under way.
    #[inline]
    pub fn publish(&self, active: u32, connections: u32) {
        if let Some(word) = self.word {
            let load = u64::from(connections) << 32 | u64::from(active);
            self.states.zone.store(word, load);
        }
    }

    /// Sum over all workers.
    pub fn sum(&self) -> Load {
        self.states.zone.sum(self.cell)
    }

    /// Number of the changes of an upstream so far.
    #[inline]
    pub fn epoch(&self) -> u64 {
        self.record().epoch.load(Acquire)
    }

    /// Tells all workers that peers of this upstream have become available, or no longer are.
    pub fn raise_epoch(&self) {
        self.record().epoch.fetch_add(1, Release);
    }

    /// Whether new requests may be sent to the peer. `now_ns` is asked where it matters.
    pub fn availability(&self, now_ns: impl FnOnce() -> u64) -> Availability {
        let record = self.record();
        match self.standing() {
            Standing::Up => return Availability::Available,
            Standing::Down => return Availability::Down,
            Standing::Draining => return Availability::Draining,
            Standing::Usual => {}
        }
        match self.check_state() {
            CheckState::Down => return Availability::Unhealthy,
            CheckState::Awaited => return Availability::Unchecked,
            CheckState::None | CheckState::Up => {}
        }
        match record.ejected_until_ns.load(Relaxed) {
            0 => Availability::Available,
            until_ns if until_ns <= now_ns() => Availability::Available,
            until_ns => Availability::Ejected { until_ns },
        }
    }

    pub fn standing(&self) -> Standing {
        match self.record().operator.load(Relaxed) & STANDING {
            DRAINING => Standing::Draining,
            DOWN => Standing::Down,
            UP => Standing::Up,
            _ => Standing::Usual,
        }
    }

    /// Weight by the operator's order, in the place of the config's.
    pub fn ordered_weight(&self) -> Option<u32> {
        let weight = (self.record().operator.load(Relaxed) >> 32) as u32;
        (weight > 0).then_some(weight)
    }

    /// Orders this; the caller raises the upstream's epoch.
    pub fn order(&self, standing: Standing, weight: Option<u32>) {
        let flags = match standing {
            Standing::Usual => 0,
            Standing::Draining => DRAINING,
            Standing::Down => DOWN,
            Standing::Up => UP,
        };
        let word = u64::from(weight.unwrap_or(0)) << 32 | flags;
        self.record().operator.store(word, Relaxed);
    }

    pub fn check_state(&self) -> CheckState {
        match self.record().check.load(Relaxed) & CHECK {
            1 => CheckState::Awaited,
            2 => CheckState::Up,
            3 => CheckState::Down,
            _ => CheckState::None,
        }
    }

    /// Notes that the peer has answered. True: it was passed over until now.
    #[inline]
    pub fn note_success(&self) -> bool {
        let record = self.record();
        match record.failures.load(Relaxed) as u32 {
            0 => false,
            _ => forget_failures(record),
        }
    }

    /// Notes a failure of the peer. True: it is passed over for this time from now on, after so many in a row.
    pub fn note_failure(&self, most: u32, time: Duration) -> bool {
        let record = self.record();
        let noted = record.failures.fetch_add(1, AcqRel).wrapping_add(1);
        if (noted as u32) < most {
            return false;
        }
        let until = now_ns().saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        record.ejected_until_ns.swap(until, AcqRel) == 0
    }
}

#[cold]
#[inline(never)]
fn forget_failures(record: &PeerRecord) -> bool {
    let in_a_row = |word: &AtomicU64| word.fetch_and(!0xffff_ffff, AcqRel);
    in_a_row(&record.failures);
    record.ejected_until_ns.swap(0, AcqRel) != 0
}

/// Flags of the operator's word.
const STANDING: u64 = 3;
const DRAINING: u64 = 1;
const DOWN: u64 = 2;
const UP: u64 = 3;

/// Part of the check's word that says the state.
const CHECK: u64 = 0xff;

#[cfg(test)]
mod tests {
    use super::*;

    fn other_worker(states: &PeerStates) -> PeerStates {
        states.zone.take_row(2).unwrap();
        PeerStates::new(Rc::clone(&states.zone), Some(2))
    }

    #[test]
    fn what_one_worker_notes_another_sees() {
        let here = PeerStates::private().unwrap();
        let there = other_worker(&here);
        let (peer, same) = (here.of(3), there.of(3));
        let second = Duration::from_secs(1);
        assert!(!peer.note_failure(2, second));
        assert_eq!(same.availability(now_ns), Availability::Available);
        assert!(same.note_failure(2, second));
        let Availability::Ejected { until_ns } = peer.availability(now_ns) else {
            panic!("not ejected");
        };
        assert_eq!(peer.availability(|| until_ns), Availability::Available);
        assert!(!peer.note_failure(2, second), "ejected already");
        assert!(peer.note_success() && !peer.note_success());
        assert_eq!(same.availability(now_ns), Availability::Available);
        peer.publish(3, 1);
        same.publish(4, 0);
        assert_eq!((same.sum().active, same.sum().connections), (7, 1));
    }

    #[test]
    fn the_operators_word_is_above_the_checks() {
        let peer = PeerStates::private().unwrap().of(0);
        peer.note_failure(1, Duration::from_secs(60));
        for (standing, expected) in [
            (Standing::Up, Availability::Available),
            (Standing::Down, Availability::Down),
            (Standing::Draining, Availability::Draining),
        ] {
            peer.order(standing, Some(7));
            assert_eq!(peer.availability(now_ns), expected);
            assert_eq!(
                (peer.standing(), peer.ordered_weight()),
                (standing, Some(7))
            );
        }
        peer.order(Standing::Usual, None);
        assert!(matches!(
            peer.availability(now_ns),
            Availability::Ejected { .. }
        ));
        assert_eq!(peer.ordered_weight(), None);
    }

    #[test]
    fn a_cell_without_memory_is_a_peer_that_nothing_is_known_of() {
        let peer = PeerStates::private().unwrap().of(60_000);
        peer.publish(1, 1);
        assert_eq!(peer.sum(), Load::default());
    }
}
