//! Metrics of sessions that are learnt.

use castling_abi::MetricKind;

use super::own::{Own, own};
use super::{Count, Recorder};

const SESSIONS: Own = own(
    MetricKind::Counter,
    "castling_upstream_sessions_total",
    "Sessions that are learnt, by event: learnt, moved to another peer, or not kept because the zone is full or fails.",
);

/// Sessions of an upstream, by what became of them.
#[derive(Clone, Copy, Default)]
pub struct SessionMetrics {
    pub learnt: Count,
    /// Sessions whose peer was gone, or could not take a request.
    pub moved: Count,
    /// Reads and writes of the zone that have failed.
    pub failed: Count,
}

impl Recorder {
    /// Metrics of an upstream that learns sessions.
    pub fn sessions(&self, upstream: &str) -> SessionMetrics {
        let events =
            |event| self.own_counter(&SESSIONS, &[("upstream", upstream), ("event", event)]);
        SessionMetrics {
            learnt: events("learnt"),
            moved: events("moved"),
            failed: events("failed"),
        }
    }
}
