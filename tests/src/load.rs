//! Steady load: keep-alive clients that check every answer.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::runtime::runtime;
use crate::{DEADLINE, until};

/// Requests that the clients send and expect.
#[derive(Clone, Debug)]
pub struct Load {
    pub address: SocketAddr,
    /// How many clients; each sends its next request when it has the last one's answer.
    pub clients: usize,
    /// A client takes a new connection after so many requests.
    pub requests_per_connection: usize,
    /// Sent as it is.
    pub request: String,
    /// The bodies that are right; the status must be 200.
    pub bodies: Vec<String>,
}

/// Load that runs until it is stopped.
#[derive(Debug)]
pub struct Running {
    tally: Arc<Tally>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

/// Result of a load.
#[derive(Debug)]
pub struct Report {
    /// Requests that were answered as they should be.
    pub good: usize,
    /// Requests sent again on a new connection, because the gateway closed the old, idle one at that moment (RFC 9112
    /// §9.3.1 has clients do so).
    pub resent: usize,
    /// Failures, a line a request.
    pub failures: Vec<String>,
}

#[derive(Debug, Default)]
struct Tally {
    good: AtomicUsize,
    resent: AtomicUsize,
    stop: AtomicBool,
}

impl Load {
    /// Starts the clients.
    pub fn start(self) -> Running {
        let tally = Arc::new(Tally::default());
        let clients = (0..self.clients).map(|_| {
            let (load, tally) = (self.clone(), Arc::clone(&tally));
            runtime().spawn(async move { client(&load, &tally).await })
        });
        Running {
            clients: clients.collect(),
            tally,
        }
    }
}

impl Running {
    /// Good answers so far.
    pub fn good(&self) -> usize {
        self.tally.good.load(Ordering::Relaxed)
    }

    /// Waits until `more` requests more were answered well.
    #[track_caller]
    pub fn until_more(&self, more: usize) {
        let goal = self.good() + more;
        until(&format!("{more} more good answers"), || self.good() >= goal);
    }

    /// Lets the requests under way end, then says what came of all.
    pub fn stop(self) -> Report {
        self.tally.stop.store(true, Ordering::Relaxed);
        let failures = runtime().block_on(async {
            let mut failures = Vec::new();
            for client in self.clients {
                match client.await {
                    Ok(lines) => failures.extend(lines),
                    Err(error) => failures.push(format!("a client of the load: {error}")),
                }
            }
            failures
        });
        let (good, resent) = (&self.tally.good, &self.tally.resent);
        Report {
            good: good.load(Ordering::Relaxed),
            resent: resent.load(Ordering::Relaxed),
            failures,
        }
    }
}

async fn client(load: &Load, tally: &Tally) -> Vec<String> {
    let mut failures = Vec::new();
    while !tally.stop.load(Ordering::Relaxed) {
        match connection(load, tally).await {
            Ok(()) => {}
            Err(failure) => failures.push(failure),
        }
    }
    failures
}

/// Life of a connection. `Err` is the request that failed on it.
async fn connection(load: &Load, tally: &Tally) -> Result<(), String> {
    let connected = tokio::time::timeout(DEADLINE, TcpStream::connect(load.address)).await;
    let mut socket = connected
        .map_err(|_| "connect: time-out".to_owned())?
        .map_err(|error| format!("connect: {error}"))?;
    let _slower_without = socket.set_nodelay(true);
    for number in 0..load.requests_per_connection {
        if tally.stop.load(Ordering::Relaxed) {
            break;
        }
        let answered = tokio::time::timeout(DEADLINE, request(&mut socket, load)).await;
        match answered.map_err(|_| format!("request {number}: no answer within {DEADLINE:?}"))? {
            Ok(goes_on) => {
                tally.good.fetch_add(1, Ordering::Relaxed);
                if !goes_on {
                    break;
                }
            }
            Err(Failure::ClosedBeforeAnswer) if number > 0 => {
                tally.resent.fetch_add(1, Ordering::Relaxed);
                break;
            }
            Err(Failure::ClosedBeforeAnswer) => {
                return Err("a new connection was closed without an answer".to_owned());
            }
            Err(Failure::Wrong(what)) => return Err(format!("request {number}: {what}")),
        }
    }
    Ok(())
}

enum Failure {
    /// Not a byte came.
    ClosedBeforeAnswer,
    Wrong(String),
}

/// Sends one request and checks its answer. True when the connection can take another.
async fn request(socket: &mut TcpStream, load: &Load) -> Result<bool, Failure> {
    if socket.write_all(load.request.as_bytes()).await.is_err() {
        return Err(Failure::ClosedBeforeAnswer);
    }
    let mut received = Vec::with_capacity(1024);
    loop {
        match socket.read_buf(&mut received).await {
            Ok(0) | Err(_) if received.is_empty() => return Err(Failure::ClosedBeforeAnswer),
            Ok(0) => {
                return Err(Failure::Wrong(format!(
                    "cut short: {:?}",
                    String::from_utf8_lossy(&received)
                )));
            }
            Err(error) => return Err(Failure::Wrong(format!("cut short: {error}"))),
            Ok(_) => {}
        }
        if let Some(answer) = parse(&received).map_err(Failure::Wrong)? {
            if answer.status != 200 || !load.bodies.contains(&answer.body) {
                return Err(Failure::Wrong(format!(
                    "{} {:?}",
                    answer.status, answer.body
                )));
            }
            return Ok(!answer.closes);
        }
    }
}

struct Answer {
    status: u16,
    body: String,
    closes: bool,
}

/// A whole response with a Content-Length, or None when more must come.
fn parse(received: &[u8]) -> Result<Option<Answer>, String> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    let head = response
        .parse(received)
        .map_err(|error| format!("a head that is none: {error}"))?;
    let httparse::Status::Complete(head_len) = head else {
        return Ok(None);
    };
    let header = |name: &str| {
        let found = response
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| String::from_utf8_lossy(header.value).into_owned())
    };
    let length = header("content-length").and_then(|length| length.parse::<usize>().ok());
    let length = length.ok_or("a response without Content-Length")?;
    let Some(body) = received[head_len..].get(..length) else {
        return Ok(None);
    };
    if received.len() > head_len + length {
        return Err("more bytes than the response has".to_owned());
    }
    Ok(Some(Answer {
        status: response.code.unwrap_or(0),
        body: String::from_utf8_lossy(body).into_owned(),
        closes: header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")),
    }))
}
