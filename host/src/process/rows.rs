//! Rows of the memory that workers share: each living worker has one number, and by it a row of its own in the metrics, in
//! the peers' memory and in gauge zones.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::{Rc, Weak};

use crate::zone::{GaugeZone, PeersZone};

use super::flights::SharedFlights;
use super::metrics::{CountedWorker, Ledger};
use super::zones::{SharedZone, Zones};

/// Rows of one master's workers, over its generations.
pub struct Rows {
    peers: Rc<PeersZone>,
    pub flights: SharedFlights,
    /// Gauge zones of the generations that there are.
    gauges: RefCell<Vec<Weak<GaugeZone>>>,
    /// Rows of living workers. Row 0 is the master's.
    taken: RefCell<BTreeSet<u32>>,
    /// Rows that are another master's.
    foreign: RefCell<BTreeSet<u32>>,
    /// Rows that are left to this master since it has offered its memory to another; None before.
    only: RefCell<Option<BTreeSet<u32>>>,
}

/// A row in the hands of one worker, until this is dropped, which must not be before the worker's end.
pub struct RowLease {
    rows: Rc<Rows>,
    /// Number of the row.
    pub row: u32,
    _counted: CountedWorker,
}

impl Rows {
    /// `foreign`: rows that are the master's that has handed its memory over, until [`Self::is_alone`].
    pub fn new(peers: Rc<PeersZone>, flights: SharedFlights, foreign: Vec<u32>) -> Rc<Self> {
        Rc::new(Self {
            peers,
            flights,
            gauges: RefCell::default(),
            taken: RefCell::default(),
            foreign: RefCell::new(foreign.into_iter().collect()),
            only: RefCell::default(),
        })
    }

    /// A row that no living worker has; `None`, and a line in the log, when there is none or no memory for it.
    pub fn lease(self: &Rc<Self>, metrics: &Rc<Ledger>) -> Option<RowLease> {
        let Some(row) = self.free_row() else {
            let rows = PeersZone::ROWS;
            tracing::warn!(rows, "too many workers: one is counted nowhere");
            return None;
        };
        let in_flights = |()| self.flights.zone.take_row(row);
        let in_gauges = |()| {
            self.gauges()
                .iter()
                .try_for_each(|gauge| gauge.take_row(row))
        };
        let taken = self
            .peers
            .take_row(row)
            .and_then(in_flights)
            .and_then(in_gauges);
        if let Err(error) = taken {
            tracing::warn!(%error, "a worker is counted nowhere");
            return None;
        }
        let counted = metrics.count(row)?;
        self.taken.borrow_mut().insert(row);
        Some(RowLease {
            rows: Rc::clone(self),
            row,
            _counted: counted,
        })
    }

    /// Workers that begin from now on have rows in these zones, too.
    pub fn keep_gauges(&self, zones: &Zones) {
        let mut known = self.gauges.borrow_mut();
        known.retain(|gauge| gauge.strong_count() > 0);
        for zone in zones.values() {
            if let SharedZone::Gauge(zone) = zone
                && !known.iter().any(|gauge| gauge.as_ptr() == Rc::as_ptr(zone))
            {
                known.push(Rc::downgrade(zone));
            }
        }
    }

    fn gauges(&self) -> Vec<Rc<GaugeZone>> {
        self.gauges
            .borrow()
            .iter()
            .filter_map(Weak::upgrade)
            .collect()
    }

    /// Forgets what a worker had under way, when it has ended.
    fn clear_memory(&self, row: u32) {
        self.peers.clear_row(row);
        for gauge in self.gauges() {
            gauge.clear_row(row);
        }
        self.flights.zone.clear_row(row);
        // Whoever waits for what the worker has fetched is to look who fetches it now.
        self.flights.bell.ring();
    }

    fn free_row(&self) -> Option<u32> {
        let (taken, foreign) = (self.taken.borrow(), self.foreign.borrow());
        let only = self.only.borrow();
        let is_free = |row: &u32| {
            let ours = only.as_ref().is_none_or(|only| only.contains(row));
            ours && !taken.contains(row) && !foreign.contains(row)
        };
        (1..PeersZone::ROWS).find(is_free)
    }

    /// Tells another master which rows are this one's for as long as it lives, those of its workers and some more for
    /// workers that take a dead one's place.
    pub fn offer(&self) -> Vec<u32> {
        let mut only = self.taken.borrow().clone();
        let foreign = self.foreign.borrow();
        let free = (1..PeersZone::ROWS).filter(|row| !foreign.contains(row));
        for row in free {
            if only.len() >= self.taken.borrow().len() + SPARE_ROWS {
                break;
            }
            only.insert(row);
        }
        let rows = only.iter().chain(foreign.iter()).copied().collect();
        self.only.replace(Some(only));
        rows
    }

