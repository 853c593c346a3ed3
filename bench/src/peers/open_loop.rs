//! A client that sends at a fixed rate, whatever the proxy does. Each request has a time at which it is to be sent, and its
//! latency counts from then: one that had to wait for a free connection has waited for the proxy (no coordinated
//! omission).
//!
//! It runs in the origin's thread, and neither ever sleeps. Two threads that share a core wait for each other, and a core that
//! sleeps has to be woken, which costs the proxy an interrupt here and some microseconds of latency there; both would
//! be measured as the proxy's.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::event::epoll;
use rustix::time::Timespec;

use super::framing::{Progress, Reading};
use super::front::Front;
use super::http2::{self, Conversation};
use super::metric;
use super::origin::Origin;
use super::socket::Socket;

/// Load that is to be sent.
#[derive(Clone)]
pub(super) struct Plan {
    pub(super) front: Front,
    pub(super) address: SocketAddr,
    /// Requests a second, evenly spread.
    pub(super) rate: f64,
    pub(super) duration: Duration,
    pub(super) connections: usize,
    /// Bytes of a request; with HTTP/2 its stream is not numbered.
    pub(super) request: Vec<u8>,
    /// In the place of every so many, which is not timed.
    pub(super) other: Option<(u64, Vec<u8>)>,
}

/// Result of the load.
pub(super) struct Sent {
    /// With good responses.
    pub(super) answered: u64,
    /// Without.
    pub(super) failed: u64,
    /// Sent again, because the proxy closed an idle connection at that moment (RFC 9112 §9.3.1 has clients do so).
    pub(super) resent: u64,
    /// From when a request was to be sent to its last byte. Nanoseconds.
    pub(super) latency: Histogram<u64>,
    /// How much later requests were sent than they were to be: the client's own part, and waiting for a connection.
    pub(super) lateness: Histogram<u64>,
}

impl Plan {
    /// Returns when all was answered, or [`PATIENCE`] after the last was to be sent; what is not answered then has failed.
    pub(super) fn run(&self, origin: &Origin) -> Result<Sent, String> {
        let plan = self.clone();
        let sent = origin.run(|| async move {
            let mut client = Client::new(&plan)?;
            client.run().await?;
            Ok(client.sent)
        })?;
        sent.map_err(|error: std::io::Error| format!("the client: {error}"))
    }

    fn total(&self) -> u64 {
        (self.rate * self.duration.as_secs_f64()) as u64
    }

    /// When the request of this number is to be sent, from the begin.
    fn intended(&self, number: u64) -> Duration {
        Duration::from_secs_f64(number as f64 / self.rate)
    }

    fn is_other(&self, number: u64) -> bool {
        matches!(self.other, Some((every, _)) if number % every == every - 1)
    }

    fn bytes(&self, number: u64) -> &[u8] {
        match &self.other {
            Some((_, other)) if self.is_other(number) => other,
            Some(_) | None => &self.request,
        }
    }
}

struct Client<'a> {
    plan: &'a Plan,
    epoll: OwnedFd,
    connections: Vec<Connection>,
    /// Places of connections without a request, the last used last.
    free: Vec<usize>,
    begun: Instant,
    /// The number of the request that is sent next.
    next: u64,
    buf: Vec<u8>,
    sent: Sent,
}

struct Connection {
    socket: Socket,
    /// State of HTTP/2: what the peer says, and the stream of the next request.
    http2: Option<(Conversation, u32)>,
    /// The request's number, and what has come of its response.
    pending: Option<(u64, Reading)>,
    /// Has brought a response.
    used: bool,
}

impl<'a> Client<'a> {
    fn new(plan: &'a Plan) -> std::io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut connections = Vec::new();
        for at in 0..plan.connections {
            connections.push(connect(plan, &epoll, at)?);
        }
        Ok(Self {
            plan,
            epoll,
            free: (0..connections.len()).collect(),
            connections,
            begun: Instant::now(),
            next: 0,
            buf: vec![0; 64 << 10],
            sent: Sent {
                answered: 0,
                failed: 0,
                resent: 0,
                latency: metric::histogram(),
                lateness: metric::histogram(),
            },
        })
    }

