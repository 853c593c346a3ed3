//! The contract between the Castling host and its plugins.
//!
//! Core Wasm for `wasm32-unknown-unknown`. A guest imports functions from the module [`IMPORT_MODULE`] and exports
//! its memory, [`EXPORT_CONFIGURE`] and one function a hook ([`Hook::export`]). What it is, it says in a custom section
//! ([`MANIFEST_SECTION`]), so that the host knows it without running the module.
//!
//! # Calls from host to guest
//!
//! - `castling_configure() -> i32`: [`Action::Continue`] when the plugin is ready, [`Action::Failed`] after a call of
//!   `fail`. Called once for each instance, before any hook.
//! - `castling_hook_NAME(a: u32, b: u32, c: u32) -> i32`: an [`Action`], or for [`Hook::Balance`] the index of the
//!   chosen peer ([`BALANCE_DECLINED`] leaves the choice to round robin, [`BALANCE_FAILED`] after a call of `fail`).
//!   What `a`, `b` and `c` are, [`Hook`] says for each hook; they are 0 where it says nothing.
//! - `castling_state_reset()`: exported by plugins with per-request state only; the request that the instance was
//!   kept for has ended.
//!
//! A host call never re-enters the guest.
//!
//! # Calls from guest to host
//!
//! [`imports`] lists them with their signatures. Integers are `i32` on the wire (`i64` where said), read as unsigned.
//! A `(pointer, length)` pair names bytes in the guest's memory; one that lies outside traps the guest.
//!
//! A call that hands out bytes takes `(out, capacity)` and returns their length: when that is larger than `capacity`,
//! nothing was written and the guest calls again with more room. A negative result is a [`Status`].
#![no_std]
#[cfg(not(target_arch = "wasm32"))]
extern crate alloc;

pub mod call;
pub mod header_list;
pub mod imports;
pub mod kv;
pub mod metric;
pub mod rules;
pub mod variable;

/// The ABI that this crate describes. A host refuses a module that says another.
pub const ABI_VERSION: u32 = 1;

/// The module that host functions are imported from.
pub const IMPORT_MODULE: &str = "castling";

/// Custom section with the manifest, a JSON object:
/// `{"abi":1,"name":"token-auth","version":"0.1.0","sdk":"0.1.0","hooks":["access"],"state":false}`. Plugins with a
/// `variable` hook add `"variables":["country"]`, those with a `timer` hook `"timer":{"every_ms":5000,"on":"workers"}`
/// (or `"on":"one_worker"`).
pub const MANIFEST_SECTION: &str = "castling.manifest";

/// Export: builds the plugin from its config.
pub const EXPORT_CONFIGURE: &str = "castling_configure";

/// Export of plugins with per-request state: forgets it.
pub const EXPORT_STATE_RESET: &str = "castling_state_reset";

/// Result of `balance`: no choice, the host takes the next peer by round robin.
pub const BALANCE_DECLINED: i32 = -1;

/// Result of `balance`: the guest returned an error, which it has passed to `fail`.
pub const BALANCE_FAILED: i32 = -2;

/// Result of `response_begin`, `response_write`, `chunk_emit` and `call_write`: nobody takes more of the body. The request was HEAD, the status has no body, or
/// a filter has answered in the response's place or ended it. The hook should end; pieces are thrown away.
pub const BODY_UNWANTED: i32 = 1;

/// Longest message of a topic, bytes.
pub const MAX_MESSAGE_BYTES: usize = 4096;

/// Result of `kv_flight`: the key has a value now.
pub const FLIGHT_VALUE: i32 = 0;

/// Result of `kv_flight`: the request is the one to fetch the value.
pub const FLIGHT_FETCH: i32 = 1;

/// Result of `kv_flight`: another request fetches the value still.
pub const FLIGHT_TIMED_OUT: i32 = 2;

/// Connections of one request that are open at a time ([`imports::TCP_CONNECT`]).
pub const MOST_CONNECTIONS: usize = 16;

