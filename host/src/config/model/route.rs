//! Routes in the resolved config.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    FieldMatch, Mirror, Networks, PathMatch, PathPolicy, Pattern, PluginUse, RetryOverrides,
    RouteCache,
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// Name for logs. A given one is the only one of that name. Default: its hosts and path,
    /// `example.com,*.example.org/api`, which another route may have, too.
    pub name: String,
    /// Which listeners it belongs to. Default all.
    pub listeners: Vec<String>,
    /// Empty: any host.
    pub hosts: Vec<HostPattern>,
    /// Default `/`.
    pub path: PathMatch,
    /// Empty: any method.
    pub methods: Vec<String>,
    /// All must match, and so must those of the query and the cookies.
    pub headers: Vec<FieldMatch>,
    /// Parameters of the query, decoded.
    pub query: Vec<FieldMatch>,
    pub cookies: Vec<FieldMatch>,
    /// Networks of clients, one of which must have the request's. Default: any client.
    pub clients: Option<Networks>,
    /// Routes with a higher one are asked first, whatever their hosts and paths. Default 0.
    pub priority: i32,
    /// Plugins in the order of the config; their response hooks run in the reverse order.
    pub plugins: Vec<PluginUse>,
    /// Upstreams of the route, each with its share. In the file `"app"`, or `{ app = 90, canary = 10 }`. None: a plugin's `content` or `rewrite` hook answers, and where none does, it is 404.
    pub upstreams: Vec<UpstreamShare>,
    /// Text with `$variables` that a request has when it is routed: those for which it reads the same go to the same of several
    /// upstreams. Default: at random.
    pub split_by: Option<String>,
    /// The gateway's metrics are the answer, in Prometheus' text format; there is no upstream then. Default false.
    pub metrics: bool,
    /// Whether a client without a verified certificate is refused (403). In the file `"required"`; default `"optional"`.
    pub client_certificate: bool,
    /// Sends the client to https; there is no upstream then. Listeners with TLS do not have the route. Default none.
    pub redirect: Option<Redirect>,
    /// Replaces the path policy of its listeners.
    pub paths: Option<PathPolicy>,
    /// Whether a WebSocket may begin here, and how long it may last. In the file `upgrades = ["websocket"]`. Default none: the
    /// fields that ask for one are removed (nginx, unless `proxy_set_header Upgrade` passes them on).
    pub tunnel: Option<Tunnel>,
    /// Cache of its responses. Default none.
    pub cache: Option<RouteCache>,
    /// Settings in the place of those of its upstream and its listener.
    pub proxy: RouteProxy,
    /// `FILE:LINE:COLUMN` of the route's table.
    pub place: String,
}

/// How requests of a route go to its upstream; what is not given is the upstream's own, and `max_body` the listener's.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RouteProxy {
    pub connect_timeout: Option<Duration>,
    pub response_timeout: Option<Duration>,
    pub idle_timeout: Option<Duration>,
    pub tries: Option<u32>,
    pub retry: Option<RetryOverrides>,
    pub max_response_bytes: Option<u64>,
    pub response_rate: Option<u64>,
    /// Longest body of a request; 0: no limit.
    pub max_body_bytes: Option<u64>,
    pub mirror: Option<Mirror>,
}

impl Route {
    /// Names of the groups of its expressions, which become variables.
    pub fn group_names(&self) -> Vec<String> {
        let path = match &self.path {
            PathMatch::Regex(pattern) => Some(pattern),
            PathMatch::Prefix(_) | PathMatch::Exact(_) => None,
        };
        let fields = [&self.headers, &self.query, &self.cookies];
        let of_fields = fields.into_iter().flatten().filter_map(FieldMatch::pattern);
        let patterns = path.into_iter().chain(of_fields);
        patterns.flat_map(Pattern::group_names).collect()
    }

    /// Variables that its expressions set: the groups with names, and all of the path's by their numbers.
    pub fn set_variables(&self) -> Vec<String> {
        let mut names = self.group_names();
        if let PathMatch::Regex(pattern) = &self.path {
            names.extend((1..=pattern.groups()).map(|number| number.to_string()));
        }
        names
    }
}

/// An upstream and its share of a route's requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamShare {
    pub name: String,
    /// 0 to 65535, not 0 for all.
    pub weight: u16,
}

/// Way to https. In the file `"https"`, or `{ to = "https", status = 301, port = 8443 }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirect {
    /// 301, 302, 307 or 308. Default 308, upon which the method stays.
    pub status: u16,
    /// Default 443 where a listener with TLS has it or none is there, else that of the first.
    pub port: Option<u16>,
}

/// Pattern of hosts. In the file: `"example.com"` or `"*.example.com"`. In lower case, without a port, an IPv6 address
/// in brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HostPattern {
    Exact(String),
    /// Suffix with its leading dot: `*.example.com` is `.example.com`. Matches any depth of subdomain, never
    /// `example.com`.
    Suffix(String),
}

/// Text as in the file.
impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Suffix(suffix) => write!(f, "*{suffix}"),
        }
    }
}

/// Bounds of the bytes that go both ways after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// By HTTP/1's `Upgrade` and by RFC 8441.
    pub websocket: bool,
    /// Bytes of any protocol to a peer of the upstream (nginx `tunnel_pass`, Envoy `connect_config`).
    pub connect: bool,
    /// Longest time without a byte in either direction. Default 1 h (HAProxy `timeout tunnel`; nginx 60 s).
    pub idle_timeout: Duration,
    /// Longest time in all. Default none.
    pub max_time: Option<Duration>,
}
