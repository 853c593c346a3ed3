//! Requests of the show's own, whose answers say which peer they are from.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::fleet::Fleet;
use crate::runtime::runtime;
use crate::{DEADLINE, RawClient};

/// An answer of a peer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// Number of the peer.
    pub(super) peer: usize,
    /// Cookie that came with it, as a client sends it back.
    pub(super) cookie: Option<String>,
}

/// GETs with these lines of header fields, in as many connections as can be at once; answers in the order of the requests.
/// `turn`: which connection each takes is another with another turn, and so is the worker.
pub(super) fn ask(
    gateway: SocketAddr,
    fields: &[String],
    connections: usize,
    turn: usize,
) -> Vec<Result<Answer, String>> {
    let mut queues: Vec<VecDeque<(usize, String)>> = vec![VecDeque::new(); connections];
    for (place, fields) in fields.iter().enumerate() {
        let request = format!("GET / HTTP/1.1\r\nHost: show.test\r\n{fields}\r\n");
        // Not in turns: a peer's turn would always come in the same connection.
        let connection = (place / 7 + place + turn) % connections;
        queues[connection].push_back((place, request));
    }
    runtime().block_on(async {
        let tasks: Vec<_> = queues
            .into_iter()
            .map(|queue| runtime().spawn(in_a_row(gateway, queue)))
            .collect();
        let mut answers = vec![Err("not asked".to_owned()); fields.len()];
        for task in tasks {
            for (place, answer) in task.await.expect("a client of the show") {
                answers[place] = answer;
            }
        }
        answers
    })
}

/// Sends requests on one connection, and on another one when that has ended.
async fn in_a_row(
    gateway: SocketAddr,
    queue: VecDeque<(usize, String)>,
) -> Vec<(usize, Result<Answer, String>)> {
    let mut answers = Vec::with_capacity(queue.len());
    let mut kept = None;
    for (place, request) in queue {
        let answer = tokio::time::timeout(DEADLINE, one(gateway, &mut kept, &request)).await;
        let answer = answer.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        if answer.is_err() {
            kept = None;
        }
        answers.push((place, answer));
    }
    answers
}

async fn one(
    gateway: SocketAddr,
    kept: &mut Option<TcpStream>,
    request: &str,
) -> Result<Answer, String> {
    if let Some(socket) = kept {
        match exchange(socket, request).await {
            // A kept connection may have been closed meanwhile (RFC 9112 §9.3.1).
            Ok(None) => *kept = None,
            Ok(Some((answer, goes_on))) => {
                kept.take_if(|_| !goes_on);
                return Ok(answer);
            }
            Err(error) => return Err(error),
        }
    }
    let connected = async {
        let socket = TcpSocket::new_v4()?;
        socket.connect(gateway).await
    };
    let mut socket = connected
        .await
        .map_err(|error| format!("connect: {error}"))?;
    // Slower without.
    let _ = socket.set_nodelay(true);
    match exchange(&mut socket, request).await? {
        None => Err("a new connection was closed without an answer".to_owned()),
        Some((answer, goes_on)) => {
            *kept = goes_on.then_some(socket);
            Ok(answer)
        }
    }
}

/// Sends a request and reads its answer, and whether the connection takes another; `None`: it was closed before a byte came.
async fn exchange(socket: &mut TcpStream, request: &str) -> Result<Option<(Answer, bool)>, String> {
    if socket.write_all(request.as_bytes()).await.is_err() {
        return Ok(None);
    }
    let mut received = Vec::with_capacity(512);
    loop {
        match socket.read_buf(&mut received).await {
            Ok(0) | Err(_) if received.is_empty() => return Ok(None),
            Ok(0) => return Err("cut short".to_owned()),
            Err(error) => return Err(format!("cut short: {error}")),
            Ok(_) => {}
        }
        if let Some(whole) = parse(&received)? {
            return Ok(Some(whole));
        }
    }
}

