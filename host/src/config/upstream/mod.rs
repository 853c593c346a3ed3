//! `[upstreams.NAME]`.

mod balance;
mod cookie;
mod effects;
mod health;
mod keepalive;
mod peers;
mod peers_url;
pub(super) mod protection;
mod queue;
pub(super) mod resolve;
pub(super) mod retry;
mod sockets;
mod sticky;
mod sticky_learn;
pub(super) mod tls;

use std::net::SocketAddr;
use std::time::Duration;

use super::sections::{Sections, TIMEOUT, is_host_name};
use super::table::{Table, Value};
use super::variables::SetVariables;
use super::{
    Balance, Breaker, Der, HeaderVersion, Passive, PeerProtocol, Resolve, Retry, Upstream,
    UpstreamHost,
};
use balance::{balance, preferred_zone, slow_start};
use keepalive::{DEFAULT_KEEPALIVE, keepalive};
pub use peers::is_of_a_host;
pub(super) use peers::{is_peer_address, peers};
use sockets::{Sockets, sockets};

/// `variables`: those that the config gives a value. `system_roots`: the system's authorities, which are read for the first
/// upstream that needs them.
pub(super) fn resolve(
    mut table: Table<'_>,
    sections: &Sections<'_>,
    variables: &SetVariables,
    system_roots: &mut Vec<Der>,
) -> Upstream {
    let peers_file = table.optional("peers_file", Value::placed_path);
    let given_url = table.get("peers_url");
    let has_lists = peers_file.is_some() || given_url.is_some();
    let peers_url = given_url.and_then(|value| peers_url::peers_url(value, system_roots));
    let peers = match has_lists {
        true => table.optional("peers", peers),
        false => table.required("peers", "a list of HOST:PORT", peers),
    };
    let peers = peers.unwrap_or_default();
    let proxy_protocol = table.optional("proxy_protocol", |value| value.choice(&HEADER_VERSIONS));
    let keepalive = table.or("keepalive", DEFAULT_KEEPALIVE, |value| {
        Some(keepalive(
            value.table()?,
            peers.len(),
            proxy_protocol.is_none(),
        ))
    });
    let tries = table.or("tries", 3, |value| value.integer(1..=100));
    let Sockets {
        tcp_keepalive,
        source_address,
        happy_eyeballs,
    } = sockets(&mut table, &peers);
    let policy = table.or("balance", Balance::RoundRobin, |value| {
        match balance(value, &sections.plugins, &peers)? {
            Balance::Target if has_lists => value.expected(
                "another policy beside `peers_file` or `peers_url`, which would say whom clients reach",
            ),
            policy => Some(policy),
        }
    });
    let upstream = Upstream {
        slow_start: table.optional("slow_start", |value| slow_start(value, &policy)),
        zone: preferred_zone(&mut table, (&peers, has_lists), &policy),
        sticky: sticky::sticky(&mut table, (&peers, has_lists), &policy, &sections.zones),
        balance: policy,
        resolve: table.or("resolve", Resolve::default(), |value| {
            resolve::resolve(value, &peers, has_lists)
        }),
        peers,
        peers_file,
        peers_url,
        connect_timeout: table.or("connect_timeout", Duration::from_secs(5), |value| {
            value.duration(TIMEOUT)
        }),
        response_timeout: table.or("response_timeout", Duration::from_secs(60), |value| {
            value.duration(TIMEOUT)
        }),
        idle_timeout: table.or("idle_timeout", Duration::from_secs(60), |value| {
            value.duration(TIMEOUT)
        }),
        tries,
        retry: table.or("retry", Retry::DEFAULT, |value| {
            retry::retry(value, tries, sections.spill_limit_bytes)
        }),
        breaker: table.or("breaker", Breaker::default(), protection::breaker),
        concurrency: table.optional("concurrency", protection::concurrency),
        response: protection::response_limits(&mut table),
        max_active: table.optional("max_active", peers::max_active),
        passive: table.or("passive", Passive::default(), health::passive),
        check: None,
        panic_threshold: table.or("panic_threshold", 0.0, |value| {
            health::number(value, 0.0..=1.0)
        }),
        queue: table.or("queue", queue::DEFAULT, queue::queue),
        keepalive,
        tcp_keepalive,
        source_address,
        happy_eyeballs,
        max_head_bytes: table.or("max_head", 64 << 10, |value| value.size(1 << 10..=1 << 20)),
        max_fields: table.or("max_fields", 1000, |value| value.integer(16..=10_000)),
        host: table.or("host", UpstreamHost::Client, host),
        proxy_protocol,
        protocol: PeerProtocol::Http1,
        tls: table.optional("tls", |value| tls::tls(value, system_roots)),
        place: table.place_text(),
    };
    let upstream = Upstream {
        protocol: table.or("protocol", PeerProtocol::Http1, |value| {
            protocol(value, &upstream)
        }),
        ..upstream
    };
    let has_http2 = upstream.protocol != PeerProtocol::Http1;
    let upstream = Upstream {
        check: table.optional("check", |value| health::check(value, has_http2)),
        ..upstream
    };
    effects::refuse_without_effect(&mut table, &upstream, variables);
    table.finish();
    upstream
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

const HOST_RULE: &str = "\"client\", \"peer\" or a host name";
