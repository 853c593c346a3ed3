//! Closed-loop load whose every request comes on a connection of its own with TLS. wrk does not come back to sessions, and
//! what a client of the benchmark costs is not counted.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use rustls::client::Resumption;

use super::front::Front;
use super::socket::{self, Socket};
use super::wrk::Answered;

/// Load that is to be sent.
#[derive(Clone, Debug)]
pub(super) struct Handshakes {
    pub(super) front: Front,
    pub(super) address: SocketAddr,
    /// Threads, each with one connection at a time.
    pub(super) clients: u32,
    /// Whether each connection comes back to the session of the one before; one that does not has failed.
    pub(super) resumed: bool,
    pub(super) request: Vec<u8>,
}

/// Clients that are ready: where they come back to sessions, each has one.
pub(super) struct Clients<'a> {
    load: &'a Handshakes,
    configs: Vec<Arc<ClientConfig>>,
}

impl Handshakes {
    pub(super) fn clients(&self) -> Result<Clients<'_>, String> {
        let config = || -> std::io::Result<Arc<ClientConfig>> {
            if !self.resumed {
                return socket::client(self.front, Resumption::disabled());
            }
            let config = socket::client(self.front, Resumption::in_memory_sessions(4))?;
            self.request(&config)?;
            Ok(config)
        };
        let configs = (0..self.clients).map(|_| config());
        let configs: std::io::Result<Vec<_>> = configs.collect();
        Ok(Clients {
            load: self,
            configs: configs.map_err(|e| format!("a first connection: {e}"))?,
        })
    }

    /// Whether it was answered by a 200, on a connection such as is asked for.
    fn request(&self, config: &Arc<ClientConfig>) -> std::io::Result<bool> {
        let mut socket = Socket::connect_tls(config, self.address, PATIENCE)?;
        socket.write_all(&self.request)?;
        let mut reply = Vec::with_capacity(1 << 10);
        // To the end: tickets come before the response, and who closes first is the same for all peers.
        socket.read_to_end(&mut reply)?;
        Ok(reply.starts_with(b"HTTP/1.1 200 ") && socket.is_resumed() == self.resumed)
    }
}

impl Clients<'_> {
    pub(super) fn run(&self, seconds: f64) -> Answered {
        let begun = Instant::now();
        let end = begun + Duration::from_secs_f64(seconds);
        let client = |config| {
            let mut counts = (0, 0);
            while Instant::now() < end {
                match self.load.request(config) {
                    Ok(true) => counts.0 += 1,
                    Ok(false) | Err(_) => counts.1 += 1,
                }
            }
            counts
        };
        let mut answered = Answered::default();
        thread::scope(|scope| {
            let threads = self
                .configs
                .iter()
                .map(|config| scope.spawn(move || client(config)));
            let threads: Vec<_> = threads.collect();
            for thread in threads {
                let (requests, failed) = thread.join().unwrap_or((0, 1));
                answered.requests += requests;
                answered.failed += failed;
            }
        });
        answered.seconds = begun.elapsed().as_secs_f64();
        answered
    }
}

const PATIENCE: Duration = Duration::from_secs(10);
