//! Metrics of what protects upstreams: hedges, limits, mirrors.

use castling_abi::MetricKind;

use super::own::{OVERFLOWS, Own, own};
use super::{Count, Gauge, Recorder};
use crate::config;

const HEDGES: Own = own(
    MetricKind::Counter,
    "castling_upstream_hedges_total",
    "Tries that were begun beside one that was slow.",
);
const HEDGES_WON: Own = own(
    MetricKind::Counter,
    "castling_upstream_hedges_won_total",
    "Responses of tries that were begun beside one that was slow.",
);
const LIMIT: Own = own(
    MetricKind::Gauge,
    "castling_upstream_concurrency_limit",
    "Requests that may be under way, as it was learnt from their latency.",
);
const MIRRORED: Own = own(
    MetricKind::Counter,
    "castling_mirrored_requests_total",
    "Requests of routes with a mirror, by what became of their copies: skipped ones had too large a body, or not all of it.",
);

/// Refusals of an upstream, by the limit that was met.
#[derive(Clone, Copy, Default)]
pub struct ProtectionMetrics {
    pub connections: Count,
    pub pending: Count,
    pub active: Count,
    pub retries: Count,
    pub concurrency: Count,
    /// Learnt limit of the concurrency.
    pub limit: Gauge,
}

/// Copies of requests for one upstream, by what became of them.
#[derive(Clone, Copy, Default)]
pub struct MirrorMetrics {
    pub responded: Count,
    pub failed: Count,
    pub skipped: Count,
    pub over_limit: Count,
}

impl Recorder {
    /// Metrics of an upstream's limits: of those that it has.
    pub fn protection(&self, upstream: &str, limits: &config::Upstream) -> ProtectionMetrics {
        let overflows = |is_there: bool, limit| match is_there {
            true => self.own_counter(&OVERFLOWS, &[("upstream", upstream), ("limit", limit)]),
            false => Count::NOWHERE,
        };
        let breaker = &limits.breaker;
        let is_adaptive = limits.concurrency.is_some();
        ProtectionMetrics {
            connections: overflows(breaker.connections.is_some(), "connections"),
            pending: overflows(breaker.pending.is_some(), "pending"),
            active: overflows(breaker.active.is_some(), "active"),
            retries: overflows(breaker.retries.is_some(), "retries"),
            concurrency: overflows(is_adaptive, "concurrency"),
            limit: match is_adaptive {
                true => self.own_gauge(&LIMIT, &[("upstream", upstream)]),
                false => Gauge::default(),
            },
        }
    }

    pub(super) fn hedges(&self, upstream: &str) -> [Count; 2] {
        [&HEDGES, &HEDGES_WON].map(|own| self.own_counter(own, &[("upstream", upstream)]))
    }

    /// Metrics of the copies that go to this upstream.
    pub fn mirror(&self, upstream: &str) -> MirrorMetrics {
        let copies = |outcome| {
            let labels = [("upstream", upstream), ("outcome", outcome)];
            self.own_counter(&MIRRORED, &labels)
        };
        MirrorMetrics {
            responded: copies("responded"),
            failed: copies("failed"),
            skipped: copies("skipped"),
            over_limit: copies("over_limit"),
        }
    }
}
