//! A client that sends at a fixed rate, whatever the proxy does. Each request has a time at which it is to be sent, and its
//! latency counts from then: one that had to wait for a free connection has waited for the proxy (no coordinated
//! omission).

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::event::epoll;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::framing::{Progress, Reading};
use super::metric;

/// What is to be sent.
pub(super) struct Plan {
    pub(super) address: SocketAddr,
    /// Requests a second, evenly spread.
    pub(super) rate: f64,
    pub(super) duration: Duration,
    pub(super) connections: usize,
    pub(super) request: Vec<u8>,
    /// In the place of every so many, which is not timed.
    pub(super) other: Option<(u64, Vec<u8>)>,
}

/// What came of it.
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
    pub(super) fn run(&self) -> Result<Sent, String> {
        let mut client = Client::new(self).map_err(|e| format!("the client: {e}"))?;
        client.run().map_err(|e| format!("the client: {e}"))?;
        Ok(client.sent)
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
    timer: OwnedFd,
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
    socket: TcpStream,
    /// The request's number, and what has come of its response.
    pending: Option<(u64, Reading)>,
    /// Has brought a response.
    used: bool,
}

impl<'a> Client<'a> {
    fn new(plan: &'a Plan) -> std::io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
        epoll::add(&epoll, &timer, epoll::EventData::new_u64(TIMER), edge)?;
        let mut connections = Vec::new();
        for at in 0..plan.connections {
            connections.push(connect(plan.address, &epoll, at)?);
        }
        Ok(Self {
            plan,
            epoll,
            timer,
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

    fn run(&mut self) -> std::io::Result<()> {
        let total = self.plan.total();
        let end = self.plan.duration + PATIENCE;
        let mut events = Vec::with_capacity(256);
        loop {
            self.send_due(total)?;
            let all_free = self.free.len() == self.connections.len();
            if self.next == total && all_free {
                return Ok(());
            }
            let now = self.begun.elapsed();
            if now >= end {
                let waiting = self.connections.len() - self.free.len();
                self.sent.failed += waiting as u64 + (total - self.next);
                return Ok(());
            }
            let until = match self.next < total && !self.free.is_empty() {
                true => self.plan.intended(self.next),
                false => end,
            };
            self.wake_in(until.saturating_sub(now))?;
            events.clear();
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                None,
            ) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                let data = event.data;
                if data.u64() != TIMER {
                    self.receive(data.u64() as usize)?;
                }
            }
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
        let _seen_at_read = connection.socket.write(self.plan.bytes(number));
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
            let Some((number, reading)) = &mut connection.pending else {
                return self.closed(at); // bytes that nobody has asked for
            };
            let number = *number;
            match reading.take(&self.buf[..read]) {
                Progress::NotYet => {}
                Progress::Done { closes } => {
                    connection.pending = None;
                    connection.used = true;
                    self.answered(number);
                    if closes {
                        self.connections[at] = connect(self.plan.address, &self.epoll, at)?;
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
        let new = connect(self.plan.address, &self.epoll, at)?;
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

    fn wake_in(&self, wait: Duration) -> std::io::Result<()> {
        let wait = wait.max(Duration::from_nanos(1)); // zero would disarm it
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec {
                tv_sec: wait.as_secs().cast_signed(),
                tv_nsec: wait.subsec_nanos().into(),
            },
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
        Ok(())
    }
}

fn connect(address: SocketAddr, epoll: &OwnedFd, at: usize) -> std::io::Result<Connection> {
    let socket = TcpStream::connect(address)?;
    socket.set_nodelay(true)?;
    socket.set_nonblocking(true)?;
    let edge = epoll::EventFlags::IN | epoll::EventFlags::RDHUP | epoll::EventFlags::ET;
    epoll::add(epoll, &socket, epoll::EventData::new_u64(at as u64), edge)?;
    Ok(Connection {
        socket,
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

/// What tells the timer from connections.
const TIMER: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::origin;

    fn plan(rate: f64, path: &str) -> Plan {
        Plan {
            address: origin::start().unwrap(),
            rate,
            duration: Duration::from_millis(200),
            connections: 4,
            request: format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").into_bytes(),
            other: None,
        }
    }

    #[test]
    fn every_request_is_sent_and_answered() {
        let sent = plan(1000.0, "/34").run().unwrap();
        assert_eq!((sent.answered, sent.failed, sent.resent), (200, 0, 0));
        assert_eq!((sent.latency.len(), sent.lateness.len()), (200, 200));
    }

    #[test]
    fn one_in_so_many_is_another_and_is_not_timed() {
        let mut plan = plan(500.0, "/34");
        plan.other = Some((10, b"GET /1k HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()));
        let sent = plan.run().unwrap();
        assert_eq!((sent.answered, sent.latency.len()), (100, 90));
    }

    #[test]
    fn what_is_no_200_has_failed() {
        let sent = plan(100.0, "/nothing").run().unwrap();
        assert_eq!((sent.answered, sent.failed), (0, 20));
    }
}
