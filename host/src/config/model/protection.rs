//! Protection of upstreams, and mirrors, in the resolved config.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Things of an upstream that there may be at once, of all workers together; each has its part. What is beyond is answered 503 at
/// once. `[upstreams.NAME.breaker]`, with Envoy's names. Default none of them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Breaker {
    /// Connections, idle ones included. 1 to 1000000.
    pub connections: Option<u32>,
    /// Requests that wait for a new connection. 1 to 1000000.
    pub pending: Option<u32>,
    /// Requests under way, to the end of their responses (Envoy `max_requests`). 1 to 1000000.
    pub active: Option<u32>,
    /// Requests under way that were tried before. 0 to 1000000.
    pub retries: Option<u32>,
}

/// Limit of an upstream's requests that is learnt from their latency. `[upstreams.NAME.concurrency]`. The numbers are of all
/// workers together; each has its part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Concurrency {
    /// The limit is never less. 1 to 100000. Default 10.
    pub min: u32,
    /// The limit is never more. 1 to 1000000. Default 1000.
    pub max: u32,
    /// The limit at first. Default 100, within the bounds.
    pub initial: u32,
    /// Latency in relation to a calm one that is taken for a queue at the peers. 1 to 10. Default 1.2.
    pub tolerance: f64,
    /// Longest wait of a request beyond the limit; then 503. 0 to 1 minute. Default 0.
    pub queue_time: Duration,
}

/// Limits of responses' bodies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResponseLimits {
    /// Longest body; beyond it 502, or a response that ends too early. 0, the default: any.
    pub max_bytes: u64,
    /// Bytes a second of one response (nginx `proxy_limit_rate`). 0, the default: any.
    pub rate: u64,
}

/// Another upstream that a route's requests go to, too. In the file `"NAME"` or a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mirror {
    pub upstream: String,
    /// Share of the requests, more than 0 and up to 1. Default 1.
    pub share: f64,
    /// Mirrored requests under way, in each worker. 1 to 100000. Default 100.
    pub max_active: u32,
}
