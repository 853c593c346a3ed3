//! Metrics of gauge zones.

use castling_abi::MetricKind;

use super::own::{Own, own};
use super::{Count, Gauge, Recorder};

const PERMITS: Own = own(
    MetricKind::Gauge,
    "castling_zone_permits",
    "Permits of a gauge zone that requests hold.",
);
const REFUSED: Own = own(
    MetricKind::Counter,
    "castling_zone_permits_refused_total",
    "Permits that were not given, by reason: as many were out as may be, or the zone has no room for the key.",
);

/// Permits of a gauge zone.
#[derive(Clone, Copy, Default)]
pub struct PermitMetrics {
    /// Permits that this worker has out.
    pub out: Gauge,
    /// Permits refused because as many were out as may be.
    pub refused: Count,
    pub full: Count,
}

impl Recorder {
    /// Metrics of a gauge zone.
    pub fn permits(&self, zone: &str) -> PermitMetrics {
        let refused = |reason| self.own_counter(&REFUSED, &[("zone", zone), ("reason", reason)]);
        PermitMetrics {
            out: self.own_gauge(&PERMITS, &[("zone", zone)]),
            refused: refused("max"),
            full: refused("full"),
        }
    }
}
