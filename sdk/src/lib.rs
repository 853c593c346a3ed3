//! Write plugins for the Castling gateway.
//!
//! A plugin is a struct and an `impl` block with the hooks that it implements. This one, whole, lets requests pass
//! that carry a known token:
//!
//! ```
//! use castling_sdk::prelude::*;
//!
//! #[derive(Deserialize)]
//! struct Config { header: HeaderName, tokens: Vec<String> }
//!
//! struct TokenAuth { config: Config }
//!
//! #[plugin]
//! impl TokenAuth {
//!     fn configure(config: Config) -> Result<Self> { Ok(Self { config }) }
//!
//!     fn access(&self, request: &mut Request) -> Verdict {
//!         match request.header(&self.config.header) {
//!             Some(token) if self.config.tokens.iter().any(|t| token == t.as_str()) => {
//!                 request.set_var("user", &token);
//!                 Verdict::Continue
//!             }
//!             _ => Response::status(401).body("token required").into(),
//!         }
//!     }
//! }
//! ```
//!
//! Its crate is a `cdylib` for `wasm32-unknown-unknown`, or for `wasm32-wasip1` where `println!`, `SystemTime` and crates that need them are to
//! work, with `castling-sdk` as its dependency; [`plugin`](macro@plugin)
//! lists the hooks; [`testing`] runs them natively under plain `cargo test`.
//!
//! # What happens when
//!
//! - **Config** that does not fit the plugin's type is refused when the gateway loads it, with the key that is wrong.
//! - **An error** that a hook returns is logged, and the plugin's `on_error` decides about the request.
//! - **A panic** is logged with message and place, and costs this instance of the plugin and this request's hook.
//! - **Waiting** is written straight-line: [`Request::read_body`], [`http::send`], [`http::subrequest`], [`delay`] and [`BodyWriter::write`]
//!   return when it is done. The gateway serves other requests meanwhile, and other instances of the plugin other requests of it.
//! - **Upstreams and zones** that a plugin uses are granted in the config: `grants = { upstreams = ["auth"], zones =
//!   ["limits"] }`. What is not granted is an error that says so.
//! - **Memory** of an instance lives on from request to request, in each worker for itself and possibly in several
//!   instances a worker. So fields of the plugin are for what can be lost and need not agree: caches, averages. What
//!   all workers must agree on belongs into a zone: [`zones`].
//! - **Allocation** is the SDK's (feature `allocator`, on by default): std's allocator, but the first 64 KiB are there from the
//!   start. A plugin that declares a `#[global_allocator]` of its own depends on the SDK with `default-features = false`.

#![warn(missing_docs)]

#[doc(hidden)]
#[path = "glue/mod.rs"]
#[allow(missing_docs, reason = "for the code that #[plugin] writes")]
pub mod __private;
#[cfg(all(feature = "allocator", target_arch = "wasm32"))]
mod allocator;
mod balance;
mod buffer;
mod chunk;
pub mod clock;
mod config;
#[cfg(feature = "crypto")]
pub mod crypto;
mod error;
#[cfg(feature = "regex")]
pub mod expression;
pub mod files;
mod header;
pub mod http;
pub mod log;
pub mod metrics;
mod outcome;
mod params;
pub mod random;
#[cfg(target_arch = "wasm32")]
mod raw;
#[cfg(all(target_arch = "wasm32", target_os = "wasi"))]
mod reactor;
mod request;
mod response;
#[cfg(feature = "script")]
pub mod script;
mod set_cookie;
mod stream;
pub mod tcp;
pub mod template;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
mod tls;
pub mod units;
pub mod variables;
mod wait;
pub mod zones;

/// The host's functions: imports in a guest, a fake in a native test.
#[cfg(target_arch = "wasm32")]
use raw as host;
#[cfg(not(target_arch = "wasm32"))]
use testing::host;

pub use balance::{Peer, PeerOutcome, Peers, peer_address, peer_status};
pub use bytemuck;
pub use chunk::Chunk;
pub use error::{Error, ErrorKind, Result};
pub use header::{HeaderName, HeaderValue, Headers};
pub use outcome::Outcome;
pub use request::Request;
pub use response::{Reply, Response, Verdict};
pub use serde;
pub use set_cookie::{SameSite, SetCookie};
pub use stream::{BodyWriter, Streamed};
pub use tls::{ClientCertificate, Tls, TlsFact};
pub use wait::delay;

