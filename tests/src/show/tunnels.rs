//! WebSockets that stay open while the gateway reloads and upgrades: what each sends comes back, until it is closed.

use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::{Method, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::LocalSet;

use super::load::socket::{self, Socket};
use super::load::{Load, Over};
use crate::{DEADLINE, until};

/// Route of [`super::marks::config`] that takes them.
const PATH: &str = "/tunnel";

/// RFC 6455 §1.3.
const ASKED: &str = "GET /tunnel HTTP/1.1\r\nHost: show\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Answer by which an origin agrees to a request that has this key.
pub(super) const AGREED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
    Upgrade: websocket\r\nSec-WebSocket-Accept: ACCEPT\r\n\r\n";

/// Longest pause between two messages of one.
const PAUSE: Duration = Duration::from_secs(4);

/// Streams that share a connection of HTTP/2.
const STREAMS: usize = 25;

/// WebSockets that are open. Dropped, they are closed.
#[derive(Debug)]
pub(super) struct Tunnels {
    tally: Arc<Tally>,
    thread: Option<JoinHandle<Vec<String>>>,
}

#[derive(Debug, Default)]
struct Tally {
    stop: AtomicBool,
    opened: AtomicU64,
    messages: AtomicU64,
    cut: AtomicU64,
}

/// Result of all of them.
pub(super) struct Outcome {
    pub(super) opened: u64,
    /// Messages that came back.
    pub(super) messages: u64,
    pub(super) cut: u64,
    /// Causes of the first ones that were cut.
    pub(super) causes: Vec<String>,
}

impl Tunnels {
    /// Opens so many, a quarter by each protocol, to the gateway of this load, and waits until they are.
    pub(super) fn open(load: Load, how_many: usize) -> Self {
        let tally = Arc::new(Tally::default());
        let shared = Arc::clone(&tally);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("an epoll instance");
            LocalSet::new().block_on(&runtime, run(load, how_many, shared))
        });
        let tunnels = Self {
            tally,
            thread: Some(thread),
        };
        let is_over = || tunnels.thread.as_ref().is_none_or(JoinHandle::is_finished);
        let opened = || tunnels.tally.opened.load(Ordering::Relaxed);
        let cut = || tunnels.tally.cut.load(Ordering::Relaxed);
        until("the tunnels are open", || {
            opened() + cut() >= how_many as u64 || is_over()
        });
        tunnels
    }

    /// Closes them.
    pub(super) fn close(mut self) -> Outcome {
        self.tally.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("closed once");
        let causes = thread.join().expect("the tunnels' thread");
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Outcome {
            opened: count(&self.tally.opened),
            messages: count(&self.tally.messages),
            cut: count(&self.tally.cut),
            causes,
        }
    }
}

impl Drop for Tunnels {
    fn drop(&mut self) {
        self.tally.stop.store(true, Ordering::Relaxed);
    }
}

async fn run(load: Load, how_many: usize, tally: Arc<Tally>) -> Vec<String> {
    let load = Rc::new(load);
    let mut tasks = Vec::new();
    for at in 0..how_many / 2 {
        let over = if at % 2 == 0 { Over::Plain } else { Over::Tls };
        let (load, tally) = (Rc::clone(&load), Arc::clone(&tally));
        let source = source(at);
        tasks.push(tokio::task::spawn_local(async move {
            let ended = by_http1(&load, over, source, at, &tally).await;
            ended.inspect_err(|_| count(&tally.cut))
        }));
    }
    let mut left = how_many - how_many / 2;
    let mut over = Over::Http2;
    while left > 0 {
        let streams = left.min(STREAMS);
        left -= streams;
        let connected = by_http2(&load, over, source(left)).await;
        for at in 0..streams {
            let tally = Arc::clone(&tally);
            let requests = connected.clone();
            tasks.push(tokio::task::spawn_local(async move {
                let ended = match requests {
                    Ok(requests) => stream(requests, at, &tally).await,
                    Err(error) => Err(error),
                };
                ended.inspect_err(|_| count(&tally.cut))
            }));
        }
        over = match over {
            Over::Http2 => Over::Http2Tls,
            Over::Plain | Over::Tls | Over::Http2Tls => Over::Http2,
        };
    }
    let mut causes = Vec::new();
    for task in tasks {
        causes.extend(task.await.expect("a tunnel").err());
    }
    causes.truncate(20);
    causes
}

/// Several addresses, as the load has.
fn source(at: usize) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 0, 1 + u8::try_from(at % 16).unwrap_or(0))
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

async fn in_time<T>(
    what: &str,
    work: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    let done = tokio::time::timeout(DEADLINE, work).await;
    done.unwrap_or_else(|_| Err("too late".to_owned()))
        .map_err(|error| format!("{what}: {error}"))
}

