//! The metrics' memory, as the master keeps it: which worker has which row of it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;
use std::rc::{Rc, Weak};
use std::time::SystemTime;

use crate::metrics::{MasterMetrics, forget_gauges, text};
use crate::zone::MetricsZone;

use super::upgrade::InheritedMetrics;

/// The metrics of a gateway, over its generations.
pub struct Ledger {
    metrics: MasterMetrics,
    max_series: u32,
    /// Rows of living workers. Row 0 is the master's.
    taken: RefCell<BTreeSet<u32>>,
    /// Rows that are another master's.
    foreign: RefCell<BTreeSet<u32>>,
    /// Rows that are left to this master since it has offered the ledger to another; None before.
    only: RefCell<Option<BTreeSet<u32>>>,
    workers: Rc<Workers>,
}

/// Living workers, whichever ledger has their rows: when metrics begin anew, those of the last generation still drain.
#[derive(Default)]
struct Workers {
    count: Cell<usize>,
    /// The ledger that shows it.
    shown_in: RefCell<Weak<Ledger>>,
}

impl Workers {
    fn are(&self, count: usize) {
        self.count.set(count);
        if let Some(ledger) = self.shown_in.borrow().upgrade() {
            ledger.metrics.workers_are(count);
        }
    }
}

/// A row in the hands of one worker, until this is dropped, which must not be before the worker's end.
pub struct RowLease {
    ledger: Rc<Ledger>,
    /// Number of the row. Row 0 is the master's.
    pub row: u32,
}

impl Ledger {
    /// Returns the old ledger, with all that was counted, unless it must have another size or has turned out too small: then a
    /// new one, which begins at 0 as after a start. The error is lines for a person. `started` is the master's start.
    pub fn of(
        max_series: u32,
        old: Option<&Rc<Self>>,
        started: SystemTime,
    ) -> Result<Rc<Self>, String> {
        let workers = old.map(|old| Rc::clone(&old.workers)).unwrap_or_default();
        if let Some(old) = old.filter(|old| old.max_series == max_series) {
            let refused = old.metrics.zone().refused();
            if refused == 0 {
                return Ok(Rc::clone(old));
            }
            tracing::warn!(
                refused,
                max_series,
                "metrics.max_series is too small: series had no room; all metrics begin anew"
            );
        }
        let metrics = MasterMetrics::new(max_series, started).map_err(|e| e.to_string())?;
        Ok(Rc::new(Self {
            metrics,
            max_series,
            taken: RefCell::default(),
            foreign: RefCell::default(),
            only: RefCell::default(),
            workers,
        }))
    }

    /// The metrics that another master hands over, with all that was counted; its rows are left to it. `None`, with a
    /// warning, when they were made in a way that this version does not know: they begin anew. `started` is the
    /// gateway's start.
    pub fn inherit(handed_over: InheritedMetrics, started: SystemTime) -> Option<Rc<Self>> {
        let InheritedMetrics {
            max_series,
            memory,
            rows,
        } = handed_over;
        let metrics = MetricsZone::open(memory, max_series)
            .and_then(|zone| MasterMetrics::over(zone, started))
            .inspect_err(|error| tracing::warn!(%error, "all metrics begin anew"))
            .ok()?;
        Some(Rc::new(Self {
            metrics,
            max_series,
            taken: RefCell::default(),
            foreign: RefCell::new(rows.into_iter().collect()),
            only: RefCell::default(),
            workers: Rc::default(),
        }))
    }

    /// Tells another master which rows are this one's for as long as it lives, those of its workers and some more for
    /// workers that take a dead one's place.
    pub fn offer(&self) -> Vec<u32> {
        let mut only = self.taken.borrow().clone();
        let foreign = self.foreign.borrow();
        let free = (1..MetricsZone::ROWS).filter(|row| !foreign.contains(row));
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

    /// Takes an offer back of which nothing came: this generation serves. Returns the rows that the other master's workers may have; they
    /// are theirs until [`Self::forget`].
    pub fn keep(self: &Rc<Self>, generation: u64) -> Vec<u32> {
        let only = self.only.take().unwrap_or_default();
        self.begins();
        self.metrics.generation_serves(generation);
        let mut foreign = self.foreign.borrow_mut();
        let rows = 1..self.metrics.zone().rows();
        let left: Vec<u32> = rows
            .filter(|row| !only.contains(row) && !foreign.contains(row))
            .collect();
        foreign.extend(&left);
        left
    }

    /// Frees rows whose workers have ended.
    pub fn forget(&self, rows: &[u32]) {
        for row in rows {
            if self.foreign.borrow_mut().remove(row) {
                forget_gauges(self.metrics.zone(), *row);
            }
        }
    }

    /// Leaves the metrics to the other master, which has begun to show them: this one's workers go on counting, and it shows no
    /// number of its own.
    pub fn let_go(&self) {
        self.workers.shown_in.replace(Weak::new());
    }

    /// Frees the rows of the master that has handed them over: it has ended, and so have its workers.
    pub fn is_alone(&self) {
        for row in self.foreign.take() {
            forget_gauges(self.metrics.zone(), row);
        }
    }

    /// Series that the memory has room for.
    pub fn max_series(&self) -> u32 {
        self.max_series
    }

    /// Makes this ledger the one that is shown, from now on.
    pub fn begins(self: &Rc<Self>) {
        self.metrics.of_this_build();
        self.workers.shown_in.replace(Rc::downgrade(self));
        self.workers.are(self.workers.count.get());
    }

    /// A row that no living worker has; `None`, and a line in the log, when there is none or no memory for it.
    pub fn lease(self: &Rc<Self>) -> Option<RowLease> {
        let free = {
            let (taken, foreign) = (self.taken.borrow(), self.foreign.borrow());
            let only = self.only.borrow();
            let is_free = |row: &u32| {
                let ours = only.as_ref().is_none_or(|only| only.contains(row));
                ours && !taken.contains(row) && !foreign.contains(row)
            };
            (1..MetricsZone::ROWS).find(is_free)
        };
        let Some(row) = free else {
            let rows = MetricsZone::ROWS;
            tracing::warn!(rows, "too many workers: one is not counted in the metrics");
            return None;
        };
        if let Err(error) = self.metrics.zone().take_row(row) {
            tracing::warn!(%error, "a worker is not counted in the metrics");
            return None;
        }
        self.taken.borrow_mut().insert(row);
        self.workers.are(self.workers.count.get() + 1);
        Some(RowLease {
            ledger: Rc::clone(self),
            row,
        })
    }

    /// The memory, for workers.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.metrics.descriptor()
    }

