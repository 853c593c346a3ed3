//! Upstreams in the resolved config.

use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    Balance, Breaker, Concurrency, HealthCheck, Passive, PeersUrl, PlacedPath, ResponseLimits,
    Retry, SlowStart, Sticky, TcpKeepalive, UpstreamTls,
};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Upstream {
    /// Peers, at least one where there is neither a file of peers nor a URL.
    pub peers: Vec<Peer>,
    /// File with more of them, which is looked at again and again (Prometheus' `file_sd`, Envoy's EDS by file). Default none.
    pub peers_file: Option<PlacedPath>,
    /// URL with more of them. The master's alone: workers are not told, since it may have secrets. Default none.
    #[serde(skip)]
    pub peers_url: Option<PeersUrl>,
    /// How names among them are resolved.
    pub resolve: Resolve,
    /// Default `round_robin`.
    pub balance: Balance,
    /// Default none: a peer that comes up has its whole weight (HAProxy `slowstart`, Envoy `slow_start_config`).
    pub slow_start: Option<SlowStart>,
    /// Zone that the gateway is in: peers there are preferred. Default none (Envoy's locality).
    pub zone: Option<String>,
    /// Binding of the requests of a session to one peer. Default none.
    pub sticky: Option<Sticky>,
    /// Longest wait for a connection to a peer, the handshake of TLS included. On expiry the next peer is tried. Default 5 s.
    pub connect_timeout: Duration,
    /// Longest time from the end of the request to the response's head; then 504. Default 60 s (nginx
    /// `proxy_read_timeout`).
    pub response_timeout: Duration,
    /// Longest time between two reads or two writes of a body. Default 60 s.
    pub idle_timeout: Duration,
    /// Peers that one request may try in all, the first included. 1 to 100. Default 3 (nginx
    /// `proxy_next_upstream_tries`).
    pub tries: u32,
    /// Requests that may be under way at a peer, from all workers, where the peer does not say itself. 1 to 1 000 000. Default
    /// none (nginx `max_conns`, HAProxy `maxconn`).
    pub max_active: Option<u32>,
    /// Wait of requests while all peers have as many as they may.
    pub queue: Queue,
    pub retry: Retry,
    pub breaker: Breaker,
    /// Default none.
    pub concurrency: Option<Concurrency>,
    pub response: ResponseLimits,
    /// Connections that are kept for later requests.
    pub keepalive: PeerKeepalive,
    /// Whether the kernel probes silent connections to peers. Default none (nginx `proxy_socket_keepalive`).
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// Addresses of this host that connections to peers come from, one at most for each family, which peers of the other
    /// family cannot be connected to from. Default none: the kernel chooses (nginx `proxy_bind`).
    pub source_address: Vec<IpAddr>,
    /// Time after which the address of the other family is tried beside one that has not answered, where a name has both. Zero:
    /// it is not. At most 2 s. Default 250 ms (RFC 8305 §5).
    pub happy_eyeballs: Duration,
    pub passive: Passive,
    /// Default none: peers are judged by their requests alone.
    pub check: Option<HealthCheck>,
    /// Share of the peers that must be available; below it all are chosen from, whatever their health. 0 to 1. Default 0: none
    /// must be (Envoy `healthy_panic_threshold`, 50 %).
    pub panic_threshold: f64,
    /// Largest head of a response, bytes; beyond it 502. 1 KiB to 1 MiB. Default 64 KiB (nginx `proxy_buffer_size`).
    pub max_head_bytes: usize,
    /// Fields in it; beyond it 502. 16 to 10000. Default 1000.
    pub max_fields: usize,
    /// Which `Host` the peer sees. Default `client`.
    pub host: UpstreamHost,
    /// Header in front of each connection, in which peers are told whose it is. Default none (nginx `proxy_protocol`, of its
    /// stream module). No connection is kept then.
    pub proxy_protocol: Option<HeaderVersion>,
    /// Default `http1` (nginx `proxy_http_version`).
    pub protocol: PeerProtocol,
    /// Default none: connections are plain.
    pub tls: Option<UpstreamTls>,
    /// `FILE:LINE:COLUMN` of the upstream's table.
    pub place: String,
}

/// Connections to peers that are kept for later requests, in each worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerKeepalive {
    /// Idle connections that are kept at most. 0 to 65535, 0 turns keep-alive off. Default 16384. One is made only when none is
    /// idle and the newest are used first, so that as many are kept as were in use at once within the last `timeout` (nginx
    /// `keepalive`, which is 32 and to be set by hand).
    pub connections: usize,
    /// How long each of them is kept without a request. Default 60 s (nginx `keepalive_timeout`).
    pub timeout: Duration,
    /// Age from which a connection takes no further request. Default 1 h (nginx `keepalive_time`, Envoy
    /// `max_connection_duration`).
    pub max_age: Duration,
    /// Requests that one connection takes. 1 to 2^32 - 1. Default: any number (nginx `keepalive_requests`, which is 1000).
    pub max_requests: Option<NonZeroU32>,
    /// Idle connections to each peer that are made before requests need them. 0 to 1024. Default 0.
    pub min_idle: usize,
}

