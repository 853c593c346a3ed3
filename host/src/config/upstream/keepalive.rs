//! `keepalive` of an upstream: idle connections to its peers.

use std::time::Duration;

use super::super::sections::TIMEOUT;
use super::super::table::Table;

pub(super) struct Keepalive {
    pub connections: usize,
    pub timeout: Duration,
}

pub(super) fn keepalive(mut table: Table<'_>) -> Keepalive {
    let keepalive = Keepalive {
        connections: table.or("connections", DEFAULT_KEEPALIVE.connections, |value| {
            value.integer(0..=65535)
        }),
        timeout: table.or("timeout", DEFAULT_KEEPALIVE.timeout, |value| {
            value.duration(TIMEOUT)
        }),
    };
    table.finish();
    keepalive
}

pub(super) const DEFAULT_KEEPALIVE: Keepalive = Keepalive {
    connections: 16384,
    timeout: Duration::from_secs(60),
};
