//! The finished exchange, for the `log` hook.

use std::time::Duration;

use castling_abi::{HeaderMap, Number, Property};

use crate::header::{self, HeaderValue};
use crate::host;
use crate::request::property;

/// How an exchange ended: a handle to what the host keeps.
#[derive(Debug)]
pub struct Outcome {
    /// The SDK alone lends outcomes.
    _lent: (),
}

impl Outcome {
    pub(crate) const fn new() -> Self {
        Self { _lent: () }
    }

    /// The status that was sent; `None` when the client left before one was.
    pub fn status(&self) -> Option<u16> {
        u16::try_from(host::status_get()).ok()
    }

    /// The first value of a header that was sent.
    pub fn header(&self, name: impl AsRef<str>) -> Option<HeaderValue> {
        header::get(HeaderMap::Response, name.as_ref())
    }

    /// Bytes of the response's body sent to the client, before transfer coding.
    pub fn body_bytes_sent(&self) -> u64 {
        number(Number::BodyBytesSent).unwrap_or(0)
    }

    /// Bytes of the request's body received from the client, after transfer coding.
    pub fn body_bytes_received(&self) -> u64 {
        number(Number::BodyBytesReceived).unwrap_or(0)
    }

    /// Time since the request's head was complete.
    pub fn duration(&self) -> Duration {
        Duration::from_micros(number(Number::DurationMicros).unwrap_or(0))
    }

    /// Time from the choice of the first peer to the response's head; `None` when no peer answered.
    pub fn upstream_duration(&self) -> Option<Duration> {
        number(Number::UpstreamMicros).map(Duration::from_micros)
    }

    /// Address and port of the peer that was tried last; `None` when none was.
    pub fn peer(&self) -> Option<String> {
        property(Property::Peer)
    }

    /// How many peers were tried.
    pub fn tries(&self) -> u32 {
        number(Number::Tries)
            .and_then(|tries| u32::try_from(tries).ok())
            .unwrap_or(0)
    }
}

fn number(number: Number) -> Option<u64> {
    u64::try_from(host::number_get(number)).ok()
}
