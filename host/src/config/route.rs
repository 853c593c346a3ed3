//! `[[routes]]`.

use std::collections::{HashMap, HashSet};
use std::net::Ipv6Addr;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

use crate::message::path;

use super::http_settings;
use super::names::{NAME_RULE, is_name};
use super::place::Place;
use super::plugin;
use super::route_proxy::route_proxy;
use super::sections::{Sections, TIMEOUT, is_host_name};
use super::table::{Table, Value};
use super::tree::NodeKind;
use super::{HeaderMatch, HeaderTest, HostPattern, Redirect, Route, RouteProxy, Tunnel};

pub(super) fn resolve(sections: &Sections<'_>) -> Vec<Route> {
    let mut names = HashMap::new();
    sections
        .routes
        .iter()
        .map(|table| route(table.clone(), sections, &mut names))
        .collect()
}

fn route(
    mut table: Table<'_>,
    sections: &Sections<'_>,
    names: &mut HashMap<String, Place>,
) -> Route {
    let name = table.optional("name", |value| route_name(value, names));
    let listeners = table.or("listeners", Vec::new(), |value| {
        value.set(|name| sections.listeners.reference(name))
    });
    let hosts = table.or("hosts", Vec::new(), |value| value.set(host_pattern));
    let path = table.or("path", String::new(), route_path);
    let route = Route {
        name: name.unwrap_or_else(|| default_name(&hosts, &path)),
        listeners,
        hosts,
        path,
        methods: table.or("methods", Vec::new(), |value| value.set(method)),
        headers: table.or("headers", Vec::new(), headers),
        plugins: table.or("plugins", Vec::new(), |value| {
            plugin::uses(value, &sections.plugins)
        }),
        upstream: table.optional("upstream", |name| sections.upstreams.reference(name)),
        client_certificate: table.or("client_certificate", false, |value| {
            value.choice(&[("required", true), ("optional", false)])
        }),
        redirect: table.optional("redirect", redirect),
        paths: table.optional("paths", http_settings::path_policy),
        tunnel: tunnel(&mut table),
        proxy: RouteProxy::default(),
        metrics: table.or("metrics", false, Value::boolean),
        place: table.place_text(),
    };
    refuse_second_content(&mut table, &route);
    let proxy = route_proxy(&mut table, route.upstream.is_some());
    table.finish();
    Route { proxy, ..route }
}

/// A route has one of these at most.
fn refuse_second_content(table: &mut Table<'_>, route: &Route) {
    let contents = [
        ("upstream", "an upstream", route.upstream.is_some()),
        ("metrics", "metrics", route.metrics),
        ("redirect", "redirect", route.redirect.is_some()),
    ];
    let mut there = contents.into_iter().filter(|(_, _, is_there)| *is_there);
    if let (Some((_, first, _)), Some((key, second, _))) = (there.next(), there.next())
        && let Some(value) = table.get(key)
    {
        value.refuse::<()>(format_args!("{second} and {first}: expected one of them"));
    }
}

/// `"https"`, or a table that says more.
fn redirect(value: Value<'_>) -> Option<Redirect> {
    let mut redirect = Redirect {
        status: 308,
        port: None,
    };
    let NodeKind::Table(_) = value.kind() else {
        return value.choice(&[("https", redirect)]);
    };
    let mut table = value.table()?;
    table.required("to", "\"https\"", |value| value.choice(&[("https", ())]));
    redirect.status = table.or("status", redirect.status, |value| {
        match value.integer::<u16>(301..=308)? {
            status @ (301 | 302 | 307 | 308) => Some(status),
            _ => value.expected("301, 302, 307 or 308"),
        }
    });
    redirect.port = table.optional("port", |value| value.integer(1..=65535));
    table.finish();
    Some(redirect)
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Upgrade {
    WebSocket,
    Connect,
}

const UPGRADES: [(&str, Upgrade); 2] = [
    ("websocket", Upgrade::WebSocket),
    ("connect", Upgrade::Connect),
];

/// Keys of what follows an upgrade.
fn tunnel(table: &mut Table<'_>) -> Option<Tunnel> {
    let upgrades = table.or("upgrades", Vec::new(), |value| {
        value.set(|item| item.choice(&UPGRADES))
    });
    let is_there = !upgrades.is_empty();
    let only = |value: Value<'_>| {
        match is_there {
        true => value.duration(TIMEOUT),
        false => value.refuse(format_args!(
            "{} without upgrades has no effect: expected upgrades = [\"websocket\"] or [\"connect\"]",
            value.key()
        )),
    }
    };
    let idle_timeout = table.or("tunnel_idle_timeout", Duration::from_secs(3600), only);
    let max_time = table.optional("tunnel_max_time", only);
    is_there.then_some(Tunnel {
        websocket: upgrades.contains(&Upgrade::WebSocket),
        connect: upgrades.contains(&Upgrade::Connect),
        idle_timeout,
        max_time,
    })
}

