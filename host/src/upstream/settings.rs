//! Settings of requests to an upstream: its own, or those of a route.

use std::time::Duration;

use http::StatusCode;

use crate::config::{self, ResponseLimits, Retry, RouteProxy};
use crate::error::UpstreamError;
use crate::message::{FieldName, RequestHead};

/// How requests are sent to an upstream. Made when the config is loaded.
#[derive(Clone, Debug, PartialEq)]
pub struct ProxySettings {
    pub(super) connect_timeout: Duration,
    pub(super) response_timeout: Duration,
    /// Longest silence of a peer in the midst of a message.
    pub idle_timeout: Duration,
    /// Tries that one request may make.
    pub(super) tries: u32,
    pub(super) retry: Retry,
    pub(super) response: ResponseLimits,
}

impl ProxySettings {
    pub fn of(config: &config::Upstream) -> Self {
        Self {
            connect_timeout: config.connect_timeout,
            response_timeout: config.response_timeout,
            idle_timeout: config.idle_timeout,
            tries: config.tries,
            retry: config.retry.clone(),
            response: config.response,
        }
    }

    /// Settings with what a route says in the place of these.
    pub fn of_route(&self, route: &RouteProxy) -> Self {
        let retry = route.retry.as_ref();
        Self {
            connect_timeout: route.connect_timeout.unwrap_or(self.connect_timeout),
            response_timeout: route.response_timeout.unwrap_or(self.response_timeout),
            idle_timeout: route.idle_timeout.unwrap_or(self.idle_timeout),
            tries: route.tries.unwrap_or(self.tries),
            response: ResponseLimits {
                max_bytes: route.max_response_bytes.unwrap_or(self.response.max_bytes),
                rate: route.response_rate.unwrap_or(self.response.rate),
            },
            retry: retry.map_or_else(|| self.retry.clone(), |retry| retry.over(&self.retry)),
        }
    }

    /// Bytes of a body that are kept to be sent again.
    #[inline]
    pub fn replay_bytes(&self) -> usize {
        self.retry.buffer_bytes
    }

    /// Bytes of this request's body that are kept on disk beyond those: of one that may be sent again at all.
    #[inline]
    pub fn spill_bytes(&self, request: &RequestHead) -> usize {
        match self.retry.spill_bytes {
            0 => 0,
            bytes if self.is_repeatable(request) => bytes,
            _ => 0,
        }
    }

    /// Whether a request may be sent again when it is not known whether it was worked on (RFC 9110 §9.2.2).
    #[inline]
    pub(super) fn is_repeatable(&self, request: &RequestHead) -> bool {
        request.method.is_idempotent() || self.is_repeatable_all_the_same(request)
    }

    #[inline(never)]
    fn is_repeatable_all_the_same(&self, request: &RequestHead) -> bool {
        // draft-ietf-httpapi-idempotency-key-header: whoever sends it has the server tell repetitions.
        let has_key = || {
            let name = FieldName::new(b"idempotency-key");
            name.is_some_and(|name| request.headers.contains(name))
        };
        self.retry.non_idempotent || has_key()
    }

    /// Whether a response with this status is a failure of its try.
    #[inline]
    pub(super) fn refuses(&self, status: StatusCode) -> bool {
        self.retry.on.statuses.contains(status.as_u16())
    }

    /// Whether another peer may be tried upon this failure of one, if the request may be sent again at all.
    pub(super) fn retries_on(&self, cause: &UpstreamError) -> bool {
        let on = &self.retry.on;
        match cause {
            UpstreamError::Connect { .. }
            | UpstreamError::ConnectTimeout { .. }
            | UpstreamError::Handshake { .. }
            | UpstreamError::HandshakeTimeout { .. }
            | UpstreamError::NotProcessed { .. }
            | UpstreamError::Preface { .. } => on.connect,
            UpstreamError::Closed { .. } | UpstreamError::Io { .. } => on.reset,
            UpstreamError::ResponseTimeout { .. }
            | UpstreamError::TryTimeout { .. }
            | UpstreamError::SendTimeout { .. } => on.timeout,
            UpstreamError::BadHead { .. }
            | UpstreamError::TooManyInterims { .. }
            | UpstreamError::UnexpectedUpgrade { .. } => on.invalid_header,
            // No room or no time is left, or the response has begun.
            UpstreamError::NoPeer
            | UpstreamError::NoRoom { .. }
            | UpstreamError::DeadlinePassed { .. }
            | UpstreamError::TriesTimeout { .. }
            | UpstreamError::BadBody { .. }
            | UpstreamError::BodyTimeout { .. }
            | UpstreamError::BodyTooLarge { .. } => false,
        }
    }
}
