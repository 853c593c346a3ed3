//! `peers_url` of an upstream, resolved.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Der, Secret, UpstreamTls};

/// A list of peers that is asked for again and again by HTTP (Prometheus' `http_sd`, HAProxy's Data Plane API, Envoy's EDS over REST).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeersUrl {
    /// URL as people see it: `http` or `https`, without user, password and fragment. Of a query, which may be a secret, it has but the
    /// question mark.
    pub url: String,
    /// Host in lower case, an IPv6 address in brackets, and port.
    pub authority: String,
    /// Path and query.
    pub target: String,
    /// Time between two questions, up to a tenth less by chance. 1 s to 1 h. Default 10 s.
    pub interval: Duration,
    /// Longest time for one question, the connection and the handshake of TLS included. 10 ms to 15 s. Default 5 s.
    pub timeout: Duration,
    /// Fields that the request has beside the gateway's own, by their names in lower case. They are never shown. Default none.
    pub headers: Vec<(String, Secret)>,
    /// TLS of an `https` URL, and of no other.
    pub tls: Option<UpstreamTls>,
    /// Certificates of the authorities that the system trusts. Empty where `tls` does not need them.
    pub system_roots: Vec<Der>,
}