    async fn run(&mut self) -> std::io::Result<()> {
        let total = self.plan.total();
        let end = self.plan.duration + PATIENCE;
        let mut events = Vec::with_capacity(256);
        loop {
            self.send_due(total)?;
            let all_free = self.free.len() == self.connections.len();
            if self.next == total && all_free {
                return Ok(());
            }
            if self.begun.elapsed() >= end {
                let waiting = self.connections.len() - self.free.len();
                self.sent.failed += waiting as u64 + (total - self.next);
                return Ok(());
            }
            events.clear();
            let room = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, room, Some(&Timespec::default())) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                let at = event.data.u64();
                self.receive(at as usize)?;
            }
            // The origin's turn.
            tokio::task::yield_now().await;
        }
    }

    fn send_due(&mut self, total: u64) -> std::io::Result<()> {
        while self.next < total && self.plan.intended(self.next) <= self.begun.elapsed() {
            let Some(at) = self.free.pop() else {
                return Ok(());
            };
            let number = self.next;
            self.next += 1;
            self.send(at, number)?;
        }
        Ok(())
    }

    fn send(&mut self, at: usize, number: u64) -> std::io::Result<()> {
        let late = self
            .begun
            .elapsed()
            .saturating_sub(self.plan.intended(number));
        self.sent.lateness.saturating_record(nanoseconds(late));
        let connection = &mut self.connections[at];
        connection.pending = Some((number, Reading::begin()));
        // A request fits into an empty socket. What went wrong is seen when it is read.
        let _seen_at_read = connection.write(self.plan.bytes(number));
        Ok(())
    }

    fn receive(&mut self, at: usize) -> std::io::Result<()> {
        loop {
            let connection = &mut self.connections[at];
            let read = match connection.socket.read(&mut self.buf) {
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(_) => 0,
            };
            if read == 0 {
                return self.closed(at);
            }
            match connection.take(&self.buf[..read]) {
                Progress::NotYet => {}
                Progress::Done { closes } => {
                    let Some((number, _)) = connection.pending.take() else {
                        return self.closed(at); // a response that nobody has asked for
                    };
                    connection.used = true;
                    self.answered(number);
                    if closes {
                        self.connections[at] = connect(self.plan, &self.epoll, at)?;
                    }
                    self.free.push(at);
                    return Ok(());
                }
                Progress::Bad => {
                    connection.used = false;
                    return self.closed(at);
                }
            }
        }
    }

    fn answered(&mut self, number: u64) {
        self.sent.answered += 1;
        if !self.plan.is_other(number) {
            let took = self
                .begun
                .elapsed()
                .saturating_sub(self.plan.intended(number));
            self.sent.latency.saturating_record(nanoseconds(took));
        }
    }

    /// The connection has ended: a new one takes its place, and the request that it had is sent again where it may be.
    fn closed(&mut self, at: usize) -> std::io::Result<()> {
        let new = connect(self.plan, &self.epoll, at)?;
        let old = std::mem::replace(&mut self.connections[at], new);
        match old.pending {
            Some((number, reading)) if old.used && reading.is_untouched() => {
                self.sent.resent += 1;
                self.send(at, number)
            }
            Some(_) => {
                self.sent.failed += 1;
                self.free.push(at);
                Ok(())
            }
            None => Ok(()), // it is among the free ones
        }
    }
}

impl Connection {
    fn write(&mut self, request: &[u8]) -> std::io::Result<()> {
        let Some((_, stream)) = &mut self.http2 else {
            return self.socket.write_all(request);
        };
        let mut request = request.to_vec();
        http2::number(&mut request, *stream);
        *stream += 2;
        self.socket.write_all(&request)
    }

    fn take(&mut self, piece: &[u8]) -> Progress {
        let Some((conversation, _)) = &mut self.http2 else {
            return match &mut self.pending {
                Some((_, reading)) => reading.take(piece),
                None => Progress::Bad, // bytes that nobody has asked for
            };
        };
        let mut answers = Vec::new();
        let progress = conversation.take(piece, &mut answers);
        // A peer that could not read them will say so.
        let _seen_at_read = self.socket.write_all(&answers);
        progress
    }
}

fn connect(plan: &Plan, epoll: &OwnedFd, at: usize) -> std::io::Result<Connection> {
    let mut socket = Socket::connect(plan.front, plan.address, PATIENCE)?;
    let mut http2 = None;
    if plan.front.is_http2() {
        socket.write_all(&http2::preface())?;
        http2 = Some((Conversation::default(), 1));
    }
    socket.tcp().set_nonblocking(true)?;
    let edge = epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
    let data = epoll::EventData::new_u64(at as u64);
    epoll::add(epoll, socket.tcp(), data, edge)?;
    Ok(Connection {
        socket,
        http2,
        pending: None,
        used: false,
    })
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos())
        .unwrap_or(u64::MAX)
        .max(1)
}

/// For a response that is late.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::origin;

    /// Without a proxy between client and origin.
    fn sent(rate: f64, path: &str, other: Option<(u64, Vec<u8>)>) -> Sent {
        let origin = origin::start().unwrap();
        let plan = Plan {
            front: Front::Plain,
            address: origin.address,
            rate,
            duration: Duration::from_millis(200),
            connections: 4,
            request: format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes(),
            other,
        };
        plan.run(&origin).unwrap()
    }

    #[test]
    fn every_request_is_sent_and_answered() {
        let sent = sent(1000.0, "/34", None);
        assert_eq!((sent.answered, sent.failed, sent.resent), (200, 0, 0));
        assert_eq!((sent.latency.len(), sent.lateness.len()), (200, 200));
    }

    #[test]
    fn one_in_so_many_is_another_and_is_not_timed() {
        let other = b"GET /1k HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
        let sent = sent(500.0, "/34", Some((10, other)));
        assert_eq!((sent.answered, sent.latency.len()), (100, 90));
    }

    #[test]
    fn what_is_no_200_has_failed() {
        let sent = sent(100.0, "/nothing", None);
        assert_eq!((sent.answered, sent.failed), (0, 20));
    }
}