/// `serde::Deserialize` for crates that need not depend on `serde` themselves. It takes the same `#[serde(...)]`
/// attributes; types with generics need serde's own.
///
/// ```
/// # use castling_sdk::prelude::*;
/// #[derive(Deserialize)]
/// #[serde(deny_unknown_fields)]
/// struct Config {
///     header: HeaderName,
///     #[serde(default)]
///     realm: Option<String>,
/// }
/// ```
pub use castling_macros::Deserialize;

/// `serde::Serialize`, likewise: for a request's state.
pub use castling_macros::Serialize;

/// Makes a plugin of an `impl` block: exports the hooks that it writes and the manifest that the host reads. One a
/// crate.
///
/// ```text
/// fn configure(config: Config) -> Result<Self>                   builds the plugin; may be left out where Self: Default
///
/// fn post_read(&self, request: &mut Request) -> Verdict          before routing, for plugins of a listener
/// fn rewrite(&self, request: &mut Request) -> Verdict            after routing; Verdict::Reroute routes again
/// fn preaccess(&self, request: &mut Request) -> Verdict          limits: may wait, or answer 429 or 503
/// fn access(&self, request: &mut Request) -> Verdict             decides whether the request may go on
/// fn content(&self, request: &mut Request) -> Verdict            answers in the place of an upstream, whole or piece by piece;
///                                                                Continue: does not
/// fn request_body(&self, request: &Request, chunk: &mut Chunk) -> Verdict
///                                                                one chunk of the request's body, on its way to a peer
/// fn balance(&mut self, request: &Request, peers: &Peers) -> Option<usize>
///                                                                chooses a peer by index; None leaves it to round robin
/// fn peer_done(&mut self, peer: usize, outcome: PeerOutcome, latency: Duration)
///                                                                how a try of a peer ended; time to the response's head
/// fn response_headers(&self, request: &Request, reply: &mut Reply) -> Verdict
///                                                                the response's head, on its way to the client
/// fn response_body(&self, request: &Request, chunk: &mut Chunk)  one chunk of the response's body
/// fn log(&self, request: &Request, outcome: &Outcome)            the exchange is over
/// fn after_response(&self, request: &Request, outcome: &Outcome) the response is out: may call out and wait
/// fn variable(&self, request: &Request, name: &str) -> Option<String>
///                                                                computes `$name` when something first asks for it
/// fn timer(&mut self)                                            runs every so often, for no request
/// fn message(&mut self, topic: &str, message: &[u8])             a message on a topic that the plugin is granted, for no request
/// ```
///
/// - Each may take `&self` or `&mut self`, and may return a `Result` of what stands here. Where a `Verdict` stands,
///   `()` means `Verdict::Continue`.
/// - **Per-request state**: with `#[plugin(state = Tail)]`, where `Tail: Default + Serialize + Deserialize`, each hook may take
///   `state: &mut Tail` as its first parameter after `self`. It lives from the first hook of a request that takes it to the
///   request's end: the host keeps it as bytes (postcard's, up to `limits.state`) and gives it to whichever instance runs the
///   next hook, so that a request that lasts keeps no instance. A trap loses it; `timer`, which has no request, gets a new one each
///   time. A hook that is called while another one of the plugin waits (`variable`) sees it as that one found it, and what it
///   changes is lost. A state of plain data (numbers, and arrays of them: `Default` and `bytemuck::Pod`) takes a third of that time with
///   `state_as = "plain"`, which copies it as it lies in memory. With `state_in = "instance"` the state is any `Tail: Default`, lies in the instance, and that serves no other
///   request meanwhile: for large states, of which a worker has as many as `limits.instances`.
/// - **Body filters** get one chunk at a time and hold no more than that; what they put in its place may be longer,
///   shorter or empty. A body that is to be seen whole is for `read_body`. `request_body` may answer as long as no
///   response has come; a request without a body has no chunk. Where the body's length is to be known to the peer,
///   `read_body` it first: a body that is there whole is filtered before it is sent.
/// - **Streamed responses**: [`Response::stream`] sends the head and lends a [`BodyWriter`], to which `content` writes piece by piece,
///   for as long as it likes.
/// - **Computed variables**: `#[plugin(variables = ["country", "is_bot"])]` names what `variable` computes, at most once
///   a request, when another plugin or the access log asks for it. It may wait, as phases may. Plugins of one route must
///   not compute the same name.
///   Names that only the config knows are told in `configure`: `#[plugin(variables = "declared")]` and [`variables::declare`].
/// - **After the response**: `after_response` runs when the response is out and logged, whether the client is still there or not, and may
///   call out and wait without holding up the connection's next request. It takes `limits.after_response` at most, and beyond
///   `limits.after_response_active` and `limits.after_response_queue` a call is lost and counted. Not for sub-requests.
/// - **Timers**: `#[plugin(timer = "5s")]` runs `timer` on each worker when it begins to serve and then that long after
///   each run has ended; with `timer_on = "one_worker"` on one worker of the generation. The config may set another
///   period (`timer = "1m"`). It may call out and wait, has no request, and runs in one of the plugin's instances: what
///   it finds out is for zones.
/// - **Messages**: `message` is called for each message of a [topic](zones::topic()) that the plugin is granted, in each worker; like
///   `timer` it may call out and wait, and has no request.
/// - Other functions go in an `impl` block of their own, so that a hook with a slip in its name is an error and not a
///   hook that never runs.
///
/// This one counts the lines of what clients upload and tells the access log (`$lines`); it knows countries by address, for
/// whoever asks (`$country`); and it fetches the list of them anew each minute, on one worker for all:
///
/// ```
/// use castling_sdk::prelude::*;
/// use castling_sdk::testing::Exchange;
///
/// #[derive(Default)]
/// struct Uploads;
///
/// #[derive(Default, Deserialize, Serialize)]
/// struct Lines(usize);
///
/// #[plugin(state = Lines, variables = ["country"], timer = "1m", timer_on = "one_worker")]
/// impl Uploads {
///     fn request_body(&self, lines: &mut Lines, request: &Request, chunk: &mut Chunk) -> Verdict {
///         lines.0 += chunk.data().iter().filter(|&&byte| byte == b'\n').count();
///         if lines.0 > 1000 {
///             return Response::status(413).body("too many lines").into();
///         }
///         if chunk.is_last() {
///             request.set_var("lines", lines.0.to_string());
///         }
///         Verdict::Continue
///     }
///
///     fn variable(&self, request: &Request, _name: &str) -> Result<Option<Vec<u8>>> {
///         zones::kv("countries").get(request.client_address())
///     }
///
///     fn timer(&mut self) -> Result<()> {
///         let list = http::send("geo", http::Request::get("/countries"))?;
///         let countries = zones::kv("countries");
///         for line in String::from_utf8_lossy(list.body()).lines() {
///             if let Some((address, country)) = line.split_once(' ') {
///                 countries.put(address, country, Some(Duration::from_secs(3600)))?;
///             }
///         }
///         Ok(())
///     }
/// }
///
/// let mut exchange = Exchange::new("POST", "/").call("geo", |_| Response::status(200).body("192.0.2.1 nl"));
/// let mut lines = Lines(998);
/// exchange.pass_chunk("a\nb\n", true, |request, chunk| {
///     assert_eq!(Uploads.request_body(&mut lines, request, chunk), Verdict::Continue);
/// });
/// assert_eq!(exchange.request().var("lines").unwrap(), "1000");
///
/// Uploads.timer()?;
/// assert_eq!(Uploads.variable(exchange.request(), "country")?.as_deref(), Some(&b"nl"[..]));
/// # Ok::<(), Error>(())
/// ```
pub use castling_macros::plugin;

/// Everything a plugin uses: `use castling_sdk::prelude::*;`
pub mod prelude {
    pub use std::time::Duration;

    pub use serde::de::Deserialize;
    pub use serde::ser::Serialize;

    pub use crate::{
        BodyWriter, Chunk, Deserialize, Error, ErrorKind, HeaderName, HeaderValue, Headers,
        Outcome, Peer, PeerOutcome, Peers, Reply, Request, Response, Result, SameSite, Serialize,
        SetCookie, Verdict, bail, clock, delay, files, http, log, metrics, plugin, random, zones,
    };
}

/// The book's examples (docs/plugins), as tests.
#[cfg(doctest)]
mod book {
    macro_rules! chapters {
        ($($name:ident $file:literal)+) => {
            $(#[doc = include_str!(concat!("../../docs/plugins/", $file))] mod $name {})+
        };
    }

    chapters! {
        first_plugin "first-plugin.md"
        hooks "hooks.md"
        state "state.md"
        waiting "waiting.md"
        bodies "bodies.md"
        zones "zones.md"
        calls "calls.md"
        balance "balance.md"
        errors "errors.md"
        testing "testing.md"
    }
}
