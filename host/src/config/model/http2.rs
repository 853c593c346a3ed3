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
    /// Such bytes of all bodies of a connection. 64 KiB to 2 GiB. Default 1 MiB.
    pub connection_window_bytes: u32,
}

impl Default for Http2Settings {
    fn default() -> Self {
        Self {
            max_concurrent_streams: 128,
            stream_window_bytes: 64 << 10,
            connection_window_bytes: 1 << 20,
        }
    }
}
