//! A plugin as the policy.

use std::borrow::{Borrow, BorrowMut};
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use castling_abi::{BALANCE_DECLINED, Hook, PEER_COOLING, PEER_TRIED, PeerOutcome, PeerRecord};
use tokio::sync::Notify;
use tracing::error;

use super::{Balancer, Tried};
use crate::config::OnError;
use crate::error::{Error, PluginFault};
use crate::exchange::{Exchange, Stage};
use crate::turn;
use crate::wasm::{HookError, Judge, Judged, Opinion, Plugin};

const DECLINED: i64 = BALANCE_DECLINED as i64;

/// An upstream whose peers a plugin chooses.
pub struct PluginPolicy {
    plugin: Rc<Plugin>,
    /// One instance sees all of the upstream's outcomes. `None` while it judges.
    judge: Cell<Option<Judge>>,
    /// Calls that wait for it, because another request's has yielded.
    waiting: Cell<usize>,
    freed: Notify,
}

/// The judge, out of its place until this is dropped.
struct Seated<'a> {
    policy: &'a PluginPolicy,
    judge: Judge,
}

impl Borrow<Judge> for Seated<'_> {
    fn borrow(&self) -> &Judge {
        &self.judge
    }
}

impl BorrowMut<Judge> for Seated<'_> {
    fn borrow_mut(&mut self) -> &mut Judge {
        &mut self.judge
    }
}

impl Drop for Seated<'_> {
    fn drop(&mut self) {
        self.policy.judge.set(Some(std::mem::take(&mut self.judge)));
        if self.policy.waiting.get() > 0 {
            self.policy.freed.notify_one();
        }
    }
}

/// A call that waits for the judge, until this is dropped.
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
            judge: Cell::new(Some(Judge::default())),
            waiting: Cell::new(0),
            freed: Notify::new(),
        }
    }

    /// The judge at once, if it is there and nobody waits for it.
    #[inline]
    fn seat(&self) -> Option<Seated<'_>> {
        let judge = match self.waiting.get() {
            0 => self.judge.take()?,
            _ => return None,
        };
        let policy = self;
        Some(Seated { policy, judge })
    }

    /// The judge when it comes to this call's turn, in the order in which they have begun to wait.
    async fn await_seat(&self) -> Seated<'_> {
        self.waiting.set(self.waiting.get() + 1);
        let waiting = Waiting(self);
        loop {
            self.freed.notified().await;
            if let Some(judge) = self.judge.take() {
                drop(waiting);
                let policy = self;
                return Seated { policy, judge };
            }
        }
    }

    fn judge<'a>(
        &'a self,
        hook: Hook,
        exchange: &'a mut Box<Exchange>,
        args: (u32, u32, u32),
    ) -> Judged<'a> {
        match self.seat() {
            Some(seated) => self.plugin.judge(seated, hook, exchange, args),
            None => Judged::Later(Box::pin(async move {
                let seated = self.await_seat().await;
                let judged = self.plugin.judge(seated, hook, exchange, args);
                judged.end().await
            })),
        }
    }

    /// Asks the plugin for a peer: [`Self::chosen`] knows what it says.
    pub fn choose<'a>(
        &'a self,
        balancer: &Balancer,
        exchange: &'a mut Box<Exchange>,
        tried: &Tried,
    ) -> Judged<'a> {
        lend_peers(balancer, exchange, tried);
        let count = u32::try_from(balancer.peers.len()).unwrap_or(u32::MAX);
        let args = (count, u32::try_from(tried.count()).unwrap_or(u32::MAX), 0);
        self.judge(Hook::Balance, exchange, args)
    }

    /// The plugin's choice; `None`, also for a peer that is not eligible, leaves it to round robin.
    pub(super) fn chosen(
        &self,
        balancer: &Balancer,
        tried: &Tried,
        judged: Opinion,
    ) -> Result<Option<usize>, Error> {
        match judged {
            Ok(DECLINED) => Ok(None),
            Ok(raw) => match usize::try_from(raw)
                .ok()
                .filter(|&idx| idx < balancer.peers.len())
            {
                // A peer that is not eligible is no fault of the plugin: the host passes failed peers over by itself, and
                // chooses another.
                Some(peer_idx) => Ok(balancer.is_eligible(peer_idx, tried).then_some(peer_idx)),
                None => {
                    error!(plugin = %self.plugin.name, hook = "balance", "chose peer {raw}, which is not there");
                    self.fallback(PluginFault::Failed)
                }
            },
            Err(error) => self.fallback(match *error {
                HookError::Exhausted(_) | HookError::Quarantined => PluginFault::Exhausted,
                // Nothing that a judge does can be cancelled: it may not wait.
                HookError::Failed(_) | HookError::Trapped(_) | HookError::Cancelled(_) => {
                    PluginFault::Failed
                }
            }),
        }
    }

    /// Tells the plugin how a try went, if it wants to know. What it could not learn is in the log; the request is none the
    /// worse for it.
    pub fn done<'a>(
        &'a self,
        balancer: &Balancer,
        exchange: &'a mut Box<Exchange>,
        peer_idx: usize,
        outcome: PeerOutcome,
        latency: Duration,
    ) -> Judged<'a> {
        if !self.plugin.implements(Hook::PeerDone) {
            return Judged::Now(Ok(DECLINED));
        }
        lend_addresses(balancer, exchange);
        let micros = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
        let args = (
            u32::try_from(peer_idx).unwrap_or(u32::MAX),
            outcome as u32,
            micros,
        );
        exchange.stage = Stage::Balance;
        self.judge(Hook::PeerDone, exchange, args)
    }

    fn fallback(&self, what: PluginFault) -> Result<Option<usize>, Error> {
        match self.plugin.on_error {
            OnError::Skip => Ok(None),
            OnError::Deny => Err(Error::Plugin {
                plugin: self.plugin.name.to_string(),
                what,
            }),
        }
    }
}

fn lend_addresses(balancer: &Balancer, exchange: &mut Exchange) {
    let addresses = &mut exchange.balancing.addresses;
    // Mostly they are there from the last request.
    if !Arc::ptr_eq(addresses, &balancer.labels) {
        *addresses = Arc::clone(&balancer.labels);
    }
}

fn lend_peers(balancer: &Balancer, exchange: &mut Exchange, tried: &Tried) {
    exchange.stage = Stage::Balance;
    lend_addresses(balancer, exchange);
    exchange.balancing.peers.clear();
    let now = turn::now();
    exchange
        .balancing
        .peers
        .extend(
            balancer
                .peers
                .iter()
                .enumerate()
                .map(|(idx, peer)| PeerRecord {
                    weight: peer.weight,
                    active: peer.active.get(),
                    flags: flag(PEER_TRIED, tried.contains(idx))
                        | flag(PEER_COOLING, peer.is_cooling(now)),
                    reserved: 0,
                }),
        );
}

fn flag(flag: u32, is_set: bool) -> u32 {
    if is_set { flag } else { 0 }
}
