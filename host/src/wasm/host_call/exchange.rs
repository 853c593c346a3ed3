//! Facts of the exchange that are text or numbers.

use std::net::IpAddr;

use castling_abi::rules::{self, check};
use castling_abi::{IMPORT_MODULE, Number, Property, Status, TlsFact, imports};
use http::Method;
use wasmtime::{Caller, Linker, Result};

use super::{DONE, refuse};
use crate::exchange::Exchange;
use crate::message::path;
use crate::message::{KnownHeader, RequestHead};
use crate::transport::address::{AddressText, ServerAddress};
use crate::wasm::guest::{Guest, bytes, hand_out, split};
use crate::wasm::limit::Reached;

pub(super) fn add_to(linker: &mut Linker<Guest>) -> Result<()> {
    linker
        .func_wrap(IMPORT_MODULE, imports::PROPERTY_GET, property_get)?
        .func_wrap(IMPORT_MODULE, imports::PROPERTY_SET, property_set)?
        .func_wrap(IMPORT_MODULE, imports::NUMBER_GET, number_get)?
        .func_wrap(IMPORT_MODULE, imports::TLS_GET, tls_get)?;
    Ok(())
}

fn property_get(
    mut caller: Caller<'_, Guest>,
    property: u32,
    out: u32,
    capacity: u32,
) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let Some(property) = Property::from_raw(property) else {
        return refuse(Status::BadArgument);
    };
    if !guest.may(&rules::PROPERTY_GET) {
        return refuse(rules::PROPERTY_GET.refused);
    }
    let (exchange, request) = (&guest.exchange, guest.exchange.request());
    let address;
    let mut digits;
    let routed;
    let value: Option<&[u8]> = match property {
        Property::Method => Some(request.method.as_str().as_bytes()),
        Property::Path => Some(request.target.path().as_bytes()),
        Property::Query => request.target.query().map(str::as_bytes),
        Property::Host => request.headers.get(KnownHeader::Host),
        Property::ClientAddress => {
            address = exchange.context().client.host();
            Some(address.bytes())
        }
        Property::ClientPort | Property::ServerPort => {
            digits = itoa::Buffer::new();
            port(exchange, property).map(|port| digits.format(port).as_bytes())
        }
        Property::Scheme => Some(request.scheme.as_str().as_bytes()),
        Property::Protocol => Some(request.protocol.as_str().as_bytes()),
        Property::Listener => Some(exchange.context().listener.as_bytes()),
        Property::Route => exchange.route().map(str::as_bytes),
        Property::Upstream => {
            let context = exchange.context();
            let name = context.upstream.as_deref();
            name.or(context.chosen_upstream.as_deref())
                .map(str::as_bytes)
        }
        Property::Peer => exchange.context().peer.as_deref().map(str::as_bytes),
        Property::ServerAddress => match &exchange.context().server {
            ServerAddress::Tcp(server) => {
                address = AddressText::new(server.ip());
                Some(address.bytes())
            }
            ServerAddress::Unix(path) => Some(path.as_bytes()),
        },
        Property::RoutedPath => {
            routed = path::routed(request.target.path());
            routed.as_deref().map(str::as_bytes)
        }
    };
    match value {
        Some(value) => hand_out(memory, out, capacity, value),
        None => refuse(Status::NotFound),
    }
}

/// Port of the client's end, or of the gateway's for [`Property::ServerPort`].
fn port(exchange: &Exchange, property: Property) -> Option<u16> {
    match property {
        Property::ServerPort => exchange.context().server.port(),
        _ => exchange.context().client.port(),
    }
}

fn tls_get(mut caller: Caller<'_, Guest>, fact: u32, out: u32, capacity: u32) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let Some(fact) = TlsFact::from_raw(fact) else {
        return refuse(Status::BadArgument);
    };
    let tls = guest.exchange.context().tls.as_ref();
    match tls.and_then(|tls| tls.fact(fact)) {
        Some(text) => hand_out(memory, out, capacity, text.as_bytes()),
        None => refuse(Status::NotFound),
    }
}

fn property_set(mut caller: Caller<'_, Guest>, property: u32, ptr: u32, len: u32) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let value = bytes(memory, ptr, len)?;
    let Some(property) = Property::from_raw(property) else {
        return refuse(Status::BadArgument);
    };
    let place = match property {
        Property::ClientAddress => rules::SETS_CLIENT_ADDRESS,
        _ => rules::PROPERTY_SET.place,
    };
    if !guest.is_at(place) {
        return refuse(rules::PROPERTY_SET.refused);
    }
    let limit_bytes = guest.limits.header_bytes;
    if value.len() > limit_bytes {
        return refuse(guest.limit(Reached::bytes("header_bytes", limit_bytes)));
    }
    match set(&mut guest.exchange, property, value) {
        Some(()) => Ok(DONE),
        None => refuse(Status::BadArgument),
    }
}

