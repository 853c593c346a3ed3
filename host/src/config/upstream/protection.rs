//! `breaker`, `concurrency` and limits of responses of an upstream.

use std::time::Duration;

use super::super::table::{Table, Value};
use super::super::{Breaker, Concurrency, ResponseLimits};

pub(super) fn breaker(value: Value<'_>) -> Option<Breaker> {
    let mut table = value.table()?;
    let most = |value: Value<'_>| value.integer(1..=MOST);
    let breaker = Breaker {
        connections: table.optional("connections", most),
        pending: table.optional("pending", most),
        active: table.optional("active", most),
        retries: table.optional("retries", |value| value.integer(0..=MOST)),
    };
    table.finish();
    Some(breaker)
}

const MOST: u64 = 1_000_000;

pub(super) fn concurrency(value: Value<'_>) -> Option<Concurrency> {
    let mut table = value.table()?;
    let min = table.or("min", 10, |value| value.integer(1..=100_000));
    let max = table.or("max", u32::max(min, 1000), |value| {
        match value.integer(1..=MOST)? {
            max if max < min => value.expected("no less than `min`"),
            max => Some(max),
        }
    });
    let initial = table.or("initial", 100.clamp(min, max.max(min)), |value| match value
        .integer(1..=MOST)?
    {
        initial if (min..=max).contains(&initial) => Some(initial),
        _ => value.expected("`min` to `max`"),
    });
    let concurrency = Concurrency {
        min,
        max,
        initial,
        tolerance: table.or("tolerance", 1.2, |value| value.number(1.0..=10.0)),
        queue_time: table.or("queue_time", Duration::ZERO, |value| {
            value.duration(Duration::ZERO..=Duration::from_secs(60))
        }),
    };
    table.finish();
    Some(concurrency)
}

/// Keys of an upstream or a route.
pub(in super::super) fn max_response(table: &mut Table<'_>) -> Option<u64> {
    table.optional("max_response", |value| value.size(0..=1 << 50))
}

/// Bytes a second.
pub(in super::super) fn response_rate(table: &mut Table<'_>) -> Option<u64> {
    table.optional("response_rate", |value| value.size(0..=1 << 40))
}

pub(super) fn response_limits(table: &mut Table<'_>) -> ResponseLimits {
    ResponseLimits {
        max_bytes: max_response(table).unwrap_or(0),
        rate: response_rate(table).unwrap_or(0),
    }
}
