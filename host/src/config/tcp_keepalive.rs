//! `tcp_keepalive` of a listener or an upstream.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::TcpKeepalive;
use super::table::Value;
use super::tree::NodeKind;

/// `true`, or a table that says more.
pub(super) fn tcp_keepalive(value: Value<'_>) -> Option<Option<TcpKeepalive>> {
    let usual = TcpKeepalive {
        idle_seconds: 7200,
        interval_seconds: 75,
        count: 9,
    };
    if let NodeKind::Boolean(is_on) = value.kind() {
        return Some(is_on.then_some(usual));
    }
    let NodeKind::Table(_) = value.kind() else {
        return value.expected("true, false or { idle = \"60s\", interval = \"10s\", count = 5 }");
    };
    let mut table = value.table()?;
    // Range that Linux takes.
    let period = |value| seconds(value, 1..=32767);
    let keepalive = TcpKeepalive {
        idle_seconds: table.or("idle", usual.idle_seconds, period),
        interval_seconds: table.or("interval", usual.interval_seconds, period),
        count: table.or("count", usual.count, |value| value.integer(1..=127)),
    };
    table.finish();
    Some(Some(keepalive))
}

/// Whole seconds: the kernel counts no others.
pub(super) fn seconds(value: Value<'_>, range: RangeInclusive<u32>) -> Option<u32> {
    let from_seconds = |seconds: &u32| Duration::from_secs((*seconds).into());
    let duration = value.duration(from_seconds(range.start())..=from_seconds(range.end()))?;
    match u32::try_from(duration.as_secs()) {
        Ok(seconds) if duration.subsec_nanos() == 0 => Some(seconds),
        Ok(_) | Err(_) => value.expected("whole seconds"),
    }
}
