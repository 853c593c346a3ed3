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

/// The ABI that this crate describes. A host refuses a module that says another.
pub const ABI_VERSION: u32 = 1;

/// The module that host functions are imported from.
pub const IMPORT_MODULE: &str = "castling";

/// Custom section with the manifest, a JSON object:
/// `{"abi":1,"name":"token-auth","version":"0.1.0","sdk":"0.1.0","hooks":["access"],"state":false}`.
pub const MANIFEST_SECTION: &str = "castling.manifest";

/// Export: builds the plugin from its config.
pub const EXPORT_CONFIGURE: &str = "castling_configure";

/// Export of plugins with per-request state: forgets it.
pub const EXPORT_STATE_RESET: &str = "castling_state_reset";

/// Result of `balance`: no choice, the host takes the next peer by round robin.
pub const BALANCE_DECLINED: i32 = -1;

/// Result of `balance`: the guest returned an error, which it has passed to `fail`.
pub const BALANCE_FAILED: i32 = -2;

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

            /// Its name, as config, manifest and logs write it.
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
        /// One chunk of the response's body: `a` its length in bytes, `b` 1 when it is the last.
        ResponseBody = 8, "response_body";
        /// The exchange is over.
        Log = 9, "log";
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
        }
    }
}

ids! {
    /// What a hook asks the host to do next.
    Action: i32 {
        /// The hook returned an error, which it has passed to `fail`: the plugin's `on_error` applies.
        Failed = -1, "failed";
        /// Go on with the next step. From `content`: decline, an upstream is to answer.
        Continue = 0, "continue";
        /// Send what was passed to `answer` and skip to the response's filters.
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
        /// A kv zone has no room for it, also after all that had expired was removed.
        Full = -6, "full";
        /// The zone is of another kind: a counter's call on a kv zone, or the reverse.
        WrongKind = -7, "a zone of another kind";
        /// The host could not do it, through no fault of the guest; its log says why.
        HostFailed = -8, "failed in the gateway, whose log says why";
    }
}

ids! {
    /// What must be there for a change of a kv zone's key.
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
    }
}

ids! {
    /// A fact of the exchange that is text. All can be read in every hook that has an exchange
    /// ([`Status::NotFound`] while there is none); the first five can be set before the response.
    Property: u32 {
        /// The request's method. Settable.
        Method = 0, "method";
        /// The path, as it came (not decoded), without the query. Settable: must begin with `/`.
        Path = 1, "path";
        /// The query without its `?`; not found when there is none. Settable: empty removes it.
        Query = 2, "query";
        /// Host and port as the client named them (the target's authority, else `Host`). Settable.
        Host = 3, "host";
        /// The client's IP address. Settable in `post_read`, for what stands behind another proxy.
        ClientAddress = 4, "client_address";
        /// The client's port, in decimal digits.
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
    }
}

ids! {
    /// A fact of the exchange that is a number (`i64`), for `number_get`.
    Number: u32 {
        /// Bytes of the response's body sent to the client, before transfer coding.
        BodyBytesSent = 0, "body_bytes_sent";
        /// Bytes of the request's body received from the client, after transfer coding.
        BodyBytesReceived = 1, "body_bytes_received";
        /// Microseconds since the request's head was complete.
        DurationMicros = 2, "duration_micros";
        /// Microseconds from the choice of the first peer to the response's head; not found without an upstream.
        UpstreamMicros = 3, "upstream_micros";
        /// How many peers were tried.
        Tries = 4, "tries";
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
        /// One event of one request.
        Debug = 3, "debug";
        /// Bytes.
        Trace = 4, "trace";
    }
}

/// One peer, as `peers_get` writes it: little-endian, no padding, by index.
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

/// The peer failed lately, with this request or another, and the gateway's own policies pass it over while others are
/// there.
pub const PEER_COOLING: u32 = 2;

