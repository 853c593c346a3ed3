//! `[upstreams.NAME]`.

use std::collections::HashSet;
use std::net::{Ipv6Addr, SocketAddr};
use std::num::NonZero;
use std::time::Duration;

use super::names::Named;
use super::sections::{TIMEOUT, is_host_name};
use super::table::{Table, Value};
use super::tree::NodeKind;
use super::upstream_tls;
use super::{Balance, Der, HeaderVersion, Peer, PeerProtocol, Upstream, UpstreamHost};

/// `system_roots`: the system's authorities, which are read for the first upstream that needs them.
pub(super) fn resolve(
    mut table: Table<'_>,
    plugins: &Named<'_>,
    system_roots: &mut Vec<Der>,
) -> Upstream {
    let peers = table.required("peers", "a list of HOST:PORT", peers);
    let keepalive = table.or("keepalive", DEFAULT_KEEPALIVE, |value| {
        Some(keepalive(value.table()?))
    });
    let upstream = Upstream {
        peers: peers.unwrap_or_default(),
        balance: table.or("balance", Balance::RoundRobin, |value| {
            balance(value, plugins)
        }),
        connect_timeout: table.or("connect_timeout", Duration::from_secs(5), |value| {
            value.duration(TIMEOUT)
        }),
        response_timeout: table.or("response_timeout", Duration::from_secs(60), |value| {
            value.duration(TIMEOUT)
        }),
        idle_timeout: table.or("idle_timeout", Duration::from_secs(60), |value| {
            value.duration(TIMEOUT)
        }),
        tries: table.or("tries", 3, |value| value.integer(1..=100)),
        keepalive_connections: keepalive.connections,
        keepalive_timeout: keepalive.timeout,
        max_head_bytes: table.or("max_head", 64 << 10, |value| value.size(1 << 10..=1 << 20)),
        max_fields: table.or("max_fields", 1000, |value| value.integer(16..=10_000)),
        host: table.or("host", UpstreamHost::Client, host),
        proxy_protocol: table.optional("proxy_protocol", |value| value.choice(&HEADER_VERSIONS)),
        protocol: PeerProtocol::Http1,
        tls: table.optional("tls", |value| upstream_tls::tls(value, system_roots)),
        place: table.place_text(),
    };
    let upstream = Upstream {
        protocol: table.or("protocol", PeerProtocol::Http1, |value| {
            protocol(value, &upstream)
        }),
        ..upstream
    };
    table.finish();
    upstream
}

fn peers(value: Value<'_>) -> Option<Vec<Peer>> {
    let peers = value.list(|item| Some((item, peer(item)?)))?;
    let mut addresses = HashSet::with_capacity(peers.len());
    for (item, peer) in &peers {
        if !addresses.insert(peer.address.as_str()) {
            item.refuse::<()>(format_args!(
                "peer \"{}\" is already in the list: expected one with a weight",
                peer.address
            ));
        }
    }
    if matches!(value.kind(), NodeKind::List(items) if items.is_empty()) {
        return value.refuse("peers is empty: expected at least one HOST:PORT");
    }
    Some(peers.into_iter().map(|(_, peer)| peer).collect())
}

fn peer(value: Value<'_>) -> Option<Peer> {
    if let NodeKind::Text(_) = value.kind() {
        return Some(Peer {
            address: address(value)?,
            weight: NonZero::<u16>::MIN,
        });
    }
    let NodeKind::Table(_) = value.kind() else {
        return value.expected("HOST:PORT or { address = \"HOST:PORT\", weight = 2 }");
    };
    let mut table = value.table()?;
    let address = table.required("address", "HOST:PORT", address);
    let weight = table.or("weight", NonZero::<u16>::MIN, |value| {
        value.integer(1..=65535).and_then(NonZero::new)
    });
    table.finish();
    Some(Peer {
        address: address?,
        weight,
    })
}

/// `HOST:PORT`; an IPv6 address in brackets.
fn address(value: Value<'_>) -> Option<String> {
    let text = value.text()?;
    if is_peer_address(text) {
        Some(text.to_ascii_lowercase())
    } else {
        value.expected(ADDRESS_RULE)
    }
}

fn is_peer_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit())
        && port.parse::<u16>().is_ok_and(|port| port != 0);
    let is_host = match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => is_host_name(host),
    };
    is_port && is_host
}

fn protocol(value: Value<'_>, upstream: &Upstream) -> Option<PeerProtocol> {
    match value.choice(&PROTOCOLS)? {
        PeerProtocol::Auto if upstream.tls.is_none() => {
            value.expected("\"http1\" or \"http2\": without `tls`, peers cannot choose")
        }
        PeerProtocol::Http2 | PeerProtocol::Auto if upstream.proxy_protocol.is_some() => {
            value.expected("\"http1\": with `proxy_protocol`, a connection is for one client alone")
        }
        protocol => Some(protocol),
    }
}

const PROTOCOLS: [(&str, PeerProtocol); 3] = [
    ("http1", PeerProtocol::Http1),
    ("http2", PeerProtocol::Http2),
    ("auto", PeerProtocol::Auto),
];

fn balance(value: Value<'_>, plugins: &Named<'_>) -> Option<Balance> {
    if let NodeKind::Table(_) = value.kind() {
        let mut table = value.table()?;
        let plugin = table.required("plugin", "the name of a plugin", |name| {
            plugins.reference(name)
        });
        table.finish();
        return plugin.map(Balance::Plugin);
    }
    match value.text_or(BALANCE_RULE)? {
        "round_robin" => Some(Balance::RoundRobin),
        "least_conn" => Some(Balance::LeastConn),
        "target" => Some(Balance::Target),
        _ => value.expected(BALANCE_RULE),
    }
}

struct Keepalive {
    connections: usize,
    timeout: Duration,
}

fn keepalive(mut table: Table<'_>) -> Keepalive {
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

fn host(value: Value<'_>) -> Option<UpstreamHost> {
    match value.plain_text(HOST_RULE)? {
        "client" => Some(UpstreamHost::Client),
        "peer" => Some(UpstreamHost::Peer),
        text if is_host(text) => Some(UpstreamHost::Fixed(text.to_owned())),
        _ => value.expected(HOST_RULE),
    }
}

/// Whether RFC 9110 §7.2 allows the text as `Host`: a host and maybe a port.
fn is_host(text: &str) -> bool {
    is_host_name(text)
        || is_peer_address(text)
        || format!("{text}:80").parse::<SocketAddr>().is_ok()
}

const HEADER_VERSIONS: [(&str, HeaderVersion); 2] =
    [("v1", HeaderVersion::V1), ("v2", HeaderVersion::V2)];

const DEFAULT_KEEPALIVE: Keepalive = Keepalive {
    connections: 16384,
    timeout: Duration::from_secs(60),
};

const ADDRESS_RULE: &str =
    "HOST:PORT such as \"10.0.0.1:8080\", \"app.internal:80\" or \"[::1]:8080\"";

const BALANCE_RULE: &str = "\"round_robin\", \"least_conn\", \"target\" or { plugin = \"NAME\" }";

const HOST_RULE: &str = "\"client\", \"peer\" or a host name";
