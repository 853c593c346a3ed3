//! Load that one thread can saturate a gateway with and that still checks every byte of every answer that matters.
//!
//! A request has *failed* when its answer is wrong, cut, late or missing, or its connection was reset. One thing is
//! allowed: the gateway may close a keep-alive connection between two requests. Where the client sees that before it
//! writes, it takes another connection ([`Outcome::closed_idle`]). Where it sees it at or after the write, and not a
//! byte came, it cannot tell whether its request crossed the close on the way, and sends it again on another
//! connection, as RFC 9112 §9.3.1 has it ([`Outcome::resent`]); a reset is no close.

use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::LocalSet;

use super::marks::{self, Kind, Wrong};
use crate::{DEADLINE, until};

/// Behaviour of the clients.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    pub(crate) groups: Vec<Group>,
    /// How a request goes is chosen by its id from these, evenly.
    pub(crate) mix: Vec<Kind>,
    /// A close at or after the write is no failure, see above.
    pub(crate) resends: bool,
    /// Which config new connections must meet.
    pub(crate) era: Arc<Era>,
}

/// Clients that do the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    pub(crate) clients: usize,
    /// On one connection.
    pub(crate) requests: usize,
    /// The longest pause between two requests; how long each is, is chosen evenly.
    pub(crate) pause: Duration,
}

/// Word of the gateway about its config: which one it serves, or that this is about to change.
#[derive(Debug, Default)]
pub(crate) struct Era(AtomicU64);

impl Era {
    /// A reload is asked for.
    pub(crate) fn ends(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    /// The reload's answer has come: every new connection meets the next config.
    pub(crate) fn begins(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    /// The index of the config, if it was the same all the time.
    fn config_of(began: u64, ended: u64) -> Option<usize> {
        (began == ended && began.is_multiple_of(2)).then_some(usize::from(began / 2 % 2 == 1))
    }
}

/// Load that runs until it is stopped or dropped.
#[derive(Debug)]
pub(crate) struct Running {
    tally: Arc<Tally>,
    thread: Option<JoinHandle<Vec<Failure>>>,
    begun: Instant,
}

/// Result of a load.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) good: u64,
    /// Good ones that an origin had a part in.
    pub(crate) proxied: u64,
    /// Connections that were opened.
    pub(crate) connections: u64,
    /// Connections whose first answer could be, and was, compared with what a reload had promised.
    pub(crate) compared: u64,
    pub(crate) closed_idle: u64,
    pub(crate) resent: u64,
    pub(crate) failures: Vec<Failure>,
    pub(crate) took: Duration,
}

/// A request that failed.
#[derive(Clone, Debug)]
#[expect(dead_code, reason = "some of it is only printed")]
pub(crate) struct Failure {
    pub(crate) id: u64,
    pub(crate) kind: Kind,
    pub(crate) cause: Cause,
    /// The client's end of the connection, and a time before it was opened. None where it could not be opened.
    pub(crate) connection: Option<(SocketAddr, Instant)>,
    /// How many requests the connection had before.
    pub(crate) number: usize,
    pub(crate) at: Instant,
}

#[derive(Clone, Debug)]
#[expect(dead_code, reason = "some of it is only printed")]
pub(crate) enum Cause {
    Connect(String),
    /// The connection ended without a byte of an answer.
    Closed,
    /// Connection was reset, or broke in another way, after so many bytes of the answer.
    Broken(String, usize),
    /// Connection ended after so many bytes of the answer.
    Cut(usize),
    Late,
    Wrong(Wrong),
    /// A new connection met a config that a reload had already replaced, as its answer said.
    Stale(usize),
}

#[derive(Debug, Default)]
struct Tally {
    stop: AtomicBool,
    good: AtomicU64,
    proxied: AtomicU64,
    connections: AtomicU64,
    compared: AtomicU64,
    closed_idle: AtomicU64,
    resent: AtomicU64,
    failed: AtomicU64,
}

impl Load {
    /// Starts the clients.
    pub(crate) fn start(self) -> Running {
        let tally = Arc::new(Tally::default());
        let shared = Arc::clone(&tally);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("an epoll instance");
            LocalSet::new().block_on(&runtime, run(self, shared))
        });
        Running {
            tally,
            thread: Some(thread),
            begun: Instant::now(),
        }
    }
}

impl Running {
    /// Good answers so far.
    pub(crate) fn good(&self) -> u64 {
        self.tally.good.load(Ordering::Relaxed)
    }

