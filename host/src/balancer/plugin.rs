//! A plugin as the policy.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use castling_abi::{BALANCE_DECLINED, Hook, PEER_COOLING, PEER_TRIED, PeerOutcome, PeerRecord};
use tokio::sync::Mutex;
use tracing::error;

use super::{Balancer, Tried};
use crate::config::OnError;
use crate::error::{Error, PluginFault};
use crate::exchange::{Exchange, Stage};
use crate::wasm::{HookError, Judge, Plugin};

/// An upstream whose peers a plugin chooses.
pub struct PluginPolicy {
    plugin: Rc<Plugin>,
    /// One instance sees all of the upstream's outcomes. Waited for only while another request's call has yielded.
    judge: Mutex<Judge>,
}

impl PluginPolicy {
    pub(super) fn new(plugin: Rc<Plugin>) -> Self {
        Self {
            plugin,
            judge: Mutex::default(),
        }
    }

    /// The plugin's choice; `None` leaves it to round robin.
    pub(super) async fn choose(
        &self,
        balancer: &Balancer,
        exchange: &mut Box<Exchange>,
        tried: &Tried,
    ) -> Result<Option<usize>, Error> {
        lend_peers(balancer, exchange, tried);
        let count = u32::try_from(balancer.peers.len()).unwrap_or(u32::MAX);
        let args = (count, u32::try_from(tried.count()).unwrap_or(u32::MAX), 0);
        let mut judge = self.judge.lock().await;
        let result = self
            .plugin
            .judge(&mut judge, Hook::Balance, exchange, args)
            .await;
        match result {
            Ok(BALANCE_DECLINED) => Ok(None),
            Ok(raw) => match usize::try_from(raw)
                .ok()
                .filter(|&idx| idx < balancer.peers.len() && !tried.contains(idx))
            {
                Some(peer_idx) => Ok(Some(peer_idx)),
                None => {
                    error!(plugin = %self.plugin.name, hook = "balance", "chose peer {raw}, which is not there or was tried");
                    self.fallback(PluginFault::Failed)
                }
            },
            Err(HookError::Exhausted(_) | HookError::Quarantined) => {
                self.fallback(PluginFault::Exhausted)
            }
            // Nothing that a judge does can be cancelled: it may not wait.
            Err(HookError::Failed(_) | HookError::Trapped(_) | HookError::Cancelled(_)) => {
                self.fallback(PluginFault::Failed)
            }
        }
    }

    /// Tells the plugin how a try went.
    pub async fn done(
        &self,
        balancer: &Balancer,
        exchange: &mut Box<Exchange>,
        peer_idx: usize,
        outcome: PeerOutcome,
        latency: Duration,
    ) {
        if !self.plugin.implements(Hook::PeerDone) {
            return;
        }
        exchange.balancing.addresses = Arc::clone(&balancer.labels);
        let micros = u32::try_from(latency.as_micros()).unwrap_or(u32::MAX);
        let args = (
            u32::try_from(peer_idx).unwrap_or(u32::MAX),
            outcome as u32,
            micros,
        );
        let mut judge = self.judge.lock().await;
        let stage = std::mem::replace(&mut exchange.stage, Stage::Balance);
        // What it could not learn is in the log; the request is none the worse for it.
        let _ = self
            .plugin
            .judge(&mut judge, Hook::PeerDone, exchange, args)
            .await;
        exchange.stage = stage;
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

fn lend_peers(balancer: &Balancer, exchange: &mut Exchange, tried: &Tried) {
    exchange.stage = Stage::Balance;
    exchange.balancing.addresses = Arc::clone(&balancer.labels);
    exchange.balancing.peers.clear();
    let now = Instant::now();
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
