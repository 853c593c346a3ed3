//! Which instance serves a call: a free one, a new one, or the next that becomes free.

use std::cell::Cell;
use std::rc::Rc;

use super::super::instance::Instance;
use super::super::taken::Taken;
use super::{HookError, Plugin};
use crate::config::PluginLimits;

impl Plugin {
    /// A free instance of a plugin in service: what nearly every call finds, without the state of a future.
    #[inline]
    fn idle_instance(&self) -> Option<Box<Instance>> {
        match self.quarantine.is_in_service() {
            true => self.idle.borrow_mut().pop(),
            false => None,
        }
    }

    /// For a call on the lane.
    #[inline]
    pub(super) fn lease(&self) -> Option<Lease<'_>> {
        let instance = Some(self.idle_instance()?);
        let plugin = self;
        Some(Lease { plugin, instance })
    }

    #[inline]
    pub(super) fn take_idle(self: &Rc<Self>) -> Option<Taken> {
        let instance = Some(self.idle_instance()?);
        Some(Taken {
            instance,
            plugin: Rc::clone(self),
            counted: true,
        })
    }

    /// A free instance, or a new one, or the next that becomes free.
    pub(super) async fn take_instance(self: &Rc<Self>) -> Result<Taken, HookError> {
        if !self.quarantine.admits() {
            return Err(HookError::Quarantined);
        }
        if let Some(instance) = self.idle.borrow_mut().pop() {
            return Ok(Taken {
                instance: Some(instance),
                plugin: Rc::clone(self),
                counted: true,
            });
        }
        self.make_or_await_instance().await
    }

    async fn make_or_await_instance(self: &Rc<Self>) -> Result<Taken, HookError> {
        if let Some(instance) = self.await_instance().await? {
            return Ok(Taken {
                instance: Some(instance),
                plugin: Rc::clone(self),
                counted: true,
            });
        }
        self.make_instance().await
    }

    /// Waits, within its limits, while all instances are busy. `None`: one more may be made.
    async fn await_instance(&self) -> Result<Option<Box<Instance>>, HookError> {
        let PluginLimits {
            instances,
            instance_queue: queue,
            instance_wait: wait,
            ..
        } = *self.limits;
        if self.live.get() < instances {
            return Ok(None);
        }
        if self.waiting.get() >= queue {
            return Err(HookError::Exhausted(format!(
                "limits.instances of {instances} reached, and limits.instance_queue of {queue} calls wait for one"
            )));
        }
        let freed = async {
            while self.live.get() >= instances {
                self.freed.notified().await;
                if let Some(instance) = self.idle.borrow_mut().pop() {
                    return Some(instance);
                }
            }
            None
        };
        let _waiting = Waiting::begin(&self.waiting);
        tokio::time::timeout(wait, freed).await.map_err(|_| {
            HookError::Exhausted(format!(
                "limits.instances of {instances} reached, and none became free within limits.instance_wait of {wait:?}"
            ))
        })
    }

    async fn make_instance(self: &Rc<Self>) -> Result<Taken, HookError> {
        // Counted before it exists, so that no more than the limit are made at once.
        self.set_live(self.live.get() + 1);
        let mut taken = Taken {
            instance: None,
            plugin: Rc::clone(self),
            counted: true,
        };
        taken.instance = Some(Instance::new(&self.engine, &self.code, &self.blueprint).await?);
        Ok(taken)
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
        if self.waiting.get() > 0 {
            self.freed.notify_one();
        }
    }

    /// One that is suspended was dropped in the middle of a call.
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

/// An instance for one call on the lane, as [`Taken`] is for others. Goes back when dropped.
pub(super) struct Lease<'a> {
    plugin: &'a Plugin,
    pub(super) instance: Option<Box<Instance>>,
}

impl Drop for Lease<'_> {
    #[inline]
    fn drop(&mut self) {
        self.plugin.give_back(self.instance.take());
    }
}

/// One call that waits, until this is dropped.
struct Waiting<'a>(&'a Cell<usize>);

impl<'a> Waiting<'a> {
    fn begin(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
