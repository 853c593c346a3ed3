//! Facts of the exchange that are text or numbers.

use std::net::IpAddr;

use bytes::Bytes;
use bytestring::ByteString;
use castling_abi::{IMPORT_MODULE, Number, Property, Status, imports};
use http::{HeaderValue, Method, header};
use wasmtime::{Caller, Linker, Result};

use super::{DONE, refuse};
use crate::address::{self, AddressRoom, ServerAddress};
use crate::exchange::{Exchange, Stage};
use crate::http1::{RequestHead, is_valid_host, is_valid_path, is_valid_query};
use crate::wasm::guest::{Guest, bytes, hand_out, split};
use crate::wasm::limit::Reached;

pub(super) fn add_to(linker: &mut Linker<Guest>) -> Result<()> {
    linker
        .func_wrap(IMPORT_MODULE, imports::PROPERTY_GET, property_get)?
        .func_wrap(IMPORT_MODULE, imports::PROPERTY_SET, property_set)?
        .func_wrap(IMPORT_MODULE, imports::NUMBER_GET, number_get)?;
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
    if !guest.has_request() {
        return refuse(Status::NotFound);
    }
    let exchange = &guest.exchange;
    let request = &exchange.request;
    let mut room: AddressRoom = [0; _];
    let value: Option<&[u8]> = match property {
        Property::Method => Some(request.method.as_str().as_bytes()),
        Property::Path => Some(str::as_bytes(&request.path)),
        Property::Query => request.query.as_deref().map(str::as_bytes),
        Property::Host => request
            .headers
            .get(&header::HOST)
            .map(HeaderValue::as_bytes),
        Property::ClientAddress => match exchange.client.ip() {
            Some(ip) => Some(address::text(ip, &mut room)),
            None => Some(b"unix:"),
        },
        Property::ClientPort => exchange
            .client
            .port()
            .map(|port| port_text(port, &mut room)),
        Property::Scheme => Some(b"http"),
        Property::Protocol => Some(exchange.protocol().as_bytes()),
        Property::Listener => Some(exchange.listener.as_bytes()),
        Property::Route => exchange.route.as_deref().map(str::as_bytes),
        Property::Upstream => exchange.upstream.as_deref().map(str::as_bytes),
        Property::Peer => exchange.peer.as_deref().map(str::as_bytes),
        Property::ServerAddress => match &exchange.server {
            ServerAddress::Tcp(server) => Some(address::text(server.ip(), &mut room)),
            ServerAddress::Unix(path) => Some(path.as_bytes()),
        },
        Property::ServerPort => match &exchange.server {
            ServerAddress::Tcp(server) => Some(port_text(server.port(), &mut room)),
            ServerAddress::Unix(_) => None,
        },
    };
    match value {
        Some(value) => hand_out(memory, out, capacity, value),
        None => refuse(Status::NotFound),
    }
}

fn port_text(port: u16, room: &mut AddressRoom) -> &[u8] {
    use std::io::Write;
    let mut rest = &mut room[..];
    let size = rest.len();
    write!(rest, "{port}").expect("a port fits its room");
    let len = size - rest.len();
    &room[..len]
}

fn property_set(mut caller: Caller<'_, Guest>, property: u32, ptr: u32, len: u32) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let value = bytes(memory, ptr, len)?;
    let Some(property) = Property::from_raw(property) else {
        return refuse(Status::BadArgument);
    };
    if guest.exchange.stage != Stage::Request {
        return refuse(Status::NotNow);
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
    let request = &mut exchange.request;
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
            request.path = text(value, |path| path.starts_with('/') && is_valid_path(path))?
        }
        Property::Query if value.is_empty() => request.query = None,
        Property::Query if is_asterisk(request) => return None,
        Property::Query => request.query = Some(text(value, is_valid_query)?),
        Property::Host => {
            let host = HeaderValue::from_bytes(value)
                .ok()
                .filter(|_| is_valid_host(value))?;
            request.headers.set(header::HOST, host);
        }
        Property::ClientAddress => {
            let address: IpAddr = std::str::from_utf8(value).ok()?.parse().ok()?;
            exchange.client.set_ip(address);
        }
        Property::ClientPort
        | Property::Scheme
        | Property::Protocol
        | Property::Listener
        | Property::Route
        | Property::Upstream
        | Property::Peer
        | Property::ServerAddress
        | Property::ServerPort => return None,
    }
    Some(())
}

/// The request is about the whole server.
fn is_asterisk(request: &RequestHead) -> bool {
    &*request.path == "*"
}

fn text(value: &[u8], is_valid: impl Fn(&str) -> bool) -> Option<ByteString> {
    let text = ByteString::try_from(Bytes::copy_from_slice(value)).ok()?;
    is_valid(&text).then_some(text)
}

fn number_get(mut caller: Caller<'_, Guest>, number: u32) -> Result<i64> {
    let (_, guest) = split(&mut caller)?;
    let status = |status: Status| i64::from(status as i32);
    let Some(number) = Number::from_raw(number) else {
        return Ok(status(Status::BadArgument));
    };
    if !guest.has_request() {
        return Ok(status(Status::NotFound));
    }
    let tally = &guest.exchange.tally;
    let micros =
        |duration: std::time::Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    Ok(match number {
        Number::BodyBytesSent => i64::try_from(tally.body_bytes_sent).unwrap_or(i64::MAX),
        Number::BodyBytesReceived => i64::try_from(tally.body_bytes_received).unwrap_or(i64::MAX),
        Number::DurationMicros => micros(tally.started.elapsed()),
        Number::UpstreamMicros => tally.upstream.map_or(status(Status::NotFound), micros),
        Number::Tries => i64::from(tally.tries),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange() -> Box<Exchange> {
        let mut exchange = Exchange::idle();
        exchange.stage = Stage::Request;
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
        assert_eq!(&*exchange.request.path, "/a/%20b");
    }

    #[test]
    fn an_empty_query_removes_it() {
        let mut exchange = exchange();
        assert_eq!(set(&mut exchange, Property::Query, b"a=1?&b"), Some(()));
        assert_eq!(exchange.request.query.as_deref(), Some("a=1?&b"));
        assert_eq!(set(&mut exchange, Property::Query, b""), Some(()));
        assert_eq!(exchange.request.query, None);
    }

    #[test]
    fn an_asterisk_is_for_options_alone() {
        let mut exchange = exchange();
        exchange.request.method = Method::OPTIONS;
        exchange.request.path = ByteString::from_static("*");
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
