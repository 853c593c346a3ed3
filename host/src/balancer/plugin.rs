//! A plugin as the policy.

use std::borrow::{Borrow, BorrowMut};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use castling_abi::{
    BALANCE_DECLINED, DrawnPeer, Hook, PEER_COOLING, PEER_TRIED, PeerOutcome, PeerRecord,
};
use tokio::sync::Notify;
use tracing::error;

use super::{Ask, Balancer, Tried};
use crate::config::OnError;
use crate::error::{Error, PluginFault};
use crate::exchange::Exchange;
use crate::upstream::{Peer, PeerSet};
use crate::wasm::{HookCall, MaybeFuture, Plugin, PolicyInstance, PolicyResult};

const DECLINED: i64 = BALANCE_DECLINED as i64;

/// An upstream whose peers a plugin chooses.
pub struct PluginPolicy {
    plugin: Rc<Plugin>,
    /// Instance that sees all of the upstream's outcomes. `None` while a call runs on it.
    policy_instance: Cell<Option<PolicyInstance>>,
    /// Calls that wait for it, because another request's has yielded.
    waiting: Cell<usize>,
    freed: Notify,
    /// Slots that the plugin was told of: those below this number.
    told_slots: Cell<usize>,
}

/// The policy instance, out of its place until this is dropped.
struct PolicyGuard<'a> {
    policy: &'a PluginPolicy,
    policy_instance: PolicyInstance,
}

impl Borrow<PolicyInstance> for PolicyGuard<'_> {
    fn borrow(&self) -> &PolicyInstance {
        &self.policy_instance
    }
}

impl BorrowMut<PolicyInstance> for PolicyGuard<'_> {
    fn borrow_mut(&mut self) -> &mut PolicyInstance {
        &mut self.policy_instance
    }
}

impl Drop for PolicyGuard<'_> {
    fn drop(&mut self) {
        self.policy
            .policy_instance
            .set(Some(std::mem::take(&mut self.policy_instance)));
        if self.policy.waiting.get() > 0 {
            self.policy.freed.notify_one();
        }
    }
}

/// A call that waits for the policy instance, until this is dropped.
struct Waiting<'a>(&'a PluginPolicy);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let waiting = &self.0.waiting;
        waiting.set(waiting.get() - 1);
    }
}

impl PluginPolicy {
    pub(super) fn new(plugin: Rc<Plugin>) -> Self {
        Self {
            plugin,
            policy_instance: Cell::new(Some(PolicyInstance::default())),
            waiting: Cell::new(0),
            freed: Notify::new(),
            told_slots: Cell::new(0),
        }
    }

