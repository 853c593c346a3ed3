//! The metrics' memory, as the master keeps it.

use std::cell::{Cell, RefCell};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::rc::{Rc, Weak};
use std::time::SystemTime;

use crate::metrics::{MasterMetrics, forget_gauges, text};
use crate::zone::MetricsZone;

/// The metrics of a gateway, over its generations.
pub struct Ledger {
    metrics: MasterMetrics,
    max_series: u32,
    workers: Rc<Workers>,
}

/// Memory of the metrics.
pub struct InheritedMetrics {
    pub max_series: u32,
    pub memory: OwnedFd,
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

/// A worker that counts in a row of the ledger, until this is dropped, which must not be before the worker's end.
pub struct CountedWorker {
    ledger: Rc<Ledger>,
    row: u32,
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
            workers,
        }))
    }

    /// The metrics that another master hands over, with all that was counted. `None`, with a warning, when they were made in a way that this version does not know: they begin anew. `started` is the
    /// gateway's start.
    pub fn inherit(handed_over: InheritedMetrics, started: SystemTime) -> Option<Rc<Self>> {
        let InheritedMetrics { max_series, memory } = handed_over;
        let metrics = MetricsZone::open(memory, max_series)
            .and_then(|zone| MasterMetrics::over(zone, started))
            .inspect_err(|error| tracing::warn!(%error, "all metrics begin anew"))
            .ok()?;
        Some(Rc::new(Self {
            metrics,
            max_series,
            workers: Rc::default(),
        }))
    }

    /// Takes the metrics back that were offered to another master: this one's generation serves.
    pub fn keep(self: &Rc<Self>, generation: u64) {
        self.begins();
        self.metrics.generation_serves(generation);
    }

    /// Forgets what a worker with this row had under way, which has ended.
    pub fn forget(&self, row: u32) {
        forget_gauges(self.metrics.zone(), row);
    }

    /// Leaves the metrics to the other master, which has begun to show them: this one's workers go on counting, and it shows no
    /// number of its own.
    pub fn let_go(&self) {
        self.workers.shown_in.replace(Weak::new());
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

    /// Counts a worker that has this row, which no other has; `None`, and a line in the log, when there is no memory for it.
    pub fn count(self: &Rc<Self>, row: u32) -> Option<CountedWorker> {
        if let Err(error) = self.metrics.zone().take_row(row) {
            tracing::warn!(%error, "a worker is not counted in the metrics");
            return None;
        }
        self.workers.are(self.workers.count.get() + 1);
        Some(CountedWorker {
            ledger: Rc::clone(self),
            row,
        })
    }

    /// Rows that some process has counted in at some time: those below this number.
    pub fn rows(&self) -> u32 {
        self.metrics.zone().rows()
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

impl Drop for CountedWorker {
    fn drop(&mut self) {
        self.ledger.forget(self.row);
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
    fn a_master_that_takes_over_counts_on() {
        let started = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1000);
        let old = Ledger::of(1024, None, started).unwrap();
        let old_worker = old.count(1).unwrap();
        old.begins();
        old.metrics().worker_died();
        let handed_over = || InheritedMetrics {
            max_series: 1024,
            memory: old.descriptor().try_clone_to_owned().unwrap(),
        };
        let new = Ledger::inherit(handed_over(), started).unwrap();
        let _new_worker = new.count(66).unwrap();
        let replacement = old.count(2).unwrap();
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

        let other_layout = InheritedMetrics {
            max_series: 4096,
            ..handed_over()
        };
        assert!(Ledger::inherit(other_layout, started).is_none());
    }

    #[test]
    fn metrics_that_begin_anew_know_the_start_and_all_workers() {
        let started = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1000);
        let first = Ledger::of(1024, None, started).unwrap();
        let mut draining = vec![first.count(1).unwrap(), first.count(2).unwrap()];
        first.begins();
        assert_eq!(shown(&first, "castling_workers"), Some(2.0));
        let refused = Ledger::of(2048, Some(&first), started).unwrap();
        let counted = refused.count(3);
        assert_eq!(shown(&first, "castling_workers"), Some(3.0));
        drop((counted, refused));
        assert_eq!(shown(&first, "castling_workers"), Some(2.0));

        let anew = Ledger::of(2048, Some(&first), started).unwrap();
        let _serving = anew.count(3).unwrap();
        anew.begins();
        assert_eq!(shown(&anew, "castling_workers"), Some(3.0));
        draining.pop();
        assert_eq!(shown(&anew, "castling_workers"), Some(2.0));
        draining.pop();
        assert_eq!(shown(&anew, "castling_workers"), Some(1.0));
        assert_eq!(shown(&anew, "castling_start_time_seconds"), Some(1000.0));
    }
}
