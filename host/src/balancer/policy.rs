//! The policies by name, and the loads that they go by.

use std::rc::Rc;

use super::PluginPolicy;
use super::hashed::HashPolicy;
use super::latency::{Decay, Latency};
use super::slow_start::SlowStart;
use super::sticky::Sticky;
use super::sticky_learn::SessionStore;
use crate::config::{self, Balance, HashBalance};
use crate::upstream::Peer;
use crate::wasm::Plugin;

/// How an upstream's peers are chosen.
pub enum Policy {
    RoundRobin,
    LeastConn,
    LeastTime,
    Random,
    Ewma,
    Hash(HashPolicy),
    Target,
    Plugin(PluginPolicy),
}

/// A policy, and what else of the config has a say in it.
pub struct Rules {
    pub(super) policy: Policy,
    pub(super) slow_start: Option<SlowStart>,
    /// Zone whose peers are preferred. `None`: zones do not matter.
    pub(super) zone: Option<Rc<str>>,
    pub(super) sticky: Option<Sticky>,
    /// Whether nothing but the candidates and what was tried has a say in the choice, as with most upstreams.
    pub(super) asks_candidates_alone: bool,
}

impl Policy {
    /// Consistent hashing. The error is a line for a person.
    pub fn hash(config: &HashBalance) -> Result<Self, String> {
        HashPolicy::of_key(config).map(Self::Hash)
    }

    /// Whether it looks at the candidates alone: not at loads, not at the request.
    fn asks_candidates_alone(&self) -> bool {
        match self {
            Self::RoundRobin | Self::Random | Self::Ewma => true,
            Self::LeastConn | Self::LeastTime | Self::Hash(_) | Self::Target | Self::Plugin(_) => {
                false
            }
        }
    }

    /// Whether it is a plugin that asks for two peers of the host's drawing.
    pub(super) fn draws(&self) -> bool {
        match self {
            Self::Plugin(policy) => policy.draws(),
            Self::RoundRobin
            | Self::LeastConn
            | Self::LeastTime
            | Self::Random
            | Self::Ewma
            | Self::Hash(_)
            | Self::Target => false,
        }
    }

    /// Whether it is to be told when requests end.
    pub(super) fn goes_by_load(&self) -> bool {
        match self {
            Self::LeastConn | Self::LeastTime => true,
            Self::RoundRobin
            | Self::Random
            | Self::Ewma
            | Self::Hash(_)
            | Self::Target
            | Self::Plugin(_) => false,
        }
    }
}

impl Rules {
    /// `plugin`: the one of the config, where one chooses; it must implement `balance`. `store`: for sessions that are learnt. The
    /// error is a line for a person.
    pub fn new(
        name: &str,
        config: &config::Upstream,
        plugin: Option<&Rc<Plugin>>,
        store: Option<SessionStore>,
    ) -> Result<Self, String> {
        let policy = match (&config.balance, plugin) {
            (Balance::RoundRobin, _) => Policy::RoundRobin,
            (Balance::LeastConn, _) => Policy::LeastConn,
            (Balance::LeastTime, _) => Policy::LeastTime,
            (Balance::Random, _) => Policy::Random,
            (Balance::Ewma, _) => Policy::Ewma,
            (Balance::IpHash, _) => Policy::Hash(HashPolicy::of_client()),
            (Balance::Hash(hash), _) => Policy::hash(hash)?,
            (Balance::Target, _) => Policy::Target,
            (Balance::Plugin(_), Some(plugin)) => {
                Policy::Plugin(PluginPolicy::new(Rc::clone(plugin)))
            }
            (Balance::Plugin(name), None) => return Err(format!("plugin {name} is not there")),
        };
        let slow_start = config.slow_start.as_ref();
        let sticky = config.sticky.as_ref();
        let sticky = sticky.map(|it| Sticky::new(it, name, store));
        let sticky = sticky.transpose()?;
        Ok(Self {
            asks_candidates_alone: sticky.is_none() && policy.asks_candidates_alone(),
            policy,
            slow_start: slow_start.map(SlowStart::of),
            zone: config.zone.as_deref().map(Rc::from),
            sticky,
        })
    }
}

impl From<Policy> for Rules {
    fn from(policy: Policy) -> Self {
        Self {
            asks_candidates_alone: policy.asks_candidates_alone(),
            policy,
            slow_start: None,
            zone: None,
            sticky: None,
        }
    }
}

/// Load of a peer.
#[derive(Clone, Copy)]
pub(super) enum Load {
    /// Requests under way.
    Requests,
    /// Time that they and one more take, by the mean of what others took.
    MeanTime,
    /// Time by the peak of what others took.
    PeakTime,
}

impl Load {
    /// Whether the time has a say in it.
    pub(super) fn asks_time(self) -> bool {
        match self {
            Self::Requests => false,
            Self::MeanTime | Self::PeakTime => true,
        }
    }

    /// Load of a peer with so many requests under way.
    pub(super) fn of(self, peer: &Peer, active: u32, now_ns: u64) -> f64 {
        let latency = || Latency::load(peer.state.latency());
        let decayed = |latency: Latency| latency.decayed_seconds(now_ns, DECAY);
        let requests = f64::from(active);
        match self {
            Self::Requests => requests,
            Self::MeanTime => {
                let seconds = latency().map_or(0.0, decayed);
                clustered(seconds) * (requests + 1.0)
            }
            Self::PeakTime => {
                let unknown = Latency::UNKNOWN.as_secs_f32();
                let seconds = latency().map_or(unknown, decayed).max(FLOOR_SECONDS);
                f64::from(seconds) * (requests + 1.0)
            }
        }
    }
}

/// Times in steps of 20 ms, up to 5 s, so that peers that are about as quick take turns (nginx `least_time`).
fn clustered(seconds: f32) -> f64 {
    f64::from((seconds / STEP_SECONDS).floor().min(250.0)) + 1.0
}

const STEP_SECONDS: f32 = 0.02;

/// Below this, latencies do not differ: peers are told apart by their requests.
const FLOOR_SECONDS: f32 = 0.000_1;

/// Linkerd's and Finagle's default is 10 s as well.
pub(super) const DECAY: Decay = Decay::TEN_SECONDS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_apart_in_steps() {
        let steps = [0.0, 0.019, 0.021, 0.5, 4.99, 60.0].map(clustered);
        assert_eq!(steps, [1.0, 1.0, 2.0, 26.0, 250.0, 251.0]);
    }
}
