//! Accepts connections on the sockets that the master has bound.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tracing::{debug, warn};

use crate::config;
use crate::connection;
use crate::metrics::ListenerMetrics;
use crate::phase::Router;
use crate::worker::Worker;

pub struct Listener {
    pub name: Arc<str>,
    /// As in the config; the address may be unspecified and the port 0.
    bind: SocketAddr,
    pub router: Router,
    pub max_head_bytes: usize,
    /// 0: no limit.
    pub max_body_bytes: u64,
    pub head_timeout: Duration,
    pub body_timeout: Duration,
    pub send_timeout: Duration,
    pub idle_timeout: Duration,
    max_connections: usize,
    connections: Cell<usize>,
    pub metrics: ListenerMetrics,
    pub desks: connection::Desks,
    /// A connection has ended while the listener was full.
    room: Notify,
}

/// After an accept that failed for want of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);

impl Listener {
    pub fn new(
        name: &str,
        config: &config::Listener,
        router: Router,
        metrics: ListenerMetrics,
    ) -> Rc<Self> {
        Rc::new(Self {
            name: Arc::from(name),
            bind: config.bind,
            router,
            max_head_bytes: config.max_head_bytes,
            max_body_bytes: config.max_body_bytes,
            head_timeout: config.head_timeout,
            body_timeout: config.body_timeout,
            send_timeout: config.send_timeout,
            idle_timeout: config.idle_timeout,
            max_connections: config.max_connections,
            connections: Cell::new(0),
            metrics,
            desks: connection::Desks::default(),
            room: Notify::new(),
        })
    }

    /// The gateway's end of a connection; the kernel is asked only where the config does not tell.
    pub fn local_address(&self, stream: &TcpStream) -> SocketAddr {
        if !self.bind.ip().is_unspecified() && self.bind.port() != 0 {
            return self.bind;
        }
        // One that is gone already has none; reading tells soon enough.
        stream.local_addr().unwrap_or(self.bind)
    }

    fn count_connections(&self, count: usize) {
        self.connections.set(count);
        self.metrics.connections.set(count as f64);
    }
}

/// Accepts until the worker drains. The socket stays open in the master, so what is queued in it then is for the next
/// generation.
pub async fn accept(socket: TcpListener, listener: Rc<Listener>, worker: Rc<Worker>) {
    while !worker.is_draining() {
        if listener.connections.get() >= listener.max_connections {
            tokio::select! {
                () = listener.room.notified() => continue,
                () = worker.drain_begins() => return,
            }
        }
        let accepted = tokio::select! {
            biased;
            () = worker.drain_begins() => return,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => admit(stream, address, &listener, &worker),
            Err(error) => {
                if let Some(pause) = pause_after(&error) {
                    warn!(listener = %listener.name, "connections wait: {error}");
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
}

/// Errors of the connection that would have been accepted are nothing to wait for (accept(2)).
fn pause_after(error: &io::Error) -> Option<Duration> {
    let errno = Errno::from_io_error(error)?;
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    exhausted.contains(&errno).then_some(PAUSE)
}

fn admit(stream: TcpStream, address: SocketAddr, listener: &Rc<Listener>, worker: &Rc<Worker>) {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(client = %address, "connection ended at once: {error}");
        return;
    }
    let counted = Counted::new(listener, worker);
    let (listener, worker) = (Rc::clone(listener), Rc::clone(worker));
    tokio::task::spawn_local(connection::serve(
        stream, address, listener, worker, counted,
    ));
}

/// An open connection, counted until it is dropped, also by a panic.
struct Counted {
    listener: Rc<Listener>,
    worker: Rc<Worker>,
}

impl Counted {
    fn new(listener: &Rc<Listener>, worker: &Rc<Worker>) -> Self {
        listener.metrics.accepted.inc();
        listener.count_connections(listener.connections.get() + 1);
        worker.connection_opened();
        Self {
            listener: Rc::clone(listener),
            worker: Rc::clone(worker),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let connections = self.listener.connections.get() - 1;
        self.listener.count_connections(connections);
        self.listener.room.notify_one();
        self.worker.connection_closed();
    }
}
