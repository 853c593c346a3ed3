//! `resolve` of an upstream: how names of peers become addresses.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::super::table::{Table, Value};
use super::super::tree::NodeKind;
use super::super::{Family, Peer, Resolve};

/// `has_lists`: peers are also in a file or at a URL.
pub(in super::super) fn resolve(
    value: Value<'_>,
    peers: &[Peer],
    has_lists: bool,
) -> Option<Resolve> {
    let mut table = value.table()?;
    if !has_lists && !peers.iter().any(Peer::is_name) {
        return value.refuse("resolve has no effect: expected a peer that is a name");
    }
    let default = Resolve::default();
    let valid = table.optional("valid", |value| value.duration(INTERVAL));
    let min_interval = interval(&mut table, "min_interval", default.min_interval, valid);
    let max_interval = table.or("max_interval", default.max_interval, |value| {
        if valid.is_some() {
            return value.expected(NO_BOUNDS);
        }
        match value.duration(INTERVAL)? {
            short if short < min_interval => value.expected("no less than `min_interval`"),
            interval => Some(interval),
        }
    });
    let resolve = Resolve {
        servers: table.or("servers", Vec::new(), |value| match value.kind() {
            NodeKind::List(items) if items.is_empty() => value.refuse(NO_SERVERS),
            _ => value.list(server),
        }),
        family: table.or("family", default.family, |value| value.choice(&FAMILIES)),
        timeout: table.or("timeout", default.timeout, |value| value.duration(WAIT)),
        min_interval,
        max_interval: max_interval.max(min_interval),
        valid,
        required: table.or("required", default.required, Value::boolean),
    };
    table.finish();
    Some(resolve)
}

fn interval(
    table: &mut Table<'_>,
    key: &'static str,
    default: Duration,
    valid: Option<Duration>,
) -> Duration {
    table.or(key, default, |value| match valid {
        Some(_) => value.expected(NO_BOUNDS),
        None => value.duration(INTERVAL),
    })
}

/// `10.0.0.2`, `10.0.0.2:5353`, `fd00::2`, `[fd00::2]:5353`.
fn server(value: Value<'_>) -> Option<SocketAddr> {
    let text = value.text_or(SERVER_RULE)?;
    let address = text.parse::<IpAddr>().map(|it| SocketAddr::new(it, 53));
    match address.or_else(|_| text.parse()) {
        Ok(server) if server.port() != 0 => Some(server),
        Ok(_) | Err(_) => value.expected(SERVER_RULE),
    }
}

const SERVER_RULE: &str = "the address of a name server such as \"10.0.0.2\" or \"10.0.0.2:5353\"";
const NO_SERVERS: &str =
    "servers is empty: expected at least one; without the key, those of the system are asked";
const NO_BOUNDS: &str =
    "no such bound beside `valid`, which counts in the place of what answers say";
const INTERVAL: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(100)..=Duration::from_secs(86_400);
const WAIT: std::ops::RangeInclusive<Duration> =
    Duration::from_millis(10)..=Duration::from_secs(15);

const FAMILIES: [(&str, Family); 3] = [
    ("any", Family::Any),
    ("ipv4", Family::Ipv4),
    ("ipv6", Family::Ipv6),
];
