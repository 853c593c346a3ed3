//! Settings of a listener's HTTP/2 connections.

use serde::{Deserialize, Serialize};

/// Settings that the gateway tells its clients (RFC 9113 §6.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Http2Settings {
    /// Requests that a client may have under way on one connection. 1 to 10000. Default 128 (nginx
    /// `http2_max_concurrent_streams`).
    pub max_concurrent_streams: u32,
    /// Bytes of a request's body that a client may send before the gateway has passed others on. 1 KiB to 2 GiB. Default 64 KiB
    /// (nginx `http2_body_preread_size`).
    pub stream_window_bytes: u32,
    /// Bytes of all bodies of a connection that a client may send so. 64 KiB to 2 GiB. Default those of all its streams and of one
    /// more, so that uploads whose peers take nothing hold up no other.
    pub connection_window_bytes: u32,
}

impl Http2Settings {
    /// Settings with so many streams and such windows, and a window of the connection for all of them.
    pub fn with(max_concurrent_streams: u32, stream_window_bytes: u32) -> Self {
        let of_all = stream_window_bytes.saturating_mul(max_concurrent_streams + 1);
        Self {
            max_concurrent_streams,
            stream_window_bytes,
            connection_window_bytes: of_all.clamp(LEAST_WINDOW_BYTES, MOST_WINDOW_BYTES),
        }
    }
}

impl Default for Http2Settings {
    fn default() -> Self {
        Self::with(128, 64 << 10)
    }
}

/// Window of a connection before it is opened further (RFC 9113 §6.9.2), and the largest that there is.
const LEAST_WINDOW_BYTES: u32 = 65_535;
const MOST_WINDOW_BYTES: u32 = (1 << 31) - 1;
