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

use tokio::task::LocalSet;

use super::marks::{self, Kind, Wrong};
use crate::tls::TlsClient;
use crate::until;

mod answer;
mod http1;
mod http2;
pub(crate) mod socket;

pub(crate) use answer::Answer;

/// Behaviour of the clients.
#[derive(Clone, Debug)]
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    /// Where TLS is spoken, and how.
    pub(crate) secure: Option<(SocketAddr, TlsClient)>,
    pub(crate) groups: Vec<Group>,
    /// How a request goes is chosen by its id from these, evenly.
    pub(crate) mix: Vec<Kind>,
    /// A close at or after the write is no failure, see above.
    pub(crate) resends: bool,
    /// Which config new connections must meet.
    pub(crate) era: Arc<Era>,
}

/// Protocols of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    Plain,
    Tls,
    /// HTTP/2 by prior knowledge.
    Http2,
    /// HTTP/2 by TLS.
    Http2Tls,
}

/// Clients that do the same.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group {
    pub(crate) over: Over,
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
                again: Vec::new(),
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
    /// Ids of requests that are to be sent again.
    again: Vec<u64>,
    failures: Vec<Failure>,
}

impl Client {
    async fn run(mut self) -> Vec<Failure> {
        // Clients that pause do not all begin at the same moment.
        self.rest().await;
        while !self.is_stopped() {
            match self.group.over {
                Over::Plain | Over::Tls => self.connection_of_http1().await,
                Over::Http2 | Over::Http2Tls => self.connection_of_http2().await,
            }
        }
        self.failures
    }

    /// Counts an answer that is right. `began`: the era in which its connection was opened.
    fn judge(
        &self,
        kind: Kind,
        id: &str,
        answer: &Answer<'_>,
        began: Option<u64>,
    ) -> Result<(), Cause> {
        let config = marks::check(kind, id, answer).map_err(Cause::Wrong)?;
        let promised = began.and_then(|began| Era::config_of(began, self.load.era.now()));
        if let Some(promised) = promised {
            count(&self.tally.compared);
            if promised != config {
                return Err(Cause::Stale(config));
            }
        }
        count(&self.tally.good);
        if kind.is_proxied() {
            count(&self.tally.proxied);
        }
        Ok(())
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
