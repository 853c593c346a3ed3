//! `keepalive` of an upstream: connections to its peers that are kept.

use std::num::NonZeroU32;
use std::time::Duration;

use super::super::PeerKeepalive;
use super::super::sections::TIMEOUT;
use super::super::table::{Table, Value};

/// `peers`: how many there are. `is_kept`: whether connections can be kept at all.
pub(super) fn keepalive(mut table: Table<'_>, peers: usize, is_kept: bool) -> PeerKeepalive {
    let usual = DEFAULT_KEEPALIVE;
    let timeout = |value: Value<'_>| value.duration(TIMEOUT);
    let connections = table.or("connections", usual.connections, |value| {
        value.integer(0..=65535)
    });
    let keepalive = PeerKeepalive {
        connections,
        min_idle: table.or("min_idle", usual.min_idle, |value| {
            let min_idle = value.integer(0..=1024)?;
            if min_idle > 0 && !is_kept {
                return value
                    .expected("0: with `proxy_protocol`, a connection is for one client alone");
            }
            match min_idle * peers.max(1) <= connections {
                true => Some(min_idle),
                false => value.expected(format_args!(
                    "as many for {peers} peers as fit into connections = {connections}"
                )),
            }
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
    min_idle: 0,
};
