//! `[listeners.NAME]`.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::names::Named;
use super::plugin;
use super::resolve::{Sections, TIMEOUT, resolved};
use super::source::Place;
use super::table::{Table, Value};
use super::{Accept, Bind, Listener};

pub(super) fn resolve(sections: &Sections<'_>) -> BTreeMap<String, Listener> {
    let mut bound = BTreeMap::new();
    resolved(&sections.listeners, |table| {
        listener(table, &sections.plugins, &mut bound)
    })
}

fn listener(
    mut table: Table<'_>,
    plugins: &Named<'_>,
    bound: &mut BTreeMap<Bind, Place>,
) -> Listener {
    let bind = table.required("bind", BIND_RULE, |value| bind_address(value, bound));
    let bind = bind.unwrap_or(NOWHERE);
    let is_unix = matches!(bind, Bind::Unix(_));
    let usual_accept = match is_unix {
        true => Accept::Shared,
        false => Accept::PerWorker,
    };
    let listener = Listener {
        accept: table.or("accept", usual_accept, |value| accept(value, is_unix)),
        mode: table.or("mode", 0o666, |value| mode(value, is_unix)),
        bind,
        backlog: table.or("backlog", 4096, |value| value.integer(1..=65535)),
        plugins: table.or("plugins", Vec::new(), |value| plugin::uses(value, plugins)),
        max_head_bytes: table.or("max_head", 32 << 10, |value| value.size(1 << 10..=1 << 20)),
        max_body_bytes: table.or("max_body", 0, |value| value.size(0..=1 << 50)),
        max_connections: table.or("max_connections", 16384, |value| {
            value.integer(1..=1_000_000)
        }),
        head_timeout: table.or("head_timeout", Duration::from_secs(60), |value| {
            value.duration(TIMEOUT)
        }),
        body_timeout: table.or("body_timeout", Duration::from_secs(60), |value| {
            value.duration(TIMEOUT)
        }),
        send_timeout: table.or("send_timeout", Duration::from_secs(60), |value| {
            value.duration(TIMEOUT)
        }),
        idle_timeout: table.or("idle_timeout", Duration::from_secs(75), |value| {
            value.duration(TIMEOUT)
        }),
    };
    table.finish();
    listener
}

/// An address that no other listener has: the kernel would share the connections out between the two.
fn bind_address(value: Value<'_>, bound: &mut BTreeMap<Bind, Place>) -> Option<Bind> {
    let text = value.text()?;
    let bind = match text.strip_prefix("unix:") {
        Some(path) => Bind::Unix(socket_path(value, path)?),
        None => match text.parse::<SocketAddr>() {
            Ok(address) if address.port() != 0 => Bind::Tcp(address),
            Ok(_) | Err(_) => return value.expected(BIND_RULE),
        },
    };
    match bound.insert(bind.clone(), value.place()) {
        Some(first) => value.refuse(format_args!(
            "bind \"{bind}\" is already bound at {}",
            value.sources().place(first)
        )),
        None => Some(bind),
    }
}

fn socket_path(value: Value<'_>, text: &str) -> Option<PathBuf> {
    let is_path = !text.is_empty() && !text.contains(char::is_control);
    if !is_path {
        return value.expected(BIND_RULE);
    }
    let path = value.sources().resolve_path(value.place(), text);
    let bytes = path_bytes(&path);
    match bytes <= SOCKET_PATH_BYTES {
        true => Some(path),
        false => value.refuse(format_args!(
            "bind: the path {} has {bytes} bytes: expected {SOCKET_PATH_BYTES} at most for a Unix socket",
            path.display()
        )),
    }
}

fn path_bytes(path: &Path) -> usize {
    path.as_os_str().len()
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
fn mode(value: Value<'_>, is_unix: bool) -> Option<u32> {
    let text = value.text_or(MODE_RULE)?;
    if !is_unix {
        return value.refuse("mode is for Unix sockets: expected none, or bind = \"unix:PATH\"");
    }
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

/// `sun_path` with its final zero byte has 108 (unix(7)).
const SOCKET_PATH_BYTES: usize = 107;

/// Stands for a refused address.
const NOWHERE: Bind = Bind::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0));
