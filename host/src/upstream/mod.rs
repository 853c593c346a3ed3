//! An upstream: its peers, its kept connections, and one exchange with it.

mod alternate;
mod budget;
mod connect;
mod gradient;
mod health;
mod hedge;
mod host_calls;
mod http;
mod key_variables;
mod learnt;
mod life;
mod limiter;
mod mirror;
mod multiplex;
mod open_connection;
mod pause;
mod peer;
mod peer_list;
mod peer_set;
mod pool;
mod protection;
mod queue;
mod raw;
mod settings;
mod state;
mod tries;
mod upload;
mod warm;
mod warming;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use ::http::HeaderValue;

pub use self::http::{Body, Moved, TunnelEnd};
pub use health::PassiveHealth;
pub use host_calls::HostCalls;
pub use mirror::Mirror;
pub use peer::{Active, Ends, NewPeer, Peer};
pub use peer_list::{LIMIT_CELLS, PeerEntry, PeerFactory, PeerList};
pub use peer_set::PeerSet;
pub use pool::KeepAlive;
use queue::Queue;
pub use raw::RawConnection;
pub use settings::ProxySettings;
pub use state::{Availability, Checks, LastCheck, PeerFacts, PeerState, PeerStates, Standing};
pub use tries::{Proxied, send};
pub use upload::UploadSource;

use crate::balancer::Balancer;
use crate::config::{self, HeaderVersion, PeerProtocol, UpstreamHost};
use crate::http2::ClientBuilder;
use crate::message::HeadLimits;
use crate::metrics::UpstreamMetrics;
use crate::runtime::alarm::Alarms;
use budget::Budget;
use protection::Protection;

#[cfg(test)]
pub use peer::tests as peer_tests;

pub struct Upstream {
    pub name: Arc<str>,
    pub balancer: Rc<Balancer>,
    factory: PeerFactory,
    alarms: Alarms,
    host: Host,
    settings: Rc<ProxySettings>,
    /// Variables that plugins may compute, and by which a peer is chosen.
    pub key_variables: Box<[Box<str>]>,
    /// `None`: retries are not limited.
    budget: Option<Budget>,
    connect_options: connect::Options,
    /// `None`: it takes whatever comes.
    protection: Option<Box<Protection>>,
    proxy_protocol: Option<HeaderVersion>,
    protocol: PeerProtocol,
    http2: ClientBuilder,
    head_limits: HeadLimits,
    /// No connections are made in advance any more.
    is_left_cold: Cell<bool>,
    queue: Queue,
    check: Option<config::HealthCheck>,
    metrics: UpstreamMetrics,
}

/// Which `Host` a peer is sent.
enum Host {
    Client,
    Peer,
    Fixed(HeaderValue),
}

impl Upstream {
    /// `shared`: so many workers share what is limited for all of them, and the states of the cells that limits are counted in.
    pub fn new(
        name: &str,
        config: &config::Upstream,
        balancer: Rc<Balancer>,
        factory: PeerFactory,
        alarms: &Alarms,
        metrics: UpstreamMetrics,
        shared: (usize, &[PeerState]),
    ) -> Rc<Self> {
        let host = match &config.host {
            UpstreamHost::Client => Host::Client,
            UpstreamHost::Peer => Host::Peer,
            // Checked when the config was read.
            UpstreamHost::Fixed(text) => {
                HeaderValue::from_str(text).map_or(Host::Client, Host::Fixed)
            }
        };
        let head_limits = HeadLimits {
            max_fields: config.max_fields,
            // The operator has chosen the peers.
            any_names: true,
            ..HeadLimits::of(config.max_head_bytes)
        };
        let protection = Protection::new(config, shared, balancer.state(), metrics.protection);
        Rc::new(Self {
            name: Arc::from(name),
            balancer,
            alarms: alarms.clone(),
            host,
            settings: Rc::new(ProxySettings::of(config)),
            key_variables: key_variables::of(config),
            budget: config
                .retry
                .budget
                .map(|budget| Budget::new(&budget, shared.0)),
            connect_options: connect::Options::of(config),
            protection,
            proxy_protocol: config.proxy_protocol,
            protocol: config.protocol,
            http2: ClientBuilder::new(&head_limits),
            head_limits,
            is_left_cold: Cell::new(false),
            queue: Queue::new(&config.queue, Rc::clone(factory.room())),
            factory,
            check: config.check.clone(),
            metrics,
        })
    }

    /// Balances among these peers from now on. Those that stay keep their connections and what is known of them; one that has
    /// left is dropped with the last of what is under way there. The error is a line for a person, and changes nothing.
    pub fn set_peers(&self, list: &PeerList) -> Result<(), String> {
        let before = self.balancer.peers();
        self.balancer.swap(self.factory.set(list, &before)?);
        // One that has just come may have room.
        self.factory.room().notify_one();
        Ok(())
    }

    /// Whether its peers may take calls of gRPC: by HTTP/2.
    pub fn takes_calls(&self) -> bool {
        self.protocol != PeerProtocol::Http1
    }

    /// Whether requests share connections to the peer, as far as is known.
    fn shares_connections(&self, peer: &Peer) -> bool {
        match self.protocol {
            PeerProtocol::Http1 => false,
            PeerProtocol::Http2 => true,
            PeerProtocol::Auto => peer.multiplex.is_chosen(),
        }
    }

    /// How requests are sent that nothing else is said of.
    pub fn settings(&self) -> &Rc<ProxySettings> {
        &self.settings
    }

    /// Makes the checks of the peers, and compares their success rates, for ever. One worker of the gateway is to.
    pub async fn look_after_peers(self: Rc<Self>) {
        tokio::join!(
            health::active::run(Rc::clone(&self)),
            self.balancer.compare_success_rates()
        );
    }

    /// Closes kept connections that are old or that their peers have closed, for ever. Run by a task of the worker.
    pub async fn sweep(self: Rc<Self>) {
        loop {
            tokio::time::sleep(pool::SWEEP_INTERVAL).await;
            let now = Instant::now();
            for peer in self.balancer.peers().as_slice() {
                peer.pool.sweep(now);
                peer.multiplex.sweep(now);
            }
        }
    }
}
