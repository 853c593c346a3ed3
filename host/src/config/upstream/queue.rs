//! `queue` of an upstream: requests that wait for a peer with room.

use std::time::Duration;

use super::super::Queue;
use super::super::sections::TIMEOUT;
use super::super::table::Value;

pub(super) fn queue(value: Value<'_>) -> Option<Queue> {
    let mut table = value.table()?;
    let queue = Queue {
        size: table.or("size", DEFAULT.size, |value| value.integer(0..=100_000)),
        timeout: table.or("timeout", DEFAULT.timeout, |value| value.duration(TIMEOUT)),
    };
    table.finish();
    Some(queue)
}

pub(super) const DEFAULT: Queue = Queue {
    size: 0,
    timeout: Duration::from_secs(1),
};
