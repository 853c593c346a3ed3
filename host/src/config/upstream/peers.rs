//! Peers of an upstream.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZero;

use super::super::sections::is_host_name;
use super::super::socket_path::socket_path;
use super::super::table::Value;
use super::super::tree::NodeKind;
use super::super::{MAX_PEER_TAG_BYTES, MAX_PEER_TAGS, Peer};

pub(in crate::config) fn peers(value: Value<'_>) -> Option<Vec<Peer>> {
    let peers = value.list(|item| Some((item, peer(item)?)))?;
    let mut addresses = HashSet::with_capacity(peers.len());
    let mut routes = HashMap::new();
    for (item, peer) in &peers {
        if !addresses.insert(peer.address.as_str()) {
            item.refuse::<()>(format_args!(
                "peer \"{}\" is already in the list: expected one with a weight",
                peer.address
            ));
        }
        let Some(route) = peer.route.as_deref() else {
            continue;
        };
        if let Some(first) = routes.insert(route, &peer.address)
            && let Some(value) = item.table().and_then(|mut table| table.get("route"))
        {
            value.refuse::<()>(format_args!(
                "route {route:?} is that of peer \"{first}\" already: expected another one"
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
            srv: false,
            weight: NonZero::<u16>::MIN,
            backup: false,
            zone: None,
            route: None,
            tags: Vec::new(),
            max_active: None,
        });
    }
    let NodeKind::Table(_) = value.kind() else {
        return value.expected("HOST:PORT, unix:PATH or { address = \"HOST:PORT\", weight = 2 }");
    };
    let mut table = value.table()?;
    let srv = table.get("srv");
    let address = match srv {
        Some(name) => {
            table.optional("address", |value| value.expected::<()>("none beside `srv`"));
            service(name)
        }
        None => table.required("address", "HOST:PORT", address),
    };
    let weight = table.or("weight", NonZero::<u16>::MIN, |value| match srv {
        Some(_) => value.expected("none beside `srv`, whose records say it"),
        None => value.integer(1..=65535).and_then(NonZero::new),
    });
    let backup = table.or("backup", false, Value::boolean);
    let zone = table.optional("zone", zone);
    let route = table.optional("route", |value| {
        value.plain_text("a name").map(str::to_owned)
    });
    let tags = table.or("tags", Vec::new(), tags);
    let max_active = table.optional("max_active", max_active);
    table.finish();
    Some(Peer {
        address: address?,
        srv: srv.is_some(),
        weight,
        backup,
        zone,
        route,
        tags,
        max_active,
    })
}

/// Name of a zone; an empty one, as of a variable that is not set, is none.
pub(super) fn zone(value: Value<'_>) -> Option<String> {
    match value.text()? {
        "" => None,
        _ => value.plain_text("the name of a zone").map(str::to_owned),
    }
}

/// Tags of a peer, each once.
fn tags(value: Value<'_>) -> Option<Vec<String>> {
    let tags = value.set(|item| {
        let tag = item.plain_text("a tag")?;
        match tag.len() <= MAX_PEER_TAG_BYTES {
            true => Some(tag.to_owned()),
            false => item.expected(format_args!("a tag of up to {MAX_PEER_TAG_BYTES} bytes")),
        }
    })?;
    match tags.len() <= MAX_PEER_TAGS {
        true => Some(tags),
        false => value.refuse(format_args!(
            "tags: {} of them: expected at most {MAX_PEER_TAGS}",
            tags.len()
        )),
    }
}

/// Name of a service's records, such as `_http._tcp.app.internal`.
fn service(value: Value<'_>) -> Option<String> {
    let text = value.text_or(SERVICE_RULE)?;
    match is_host_name(text.strip_suffix('.').unwrap_or(text)) {
        true => Some(text.to_ascii_lowercase()),
        false => value.expected(SERVICE_RULE),
    }
}

const SERVICE_RULE: &str = "the name of SRV records such as \"_http._tcp.app.internal\"";

/// Requests that may be under way at a peer.
pub(super) fn max_active(value: Value<'_>) -> Option<u32> {
    value.integer(1..=1_000_000)
}

/// `HOST:PORT`; an IPv6 address in brackets, and either as it is always written. Or `unix:PATH`.
fn address(value: Value<'_>) -> Option<String> {
    let text = value.text()?;
    if let Some(path) = text.strip_prefix("unix:") {
        let path = socket_path(value, path, "peers", ADDRESS_RULE)?;
        return Some(format!("unix:{}", path.display()));
    }
    if !is_peer_address(text) {
        return value.expected(ADDRESS_RULE);
    }
    match text.parse::<SocketAddr>() {
        Ok(address) if is_of_a_host(address.ip()) => Some(address.to_string()),
        Ok(_) => value.expected("the address of one host: this one is nobody's, or that of many"),
        Err(_) => Some(name(text)),
    }
}

/// A name and its port, both as they are always written.
fn name(text: &str) -> String {
    let text = text.to_ascii_lowercase();
    match text.rsplit_once(':') {
        Some((host, port)) => format!("{host}:{}", port.trim_start_matches('0')),
        None => text,
    }
}

/// Whether one host can have the address: it is neither `0.0.0.0` or `::` nor one of multicast or broadcast.
pub fn is_of_a_host(address: IpAddr) -> bool {
    let address = address.to_canonical();
    let is_broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !address.is_unspecified() && !address.is_multicast() && !is_broadcast
}

pub(in super::super) fn is_peer_address(text: &str) -> bool {
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

const ADDRESS_RULE: &str =
    "HOST:PORT such as \"10.0.0.1:8080\", \"app.internal:80\" or \"[::1]:8080\", or \"unix:PATH\"";
