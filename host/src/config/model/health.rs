//! Health of peers in the resolved config.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::StatusSet;

/// Rules of what counts as a failure of a peer, as its requests go, and what comes of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Passive {
    /// Failures in a row after which a peer is ejected: passed over. 0 to 1000, 0: never. Default 1 (nginx `max_fails`, Envoy
    /// `consecutive_5xx`).
    pub failures: u32,
    /// Statuses that count as failures, beside connects, resets and time-outs. Default none (nginx `proxy_next_upstream`
    /// `http_503`, HAProxy `observe layer7`).
    pub statuses: StatusSet,
    /// Time of the first ejection; each that follows soon is longer by as much. Default 10 s (nginx `fail_timeout`, Envoy
    /// `base_ejection_time`).
    pub ejection: Duration,
    /// Longest of them. Default 60 s (Envoy `max_ejection_time`).
    pub max_ejection: Duration,
    /// Share of the peers that may be ejected at a time, but one always. 0 to 1. Default 1 (Envoy `max_ejection_percent`, 10 %).
    pub max_ejected: f64,
    /// Default none.
    pub success_rate: Option<SuccessRate>,
}

impl Default for Passive {
    fn default() -> Self {
        Self {
            failures: 1,
            statuses: StatusSet::NONE,
            ejection: Duration::from_secs(10),
            max_ejection: Duration::from_secs(60),
            max_ejected: 1.0,
            success_rate: None,
        }
    }
}

/// Ejection of peers that fail more often than others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SuccessRate {
    /// Time over which outcomes are counted. 1 s to 1 h. Default 10 s (Envoy `interval`).
    pub interval: Duration,
    /// Requests in it that a peer must have had. 1 to 1 000 000. Default 100 (Envoy `success_rate_request_volume`).
    pub requests: u32,
    /// Peers that must have had as many, for the comparison. 2 to 1000. Default 5 (Envoy `success_rate_minimum_hosts`).
    pub peers: usize,
    /// Standard deviations below the mean at which a peer is ejected. 0.1 to 10. Default 1.9 (Envoy
    /// `success_rate_stdev_factor`).
    pub deviations: f64,
    /// Rate below which a peer is ejected whatever the others' is. 0 to 1. Default 0: none (Envoy `failure_percentage`).
    pub at_least: f64,
}

/// Requests of the gateway's own by which it finds out whether peers are well (HAProxy `option httpchk`, nginx Plus
/// `health_check`, Envoy `health_checks`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HealthCheck {
    pub kind: CheckKind,
    /// Time from one check of a peer to the next. 10 ms to 1 h. Default 5 s (HAProxy `inter`).
    pub interval: Duration,
    /// Interval while the state is about to change. Default a fifth of it (HAProxy `fastinter`).
    pub fast_interval: Duration,
    /// Interval while a peer is down. Default `interval` (HAProxy `downinter`).
    pub down_interval: Duration,
    /// Longest time of a check, from the connect on. Default 2 s, at most `interval` (HAProxy `timeout check`).
    pub timeout: Duration,
    /// Checks in a row that a peer that is down must pass. 1 to 100. Default 2 (HAProxy `rise`).
    pub rise: u32,
    /// Checks in a row that a peer must fail to be down. 1 to 100. Default 3 (HAProxy `fall`).
    pub fall: u32,
    /// Share of the interval by which each is shorter or longer at random. 0 to 0.5. Default 0.1 (HAProxy `spread-checks`).
    pub jitter: f64,
    /// State of a peer before its first check. Default `optimistic` (HAProxy `init-state`, nginx Plus `mandatory`).
    pub start: CheckStart,
    /// Default the peer's own.
    pub port: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum CheckKind {
    /// The peer takes a connection; with TLS, a handshake.
    Tcp,
    Http(HttpCheck),
    /// The peer serves this service (gRPC health checking protocol). Default the empty name: the server as a whole.
    Grpc {
        service: String,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HttpCheck {
    /// Default `GET`.
    pub method: String,
    /// Path and query. Default `/`.
    pub path: String,
    /// Default the peer's own name, or the `host` of the upstream where it is a text.
    pub host: Option<String>,
    /// Fields of the request, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Statuses of a peer that is well. Default 200 to 399.
    pub statuses: StatusSet,
    /// Fields that the response must have, with these values.
    pub expect_headers: Vec<(String, String)>,
    /// Text that must be in the first 64 KiB of the body. Default none.
    pub expect_body: Option<String>,
}

/// State of a peer before its first check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CheckStart {
    /// Requests are sent to it at once.
    Optimistic,
    /// Requests are sent to it once it has passed a check.
    Mandatory,
}