/// Calls with streamed bodies of one request that are open at a time ([`imports::CALL_OPEN`]).
pub const MOST_STREAMED_CALLS: usize = 16;

/// Length for `response_begin` and `call_open` that is not known.
pub const LENGTH_UNKNOWN: i64 = -1;

/// Defines an enum of ids with the names that both sides print and the way back from a number.
macro_rules! ids {
    ($(#[$meta:meta])* $name:ident: $repr:ty { $($(#[$vmeta:meta])* $variant:ident = $value:literal, $text:literal;)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr($repr)]
        pub enum $name { $($(#[$vmeta])* $variant = $value,)+ }

        impl $name {
            /// Every id, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The id with this number.
            pub const fn from_raw(raw: $repr) -> Option<Self> {
                match raw { $($value => Some(Self::$variant),)+ _ => None }
            }

            /// Name of the hook, as config, manifest and logs write it.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            /// The id with this name.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($text => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

mod crypto;
mod error_kind;

pub use crypto::{Digest, FileFact, LARGEST_CRYPTO_BYTES, PasswordHash, Signature};
pub use error_kind::ErrorKind;

ids! {
    /// A function that a plugin may implement, in the order of a request's life.
    Hook: u32 {
        /// Before routing, for plugins of a listener.
        PostRead = 0, "post_read";
        /// After routing; [`Action::Reroute`] looks for the route again.
        Rewrite = 1, "rewrite";
        /// Limits: may answer 429 or 503, or wait.
        Preaccess = 2, "preaccess";
        /// Decides whether the request may go on.
        Access = 3, "access";
        /// May answer in the place of an upstream.
        Content = 4, "content";
        /// Chooses a peer: `a` the number of peers, `b` how many were tried before.
        Balance = 5, "balance";
        /// A try has ended: `a` the peer's index, `b` a [`PeerOutcome`], `c` the microseconds to the response's head
        /// (or to the failure), saturating.
        PeerDone = 6, "peer_done";
        /// The response's head, on its way to the client.
        ResponseHeaders = 7, "response_headers";
        /// A chunk of the response's body: `a` its length in bytes, `b` 1 when it is the last.
        ResponseBody = 8, "response_body";
        /// The exchange is over.
        Log = 9, "log";
        /// A chunk of the request's body on its way to an upstream: `a` its length in bytes, `b` 1 when it is the
        /// last. Not called for a request without a body.
        RequestBody = 10, "request_body";
        /// Computes a variable, once a request and only when something asks for it: `a` its index in the manifest's
        /// `variables`. Sets it with `var_set`, or leaves it unset.
        Variable = 11, "variable";
        /// No request's: runs when its time has come, as the manifest's `timer` says.
        Timer = 12, "timer";
        /// No request's: a message on a topic that the plugin is granted: `a` the topic, for `topic_name`, `b` the message's length in
        /// bytes.
        Message = 13, "message";
        /// The response is out, and nobody waits any more: may call out and wait, as phases may. Not for sub-requests.
        AfterResponse = 14, "after_response";
    }
}

impl Hook {
    /// The name of the export that implements it.
    pub const fn export(self) -> &'static str {
        match self {
            Self::PostRead => "castling_hook_post_read",
            Self::Rewrite => "castling_hook_rewrite",
            Self::Preaccess => "castling_hook_preaccess",
            Self::Access => "castling_hook_access",
            Self::Content => "castling_hook_content",
            Self::Balance => "castling_hook_balance",
            Self::PeerDone => "castling_hook_peer_done",
            Self::ResponseHeaders => "castling_hook_response_headers",
            Self::ResponseBody => "castling_hook_response_body",
            Self::Log => "castling_hook_log",
            Self::RequestBody => "castling_hook_request_body",
            Self::Variable => "castling_hook_variable",
            Self::Timer => "castling_hook_timer",
            Self::Message => "castling_hook_message",
            Self::AfterResponse => "castling_hook_after_response",
        }
    }
}

ids! {
    /// Wish of a hook that the host is to do next.
    Action: i32 {
        /// The hook returned an error, which it has passed to `fail`: the plugin's `on_error` applies.
        Failed = -1, "failed";
        /// Go on with the next step. From `content`: decline, an upstream is to answer.
        Continue = 0, "continue";
        /// Send what was passed to `answer` and skip to the response's filters; or the response that `response_begin` has begun
        /// is whole.
        Answer = 1, "answer";
        /// Look for the route again, with the head as it is now. From `rewrite` only.
        Reroute = 2, "reroute";
    }
}

ids! {
    /// Why a host call did not do what it was asked.
    Status: i32 {
        /// There is no such thing: no header, no variable of that name.
        NotFound = -1, "not found";
        /// A name, value or number that is not valid there.
        BadArgument = -2, "bad argument";
        /// Not in this hook: there is no response yet, or it is too late to change the head.
        NotNow = -3, "not in this hook";
        /// A limit of the plugin or of the exchange was reached.
        Limit = -4, "limit reached";
        /// The config's `grants` do not have it.
        NotGranted = -5, "not granted";
        /// A kv zone has no room for it, also after all that had expired was removed; or a gauge zone for another key.
        Full = -6, "full";
        /// The zone is of another kind: a counter's call on a kv zone, or the reverse.
        WrongKind = -7, "a zone of another kind";
        /// The host could not do it, through no fault of the guest; its log says why.
        HostFailed = -8, "failed in the gateway, whose log says why";
        /// The variable has no value yet, and a plugin of the route computes it: [`imports::VAR_COMPUTE`].
        Uncomputed = -9, "not computed yet";
    }
}

ids! {
    /// Things that a config grants to a plugin by name.
    Grant: u32 {
        /// An upstream, for calls out.
        Upstream = 0, "upstream";
        /// A counter zone.
        CounterZone = 1, "counter zone";
        /// A kv zone.
        KvZone = 2, "kv zone";
        /// A gauge zone.
        GaugeZone = 3, "gauge zone";
        /// A topic.
        Topic = 4, "topic";
    }
}

ids! {
    /// Condition of a change of a kv zone's key: what must be there.
    KvExpected: u32 {
        /// Anything or nothing.
        Any = 0, "any";
        /// Nothing.
        Absent = 1, "absent";
        /// A value with exactly these bytes.
        Value = 2, "value";
    }
}

ids! {
    /// Which header section a call means.
    HeaderMap: u32 {
        /// The request's headers.
        Request = 0, "request";
        /// The response's headers; from `response_headers` on.
        Response = 1, "response";
        /// The fields after a chunked body (RFC 9110 §6.5), with its last chunk in `request_body` and `response_body`.
        /// They can be read, not changed.
        Trailers = 2, "trailers";
    }
}

ids! {
    /// A fact of the exchange that is text. All can be read in every hook that has an exchange
    /// ([`Status::NotFound`] while there is none); the first five can be set before the response.
    Property: u32 {
        /// The request's method. Settable.
        Method = 0, "method";
        /// The path, without the query: as it is sent on, not decoded. Settable: must begin with `/`.
        Path = 1, "path";
        /// The query without its `?`; not found when there is none. Settable: empty removes it.
        Query = 2, "query";
        /// Host and port as the client named them (the target's authority, else `Host`). Settable.
        Host = 3, "host";
        /// The client's IP address, or `unix:` for a client of a Unix socket. Settable in `post_read`, for what stands behind another proxy.
        ClientAddress = 4, "client_address";
        /// The client's port, in decimal digits; not found for a Unix socket.
        ClientPort = 5, "client_port";
        /// `http` or `https`.
        Scheme = 6, "scheme";
        /// `HTTP/1.0` or `HTTP/1.1`.
        Protocol = 7, "protocol";
        /// The name of the listener.
        Listener = 8, "listener";
        /// The name of the route; not found before routing.
        Route = 9, "route";
        /// The name of the upstream; not found where there is none.
        Upstream = 10, "upstream";
        /// Address and port of the peer that was tried last; not found before.
        Peer = 11, "peer";
        /// The gateway's IP address that the client connected to, or `unix:PATH`.
        ServerAddress = 12, "server_address";
        /// The gateway's port that the client connected to, in decimal digits; not found for a Unix socket.
        ServerPort = 13, "server_port";
        /// The path as routes compare it: decoded once but for `%2F`, `%5C` and `%25`, without dot and empty segments.
        RoutedPath = 14, "routed_path";
    }
}

ids! {
    /// A fact of TLS between client and gateway, as text, for `tls_get`. Its name is that of the variable. Not found where the
    /// client's connection is plain; those that begin with `Client`, but for the first, also where it has shown no certificate.
    TlsFact: u32 {
        /// `TLSv1.2` or `TLSv1.3`.
        Version = 0, "tls_version";
        /// The cipher suite, by its name in the registry of IANA.
        Cipher = 1, "tls_cipher";
        /// The group of the key exchange, by its name there; not found where a session of TLS 1.2 was resumed.
        Group = 2, "tls_group";
        /// The name of the server that the client asked for (SNI), in lower case; not found where it asked for none.
        ServerName = 3, "tls_server_name";
        /// The protocol that was agreed on (ALPN): `http/1.1`, `h2`; not found where there was no talk of it.
        Alpn = 4, "tls_alpn";
        /// `yes` or `no`: whether the session is one of before.
        Resumed = 5, "tls_resumed";
        /// `yes` or `no`: whether the request came as early data, which anyone may have replayed. The gateway takes none.
        Early = 6, "tls_early";
        /// `SUCCESS`, or `NONE` where the client has shown no certificate.
        ClientVerify = 7, "tls_client_verify";
        /// The subject of the client's certificate (RFC 4514): `CN=ada,O=Example`. ASCII; what could end a part is escaped.
        ClientSubject = 8, "tls_client_subject";
        /// Issuer of that certificate, likewise.
        ClientIssuer = 9, "tls_client_issuer";
        /// Serial number of it, in upper-case hexadecimal digits, two a byte.
        ClientSerial = 10, "tls_client_serial";
        /// SHA-256 fingerprint of it, in lower-case hexadecimal digits.
        ClientFingerprint = 11, "tls_client_fingerprint";
        /// From when on it is good: `2026-01-31T00:00:00Z`.
        ClientNotBefore = 12, "tls_client_not_before";
        /// Until when, likewise.
        ClientNotAfter = 13, "tls_client_not_after";
        /// The DNS names that it is for (subjectAltName), with commas in between: in each, a comma, a backslash and what is not
        /// visible ASCII is a backslash and two hexadecimal digits. Not found where there are none.
        ClientDns = 14, "tls_client_dns";
        /// IP addresses that it is for, likewise.
        ClientIp = 15, "tls_client_ip";
        /// URIs that it is for, likewise: a SPIFFE id is one.
        ClientUri = 16, "tls_client_uri";
        /// Email addresses that it is for, likewise.
        ClientEmail = 17, "tls_client_email";
        /// All of it, as the header Client-Cert has it (RFC 9440): base64 between colons.
        ClientCertificate = 18, "tls_client_certificate";
    }
}

ids! {
    /// A fact of the exchange that is a number (`i64`), for `number_get`.
    Number: u32 {
        /// Bytes of the response's body sent to the client, before transfer coding.
        BodyBytesSent = 0, "body_bytes_sent";
        /// Bytes of the request's body received from the client, after transfer coding: in `log`, 0 before.
        BodyBytesReceived = 1, "body_bytes_received";
        /// Microseconds since the request's head was complete.
        DurationMicros = 2, "duration_micros";
        /// Microseconds from the choice of the first peer to the response's head; not found without an upstream.
        UpstreamMicros = 3, "upstream_micros";
        /// How many peers were tried.
        Tries = 4, "tries";
        /// Status of the last peer's response, as the peer has sent it: in `peer_done` of the try that has ended; not found
        /// where none came.
        UpstreamStatus = 5, "upstream_status";
    }
}

ids! {
    /// How a try of a peer ended.
    PeerOutcome: u32 {
        /// A response's head came.
        Responded = 0, "responded";
        /// The connection could not be made.
        ConnectFailed = 1, "connect failed";
        /// Connected, but it broke before a response's head came.
        Broken = 2, "broken";
        /// A time-out ended it.
        TimedOut = 3, "timed out";
        /// The client left first.
        Cancelled = 4, "cancelled";
    }
}

ids! {
    /// How urgent a log line is.
    LogLevel: u32 {
        /// Work was lost.
        Error = 0, "error";
        /// An operator should look.
        Warn = 1, "warn";
        /// The life of the process.
        Info = 2, "info";
        /// An event of one request.
        Debug = 3, "debug";
        /// Bytes.
        Trace = 4, "trace";
    }
}

ids! {
    /// Kind of a metric.
    MetricKind: u32 {
        /// Only grows.
        Counter = 0, "counter";
        /// Goes up and down; the gateway's is the sum of its workers'.
        Gauge = 1, "gauge";
        /// A gauge of which the gateway's is the largest of its workers'.
        GaugeMax = 2, "gauge_max";
        /// Counts observations by size, and sums them up.
        Histogram = 3, "histogram";
    }
}

/// A peer, as `peers_get` writes it: little-endian, no padding, by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct PeerRecord {
    /// From the config, 1 to 65535.
    pub weight: u32,
    /// Requests that this worker has under way there.
    pub active: u32,
    /// [`PEER_TRIED`], [`PEER_COOLING`], and flags to come.
    pub flags: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = assert!(size_of::<PeerRecord>() == PEER_RECORD_BYTES);

/// Size of a [`PeerRecord`] on the wire.
pub const PEER_RECORD_BYTES: usize = 16;

/// The peer was tried for this request and failed.
pub const PEER_TRIED: u32 = 1;

/// The peer failed lately, with this request or another. The gateway passes it over while others are there that have
/// not: it replaces such a choice, also a plugin's.
pub const PEER_COOLING: u32 = 2;

impl PeerRecord {
    /// Bytes of the record, as it lies in the guest's memory.
    pub fn to_bytes(self) -> [u8; PEER_RECORD_BYTES] {
        let mut bytes = [0; PEER_RECORD_BYTES];
        bytes[0..4].copy_from_slice(&self.weight.to_le_bytes());
        bytes[4..8].copy_from_slice(&self.active.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.flags.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.reserved.to_le_bytes());
        bytes
    }

    /// The reverse of [`Self::to_bytes`].
    pub fn from_bytes(bytes: [u8; PEER_RECORD_BYTES]) -> Self {
        let word =
            |i: usize| u32::from_le_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
        Self {
            weight: word(0),
            active: word(4),
            flags: word(8),
            reserved: word(12),
        }
    }
}

/// A peer that the host has drawn, as `peers_draw` writes it: its index, little-endian, and its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrawnPeer {
    /// Number of the peer, which keeps it as long as the instance lives.
    pub index: u32,
    /// Record, as `peers_get` has it.
    pub record: PeerRecord,
}

/// Size of a [`DrawnPeer`] on the wire.
pub const DRAWN_PEER_BYTES: usize = 4 + PEER_RECORD_BYTES;

impl DrawnPeer {
    /// Bytes of it, as they lie in the guest's memory.
    pub fn to_bytes(self) -> [u8; DRAWN_PEER_BYTES] {
        let mut bytes = [0; DRAWN_PEER_BYTES];
        bytes[..4].copy_from_slice(&self.index.to_le_bytes());
        bytes[4..].copy_from_slice(&self.record.to_bytes());
        bytes
    }

    /// The reverse of [`Self::to_bytes`].
    pub fn from_bytes(bytes: [u8; DRAWN_PEER_BYTES]) -> Self {
        let [a, b, c, d, record @ ..] = bytes;
        Self {
            index: u32::from_le_bytes([a, b, c, d]),
            record: PeerRecord::from_bytes(record),
        }
    }
}

/// Longest wait that a guest may ask for. It is suspended meanwhile, and the host serves other requests; where it may wait,
/// [`rules`] says of each call.
pub const LONGEST_DELAY_MS: u32 = 60_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_list_is_read_as_it_was_written() {
        let mut list = [0_u8; 32];
        let mut end = 0;
        for (name, value) in [(&b"a"[..], &b"1"[..]), (b"bc", b"")] {
            let head = header_list::record_head(name, value).unwrap();
            for part in [&head[..], name, value] {
                list[end..end + part.len()].copy_from_slice(part);
                end += part.len();
            }
        }
        let mut records = header_list::records(&list[..end]);
        assert_eq!(records.next(), Some(Ok((&b"a"[..], &b"1"[..]))));
        assert_eq!(records.next(), Some(Ok((&b"bc"[..], &b""[..]))));
        assert_eq!(records.next(), None);
    }

    #[test]
    fn a_cut_header_list_is_an_error_and_ends() {
        let mut records = header_list::records(&[1, 0, 9, 0, 0, 0, b'a']);
        assert_eq!(records.next(), Some(Err(())));
        assert_eq!(records.next(), None);
    }

    #[test]
    fn a_metric_definition_is_read_as_it_was_written() {
        let mut bytes = [0_u8; 64];
        let mut end = 0;
        let head = metric::definition_head(MetricKind::Histogram, [2, 1, 3]).unwrap();
        let label = metric::text_head(b"l").unwrap();
        let parts: [&[u8]; 6] = [&head, b"ab", b"h", &label, b"l", &1.5_f64.to_le_bytes()];
        for part in parts {
            bytes[end..end + part.len()].copy_from_slice(part);
            end += part.len();
        }
        let read = metric::definition(&bytes[..end]).unwrap();
        assert_eq!(
            (read.kind, read.name, read.help),
            (MetricKind::Histogram as u32, &b"ab"[..], &b"h"[..])
        );
        let mut labels = metric::texts(read.labels);
        assert_eq!((labels.next(), labels.next()), (Some(Ok(&b"l"[..])), None));
        assert!(metric::bounds(read.bounds).eq([1.5]));
        assert_eq!(metric::definition(&bytes[..20]), None);
        assert_eq!(metric::texts(&[2, 0, b'x']).next(), Some(Err(())));
    }

    #[test]
    fn names_and_bounds_of_metrics_are_checked() {
        for good in [&b"a"[..], b"_x9", b"rule:sum"] {
            assert!(metric::is_metric_name(good));
        }
        for bad in [&b""[..], b"9a", b"a-b", b"a b", b"\xc3\xa4", &[b'a'; 129]] {
            assert!(!metric::is_metric_name(bad) && !metric::is_label_name(bad));
        }
        assert!(!metric::is_label_name(b"__name__") && !metric::is_label_name(b"a:b"));
        assert!(metric::check_bounds([0.1, 1.0].into_iter()).is_ok());
        for bad in [
            &[][..],
            &[1.0, 1.0],
            &[f64::NAN],
            &[f64::INFINITY],
            &[0.0; 65],
        ] {
            assert!(metric::check_bounds(bad.iter().copied()).is_err());
        }
    }

    #[test]
    fn ids_come_back_from_their_numbers_and_names() {
        for &hook in Hook::ALL {
            assert_eq!(Hook::from_raw(hook as u32), Some(hook));
            assert_eq!(Hook::from_name(hook.name()), Some(hook));
            assert_eq!(
                hook.export().strip_prefix("castling_hook_"),
                Some(hook.name())
            );
        }
        assert_eq!(Action::from_raw(7), None);
    }
}
