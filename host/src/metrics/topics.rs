//! Metrics of topics.

use castling_abi::MetricKind;

use super::own::{Own, own};
use super::{Count, Recorder};

const HEARD: Own = own(
    MetricKind::Counter,
    "castling_topic_messages_total",
    "Messages of a topic that `message` hooks were called for.",
);
const LOST: Own = own(
    MetricKind::Counter,
    "castling_topic_messages_lost_total",
    "Messages of a topic that a plugin was too slow for in a worker, or that were never written to their end.",
);

/// Messages of a topic, as one plugin hears them.
#[derive(Clone, Copy)]
pub struct TopicMetrics {
    pub heard: Count,
    pub lost: Count,
}

impl Recorder {
    /// Metrics of a topic that a plugin hears.
    pub fn topic(&self, zone: &str, plugin: &str) -> TopicMetrics {
        let count = |metric| self.own_counter(metric, &[("zone", zone), ("plugin", plugin)]);
        TopicMetrics {
            heard: count(&HEARD),
            lost: count(&LOST),
        }
    }
}
