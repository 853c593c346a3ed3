//! Routes in the resolved config.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{PathPolicy, PluginUse, RetryOverrides};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// Name for logs. A given one is the only one of that name. Default: its hosts and path,
    /// `example.com,*.example.org/api`, which another route may have, too.
    pub name: String,
    /// Which listeners it belongs to. Default all.
    pub listeners: Vec<String>,
    /// Empty: any host.
    pub hosts: Vec<HostPattern>,
    /// Path prefix by whole segments: `/api` and `/api/` both match `/api`, `/api/` and `/api/x`, never `/apix`.
    /// Default `/`. Kept without the trailing slash (the root is the empty text). Has no empty, `.` or `..` segments,
    /// and is one that [`crate::message::path::read`] reads.
    pub path: String,
    /// Empty: any method.
    pub methods: Vec<String>,
    /// All must match. Names in lower case.
    pub headers: Vec<HeaderMatch>,
    /// Plugins in the order of the config; their response hooks run in the reverse order.
    pub plugins: Vec<PluginUse>,
    /// Upstream of the route. None: a plugin's `content` or `rewrite` hook answers, and where none does, it is 404.
    pub upstream: Option<String>,
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
    /// In the place of what its upstream and its listener say.
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
    /// Longest body of a request; 0: no limit.
    pub max_body_bytes: Option<u64>,
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

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeaderMatch {
    pub name: String,
    /// Test of the value. In the file: `"value"` for [`HeaderTest::Equals`], `true` or `false` for present or absent.
    pub test: HeaderTest,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum HeaderTest {
    Equals(String),
    Present,
    Absent,
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
