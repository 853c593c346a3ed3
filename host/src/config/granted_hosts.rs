//! Hosts that are granted to plugins: `grants.hosts`.

use castling_abi::rules::host::HostPattern;

use super::table::{Table, Value};
use super::tree::NodeKind;
use super::upstream::{self, is_peer_address};
use super::{Der, GrantedHost, GrantedHosts, Networks};

pub(super) fn granted_hosts(value: Value<'_>, system_roots: &mut Vec<Der>) -> Option<GrantedHosts> {
    let mut table = match value.kind() {
        NodeKind::Table(_) => Some(value.table()?),
        _ => None,
    };
    let names = match &mut table {
        Some(table) => table.required("names", RULE, patterns),
        None => patterns(value),
    };
    let networks = table.as_mut().and_then(|table| networks(table));
    let resolve = table.as_mut().and_then(|table| {
        table.optional("resolve", |value| {
            upstream::resolve::resolve(value, &[], true)
        })
    });
    let given_tls = table.as_mut().and_then(|table| table.get("tls"));
    let tls = match given_tls {
        Some(given) => upstream::tls::tls(given, system_roots),
        // Without a name there is nobody to call.
        None if names.as_ref().is_some_and(Vec::is_empty) => {
            Some(upstream::tls::without_roots(value))
        }
        None => upstream::tls::default(value, system_roots),
    };
    if let Some(table) = table {
        table.finish();
    }
    Some(GrantedHosts {
        names: names?,
        networks: networks.unwrap_or_default(),
        resolve: resolve.unwrap_or_default(),
        tls: tls?,
    })
}

fn networks(table: &mut Table<'_>) -> Option<Networks> {
    table.optional("networks", |value| {
        let networks = super::networks::networks(value)?;
        match networks.unix {
            true => value.expected("networks; a name has no Unix socket"),
            false => Some(networks),
        }
    })
}

fn patterns(value: Value<'_>) -> Option<Vec<GrantedHost>> {
    value.set(|item| {
        let text = item.text_or(RULE)?.to_ascii_lowercase();
        let name = text.strip_prefix("*.").unwrap_or(&text);
        let pattern = HostPattern::parse(&text).filter(|_| is_peer_address(name));
        let Some(pattern) = pattern else {
            return item.expected(RULE);
        };
        Some(GrantedHost {
            host: pattern.host.to_owned(),
            is_wildcard: pattern.is_wildcard,
            port: pattern.port,
        })
    })
}

const RULE: &str = "HOST:PORT such as \"api.example.com:443\" or \"*.example.com:443\"";
