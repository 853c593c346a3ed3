//! One request and its response, as plugins may see and change them.
//!
//! It is one box that a connection reuses. The flow lends it to an instance for the time of a hook (two pointers
//! change places) and gets it back whatever happens, so a guest never sees another request's. All in it is `Send`,
//! which wasmtime asks of what a store holds; everything that belongs to the worker stays with the flow.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use bytestring::ByteString;
use castling_abi::PeerRecord;
use http::{Method, StatusCode, Version};

use crate::http1::{Headers, RequestHead};

pub struct Exchange {
    pub request: RequestHead,
    pub reply: ReplyHead,
    /// What may be changed now. Hooks run at one stage after the other, never back.
    pub stage: Stage,
    /// The client as plugins and logs see it; `post_read` may set its IP address.
    pub client: SocketAddr,
    pub listener: Arc<str>,
    pub route: Option<Arc<str>>,
    pub upstream: Option<Arc<str>>,
    /// The peer that was tried last.
    pub peer: Option<Arc<str>>,
    pub vars: Vars,
    /// What a hook has passed to `answer`; taken when it returns `Action::Answer`.
    pub answer: Option<Answer>,
    /// The chunk that `response_body` is called for, and what goes on in its place.
    pub chunk: Bytes,
    pub balancing: Balancing,
    pub tally: Tally,
    pub cpu_time: CpuTime,
    /// The request line's parts as they came, for the log.
    original: (Method, ByteString, Option<ByteString>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// No request: the instance is being configured, or lent to nobody.
    Idle,
    /// The request's head may be read and changed.
    Request,
    /// A peer is being chosen or judged; nothing may be changed.
    Balance,
    /// The response's head may be changed too.
    Reply,
    /// Chunks of the response's body pass by.
    Body,
    /// All is over.
    Log,
}

/// The response's head on its way to the client.
#[derive(Debug, Default)]
pub struct ReplyHead {
    pub status: StatusCode,
    pub headers: Headers,
}

/// A response that a plugin has made.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: Headers,
    pub body: Bytes,
}

/// What a `balance` hook chooses from.
#[derive(Debug, Default)]
pub struct Balancing {
    pub peers: Vec<PeerRecord>,
    pub addresses: Arc<[Arc<str>]>,
}

/// What the log tells about the exchange.
#[derive(Clone, Copy, Debug)]
pub struct Tally {
    /// When the request's head was complete.
    pub started: Instant,
    /// From the choice of the first peer to the response's head.
    pub upstream: Option<Duration>,
    pub tries: u32,
    pub body_bytes_sent: u64,
    pub body_bytes_received: u64,
}

impl Exchange {
    /// An exchange that holds no request yet.
    pub fn idle() -> Box<Self> {
        Box::new(Self {
            request: RequestHead {
                method: Method::GET,
                path: ByteString::from_static("/"),
                query: None,
                version: Version::HTTP_11,
                headers: Headers::new(),
            },
            reply: ReplyHead::default(),
            stage: Stage::Idle,
            client: SocketAddr::from(([0, 0, 0, 0], 0)),
            listener: Arc::from(""),
            route: None,
            upstream: None,
            peer: None,
            vars: Vars::default(),
            answer: None,
            chunk: Bytes::new(),
            balancing: Balancing::default(),
            tally: Tally {
                started: Instant::now(),
                upstream: None,
                tries: 0,
                body_bytes_sent: 0,
                body_bytes_received: 0,
            },
            cpu_time: CpuTime::default(),
            original: (Method::GET, ByteString::from_static("/"), None),
        })
    }

