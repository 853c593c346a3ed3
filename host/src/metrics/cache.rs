//! Metrics of caches.

use castling_abi::MetricKind;

use super::own::{Own, own};
use super::{Count, Recorder};

const REQUESTS: Own = own(
    MetricKind::Counter,
    "castling_cache_requests_total",
    "Requests of routes with a cache, by what became of them: hit, stale, revalidated, miss, bypass or past (not for the cache).",
);

const EVENTS: Own = own(
    MetricKind::Counter,
    "castling_cache_events_total",
    "Events of caches: responses stored, not stored by their rules, or too large; stale ones refreshed meanwhile; keys invalidated; reads and writes of the zone failed.",
);

/// Counts of what a cache has done.
#[derive(Clone, Copy, Default)]
pub struct CacheMetrics {
    pub hit: Count,
    /// Stale responses that were sent.
    pub stale: Count,
    /// Stale responses that the origin has said are good.
    pub revalidated: Count,
    pub miss: Count,
    /// Requests that the config has the origin asked for.
    pub bypass: Count,
    /// Requests that are not for a cache, by their method or by what they ask for.
    pub past: Count,
    pub stored: Count,
    pub not_stored: Count,
    pub too_large: Count,
    /// Stale responses that were fetched anew while they were sent.
    pub refreshed: Count,
    pub invalidated: Count,
    pub failed: Count,
}

impl Recorder {
    /// Metrics of the cache in this zone.
    pub fn cache(&self, zone: &str) -> CacheMetrics {
        let requests = |result| self.own_counter(&REQUESTS, &[("zone", zone), ("result", result)]);
        let events = |event| self.own_counter(&EVENTS, &[("zone", zone), ("event", event)]);
        CacheMetrics {
            hit: requests("hit"),
            stale: requests("stale"),
            revalidated: requests("revalidated"),
            miss: requests("miss"),
            bypass: requests("bypass"),
            past: requests("past"),
            stored: events("stored"),
            not_stored: events("not_stored"),
            too_large: events("too_large"),
            refreshed: events("refreshed"),
            invalidated: events("invalidated"),
            failed: events("failed"),
        }
    }
}
