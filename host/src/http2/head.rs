//! Heads between the codec's form and ours.

use bytes::BytesMut;
use http::header::{CONTENT_LENGTH, COOKIE, HOST, HeaderName, HeaderValue, TE};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version, uri};

use crate::message::{
    BodySize, FieldName, HeadLimits, HeadRoom, Headers, KnownHeader, Protocol, RequestHead, Scheme,
    Upgrade, is_target_byte, is_valid_authority, is_valid_host, is_valid_path, is_valid_query,
    is_valid_value, may_be_trailer, never_has_body,
};

/// A request as a client has sent it.
pub struct ReceivedRequest {
    pub head: RequestHead,
    /// Size of its body, as far as its head tells it.
    pub size: BodySize,
    /// The client waits for a 100 before it sends the body.
    pub expects_continue: bool,
    /// Fields that were left out for their names.
    pub dropped_fields: usize,
}

/// Reason why a request's head was refused. The stream ends, the connection goes on: frames say where the next begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    #[error("CONNECT asks for a protocol that is not known")]
    Protocol,
    #[error("the target of CONNECT must be a host and a port")]
    Connect,
    #[error("invalid :path")]
    Target,
    #[error("more header fields than the limit")]
    TooManyFields,
    #[error("neither :authority nor Host")]
    HostMissing,
    #[error("more than one Host")]
    HostRepeated,
    #[error("invalid host")]
    HostInvalid,
    /// RFC 9113 §8.3.1: whoever reads the one and whoever reads the other would ask different servers.
    #[error("Host is not what :authority is")]
    HostDiffers,
    #[error("a field that is no list comes twice")]
    FieldRepeated,
    /// RFC 9113 §8.2.1: what stands around a value in HTTP/1 would be taken off there, and make another value of it.
    #[error("a value begins or ends with a space")]
    ValueInvalid,
    #[error("invalid Content-Length")]
    LengthInvalid,
}

impl HeadError {
    /// Status that a client is answered.
    pub fn status(self) -> StatusCode {
        match self {
            Self::Protocol => StatusCode::NOT_IMPLEMENTED,
            Self::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Target
            | Self::HostMissing
            | Self::HostRepeated
            | Self::HostInvalid
            | Self::Connect
            | Self::HostDiffers
            | Self::FieldRepeated
            | Self::ValueInvalid
            | Self::LengthInvalid => StatusCode::BAD_REQUEST,
        }
    }
}

/// Takes a head over. `room` is used up by one that is limits. `is_end`: no body follows.
pub fn read_request(
    request: &Request<()>,
    is_end: bool,
    limits: &HeadLimits,
    room: &mut HeadRoom,
) -> Result<ReceivedRequest, HeadError> {
    let (method, upgrade) = method(request)?;
    let fields = request.headers();
    // Cookies in crumbs count one by one (CVE-2026-49975).
    if fields.len() > limits.max_fields {
        return Err(HeadError::TooManyFields);
    }
    let HeadRoom {
        mut headers,
        target: mut whole,
    } = std::mem::take(room);
    headers.clear();
    let target = request.uri().path_and_query();
    let (path, query) = target.map_or(("/", None), |it| (it.path(), it.query()));
    let is_asterisk = path == "*" && *request.method() != Method::OPTIONS;
    if !is_asterisk && is_valid_path(path) && query.is_none_or(is_valid_query) {
        whole.replace(path, query);
    } else if !is_asterisk && limits.non_ascii_target && path.starts_with('/') {
        whole.replace(&encoded(path)?, query.map(encoded).transpose()?.as_deref());
    } else {
        return Err(HeadError::Target);
    }
    let authority = request.uri().authority().map(|it| it.as_str().as_bytes());
    headers.add(KnownHeader::Host, host(authority, fields)?);
    let dropped_fields = take_fields(fields, limits.any_names, &mut headers)?;
    if headers.repeats_single() {
        return Err(HeadError::FieldRepeated);
    }
    let size = match upgrade {
        // Bytes of the other protocol come when it is agreed on.
        Some(_) => BodySize::None,
        None => body_size(&mut headers, fields, is_end)?,
    };
    let expects_continue = !matches!(size, BodySize::None | BodySize::Exact(0))
        && headers
            .get_all(KnownHeader::Expect)
            .any(|value| value.eq_ignore_ascii_case(b"100-continue"));
    Ok(ReceivedRequest {
        head: RequestHead {
            method,
            target: whole,
            scheme: Scheme::Http,
            protocol: Protocol::Http2,
            upgrade,
            headers,
        },
        size,
        expects_continue,
        dropped_fields,
    })
}