/// `None`: the value is not valid there, or the property cannot be set.
fn set(exchange: &mut Exchange, property: Property, value: &[u8]) -> Option<()> {
    if matches!(
        property,
        Property::Method | Property::Path | Property::Query
    ) {
        exchange.keep_original();
    }
    let request = exchange.request_mut();
    match property {
        Property::Method => {
            let method = Method::from_bytes(value).ok()?;
            // A tunnel is not something that a request can turn into; and no other method is asked of `*` (RFC 9112
            // §3.2.4).
            if method == Method::CONNECT || (is_asterisk(request) && method != Method::OPTIONS) {
                return None;
            }
            request.method = method;
        }
        Property::Path => {
            let path = check::is_settable_path(value).then_some(value)?;
            let path = str::from_utf8(path).ok()?;
            request.target.set_path(path);
        }
        Property::Query if value.is_empty() => request.target.set_query(None),
        Property::Query if is_asterisk(request) => return None,
        Property::Query => {
            let query = check::is_query(value).then_some(value)?;
            let query = str::from_utf8(query).ok()?;
            request.target.set_query(Some(query));
        }
        Property::Host => {
            if !check::is_host(value) {
                return None;
            }
            request.headers.set(KnownHeader::Host, value);
        }
        Property::ClientAddress => {
            let address: IpAddr = std::str::from_utf8(value).ok()?.parse().ok()?;
            exchange.context_mut().client.set_ip(address);
        }
        Property::ClientPort
        | Property::Scheme
        | Property::Protocol
        | Property::Listener
        | Property::Route
        | Property::Upstream
        | Property::Peer
        | Property::ServerAddress
        | Property::ServerPort
        | Property::RoutedPath => return None,
    }
    Some(())
}

/// The request is about the whole server.
fn is_asterisk(request: &RequestHead) -> bool {
    request.target.path() == "*"
}

fn number_get(mut caller: Caller<'_, Guest>, number: u32) -> Result<i64> {
    let (_, guest) = split(&mut caller)?;
    let status = |status: Status| i64::from(status as i32);
    let Some(number) = Number::from_raw(number) else {
        return Ok(status(Status::BadArgument));
    };
    if !guest.may(&rules::NUMBER_GET) {
        return Ok(status(rules::NUMBER_GET.refused));
    }
    let stats = &guest.exchange.stats();
    let micros =
        |duration: std::time::Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    Ok(match number {
        Number::BodyBytesSent => i64::try_from(stats.body_bytes_sent).unwrap_or(i64::MAX),
        Number::BodyBytesReceived => i64::try_from(stats.body_bytes_received).unwrap_or(i64::MAX),
        Number::DurationMicros => micros(stats.duration()),
        Number::UpstreamMicros => stats
            .upstream_took()
            .map_or(status(Status::NotFound), micros),
        Number::Tries => i64::from(stats.tries),
        Number::UpstreamStatus => match stats.upstream_status {
            Some(peers) => i64::from(peers.as_u16()),
            None => status(Status::NotFound),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Stage;

    fn exchange() -> Box<Exchange> {
        let mut exchange = Exchange::idle();
        exchange.enter(Stage::Request);
        exchange
    }

    #[test]
    fn a_path_that_would_split_the_request_line_is_refused() {
        for path in ["", "x", "/a b", "/a\r\n", "/a?b", "/a#b", "/\u{e9}"] {
            assert_eq!(
                set(&mut exchange(), Property::Path, path.as_bytes()),
                None,
                "{path:?}"
            );
        }
        let mut exchange = exchange();
        assert_eq!(set(&mut exchange, Property::Path, b"/a/%20b"), Some(()));
        assert_eq!(exchange.request().target.path(), "/a/%20b");
    }

    #[test]
    fn an_empty_query_removes_it() {
        let mut exchange = exchange();
        assert_eq!(set(&mut exchange, Property::Query, b"a=1?&b"), Some(()));
        assert_eq!(exchange.request().target.query(), Some("a=1?&b"));
        assert_eq!(set(&mut exchange, Property::Query, b""), Some(()));
        assert_eq!(exchange.request().target.query(), None);
    }

    #[test]
    fn an_asterisk_is_for_options_alone() {
        let mut exchange = exchange();
        exchange.request_mut().method = Method::OPTIONS;
        exchange.request_mut().target.set_path("*");
        assert_eq!(set(&mut exchange, Property::Method, b"GET"), None);
        assert_eq!(set(&mut exchange, Property::Query, b"a=b"), None);
        assert_eq!(set(&mut exchange, Property::Path, b"/"), Some(()));
        assert_eq!(set(&mut exchange, Property::Method, b"GET"), Some(()));
    }

    #[test]
    fn hosts_and_methods_are_checked() {
        assert_eq!(set(&mut exchange(), Property::Host, b"a b"), None);
        assert_eq!(set(&mut exchange(), Property::Host, b"u@h"), None);
        assert_eq!(set(&mut exchange(), Property::Host, b"[::1]:80"), Some(()));
        assert_eq!(set(&mut exchange(), Property::Method, b"G T"), None);
        assert_eq!(set(&mut exchange(), Property::Method, b"CONNECT"), None);
        assert_eq!(set(&mut exchange(), Property::Route, b"x"), None);
    }
}
