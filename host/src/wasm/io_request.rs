//! Host calls that wait. The guest asks, its stack is suspended, the flow does the work and hands back what came of it.
//!
//! The flow polls the hook and finds the request when the hook is pending; so all I/O is the flow's, in the request's one
//! task, and a client that leaves ends both. With the request comes the exchange: while the guest waits, it is the flow's.

use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use castling_abi::rules::host;
use castling_abi::{ErrorKind, HeaderMap, PasswordHash, Status};
use http::{Method, StatusCode};
use tokio::sync::oneshot;
use wasmtime::Caller;

use super::guest::Guest;
use crate::error::Error;
use crate::exchange::{Exchange, PluginKey};
use crate::message::{Headers, ReplyHead};
use crate::zone::{KvZone, ZoneError};

/// Request of a guest to the flow.
pub enum IoRequest {
    /// The whole body of the request or of the response, if it is not longer than this.
    Body {
        of: HeaderMap,
        limit_bytes: usize,
    },
    /// The first bytes of the request's body.
    Peek {
        bytes: usize,
    },
    /// These calls, all at once.
    Calls(Vec<Call>),
    Delay(Duration),
    /// The head of a response whose body the guest writes piece by piece.
    Begin(Box<StreamHead>),
    /// The next piece of that body.
    Write(Bytes),
    /// The next part of what the chunk becomes that the hook was called for.
    Emit(Bytes),
    /// Work on a password, and the plugin's `limits.calls`, since it counts as one.
    Password(Box<PasswordWork>, usize),
    /// Work on a connection of this plugin's.
    Raw(PluginKey, Box<RawWork>),
    /// Work on a call of this plugin's whose bodies stream.
    Streamed(PluginKey, Box<StreamedWork>),
    /// The value of a variable that a plugin computes: its index among those of the exchange.
    Variable(usize),
    /// A value in a kv zone, or the flight that fetches it.
    Flight(Box<FlightRequest>),
}

/// Wish of a plugin for a value of a key that one alone is to fetch.
pub struct FlightRequest {
    pub plugin: PluginKey,
    /// Name of the zone.
    pub name: Arc<str>,
    pub zone: Arc<KvZone>,
    pub key: Vec<u8>,
    pub longest: Duration,
}

/// Head of a response that a plugin writes piece by piece.
pub struct StreamHead {
    pub plugin: Arc<str>,
    pub head: ReplyHead,
    /// Length of the body in bytes, where the plugin knows it.
    pub length: Option<u64>,
}

/// Work on a connection, within a time.
pub enum RawWork {
    Connect {
        upstream: String,
        limit: Duration,
        calls_limit: usize,
    },
    Read {
        connection: usize,
        most: usize,
        limit: Duration,
    },
    Write {
        connection: usize,
        bytes: Bytes,
        limit: Duration,
    },
    Close {
        connection: usize,
    },
}

/// Result of such work.
pub enum RawDone {
    /// Number of the connection.
    Connected(usize),
    /// Nothing: the peer has ended.
    Read(Bytes),
    /// Bytes are written, or the connection is closed.
    Written,
    /// The error is a line for the plugin.
    Failed(String),
    /// The plugin has no such connection that is open.
    NoSuch,
    /// As many are open as may be.
    TooMany,
}

/// Work on a call whose bodies stream. Calls are told by their numbers.
pub enum StreamedWork {
    /// Begins one. `length`: of the request's body that follows, 0 where the call has it; `None`: it is not known.
    Open {
        call: Box<Call>,
        length: Option<u64>,
    },
    Write {
        call: usize,
        bytes: Bytes,
    },
    Finish {
        call: usize,
    },
    Read {
        call: usize,
        most: usize,
    },
    Close {
        call: usize,
    },
}

/// Result of such work.
pub enum StreamedDone {
    /// Number of the call.
    Opened(usize),
    /// The piece is on its way, or the call is closed.
    Taken,
    /// The peer takes no more of the request's body.
    Unwanted,
    Head(ReplyHead),
    /// Nothing: the response has ended.
    Read(Bytes),
    /// The call has ended by this.
    Failed(CallFailure),
    /// Order that is broken: more than the length, or something after its end.
    OutOfOrder,
    /// The plugin has no such call that is open.
    NoSuch,
    /// Limit reached of calls that are open.
    TooMany,
}

/// Slow work on a password.
pub enum PasswordWork {
    Hash(PasswordHash, Vec<u8>),
    /// Hash and password.
    Verify(String, Vec<u8>),
}

/// Where a plugin's call goes; it is granted.
pub enum Destination {
    Upstream(Arc<str>),
    /// A host, as this plugin is granted it.
    Host(Arc<str>, HostName),
    /// The gateway's own routes, as this plugin is granted them: of the listener that the client's request came through, where there is
    /// a request.
    OwnRoutes(Arc<str>),
}

/// A host that is called by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostName {
    pub is_tls: bool,
    /// In lower case; an IPv6 address without brackets.
    pub host: String,
    pub port: u16,
}

impl HostName {
    /// Reads `https://HOST`, `https://HOST:PORT`, or the same with `http`.
    pub fn parse(text: &str) -> Option<Self> {
        let host::HostName { is_tls, host, port } = host::HostName::parse(text)?;
        Some(Self {
            is_tls,
            host: host.to_ascii_lowercase(),
            port,
        })
    }
}

