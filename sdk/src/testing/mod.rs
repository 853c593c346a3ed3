//! Plugins under plain `cargo test`, without a server: an [`Exchange`] stands in for the host.
//!
//! ```
//! use castling_sdk::prelude::*;
//! use castling_sdk::testing::Exchange;
//!
//! #[derive(Default)]
//! struct Greeter;
//!
//! #[plugin]
//! impl Greeter {
//!     fn access(&self, request: &mut Request) -> Verdict {
//!         if request.header("x-name").is_none() {
//!             return Response::status(400).body("who are you?").into();
//!         }
//!         request.set_var("greeted", "yes");
//!         Verdict::Continue
//!     }
//! }
//!
//! let mut exchange = Exchange::get("/hello").header("x-name", "Ada");
//! assert_eq!(Greeter.access(exchange.request()), Verdict::Continue);
//! assert_eq!(exchange.request().var("greeted").unwrap(), "yes");
//!
//! let mut exchange = Exchange::get("/hello");
//! assert_eq!(Greeter.access(exchange.request()), Response::status(400).body("who are you?").into());
//! ```
//!
//! What a hook has done is read through the same handles that it was given: `exchange.request().path()`,
//! `exchange.reply().header("etag")`.
//!
//! Bodies for `read_body` are given with [`Exchange::body`] and [`Exchange::response_body`], answers to `http::send` with
//! [`Exchange::call`]. Every zone is there, granted, empty and without an end, unless [`set_zone_fault`] says otherwise; its
//! entries expire by this thread's clock, which [`advance_clock`] moves, and `delay`, too. Files are granted by [`set_file`]. What a plugin has counted, [`metric`]
//! and [`observations`] tell.
//!
//! What the gateway refuses, the fake host refuses, too: a call in a hook that may not make it, a header that frames the message, a
//! metric that is defined outside of `configure`. A hook that returns what it may not (a response with status 101 or a body beyond
//! [`set_body_limit`], `Verdict::Reroute` from another hook than `rewrite`) has a [refusal](Exchange::refusal), which fails the
//! test unless that looks at it.
//!
//! Each thread, and so each test, has a host of its own. The handles of an exchange speak for the exchange that was
//! lent last: with two in one test, call `request()` again before looking at the first one.

mod body;
mod calls;
pub(crate) mod chain;
mod computed;
#[cfg(feature = "crypto")]
mod crypto;
mod failed_call;
mod files;
mod flight;
mod gauge;
mod head;
pub(crate) mod hook;
pub(crate) mod host;
mod hosts;
mod kv;
mod metrics;
mod own_variables;
mod peers;
mod stream;
mod streamed;
mod system;
mod tcp;
mod topics;
mod trace;
mod upstream;
mod world;
mod zones;

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use castling_abi::{Number, Property, TlsFact};
use serde::de::DeserializeOwned;

use crate::{Chunk, Error, Outcome, Peers, Reply, Request, Response, Result, error, http};
use world::{Facts, lend};

pub use chain::{Chain, HookFunction, Plugin, Served};
pub use failed_call::FailedCall;
pub use files::set_file;
pub use flight::script_flight;
pub use hosts::grant_hosts;
pub use metrics::{metric, observations};
pub use peers::FakePeer;
pub use stream::StreamedBody;
pub use tcp::{TcpAnswer, TcpEvent};
pub(crate) use world::with_world;
pub use zones::{ZoneKind, set_zone_kind};

/// A request and its response, with whatever a test says about them.
///
/// When it is dropped, a change that was refused and that nobody has looked at ([`Self::refusal`]) fails the test.
pub struct Exchange {
    facts: Rc<RefCell<Facts>>,
    request: Request,
    reply: Reply,
}

impl Exchange {
    /// A `GET` of this target (path, or path and query) from 192.0.2.1 to `example.com`.
    pub fn get(target: &str) -> Self {
        Self::new("GET", target)
    }

