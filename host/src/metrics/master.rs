//! Metrics of the master.

use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{SystemTime, UNIX_EPOCH};

use castling_abi::MetricKind;

use super::own::{Own, own};
use super::{
    FIRST_GENERATION, Labels, RecordKind, Stamps, add, add_series, define, gauge_bits,
    read_record_text,
};
use crate::zone::{MetricsZone, Record, ZoneError};

/// Metrics of the master, which keeps the zone. Its row is 0.
pub struct MasterMetrics {
    zone: MetricsZone,
    build: Option<Record>,
    generation: Option<Record>,
    workers: Option<Record>,
    deaths: Option<Record>,
    silent: Option<Record>,
    orders_issued: Option<Record>,
    orders_failed: Option<Record>,
    reloads_ok: Option<Record>,
    reloads_refused: Option<Record>,
}

impl MasterMetrics {
    /// Makes the zone of a master that has started then. Fails when memory does not suffice.
    pub fn new(max_series: u32, started: SystemTime) -> Result<Self, ZoneError> {
        Self::over(MetricsZone::create(max_series)?, started)
    }

    /// Opens them over a zone that another master may have counted in.
    pub fn over(zone: MetricsZone, started: SystemTime) -> Result<Self, ZoneError> {
        zone.take_row(MASTER_ROW)?;
        let stamps = Stamps::of_serving(FIRST_GENERATION);
        let record = |own: &Own, labels: &[(&str, &str)]| {
            define(&zone, &stamps, own.kind, own.name, own.help);
            let labels = Labels::new(labels.iter().copied());
            let added = add_series(&zone, &stamps, own.kind, own.name, &labels, &[]);
            added.map(|(record, _)| record)
        };
        let start = record(&START, &[]);
        let metrics = Self {
            build: record(&BUILD, &[("version", env!("CARGO_PKG_VERSION"))]),
            generation: record(&GENERATION, &[]),
            workers: record(&WORKERS, &[]),
            deaths: record(&DEATHS, &[]),
            silent: record(&SILENT, &[]),
            orders_issued: record(&ORDERS, &[("result", "issued")]),
            orders_failed: record(&ORDERS, &[("result", "failed")]),
            reloads_ok: record(&RELOADS, &[("result", "ok")]),
            reloads_refused: record(&RELOADS, &[("result", "refused")]),
            zone,
        };
        let started = started.duration_since(UNIX_EPOCH).unwrap_or_default();
        metrics.set(start, started.as_secs_f64());
        Ok(metrics)
    }

    /// The gateway is of this build from now on, whatever it was of before.
    pub fn of_this_build(&self) {
        self.zone.for_each(|byte, text, record| {
            let is_build = RecordKind::from_byte(byte) == Some(RecordKind::Series(BUILD.kind))
                && read_record_text(text).is_some_and(|(name, _, _)| name == BUILD.name);
            if is_build {
                self.set(Some(record), 0.0);
            }
        });
        self.set(self.build, 1.0);
    }

    /// Descriptor for workers.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.zone.descriptor()
    }

    pub fn zone(&self) -> &MetricsZone {
        &self.zone
    }

    pub fn generation_serves(&self, number: u64) {
        self.set(self.generation, number as f64);
    }

    pub fn workers_are(&self, count: usize) {
        self.set(self.workers, count as f64);
    }

    pub fn worker_died(&self) {
        self.count(self.deaths);
    }

    pub fn worker_silent(&self) {
        self.count(self.silent);
    }

    /// An order of a certificate is over.
    pub fn certificate_ordered(&self, is_issued: bool) {
        self.count(match is_issued {
            true => self.orders_issued,
            false => self.orders_failed,
        });
    }

    /// A question for the addresses of an upstream's peers is over.
    pub fn resolved(&self, upstream: &str, is_ok: bool) {
        let result = if is_ok { "ok" } else { "failed" };
        let labels = [("upstream", upstream), ("result", result)];
        self.count(self.series(&RESOLUTIONS, &labels));
    }

    /// An upstream has so many peers.
    pub fn peers_are(&self, upstream: &str, count: usize) {
        let record = self.series(&PEERS, &[("upstream", upstream)]);
        self.set(record, count as f64);
    }

    /// So many of an upstream's peers are in this state.
    pub fn peers_by_state(&self, upstream: &str, state: &str, count: usize) {
        let record = self.series(&PEER_STATES, &[("upstream", upstream), ("state", state)]);
        self.set(record, count as f64);
    }

    /// The series of these labels, which is added where it is not there.
    fn series(&self, own: &Own, labels: &[(&str, &str)]) -> Option<Record> {
        let stamps = Stamps::of_serving(FIRST_GENERATION);
        define(&self.zone, &stamps, own.kind, own.name, own.help);
        let labels = Labels::new(labels.iter().copied());
        let added = add_series(&self.zone, &stamps, own.kind, own.name, &labels, &[]);
        added.map(|(record, _)| record)
    }

    pub fn reloaded(&self, ok: bool) {
        self.count(if ok {
            self.reloads_ok
        } else {
            self.reloads_refused
        });
    }

    fn set(&self, record: Option<Record>, value: f64) {
        if let Some(cell) = self.cell(record) {
            cell.store(gauge_bits(value), Relaxed);
        }
    }

    fn count(&self, record: Option<Record>) {
        if let Some(cell) = self.cell(record) {
            add(cell, 1.0);
        }
    }

    fn cell(&self, record: Option<Record>) -> Option<&std::sync::atomic::AtomicU64> {
        self.zone.row(MASTER_ROW)?.get(record?.first_cell)
    }
}

const MASTER_ROW: u32 = 0;

const BUILD: Own = own(
    MetricKind::Gauge,
    "castling_build_info",
    "1; the version is in the label. 0: of a version that was upgraded.",
);
const DEATHS: Own = own(
    MetricKind::Counter,
    "castling_worker_deaths_total",
    "Workers that ended though nobody had told them to.",
);
const GENERATION: Own = own(
    MetricKind::Gauge,
    "castling_generation",
    "Number of the generation that serves.",
);
const ORDERS: Own = own(
    MetricKind::Counter,
    "castling_acme_orders_total",
    "Orders of certificates that are over, by result.",
);
const PEERS: Own = own(
    MetricKind::Gauge,
    "castling_upstream_peers",
    "Peers that an upstream has.",
);
const PEER_STATES: Own = own(
    MetricKind::Gauge,
    "castling_upstream_peer_states",
    "Peers of an upstream by whether requests are sent to them: up, or else why not.",
);
const RELOADS: Own = own(
    MetricKind::Counter,
    "castling_reloads_total",
    "Reloads, by result.",
);
const RESOLUTIONS: Own = own(
    MetricKind::Counter,
    "castling_upstream_resolutions_total",
    "Questions for the addresses of an upstream's peers, by result.",
);
const SILENT: Own = own(
    MetricKind::Counter,
    "castling_workers_silent_total",
    "Workers killed because they did not answer in `workers.heartbeat_timeout`.",
);
const START: Own = own(
    MetricKind::Gauge,
    "castling_start_time_seconds",
    "When the gateway started, in seconds since 1970-01-01 UTC; an upgrade is no start.",
);
const WORKERS: Own = own(
    MetricKind::Gauge,
    "castling_workers",
    "Worker processes, draining ones included.",
);