    /// Requests that failed so far.
    pub(crate) fn failed(&self) -> u64 {
        self.tally.failed.load(Ordering::Relaxed)
    }

    /// Waits until `more` requests more were answered well.
    #[track_caller]
    pub(crate) fn until_more(&self, more: u64) {
        let goal = self.good() + more;
        until("more good answers", || self.good() >= goal);
    }

    /// Lets the requests under way end, then says what came of all.
    pub(crate) fn stop(mut self) -> Outcome {
        self.tally.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("stopped once");
        let failures = thread.join().expect("the load's thread");
        let tally = &self.tally;
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Outcome {
            good: count(&tally.good),
            proxied: count(&tally.proxied),
            connections: count(&tally.connections),
            compared: count(&tally.compared),
            closed_idle: count(&tally.closed_idle),
            resent: count(&tally.resent),
            failures,
            took: self.begun.elapsed(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tally.stop.store(true, Ordering::Relaxed);
    }
}

async fn run(load: Load, tally: Arc<Tally>) -> Vec<Failure> {
    let load = Rc::new(load);
    let mut clients = Vec::new();
    for group in load.groups.clone() {
        for _ in 0..group.clients {
            let client = Client {
                // Several addresses: an address has 28,000 ports, and one that was used is not free for a minute.
                source: Ipv4Addr::new(127, 0, 0, 1 + u8::try_from(clients.len() % 16).unwrap_or(0)),
                seed: clients.len() as u64,
                next: 0,
                again: None,
                failures: Vec::new(),
                group,
                load: Rc::clone(&load),
                tally: Arc::clone(&tally),
            };
            clients.push(tokio::task::spawn_local(client.run()));
        }
    }
    let mut failures = Vec::new();
    for client in clients {
        failures.extend(client.await.expect("a client of the load"));
    }
    failures
}

struct Client {
    load: Rc<Load>,
    tally: Arc<Tally>,
    group: Group,
    source: Ipv4Addr,
    seed: u64,
    /// Ids that this client has used up.
    next: u64,
    /// The id of a request that is to be sent again.
    again: Option<u64>,
    failures: Vec<Failure>,
}

impl Client {
    async fn run(mut self) -> Vec<Failure> {
        // Clients that pause do not all begin at the same moment.
        self.rest().await;
        while !self.is_stopped() {
            self.connection().await;
        }
        self.failures
    }

    /// Life of a connection.
    async fn connection(&mut self) {
        // Before: the gateway may have accepted it before the client hears of it.
        let opened = Instant::now();
        let era = self.load.era.now();
        let connected = tokio::time::timeout(DEADLINE, self.connect()).await;
        let mut socket = match connected.unwrap_or_else(|late| Err(late.into())) {
            Ok(socket) => socket,
            Err(error) => {
                self.fail(0, Kind::Direct, Cause::Connect(error.to_string()), None, 0);
                tokio::time::sleep(AFTER_REFUSAL).await;
                return;
            }
        };
        count(&self.tally.connections);
        let place = socket.local_addr().ok().map(|own| (own, opened));
        let mut received = Vec::with_capacity(4096);
        for number in 0..self.group.requests {
            if number > 0 {
                self.rest().await;
                if self.is_stopped() {
                    return;
                }
                if is_closed(&socket) {
                    count(&self.tally.closed_idle);
                    return;
                }
            }
            let id = self.again.take().unwrap_or_else(|| self.next_id());
            let kind = self.kind_of(id);
            let hex = format!("{id:016x}");
            let last = number + 1 == self.group.requests;
            // Half of the connections that end after this request are ended by the gateway.
            let request = request(kind, &hex, last && id.is_multiple_of(2));
            let exchanged = exchange(&mut socket, &mut received, request.as_bytes());
            let exchanged = tokio::time::timeout(DEADLINE, exchanged).await;
            let closes = match exchanged.unwrap_or(Err(Cause::Late)) {
                Ok(()) => match self.judge(kind, &hex, &received, (number == 0).then_some(era)) {
                    Ok(closes) => closes,
                    Err((cause, closes)) => {
                        self.fail(id, kind, cause, place, number);
                        closes
                    }
                },
                Err(Cause::Closed) if number > 0 && self.load.resends && kind != Kind::Post => {
                    count(&self.tally.resent);
                    self.again = Some(id);
                    return;
                }
                Err(cause) => return self.fail(id, kind, cause, place, number),
            };
            if closes {
                return;
            }
        }
    }

    /// Whether the connection ends with this answer, if the answer is right or not.
    fn judge(
        &self,
        kind: Kind,
        id: &str,
        received: &[u8],
        began: Option<u64>,
    ) -> Result<bool, (Cause, bool)> {
        let mut chunked = Vec::new();
        let Ok(Some(answer)) = Answer::parse(received, &mut chunked) else {
            let what = "it was whole a moment ago".to_owned();
            return Err((Cause::Wrong(Wrong::Other(what)), true));
        };
        let config = marks::check(kind, id, &answer)
            .map_err(|wrong| (Cause::Wrong(wrong), answer.closes))?;
        let promised = began.and_then(|began| Era::config_of(began, self.load.era.now()));
        if let Some(promised) = promised {
            count(&self.tally.compared);
            if promised != config {
                return Err((Cause::Stale(config), answer.closes));
            }
        }
        count(&self.tally.good);
        if kind.is_proxied() {
            count(&self.tally.proxied);
        }
        Ok(answer.closes)
    }

    async fn connect(&self) -> std::io::Result<TcpStream> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((self.source, 0).into())?;
        let socket = socket.connect(self.load.address).await?;
        socket.set_nodelay(true)?;
        Ok(socket)
    }

    fn fail(
        &mut self,
        id: u64,
        kind: Kind,
        cause: Cause,
        connection: Option<(SocketAddr, Instant)>,
        number: usize,
    ) {
        count(&self.tally.failed);
        // A gateway that fails everything is not to fill the memory.
        if self.failures.len() < FAILURES_KEPT {
            let at = Instant::now();
            self.failures.push(Failure {
                id,
                kind,
                cause,
                connection,
                number,
                at,
            });
        }
    }

    async fn rest(&mut self) {
        if !self.group.pause.is_zero() {
            let share = (self.next_id() >> 11) as f64 / (1_u64 << 53) as f64;
            tokio::time::sleep(self.group.pause.mul_f64(share)).await;
        }
    }

    fn is_stopped(&self) -> bool {
        self.tally.stop.load(Ordering::Relaxed)
    }

    fn kind_of(&self, id: u64) -> Kind {
        // The high digits: traps and resets go by the low ones.
        self.load.mix[((id >> 40) % self.load.mix.len() as u64) as usize]
    }

    fn next_id(&mut self) -> u64 {
        self.next += 1;
        // splitmix64 of a number that no other client has
        let mut z = ((self.seed << 40) | self.next).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Whether the other side has ended the connection, as the kernel knows it at this moment.
fn is_closed(socket: &TcpStream) -> bool {
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    // Bytes that nobody asked for are met by the next answer's check.
    match rustix::net::recv(socket, &mut [0_u8; 1], flags) {
        Ok((_, read)) => read == 0,
        Err(error) => error != Errno::AGAIN,
    }
}

fn request(kind: Kind, id: &str, closes: bool) -> String {
    let (method, body) = match kind {
        Kind::Post => ("POST", "Content-Length: 5\r\n\r\nhello"),
        Kind::Direct | Kind::Proxied | Kind::Filtered => ("GET", "\r\n"),
    };
    let path = kind.path();
    let close = if closes { "Connection: close\r\n" } else { "" };
    format!("{method} {path} HTTP/1.1\r\nHost: show\r\nX-Id: {id}\r\n{close}{body}")
}

/// Sends a request and reads until its answer is whole.
async fn exchange(
    socket: &mut TcpStream,
    received: &mut Vec<u8>,
    request: &[u8],
) -> Result<(), Cause> {
    received.clear();
    let mut chunked = Vec::new();
    if socket.write_all(request).await.is_err() {
        // Closed between the look at it and the write; an answer to a request that was not read is possible (408, say).
        let _what_it_said = socket.read_buf(received).await;
        return match received.is_empty() {
            true => Err(Cause::Closed),
            false => Err(Cause::Broken("at the write".to_owned(), received.len())),
        };
    }
    loop {
        match socket.read_buf(received).await {
            Ok(0) if received.is_empty() => return Err(Cause::Closed),
            Ok(0) => return Err(Cause::Cut(received.len())),
            Err(error) => return Err(Cause::Broken(error.to_string(), received.len())),
            Ok(_) => {}
        }
        match Answer::parse(received, &mut chunked) {
            Ok(Some(_)) => return Ok(()),
            Ok(None) => {}
            Err(what) => return Err(Cause::Wrong(Wrong::Other(what))),
        }
    }
}

/// A whole response.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    pub(crate) closes: bool,
    /// `x-late`, or nothing.
    pub(crate) late: &'a str,
    pub(crate) body: &'a [u8],
}

impl<'a> Answer<'a> {
    /// None when more must come. `chunked` is room for a body in chunks.
    fn parse(received: &'a [u8], chunked: &'a mut Vec<u8>) -> Result<Option<Self>, String> {
        let mut headers = [httparse::EMPTY_HEADER; 24];
        let mut response = httparse::Response::new(&mut headers);
        let head = response
            .parse(received)
            .map_err(|error| format!("a head that is none: {error}"))?;
        let httparse::Status::Complete(head_len) = head else {
            return Ok(None);
        };
        let mut length = None;
        let (mut is_chunked, mut closes, mut late) = (false, false, "");
        for header in response.headers.iter() {
            let value = std::str::from_utf8(header.value).unwrap_or("");
            match header.name.len() {
                6 if header.name.eq_ignore_ascii_case("x-late") => late = value,
                10 if header.name.eq_ignore_ascii_case("connection") => {
                    closes = value.eq_ignore_ascii_case("close");
                }
                14 if header.name.eq_ignore_ascii_case("content-length") => {
                    length = Some(value.parse::<usize>().map_err(|_| "a bad length")?);
                }
                17 if header.name.eq_ignore_ascii_case("transfer-encoding") => {
                    is_chunked = value.eq_ignore_ascii_case("chunked");
                }
                _ => {}
            }
        }
        let rest = &received[head_len..];
        let body = match (is_chunked, length) {
            (true, None) => match dechunked(rest, chunked)? {
                true => &chunked[..],
                false => return Ok(None),
            },
            (false, Some(length)) if rest.len() < length => return Ok(None),
            (false, Some(length)) if rest.len() == length => rest,
            (false, Some(_)) => return Err("more bytes than the response has".to_owned()),
            (_, _) => return Err("a response without a length".to_owned()),
        };
        Ok(Some(Self {
            status: response.code.unwrap_or(0),
            closes,
            late,
            body,
        }))
    }
}

/// Whether the body is whole; then it is in `body`.
fn dechunked(mut rest: &[u8], body: &mut Vec<u8>) -> Result<bool, String> {
    body.clear();
    loop {
        let parsed = httparse::parse_chunk_size(rest).map_err(|_| "a bad chunk size")?;
        let httparse::Status::Complete((line, size)) = parsed else {
            return Ok(false);
        };
        let size = usize::try_from(size).map_err(|_| "a bad chunk size")?;
        let Some(chunk) = rest.get(line..line + size + 2) else {
            return Ok(false);
        };
        let (data, end) = chunk.split_at(size);
        if end != b"\r\n" {
            return Err("a chunk without its end (or trailers that nobody sent)".to_owned());
        }
        body.extend_from_slice(data);
        rest = &rest[line + size + 2..];
        if size == 0 {
            return match rest.is_empty() {
                true => Ok(true),
                false => Err("more bytes than the response has".to_owned()),
            };
        }
    }
}

/// An id as it is in `x-id`.
pub(crate) fn number(id: &str) -> u64 {
    u64::from_str_radix(id, 16).unwrap_or(u64::MAX)
}

/// Failures of one client that are kept.
const FAILURES_KEPT: usize = 10_000;

const AFTER_REFUSAL: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    fn body(text: &str) -> Result<Option<Vec<u8>>, String> {
        let mut chunked = Vec::new();
        let answer = Answer::parse(text.as_bytes(), &mut chunked)?;
        Ok(answer.map(|answer| answer.body.to_vec()))
    }

    #[test]
    fn answers_are_whole_or_not_yet_or_wrong() {
        let sized = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        let chunked =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n";
        for whole in [sized, chunked] {
            for end in 1..whole.len() {
                assert_eq!(body(&whole[..end]), Ok(None), "{:?}", &whole[..end]);
            }
            assert_eq!(body(whole), Ok(Some(b"hello".to_vec())));
            assert!(body(&format!("{whole}x")).is_err());
        }
        assert!(body("HTTP/1.1 200 OK\r\n\r\n").is_err());
        assert!(body("nonsense\r\n\r\n").is_err());
    }

    #[test]
    fn an_era_names_its_config() {
        let era = Era::default();
        assert_eq!(Era::config_of(era.now(), era.now()), Some(0));
        let before = era.now();
        era.ends();
        assert_eq!(Era::config_of(era.now(), era.now()), None);
        assert_eq!(Era::config_of(before, era.now()), None);
        era.begins();
        assert_eq!(Era::config_of(era.now(), era.now()), Some(1));
    }
}
