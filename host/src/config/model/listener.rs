//! `[listeners.NAME]`, resolved.

use std::fmt;
use std::net::{AddrParseError, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::PluginUse;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listener {
    /// No other listener has the same; a port is not 0.
    pub bind: Bind,
    /// Default `per_worker`, for a Unix socket `shared`, which it cannot but be.
    pub accept: Accept,
    /// Permissions of a Unix socket's file, 0 to 0o777. Default 0o666, as nginx has it.
    pub mode: u32,
    /// Connections the kernel queues for each socket. 1 to 65535. Default 4096 (capped by net.core.somaxconn).
    pub backlog: u32,
    /// Whether an IPv6 listener leaves IPv4 clients alone (IPV6_V6ONLY; nginx `ipv6only`). Default true. False for
    /// `[::]` takes both. A socket keeps it for its life.
    pub ipv6_only: bool,
    /// Small pieces are sent at once (TCP_NODELAY; nginx `tcp_nodelay`). Default true.
    pub nodelay: bool,
    /// Default none: the kernel does not ask whether a silent client is still there (nginx `so_keepalive`).
    pub tcp_keepalive: Option<TcpKeepalive>,
    /// The kernel hands a connection over when its first bytes are there, or after about so long (TCP_DEFER_ACCEPT;
    /// nginx `deferred`). 0 to 300 whole seconds, 0 is off. Default 0.
    pub defer_accept_seconds: u32,
    /// Run for every route of the listener, before the route's own.
    pub plugins: Vec<PluginUse>,
    /// Largest request head, bytes; beyond it 431. 1 KiB to 1 MiB. Default 32 KiB (nginx
    /// `large_client_header_buffers`).
    pub max_head_bytes: usize,
    /// Fields in it; beyond it 431. 16 to 10000. Default 1000 (nginx `max_headers`).
    pub max_fields: usize,
    /// Default `strict`.
    pub field_names: FieldNames,
    /// Default `encode`.
    pub non_ascii_target: NonAsciiTarget,
    /// Default `normal`. Of the routes that do not say otherwise.
    pub paths: PathPolicy,
    /// Whether paths of routes are compared with regard to case. Default `sensitive`.
    pub case: PathCase,
    /// Largest request body, bytes; beyond it 413. Up to 1 PiB, 0 means no limit. Default 0, unlike nginx's 1 MiB.
    pub max_body_bytes: u64,
    /// Open client connections in one worker. For one more the longest idle is closed; where none is idle, it waits in
    /// the kernel's queue. 1 to 1000000. Default 16384.
    pub max_connections: usize,
    /// Of these, connections of one client address, or of one IPv6 /64 network; beyond it new ones are closed at once.
    /// 1 to 1000000. Default half of `max_connections` and at least 64, so that no address keeps all others out.
    pub max_connections_per_address: NonZeroU32,
    /// From the first byte of a request's head to its last, and from accept to the first byte. On expiry the
    /// connection is closed. Default 60 s (nginx `client_header_timeout`).
    pub head_timeout: Duration,
    /// Between two reads of a request's body; then 408. Default 60 s (nginx `client_body_timeout`).
    pub body_timeout: Duration,
    /// Between two writes to the client. Default 60 s (nginx `send_timeout`).
    pub send_timeout: Duration,
    /// A keep-alive connection without a request. Default 75 s (nginx `keepalive_timeout`).
    pub idle_timeout: Duration,
    /// How long a whole request goes on without a byte for the client once that has ended its direction of the
    /// connection (RFC 9112 §9.6); then 499. 0 to 1 h, 0 is at once. Default 10 s. A reset ends the request at once.
    pub half_close: Duration,
    /// Slowest request body. Default 500 bytes a second after 20 s (Apache `RequestReadTimeout`).
    pub body_rate: Rate,
    /// Slowest taking of a response, while bytes wait for the client. Default 240 bytes a second, looked at each 5 s.
    pub send_rate: Rate,
    /// Bounds of what is still read after the last response.
    pub linger: Linger,
    /// Whether `Via` is added to requests and responses (RFC 9110 §7.6.3). Default true.
    pub via: bool,
    /// Default `keep`.
    pub server: ServerField,
    /// `FILE:LINE:COLUMN` of `bind`.
    pub place: String,
}

/// Which names of request fields go on. In the file `"strict"` or `"any"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FieldNames {
    /// Letters, digits and hyphens; fields of other names are dropped (nginx `underscores_in_headers off` and
    /// `ignore_invalid_headers on`).
    Strict,
    /// All that RFC 9110 §5.1 allows.
    Any,
}

