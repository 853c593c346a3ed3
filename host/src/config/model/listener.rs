//! `[listeners.NAME]`, resolved.

use std::fmt;
use std::net::{AddrParseError, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{HttpSettings, ListenerTls, Networks};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Listener {
    /// No other listener has the same; a port is not 0.
    pub bind: Bind,
    pub socket: SocketOptions,
    pub limits: ConnectionLimits,
    /// Default none: the client's address is that of the connection.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Default none: connections are plain.
    pub tls: Option<ListenerTls>,
    pub serves: Serves,
    /// `FILE:LINE:COLUMN` of `bind`.
    pub place: String,
}

/// Options of the listening sockets, which the master sets. Connections inherit those that are of TCP.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SocketOptions {
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
}

/// Bounds of a listener's open connections in one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionLimits {
    /// Open client connections in one worker. For one more the longest idle is closed; where none is idle, it waits in
    /// the kernel's queue. 1 to 1000000. Default 16384.
    pub max_connections: usize,
    /// Open connections of one client address, or of one IPv6 /64 network; beyond it new ones are closed at once.
    /// 1 to 1000000. Default half of `max_connections` and at least 64, so that no address keeps all others out.
    pub max_connections_per_address: NonZeroU32,
}

/// PROXY headers in front of connections (nginx `listen ... proxy_protocol`, `set_real_ip_from`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProxyProtocol {
    /// Proxies whose connections have a header, at least one.
    pub from: Networks,
    /// Default `refuse`.
    pub others: WithoutHeader,
    /// Time from accept to the end of the header. Default 5 s.
    pub timeout: Duration,
}

/// Treatment of connections of others than the proxies. In the file `"refuse"` or `"serve"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WithoutHeader {
    /// Connection is closed at once.
    Refuse,
    /// Connection is a client's own. No header is read: it would be bytes that the client sends.
    Serve,
}

/// Protocol of a listener's connections, with its settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Serves {
    Http(HttpSettings),
}

/// Address that a listener listens at. Read and written as in the config.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Bind {
    /// `127.0.0.1:8080`, `[::1]:8080`.
    Tcp(SocketAddr),
    /// `unix:/run/app.sock` (nginx `listen unix:`); absolute once the config is read.
    Unix(PathBuf),
}

/// Probes of silent connections: after `idle` without a byte the kernel probes a connection, each `interval`, and ends
/// it when `count` probes stay unanswered (tcp(7)).
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
    /// All workers wait on one socket; a worker that is free takes the next connection.
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
