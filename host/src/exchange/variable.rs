//! Variables by their `$name`: facts of an exchange, and what plugins and routes have set.

use std::time::Duration;

use castling_abi::TlsFact;
use http::HeaderName;

use super::{Exchange, Stage};
use crate::message::{KnownHeader, RequestHead, cookies, query};

/// Variable that a `$name` stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Variable {
    ClientAddress,
    ClientPort,
    Method,
    Host,
    /// Path at the end; plugins may have changed it.
    Path,
    Query,
    /// The request line as the client sent it.
    Request,
    Protocol,
    Scheme,
    /// `X-Request-Id` as peers get it.
    RequestId,
    Listener,
    Route,
    Upstream,
    Peer,
    Status,
    BodyBytesSent,
    BodyBytesReceived,
    /// Seconds with milliseconds.
    Duration,
    UpstreamDuration,
    Tries,
    /// Party to blame for a response that ended before its end: `client`, `upstream` or `plugin`.
    CutBy,
    Pid,
    RequestHeader(HeaderName),
    ResponseHeader(HeaderName),
    Tls(TlsFact),
    /// Parameter of the query (nginx `$arg_NAME`): the first of that name, in any case, decoded.
    Argument(String),
    /// The first cookie of that name, in any case.
    Cookie(String),
    /// The last cookie of that name, in any case, that the response of a peer sets (nginx `$upstream_cookie_NAME`).
    SetCookie(String),
    /// Set by a plugin, or captured by a regular expression of the route.
    Set(String),
}

impl Variable {
    /// `None`: no variable can have that name.
    pub fn parse(name: &str) -> Option<Self> {
        let header = |name: &str| name.replace('_', "-").parse::<HeaderName>().ok();
        Some(match name {
            "client_address" => Self::ClientAddress,
            "client_port" => Self::ClientPort,
            "method" => Self::Method,
            "host" => Self::Host,
            "path" => Self::Path,
            "query" => Self::Query,
            "request" => Self::Request,
            "protocol" => Self::Protocol,
            "scheme" => Self::Scheme,
            "request_id" => Self::RequestId,
            "listener" => Self::Listener,
            "route" => Self::Route,
            "upstream" => Self::Upstream,
            "peer" => Self::Peer,
            "status" => Self::Status,
            "body_bytes_sent" => Self::BodyBytesSent,
            "body_bytes_received" => Self::BodyBytesReceived,
            "duration" => Self::Duration,
            "upstream_duration" => Self::UpstreamDuration,
            "tries" => Self::Tries,
            "cut_by" => Self::CutBy,
            "pid" => Self::Pid,
            _ => {
                if let Some(name) = name.strip_prefix("http_") {
                    Self::RequestHeader(header(name)?)
                } else if let Some(name) = name.strip_prefix("sent_http_") {
                    Self::ResponseHeader(header(name)?)
                } else if let Some(name) = name.strip_prefix("arg_") {
                    (!name.is_empty()).then(|| Self::Argument(name.to_owned()))?
                } else if let Some(name) = name.strip_prefix("cookie_") {
                    (!name.is_empty()).then(|| Self::Cookie(name.to_owned()))?
                } else if let Some(name) = name.strip_prefix("upstream_cookie_") {
                    (!name.is_empty()).then(|| Self::SetCookie(name.to_owned()))?
                } else if let Some(fact) = TlsFact::from_name(name) {
                    Self::Tls(fact)
                } else {
                    let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
                    let is_name = matches!(name.len(), 1..=64) && name.chars().all(valid);
                    is_name.then(|| Self::Set(name.to_owned()))?
                }
            }
        })
    }

    /// Whether its value is a number.
    pub fn is_number(&self) -> bool {
        matches!(
            self,
            Self::ClientPort
                | Self::Status
                | Self::BodyBytesSent
                | Self::BodyBytesReceived
                | Self::Duration
                | Self::UpstreamDuration
                | Self::Tries
                | Self::Pid
        )
    }