    /// The policy instance at once, if it is there and nobody waits for it.
    #[inline]
    fn try_instance(&self) -> Option<PolicyGuard<'_>> {
        let policy_instance = match self.waiting.get() {
            0 => self.policy_instance.take()?,
            _ => return None,
        };
        let policy = self;
        Some(PolicyGuard {
            policy,
            policy_instance,
        })
    }

    /// The policy instance when it comes to this call's turn, in the order in which they have begun to wait.
    async fn await_instance(&self) -> PolicyGuard<'_> {
        self.waiting.set(self.waiting.get() + 1);
        let waiting = Waiting(self);
        loop {
            self.freed.notified().await;
            if let Some(policy_instance) = self.policy_instance.take() {
                drop(waiting);
                let policy = self;
                return PolicyGuard {
                    policy,
                    policy_instance,
                };
            }
        }
    }

    fn policy_instance<'a>(
        &'a self,
        call: HookCall,
        exchange: &'a mut Box<Exchange>,
    ) -> MaybeFuture<'a, PolicyResult> {
        match self.try_instance() {
            Some(guard) => self.plugin.call_policy(guard, call, exchange),
            None => MaybeFuture::Pending(Box::pin(async move {
                let guard = self.await_instance().await;
                let result = self.plugin.call_policy(guard, call, exchange);
                result.finish().await
            })),
        }
    }

    /// Asks the plugin for a peer: [`Self::chosen`] knows what it says.
    pub fn choose<'a>(
        &'a self,
        balancer: &Balancer,
        exchange: &'a mut Box<Exchange>,
        tried: &Tried,
    ) -> MaybeFuture<'a, PolicyResult> {
        balancer.keep_candidates_fresh();
        balancer.look_at_others();
        let set = balancer.peers.borrow();
        lend_facts(&set, exchange);
        if self.plugin.manifest.peers.are_listed {
            lend_peers(&set, exchange, tried);
        }
        if self.draws() {
            let ask = Ask { tried, key: b"" };
            let mut candidates = balancer.candidates.borrow_mut();
            let drawn = candidates.draw_two(&ask);
            exchange.context_mut().balancing.drawn =
                drawn.map(|peer| peer.map(|it| drawn_peer(it)));
        }
        let slots = set.facts().len();
        self.told_slots.set(self.told_slots.get().max(slots));
        let call = HookCall::balance(slots, tried.count());
        self.policy_instance(call, exchange)
    }

    /// Whether the plugin asks for two peers of the host's drawing.
    pub(super) fn draws(&self) -> bool {
        self.plugin.manifest.peers.are_drawn
    }

    /// The plugin's choice; `None`, also for a peer that is not eligible, leaves it to round robin.
    pub(super) fn chosen<'s>(
        &self,
        set: &'s PeerSet,
        is_eligible: impl Fn(&Rc<Peer>) -> bool,
        result: PolicyResult,
    ) -> Result<Option<&'s Rc<Peer>>, Error> {
        match result {
            Ok(DECLINED) => Ok(None),
            Ok(raw) => match u32::try_from(raw).ok().and_then(|slot| set.by_slot(slot)) {
                // A peer that is not eligible is no fault of the plugin: the host passes failed peers over by itself, and
                // chooses another.
                Some(peer) => Ok(is_eligible(peer).then_some(peer)),
                // Neither is one that has left, maybe while the plugin was choosing.
                None if usize::try_from(raw).is_ok_and(|slot| slot < self.told_slots.get()) => {
                    Ok(None)
                }
                None => {
                    error!(plugin = %self.plugin.name, hook = "balance", "chose peer {raw}, which is not there");
                    self.fallback(PluginFault::Failed)
                }
            },
            // Nothing that a policy instance does can be cancelled: it may not wait.
            Err(error) => self.fallback(error.into_fault().unwrap_or(PluginFault::Failed)),
        }
    }

    /// Tells the plugin how a try went, if it wants to know. What it could not learn is in the log; the request is none the
    /// worse for it.
    pub fn done<'a>(
        &'a self,
        balancer: &Balancer,
        exchange: &'a mut Box<Exchange>,
        peer: &Peer,
        outcome: PeerOutcome,
        latency: Duration,
    ) -> MaybeFuture<'a, PolicyResult> {
        if !self.plugin.implements(Hook::PeerDone) {
            return MaybeFuture::Ready(Ok(DECLINED));
        }
        lend_facts(&balancer.peers.borrow(), exchange);
        let call = HookCall::peer_done(peer.slot as usize, outcome, latency.as_micros());
        self.policy_instance(call, exchange)
    }

    fn fallback<'s>(&self, what: PluginFault) -> Result<Option<&'s Rc<Peer>>, Error> {
        match self.plugin.on_error {
            OnError::Skip => Ok(None),
            OnError::Deny => Err(Error::Plugin {
                plugin: self.plugin.name.to_string(),
                what,
            }),
        }
    }
}

fn lend_facts(set: &PeerSet, exchange: &mut Exchange) {
    let facts = &mut exchange.context_mut().balancing.facts;
    // Mostly they are there from the last request.
    if !Arc::ptr_eq(facts, set.facts()) {
        *facts = Arc::clone(set.facts());
    }
}

fn lend_peers(set: &PeerSet, exchange: &mut Exchange, tried: &Tried) {
    let records = &mut exchange.context_mut().balancing.peers;
    records.clear();
    for peer in set.as_slice() {
        records.resize(peer.slot as usize, NOBODY);
        records.push(PeerRecord {
            flags: flag(PEER_TRIED, tried.contains(peer))
                | flag(PEER_COOLING, !peer.is_candidate.get() || peer.is_full()),
            ..record(peer)
        });
    }
}

fn drawn_peer(peer: &Peer) -> DrawnPeer {
    DrawnPeer {
        index: peer.slot,
        record: PeerRecord {
            flags: flag(PEER_COOLING, !peer.is_candidate.get()),
            ..record(peer)
        },
    }
}

fn record(peer: &Peer) -> PeerRecord {
    PeerRecord {
        weight: peer.weight.get(),
        active: peer.load(),
        flags: 0,
        reserved: 0,
    }
}

/// Record of a slot without a peer: as one that is not to be chosen.
const NOBODY: PeerRecord = PeerRecord {
    weight: 1,
    active: 0,
    flags: PEER_TRIED | PEER_COOLING,
    reserved: 0,
};

fn flag(flag: u32, is_set: bool) -> u32 {
    if is_set { flag } else { 0 }
}
