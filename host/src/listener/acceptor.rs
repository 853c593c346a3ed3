//! Takes connections from a listening socket for as long as the worker may have more.

use std::cell::Cell;
use std::io;
use std::num::NonZeroU32;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tracing::{debug, warn};

use super::addresses::Addresses;
use super::admit::admit;
use super::{ListeningSocket, Shedder};
use crate::config::{self, Bind, ProxyProtocol};
use crate::connection::Serving;
use crate::error::is_shortage;
use crate::service::Service;
use crate::transport::Socket;
use crate::transport::address::ServerAddress;
use crate::transport::tls::ServerTls;
use crate::worker_context::WorkerContext;

/// Takes connections from the sockets of one listener, within its limits, for one worker.
pub struct Acceptor {
    serving: Rc<Serving>,
    shedder: Rc<Shedder>,
    /// Address as in the config; an IP address may be unspecified.
    bind: ServerAddress,
    /// Proxies that say for whom a connection is.
    proxy_protocol: Option<ProxyProtocol>,
    /// `None`: connections are plain.
    tls: Option<Rc<ServerTls>>,
    max_connections: usize,
    connections: Cell<usize>,
    pub(super) max_connections_per_address: NonZeroU32,
    pub(super) addresses: Addresses,
    /// A connection has ended while the listener was full.
    pub(super) room: Notify,
}

/// Connections that are taken at once from a worker's own socket, before the worker turns to those that it has.
const BATCH: usize = 16;

/// From a shared socket: one, as nginx does, so that others have their share of many that come at once. Measured with 400
/// connections and 8 workers on two busy cores, the most that one worker had was 122 in the mean, with a batch of 8 it was 151.
const SHARED_BATCH: usize = 1;

/// After an accept that failed for want of memory, or of descriptors where the connection could not be shed either.
const PAUSE: Duration = Duration::from_millis(100);

/// How often a worker looks at a shared socket that it has not been woken for. The kernel wakes one worker for a
/// connection; where that one cannot take it, since it has just become full on another socket of the listener or has no
/// descriptor, nobody else is told. As long as nginx's `accept_mutex_delay` by default.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Interval at which a full worker looks whether a connection waits for room. Other workers have so long to take one from a
/// shared socket.
const LOOK_FULL: Duration = Duration::from_millis(50);

impl Acceptor {
    pub fn new(
        config: &config::Listener,
        tls: Option<Rc<ServerTls>>,
        serving: Rc<Serving>,
        shedder: &Rc<Shedder>,
    ) -> Rc<Self> {
        Rc::new(Self {
            serving,
            shedder: Rc::clone(shedder),
            bind: match &config.bind {
                Bind::Tcp(address) => ServerAddress::from(*address),
                Bind::Unix(_) => ServerAddress::Unix(config.bind.to_string().into()),
            },
            proxy_protocol: config.proxy_protocol.clone(),
            tls,
            max_connections: config.limits.max_connections,
            connections: Cell::new(0),
            max_connections_per_address: config.limits.max_connections_per_address,
            addresses: Addresses::default(),
            room: Notify::new(),
        })
    }

    pub fn service(&self) -> &Rc<Service> {
        &self.serving.service
    }

    pub(super) fn worker(&self) -> &Rc<WorkerContext> {
        &self.serving.worker
    }

    pub(super) fn proxy_protocol(&self) -> Option<&ProxyProtocol> {
        self.proxy_protocol.as_ref()
    }

    pub fn tls(&self) -> Option<&Rc<ServerTls>> {
        self.tls.as_ref()
    }

    pub(super) fn serving(&self) -> &Rc<Serving> {
        &self.serving
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.get()
    }

    pub(super) fn count_connections(&self, count: usize) {
        self.connections.set(count);
        self.service().metrics.connections.set(count as f64);
    }

    /// Gateway's end of a connection; the kernel is asked only where the config does not tell.
    pub(super) fn local_address(&self, socket: &Socket) -> ServerAddress {
        match (&self.bind, socket) {
            (ServerAddress::Tcp(bind), Socket::Tcp(socket)) if bind.ip().is_unspecified() => {
                // A socket that is closed already has none; reading tells soon enough.
                ServerAddress::from(socket.local_addr().unwrap_or(*bind))
            }
            (bind, _) => bind.clone(),
        }
    }

