//! Parts that a request runs through without a plugin, for benchmarks: routing, the gateway's own balancing policies,
//! zones.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use http::HeaderValue;

use crate::balancer::{Balancer, Choice, Health, Parts, Policy, Tried};
pub use crate::config::HashMethod;
use crate::config::{self, HashBalance, PathCase, PathPolicy};
use crate::exchange::{Exchange, PeerFacts, Stage};
use crate::http1::{self, HeadProgress};
use crate::message::HeadLimits;
use crate::message::HeadRoom;
use crate::metrics::Count;
use crate::phase::{Plan, Router, Upstreams};
use crate::upstream::{Checks, KeepAlive, NewPeer, PassiveHealth, Peer, PeerStates};
use crate::zone::{CounterZone, Expected, Key, KvZone, now_ns, prepare_kv};

/// The routes of a config, without their plugins.
pub struct Routes(Router);

/// The head of a request.
pub struct Head(RefCell<Box<Exchange>>);

impl Routes {
    /// Loads the routes of a gateway's config file, as if it had one listener.
    pub fn load(file: &Path) -> Result<Self, String> {
        let config = config::load(file).map_err(|e| e.to_string())?;
        let plan = |name: &str| {
            Rc::new(Plan::new(
                Some(name.into()),
                Upstreams::None,
                &[],
                None,
                |_| false,
            ))
        };
        let routes = config.routes.iter().map(|route| (route, plan(&route.name)));
        let unrouted = Rc::new(Plan::new(None, Upstreams::None, &[], None, |_| false));
        Ok(Self(Router::new(
            Box::default(),
            unrouted,
            (PathPolicy::Normal, PathCase::Sensitive),
            routes.collect(),
        )))
    }

    /// Name of the route that takes the request.
    pub fn find(&self, head: &Head) -> Option<&str> {
        let plan = self.0.route(&mut head.0.borrow_mut()).ok()?;
        plan.route.as_deref()
    }
}

impl Head {
    pub fn parse(head: &[u8]) -> Result<Self, String> {
        let (mut progress, mut room) = (HeadProgress::default(), HeadRoom::default());
        let mut buf = BytesMut::from(head);
        let limits = HeadLimits::of(64 << 10);
        let parsed = http1::parse_request(&mut buf, &mut progress, &limits, &mut room);
        let parsed = parsed.map_err(|e| e.to_string())?;
        let mut exchange = Exchange::idle();
        *exchange.request_mut() = parsed.ok_or("the head has no end")?.head;
        Ok(Self(RefCell::new(exchange)))
    }
}

/// The peers of an upstream, with a policy of the gateway's own.
pub struct Peers {
    balancer: Rc<Balancer>,
    exchange: Box<Exchange>,
}

impl Peers {
    pub fn round_robin(count: u16) -> Result<Self, String> {
        Self::new(Policy::RoundRobin, count)
    }

    /// Weights from 1 to 7.
    pub fn weighted_round_robin(count: u16) -> Result<Self, String> {
        Self::weighted(Policy::RoundRobin, count, |n| 1 + u32::from(n % 7))
    }

    pub fn least_conn(count: u16) -> Result<Self, String> {
        Self::new(Policy::LeastConn, count)
    }

    pub fn least_time(count: u16) -> Result<Self, String> {
        Self::new(Policy::LeastTime, count)
    }

    pub fn random(count: u16) -> Result<Self, String> {
        Self::new(Policy::Random, count)
    }

    pub fn ewma(count: u16) -> Result<Self, String> {
        Self::new(Policy::Ewma, count)
    }

    /// By the request's path.
    pub fn hash(method: HashMethod, bounded: Option<f64>, count: u16) -> Result<Self, String> {
        let config = HashBalance {
            key: "$path".to_owned(),
            method,
            bounded,
        };
        Self::new(Policy::hash(&config)?, count)
    }

    fn new(policy: Policy, count: u16) -> Result<Self, String> {
        Self::weighted(policy, count, |_| 1)
    }

    fn weighted(policy: Policy, count: u16, weight: impl Fn(u16) -> u32) -> Result<Self, String> {
        let states = PeerStates::private().map_err(|e| e.to_string())?;
        let (name, state) = (Arc::from("bench"), states.of(count.into()));
        let parts = Parts {
            upstream: &name,
            state,
            peers: peers(count, weight, &states),
            health: Health {
                passive: PassiveHealth::new(&config::Passive::default()),
                checks: Checks::None,
                panic_threshold: 0.0,
            },
        };
        let balancer = Balancer::new(parts, policy.into());
        let mut exchange = Exchange::idle();
        exchange.enter(Stage::Balance);
        Ok(Self { balancer, exchange })
    }

    /// Chooses a peer for a request that is over at once: its slot.
    pub fn choose(&mut self) -> Option<u32> {
        let chosen = self
            .balancer
            .choose(&Tried::default(), None, &mut self.exchange);
        match chosen {
            Ok(Choice::Peer(peer)) => Some(peer.slot),
            Ok(Choice::Full | Choice::Nobody) | Err(_) => None,
        }
    }
}

fn peers(count: u16, weight: impl Fn(u16) -> u32, states: &PeerStates) -> Vec<Peer> {
    let address = |n| SocketAddr::from((Ipv4Addr::LOCALHOST, 1 + n));
    let host = HeaderValue::from_static("peer");
    let keep_alive = KeepAlive::new("bench", 0, Duration::ZERO, Count::NOWHERE);
    let peer = |n: u16| {
        let new = NewPeer {
            slot: n.into(),
            address: address(n).into(),
            host: host.clone(),
            tls: None,
            weight: weight(n),
            is_backup: false,
            zone: None,
            route: None,
            facts: PeerFacts::default(),
            max_active: 0,
            room: None,
            state: states.of(n.into()),
        };
        Peer::new(new, &keep_alive)
    };
    (0..count).map(peer).collect()
}

/// A counter zone.
pub struct Counters(CounterZone);

impl Counters {
    pub fn new() -> Result<Self, String> {
        let zone = CounterZone::create("bench", 1 << 20, now_ns());
        zone.map(Self).map_err(|e| e.to_string())
    }

    /// Counts one more in the present minute; returns the sum.
    pub fn add(&self, key: &[u8]) -> u64 {
        self.0.add(key, 1, Duration::from_secs(60), now_ns())
    }
}

/// A kv zone.
pub struct Values(KvZone);

impl Values {
    /// Zone in a folder that is not there yet.
    pub fn new(folder: &Path) -> Result<Self, String> {
        let bytes = 16 << 20;
        prepare_kv(folder, "bench", bytes).map_err(|e| e.to_string())?;
        let zone = KvZone::open(folder, "bench", bytes);
        zone.map(Self).map_err(|e| e.to_string())
    }

    /// The length of a key's value.
    pub fn read(&self, key: &[u8]) -> Result<Option<usize>, String> {
        let key = Key::new(key).map_err(|e| e.to_string())?;
        let read = self.0.read(&key, now_ns(), <[u8]>::len);
        read.map_err(|e| e.to_string())
    }

    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<bool, String> {
        let key = Key::new(key).map_err(|e| e.to_string())?;
        let put = self.0.put(&key, value, None, Expected::Anything, now_ns());
        put.map_err(|e| e.to_string())
    }
}