/// `Host` that peers get. In the file: `"client"`, `"peer"`, or any other text, which is sent as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum UpstreamHost {
    /// Host that the client sent (nginx `proxy_set_header Host $http_host`).
    Client,
    /// The peer's own name from the config (nginx's default).
    Peer,
    Fixed(String),
}

/// Version of HTTP that peers are spoken to. In the file `"http1"`, `"http2"` or `"auto"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerProtocol {
    Http1,
    /// Many requests on one connection; without TLS, peers are known to speak it (RFC 9113 §3.3).
    Http2,
    /// HTTP/2 where the peer chooses it in the handshake of TLS (ALPN), else HTTP/1.
    Auto,
}

/// Version of the PROXY protocol. In the file `"v1"` (text) or `"v2"` (binary).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeaderVersion {
    V1,
    V2,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// `HOST:PORT` in lower case, an IPv6 address in brackets; each address of a name becomes a peer, as long as the name has
    /// it. Or `unix:PATH`, absolute once the config is read (nginx `server unix:`). Or the name of a service, with `srv`.
    pub address: String,
    /// Whether SRV records say hosts, ports, weights, and by their priorities who is a backup (nginx `service=`).
    pub srv: bool,
    /// Share of the requests in relation to the other peers. 1 to 65535. Default 1.
    pub weight: NonZeroU16,
    /// Whether the peer is for the time when no other is available (nginx `backup`). Default false.
    pub backup: bool,
    /// Zone that it is in. Default none: it is in another than the gateway.
    pub zone: Option<String>,
    /// Name by which requests are bound to it (`sticky.route`). Default none (nginx `route`).
    pub route: Option<String>,
    /// Texts that plugins see which choose peers, each once. Up to [`MAX_PEER_TAGS`], of 1 to [`MAX_PEER_TAG_BYTES`] bytes. Default none.
    #[serde(default)]
    pub tags: Vec<String>,
    /// In the place of the upstream's.
    pub max_active: Option<u32>,
}

/// Tags that one peer may have.
pub const MAX_PEER_TAGS: usize = 32;

/// Length of each.
pub const MAX_PEER_TAG_BYTES: usize = 64;

/// How names of peers become addresses. Names are asked for again when an answer is no longer good; the last good answer stays
/// until another has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolve {
    /// Name servers. Empty: those that the system asks (nginx `resolver`, HAProxy `resolvers`).
    pub servers: Vec<SocketAddr>,
    /// Default `any`.
    pub family: Family,
    /// Longest wait for one server, 10 ms to 15 s; then the next is asked. Default 2 s (nginx `resolver_timeout`).
    pub timeout: Duration,
    /// Bounds of the time for which an answer is good by its own word (its TTL). Default 1 s and 5 min (HAProxy `hold valid`,
    /// Envoy `dns_min_refresh_rate`).
    pub min_interval: Duration,
    pub max_interval: Duration,
    /// Time for which an answer is good, whatever it says (nginx `resolver valid=`).
    pub valid: Option<Duration>,
    /// Whether a generation is refused that knows no address of a name. Default true; else the upstream begins without them
    /// (HAProxy `init-addr none`).
    pub required: bool,
}

/// Kind of addresses. In the file `"any"`, `"ipv4"` or `"ipv6"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Family {
    Any,
    Ipv4,
    Ipv6,
}

impl Default for Resolve {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            family: Family::Any,
            timeout: Duration::from_secs(2),
            min_interval: Duration::from_secs(1),
            max_interval: Duration::from_secs(300),
            valid: None,
            required: true,
        }
    }
}

/// Requests that wait for a peer with room. Default `{ size = 0, timeout = "1s" }`: none waits, they are answered 503.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// Requests that wait in a worker, 0 to 100 000 (HAProxy `maxqueue`).
    pub size: usize,
    /// Longest wait of each; then 503 (HAProxy `timeout queue`).
    pub timeout: Duration,
}

impl Peer {
    pub fn is_unix(&self) -> bool {
        self.address.starts_with("unix:")
    }

    /// Whether the DNS says its addresses.
    pub fn is_name(&self) -> bool {
        self.srv || !(self.is_unix() || self.address.parse::<SocketAddr>().is_ok())
    }
}
