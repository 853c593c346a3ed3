//! Host calls that wait. The guest asks, its stack is suspended, the flow does the work and hands back what came of it.
//!
//! The flow polls the hook and finds the request when the hook is pending; so all I/O is the flow's, in the request's one
//! task, and a client that leaves ends both. With the request comes the exchange: while the guest waits, it is the flow's.

use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use castling_abi::{ErrorKind, HeaderMap};
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

/// Where a plugin's call goes; it is granted.
pub enum Destination {
    Upstream(Arc<str>),
    /// The routes of the listener that the client's request came through.
    OwnRoutes,
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