impl PeerRecord {
    /// As it lies in the guest's memory.
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

/// Header lists (`headers_get`, `answer`) are records one after the other:
/// `u16` length of the name, `u32` length of the value (both little-endian), name, value.
pub mod header_list {
    /// Bytes of a record before its name.
    pub const RECORD_HEAD_BYTES: usize = 6;

    /// Bytes that one record takes.
    pub const fn record_bytes(name: &[u8], value: &[u8]) -> usize {
        RECORD_HEAD_BYTES + name.len() + value.len()
    }

    /// The lengths that stand before a record's name; `None` when one does not fit its field.
    pub fn record_head(name: &[u8], value: &[u8]) -> Option<[u8; RECORD_HEAD_BYTES]> {
        let name_bytes = u16::try_from(name.len()).ok()?.to_le_bytes();
        let value_bytes = u32::try_from(value.len()).ok()?.to_le_bytes();
        Some([
            name_bytes[0],
            name_bytes[1],
            value_bytes[0],
            value_bytes[1],
            value_bytes[2],
            value_bytes[3],
        ])
    }

    /// Walks a list. Ends with `Some(Err(()))` where the bytes do not follow the layout.
    #[derive(Clone, Debug)]
    pub struct Records<'a>(&'a [u8]);

    /// The records in `list`.
    pub fn records(list: &[u8]) -> Records<'_> {
        Records(list)
    }

    impl<'a> Iterator for Records<'a> {
        type Item = Result<(&'a [u8], &'a [u8]), ()>;

        fn next(&mut self) -> Option<Self::Item> {
            if self.0.is_empty() {
                return None;
            }
            let parsed =
                self.0
                    .split_first_chunk::<RECORD_HEAD_BYTES>()
                    .and_then(|(head, rest)| {
                        let name_len = usize::from(u16::from_le_bytes([head[0], head[1]]));
                        let value_len = usize::try_from(u32::from_le_bytes([
                            head[2], head[3], head[4], head[5],
                        ]))
                        .ok()?;
                        let (name, rest) = rest.split_at_checked(name_len)?;
                        let (value, rest) = rest.split_at_checked(value_len)?;
                        Some((name, value, rest))
                    });
            match parsed {
                Some((name, value, rest)) => {
                    self.0 = rest;
                    Some(Ok((name, value)))
                }
                None => {
                    self.0 = &[];
                    Some(Err(()))
                }
            }
        }
    }
}

/// A call out, as `calls_send` takes it and hands out its result.
pub mod call {
    /// Bytes of a call's record before its texts: six little-endian `u32`: milliseconds to wait for the whole of it
    /// (0: as long as the upstream's own time-outs allow), and the lengths of upstream name, method, target (path and
    /// query), headers (a [`super::header_list`]) and body; then those, in this order. Records stand one after the
    /// other.
    pub const RECORD_HEAD_BYTES: usize = 6 * 4;

    /// Calls in one `calls_send`.
    pub const MAX_CALLS: usize = 16;

    /// The six numbers before a record's texts.
    pub fn record_head(timeout_ms: u32, lengths: [usize; 5]) -> Option<[u8; RECORD_HEAD_BYTES]> {
        let mut head = [0; RECORD_HEAD_BYTES];
        head[..4].copy_from_slice(&timeout_ms.to_le_bytes());
        for (idx, length) in lengths.into_iter().enumerate() {
            let length = u32::try_from(length).ok()?;
            head[4 + idx * 4..8 + idx * 4].copy_from_slice(&length.to_le_bytes());
        }
        Some(head)
    }

