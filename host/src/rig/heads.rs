//! Whether what a plugin has left in an exchange says on the wire what it says in memory.

use bytes::BytesMut;
use http::{Method, StatusCode};

use crate::exchange::Exchange;
use crate::http1::{self, Framing, HeadProgress, ReplyTo};
use crate::message::HeadLimits;
use crate::message::{BodySize, HeadRoom, Headers, KnownHeader, Protocol, RequestHead, Upgrade};

pub(super) fn check(exchange: &Exchange) {
    check_request(exchange.request());
    let reply = exchange.reply();
    check_response(reply.status, &reply.headers);
    if let Some(answer) = exchange.answer() {
        check_response(answer.status, &answer.headers);
    }
}

pub(super) fn check_request(head: &RequestHead) {
    // Nothing of it is sent to a peer.
    if head.upgrade == Some(Upgrade::Connect) {
        return;
    }
    let mut out = Vec::new();
    let host = head.headers.get(KnownHeader::Host);
    http1::write_request_head(
        &mut out,
        &head.method,
        &head.target,
        host.unwrap_or(b"peer"),
        &head.headers,
        BodySize::None,
        None,
    );
    if head.headers.iter().count() > READABLE_HEADERS {
        return;
    }
    let mut buf = BytesMut::from(&out[..]);
    let mut progress = HeadProgress::default();
    let read = http1::parse_request(&mut buf, &mut progress, &LIMITS, &mut HeadRoom::default())
        .unwrap_or_else(|e| panic!("a plugin has left a request that nobody takes: {e}"))
        .expect("the encoder writes whole heads");
    assert!(buf.is_empty(), "a plugin has smuggled bytes behind a head");
    assert!(
        matches!(read.body, Framing::None | Framing::Length(0)),
        "a plugin has changed framing: {:?}",
        read.body
    );
    assert_eq!(read.head.method, head.method);
    assert_eq!(read.head.target, head.target);
}

pub(super) fn check_response(status: StatusCode, headers: &Headers) {
    let mut out = Vec::new();
    let to = ReplyTo {
        method: &Method::GET,
        protocol: Protocol::Http11,
        keep_alive: true,
        date: Some(b"Thu, 01 Jan 1970 00:00:00 GMT"),
    };
    http1::write_response_head(&mut out, status, headers, BodySize::Exact(5), &to);
    if headers.iter().count() > READABLE_HEADERS {
        return;
    }
    let mut buf = BytesMut::from(&out[..]);
    let read = http1::parse_response(
        &mut buf,
        &mut HeadProgress::default(),
        &LIMITS,
        &Method::GET,
        &mut Headers::new(),
    )
    .unwrap_or_else(|e| panic!("a plugin has left a response that nobody takes: {e}"))
    .expect("the encoder writes whole heads");
    assert!(buf.is_empty(), "a plugin has smuggled bytes behind a head");
    assert_eq!(read.status, status);
}

/// Plugins may leave more fields than are read back; the encoder adds a few.
const READABLE_HEADERS: usize = 120;

/// Limit that is more than plugins may leave.
const LIMITS: HeadLimits = HeadLimits {
    max_fields: READABLE_HEADERS + 8,
    any_names: true,
    ..HeadLimits::of(64 << 20)
};
