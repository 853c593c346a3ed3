//! Settings of a listener that serves HTTP.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Http2Settings, Networks, PluginUse};

/// Plugins, limits and time-outs of a listener's requests, and what is added to messages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HttpSettings {
    /// Plugins that run for every route of the listener, before the route's own.
    pub plugins: Vec<PluginUse>,
    /// Largest request head, bytes; beyond it 431. 1 KiB to 1 MiB. Default 32 KiB (nginx
    /// `large_client_header_buffers`).
    pub max_head_bytes: usize,
    /// Fields in a request's head; beyond it 431. 16 to 10000. Default 1000 (nginx `max_headers`).
    pub max_fields: usize,
    /// Default `strict`.
    pub field_names: FieldNames,
    /// Default `encode`.
    pub non_ascii_target: NonAsciiTarget,
    /// Path policy of the routes that do not say otherwise. Default `normal`.
    pub paths: PathPolicy,
    /// Whether paths of routes are compared with regard to case. Default `sensitive`.
    pub case: PathCase,
    /// Largest request body, bytes; beyond it 413. Up to 1 PiB, 0 means no limit. Default 0, unlike nginx's 1 MiB.
    pub max_body_bytes: u64,
    /// Time from the first byte of a request's head to its last, and from accept to the first byte. On expiry the
    /// connection is closed. Default 60 s (nginx `client_header_timeout`).
    pub head_timeout: Duration,
    /// Longest time between two reads of a request's body; then 408. Default 60 s (nginx `client_body_timeout`).
    pub body_timeout: Duration,
    /// Longest time between two writes to the client. Default 60 s (nginx `send_timeout`).
    pub send_timeout: Duration,
    /// Longest time of a keep-alive connection without a request. Default 75 s (nginx `keepalive_timeout`).
    pub idle_timeout: Duration,
    /// How long a whole request goes on without a byte for the client once that has ended its direction of the
    /// connection (RFC 9112 §9.6); then 499. 0 to 1 h, 0 is at once. Default 10 s. A reset ends the request at once.
    pub half_close: Duration,
    /// Slowest request body. Default 500 bytes a second after 20 s (Apache `RequestReadTimeout`).
    pub body_rate: Rate,
    /// Slowest taking of a response, while bytes wait for the client. Default 240 bytes a second, looked at each 5 s.
    pub send_rate: Rate,
    /// Bounds of what is still read after the last response.
    pub linger: Linger,
    /// Requests of one connection, the last of which is answered with `Connection: close`. 1 to 4294967295; in the file 0 means no
    /// limit (`None`), the default (nginx `keepalive_requests`, which is 1000).
    pub max_requests: Option<NonZeroU32>,
    /// Age from which on a connection's next response is its last. 1 s to 30 days; in the file 0 means none (`None`), the default
    /// (nginx `keepalive_time`, which is 1 h).
    pub max_age: Option<Duration>,
    /// Proxies in front that are believed. Default none (nginx `set_real_ip_from`).
    pub trusted_proxies: Networks,
    /// Field in which they name the client. Default `x-forwarded-for` (nginx `real_ip_header`).
    pub client_from: ClientFrom,
    /// Default `append`.
    pub x_forwarded_for: ForwardedFor,
    /// Default `none`.
    pub request_id: RequestId,
    /// Text of `Alt-Svc` in responses (RFC 7838 §3). Default none: that of peers goes on.
    pub alt_svc: Option<String>,
    /// Whether `Via` is added to requests and responses (RFC 9110 §7.6.3). Default true.
    pub via: bool,
    /// Default `keep`.
    pub server: ServerField,
    /// HTTP/2: by ALPN where there is TLS, and by prior knowledge (RFC 9113 §3.3) where there is none. `None`: HTTP/1 alone.
    /// Default on.
    pub http2: Option<Http2Settings>,
}

/// Which names of request fields go on. In the file `"strict"` or `"any"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FieldNames {
    /// Letters, digits and hyphens; fields of other names are dropped (nginx `underscores_in_headers off` and
    /// `ignore_invalid_headers on`).
    Strict,
    /// All that RFC 9110 §5.1 allows.
    Any,
}

/// Policy of request paths: what they may be, and how they are sent on. In the file `"normal"`, `"strict"` or
/// `"as_sent"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathPolicy {
    /// The compared path is sent on: dot segments resolved, empty segments taken out, a backslash percent-encoded;
    /// `%2F` and `%5C` are data. 400 where a peer could read another path (see [`crate::message::path::PathError`]).
    #[default]
    Normal,
    /// 400 for a backslash, `%2F`, `%5C`, empty segments and dot segments, too.
    Strict,
    /// Path goes on as the client has sent it, and is compared by all that it could be to a peer. A peer may read
    /// another path than the one that routes and plugins have decided by.
    AsSent,
}

/// Comparison of paths. In the file `"sensitive"` or `"insensitive"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PathCase {
    /// `/a` and `/A` are two paths.
    Sensitive,
    /// `/a` and `/A` are one path, as they are to peers on such file systems. ASCII only.
    Insensitive,
}

/// Treatment of bytes beyond ASCII in a request's target. In the file `"encode"` or `"refuse"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NonAsciiTarget {
    /// Bytes are percent-encoded.
    Encode,
    /// Request is answered 400.
    Refuse,
}

/// The slowest that a transfer may be. In the file `{ min = 500, after = "20s" }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Bytes a second. 0 to 1 GiB, 0 is no bound.
    pub min: u32,
    /// Time before the bound applies. 1 s to 1 h.
    pub after: Duration,
}

impl Rate {
    /// Any speed.
    pub const NONE: Self = Self {
        min: 0,
        after: Duration::ZERO,
    };

    /// How long so many bytes may take; `None`: for ever.
    pub fn time_for(self, bytes: u64) -> Option<Duration> {
        let millis = bytes.saturating_mul(1000).checked_div(self.min.into())?;
        Some(self.after.saturating_add(Duration::from_millis(millis)))
    }
}

/// Bounds of the bytes that are still read and thrown away after the last response: the kernel would
/// reset a connection that is closed with bytes unread, and the response with it (RFC 9112 §9.6; nginx
/// `lingering_time`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Linger {
    /// 0 to 1 GiB. Default 1 MiB.
    pub bytes: usize,
    /// 0 to 1 h. Default 5 s.
    pub time: Duration,
}

/// Field in which trusted proxies name the client. In the file its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientFrom {
    /// The last address that is no trusted proxy's.
    XForwardedFor,
    /// Field of RFC 7239 with the same.
    Forwarded,
    /// The one address.
    XRealIp,
}

/// Treatment of the `X-Forwarded-For` of clients that are no trusted proxies. In the file `"append"` or `"replace"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ForwardedFor {
    /// Client's address is appended (nginx `$proxy_add_x_forwarded_for`).
    Append,
    /// Client's address takes its place.
    Replace,
}

/// The `X-Request-Id` that peers and logs get. In the file `"none"`, `"make"` or `"keep"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RequestId {
    /// Value that the client has sent.
    None,
    /// A new one.
    Make,
    /// Id that a trusted proxy has given; for others a new one.
    Keep,
}

/// The `Server` of responses. In the file `"keep"`, `"remove"` or another text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerField {
    /// The peer's. Replies of the gateway's own say `castling`.
    Keep,
    /// Responses have none.
    Remove,
    /// Responses have this text.
    Fixed(String),
}