/// A name that no other route has.
fn route_name(value: Value<'_>, names: &mut HashMap<String, Place>) -> Option<String> {
    let name = value.text()?;
    if !is_name(name) {
        return value.expected(NAME_RULE);
    }
    if let Some(first) = names.get(name) {
        return value.refuse(format_args!(
            "route \"{name}\" is already defined at {}",
            value.map().place(*first)
        ));
    }
    names.insert(name.to_owned(), value.place());
    Some(name.to_owned())
}

/// `example.com,*.example.org/api`; `/` for the root of any host.
fn default_name(hosts: &[HostPattern], path: &str) -> String {
    let host = |pattern: &HostPattern| match pattern {
        HostPattern::Exact(host) => host.clone(),
        HostPattern::Suffix(suffix) => format!("*{suffix}"),
    };
    let hosts: Vec<_> = hosts.iter().map(host).collect();
    format!(
        "{}{}",
        hosts.join(","),
        if path.is_empty() { "/" } else { path }
    )
}

fn host_pattern(value: Value<'_>) -> Option<HostPattern> {
    let text = value.text()?.to_ascii_lowercase();
    let is_ipv6 = |text: &str| {
        text.strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'))
            .is_some_and(|text| text.parse::<Ipv6Addr>().is_ok())
    };
    match text.strip_prefix('*') {
        Some(suffix) if suffix.strip_prefix('.').is_some_and(is_host_name) => {
            Some(HostPattern::Suffix(suffix.to_owned()))
        }
        None if is_host_name(&text) || is_ipv6(&text) => Some(HostPattern::Exact(text)),
        Some(_) | None => {
            value.expected("a host such as \"example.com\" or \"*.example.com\", without a port")
        }
    }
}

/// Path of a route, without the slash at its end.
fn route_path(value: Value<'_>) -> Option<String> {
    let text = value.text()?;
    let inner = text.strip_suffix('/').unwrap_or(text);
    let visible = text
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#'));
    // The segments after the first slash; the root has none.
    let normal = inner.is_empty()
        || inner
            .split('/')
            .skip(1)
            .all(|segment| !matches!(segment, "" | "." | ".."));
    if text.contains('*') {
        // Taken as it stands it would match next to nothing, which nobody means.
        return value.refuse(format_args!(
            "path {text:?}: * is no wildcard here: a path is a prefix of whole segments, \"/api\" matches \"/api/x\" \
             (%2A means the character)"
        ));
    }
    if text.starts_with('/') && visible && normal {
        return match path::read(text) {
            Ok(_) => Some(inner.to_owned()),
            Err(error) => value.refuse(format_args!(
                "path {text:?}: {error}, which no request can have"
            )),
        };
    }
    value.expected(
        "a path that begins with /, without ?, #, spaces and empty, \".\" or \"..\" segments",
    )
}

fn method(value: Value<'_>) -> Option<String> {
    let text = value.text()?;
    // RFC 9110 §9.1: methods are case-sensitive.
    let upper = text.to_ascii_uppercase();
    if text != upper
        && STANDARD_METHODS
            .iter()
            .any(|method| method.as_str() == upper)
    {
        return value.expected(format_args!("\"{upper}\", methods are case-sensitive"));
    }
    match Method::from_bytes(text.as_bytes()) {
        Ok(_) => Some(text.to_owned()),
        Err(_) => value.expected("a method such as \"GET\""),
    }
}

fn headers(value: Value<'_>) -> Option<Vec<HeaderMatch>> {
    let tests: Vec<_> = value
        .table()?
        .values()
        .filter_map(|value| Some((value, header(value)?)))
        .collect();
    let mut names = HashSet::with_capacity(tests.len());
    for (value, test) in &tests {
        if !names.insert(test.name.as_str()) {
            value.map().refuse(
                value.key_place(),
                format_args!("header \"{}\" is already in the table", test.name),
            );
        }
    }
    Some(tests.into_iter().map(|(_, test)| test).collect())
}

fn header(value: Value<'_>) -> Option<HeaderMatch> {
    let Ok(name) = HeaderName::from_bytes(value.key().as_bytes()) else {
        value.map().refuse(
            value.key_place(),
            format_args!("header {:?}: expected a header's name", value.key()),
        );
        return None;
    };
    match header_test(value.kind()) {
        Some(test) => Some(HeaderMatch {
            name: name.as_str().to_owned(),
            test,
        }),
        None => value.expected("a header's value, or true (present) or false (absent)"),
    }
}

fn header_test(kind: &NodeKind) -> Option<HeaderTest> {
    match kind {
        NodeKind::Boolean(true) => Some(HeaderTest::Present),
        NodeKind::Boolean(false) => Some(HeaderTest::Absent),
        NodeKind::Text(text) => HeaderValue::from_str(text)
            .ok()
            .map(|_| HeaderTest::Equals(text.clone())),
        NodeKind::Integer(_)
        | NodeKind::Float(_)
        | NodeKind::Datetime(_)
        | NodeKind::List(_)
        | NodeKind::Table(_)
        | NodeKind::Refused => None,
    }
}

const STANDARD_METHODS: [Method; 9] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::CONNECT,
    Method::OPTIONS,
    Method::TRACE,
    Method::PATCH,
];
