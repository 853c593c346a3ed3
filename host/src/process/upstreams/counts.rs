//! Counts of peers by their state, for the metrics: those of the generation that serves.

use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

use tokio::task::spawn_local;
use tokio::time::sleep;

use super::{GenerationPeers, Upstreams};
use crate::process::metrics::Ledger;
use crate::upstream::{Availability, PeerStates};
use crate::zone::now_ns;

/// Peers of an upstream: all, and by the names of [`Availability`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counts {
    peers: usize,
    by_state: BTreeMap<&'static str, usize>,
}

/// Counts that the metrics have, by upstream.
#[derive(Default)]
pub struct Told {
    counts: BTreeMap<String, Counts>,
    /// Whether they are looked at again and again.
    is_kept: bool,
}

/// Age of the counts by state.
const LOOK_EACH: Duration = Duration::from_secs(1);

impl Upstreams {
    /// Counts in these metrics from now on, of this generation that comes to serve.
    pub fn count_in(self: &Rc<Self>, metrics: &Rc<Ledger>, serving: &Rc<GenerationPeers>) {
        self.serving.replace(Rc::downgrade(serving));
        let is_same = |before: &Rc<Ledger>| Rc::ptr_eq(before, metrics);
        let before = self.metrics.replace(Some(Rc::clone(metrics)));
        let mut told = self.told.borrow_mut();
        if !before.as_ref().is_some_and(is_same) {
            told.counts.clear();
        }
        if !std::mem::replace(&mut told.is_kept, true) {
            spawn_local(keep_counting(Rc::downgrade(self)));
        }
        drop(told);
        self.tell_counts();
    }

    /// Tells the metrics what has changed. False: another master's do.
    pub(super) fn tell_counts(&self) -> bool {
        let metrics = self.metrics.borrow();
        let Some(metrics) = &*metrics else {
            return false;
        };
        let Some(serving) = self.serving.borrow().upgrade() else {
            return true;
        };
        let now = self.counts(&serving);
        let mut told = self.told.borrow_mut();
        let metrics = metrics.metrics();
        for (upstream, before) in &told.counts {
            let now = now.get(upstream);
            for state in before.by_state.keys() {
                if !now.is_some_and(|now| now.by_state.contains_key(state)) {
                    metrics.peers_by_state(upstream, state, 0);
                }
            }
            if now.is_none() {
                metrics.peers_are(upstream, 0);
            }
        }
        for (upstream, counts) in &now {
            if told.counts.get(upstream) == Some(counts) {
                continue;
            }
            metrics.peers_are(upstream, counts.peers);
            for (state, count) in &counts.by_state {
                metrics.peers_by_state(upstream, state, *count);
            }
        }
        told.counts = now;
        true
    }

    fn counts(&self, generation: &GenerationPeers) -> BTreeMap<String, Counts> {
        let states = PeerStates::new(Rc::clone(self.zone()), None);
        let now_ns = now_ns();
        generation.with_lists(|lists| {
            let of = |(name, upstream): (&String, &super::UpstreamPeers)| {
                let peers = &upstream.leased.list.peers;
                // One that no peer is in is told, too.
                let mut by_state = BTreeMap::from([(Availability::Available.name(), 0)]);
                for peer in peers {
                    let state = states.of(peer.cell);
                    let availability = state.availability(upstream.checks, || now_ns);
                    *by_state.entry(availability.name()).or_default() += 1;
                }
                let counts = Counts {
                    peers: peers.len(),
                    by_state,
                };
                (name.clone(), counts)
            };
            lists.iter().map(of).collect()
        })
    }
}

async fn keep_counting(upstreams: Weak<Upstreams>) {
    loop {
        sleep(LOOK_EACH).await;
        let Some(upstreams) = upstreams.upgrade() else {
            return;
        };
        if !upstreams.tell_counts() {
            upstreams.told.borrow_mut().is_kept = false;
            return;
        }
    }
}