    /// Counters of the master itself.
    pub fn metrics(&self) -> &MasterMetrics {
        &self.metrics
    }

    /// All metrics, in Prometheus' text format.
    pub fn text(&self) -> String {
        text(self.metrics.zone())
    }
}

/// Rows that a master keeps beyond its workers' when it offers its metrics to another: so many of its workers may die before
/// it ends and still be counted in their successors.
const SPARE_ROWS: usize = 64;

impl Drop for RowLease {
    fn drop(&mut self) {
        forget_gauges(self.ledger.metrics.zone(), self.row);
        self.ledger.taken.borrow_mut().remove(&self.row);
        let workers = &self.ledger.workers;
        workers.are(workers.count.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(ledger: &Ledger, name: &str) -> Option<f64> {
        let text = ledger.text();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map(|value| value.parse().unwrap())
    }

    #[test]
    fn a_master_that_takes_over_counts_on_and_leaves_the_old_ones_rows_alone() {
        let started = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1000);
        let old = Ledger::of(1024, None, started).unwrap();
        let old_worker = old.lease().unwrap();
        old.begins();
        old.metrics().worker_died();
        let handed_over = || InheritedMetrics {
            max_series: 1024,
            memory: old.descriptor().try_clone_to_owned().unwrap(),
            rows: old.offer(),
        };
        let new = Ledger::inherit(handed_over(), started).unwrap();
        let new_worker = new.lease().unwrap();
        let replacement = old.lease().unwrap();
        assert_eq!(
            [old_worker.row, replacement.row, new_worker.row],
            [1, 2, 66]
        );
        new.begins();
        let build = format!(
            "castling_build_info{{version=\"{}\"}}",
            env!("CARGO_PKG_VERSION")
        );
        assert_eq!(shown(&new, &build), Some(1.0));
        old.let_go();
        drop((old_worker, replacement));
        assert_eq!(shown(&new, "castling_workers"), Some(1.0));
        assert_eq!(shown(&new, "castling_worker_deaths_total"), Some(1.0));
        assert_eq!(shown(&new, "castling_start_time_seconds"), Some(1000.0));
        new.is_alone();
        assert_eq!(new.lease().unwrap().row, 1);

        let other_layout = InheritedMetrics {
            max_series: 4096,
            ..handed_over()
        };
        assert!(Ledger::inherit(other_layout, started).is_none());
    }

    #[test]
    fn what_the_workers_of_a_newcomer_that_failed_have_is_theirs_until_it_is_forgotten() {
        let started = SystemTime::UNIX_EPOCH;
        let old = Ledger::of(1024, None, started).unwrap();
        let _worker = old.lease().unwrap();
        let handed_over = InheritedMetrics {
            max_series: 1024,
            memory: old.descriptor().try_clone_to_owned().unwrap(),
            rows: old.offer(),
        };
        let newcomer = Ledger::inherit(handed_over, started).unwrap();
        let its_worker = newcomer.lease().unwrap();
        let left = old.keep(1);
        assert!(left.contains(&its_worker.row), "{left:?}");
        let mut leased = Vec::new();
        leased.extend((0..70).map(|_| old.lease().unwrap()));
        assert!(leased.iter().all(|lease| lease.row != its_worker.row));
        old.forget(&left);
        leased.extend((0..70).map(|_| old.lease().unwrap()));
        assert!(leased.iter().any(|lease| lease.row == its_worker.row));
    }

    #[test]
    fn metrics_that_begin_anew_know_the_start_and_all_workers() {
        let started = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1000);
        let first = Ledger::of(1024, None, started).unwrap();
        let mut draining = vec![first.lease().unwrap(), first.lease().unwrap()];
        first.begins();
        assert_eq!(shown(&first, "castling_workers"), Some(2.0));
        let refused = Ledger::of(2048, Some(&first), started).unwrap();
        let lease = refused.lease();
        assert_eq!(shown(&first, "castling_workers"), Some(3.0));
        drop((lease, refused));
        assert_eq!(shown(&first, "castling_workers"), Some(2.0));

        let anew = Ledger::of(2048, Some(&first), started).unwrap();
        let _serving = anew.lease().unwrap();
        anew.begins();
        assert_eq!(shown(&anew, "castling_workers"), Some(3.0));
        draining.pop();
        assert_eq!(shown(&anew, "castling_workers"), Some(2.0));
        draining.pop();
        assert_eq!(shown(&anew, "castling_workers"), Some(1.0));
        assert_eq!(shown(&anew, "castling_start_time_seconds"), Some(1000.0));
    }
}