    /// Takes an offer back of which nothing came. Returns the rows that the other master's workers may have; they are theirs
    /// until [`Self::forget`].
    pub fn keep(&self, metrics: Option<&Rc<Ledger>>) -> Vec<u32> {
        let only = self.only.take().unwrap_or_default();
        let mut foreign = self.foreign.borrow_mut();
        let counted = metrics.map_or(0, |metrics| metrics.rows());
        let rows = 1..self.peers.rows().max(counted);
        let left: Vec<u32> = rows
            .filter(|row| !only.contains(row) && !foreign.contains(row))
            .collect();
        foreign.extend(&left);
        left
    }

    /// Frees rows whose workers have ended.
    pub fn forget(&self, rows: &[u32], metrics: Option<&Rc<Ledger>>) {
        for row in rows {
            if self.foreign.borrow_mut().remove(row) {
                self.clear(*row, metrics);
            }
        }
    }

    /// Frees the rows of the master that has handed them over: it has ended, and so have its workers.
    pub fn is_alone(&self, metrics: Option<&Rc<Ledger>>) {
        for row in self.foreign.take() {
            self.clear(row, metrics);
        }
    }

    fn clear(&self, row: u32, metrics: Option<&Rc<Ledger>>) {
        self.clear_memory(row);
        if let Some(metrics) = metrics {
            metrics.forget(row);
        }
    }
}

/// Rows that a master keeps beyond its workers' when it offers its memory to another: so many of its workers may die before
/// it ends and still be counted in their successors.
const SPARE_ROWS: usize = 64;

impl Drop for RowLease {
    fn drop(&mut self) {
        self.rows.clear_memory(self.row);
        self.rows.taken.borrow_mut().remove(&self.row);
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn gateway(foreign: Vec<u32>) -> (Rc<Rows>, Rc<Ledger>) {
        let zone = PeersZone::create().unwrap();
        zone.take_cells(1).unwrap();
        let ledger = Ledger::of(1024, None, SystemTime::UNIX_EPOCH).unwrap();
        let flights = SharedFlights::create().unwrap();
        (Rows::new(Rc::new(zone), flights, foreign), ledger)
    }

    fn flights_of(old: &Rows) -> SharedFlights {
        let descriptors = old.flights.descriptors().unwrap();
        SharedFlights::inherit(Some(descriptors)).unwrap()
    }

    #[test]
    fn a_master_that_takes_over_leaves_the_old_ones_rows_alone() {
        let (old, ledger) = gateway(Vec::new());
        let old_worker = old.lease(&ledger).unwrap();
        let new = Rows::new(Rc::clone(&old.peers), flights_of(&old), old.offer());
        let new_worker = new.lease(&ledger).unwrap();
        let replacement = old.lease(&ledger).unwrap();
        assert_eq!(
            [old_worker.row, replacement.row, new_worker.row],
            [1, 2, 66]
        );
        drop((old_worker, replacement));
        new.is_alone(Some(&ledger));
        assert_eq!(new.lease(&ledger).unwrap().row, 1);
    }

    #[test]
    fn what_the_workers_of_a_newcomer_that_failed_have_is_theirs_until_it_is_forgotten() {
        let (old, ledger) = gateway(Vec::new());
        let _worker = old.lease(&ledger).unwrap();
        let newcomer = Rows::new(Rc::clone(&old.peers), flights_of(&old), old.offer());
        let its_worker = newcomer.lease(&ledger).unwrap();
        let left = old.keep(Some(&ledger));
        assert!(left.contains(&its_worker.row), "{left:?}");
        let mut leased = Vec::new();
        leased.extend((0..70).map(|_| old.lease(&ledger).unwrap()));
        assert!(leased.iter().all(|lease| lease.row != its_worker.row));
        old.forget(&left, Some(&ledger));
        leased.extend((0..70).map(|_| old.lease(&ledger).unwrap()));
        assert!(leased.iter().any(|lease| lease.row == its_worker.row));
    }

    #[test]
    fn what_a_worker_had_under_way_ends_with_it() {
        let (rows, ledger) = gateway(Vec::new());
        let worker = rows.lease(&ledger).unwrap();
        let word = rows.peers.hold_word(worker.row, 0).unwrap();
        word.store(5, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(rows.peers.sum(0).active, 5);
        drop(worker);
        assert_eq!(rows.peers.sum(0).active, 0);
    }

    #[test]
    fn metrics_that_begin_anew_leave_a_draining_workers_row_alone() {
        let (rows, ledger) = gateway(Vec::new());
        let draining = rows.lease(&ledger).unwrap();
        let anew = Ledger::of(2048, Some(&ledger), SystemTime::UNIX_EPOCH).unwrap();
        assert_ne!(rows.lease(&anew).unwrap().row, draining.row);
    }
}
