//! Variables by their `$name`: facts of an exchange, and what plugins and routes have set.

use std::time::Duration;

use castling_abi::TlsFact;
use castling_abi::variable::{OwnVariable, is_variable};
use http::HeaderName;

use super::{Exchange, Stage};
use crate::message::{KnownHeader, RequestHead, cookies, path, query};
use crate::transport::address::{AddressText, ServerAddress};

/// Variable that a `$name` stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Variable {
    ClientAddress,
    ClientPort,
    /// The gateway's address that the client connected to, or `unix:PATH`.
    ServerAddress,
    ServerPort,
    Method,
    Host,
    /// Path at the end; plugins may have changed it.
    Path,
    /// Path as routes compare it.
    RoutedPath,
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
    /// Outcome of the route's cache.
    CacheStatus,
    /// Plugin whose sub-request it is.
    SubrequestOf,
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
        Some(match name {
            "client_address" => Self::ClientAddress,
            "client_port" => Self::ClientPort,
            "server_address" => Self::ServerAddress,
            "server_port" => Self::ServerPort,
            "method" => Self::Method,
            "host" => Self::Host,
            "path" => Self::Path,
            "routed_path" => Self::RoutedPath,
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
            "cache_status" => Self::CacheStatus,
            "subrequest_of" => Self::SubrequestOf,
            "pid" => Self::Pid,
            _ => return Self::of_family(name),
        })
    }

    fn of_family(name: &str) -> Option<Self> {
        let rest = |prefix| name.strip_prefix(prefix);
        let header = |name: &str| name.replace('_', "-").parse::<HeaderName>().ok();
        let named = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        if let Some(name) = rest("http_").or_else(|| rest("request_header_")) {
            return header(name).map(Self::RequestHeader);
        }
        if let Some(name) = rest("sent_http_").or_else(|| rest("response_header_")) {
            return header(name).map(Self::ResponseHeader);
        }
        if let Some(name) = rest("arg_") {
            return named(name).map(Self::Argument);
        }
        if let Some(name) = rest("cookie_") {
            return named(name).map(Self::Cookie);
        }
        if let Some(name) = rest("upstream_cookie_") {
            return named(name).map(Self::SetCookie);
        }
        match TlsFact::from_name(name) {
            Some(fact) => Some(Self::Tls(fact)),
            None => is_variable(name).then(|| Self::Set(name.to_owned())),
        }
    }

    /// The gateway's own variable of that name, as far as plugins may ask for it: not those for the access log or for `sticky.learn` alone.
    pub fn own(name: &str) -> Option<Self> {
        OwnVariable::of(name)?;
        Self::parse(name).filter(|own| !matches!(own, Self::Set(_) | Self::SetCookie(_)))
    }

    /// Whether its value is a number.
    pub fn is_number(&self) -> bool {
        matches!(
            self,
            Self::ClientPort
                | Self::ServerPort
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
                | Self::RoutedPath
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
            Self::ClientPort => return write_port(out, exchange.context().client.port()),
            Self::ServerAddress => return write_server(out, exchange),
            Self::ServerPort => return write_port(out, exchange.context().server.port()),
            Self::RoutedPath => return write_routed_path(out, request),
            Self::Status => return write_number(out, exchange.reply().status.as_u16().into()),
            Self::BodyBytesSent => return write_number(out, stats.body_bytes_sent),
            Self::BodyBytesReceived => return write_number(out, stats.body_bytes_received),
            Self::Duration => return write_seconds(out, stats.duration()),
            Self::UpstreamDuration => {
                let took = stats.upstream_took();
                return took.is_some_and(|took| write_seconds(out, took));
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
            Self::SubrequestOf => exchange.context().subrequest_of(),
            Self::CutBy => stats.cut_by.map(str::as_bytes),
            Self::CacheStatus => stats.cache.map(str::as_bytes),
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

/// False where the path leaves the root.
fn write_routed_path(out: &mut Vec<u8>, request: &RequestHead) -> bool {
    let path = path::routed(request.target.path());
    path.is_some_and(|path| {
        out.extend_from_slice(path.as_bytes());
        true
    })
}

/// False where there is none, as at a Unix socket.
fn write_port(out: &mut Vec<u8>, port: Option<u16>) -> bool {
    port.is_some_and(|port| write_number(out, port.into()))
}

/// True, for the callers' sake.
fn write_server(out: &mut Vec<u8>, exchange: &Exchange) -> bool {
    match &exchange.context().server {
        ServerAddress::Tcp(server) => out.extend_from_slice(AddressText::new(server.ip()).bytes()),
        ServerAddress::Unix(path) => out.extend_from_slice(path.as_bytes()),
    }
    true
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

#[cfg(test)]
mod tests {
    use castling_abi::variable::{KnownFrom, OWN_VARIABLES, ReadCost, VariableType};

    use super::*;

    /// Names of all that stand in the table, of each family one.
    fn names() -> impl Iterator<Item = (String, VariableType)> {
        OWN_VARIABLES.iter().filter_map(|own| match own.name {
            "time_" => None, // the access log writes them without an exchange
            "tls_" => Some(("tls_version".to_owned(), own.value)),
            name if own.is_family => Some((format!("{name}x"), own.value)),
            name => Some((name.to_owned(), own.value)),
        })
    }

    #[test]
    fn each_of_the_table_is_one_of_the_gateways_own() {
        for (name, value) in names() {
            let variable = Variable::parse(&name).unwrap();
            assert!(!matches!(variable, Variable::Set(_)), "{name}");
            assert_eq!(variable.is_number(), value != VariableType::Text, "{name}");
            let is_for_plugins = !name.starts_with("upstream_cookie_");
            assert_eq!(Variable::own(&name).is_some(), is_for_plugins, "{name}");
        }
        for name in ["user", "tls_x", "http_", "arg_", "time_local", "A"] {
            assert_eq!(Variable::own(name), None, "{name}");
        }
    }

    #[test]
    fn a_request_has_those_of_requests_and_no_others() {
        let mut exchange = Exchange::idle();
        exchange.enter(Stage::Request);
        for own in OWN_VARIABLES.iter().filter(|own| !own.is_family) {
            let mut out = Vec::new();
            let has_value = Variable::parse(own.name)
                .unwrap()
                .write(&mut out, &exchange);
            assert!(has_value || out.is_empty(), "{}", own.name);
        }
    }

    /// Rows of docs/VARIABLES.md.
    fn rows() -> String {
        let row = |own: &OwnVariable| {
            let name = match own.name {
                name @ ("tls_" | "time_") => format!("`${name}...`"),
                name if own.is_family => format!("`${name}NAME`"),
                name => format!("`${name}`"),
            };
            let value = match own.value {
                VariableType::Text => "text",
                VariableType::Number => "number",
                VariableType::Seconds => "seconds",
            };
            let known = match own.known {
                KnownFrom::Request => "`post_read`",
                KnownFrom::Routing => "`rewrite`",
                KnownFrom::Peer => "`peer_done`",
                KnownFrom::Response => "`response_headers`",
                KnownFrom::Always => "all, so far",
            };
            let cost = match own.cost {
                ReadCost::Copied => "copied",
                ReadCost::Written => "written",
                ReadCost::Searched => "searched",
                ReadCost::Parsed => "parsed",
            };
            format!("| {name} | {value} | {known} | {cost} | {} |\n", own.about)
        };
        OWN_VARIABLES.iter().map(row).collect()
    }

    #[test]
    fn docs_have_the_table() {
        let docs = include_str!("../../../docs/VARIABLES.md");
        let (_, table) = docs.split_once("|---|---|---|---|---|\n").unwrap();
        let table = table
            .split_inclusive('\n')
            .take_while(|line| line.starts_with('|'));
        let table: String = table.collect();
        assert_eq!(
            table,
            rows(),
            "docs/VARIABLES.md should have these rows:\n{}",
            rows()
        );
    }
}
