//! Which instance serves a call: a free one, a new one, or the next that becomes free.

use std::cell::Cell;
use std::rc::Rc;

use castling_abi::Hook;
use tokio::sync::Notify;

use super::super::hook_error::HookError;
use super::super::instance::Instance;
use super::super::instance_guard::InstanceGuard;
use super::super::share::Share;
use super::Plugin;
use crate::config::PluginLimits;
use crate::exchange::Exchange;

impl Plugin {
    /// A free instance of a plugin in service: what nearly every call finds, without the state of a future.
    #[inline]
    fn idle_instance(&self) -> Option<Box<Instance>> {
        match self.quarantine.is_in_service() {
            true => self.idle.borrow_mut().pop(),
            false => None,
        }
    }

    /// For a call on the hook stack.
    #[inline]
    pub(super) fn borrow_idle(&self) -> Option<InstanceRef<'_>> {
        let instance = Some(self.idle_instance()?);
        let plugin = self;
        Some(InstanceRef { plugin, instance })
    }

    /// A free instance for a call that may wait, and keep it meanwhile.
    #[inline]
    pub(super) fn take_idle(
        self: &Rc<Self>,
        hook: Hook,
        exchange: &Exchange,
    ) -> Option<InstanceGuard> {
        if !self.quarantine.is_in_service() || !self.has_room(Share::of(hook, exchange)) {
            return None;
        }
        let instance = Some(self.idle.borrow_mut().pop()?);
        Some(InstanceGuard {
            instance,
            plugin: Rc::clone(self),
            counted: true,
        })
    }

    /// A free instance, or a new one, or the next that becomes free. `None`: for no call, when the plugin is loaded.
    pub(super) async fn take_instance(
        self: &Rc<Self>,
        call: Option<(Hook, &Exchange)>,
    ) -> Result<InstanceGuard, HookError> {
        if !self.quarantine.admits(call.map(|(_, exchange)| exchange)) {
            return Err(HookError::Quarantined);
        }
        let share = call.map_or(Share::Request, |(hook, exchange)| Share::of(hook, exchange));
        if !self.has_room(share) {
            self.await_room(share).await?;
        }
        // Nothing is awaited in between: the room is still there.
        let idle = self.idle.borrow_mut().pop();
        match idle {
            Some(instance) => Ok(InstanceGuard {
                instance: Some(instance),
                plugin: Rc::clone(self),
                counted: true,
            }),
            None => self.make_instance().await,
        }
    }

    /// Fewer instances are in use than calls of this share may have.
    #[inline]
    fn has_room(&self, share: Share) -> bool {
        let in_use = self.live.get() - self.idle.borrow().len();
        in_use < share.instances(&self.limits)
    }

    /// Waits, within its limits, while all instances that calls of this share may have are busy.
    async fn await_room(&self, share: Share) -> Result<(), HookError> {
        let PluginLimits {
            instance_queue: queue,
            instance_wait: wait,
            ..
        } = *self.limits;
        let reached = share.reached(&self.limits);
        let waiting = &self.waiting[share as usize];
        if waiting.calls.get() >= queue {
            return Err(HookError::Exhausted(format!(
                "{reached}, and limits.instance_queue of {queue} calls wait for one"
            )));
        }
        let freed = async {
            while !self.has_room(share) {
                waiting.freed.notified().await;
            }
        };
        let _waiting = Waiting::begin(self, share);
        tokio::time::timeout(wait, freed).await.map_err(|_| {
            HookError::Exhausted(format!(
                "{reached}, and none became free within limits.instance_wait of {wait:?}"
            ))
        })
    }

    async fn make_instance(self: &Rc<Self>) -> Result<InstanceGuard, HookError> {
        // Counted before it exists, so that no more than the limit are made at once.
        self.set_live(self.live.get() + 1);
        let mut guard = InstanceGuard {
            instance: None,
            plugin: Rc::clone(self),
            counted: true,
        };
        guard.instance = Some(Instance::new(&self.engine, &self.code, &self.template).await?);
        Ok(guard)
    }

    /// An instance's use is over: it serves other calls, or makes room for another.
    #[inline]
    pub(in crate::wasm) fn give_back(&self, instance: Option<Box<Instance>>) {
        match instance {
            Some(instance) if !instance.is_suspended() && !instance.is_worn(self.most_calls) => {
                self.idle.borrow_mut().push(instance);
            }
            instance => self.retire(instance),
        }
        if self.all_waiting.get() > 0 {
            self.wake();
        }
    }

    /// Calls that come late in a request's life are served first: others may wait for what they do.
    #[cold]
    fn wake(&self) {
        let mut shares = Share::ALL.into_iter().rev();
        let next = shares
            .find(|share| self.waiting[*share as usize].calls.get() > 0 && self.has_room(*share));
        if let Some(share) = next {
            self.waiting[share as usize].freed.notify_one();
        }
    }

    /// An instance that is suspended was dropped in the middle of a call.
    #[cold]
    #[inline(never)]
    fn retire(&self, instance: Option<Box<Instance>>) {
        if instance.is_some_and(|instance| instance.is_suspended()) {
            self.quarantine.abandoned();
        }
        self.set_live(self.live.get() - 1);
    }

    fn set_live(&self, instances: usize) {
        self.live.set(instances);
        self.metrics.instances.set(instances as f64);
    }
}

/// An instance for one call on the hook stack, as [`InstanceGuard`] is for others. Goes back when dropped.
pub(super) struct InstanceRef<'a> {
    plugin: &'a Plugin,
    pub(super) instance: Option<Box<Instance>>,
}

impl Drop for InstanceRef<'_> {
    #[inline]
    fn drop(&mut self) {
        self.plugin.give_back(self.instance.take());
    }
}

/// Calls of a share that wait for an instance.
#[derive(Default)]
pub(super) struct Queue {
    calls: Cell<usize>,
    freed: Notify,
}

/// A call that waits, until this is dropped.
struct Waiting<'a> {
    plugin: &'a Plugin,
    share: Share,
}

impl<'a> Waiting<'a> {
    fn begin(plugin: &'a Plugin, share: Share) -> Self {
        let it = Self { plugin, share };
        it.add(1);
        it
    }

    fn add(&self, calls: isize) {
        for count in [
            &self.plugin.all_waiting,
            &self.plugin.waiting[self.share as usize].calls,
        ] {
            count.set(count.get().saturating_add_signed(calls));
        }
    }
}

impl Drop for Waiting<'_> {
    /// A call that has waited too long may have been told of an instance: then another takes that.
    fn drop(&mut self) {
        self.add(-1);
        if self.plugin.all_waiting.get() > 0 {
            self.plugin.wake();
        }
    }
}