    /// One call, borrowed from the record.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Record<'a> {
        /// 0: none of its own.
        pub timeout_ms: u32,
        /// The upstream's name.
        pub upstream: &'a [u8],
        /// The request's method.
        pub method: &'a [u8],
        /// Path and query.
        pub target: &'a [u8],
        /// A [`super::header_list`].
        pub headers: &'a [u8],
        /// May be empty.
        pub body: &'a [u8],
    }

    /// Walks records. Ends with `Some(Err(()))` where the bytes do not follow the layout.
    #[derive(Clone, Debug)]
    pub struct Records<'a>(&'a [u8]);

    /// The records in `bytes`.
    pub fn records(bytes: &[u8]) -> Records<'_> {
        Records(bytes)
    }

    impl<'a> Iterator for Records<'a> {
        type Item = Result<Record<'a>, ()>;

        fn next(&mut self) -> Option<Self::Item> {
            if self.0.is_empty() {
                return None;
            }
            let record = take(self.0);
            self.0 = record.as_ref().map_or(&[], |(_, rest)| rest);
            Some(record.map(|(record, _)| record).ok_or(()))
        }
    }

    fn take(bytes: &[u8]) -> Option<(Record<'_>, &[u8])> {
        let (head, mut rest) = bytes.split_first_chunk::<RECORD_HEAD_BYTES>()?;
        let word = |idx: usize| {
            u32::from_le_bytes([
                head[idx * 4],
                head[idx * 4 + 1],
                head[idx * 4 + 2],
                head[idx * 4 + 3],
            ])
        };
        let mut texts = [&[][..]; 5];
        for (idx, text) in texts.iter_mut().enumerate() {
            let length = usize::try_from(word(idx + 1)).ok()?;
            (*text, rest) = rest.split_at_checked(length)?;
        }
        let [upstream, method, target, headers, body] = texts;
        Some((
            Record {
                timeout_ms: word(0),
                upstream,
                method,
                target,
                headers,
                body,
            },
            rest,
        ))
    }
}

/// Kv zones.
pub mod kv {
    /// Longest key, bytes; the shortest has 1.
    pub const MAX_KEY_BYTES: usize = 510;

    /// Keys that one `kv_list` hands out.
    pub const MAX_LIST_KEYS: usize = 1000;

    /// Bytes of a listing's record before its key: the key's length, a little-endian `u16`. Records stand one after
    /// the other.
    pub const RECORD_HEAD_BYTES: usize = 2;

    /// Walks a listing. Ends with `Some(Err(()))` where the bytes do not follow the layout.
    #[derive(Clone, Debug)]
    pub struct Records<'a>(&'a [u8]);

    /// The records in `listing`.
    pub fn records(listing: &[u8]) -> Records<'_> {
        Records(listing)
    }

    impl<'a> Iterator for Records<'a> {
        type Item = Result<&'a [u8], ()>;

        fn next(&mut self) -> Option<Self::Item> {
            if self.0.is_empty() {
                return None;
            }
            let record = self.0.split_first_chunk().and_then(|(head, rest)| {
                rest.split_at_checked(usize::from(u16::from_le_bytes(*head)))
            });
            self.0 = record.map_or(&[], |(_, rest)| rest);
            Some(record.map(|(key, _)| key).ok_or(()))
        }
    }
}

/// Waits that a guest may ask for; they suspend it while the host serves other requests.
///
/// [`imports::BODY_READ`], [`imports::CALLS_SEND`] and [`imports::DELAY`]: in `rewrite`, `preaccess`, `access` and
/// `content`; `BODY_READ` of the response and the other two also in `response_headers`. Elsewhere
/// [`Status::NotNow`].
pub const LONGEST_DELAY_MS: u32 = 60_000;

