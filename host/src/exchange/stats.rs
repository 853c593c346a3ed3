//! Figures of an exchange.

use std::time::{Duration, Instant};

use http::StatusCode;

/// Figures that the log tells about the exchange.
#[derive(Clone, Copy, Debug)]
pub struct ExchangeStats {
    /// When the request's head was complete.
    pub started: Instant,
    /// From the choice of the first peer to the response's head: begin and end.
    pub upstream: Option<(Instant, Instant)>,
    /// Status of the last peer's response, as the peer has sent it.
    pub upstream_status: Option<StatusCode>,
    pub tries: u32,
    pub body_bytes_sent: u64,
    pub body_bytes_received: u64,
    /// Culprit of a response that ended before its end; see [`crate::error::Error::culprit`].
    pub cut_by: Option<&'static str>,
    /// Outcome of the route's cache, in a word. `None`: it has none, or was not asked.
    pub cache: Option<&'static str>,
    /// Time that the exchange has taken, once it is over and only `after_response` has it.
    pub took: Option<Duration>,
}

impl ExchangeStats {
    /// Figures of an exchange that begins.
    #[inline]
    pub(super) fn new(started: Instant) -> Self {
        Self {
            started,
            upstream: None,
            upstream_status: None,
            tries: 0,
            body_bytes_sent: 0,
            body_bytes_received: 0,
            cut_by: None,
            cache: None,
            took: None,
        }
    }

    /// Time since the request's head was complete, up to the end of the exchange.
    pub fn duration(&self) -> Duration {
        self.took.unwrap_or_else(|| self.started.elapsed())
    }

    /// From the choice of the first peer to the response's head.
    pub fn upstream_took(&self) -> Option<Duration> {
        let (began, ended) = self.upstream?;
        Some(ended.duration_since(began))
    }
}
