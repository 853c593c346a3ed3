//! Instances in use: taken out of their plugin's pool for a call, for a request, or for an upstream's peers.

use std::rc::Rc;

use tracing::error;

use super::instance::Instance;
use super::plugin::Plugin;

/// An instance out of the pool. Goes back when dropped, unless it was discarded; a call that was dropped in its middle
/// leaves a suspended guest behind, which is never used again.
pub(super) struct InstanceGuard {
    /// `None` once discarded, or when making it failed: then only the count is given back.
    pub(super) instance: Option<Box<Instance>>,
    pub(super) plugin: Rc<Plugin>,
    /// Against `limits.instances`. A policy instance is not, and never goes into the pool.
    pub(super) counted: bool,
}

impl InstanceGuard {
    pub(super) fn instance_mut(&mut self) -> &mut Instance {
        self.instance
            .as_mut()
            .expect("an instance is here until `discard`, which ends its use")
    }

    pub(super) fn discard(&mut self) {
        self.instance = None;
    }
}

impl Drop for InstanceGuard {
    fn drop(&mut self) {
        if self.counted {
            self.plugin.give_back(self.instance.take());
        }
    }
}

/// Instances that are kept for one request, because their plugins keep state for it.
#[derive(Default)]
pub struct PinnedInstances(pub(super) Vec<InstanceGuard>);

impl PinnedInstances {
    /// The request is over: the guests forget their state and the instances are free again.
    pub async fn release(&mut self) {
        // Released one by one: dropped in the middle, the others are discarded with `self`.
        while let Some(mut guard) = self.0.pop() {
            let plugin = Rc::clone(&guard.plugin);
            if let Err(e) = guard.instance_mut().reset_state(plugin.hook_stack()).await {
                error!(plugin = %plugin.name, "state of a request cannot be dropped: {e}");
                guard.discard();
            }
        }
    }

    /// Takes out those of these plugins.
    pub fn split_off(&mut self, is_taken: impl Fn(&Rc<Plugin>) -> bool) -> Self {
        let all = std::mem::take(&mut self.0).into_iter();
        let (taken, left) = all.partition(|guard| is_taken(&guard.plugin));
        self.0 = left;
        Self(taken)
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn position(&self, plugin: &Rc<Plugin>) -> Option<usize> {
        self.0
            .iter()
            .position(|guard| Rc::ptr_eq(&guard.plugin, plugin))
    }
}

impl Drop for PinnedInstances {
    /// A request that ended without [`Self::release`] leaves its state in the guests, so they go with it.
    fn drop(&mut self) {
        for guard in &mut self.0 {
            guard.discard();
        }
    }
}

/// The instance that balances one upstream.
#[derive(Default)]
pub struct PolicyInstance(pub(super) Option<InstanceGuard>);

impl PolicyInstance {
    /// An instance that a request has left in the middle of a call is of no more use.
    #[inline]
    pub(super) fn is_usable(&self) -> bool {
        let instance = self.0.as_ref().and_then(|guard| guard.instance.as_ref());
        instance.is_some_and(|instance| !instance.is_suspended())
    }
}
