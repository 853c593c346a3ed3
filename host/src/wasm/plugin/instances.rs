//! Which instance serves a call: a free one, a new one, or the next that becomes free.

use std::rc::Rc;

use castling_abi::Hook;

use super::super::hook_error::HookError;
use super::super::instance::Instance;
use super::super::instance_guard::InstanceGuard;
use super::super::share::Share;
use super::Plugin;
use super::queue::{Entry, Queue, Turn};
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
            let route = call
                .and_then(|(_, exchange)| exchange.route())
                .unwrap_or_default();
            drop(self.await_room(share, route).await?);
        }
        // Nothing is awaited in between: the room, which the turn has kept, is still there.
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
        in_use + self.promised() < share.instances(&self.limits)
    }

    /// Instances that calls have been told of and have not taken yet.
    #[inline]
    fn promised(&self) -> usize {
        match self.all_waiting.get() {
            0 => 0,
            _ => self.waiting.iter().map(Queue::promised).sum(),
        }
    }

    /// Waits, within its limits, while all instances that calls of this share may have are busy.
    async fn await_room(&self, share: Share, route: &str) -> Result<Turn, HookError> {
        let PluginLimits {
            instance_queue: queue,
            instance_wait: wait,
            ..
        } = *self.limits;
        let reached = share.reached(&self.limits);
        let full = || {
            HookError::Exhausted(format!(
                "{reached}, and limits.instance_queue of {queue} calls wait for one"
            ))
        };
        // Dropped after the turn, which another call may have then.
        let _waiting = Waiting::begin(self);
        let Entry::Waits(turn) = self.waiting[share as usize].enter(route, queue) else {
            return Err(full());
        };
        match tokio::time::timeout(wait, turn).await {
            Ok(Ok(turn)) => Ok(turn),
            Ok(Err(_)) => Err(full()),
            Err(_) => Err(HookError::Exhausted(format!(
                "{reached}, and none became free within limits.instance_wait of {wait:?}"
            ))),
        }
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
        // An instance has become free, for one of them.
        let _called =
            shares.any(|share| self.has_room(share) && self.waiting[share as usize].call_next());
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
        let before = self.live.replace(instances);
        let all = self.all_live.get() + instances - before;
        self.all_live.set(all);
        self.metrics.instances.set(all as f64);
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

/// A call that waits, until this is dropped.
struct Waiting<'a>(&'a Plugin);

impl<'a> Waiting<'a> {
    fn begin(plugin: &'a Plugin) -> Self {
        let it = Self(plugin);
        plugin.metrics.waits.inc();
        it.count(1);
        it
    }

    fn count(&self, calls: isize) {
        let all = &self.0.all_waiting;
        all.set(all.get().saturating_add_signed(calls));
        self.0.metrics.waiting.set(all.get() as f64);
    }
}

impl Drop for Waiting<'_> {
    /// A call that has waited too long may have been told of an instance: then another takes that.
    fn drop(&mut self) {
        self.count(-1);
        if self.0.all_waiting.get() > 0 {
            self.0.wake();
        }
    }
}
