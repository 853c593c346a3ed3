//! `[[routes]]`.

use std::collections::HashMap;
use std::time::Duration;

use super::cache;
use super::http_settings;
use super::names::{NAME_RULE, Named, is_name};
use super::networks::networks;
use super::place::Place;
use super::plugin;
use super::route_match::{
    capture_names, cookie, header, host_pattern, method, parameter, route_path, tests,
};
use super::route_proxy::route_proxy;
use super::sections::{Sections, TIMEOUT};
use super::table::{Table, Value};
use super::tree::NodeKind;
use super::variables::{SET_RULE, SetVariables, is_of_response, template_parts};
use super::{
    HostPattern, PathMatch, Redirect, Route, RouteProxy, TemplatePart, Tunnel, UpstreamShare,
};

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
    let path = table.or("path", PathMatch::Prefix(String::new()), route_path);
    let route = Route {
        name: name.unwrap_or_else(|| default_name(&hosts, &path)),
        listeners,
        hosts,
        path,
        methods: table.or("methods", Vec::new(), |value| value.set(method)),
        headers: table.or("headers", Vec::new(), |value| {
            tests(value, "header", header)
        }),
        query: table.or("query", Vec::new(), |value| {
            tests(value, "parameter", parameter)
        }),
        cookies: table.or("cookies", Vec::new(), |value| {
            tests(value, "cookie", cookie)
        }),
        clients: table.optional("clients", networks),
        priority: table.or("priority", 0, priority),
        plugins: table.or("plugins", Vec::new(), |value| {
            plugin::uses(value, &sections.plugins)
        }),
        upstreams: table.or("upstream", Vec::new(), |value| {
            upstreams(value, &sections.upstreams)
        }),
        split_by: table.optional("split_by", split_by),
        client_certificate: table.or("client_certificate", false, |value| {
            value.choice(&[("required", true), ("optional", false)])
        }),
        redirect: table.optional("redirect", redirect),
        paths: table.optional("paths", http_settings::path_policy),
        tunnel: tunnel(&mut table),
        cache: table.optional("cache", |value| cache::cache(value, &sections.zones)),
        proxy: RouteProxy::default(),
        metrics: table.or("metrics", false, Value::boolean),
        place: table.place_text(),
    };
    refuse_second_content(&mut table, &route);
    capture_names(&mut table, &route);
    if route.upstreams.len() < 2
        && let Some(value) = table.get("split_by")
    {
        value.refuse::<()>("split_by without several upstreams has no effect: expected upstream = { a = 90, b = 10 }");
    }
    if let (Some(text), Some(value)) = (&route.split_by, table.get("split_by"))
        && let Some(name) =
            SetVariables::new(route.set_variables(), !sections.plugins.is_empty()).missing(text)
    {
        value.refuse::<()>(format_args!("split_by ${name}: {SET_RULE}"));
    }
    cache::check(&mut table, &route, !sections.plugins.is_empty());
    let has_upstream = !route.upstreams.is_empty();
    let spill_limit = sections.spill_limit_bytes;
    let proxy = route_proxy(&mut table, &sections.upstreams, has_upstream, spill_limit);
    table.finish();
    Route { proxy, ..route }
}

/// A route has one of these at most.
fn refuse_second_content(table: &mut Table<'_>, route: &Route) {
    let contents = [
        ("upstream", "an upstream", !route.upstreams.is_empty()),
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

/// A name, or names with weights, two at least.
fn upstreams(value: Value<'_>, known: &Named<'_>) -> Option<Vec<UpstreamShare>> {
    let NodeKind::Table(_) = value.kind() else {
        let name = known.reference(value)?;
        return Some(vec![UpstreamShare { name, weight: 1 }]);
    };
    let share = |share: Value<'_>| {
        let name = known.reference_key(share)?;
        let weight = share.integer(0..=u16::MAX.into())?;
        Some(UpstreamShare { name, weight })
    };
    let shares: Vec<_> = value.table()?.values().map(share).collect();
    let is_one = shares.len() < 2;
    let shares: Vec<_> = shares.into_iter().collect::<Option<_>>()?;
    if is_one {
        return value.expected("a name, or two upstreams and more with their weights");
    }
    if shares.iter().all(|share| share.weight == 0) {
        return value.refuse("upstream: all weights are 0: expected one that is not");
    }
    Some(shares)
}

/// A text whose variables have their values when a request is routed.
fn split_by(value: Value<'_>) -> Option<String> {
    let text = value.text_or(SPLIT_RULE)?;
    let parts = match template_parts(text) {
        Ok(parts) => parts,
        Err(why) => return value.refuse(format_args!("split_by: {why}")),
    };
    let mut variables = parts.iter().filter_map(|part| match part {
        TemplatePart::Variable(name) => Some(*name),
        TemplatePart::Literal(_) => None,
    });
    if let Some(name) = variables.clone().find(|name| is_of_response(name)) {
        return value.refuse(format_args!(
            "split_by: ${name} has no value when a request is routed: expected {SPLIT_RULE}"
        ));
    }
    match variables.next() {
        Some(_) => Some(text.to_owned()),
        None => value.expected(SPLIT_RULE),
    }
}

const SPLIT_RULE: &str = "a text with variables of the request, such as \"$cookie_session\"";

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

/// `example.com,*.example.org/api`; `/` for the root of any host, `=/login` for an exact path, `~^/user` for an expression.
fn default_name(hosts: &[HostPattern], path: &PathMatch) -> String {
    let hosts: Vec<_> = hosts.iter().map(HostPattern::to_string).collect();
    format!("{}{}", hosts.join(","), path.short())
}

fn priority(value: Value<'_>) -> Option<i32> {
    let range = -MAX_PRIORITY..=MAX_PRIORITY;
    let integer = match value.kind() {
        NodeKind::Integer(Some(integer)) => i32::try_from(*integer).ok(),
        _ => None,
    };
    match integer.filter(|integer| range.contains(integer)) {
        Some(integer) => Some(integer),
        None => value.expected(format_args!(
            "an integer, -{MAX_PRIORITY} to {MAX_PRIORITY}"
        )),
    }
}

const MAX_PRIORITY: i32 = 1000;