/// The host's functions: name, parameters and what they do. A `ptr, len` pair names bytes of the guest; `out, cap` is
/// room for the result, as the crate's documentation says. All return `i32` unless another type stands there.
pub mod imports {
    /// `log(level, ptr, len)`: a line of the plugin in the gateway's log. [`crate::LogLevel`]. Returns nothing.
    pub const LOG: &str = "log";
    /// `fail(ptr, len)`: the text of the error that the hook is about to return. Returns nothing.
    pub const FAIL: &str = "fail";
    /// `panicked(ptr, len)`: message and place of the panic that is about to trap. Returns nothing.
    pub const PANICKED: &str = "panicked";
    /// `config_get(out, cap)`: the plugin's config as JSON.
    pub const CONFIG_GET: &str = "config_get";
    /// `random_get(ptr, len)`: fills the bytes from the system's secure random source. Returns nothing.
    pub const RANDOM_GET: &str = "random_get";
    /// `clock_monotonic() -> i64`: nanoseconds since some moment, never backwards.
    pub const CLOCK_MONOTONIC: &str = "clock_monotonic";
    /// `clock_wall() -> i64`: nanoseconds since 1970-01-01 UTC.
    pub const CLOCK_WALL: &str = "clock_wall";
    /// `property_get(property, out, cap)`: a [`crate::Property`].
    pub const PROPERTY_GET: &str = "property_get";
    /// `property_set(property, ptr, len)`: 0 or a status.
    pub const PROPERTY_SET: &str = "property_set";
    /// `number_get(number) -> i64`: a [`crate::Number`], or a status.
    pub const NUMBER_GET: &str = "number_get";
    /// `header_get(map, name_ptr, name_len, out, cap)`: the first value of that name.
    pub const HEADER_GET: &str = "header_get";
    /// `headers_get(map, name_ptr, name_len, out, cap)`: a [`crate::header_list`] of all values of that name, or of
    /// every header when the name is empty.
    pub const HEADERS_GET: &str = "headers_get";
    /// `header_set(map, name_ptr, name_len, ptr, len)`: this value in the place of all of that name; 0 or a status.
    pub const HEADER_SET: &str = "header_set";
    /// `header_add(map, name_ptr, name_len, ptr, len)`: one more value; 0 or a status.
    pub const HEADER_ADD: &str = "header_add";
    /// `header_remove(map, name_ptr, name_len)`: how many were removed, or a status.
    pub const HEADER_REMOVE: &str = "header_remove";
    /// `status_get()`: the response's status code, 100 to 999.
    pub const STATUS_GET: &str = "status_get";
    /// `status_set(code)`: 200 to 599; 0 or a status.
    pub const STATUS_SET: &str = "status_set";
    /// `var_get(name_ptr, name_len, out, cap)`: a variable that some plugin has set.
    pub const VAR_GET: &str = "var_get";
    /// `var_set(name_ptr, name_len, ptr, len)`: names are `[a-z0-9_]`, 1 to 64 bytes; 0 or a status.
    pub const VAR_SET: &str = "var_set";
    /// `answer(status, headers_ptr, headers_len, ptr, len)`: the response that [`crate::Action::Answer`] sends: a
    /// [`crate::header_list`] and a body; 0 or a status.
    pub const ANSWER: &str = "answer";
    /// `chunk_get(out, cap)`: the chunk that `response_body` was called for.
    pub const CHUNK_GET: &str = "chunk_get";
    /// `chunk_set(ptr, len)`: what goes on in its place; 0 or a status.
    pub const CHUNK_SET: &str = "chunk_set";
    /// `body_read(map, limit)`: waits until the whole body is there; its length. [`crate::Status::Limit`] when it is
    /// longer than `limit` bytes, which may be up to the plugin's `limits.body`; it then passes on all the same.
    pub const BODY_READ: &str = "body_read";
    /// `body_get(map, out, cap)`: the body that `body_read` has read; not found before.
    pub const BODY_GET: &str = "body_get";
    /// `calls_send(ptr, len)`: [`crate::call`] records; waits for all their responses and returns how many there are,
    /// or a status when none was sent. The results of the `calls_send` before are gone.
    pub const CALLS_SEND: &str = "calls_send";
    /// `call_status(index)`: the response's status code; [`crate::Status::NotFound`] when the call failed, and
    /// `call_error` says why.
    pub const CALL_STATUS: &str = "call_status";
    /// `call_error(index, out, cap)`: why a call failed, as text.
    pub const CALL_ERROR: &str = "call_error";
    /// `call_headers(index, out, cap)`: a [`crate::header_list`].
    pub const CALL_HEADERS: &str = "call_headers";
    /// `call_body(index, out, cap)`.
    pub const CALL_BODY: &str = "call_body";
    /// `delay(milliseconds)`: 0 after the time, or a status. At most [`crate::LONGEST_DELAY_MS`].
    pub const DELAY: &str = "delay";
    /// `counter_add(zone_ptr, zone_len, key_ptr, key_len, amount: i64, window_ms: i64) -> i64`: the count of this key
    /// in its window after adding, or a status. The window begins with the first addition after the last one ended.
    pub const COUNTER_ADD: &str = "counter_add";
    /// `counter_get(zone_ptr, zone_len, key_ptr, key_len) -> i64`: the count, 0 when there is none, or a status.
    pub const COUNTER_GET: &str = "counter_get";
    /// `rate_take(zone_ptr, zone_len, key_ptr, key_len, interval_ns: i64, burst: i64) -> i64`: the generic cell rate
    /// algorithm (GCRA): one cell each `interval_ns`, up to `burst` at once. 0 or more: taken, that many nanoseconds
    /// until the bucket is empty again. Negative and not a status (below -1000): refused, `-(n + 1000)` where n is
    /// the nanoseconds until one more would be taken.
    pub const RATE_TAKE: &str = "rate_take";
    /// `peers_get(out, cap)`: [`crate::PeerRecord`]s of the upstream, in `balance`.
    pub const PEERS_GET: &str = "peers_get";
    /// `peer_address(index, out, cap)`: address and port of a peer, in `balance` and `peer_done`.
    pub const PEER_ADDRESS: &str = "peer_address";
    /// `kv_get(zone_ptr, zone_len, key_ptr, key_len, out, cap)`: the key's value; not found when it has none or it has
    /// expired. Here and below: keys have 1 to [`crate::kv::MAX_KEY_BYTES`] bytes, others are a bad argument.
    pub const KV_GET: &str = "kv_get";
    /// `kv_put(zone_ptr, zone_len, key_ptr, key_len, ptr, len, ttl_ms: i64, expected, expected_ptr, expected_len)`:
    /// stores a value that expires after `ttl_ms` (0: never), if what is there is as expected
    /// ([`crate::KvExpected`]; the bytes count for its `Value` only): 1 when it is stored, 0 when something else was
    /// there, or a status: [`crate::Status::Limit`] for a value longer than 1/16 of the zone or 1 MiB,
    /// [`crate::Status::Full`] when there is no room.
    pub const KV_PUT: &str = "kv_put";
    /// `kv_delete(zone_ptr, zone_len, key_ptr, key_len, expected, expected_ptr, expected_len)`: deletes a key, if what
    /// is there is as expected: 1 when it was there and is gone, 0 when it was not or is something else, or a status.
    /// Never [`crate::Status::Full`].
    pub const KV_DELETE: &str = "kv_delete";
    /// `kv_list(zone_ptr, zone_len, prefix_ptr, prefix_len, after_ptr, after_len, limit, out, cap)`: keys that begin
    /// with the prefix and come after `after` (from the first, when it is empty), in the order of their bytes:
    /// [`crate::kv`] records, of which the first is no key of the list but where to go on, as the next call's `after`; it
    /// is empty when that was all. `limit` is 1 to [`crate::kv::MAX_LIST_KEYS`]. A call looks at so many entries, expired
    /// ones too, that its list may be short, or empty, and yet not the last.
    pub const KV_LIST: &str = "kv_list";
}

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
    fn a_listing_is_read_and_a_cut_one_is_an_error() {
        let mut records = kv::records(&[0, 0, 2, 0, b'a', b'b', 3, 0, b'c']);
        assert_eq!(records.next(), Some(Ok(&b""[..])));
        assert_eq!(records.next(), Some(Ok(&b"ab"[..])));
        assert_eq!(records.next(), Some(Err(())));
        assert_eq!(records.next(), None);
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