    /// Has the connections end that have been idle longest, a few at a time, as nginx has it
    /// (`ngx_drain_connections`). False: none is idle.
    fn end_idle(&self) -> bool {
        let most = (self.max_connections / 8).clamp(1, 32);
        let group = self.service().idle_group();
        let ended = self.worker().idle_alarms().end_longest(group, most);
        self.service().metrics.ended_idle.add(ended as f64);
        ended > 0
    }

    fn has_room(&self) -> bool {
        self.connections.get() < self.max_connections
    }

    /// Accepts until the worker drains. The socket stays open in the master, so what is queued in it then is for the next
    /// generation.
    pub async fn accept(self: Rc<Self>, socket: Rc<ListeningSocket>) {
        let worker = self.worker();
        while !worker.is_draining() {
            if let Err(error) = self.step(&socket).await {
                debug!(listener = %self.service().name, "connections wait: {error}");
                self.shedder.paused();
                // A connection that this worker cannot take is for another.
                socket.leave();
                tokio::select! {
                    () = self.pause(&socket) => {}
                    () = worker.drain_begins() => return,
                }
            }
        }
    }

    /// Retries until the socket is registered with epoll again. An unregistered socket would never wake this task.
    async fn pause(&self, socket: &ListeningSocket) {
        let mut is_told = false;
        loop {
            tokio::time::sleep(PAUSE).await;
            match socket.join() {
                Ok(()) => return,
                Err(error) if is_told => debug!(listener = %self.service().name, "still: {error}"),
                Err(error) => {
                    warn!(listener = %self.service().name, "socket cannot be waited on, tried again: {error}");
                    is_told = true;
                }
            }
        }
    }

    /// Once a worker has begun to drain. It may have been woken for a connection on a shared socket that it has not taken
    /// yet; the kernel has told nobody else, so it is this worker's still.
    pub fn accept_leftover(self: &Rc<Self>, socket: &ListeningSocket) {
        if socket.is_shared() {
            socket.leave();
            // A connection that cannot be taken is met by the next worker that is woken.
            let _ = self.take(socket);
        }
    }

    /// Waits for a turn and takes what there is.
    async fn step(self: &Rc<Self>, socket: &ListeningSocket) -> io::Result<()> {
        let worker = self.worker();
        if !self.has_room() {
            return self.make_room(socket).await;
        }
        let turn = tokio::select! {
            biased;
            () = worker.drain_begins() => return Ok(()),
            turn = socket.turn() => turn?,
            () = tokio::time::sleep(LOOK_EVERY), if socket.is_shared() => {
                // Joining tells of what is queued.
                return socket.join();
            }
        };
        let is_empty = self.take(socket)?;
        turn.end(is_empty)?;
        if !is_empty {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Waits until there may be room for one more, and has idle connections end where one waits for it.
    async fn make_room(&self, socket: &ListeningSocket) -> io::Result<()> {
        // A connection on a shared socket is for a worker that has room, if one has.
        socket.leave();
        let mut room = pin!(self.room.notified());
        loop {
            tokio::select! {
                () = &mut room => break,
                () = self.worker().drain_begins() => return Ok(()),
                () = tokio::time::sleep(LOOK_FULL) => {}
            }
            if socket.has_queued() {
                self.end_idle();
            }
        }
        socket.join()
    }

    /// Takes a batch of connections. Whether none was left.
    fn take(self: &Rc<Self>, socket: &ListeningSocket) -> io::Result<bool> {
        let batch = match socket.is_shared() {
            true => SHARED_BATCH,
            false => BATCH,
        };
        for _ in 0..batch {
            if !self.has_room() {
                return Ok(false);
            }
            match socket.accept() {
                Ok(Some((socket, client))) => admit(socket, client, self),
                Ok(None) => return Ok(true),
                Err(error) if is_shortage(&error) => {
                    if !self.shedder.shed(socket, self.service())? {
                        return Ok(true);
                    }
                }
                // Errors of the connection that would have been accepted (accept(2)).
                Err(error) => {
                    debug!(listener = %self.service().name, "connection ended at once: {error}")
                }
            }
        }
        Ok(false)
    }
}
