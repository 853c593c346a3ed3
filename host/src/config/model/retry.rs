//! Retries in the resolved config.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::StatusSet;

/// Requests that are sent again, and how. `[upstreams.NAME.retry]`; what a route says takes the place of it key by key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Retry {
    pub on: RetryOn,
    /// Whether requests with other methods than the idempotent ones are sent again, too, when a peer may have worked on them
    /// (nginx `non_idempotent`). Default false. A request with `Idempotency-Key` is, whatever its method.
    pub non_idempotent: bool,
    /// Whether a peer may be tried again when all were. Default false.
    pub same_peer: bool,
    /// Longest time of one try, from its begin to the response's head (Envoy `per_try_timeout`). Default none.
    pub try_timeout: Option<Duration>,
    /// Longest time of all tries together, to the response's head; then 504 (nginx `proxy_next_upstream_timeout`). Default none.
    pub timeout: Option<Duration>,
    pub backoff: Backoff,
    /// Bytes of a request's body that are kept to be sent again; a longer one is sent once. 0 to 64 MiB. Default 64 KiB.
    pub buffer_bytes: usize,
    /// Bytes beyond those that are kept on disk ([`super::Spill`]). 0 to 1 TiB. Default 0.
    pub spill_bytes: usize,
    /// `None`: retries are not limited. In the file `"off"`.
    pub budget: Option<RetryBudget>,
    /// Default none.
    pub hedge: Option<Hedge>,
}

/// Requests that go to a second peer before the first has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hedge {
    /// Time that a peer has alone, up to its response's head. 1 ms to 1 minute.
    pub after: Duration,
    /// Peers beside the first, each after as long. 1 to 10. Default 1.
    pub max: u32,
}

/// Keys of [`Retry`] that are given; the others are as they were.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RetryOverrides {
    pub on: Option<RetryOn>,
    pub non_idempotent: Option<bool>,
    pub same_peer: Option<bool>,
    pub try_timeout: Option<Duration>,
    pub timeout: Option<Duration>,
    pub backoff: Option<Backoff>,
    pub buffer_bytes: Option<usize>,
    pub spill_bytes: Option<usize>,
    pub hedge: Option<Hedge>,
}

/// Failures upon which the next peer is tried. In the file a list of `"connect"`, `"reset"`, `"timeout"`, `"invalid_header"`,
/// statuses of 400 to 599 as in a [`StatusSet`]. Default the first four (nginx `proxy_next_upstream error timeout invalid_header`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryOn {
    /// No connection, or one that has not taken the request: nothing was worked on.
    pub connect: bool,
    /// The connection has ended before the response.
    pub reset: bool,
    /// No response in time.
    pub timeout: bool,
    /// A response's head that cannot be read.
    pub invalid_header: bool,
    pub statuses: StatusSet,
}

/// Waits between tries: a random time up to `base`, which doubles with each, up to `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    /// Default 25 ms. Zero: none.
    pub base: Duration,
    /// Default 250 ms. The longest wait that a peer's `Retry-After` gets, too.
    pub max: Duration,
}

/// Share of retries among an upstream's requests.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RetryBudget {
    /// Retries for each request of the last second. 0 to 10. Default 0.15: an outage that begins after a calm second
    /// then stays below 1.2 times the clients' load.
    pub ratio: f64,
    /// Retries a second that there may be however few requests there are, of all workers together. 0 to 10000. Default 3.
    pub min: u32,
}

impl Retry {
    pub const DEFAULT: Self = Self {
        on: RetryOn {
            connect: true,
            reset: true,
            timeout: true,
            invalid_header: true,
            statuses: StatusSet::NONE,
        },
        non_idempotent: false,
        same_peer: false,
        try_timeout: None,
        timeout: None,
        backoff: Backoff {
            base: Duration::from_millis(25),
            max: Duration::from_millis(250),
        },
        buffer_bytes: 64 << 10,
        spill_bytes: 0,
        budget: Some(RetryBudget::DEFAULT),
        hedge: None,
    };
}

impl RetryBudget {
    pub const DEFAULT: Self = Self {
        ratio: 0.15,
        min: 3,
    };
}

impl RetryOverrides {
    /// Puts what is given in the place of what `retry` says.
    pub fn over(&self, retry: &Retry) -> Retry {
        Retry {
            on: self.on.unwrap_or(retry.on),
            non_idempotent: self.non_idempotent.unwrap_or(retry.non_idempotent),
            same_peer: self.same_peer.unwrap_or(retry.same_peer),
            try_timeout: self.try_timeout.or(retry.try_timeout),
            timeout: self.timeout.or(retry.timeout),
            backoff: self.backoff.unwrap_or(retry.backoff),
            buffer_bytes: self.buffer_bytes.unwrap_or(retry.buffer_bytes),
            spill_bytes: self.spill_bytes.unwrap_or(retry.spill_bytes),
            budget: retry.budget,
            hedge: self.hedge.or(retry.hedge),
        }
    }
}

impl RetryOn {
    pub const NOTHING: Self = Self {
        connect: false,
        reset: false,
        timeout: false,
        invalid_header: false,
        statuses: StatusSet::NONE,
    };
}