    /// Begins with a new request; allocations of the last one are kept.
    pub fn begin(&mut self, request: RequestHead, client: SocketAddr, listener: &Arc<str>) {
        self.original = (
            request.method.clone(),
            request.path.clone(),
            request.query.clone(),
        );
        self.request = request;
        self.reply.status = StatusCode::OK;
        self.reply.headers.clear();
        self.stage = Stage::Request;
        self.client = client;
        if !Arc::ptr_eq(&self.listener, listener) {
            self.listener = Arc::clone(listener);
        }
        self.route = None;
        self.upstream = None;
        self.peer = None;
        self.vars.clear();
        self.answer = None;
        self.chunk = Bytes::new();
        self.tally = Tally {
            started: Instant::now(),
            upstream: None,
            tries: 0,
            body_bytes_sent: 0,
            body_bytes_received: 0,
        };
        self.cpu_time.clear();
    }

    /// Begins with something that is no request: only client, listener and times are known.
    pub fn begin_unread(&mut self, client: SocketAddr, listener: &Arc<str>) {
        self.begin(Self::idle().request, client, listener);
        self.stage = Stage::Idle;
    }

    /// `HTTP/1.0` or `HTTP/1.1`.
    pub fn protocol(&self) -> &'static str {
        if self.request.version == Version::HTTP_10 {
            "HTTP/1.0"
        } else {
            "HTTP/1.1"
        }
    }

    /// Appends the request line as the client sent it.
    pub fn write_request_line(&self, out: &mut Vec<u8>) -> bool {
        let (method, path, query) = &self.original;
        out.extend_from_slice(method.as_str().as_bytes());
        out.push(b' ');
        out.extend_from_slice(path.as_bytes());
        if let Some(query) = query {
            out.push(b'?');
            out.extend_from_slice(query.as_bytes());
        }
        out.push(b' ');
        out.extend_from_slice(self.protocol().as_bytes());
        true
    }
}

/// Variables that plugins have set, in the order of their first setting. A request has a handful, so a walk beats a
/// hash.
#[derive(Debug, Default)]
pub struct Vars(Vec<(ByteString, Bytes)>);

/// A request may set this many variables; the next one is refused with `Status::Limit`.
pub const MAX_VARS: usize = 64;

impl Vars {
    pub fn get(&self, name: &str) -> Option<&Bytes> {
        self.0
            .iter()
            .find(|(n, _)| &**n == name)
            .map(|(_, value)| value)
    }

    /// False when there are [`MAX_VARS`] others already.
    pub fn set(&mut self, name: &str, value: Bytes) -> bool {
        if let Some((_, slot)) = self.0.iter_mut().find(|(n, _)| &**n == name) {
            *slot = value;
            return true;
        }
        if self.0.len() == MAX_VARS {
            return false;
        }
        self.0.push((ByteString::from(name), value));
        true
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// CPU time that the hooks of each plugin have used for the request, as far as the worker's clock has met them.
#[derive(Debug, Default)]
pub struct CpuTime(Vec<(Arc<str>, Duration)>);

impl CpuTime {
    /// Returns the plugin's sum.
    pub fn add(&mut self, plugin: &Arc<str>, used: Duration) -> Duration {
        let known = self
            .0
            .iter_mut()
            .find(|(name, _)| Arc::ptr_eq(name, plugin));
        if let Some((_, sum)) = known {
            *sum += used;
            return *sum;
        }
        self.0.push((Arc::clone(plugin), used));
        used
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_set_twice_has_its_last_value() {
        let mut vars = Vars::default();
        assert!(vars.set("user", Bytes::from_static(b"a")));
        assert!(vars.set("user", Bytes::from_static(b"b")));
        assert_eq!(vars.get("user").map(|v| &v[..]), Some(&b"b"[..]));
        assert_eq!(vars.get("other"), None);
    }

    #[test]
    fn the_65th_variable_is_refused() {
        let mut vars = Vars::default();
        for i in 0..MAX_VARS {
            assert!(vars.set(&format!("v{i}"), Bytes::new()));
        }
        assert!(!vars.set("one_more", Bytes::new()));
        assert!(vars.set("v0", Bytes::new()));
    }
}