/// A request of a plugin's.
pub struct Call {
    pub to: Destination,
    pub method: Method,
    /// Path and query.
    pub target: Bytes,
    pub headers: Headers,
    pub body: Bytes,
    pub timeout: Option<Duration>,
    /// Largest body of the response.
    pub limit_bytes: usize,
    /// The plugin's `limits.calls`.
    pub calls_limit: usize,
}

/// Result of such a request.
pub enum IoResult {
    Body(Result<Bytes, BodyRefused>),
    Calls(Vec<CallResult>),
    /// Bytes that there are, and whether they are all of the body.
    Peeked {
        bytes: Bytes,
        is_whole: bool,
    },
    /// The request has made as many as it may.
    TooManyCalls,
    Delayed,
    Raw(RawDone),
    Streamed(StreamedDone),
    /// The hash; empty where one that was to be verified is not the password's.
    Password(Result<String, Status>),
    /// The head or the piece is sent. `is_wanted`: so will further pieces be.
    Written {
        is_wanted: bool,
    },
    /// The piece goes beyond the length that the head has told.
    BeyondLength,
    /// The exchange has it now, if it has a value at all.
    Computed,
    /// Result of a flight.
    Flown(Result<Flown, ZoneError>),
    /// There is no such thing at this stage.
    NotNow,
}

/// Result of a wait for a value that one alone is to fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flown {
    /// The key has a value now.
    Value,
    /// The request's plugin is the one to fetch it.
    Fetch,
    TimedOut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyRefused {
    /// The body is longer than the limit.
    TooLarge,
    /// There is no body to read in this hook, or it is on its way already.
    NotNow,
}

pub struct CallResponse {
    pub status: StatusCode,
    pub headers: Headers,
    pub body: Bytes,
}

/// Outcome of a call.
pub type CallResult = Result<CallResponse, CallFailure>;

/// Failure of a call, for the plugin.
#[derive(Debug)]
pub struct CallFailure {
    pub kind: ErrorKind,
    /// A line for its error.
    pub said: String,
}

impl CallFailure {
    pub fn new(kind: ErrorKind, said: impl Into<String>) -> Self {
        let said = said.into();
        Self { kind, said }
    }

    /// A response whose body is longer than the plugin may have.
    pub fn too_large(limit_bytes: usize) -> Self {
        Self::new(
            ErrorKind::Limit,
            format!("its body is longer than limits.body of {limit_bytes} bytes"),
        )
    }
}

/// A host call that is performed.
pub type Performing<'a> = Pin<Box<dyn Future<Output = Result<IoResult, Error>> + 'a>>;

/// Performer of what the guest of one call waits for.
pub(super) trait Perform {
    /// Performs it. An error ends the request, and with it the hook.
    fn perform<'a>(
        &'a mut self,
        request: IoRequest,
        exchange: &'a mut Box<Exchange>,
    ) -> Performing<'a>;
}

/// The handoff through which a guest hands its request to the flow. One at a time: a suspended guest asks for nothing else.
#[derive(Clone, Default)]
pub(super) struct Handoff(Arc<Mutex<Option<PendingIo>>>);

pub(super) struct PendingIo {
    pub(super) request: IoRequest,
    /// The guest's, until it has its result.
    pub(super) exchange: Box<Exchange>,
    pub(super) reply: oneshot::Sender<(IoResult, Box<Exchange>)>,
}

impl Handoff {
    /// Leaves the guest's request and its exchange, and waits for both to be served. `None`: nobody serves it.
    pub(super) async fn ask(
        caller: &mut Caller<'_, Guest>,
        request: IoRequest,
    ) -> Option<IoResult> {
        let (reply, result) = oneshot::channel();
        let guest = caller.data_mut();
        let pending = PendingIo {
            request,
            exchange: mem::replace(&mut guest.exchange, Exchange::idle()),
            reply,
        };
        *guest
            .handoff
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(pending);
        let (result, exchange) = result.await.ok()?;
        caller.data_mut().exchange = exchange;
        Some(result)
    }

    pub(super) fn take(&self) -> Option<PendingIo> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_from_urls_without_a_path() {
        let read = |text: &str| HostName::parse(text).map(|it| (it.is_tls, it.host, it.port));
        for (text, is_tls, host, port) in [
            ("https://API.example.com", true, "api.example.com", 443),
            ("http://a.test:8080", false, "a.test", 8080),
            ("http://[::1]:81", false, "::1", 81),
            ("https://[2001:db8::1]", true, "2001:db8::1", 443),
        ] {
            assert_eq!(read(text), Some((is_tls, host.to_owned(), port)), "{text}");
        }
        for text in [
            "",
            "https://",
            "ftp://a.test",
            "https://a.test/",
            "https://a.test/x",
            "https://user@a.test",
            "https://a.test:",
            "https://a.test:0",
            "https://a.test:+1",
            "https://a.test:65536",
            "https://a.test.",
            "https://a..test",
            "https://a.test?x",
            "https://a.test#x",
            "https://a test",
            "https://a.test\r\nx: y",
            "https://[::1",
            "https://[a.test]",
            "https://::1",
            "https://[::1]x",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
