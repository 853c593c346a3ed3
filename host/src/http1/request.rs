//! Reading a request's head.

use bytes::BytesMut;
use http::Method;
use httparse::Status;

use super::fields::{FEW_FIELDS, Lines, refuse_bare_line_feeds, take_over};
use super::target::Parts;
use super::{Framing, HeadError, HeadProgress, ParsedRequest, framing, target};
use crate::message::HeadLimits;
use crate::message::{HeadRoom, Headers, RequestHead, is_valid_host};
use crate::message::{KnownHeader, Protocol, Scheme, Upgrade};

/// Cuts a request's head off the front of `buf`, and a few empty lines before it (RFC 9112 §2.2). `None`: more bytes are
/// needed. `room` is used up by a head that is whole.
///
/// Read more strictly than by nginx or hyper in that no line may end in a bare LF and no tab may stand beside the value of a
/// framing field. The names of fields are in lower case afterwards, repeated equal `Content-Length`s are one, and the
/// authority of an absolute target has replaced `Host`.
pub fn parse_request(
    buf: &mut BytesMut,
    progress: &mut HeadProgress,
    limits: &HeadLimits,
    room: &mut HeadRoom,
) -> Result<Option<ParsedRequest>, HeadError> {
    parse(buf, progress, limits, room, false)
}

/// Parses once more what few heads need more for: more fields than there was room for, or a target with bytes beyond ASCII.
#[cold]
#[inline(never)]
fn parse_again(
    again: bool,
    error: HeadError,
    buf: &mut BytesMut,
    progress: &mut HeadProgress,
    limits: &HeadLimits,
    room: &mut HeadRoom,
) -> Result<Option<ParsedRequest>, HeadError> {
    match error {
        error if again => return Err(error),
        HeadError::TooManyFields if limits.max_fields > FEW_FIELDS => {}
        // The grammar takes UTF-8 in a target, and no other byte beyond ASCII.
        HeadError::Target | HeadError::Malformed(httparse::Error::Token)
            if limits.non_ascii_target && target::encode_non_ascii(buf, limits) =>
        {
            progress.rescan();
        }
        error => return Err(error),
    }
    parse(buf, progress, limits, room, true)
}

/// `again`: with room for as many fields as there may be, and without a further try.
fn parse(
    buf: &mut BytesMut,
    progress: &mut HeadProgress,
    limits: &HeadLimits,
    room: &mut HeadRoom,
    again: bool,
) -> Result<Option<ParsedRequest>, HeadError> {
    if !progress.ready(buf, limits)? {
        return Ok(None);
    }
    let raw = limits.window(buf);
    let mut lines = Lines::new(limits.max_fields, again);
    let mut line = httparse::Request::new(&mut []);
    let status = line.parse_with_uninit_headers(raw, lines.room(limits.max_fields));
    let head_bytes = match status {
        Ok(Status::Complete(bytes)) => bytes,
        Ok(Status::Partial) => return progress.incomplete(buf, limits).map(|()| None),
        Err(error) => {
            let error = refusal(error, raw);
            drop(lines);
            return parse_again(again, error, buf, progress, limits, room);
        }
    };
    let raw = &raw[..head_bytes];
    refuse_bare_line_feeds(raw, line.headers)?;
    let (Some(method), Some(target), Some(minor)) = (line.method, line.path, line.version) else {
        return Err(HeadError::Malformed(httparse::Error::Token));
    };
    let protocol = match minor {
        0 => Protocol::Http10,
        _ => Protocol::Http11,
    };
    let method = Method::from_bytes(method.as_bytes())
        .map_err(|_| HeadError::Malformed(httparse::Error::Token))?;
    let HeadRoom {
        mut headers,
        target: mut whole,
    } = std::mem::take(room);
    let dropped_fields = take_over(raw, line.headers, limits.any_names, &mut headers)?;
    let parts = match read_target(target, &method) {
        Ok(parts) => parts,
        Err(error) => {
            drop(lines);
            return parse_again(again, error, buf, progress, limits, room);
        }
    };
    whole.replace(parts.path, parts.query);
    let head = RequestHead {
        method,
        target: whole,
        scheme: Scheme::Http,
        protocol,
        upgrade: None,
        headers,
    };
    let parsed = checked(head, parts.authority, dropped_fields)?;
    drop(lines);
    progress.complete(buf, head_bytes);
    Ok(Some(parsed))
}

