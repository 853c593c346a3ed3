//! `[listeners.NAME]`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use super::http_settings;
use super::networks;
use super::sections::{Sections, TIMEOUT, resolved};
use super::socket_path::socket_path;
use super::table::{Table, Value};
use super::tcp_keepalive::{seconds, tcp_keepalive};
use super::tls;
use super::tree::NodeKind;
use super::{
    Accept, Bind, ConnectionLimits, Listener, ProxyProtocol, Serves, SocketOptions, WithoutHeader,
};

pub(super) fn resolve(sections: &Sections<'_>) -> BTreeMap<String, Listener> {
    let mut bound = BTreeMap::new();
    let listeners = resolved(&sections.listeners, |table| {
        listener(table, sections, &mut bound)
    });
    for listener in listeners.values() {
        refuse_second_for_ipv4(listener, &bound);
    }
    listeners
}

/// `[::]` for both families and `0.0.0.0` would share the connections of IPv4 clients out between the two.
fn refuse_second_for_ipv4(listener: &Listener, bound: &BTreeMap<Bind, Value<'_>>) {
    let Bind::Tcp(both) = listener.bind else {
        return;
    };
    let ipv4 = Bind::Tcp(SocketAddr::from((Ipv4Addr::UNSPECIFIED, both.port())));
    let is_both = both.ip() == Ipv6Addr::UNSPECIFIED && !listener.socket.ipv6_only;
    if let (true, Some(value)) = (is_both, bound.get(&ipv4)) {
        value.refuse::<()>(format_args!(
            "bind \"{ipv4}\" is already bound by \"{both}\" with ipv6_only = false"
        ));
    }
}

fn listener<'a>(
    mut table: Table<'a>,
    sections: &Sections<'_>,
    bound: &mut BTreeMap<Bind, Value<'a>>,
) -> Listener {
    let mut place = String::new();
    let bind = table.required("bind", BIND_RULE, |value| {
        place = value.place_text();
        bind_address(value, bound)
    });
    let bind = bind.unwrap_or(NOWHERE);
    let listener = Listener {
        socket: socket_options(&mut table, &bind),
        limits: connection_limits(&mut table, &bind),
        proxy_protocol: table.optional("proxy_protocol", proxy_protocol),
        tls: table.optional("tls", |value| tls::tls(value, sections.acme.is_some())),
        serves: Serves::Http(http_settings::settings(&mut table, &sections.plugins)),
        bind,
        place,
    };
    table.finish();
    listener
}

fn socket_options(table: &mut Table<'_>, bind: &Bind) -> SocketOptions {
    let is_unix = matches!(bind, Bind::Unix(_));
    let is_ipv6 = matches!(bind, Bind::Tcp(SocketAddr::V6(_)));
    let usual_accept = match is_unix {
        true => Accept::Shared,
        false => Accept::PerWorker,
    };
    SocketOptions {
        accept: table.or("accept", usual_accept, |value| accept(value, is_unix)),
        mode: table.or("mode", 0o666, |value| {
            value.only_where(is_unix, "\"unix:PATH\"", mode)
        }),
        backlog: table.or("backlog", 4096, |value| value.integer(1..=65535)),
        ipv6_only: table.or("ipv6_only", true, |value| {
            value.only_where(is_ipv6, "an IPv6 address", Value::boolean)
        }),
        nodelay: table.or("nodelay", true, |value| {
            value.only_where(!is_unix, "TCP", Value::boolean)
        }),
        tcp_keepalive: table.or("tcp_keepalive", None, |value| {
            value.only_where(!is_unix, "TCP", tcp_keepalive)
        }),
        defer_accept_seconds: table.or("defer_accept", 0, |value| {
            value.only_where(!is_unix, "TCP", |value| seconds(value, 0..=300))
        }),
    }
}

fn connection_limits(table: &mut Table<'_>, bind: &Bind) -> ConnectionLimits {
    let is_tcp = matches!(bind, Bind::Tcp(_));
    let has_proxies = table.clone().get("proxy_protocol").is_some();
    let max_connections = table.or("max_connections", 16384, |value| {
        value.integer(1..=1_000_000)
    });
    let half = u32::try_from(max_connections / 2).unwrap_or(u32::MAX);
    let per_address = NonZeroU32::MIN.saturating_add(half.max(64) - 1);
    ConnectionLimits {
        max_connections,
        max_connections_per_address: table.or(
            "max_connections_per_address",
            per_address,
            |value| {
                let has_addresses = is_tcp || has_proxies;
                value.only_where(has_addresses, "TCP", |value| {
                    value.integer(1..=1_000_000).and_then(NonZeroU32::new)
                })
            },
        ),
    }
}

fn proxy_protocol(value: Value<'_>) -> Option<ProxyProtocol> {
    let NodeKind::Table(_) = value.kind() else {
        return value.expected("{ from = [\"10.0.0.0/8\"] }");
    };
    let mut table = value.table()?;
    let from = table.required("from", "a list of networks", networks::networks);
    let others = table.or("others", WithoutHeader::Refuse, |value| {
        value.choice(&WITHOUT_HEADER)
    });
    let timeout = table.or("timeout", Duration::from_secs(5), |value| {
        value.duration(TIMEOUT)
    });
    table.finish();
    Some(ProxyProtocol {
        from: from?,
        others,
        timeout,
    })
}

/// An address that no other listener has: the kernel would share the connections out between the two.
fn bind_address<'a>(value: Value<'a>, bound: &mut BTreeMap<Bind, Value<'a>>) -> Option<Bind> {
    let text = value.text()?;
    let bind = match text.strip_prefix("unix:") {
        Some(path) => Bind::Unix(socket_path(value, path, "bind", BIND_RULE)?),
        None => match text.parse::<SocketAddr>() {
            // An IPv4 address is one however it is written.
            Ok(address) if address.port() != 0 => {
                Bind::Tcp(SocketAddr::new(address.ip().to_canonical(), address.port()))
            }
            Ok(_) | Err(_) => return value.expected(BIND_RULE),
        },
    };
    match bound.insert(bind.clone(), value) {
        Some(first) => value.refuse(format_args!(
            "bind \"{bind}\" is already bound at {}",
            value.map().place(first.place())
        )),
        None => Some(bind),
    }
}

fn accept(value: Value<'_>, is_unix: bool) -> Option<Accept> {
    match value.choice(&ACCEPTS)? {
        Accept::PerWorker if is_unix => {
            value.expected("\"shared\": a Unix socket is one for all workers")
        }
        accept => Some(accept),
    }
}

/// Octal, as chmod(1) has it.
fn mode(value: Value<'_>) -> Option<u32> {
    let text = value.text_or(MODE_RULE)?;
    let is_octal =
        (3..=4).contains(&text.len()) && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    match u32::from_str_radix(text, 8) {
        Ok(mode) if is_octal && mode <= 0o777 => Some(mode),
        Ok(_) | Err(_) => value.expected(MODE_RULE),
    }
}

const BIND_RULE: &str =
    "ADDRESS:PORT such as \"127.0.0.1:8080\" or \"[::]:8080\", or \"unix:PATH\"";

const MODE_RULE: &str = "permissions in octal such as \"0660\"";

const ACCEPTS: [(&str, Accept); 2] = [
    ("per_worker", Accept::PerWorker),
    ("shared", Accept::Shared),
];

const WITHOUT_HEADER: [(&str, WithoutHeader); 2] = [
    ("refuse", WithoutHeader::Refuse),
    ("serve", WithoutHeader::Serve),
];

/// Stands for a refused address.
const NOWHERE: Bind = Bind::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));