/// Policy of request paths: what they may be, and how they are sent on. In the file `"normal"`, `"strict"` or `"as_sent"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathPolicy {
    /// The compared path is sent on: dot segments resolved, empty segments taken out, a backslash percent-encoded; `%2F` and
    /// `%5C` are data. 400 where a peer could read another path (see [`crate::message::path::PathError`]).
    #[default]
    Normal,
    /// 400 for a backslash, `%2F`, `%5C`, empty segments and dot segments, too.
    Strict,
    /// As the client has sent it, compared by all that it could be to a peer. A peer may read another path than the one that
    /// routes and plugins have decided by.
    AsSent,
}

/// In the file `"sensitive"` or `"insensitive"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathCase {
    /// `/a` and `/A` are two paths.
    Sensitive,
    /// `/a` and `/A` are one path, as they are to peers on such file systems. ASCII only.
    Insensitive,
}

/// Treatment of bytes beyond ASCII in a request's target. In the file `"encode"` or `"refuse"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NonAsciiTarget {
    /// Percent-encoded.
    Encode,
    /// 400.
    Refuse,
}

/// The slowest that a transfer may be. In the file `{ min = 500, after = "20s" }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Bytes a second. 0 to 1 GiB, 0 is no bound.
    pub min: u32,
    /// From then on. 1 s to 1 h.
    pub after: Duration,
}

impl Rate {
    /// Any speed.
    pub const NONE: Self = Self {
        min: 0,
        after: Duration::ZERO,
    };

    /// How long so many bytes may take; `None`: for ever.
    pub fn time_for(self, bytes: u64) -> Option<Duration> {
        let millis = bytes.saturating_mul(1000).checked_div(self.min.into())?;
        Some(self.after.saturating_add(Duration::from_millis(millis)))
    }
}

/// After the last response, so much of what still comes is read and thrown away, and for so long: the kernel would reset
/// a connection that is closed with bytes unread, and the response with it (RFC 9112 §9.6; nginx `lingering_time`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Linger {
    /// 0 to 1 GiB. Default 1 MiB.
    pub bytes: usize,
    /// 0 to 1 h. Default 5 s.
    pub time: Duration,
}

/// The `Server` of responses. In the file `"keep"`, `"remove"` or another text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerField {
    /// The peer's. Replies of the gateway's own say `castling`.
    Keep,
    /// None.
    Remove,
    /// This text.
    Fixed(String),
}

/// Where a listener listens. Read and written as in the config.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Bind {
    /// `127.0.0.1:8080`, `[::1]:8080`.
    Tcp(SocketAddr),
    /// `unix:/run/app.sock` (nginx `listen unix:`); absolute once the config is read.
    Unix(PathBuf),
}

/// After `idle` without a byte the kernel probes a connection, each `interval`, and ends it when `count` probes stay
/// unanswered (tcp(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpKeepalive {
    /// 1 to 32767. Default 7200, as Linux has it.
    pub idle_seconds: u32,
    /// 1 to 32767. Default 75, as Linux has it.
    pub interval_seconds: u32,
    /// 1 to 127. Default 9, as Linux has it.
    pub count: u32,
}

/// How workers share out the connections of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Accept {
    /// Each worker has a socket of its own; the kernel chooses one by a hash of the addresses (nginx `reuseport`).
    PerWorker,
    /// All wait on one socket; a worker that is free takes the next connection.
    Shared,
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl From<Bind> for String {
    fn from(bind: Bind) -> Self {
        bind.to_string()
    }
}

impl TryFrom<String> for Bind {
    type Error = AddrParseError;

    fn try_from(text: String) -> Result<Self, AddrParseError> {
        match text.strip_prefix("unix:") {
            Some(path) => Ok(Self::Unix(PathBuf::from(path))),
            None => Ok(Self::Tcp(text.parse()?)),
        }
    }
}
