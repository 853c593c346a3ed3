//! Many peers in one thread, each at a loopback address of its own: they answer with their number, hold requests, are slow or
//! ill, die and come back, and count.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};

use crate::until;

/// Peers on one port. Dropping it ends them.
pub(super) struct Fleet {
    peers: Vec<Arc<Peer>>,
    handle: Handle,
    holds: watch::Sender<bool>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// A peer.
pub(super) struct Peer {
    number: usize,
    address: SocketAddr,
    /// Requests that it was sent, checks aside.
    requests: AtomicU64,
    /// Requests that it holds.
    held: AtomicU64,
    /// Time that it takes for an answer, µs.
    delay_us: AtomicU64,
    is_ill: AtomicBool,
    /// Times of the checks that it was sent.
    checks: Mutex<Vec<Instant>>,
    /// The task that accepts; `None` while it is dead.
    task: Mutex<Option<AbortHandle>>,
}

impl Fleet {
    /// Starts so many peers at 127.1.0.1 and the addresses after it.
    pub(super) fn start(count: usize) -> Self {
        let listeners = listeners(count);
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("an epoll instance");
        let (stop, stopped) = oneshot::channel();
        let handle = runtime.handle().clone();
        let thread = std::thread::spawn(move || {
            // The sender is dropped at the end.
            let _stopped = runtime.block_on(stopped);
        });
        let fleet = Self {
            peers: (0..count)
                .zip(&listeners)
                .map(|(number, listener)| Arc::new(Peer::new(number, listener)))
                .collect(),
            handle,
            holds: watch::Sender::new(false),
            stop: Some(stop),
            thread: Some(thread),
        };
        for (peer, listener) in fleet.peers.iter().zip(listeners) {
            fleet.serve(peer, listener);
        }
        fleet
    }

    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }

    pub(super) fn address(&self, number: usize) -> SocketAddr {
        self.peers[number].address
    }

    pub(super) fn port(&self) -> u16 {
        self.address(0).port()
    }

    /// `"ADDRESS", ...` of these, as a config has it.
    pub(super) fn listed(&self, numbers: impl IntoIterator<Item = usize>) -> String {
        let entry = |number| format!("\"{}\"", self.address(number));
        let entries: Vec<String> = numbers.into_iter().map(entry).collect();
        entries.join(", ")
    }

    /// All of them, with a weight each.
    pub(super) fn weighted(&self, weights: &[u32]) -> String {
        let entry = |(number, weight): (usize, &u32)| {
            let address = self.address(number);
            format!("{{ address = \"{address}\", weight = {weight} }}")
        };
        let entries: Vec<String> = weights.iter().enumerate().map(entry).collect();
        entries.join(", ")
    }

    /// Requests that each was sent so far.
    pub(super) fn requests(&self) -> Vec<u64> {
        let count = |peer: &Arc<Peer>| peer.requests.load(SeqCst);
        self.peers.iter().map(count).collect()
    }

    /// Requests that each holds.
    pub(super) fn held(&self) -> Vec<u64> {
        let count = |peer: &Arc<Peer>| peer.held.load(SeqCst);
        self.peers.iter().map(count).collect()
    }

    /// Waits until all together hold so many; how many each does.
    #[track_caller]
    pub(super) fn until_held(&self, count: u64) -> Vec<u64> {
        let mut held = Vec::new();
        until(&format!("{count} requests are at peers"), || {
            held = self.held();
            held.iter().sum::<u64>() == count
        });
        held
    }

    /// Has all of them hold their requests from now on, or answer those and all to come.
    pub(super) fn hold(&self, holds: bool) {
        self.holds.send_replace(holds);
    }

    /// Has one take so long for an answer.
    pub(super) fn delay(&self, number: usize, delay: Duration) {
        let delay = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        self.peers[number].delay_us.store(delay, SeqCst);
    }

    /// Has one answer its checks with 503, or with 200 again.
    pub(super) fn be_ill(&self, number: usize, is_ill: bool) {
        self.peers[number].is_ill.store(is_ill, SeqCst);
    }

    /// Times of one's checks so far.
    pub(super) fn checks(&self, number: usize) -> Vec<Instant> {
        self.peers[number].checks().clone()
    }