    /// A request with this method.
    pub fn new(method: &str, target: &str) -> Self {
        let exchange = Self {
            facts: Rc::default(),
            request: Request::new(),
            reply: Reply::new(),
        };
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (target, None),
        };
        let exchange = exchange
            .property(Property::Method, method)
            .property(Property::Path, path)
            .host("example.com")
            .property(Property::ClientAddress, "192.0.2.1")
            .property(Property::ClientPort, "50000")
            .property(Property::ServerAddress, "192.0.2.254")
            .property(Property::ServerPort, "80")
            .property(Property::Scheme, "http")
            .property(Property::Protocol, "HTTP/1.1")
            .property(Property::Listener, "web")
            .property(Property::Route, "test");
        match query {
            Some(query) => exchange.property(Property::Query, query),
            None => exchange,
        }
    }

    /// Adds a header to the request.
    #[must_use]
    pub fn header(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let header = (name.to_ascii_lowercase(), value.as_ref().to_vec());
        self.facts.borrow_mut().request_headers.push(header);
        self
    }

    /// Sets the host; `example.com` unless said.
    #[must_use]
    pub fn host(self, host: &str) -> Self {
        let mut facts = self.facts.borrow_mut();
        head::set_field(&mut facts.request_headers, b"host", host.as_bytes());
        drop(facts);
        self
    }

    /// Sets the client's IP address; 192.0.2.1 unless said.
    #[must_use]
    pub fn client_address(self, address: &str) -> Self {
        self.property(Property::ClientAddress, address)
    }

    /// Sets the scheme; `http` unless said.
    #[must_use]
    pub fn scheme(self, scheme: &str) -> Self {
        self.property(Property::Scheme, scheme)
    }

    /// Has the request come over TLS, whatever was said before: by `https`, TLS 1.3 and without a certificate of the client.
    #[must_use]
    pub fn tls(self) -> Self {
        self.scheme("https")
            .tls_fact(TlsFact::Version, "TLSv1.3")
            .tls_fact(TlsFact::Cipher, "TLS_AES_128_GCM_SHA256")
            .tls_fact(TlsFact::Group, "X25519")
            .tls_fact(TlsFact::ServerName, "example.com")
            .tls_fact(TlsFact::Alpn, "http/1.1")
            .tls_fact(TlsFact::Resumed, "no")
            .tls_fact(TlsFact::Early, "no")
            .tls_fact(TlsFact::ClientVerify, "NONE")
    }

    /// Sets a fact of TLS, after [`Self::tls`]. What the client's certificate says is there once this has set its
    /// [subject](TlsFact::ClientSubject).
    #[must_use]
    pub fn tls_fact(self, fact: TlsFact, value: &str) -> Self {
        let mut facts = self.facts.borrow_mut();
        facts.tls[fact as usize] = Some(value.to_owned());
        if fact == TlsFact::ClientSubject {
            facts.tls[TlsFact::ClientVerify as usize] = Some("SUCCESS".to_owned());
        }
        drop(facts);
        self
    }

    /// Sets the listener's name; `web` unless said.
    #[must_use]
    pub fn listener(self, name: &str) -> Self {
        self.property(Property::Listener, name)
    }

    /// Sets the route's name; `test` unless said.
    #[must_use]
    pub fn route(self, name: &str) -> Self {
        self.property(Property::Route, name)
    }

    /// Sets upstream and peer; none unless said.
    #[must_use]
    pub fn upstream(self, name: &str, peer_address: &str) -> Self {
        self.property(Property::Upstream, name)
            .property(Property::Peer, peer_address)
    }

    /// Sets a variable, as another plugin would have.
    #[must_use]
    pub fn var(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let (name, value) = (name.as_bytes().to_vec(), value.as_ref().to_vec());
        self.facts.borrow_mut().vars.insert(name, value);
        self
    }

    /// Gives it a response with this status. Its headers are those of [`Self::response_header`], called before or after.
    #[must_use]
    pub fn response(self, status: u16) -> Self {
        self.facts
            .borrow_mut()
            .response
            .get_or_insert((200, Vec::new()))
            .0 = status;
        self
    }

    /// Adds a header to the response, which is one with status 200 unless [`Self::response`] says otherwise.
    #[must_use]
    pub fn response_header(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let header = (name.to_ascii_lowercase(), value.as_ref().to_vec());
        self.facts
            .borrow_mut()
            .response
            .get_or_insert((200, Vec::new()))
            .1
            .push(header);
        self
    }

    /// Adds a trailer, which comes with the last chunk of [`Self::pass_chunk`].
    #[must_use]
    pub fn trailer(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let trailer = (name.to_ascii_lowercase(), value.as_ref().to_vec());
        self.facts.borrow_mut().trailers.push(trailer);
        self
    }

    /// Gives the request a body; an empty one unless said.
    #[must_use]
    pub fn body(self, body: impl AsRef<[u8]>) -> Self {
        self.facts.borrow_mut().bodies.request = body.as_ref().to_vec();
        self
    }

    /// Says that nobody takes more of a streamed response than so many pieces, or more parts of a chunk, as where a filter ends the
    /// body with the last of them: [`Chunk::emit`] or [`BodyWriter::write`](crate::BodyWriter::write) fails with an error that [`Error::is_unwanted`]. All are taken
    /// unless said. For plugins that write for as long as there is a client.
    #[must_use]
    pub fn wanted_pieces(self, pieces: usize) -> Self {
        self.facts.borrow_mut().wanted_pieces = Some(pieces);
        self
    }

    /// Gives the response a body, for `read_body`; an empty one unless said.
    #[must_use]
    pub fn response_body(self, body: impl AsRef<[u8]>) -> Self {
        self.facts.borrow_mut().bodies.response = body.as_ref().to_vec();
        self
    }

    /// Grants an upstream and says what it answers to each `http::send`. One that is not granted refuses.
    #[must_use]
    pub fn call(
        self,
        upstream: &str,
        mut answer: impl FnMut(&http::Request) -> Response + 'static,
    ) -> Self {
        self.script_call(upstream, move |request| Ok(answer(request)))
    }

    /// Grants sub-requests and says what the gateway's own routes answer to each `http::subrequest`.
    #[must_use]
    pub fn own_routes(self, answer: impl FnMut(&http::Request) -> Response + 'static) -> Self {
        self.call(http::OWN_ROUTES, answer)
    }

    /// Grants an upstream whose answer never comes, for this reason: a connection that broke, as far as its
    /// [kind](Error::kind) goes.
    #[must_use]
    pub fn failing_call(self, upstream: &str, reason: &str) -> Self {
        self.failing_call_of(upstream, FailedCall::Broken, reason)
    }

    /// Grants an upstream whose answer never comes, for this reason and of this kind.
    #[must_use]
    pub fn failing_call_of(self, upstream: &str, kind: FailedCall, reason: &str) -> Self {
        let failure = (kind.into(), reason.to_owned());
        self.script_call(upstream, move |_| Err(failure.clone()))
    }

    /// Adds a peer to its upstream.
    #[must_use]
    pub fn peer(self, peer: FakePeer) -> Self {
        self.facts.borrow_mut().peers.push(peer);
        self
    }

    /// Bytes of the bodies that were sent and received; 0 unless said.
    #[must_use]
    pub fn body_bytes(self, sent: u64, received: u64) -> Self {
        self.number(Number::BodyBytesSent, sent)
            .number(Number::BodyBytesReceived, received)
    }

    /// How long it took; 0 unless said.
    #[must_use]
    pub fn duration(self, duration: Duration) -> Self {
        self.number(Number::DurationMicros, micros(duration))
    }

    /// How long the upstream took, and how many peers were tried; none unless said.
    #[must_use]
    pub fn upstream_duration(self, duration: Duration, tries: u32) -> Self {
        self.number(Number::UpstreamMicros, micros(duration))
            .number(Number::Tries, tries.into())
    }

    /// The request, for a hook and to look at what it has done.
    pub fn request(&mut self) -> &mut Request {
        lend(&self.facts);
        &mut self.request
    }

    /// The response on its way to the client.
    pub fn reply(&mut self) -> &mut Reply {
        lend(&self.facts);
        &mut self.reply
    }

    /// Both, for `response_headers`.
    pub fn request_and_reply(&mut self) -> (&mut Request, &mut Reply) {
        lend(&self.facts);
        (&mut self.request, &mut self.reply)
    }

    /// Passes a chunk through `hook`, which calls `request_body` or `response_body`, and returns what goes on in its
    /// place.
    pub fn pass_chunk(
        &mut self,
        data: impl AsRef<[u8]>,
        is_last: bool,
        hook: impl FnOnce(&Request, &mut Chunk),
    ) -> Vec<u8> {
        lend(&self.facts);
        let data = data.as_ref();
        self.facts.borrow_mut().chunk = data.to_vec();
        let trailers = match is_last {
            true => Vec::new(),
            // Not there yet.
            false => std::mem::take(&mut self.facts.borrow_mut().trailers),
        };
        hook(&self.request, &mut Chunk::new(data.len(), is_last));
        let mut facts = self.facts.borrow_mut();
        facts.trailers.extend(trailers);
        let parts = std::mem::take(&mut facts.emitted);
        let chunk = std::mem::take(&mut facts.chunk);
        match facts.wanted_pieces {
            Some(most) if parts.len() >= most => parts.concat(),
            _ => [parts.concat(), chunk].concat(),
        }
    }

    /// Body of a streamed response, as far as a hook has written it; its head is [`Self::reply`]. `None`: none has begun.
    pub fn streamed(&self) -> Option<StreamedBody> {
        self.facts.borrow().stream.clone()
    }

    /// Whether a plugin does not want to see the body: `Reply::skip_body`.
    pub fn body_skipped(&self) -> bool {
        !self.facts.borrow().skips.is_empty()
    }

    /// Whether a chunk has ended its body: `Chunk::end`.
    pub fn body_ended(&self) -> bool {
        self.facts.borrow().body_ended
    }

    /// The peers, for `balance`.
    pub fn peers(&mut self) -> Peers {
        lend(&self.facts);
        let (count, tries) = {
            let peers = &self.facts.borrow().peers;
            (peers.len(), peers.iter().filter(|peer| peer.tried).count())
        };
        Peers::new(
            u32::try_from(count).unwrap_or(0),
            u32::try_from(tries).unwrap_or(0),
        )
    }

    /// The finished exchange, for `log`.
    pub fn outcome(&mut self) -> Outcome {
        lend(&self.facts);
        Outcome::new()
    }

    /// The calls out that were sent so far: upstream and request.
    pub fn calls(&self) -> Vec<(String, http::Request)> {
        self.facts.borrow().calls.sent.clone()
    }

    /// The change that the host refused first since the last call, which would make the hook fail.
    pub fn refusal(&mut self) -> Option<Error> {
        error::take_noted()
    }

    /// Response that the host was given to send: status, header list, body.
    #[cfg(test)]
    pub(crate) fn answer(&self) -> Option<(u16, Vec<u8>, Vec<u8>)> {
        self.facts.borrow().answer.clone()
    }

    fn script_call(
        self,
        upstream: &str,
        answer: impl FnMut(&http::Request) -> calls::Answer + 'static,
    ) -> Self {
        let mut facts = self.facts.borrow_mut();
        facts
            .calls
            .scripts
            .insert(upstream.to_owned(), Box::new(answer));
        drop(facts);
        self
    }

    fn property(self, property: Property, value: &str) -> Self {
        self.facts.borrow_mut().properties[property as usize] = Some(value.as_bytes().to_vec());
        self
    }

    /// The status that a peer has answered with, for `peer_done`.
    pub fn peer_status(self, status: u16) -> Self {
        self.number(Number::UpstreamStatus, status.into())
    }

    fn number(self, number: Number, value: u64) -> Self {
        self.facts.borrow_mut().numbers[number as usize] = i64::try_from(value).ok();
        self
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        gauge::request_ends(&self.facts);
        if std::thread::panicking() {
            return;
        }
        if let Some(refused) = error::take_noted() {
            panic!("a change was refused, which would make the hook fail: {refused}");
        }
    }
}

