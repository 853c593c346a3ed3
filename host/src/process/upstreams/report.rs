//! Upstreams in `castling status`: their peers, and where these come from.

use std::rc::{Rc, Weak};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::upstream::{Availability, LastCheck, PeerEntry, PeerFacts, PeerStates, Standing};
use crate::zone::now_ns;

use super::operator::Orders;
use super::source::SourceReport;
use super::{GenerationPeers, UpstreamPeers, Upstreams};

/// An upstream of the newest generation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UpstreamReport {
    pub name: String,
    pub peers: Vec<PeerReport>,
    /// Addresses that are listed, and that the operator has taken out.
    #[serde(default)]
    pub removed: Vec<String>,
}

/// A peer, as the master has told it its workers, and what is known of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PeerReport {
    pub slot: u32,
    pub address: String,
    /// Name by which it is listed.
    pub host: String,
    /// Weight that counts: the operator's, or the one that it is listed with.
    pub weight: u32,
    /// The part of it that the peer has now, while it is slow-started.
    pub weight_now: f64,
    pub backup: bool,
    /// `up`, or why it gets no new requests: `draining` and `down` by the operator's order, `unhealthy` by its checks,
    /// `unchecked` before the first of them, `ejected` for its failures. Empty from a master that does not tell.
    pub state: String,
    /// Who has set the state: `operator`, `checks` or `requests`; empty where nobody has.
    pub by: String,
    /// Seconds until an ejected peer is back.
    pub ejected_seconds: Option<f64>,
    /// Failures of requests in a row.
    pub failures: u32,
    /// Last check; None where there are no checks, or none was made.
    pub check: Option<CheckReport>,
    /// Requests under way there, from all workers.
    pub active: u32,
    /// Open connections there, from all workers.
    pub connections: u32,
    /// Orders of the operator, in words; empty where that is nothing.
    pub operator: String,
}

/// Last check of a peer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CheckReport {
    /// Whether it has passed.
    pub passed: bool,
    /// Seconds since then.
    pub age_seconds: Option<f64>,
    /// Time that it took.
    pub latency_seconds: f64,
    /// Checks in a row that speak against the state that checks have found.
    pub against: u32,
    /// Seconds since that state is so.
    pub state_seconds: Option<f64>,
}

impl Upstreams {
    /// Upstreams of a generation.
    pub fn report(&self, generation: &GenerationPeers) -> Vec<UpstreamReport> {
        let states = PeerStates::new(Rc::clone(self.zone()), None);
        let (orders, now_ns) = (self.orders.borrow(), now_ns());
        let none = Orders::default();
        let report = |(name, peers): (&String, &UpstreamPeers)| {
            let orders = orders.get(name).unwrap_or(&none);
            let entries = peers.leased.list.peers.iter();
            let of = |entry| PeerReport::of(entry, peers, orders, (&states, now_ns));
            UpstreamReport {
                name: name.clone(),
                peers: entries.map(of).collect(),
                removed: orders.removed(),
            }
        };
        generation.with_lists(|lists| lists.iter().map(report).collect())
    }

    /// Sources of peers that some generation has.
    pub fn sources(&self) -> Vec<SourceReport> {
        let sources = self.sources.borrow();
        let sources = sources.iter().filter_map(Weak::upgrade);
        sources.map(|source| source.report()).collect()
    }
}

impl PeerReport {
    fn of(
        entry: &PeerEntry,
        upstream: &UpstreamPeers,
        orders: &Orders,
        (states, now_ns): (&PeerStates, u64),
    ) -> Self {
        let state = states.of(entry.cell);
        let facts = state.facts(upstream.checks, now_ns);
        let weight = state.ordered_weight().unwrap_or(entry.weight);
        let part = upstream
            .slow_start
            .map_or(1.0, |ramp| ramp.part(facts.came_up_ns, now_ns));
        Self {
            slot: entry.slot,
            address: entry.address.to_string(),
            host: entry.host.clone(),
            weight,
            weight_now: f64::from(weight) * part,
            backup: entry.is_backup,
            state: facts.availability.name().to_owned(),
            by: set_by(&facts).to_owned(),
            ejected_seconds: match facts.availability {
                Availability::Ejected { until_ns } => Some(seconds(until_ns - now_ns)),
                Availability::Available
                | Availability::Draining
                | Availability::Down
                | Availability::Unhealthy
                | Availability::Unchecked => None,
            },
            failures: facts.failures,
            check: facts.last_check.map(|last| CheckReport::of(&last, now_ns)),
            active: facts.active,
            connections: facts.connections,
            operator: orders.said_of(&entry.address),
        }
    }
}

/// Who has set a peer's state.
fn set_by(facts: &PeerFacts) -> &'static str {
    match (facts.availability, facts.standing) {
        (_, Standing::Draining | Standing::Down | Standing::Up) => "operator",
        (Availability::Ejected { .. }, Standing::Usual) => "requests",
        (Availability::Unhealthy | Availability::Unchecked, Standing::Usual) => "checks",
        (
            Availability::Available | Availability::Draining | Availability::Down,
            Standing::Usual,
        ) => match facts.last_check {
            Some(_) => "checks",
            None => "",
        },
    }
}

impl CheckReport {
    fn of(last: &LastCheck, now_ns: u64) -> Self {
        let since = |at_ns: u64| (at_ns > 0).then(|| seconds(now_ns.saturating_sub(at_ns)));
        Self {
            passed: last.has_passed,
            age_seconds: since(last.at_ns),
            latency_seconds: last.latency.as_secs_f64(),
            against: last.against,
            state_seconds: since(last.since_ns),
        }
    }
}

fn seconds(ns: u64) -> f64 {
    Duration::from_nanos(ns).as_secs_f64()
}
