//! The product of one generation in one worker: its plugins, upstreams, listeners and routes, and the traffic under way.

mod acme;
mod build;
mod cache;
mod check;
mod describe;
mod describe_upstream;
mod host_calls;
mod route;
mod services;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use castling_abi::Hook;
use serde::{Deserialize, Serialize};

use crate::config::{Accept, Config};
use crate::flow::{timer, topic};
use crate::listener::{Acceptor, ListeningSocket};
use crate::log;
use crate::metrics::Recorder;
use crate::transport::tls::TicketChain;
use crate::upstream::{PeerList, PeerStates};
use crate::wasm::{FileVersion, GrantedFiles, Plugin, PluginStatus, TimerOn};
use crate::worker_context::WorkerContext;
use crate::zone::{self, Flights, Zone, ZoneStatus, Zones};

pub use route::{Question, text as route_text};

/// Identity of a gateway: the same in all its workers, generations and upgrades.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Identity {
    /// Number by which requests that come back are known ([`crate::message::forwarded::Marks`]).
    pub id: u64,
    /// Secrets of session tickets.
    pub ticket_chain: TicketChain,
}

/// Memory that a worker shares with the others, and files that its master has opened for it.
pub struct SharedMemory {
    pub zones: Zones,
    pub metrics: Recorder,
    pub peers: PeerStates,
    pub flights: Arc<Flights>,
    /// Spill file of this worker.
    pub spill_file: Option<OwnedFd>,
    pub files: GrantedFiles,
}

pub struct Gateway {
    config: Rc<Config>,
    plugins: BTreeMap<String, Rc<Plugin>>,
    /// Further pools of these plugins, with configs of listeners and routes.
    pools: Vec<Rc<Plugin>>,
    acceptors: BTreeMap<String, Rc<Acceptor>>,
    zones: Zones,
    files: GrantedFiles,
    worker: Rc<WorkerContext>,
    /// Sockets that are accepted on.
    sockets: RefCell<Vec<(Rc<Acceptor>, Rc<ListeningSocket>)>>,
}

/// Part of one worker in `castling status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayStatus {
    pub connections: usize,
    pub requests_active: usize,
    pub requests_total: u64,
    pub plugins: Vec<PluginStatus>,
    pub zones: Vec<ZoneStatus>,
}

impl Gateway {
    /// Has plugins read this version of a granted file from now on.
    pub fn set_file(&self, path: &Path, version: FileVersion) {
        if let Some(file) = self.files.get(path) {
            file.replace(version);
        }
    }

    /// Begins to serve: what the generation's plugins have defined as metrics is shown. Before anything is accepted.
    pub fn begin_to_serve(&self) {
        self.worker.metrics().serve();
    }

    /// Starts to accept on a bound and listening socket of this listener.
    pub fn accept(&self, listener: &str, socket: OwnedFd, accept: Accept) -> io::Result<()> {
        let Some(acceptor) = self.acceptors.get(listener) else {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("there is no listener {listener}"),
            ));
        };
        let socket = Rc::new(ListeningSocket::new(socket, accept)?);
        tokio::task::spawn_local(Rc::clone(acceptor).accept(Rc::clone(&socket)));
        let mut sockets = self.sockets.borrow_mut();
        sockets.push((Rc::clone(acceptor), socket));
        Ok(())
    }

    /// Starts what plugins do for no request: their timers, those for one worker of the generation only where this is that one, and what
    /// they hear on topics.
    pub fn start_background(&self, is_the_one: bool) {
        self.start_timers(is_the_one);
        self.listen_to_topics();
    }

    fn start_timers(&self, is_the_one: bool) {
        for (name, plugin) in &self.plugins {
            let Some(timer) = plugin.manifest.timer else {
                continue;
            };
            if timer.on == TimerOn::OneWorker && !is_the_one {
                continue;
            }
            let every = self.config.plugins[name].timer;
            let every = every.unwrap_or(Duration::from_millis(timer.every_ms));
            tokio::task::spawn_local(timer::run(
                Rc::clone(plugin),
                every,
                Rc::clone(&self.worker),
            ));
        }
    }

    /// Has plugins hear what is published on topics that they are granted, until the worker drains.
    fn listen_to_topics(&self) {
        for (name, plugin) in &self.plugins {
            if !plugin.implements(Hook::Message) {
                continue;
            }
            for (idx, zone, topic) in plugin.topics() {
                let metrics = self.worker.metrics().topic(zone, name);
                let reader = topic::Reader::new(plugin, idx, topic, metrics);
                tokio::task::spawn_local(reader.run(Rc::clone(&self.worker)));
            }
        }
    }

    /// Has this worker check peers, until it drains. One worker of the gateway is enough.
    pub fn look_after_peers(&self) {
        for upstream in self.worker.upstreams() {
            let (upstream, worker) = (Rc::clone(upstream), Rc::clone(&self.worker));
            tokio::task::spawn_local(async move {
                tokio::select! {
                    () = upstream.look_after_peers() => {}
                    () = worker.drain_begins() => {}
                }
            });
        }
    }

    /// Has this worker remove what has expired in kv zones. One worker of a generation is enough.
    pub fn sweep_zones(&self) {
        for zone in self.zones.values() {
            if let Zone::Kv(_) | Zone::Cache(_) = **zone {
                tokio::task::spawn_local(zone::sweep(Arc::clone(zone)));
            }
        }
    }

    /// No connection is accepted any more when this returns.
    pub fn stop_accepting(&self) {
        self.worker.begin_drain();
        for (acceptor, socket) in self.sockets.take() {
            acceptor.accept_leftover(&socket);
        }
    }

    /// Stops accepting and lets connections finish. Returns when none is left, or after the time-out; what is left
    /// then ends with the process.
    pub async fn drain(&self, timeout: Duration) {
        for upstream in self.worker.upstreams() {
            upstream.leave_cold();
        }
        self.worker.drain(timeout).await;
    }

    /// Has an upstream balance among these peers from now on. An upstream that this generation does not have is no matter.
    pub fn set_peers(&self, upstream: &str, list: &PeerList) {
        let mut upstreams = self.worker.upstreams().iter();
        if let Some(upstream) = upstreams.find(|it| *it.name == *upstream)
            && let Err(error) = upstream.set_peers(list)
        {
            tracing::error!(upstream = %upstream.name, "its peers stay as they were: {error}");
        }
    }

    pub fn status(&self) -> GatewayStatus {
        GatewayStatus {
            connections: self.worker.connections(),
            requests_active: self.worker.requests_active(),
            requests_total: self.worker.requests_total(),
            plugins: self
                .plugins
                .values()
                .chain(self.pools.iter().filter(|pool| {
                    let first = &self.plugins[&*pool.name];
                    !Rc::ptr_eq(first, pool)
                }))
                .map(|plugin| plugin.status())
                .collect(),
            // A zone that cannot be looked at now is told where it is used.
            zones: self
                .zones
                .iter()
                .filter_map(|(name, zone)| zone.status(name).ok())
                .collect(),
        }
    }

    /// Resolves when much memory has been freed that the allocator may still hold.
    pub async fn memory_ebbs(&self) {
        self.worker.heap_trim.due().await;
    }

    pub fn reopen_logs(&self) {
        log::reopen(None);
        self.worker.reopen_access_log();
    }
}