/// A config as `configure` gets it, from JSON. The error is the one that the gateway shows, which hides the values in it.
pub fn config<C: DeserializeOwned>(json: &str) -> Result<C> {
    // Another plugin begins, which has declared nothing.
    with_world(|world| world.declared.clear());
    crate::config::parse(json.as_bytes())
}

/// Lets time pass on both clocks of this thread. It stands still otherwise.
pub fn advance_clock(by: Duration) {
    with_world(|world| {
        world.monotonic += by;
        world.wall += by;
    });
}

/// A fault of a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneFault {
    /// The config does not grant it to the plugin.
    NotGranted,
    /// A kv zone takes nothing that is new or larger than what it replaces, a gauge zone no key that has no permit out. A counter zone
    /// is not concerned.
    Full,
}

/// Says what is wrong with a zone of this thread from now on; nothing unless said.
pub fn set_zone_fault(zone: &str, fault: Option<ZoneFault>) {
    let zone = zone.as_bytes().to_vec();
    with_world(|world| match fault {
        Some(fault) => world.zone_faults.insert(zone, fault),
        None => world.zone_faults.remove(&zone),
    });
}

/// Takes the messages that were published on this topic, on this thread, for the test to hand them to whatever plugin hears them.
pub fn take_published(topic: &str) -> Vec<Vec<u8>> {
    with_world(|world| world.published.remove(topic.as_bytes()).unwrap_or_default())
}