async fn by_http1(
    load: &Load,
    over: Over,
    source: Ipv4Addr,
    at: usize,
    tally: &Tally,
) -> Result<(), String> {
    let what = format!("{over:?} {at}");
    let mut socket = in_time(&what, async {
        let socket = socket::connect(load, over, source).await;
        let mut socket = socket.map_err(text)?;
        socket.write_all(ASKED.as_bytes()).await.map_err(text)?;
        socket.flush().await.map_err(text)?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.map_err(text)?);
        }
        match head.starts_with(b"HTTP/1.1 101 ") {
            true => Ok(socket),
            false => Err(String::from_utf8_lossy(&head).into_owned()),
        }
    })
    .await?;
    count(&tally.opened);
    let mut number = 0;
    while !tally.stop.load(Ordering::Relaxed) {
        let message = message(at, number);
        number += 1;
        in_time(&what, echoed(&mut socket, message)).await?;
        count(&tally.messages);
        rest(at, number, tally).await;
    }
    // The end comes back, too.
    in_time(&what, async {
        socket.shutdown().await.map_err(text)?;
        let mut rest = Vec::new();
        let read = socket.read_to_end(&mut rest).await;
        read.map_err(text).and_then(|read| match read {
            0 => Ok(()),
            _ => Err(format!("more came: {rest:?}")),
        })
    })
    .await
}

async fn echoed(socket: &mut Socket, message: [u8; 16]) -> Result<(), String> {
    socket.write_all(&message).await.map_err(text)?;
    socket.flush().await.map_err(text)?;
    let mut got = [0; 16];
    socket.read_exact(&mut got).await.map_err(text)?;
    match got == message {
        true => Ok(()),
        false => Err("another message came back".to_owned()),
    }
}

async fn by_http2(load: &Load, over: Over, source: Ipv4Addr) -> Result<SendRequest<Bytes>, String> {
    in_time("HTTP/2", async {
        let socket = socket::connect(load, over, source).await;
        let begun = h2::client::handshake(socket.map_err(text)?).await;
        let (requests, connection) = begun.map_err(text)?;
        tokio::task::spawn_local(async move {
            // Errors show at the streams.
            let _ended = connection.await;
        });
        while !requests.is_extended_connect_protocol_enabled() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(requests)
    })
    .await
}

/// A WebSocket on a stream (RFC 8441).
async fn stream(requests: SendRequest<Bytes>, at: usize, tally: &Tally) -> Result<(), String> {
    let what = format!("stream {at}");
    let (mut sending, mut body) = in_time(&what, async {
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri(format!("http://show.test{PATH}"))
            .extension(h2::ext::Protocol::from_static("websocket"))
            .header("sec-websocket-version", "13")
            .body(())
            .map_err(text)?;
        let mut requests = requests.ready().await.map_err(text)?;
        let (response, sending) = requests.send_request(request, false).map_err(text)?;
        let response = response.await.map_err(text)?;
        match response.status().as_u16() {
            200 => Ok((sending, response.into_body())),
            status => Err(status.to_string()),
        }
    })
    .await?;
    count(&tally.opened);
    let mut number = 0;
    while !tally.stop.load(Ordering::Relaxed) {
        let message = message(at, number);
        number += 1;
        in_time(&what, async {
            let bytes = Bytes::copy_from_slice(&message);
            sending.send_data(bytes, false).map_err(text)?;
            let mut got = Vec::new();
            while got.len() < message.len() {
                let piece = body.data().await.ok_or("it has ended")?.map_err(text)?;
                let released = body.flow_control().release_capacity(piece.len());
                released.map_err(text)?;
                got.extend_from_slice(&piece);
            }
            match got == message {
                true => Ok(()),
                false => Err("another message came back".to_owned()),
            }
        })
        .await?;
        count(&tally.messages);
        rest(at, number, tally).await;
    }
    in_time(&what, async {
        sending.send_data(Bytes::new(), true).map_err(text)?;
        match body.data().await {
            None => Ok(()),
            Some(Ok(piece)) if piece.is_empty() => Ok(()),
            Some(Ok(piece)) => Err(format!("more came: {piece:?}")),
            Some(Err(error)) => Err(text(error)),
        }
    })
    .await
}

fn message(at: usize, number: u64) -> [u8; 16] {
    let mut message = [0; 16];
    message[..8].copy_from_slice(&(at as u64).to_be_bytes());
    message[8..].copy_from_slice(&number.to_be_bytes());
    message
}

/// Pauses of each are its own; the end of all is heard within a tenth of a second.
async fn rest(at: usize, number: u64, tally: &Tally) {
    let share = (at as u64 * 7 + number * 13) % 17;
    let mut left = PAUSE * u32::try_from(1 + share).unwrap_or(1) / 17;
    while !left.is_zero() && !tally.stop.load(Ordering::Relaxed) {
        let step = left.min(Duration::from_millis(100));
        tokio::time::sleep(step).await;
        left -= step;
    }
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
