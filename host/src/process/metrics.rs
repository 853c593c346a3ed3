//! The metrics' memory, as the master keeps it: which worker has which row of it.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::os::fd::BorrowedFd;
use std::rc::Rc;

use crate::config::Config;
use crate::metrics::{MasterMetrics, forget_gauges, text};
use crate::zone::MetricsZone;

/// The metrics of a gateway, over its generations.
pub struct Ledger {
    metrics: MasterMetrics,
    max_series: u32,
    /// Rows of living workers. Row 0 is the master's.
    taken: RefCell<BTreeSet<u32>>,
}

/// A row in the hands of one worker, until this is dropped, which must not be before the worker's end.
pub struct RowLease {
    ledger: Rc<Ledger>,
    pub row: u32,
}

impl Ledger {
    /// The old one, with all that was counted, unless it must have another size or has turned out too small: then a new
    /// one, which begins at 0 as after a start. The error is lines for a person.
    pub fn of(config: &Config, old: Option<&Rc<Self>>) -> Result<Rc<Self>, Vec<String>> {
        let max_series = config.metrics.max_series;
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
        let metrics = MasterMetrics::new(max_series).map_err(|e| vec![e.to_string()])?;
        Ok(Rc::new(Self {
            metrics,
            max_series,
            taken: RefCell::default(),
        }))
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
        self.count_workers();
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

    fn count_workers(&self) {
        self.metrics.workers_are(self.taken.borrow().len());
    }
}

impl Drop for RowLease {
    fn drop(&mut self) {
        forget_gauges(self.ledger.metrics.zone(), self.row);
        self.ledger.taken.borrow_mut().remove(&self.row);
        self.ledger.count_workers();
    }
}