/// Sets how long a body may be that a plugin answers or reads: `limits.body`, 1 MiB unless said.
pub fn set_body_limit(bytes: usize) {
    with_world(|world| world.limits.body_bytes = bytes);
}

/// Sets how many permits a plugin may hold for one request: `limits.permits`, 16 unless said.
pub fn set_permit_limit(permits: usize) {
    with_world(|world| world.limits.permits = permits);
}

/// Sets how many calls out a request may make: `limits.calls`, 32 unless said.
pub fn set_calls_limit(calls: usize) {
    with_world(|world| world.limits.calls = calls);
}

/// Sets how many host calls a hook may make: `limits.host_calls`, 100 000 unless said. One more panics, as it traps in the gateway: so
/// ends a loop that would go on for ever. One that makes no host calls, which the gateway ends by `limits.cpu`, goes on in a test.
pub fn set_host_call_limit(calls: u32) {
    with_world(|world| world.limits.host_calls = calls);
}

/// Sets how many bytes [`Chunk::emit`] may send on in one call of a hook: `limits.emit`, 128 MiB unless said.
pub fn set_emit_limit(bytes: usize) {
    with_world(|world| world.limits.emit_bytes = bytes);
}

/// Sets the wall clock of this thread: time since 1970-01-01 UTC.
pub fn set_wall_clock(now: Duration) {
    with_world(|world| world.wall = now);
}

/// The next random numbers of this thread; when they are used up, numbers that are the same in every run.
pub fn script_random(numbers: impl IntoIterator<Item = u64>) {
    with_world(|world| world.script_random(numbers));
}

/// Takes the lines that were logged on this thread.
pub fn take_log() -> Vec<(crate::log::Level, String)> {
    with_world(|world| std::mem::take(&mut world.log_lines))
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
