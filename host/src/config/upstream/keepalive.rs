//! `keepalive` of an upstream: connections to its peers that are kept.

use std::num::NonZeroU32;
use std::time::Duration;

use super::super::PeerKeepalive;
use super::super::sections::TIMEOUT;
use super::super::table::{Table, Value};

pub(super) fn keepalive(mut table: Table<'_>) -> PeerKeepalive {
    let usual = DEFAULT_KEEPALIVE;
    let timeout = |value: Value<'_>| value.duration(TIMEOUT);
    let keepalive = PeerKeepalive {
        connections: table.or("connections", usual.connections, |value| {
            value.integer(0..=65535)
        }),
        timeout: table.or("timeout", usual.timeout, timeout),
        max_age: table.or("max_age", usual.max_age, timeout),
        max_requests: table.optional("max_requests", |value| {
            value.integer(1..=u32::MAX.into()).and_then(NonZeroU32::new)
        }),
    };
    table.finish();
    keepalive
}

pub(super) const DEFAULT_KEEPALIVE: PeerKeepalive = PeerKeepalive {
    connections: 16384,
    timeout: Duration::from_secs(60),
    max_age: Duration::from_secs(60 * 60),
    max_requests: None,
};