    /// Whether the variable has no value where no request could be read.
    fn is_of_request(&self) -> bool {
        matches!(
            self,
            Self::Method
                | Self::Host
                | Self::Path
                | Self::Query
                | Self::Request
                | Self::Protocol
                | Self::Scheme
        )
    }

    /// Appends its value; false when it has none.
    pub fn write(&self, out: &mut Vec<u8>, exchange: &Exchange) -> bool {
        if exchange.stage() == Stage::Idle && self.is_of_request() {
            return false;
        }
        let request = exchange.request();
        let stats = &exchange.stats();
        let value: Option<&[u8]> = match self {
            Self::ClientAddress => {
                out.extend_from_slice(exchange.context().client.host().bytes());
                return true;
            }
            Self::ClientPort => {
                let port = exchange.context().client.port();
                return port.is_some_and(|port| write_number(out, port.into()));
            }
            Self::Status => return write_number(out, exchange.reply().status.as_u16().into()),
            Self::BodyBytesSent => return write_number(out, stats.body_bytes_sent),
            Self::BodyBytesReceived => return write_number(out, stats.body_bytes_received),
            Self::Duration => return write_seconds(out, stats.started.elapsed()),
            Self::UpstreamDuration => {
                return stats
                    .upstream_took()
                    .is_some_and(|took| write_seconds(out, took));
            }
            Self::Tries => return write_number(out, stats.tries.into()),
            Self::Pid => return write_number(out, std::process::id().into()),
            Self::Request => return exchange.write_request_line(out),
            Self::Argument(name) => return write_argument(out, request, name),
            Self::Method => Some(request.method.as_str().as_bytes()),
            Self::Host => request.headers.get(KnownHeader::Host),
            Self::Path => Some(request.target.path().as_bytes()),
            Self::Query => request.target.query().map(str::as_bytes),
            Self::Scheme => Some(request.scheme.as_str().as_bytes()),
            Self::Protocol => Some(exchange.request().protocol.as_str().as_bytes()),
            Self::RequestId => request.headers.get(KnownHeader::XRequestId),
            Self::Listener => Some(exchange.context().listener.as_bytes()),
            Self::Route => exchange.route().map(str::as_bytes),
            Self::Upstream => exchange.context().upstream.as_deref().map(str::as_bytes),
            Self::Peer => exchange.context().peer.as_deref().map(str::as_bytes),
            Self::CutBy => stats.cut_by.map(str::as_bytes),
            Self::RequestHeader(name) => request.headers.get(name),
            Self::ResponseHeader(name) => exchange.reply().headers.get(name),
            Self::Tls(fact) => {
                let tls = exchange.context().tls.as_ref();
                tls.and_then(|tls| tls.fact(*fact)).map(str::as_bytes)
            }
            Self::Cookie(name) => cookies::first_in_any_case(&request.headers, name),
            Self::SetCookie(name) => cookies::last_set(&exchange.reply().headers, name),
            Self::Set(name) => exchange.context().vars.get(name),
        };
        match value {
            Some(value) => {
                out.extend_from_slice(value);
                true
            }
            None => false,
        }
    }
}

/// False where the query has no such parameter.
fn write_argument(out: &mut Vec<u8>, request: &RequestHead, name: &str) -> bool {
    let query = request.target.query().unwrap_or_default();
    let value = query::first_in_any_case(query, name);
    value.is_some_and(|value| {
        out.extend_from_slice(&value);
        true
    })
}

/// True, for the callers' sake.
fn write_number(out: &mut Vec<u8>, number: u64) -> bool {
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    true
}

/// Writes seconds with milliseconds, rounded. Always true, for the callers' sake.
fn write_seconds(out: &mut Vec<u8>, took: Duration) -> bool {
    let millis = (took + Duration::from_micros(500)).as_millis();
    let [thousands, rest] = [millis / 1000, millis % 1000].map(|n| u64::try_from(n).unwrap_or(0));
    write_number(out, thousands);
    out.push(b'.');
    for divisor in [100, 10, 1] {
        out.push(b"0123456789"[(rest / divisor % 10) as usize]);
    }
    true
}