fn parse(received: &[u8]) -> Result<Option<(Answer, bool)>, String> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut fields);
    let parsed = response
        .parse(received)
        .map_err(|error| error.to_string())?;
    let httparse::Status::Complete(head) = parsed else {
        return Ok(None);
    };
    let field = |name: &str| {
        let mut fields = response.headers.iter();
        let found = fields.find(|field| field.name.eq_ignore_ascii_case(name));
        found.map(|field| String::from_utf8_lossy(field.value).into_owned())
    };
    let length = field("content-length").and_then(|length| length.parse::<usize>().ok());
    let length = length.ok_or("an answer without Content-Length")?;
    let Some(body) = received.get(head..head + length) else {
        return Ok(None);
    };
    let body = String::from_utf8_lossy(body);
    let status = response.code.unwrap_or(0);
    let peer = body.parse().map_err(|_| format!("{status} {body:?}"))?;
    let cookie = field("set-cookie").and_then(|it| it.split(';').next().map(str::to_owned));
    let closes = field("connection").is_some_and(|it| it.eq_ignore_ascii_case("close"));
    match status {
        200 => Ok(Some((Answer { peer, cookie }, !closes))),
        status => Err(format!("{status} {body:?}")),
    }
}

/// Answers of the requests that have one, and the failures of the others.
pub(super) fn told_apart(answers: Vec<Result<Answer, String>>) -> (Vec<Answer>, Vec<String>) {
    let (mut good, mut failures) = (Vec::with_capacity(answers.len()), Vec::new());
    for answer in answers {
        match answer {
            Ok(answer) => good.push(answer),
            Err(failure) => failures.push(failure),
        }
    }
    (good, failures)
}

/// The peer that answers one request of a client with this address.
pub(super) fn ask_from(client: Ipv4Addr, gateway: SocketAddr) -> Result<usize, String> {
    let mut client = RawClient::connect_from(client, gateway);
    client.send("GET / HTTP/1.1\r\nHost: show.test\r\nConnection: close\r\n\r\n");
    let reply = client.try_read_reply()?;
    let text = reply.text();
    text.parse()
        .map_err(|_| format!("{} {text:?}", reply.status))
}

/// Requests that hang at peers, each in a connection of its own.
pub(super) struct Hanging {
    clients: Vec<RawClient>,
}

const HANGING: &str = "GET / HTTP/1.1\r\nHost: show.test\r\nX-User: everybody\r\n\r\n";

impl Hanging {
    /// Sends so many, each when the one before is at its peer and this time is over. `look` sees what each peer holds after each.
    pub(super) fn one_by_one(
        gateway: SocketAddr,
        fleet: &Fleet,
        count: u64,
        pause: Duration,
        mut look: impl FnMut(&[u64]),
    ) -> Self {
        fleet.hold(true);
        let clients = (1..=count).map(|n| {
            let mut client = RawClient::connect(gateway);
            client.send(HANGING);
            look(&fleet.until_held(n));
            std::thread::sleep(pause);
            client
        });
        Self {
            clients: clients.collect(),
        }
    }

    /// Sends so many as fast as can be.
    pub(super) fn at_once(gateway: SocketAddr, fleet: &Fleet, count: u64) -> Self {
        fleet.hold(true);
        let connect = |_| RawClient::connect(gateway);
        let mut clients: Vec<RawClient> = (0..count).map(connect).collect();
        for client in &mut clients {
            client.send(HANGING);
        }
        fleet.until_held(count);
        Self { clients }
    }

    /// Has them answered; failures.
    pub(super) fn release(self, fleet: &Fleet) -> Vec<String> {
        fleet.hold(false);
        let answers = self.clients.into_iter().map(|mut client| {
            let reply = client.try_read_reply()?;
            match reply.status {
                200 => Ok(()),
                status => Err(format!("{status} {:?}", reply.text())),
            }
        });
        answers.filter_map(Result::err).collect()
    }
}
