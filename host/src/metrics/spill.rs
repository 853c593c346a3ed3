//! Metrics of bodies that are spilled.

use castling_abi::MetricKind;

use super::own::{Own, own};
use super::{Count, Gauge, Recorder};

const BODIES: Own = own(
    MetricKind::Counter,
    "castling_spilled_bodies_total",
    "Requests' bodies that were kept on disk in part, to be sent again.",
);
const REFUSED: Own = own(
    MetricKind::Counter,
    "castling_spill_refused_total",
    "Requests' bodies that were given up to be kept, by reason: the worker has as many bytes on disk as it may, or a write has failed.",
);
const BYTES: Own = own(
    MetricKind::Gauge,
    "castling_spill_bytes",
    "Bytes of spill files that requests' bodies have now.",
);

const MISSING: Own = own(
    MetricKind::Gauge,
    "castling_spill_files_missing",
    "Workers that have no spill file, since workers.spill_dir could not be used when they started: they keep bodies in memory alone.",
);

/// Metrics of a worker's spill file.
#[derive(Clone, Copy, Default)]
pub struct SpillMetrics {
    /// Bodies that were written in part.
    pub bodies: Count,
    /// Bodies that were given up because the file was full, and because a write has failed.
    pub full: Count,
    pub failed: Count,
    /// Bytes of blocks in use.
    pub bytes: Gauge,
    /// 1: there is none, though the config says so.
    pub missing: Gauge,
}

impl Recorder {
    pub fn spill(&self) -> SpillMetrics {
        let refused = |reason| self.own_counter(&REFUSED, &[("reason", reason)]);
        SpillMetrics {
            bodies: self.own_counter(&BODIES, &[]),
            full: refused("limit"),
            failed: refused("error"),
            bytes: self.own_gauge(&BYTES, &[]),
            missing: self.own_gauge(&MISSING, &[]),
        }
    }
}
