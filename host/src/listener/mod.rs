//! Accepts connections on the sockets that the master has bound.

mod accept;
mod addresses;
mod shed;
mod socket;
mod watch;

use std::cell::Cell;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

pub use accept::{Acceptor, accept, accept_leftover};
pub use shed::Shedder;
pub use socket::ListeningSocket;

use addresses::Addresses;

use crate::config::{self, Bind, FieldNames, Linger, NonAsciiTarget, Rate};
use crate::connection;
use crate::http1::HeadLimits;
use crate::metrics::ListenerMetrics;
use crate::phase::Router;
use crate::transport::address::{ClientAddress, Network, ServerAddress};
use crate::transport::socket::Socket;
use crate::upstream::forwarded::Marks;
use crate::worker_context::WorkerContext;

pub struct Listener {
    pub name: Arc<str>,
    /// As in the config; an IP address may be unspecified.
    bind: ServerAddress,
    pub router: Router,
    pub head_limits: HeadLimits,
    /// 0: no limit.
    pub max_body_bytes: u64,
    pub head_timeout: Duration,
    pub body_timeout: Duration,
    pub send_timeout: Duration,
    pub idle_timeout: Duration,
    pub linger: Linger,
    pub half_close: Duration,
    pub body_rate: Rate,
    pub send_rate: Rate,
    pub marks: Marks,
    max_connections: usize,
    connections: Cell<usize>,
    max_connections_per_address: NonZeroU32,
    addresses: Addresses,
    pub metrics: ListenerMetrics,
    pub workspaces: connection::WorkspacePool,
    /// A connection has ended while the listener was full.
    room: Notify,
}

impl Listener {
    pub fn new(
        name: &str,
        config: &config::Listener,
        router: Router,
        metrics: ListenerMetrics,
        gateway_id: u64,
    ) -> Rc<Self> {
        Rc::new(Self {
            name: Arc::from(name),
            bind: match &config.bind {
                Bind::Tcp(address) => ServerAddress::from(*address),
                Bind::Unix(_) => ServerAddress::Unix(config.bind.to_string().into()),
            },
            router,
            head_limits: HeadLimits {
                max_head_bytes: config.max_head_bytes,
                max_fields: config.max_fields,
                any_names: config.field_names == FieldNames::Any,
                non_ascii_target: config.non_ascii_target == NonAsciiTarget::Encode,
            },
            max_body_bytes: config.max_body_bytes,
            head_timeout: config.head_timeout,
            body_timeout: config.body_timeout,
            send_timeout: config.send_timeout,
            idle_timeout: config.idle_timeout,
            linger: config.linger,
            half_close: config.half_close,
            body_rate: config.body_rate,
            send_rate: config.send_rate,
            marks: Marks::new(name, config.via, config.server.clone(), gateway_id),
            max_connections: config.max_connections,
            connections: Cell::new(0),
            max_connections_per_address: config.max_connections_per_address,
            addresses: Addresses::default(),
            metrics,
            workspaces: connection::WorkspacePool::default(),
            room: Notify::new(),
        })
    }

    /// The gateway's end of a connection; the kernel is asked only where the config does not tell.
    pub fn local_address(&self, stream: &Socket) -> ServerAddress {
        match (&self.bind, stream) {
            (ServerAddress::Tcp(bind), Socket::Tcp(stream)) if bind.ip().is_unspecified() => {
                // One that is gone already has none; reading tells soon enough.
                ServerAddress::from(stream.local_addr().unwrap_or(*bind))
            }
            (bind, _) => bind.clone(),
        }
    }

    /// Group of its connections that wait for a request: see [`crate::runtime::alarm::Alarms::end_longest`].
    pub fn idle_group(self: &Rc<Self>) -> usize {
        Rc::as_ptr(self).addr()
    }

    /// Has the connections end that have been idle longest, a few at a time, as nginx has it
    /// (`ngx_drain_connections`). False: none is idle.
    fn end_idle(self: &Rc<Self>, worker: &WorkerContext) -> bool {
        let most = (self.max_connections / 8).clamp(1, 32);
        let ended = worker.idle_alarms().end_longest(self.idle_group(), most);
        self.metrics.ended_idle.add(ended as f64);
        ended > 0
    }

    fn has_room(&self) -> bool {
        self.connections.get() < self.max_connections
    }

    fn count_connections(&self, count: usize) {
        self.connections.set(count);
        self.metrics.connections.set(count as f64);
    }
}

/// An open connection, counted until it is dropped, also by a panic.
struct ConnectionPermit {
    listener: Rc<Listener>,
    worker: Rc<WorkerContext>,
    /// Where connections of an address are counted.
    network: Option<Network>,
}

impl ConnectionPermit {
    /// `None`: the client has as many connections as it may.
    fn new(
        client: ClientAddress,
        listener: &Rc<Listener>,
        worker: &Rc<WorkerContext>,
    ) -> Option<Self> {
        let limit = listener.max_connections_per_address;
        let network = client.ip().map(Network::of);
        if let Some(network) = network
            && !listener.addresses.enter(network, limit)
        {
            listener.metrics.refused_address.inc();
            return None;
        }
        listener.metrics.accepted.inc();
        listener.count_connections(listener.connections.get() + 1);
        worker.connection_opened();
        Some(Self {
            listener: Rc::clone(listener),
            worker: Rc::clone(worker),
            network,
        })
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let Self {
            listener, network, ..
        } = self;
        if let Some(network) = *network {
            listener.addresses.leave(network);
        }
        listener.count_connections(listener.connections.get() - 1);
        listener.room.notify_waiters();
        self.worker.connection_closed();
    }
}