/// Checks the fields of a head against each other, and settles its host and the framing of its body.
#[inline]
fn checked(
    mut head: RequestHead,
    authority: Option<&str>,
    dropped_fields: usize,
) -> Result<ParsedRequest, HeadError> {
    let (headers, protocol) = (&mut head.headers, head.protocol);
    check_host(headers, protocol)?;
    if let Some(authority) = authority {
        // RFC 9112 §3.2.2: what `Host` said is ignored.
        headers.set(KnownHeader::Host, authority.as_bytes());
    }
    if headers.repeats_single() {
        return Err(HeadError::FieldRepeated);
    }
    let body = framing::request_body(headers, protocol)?;
    if headers.contains(KnownHeader::Upgrade) {
        head.upgrade = upgrade(&head, body);
    }
    if head.method == Method::CONNECT {
        head.upgrade = Some(connect(body)?);
    }
    let headers = &head.headers;
    Ok(ParsedRequest {
        // What comes after a CONNECT is no request of HTTP, whatever the answer.
        keep_alive: head.method != Method::CONNECT && framing::keeps_alive(headers, protocol),
        expect_continue: expects_continue(headers, protocol, body),
        body,
        dropped_fields,
        head,
    })
}

/// RFC 6455 §4.1: a GET without a body, by HTTP/1.1.
#[cold]
fn upgrade(head: &RequestHead, body: Framing) -> Option<Upgrade> {
    let may_ask = head.method == Method::GET
        && head.protocol == Protocol::Http11
        && matches!(body, Framing::None | Framing::Length(0));
    Upgrade::of(&head.headers).filter(|_| may_ask)
}

/// A CONNECT has no body: the bytes behind it are the other protocol's.
#[cold]
fn connect(body: Framing) -> Result<Upgrade, HeadError> {
    match body {
        Framing::None | Framing::Length(0) => Ok(Upgrade::Connect),
        Framing::Length(_) | Framing::Chunked | Framing::UntilClose => Err(HeadError::Connect),
    }
}

/// With the path that stands for none.
fn read_target<'t>(target: &'t str, method: &Method) -> Result<Parts<'t>, HeadError> {
    if *method == Method::CONNECT {
        return Parts::of_connect(target);
    }
    let mut parts = Parts::parse(target, method)?;
    if parts.path.is_empty() {
        // RFC 9112 §3.2.4: the absolute form of `*`.
        let is_asterisk = *method == Method::OPTIONS && parts.query.is_none();
        parts.path = if is_asterisk { "*" } else { "/" };
    }
    Ok(parts)
}

/// RFC 9112 §3.2: exactly one valid `Host`; HTTP/1.0 may have none.
fn check_host(headers: &Headers, protocol: Protocol) -> Result<(), HeadError> {
    let mut hosts = headers.get_all(KnownHeader::Host);
    match (hosts.next(), hosts.next()) {
        (Some(_), Some(_)) => Err(HeadError::HostRepeated),
        (Some(host), None) if is_valid_host(host) => Ok(()),
        (Some(_), None) => Err(HeadError::HostInvalid),
        (None, _) if protocol == Protocol::Http10 => Ok(()),
        (None, _) => Err(HeadError::HostMissing),
    }
}

/// RFC 9110 §10.1.1: not from HTTP/1.0, and not when there is nothing to wait for.
fn expects_continue(headers: &Headers, protocol: Protocol, body: Framing) -> bool {
    let has_body = !matches!(body, Framing::None | Framing::Length(0));
    has_body
        && protocol == Protocol::Http11
        && headers
            .get_all(KnownHeader::Expect)
            .any(|value| value.eq_ignore_ascii_case(b"100-continue"))
}

/// The grammar knows 1.0 and 1.1 only: other versions of HTTP are told so, and the rest is not HTTP.
fn refusal(error: httparse::Error, raw: &[u8]) -> HeadError {
    let request_line = raw.split(|&b| b == b'\n').next().unwrap_or_default();
    let protocol = request_line
        .splitn(3, |&b| b == b' ')
        .nth(2)
        .unwrap_or_default();
    let is_other_http = error == httparse::Error::Version && protocol.starts_with(b"HTTP/");
    if is_other_http {
        HeadError::Version
    } else {
        error.into()
    }
}

#[cfg(test)]
mod tests;