    /// Kills one: its connections end, and others are refused.
    pub(super) fn kill(&self, number: usize) {
        let task = lock(&self.peers[number].task).take();
        if let Some(task) = task {
            task.abort();
            until("the peer's end", || task.is_finished());
        }
    }

    /// Has one that was killed listen again.
    pub(super) fn revive(&self, number: usize) {
        let peer = &self.peers[number];
        let listener = TcpListener::bind(peer.address);
        self.serve(peer, listener.expect("an address that was ours"));
    }

    fn serve(&self, peer: &Arc<Peer>, listener: TcpListener) {
        let accepted = accept(listener, Arc::clone(peer), self.holds.subscribe());
        let task = self.handle.spawn(accepted).abort_handle();
        lock(&peer.task).replace(task);
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed.
            let _ = thread.join();
        }
    }
}

impl Peer {
    fn new(number: usize, listener: &TcpListener) -> Self {
        Self {
            number,
            address: listener.local_addr().expect("a bound socket"),
            requests: AtomicU64::new(0),
            held: AtomicU64::new(0),
            delay_us: AtomicU64::new(0),
            is_ill: AtomicBool::new(false),
            checks: Mutex::default(),
            task: Mutex::default(),
        }
    }

    fn checks(&self) -> MutexGuard<'_, Vec<Instant>> {
        lock(&self.checks)
    }

    /// Bytes of the answer to this head.
    async fn answer(&self, head: &[u8], holds: &mut watch::Receiver<bool>) -> Vec<u8> {
        if head.starts_with(b"GET /health ") {
            self.checks().push(Instant::now());
            let status = match self.is_ill.load(SeqCst) {
                true => "503 Ill",
                false => "200 OK",
            };
            return format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into_bytes();
        }
        self.requests.fetch_add(1, SeqCst);
        if *holds.borrow() {
            self.held.fetch_add(1, SeqCst);
            // The sender is dropped at the end.
            let _released = holds.wait_for(|holds| !holds).await;
            self.held.fetch_sub(1, SeqCst);
        }
        match self.delay_us.load(SeqCst) {
            0 => {}
            delay => tokio::time::sleep(Duration::from_micros(delay)).await,
        }
        let body = self.number.to_string();
        let length = body.len();
        format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sockets on one port, at 127.1.0.1 and the addresses after it.
fn listeners(count: usize) -> Vec<TcpListener> {
    let bind = |number: usize, port: u16| {
        let [_, _, high, low] = u32::try_from(number + 1).unwrap_or(0).to_be_bytes();
        TcpListener::bind((Ipv4Addr::new(127, 1, high, low), port))
    };
    let all = (0..PORT_TRIES).find_map(|_| {
        let first = bind(0, 0).ok()?;
        let port = first.local_addr().ok()?.port();
        let others = (1..count).map(|number| bind(number, port));
        let mut all: Vec<TcpListener> = others.collect::<Result<_, _>>().ok()?;
        all.insert(0, first);
        Some(all)
    });
    all.expect("a port that is free on all addresses")
}

/// Serves one peer until its task is aborted, which closes everything.
async fn accept(listener: TcpListener, peer: Arc<Peer>, holds: watch::Receiver<bool>) {
    let ready = listener.set_nonblocking(true);
    let listener = ready.and_then(|()| tokio::net::TcpListener::from_std(listener));
    let listener = listener.expect("a listening socket");
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        connections.spawn(serve(socket, Arc::clone(&peer), holds.clone()));
    }
}

/// Answers the requests of one connection, which have no bodies.
async fn serve(
    mut socket: TcpStream,
    peer: Arc<Peer>,
    mut holds: watch::Receiver<bool>,
) -> Option<()> {
    socket.set_nodelay(true).ok()?;
    let mut received = Vec::with_capacity(1024);
    loop {
        let end = loop {
            if let Some(at) = received.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if socket.read_buf(&mut received).await.ok()? == 0 {
                return None;
            }
        };
        let head: Vec<u8> = received.drain(..end).collect();
        let answer = peer.answer(&head, &mut holds).await;
        socket.write_all(&answer).await.ok()?;
    }
}

const PORT_TRIES: usize = 100;
