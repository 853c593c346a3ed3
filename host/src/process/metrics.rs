//! The metrics' memory, as the master keeps it: which worker has which row of it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;
use std::rc::{Rc, Weak};
use std::time::SystemTime;

use crate::metrics::{MasterMetrics, forget_gauges, text};
use crate::zone::MetricsZone;

/// The metrics of a gateway, over its generations.
pub struct Ledger {
    metrics: MasterMetrics,
    max_series: u32,
    /// Rows of living workers. Row 0 is the master's.
    taken: RefCell<BTreeSet<u32>>,
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
    pub row: u32,
}

impl Ledger {
    /// The old one, with all that was counted, unless it must have another size or has turned out too small: then a new
    /// one, which begins at 0 as after a start. The error is lines for a person. `started` is the master's start.
    pub fn of(
        max_series: u32,
        old: Option<&Rc<Self>>,
        started: SystemTime,
    ) -> Result<Rc<Self>, Vec<String>> {
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
        let metrics = MasterMetrics::new(max_series, started).map_err(|e| vec![e.to_string()])?;
        Ok(Rc::new(Self {
            metrics,
            max_series,
            taken: RefCell::default(),
            workers,
        }))
    }

    /// It is the one that is shown, from now on.
    pub fn begins(self: &Rc<Self>) {
        self.workers.shown_in.replace(Rc::downgrade(self));
        self.workers.are(self.workers.count.get());
    }

    /// A row that no living worker has; `None`, and a line in the log, when there is none or no memory for it.
    pub fn lease(self: &Rc<Self>) -> Option<RowLease> {
        let free = {
            let taken = self.taken.borrow();
            (1..MetricsZone::ROWS).find(|row| !taken.contains(row))
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

    /// For workers.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.metrics.descriptor()
    }

    /// What the master itself counts.
    pub fn metrics(&self) -> &MasterMetrics {
        &self.metrics
    }

    /// All of it, in Prometheus' text format.
    pub fn text(&self) -> String {
        text(self.metrics.zone())
    }
}

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