/// Method, and the protocol that a CONNECT asks for or an extended one names (RFC 8441 §4).
fn method(request: &Request<()>) -> Result<(Method, Option<Upgrade>), HeadError> {
    let method = request.method();
    if *method != Method::CONNECT {
        return Ok((method.clone(), None));
    }
    if let Some(protocol) = request.extensions().get::<h2::ext::Protocol>() {
        return match Some(protocol.as_str().as_bytes()) == Upgrade::WebSocket.token() {
            // In the flow it is a GET, as it is over HTTP/1.
            true => Ok((Method::GET, Some(Upgrade::WebSocket))),
            false => Err(HeadError::Protocol),
        };
    }
    let authority = request.uri().authority();
    match authority.is_some_and(|it| is_valid_authority(it.as_str().as_bytes())) {
        true => Ok((method.clone(), Some(Upgrade::Connect))),
        false => Err(HeadError::Connect),
    }
}

/// Percent-encodes what is beyond ASCII.
fn encoded(text: &str) -> Result<String, HeadError> {
    let mut encoded = String::with_capacity(3 * text.len());
    for byte in text.bytes() {
        if byte.is_ascii() {
            if !is_target_byte(byte) {
                return Err(HeadError::Target);
            }
            encoded.push(char::from(byte));
        } else {
            let digit = |value: u8| char::from(b"0123456789ABCDEF"[usize::from(value)]);
            encoded.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    Ok(encoded)
}

/// Host and port of a request: `:authority`, else `Host`, which must not say another.
fn host<'r>(authority: Option<&'r [u8]>, fields: &'r HeaderMap) -> Result<&'r [u8], HeadError> {
    let mut hosts = fields.get_all(HOST).iter();
    let host = match (authority, hosts.next(), hosts.next()) {
        (_, Some(_), Some(_)) => return Err(HeadError::HostRepeated),
        (Some(authority), Some(host), None) if !authority.eq_ignore_ascii_case(host.as_bytes()) => {
            return Err(HeadError::HostDiffers);
        }
        (Some(authority), _, _) => authority,
        (None, Some(host), _) => host.as_bytes(),
        (None, None, _) => return Err(HeadError::HostMissing),
    };
    match is_valid_host(host) {
        true => Ok(host),
        false => Err(HeadError::HostInvalid),
    }
}

/// Adds the fields but `Host`. Returns how many were left out for their names.
fn take_fields(
    fields: &HeaderMap,
    any_names: bool,
    headers: &mut Headers,
) -> Result<usize, HeadError> {
    let mut dropped = 0;
    for (name, value) in fields {
        let value = value.as_bytes();
        if !is_valid_value(value) || value.trim_ascii().len() != value.len() {
            return Err(HeadError::ValueInvalid);
        }
        let name = FieldName::from(name);
        if matches!(name.known(), Some(KnownHeader::Host))
            || name.text == COOKIE.as_str().as_bytes()
        {
            continue;
        }
        if headers.add_of_client(name, value, any_names).is_err() {
            dropped += 1;
        }
    }
    add_cookies(fields, headers);
    Ok(dropped)
}

/// RFC 9113 §8.2.3: crumbs of cookies are one field to whoever is told by HTTP/1.
fn add_cookies(fields: &HeaderMap, headers: &mut Headers) {
    let mut crumbs = fields.get_all(COOKIE).iter();
    let Some(first) = crumbs.next() else {
        return;
    };
    let Some(second) = crumbs.next() else {
        return headers.add(&COOKIE, first.as_bytes());
    };
    let mut whole = first.as_bytes().to_vec();
    for crumb in std::iter::once(second).chain(crumbs) {
        whole.extend_from_slice(b"; ");
        whole.extend_from_slice(crumb.as_bytes());
    }
    headers.add(&COOKIE, &whole);
}

/// Size of the body. The codec holds the data against `Content-Length` (RFC 9113 §8.1.1).
fn body_size(
    headers: &mut Headers,
    fields: &HeaderMap,
    is_end: bool,
) -> Result<BodySize, HeadError> {
    let mut lengths = fields.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lengths.next() else {
        return Ok(match is_end {
            true => BodySize::None,
            false => BodySize::Unknown,
        });
    };
    let is_number = !first.is_empty() && first.as_bytes().iter().all(u8::is_ascii_digit);
    let text = first.to_str().ok().filter(|_| is_number);
    let bytes = text.and_then(|text| text.parse::<u64>().ok());
    let bytes = bytes.ok_or(HeadError::LengthInvalid)?;
    if lengths.any(|other| other != first) || is_end && bytes != 0 {
        return Err(HeadError::LengthInvalid);
    }
    headers.set(KnownHeader::ContentLength, first.as_bytes());
    Ok(BodySize::Exact(bytes))
}

/// Facts of a response that decide about its form.
pub(super) struct Form<'a> {
    /// Method that the client has asked by.
    pub(super) method: &'a Method,
    pub(super) size: BodySize,
    /// For `Date`, if the fields have none.
    pub(super) date: Option<&'a [u8; 29]>,
}

/// Head of a response in the codec's form.
pub(super) fn response(status: StatusCode, headers: &Headers, form: &Form<'_>) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    let mut length = itoa::Buffer::new();
    let length = own_length(status, headers, form).map(|bytes| length.format(bytes).as_bytes());
    let date = form.date.filter(|_| !status.is_informational());
    *response.headers_mut() = field_map(
        headers,
        match length {
            Some(_) => OF_CONNECTION | KnownHeader::ContentLength.bit(),
            None if keeps_length(status, form) => OF_CONNECTION,
            None => OF_CONNECTION | KnownHeader::ContentLength.bit(),
        },
        [
            length.map(|length| (CONTENT_LENGTH, length)),
            date.map(|date| (http::header::DATE, &date[..])),
        ],
    );
    response
}

/// Length that the response says, where that is not the fields' business.
fn own_length(status: StatusCode, headers: &Headers, form: &Form<'_>) -> Option<u64> {
    match form.size {
        _ if status.is_informational() || status == StatusCode::NO_CONTENT => None,
        _ if keeps_length(status, form) && headers.contains(KnownHeader::ContentLength) => None,
        BodySize::Exact(_) if status == StatusCode::NOT_MODIFIED => None,
        BodySize::Exact(bytes) => Some(bytes),
        BodySize::None if !never_has_body(status, form.method) => Some(0),
        BodySize::None | BodySize::Unknown => None,
    }
}

/// Whether a length among the fields is about a body that is not sent (RFC 9110 §8.6): it stays, then.
fn keeps_length(status: StatusCode, form: &Form<'_>) -> bool {
    never_has_body(status, form.method)
        && !status.is_informational()
        && status != StatusCode::NO_CONTENT
}

/// Head of a request to a peer in the codec's form. `None`: its host or target has no such form.
pub(super) fn request(
    request: &RequestHead,
    host: &[u8],
    scheme: Scheme,
    size: BodySize,
) -> Option<Request<()>> {
    let mut parts = uri::Parts::default();
    parts.scheme = Some(match scheme {
        Scheme::Http => uri::Scheme::HTTP,
        Scheme::Https => uri::Scheme::HTTPS,
    });
    parts.authority = Some(uri::Authority::try_from(host).ok()?);
    parts.path_and_query = Some(path_and_query(request.target.as_str())?);
    let mut message = Request::new(());
    *message.uri_mut() = Uri::from_parts(parts).ok()?;
    *message.method_mut() = request.method.clone();
    if request.upgrade == Some(Upgrade::WebSocket) {
        *message.method_mut() = Method::CONNECT;
        let protocol = h2::ext::Protocol::from_static("websocket");
        message.extensions_mut().insert(protocol);
    }
    *message.version_mut() = Version::HTTP_2;
    let mut length = itoa::Buffer::new();
    let length = match size {
        BodySize::Exact(bytes) => Some(length.format(bytes).as_bytes()),
        BodySize::None | BodySize::Unknown => None,
    };
    // RFC 9110 §10.1.4 has it removed on the way; gRPC's servers ask for it to know that trailers arrive.
    let content_type = request.headers.get(KnownHeader::ContentType);
    let is_grpc = content_type.is_some_and(|it| it.starts_with(b"application/grpc"));
    let mut headers = &request.headers;
    let without_key;
    if request.upgrade.is_some() {
        let mut fields = request.headers.clone();
        fields.retain(|name, _| name != b"sec-websocket-key");
        without_key = fields;
        headers = &without_key;
    }
    *message.headers_mut() = field_map(
        headers,
        OF_CONNECTION | OF_REQUEST_LINE,
        [
            length.map(|length| (CONTENT_LENGTH, length)),
            is_grpc.then_some((TE, b"trailers")),
        ],
    );
    Some(message)
}

/// Target in the codec's form, which does not take all that browsers send as it is: that is percent-encoded then, as RFC 3986 has it.
fn path_and_query(target: &str) -> Option<uri::PathAndQuery> {
    if let Ok(target) = uri::PathAndQuery::try_from(target) {
        return Some(target);
    }
    let mut encoded = String::with_capacity(target.len() + 16);
    for byte in target.bytes() {
        match byte {
            b'"' | b'<' | b'>' | b'`' | b'\\' | b'^' | b'{' | b'|' | b'}' => {
                encoded.push_str(&format!("%{byte:02X}"));
            }
            _ => encoded.push(char::from(byte)),
        }
    }
    uri::PathAndQuery::try_from(encoded).ok()
}

/// Fields that a request to a peer has elsewhere: in `:authority`, by its own length; and `Expect`, which the gateway has answered
/// itself.
const OF_REQUEST_LINE: u32 = KnownHeader::Host.bit()
    | KnownHeader::ContentLength.bit()
    | KnownHeader::Expect.bit()
    | KnownHeader::Te.bit();

/// Takes the fields of a peer's response over.
pub(super) fn read_response(response: &Response<()>, headers: &mut Headers) {
    headers.clear();
    for (name, value) in response.headers() {
        headers.add(name, value.as_bytes());
    }
}

/// Size of a response's body, as far as its head tells it. The codec holds the data against it.
pub(super) fn response_size(response: &Response<()>, method: &Method, is_end: bool) -> BodySize {
    if never_has_body(response.status(), method) {
        return BodySize::None;
    }
    let length = response.headers().get(CONTENT_LENGTH);
    let length = length.and_then(|it| it.to_str().ok()?.parse().ok());
    match (length, is_end) {
        (Some(bytes), _) => BodySize::Exact(bytes),
        (None, true) => BodySize::Exact(0),
        (None, false) => BodySize::Unknown,
    }
}

/// Trailers in the codec's form.
pub(super) fn trailers(headers: &Headers) -> HeaderMap {
    field_map(headers, OF_CONNECTION, [None, None])
}

/// Trailers as they came: those that may be any.
pub(super) fn read_trailers(fields: &HeaderMap) -> Headers {
    let mut headers = Headers::with_capacity(fields.len());
    for (name, value) in fields {
        if may_be_trailer(name) && is_valid_value(value.as_bytes()) {
            headers.add(name, value.as_bytes());
        }
    }
    headers
}

/// Fields in the codec's form, without those of these bits. Their values are slices of one allocation.
fn field_map(
    headers: &Headers,
    without: u32,
    added: [Option<(HeaderName, &[u8])>; 2],
) -> HeaderMap {
    let fields = headers.iter();
    let bytes: usize = fields.clone().map(|(_, value)| value.len()).sum();
    let own = added.iter().flatten();
    let own_bytes: usize = own.clone().map(|(_, value)| value.len()).sum();
    let mut text = BytesMut::with_capacity(bytes + own_bytes);
    let mut map = HeaderMap::with_capacity(fields.len() + own.count());
    let mut take = |value: &[u8]| {
        text.extend_from_slice(value);
        HeaderValue::from_maybe_shared(text.split().freeze())
    };
    for (idx, (name, value)) in fields.enumerate() {
        if headers
            .known_at(idx)
            .is_some_and(|known| known.bit() & without != 0)
        {
            continue;
        }
        // Both are checked when they come, or are set by a plugin.
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), take(value)) {
            map.append(name, value);
        }
    }
    for (name, value) in added.into_iter().flatten() {
        if let Ok(value) = take(value) {
            map.append(name, value);
        }
    }
    map
}

/// RFC 9113 §8.2.2: what is of an HTTP/1 connection must not be in a message.
const OF_CONNECTION: u32 = KnownHeader::Connection.bit()
    | KnownHeader::KeepAlive.bit()
    | KnownHeader::ProxyConnection.bit()
    | KnownHeader::TransferEncoding.bit()
    | KnownHeader::Upgrade.bit();

#[cfg(test)]
mod tests;
