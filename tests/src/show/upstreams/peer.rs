//! A peer with so many places, that takes some time for each request, and that can die and come back at its address.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};

use crate::runtime::{block_on, runtime};

/// Things that a peer can do.
#[derive(Clone, Debug)]
pub(super) struct Capacity {
    /// Requests that it works on at a time; the others wait.
    pub(super) places: usize,
    /// How long each takes, chosen evenly.
    pub(super) takes: Range<Duration>,
}

/// Behaviour of a peer that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Behaviour {
    Serves,
    /// Reads each request and answers none.
    Hangs,
    /// Reads each request and closes.
    Closes,
}

/// The peer. Dropping it stops it.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
    runs: Mutex<Option<AbortHandle>>,
}

#[derive(Debug)]
struct Shared {
    /// What it answers, a byte.
    name: char,
    places: Semaphore,
    takes: Range<Duration>,
    behaviour: AtomicU8,
    /// When each request came.
    arrivals: Mutex<Vec<Instant>>,
}

impl Peer {
    /// Starts it; `name` is the body of its answers.
    pub(super) fn start(name: char, capacity: &Capacity) -> Self {
        let shared = Arc::new(Shared {
            name,
            places: Semaphore::new(capacity.places),
            takes: capacity.takes.clone(),
            behaviour: AtomicU8::new(Behaviour::Serves as u8),
            arrivals: Mutex::default(),
        });
        let listener = block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let task = runtime().spawn(accept(listener, Arc::clone(&shared)));
        Self {
            address,
            shared,
            runs: Mutex::new(Some(task.abort_handle())),
        }
    }

    /// Ends it as the death of a process would: nothing listens, and its connections are cut.
    pub(super) fn die(&self) {
        let task = self
            .runs
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(task) = task {
            task.abort();
        }
    }

    /// Starts it again where it was.
    pub(super) fn come_back(&self) {
        // Its port is nobody else's while connections of before are remembered; until its task has ended it is still taken.
        let listener = block_on(async {
            loop {
                match TcpListener::bind(self.address).await {
                    Ok(listener) => return listener,
                    Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            }
        });
        self.behave(Behaviour::Serves);
        let task = runtime().spawn(accept(listener, Arc::clone(&self.shared)));
        *self.runs.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.abort_handle());
    }

    /// Has it do this from now on.
    pub(super) fn behave(&self, behaviour: Behaviour) {
        self.shared
            .behaviour
            .store(behaviour as u8, Ordering::SeqCst);
    }

    /// When each request came, and forgets them.
    pub(super) fn take_arrivals(&self) -> Vec<Instant> {
        let mut arrivals = self
            .shared
            .arrivals
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut arrivals)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.die();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with this future, which closes every connection.
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let _slower_without = socket.set_nodelay(true);
        connections.spawn(serve(socket, Arc::clone(&shared)));
    }
}

async fn serve(mut socket: TcpStream, shared: Arc<Shared>) -> Option<()> {
    let mut received = Vec::with_capacity(1024);
    loop {
        while !received.ends_with(b"\r\n\r\n") {
            if socket.read_buf(&mut received).await.ok()? == 0 {
                return None;
            }
        }
        received.clear();
        shared
            .arrivals
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(Instant::now());
        match shared.behaviour.load(Ordering::SeqCst) {
            hangs if hangs == Behaviour::Hangs as u8 => std::future::pending().await,
            closes if closes == Behaviour::Closes as u8 => return None,
            _ => {}
        }
        let place = shared.places.acquire().await.ok()?;
        tokio::time::sleep(within(&shared.takes)).await;
        drop(place);
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{}",
            shared.name
        );
        socket.write_all(answer.as_bytes()).await.ok()?;
    }
}

/// A random time of the range.
pub(super) fn within(range: &Range<Duration>) -> Duration {
    range.start + (range.end - range.start).mul_f64(super::random())
}
