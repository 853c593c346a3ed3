//! A plugin in one worker: its code, its config, and the instances that serve its calls.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use castling_abi::{Action, BALANCE_DECLINED, BALANCE_FAILED, Hook};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tracing::error;
use wasmtime::{InstancePre, Linker};

use super::engine::Engine;
use super::guest::Guest;
use super::instance::{Blueprint, Instance};
use super::{Manifest, host_call, mapped};
use crate::config::{self, OnError};
use crate::exchange::Exchange;

/// A compiled plugin on its way into a worker.
pub struct Module {
    /// The plugin's name in the config.
    pub plugin: String,
    pub manifest: Manifest,
    /// Opened by the master, written by the compile helper.
    pub artefact: File,
}

/// Why a hook gave no verdict.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// The guest returned an error. The instance lives on.
    #[error("{0}")]
    Failed(String),
    /// The guest trapped: a panic, a limit, a bad pointer. The instance is gone.
    #[error("{0}")]
    Trapped(String),
    /// All instances are busy, and none became free in time.
    #[error("limits.instances of {0} reached, and none became free within {wait} ms", wait = INSTANCE_WAIT.as_millis())]
    Exhausted(usize),
}

/// How long a call waits for an instance when `limits.instances` are busy.
const INSTANCE_WAIT: Duration = Duration::from_secs(1);

pub struct Plugin {
    pub name: Arc<str>,
    pub manifest: Manifest,
    pub on_error: OnError,
    engine: Rc<Engine>,
    pre: InstancePre<Guest>,
    blueprint: Blueprint,
    instance_limit: usize,
    /// Free instances; the last one used is taken first, its memory is warm.
    #[expect(
        clippy::vec_box,
        reason = "an instance is large, and moves at every call"
    )]
    idle: RefCell<Vec<Box<Instance>>>,
    /// Instances that exist, idle ones included.
    live: Cell<usize>,
    freed: Notify,
    calls: Cell<u64>,
    failures: Cell<u64>,
    traps: Cell<u64>,
}

/// What `castling status` shows of a plugin in one worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginStatus {
    pub name: String,
    pub version: String,
    pub hooks: Vec<String>,
    pub instances: usize,
    pub calls: u64,
    /// Calls that returned an error.
    pub failures: u64,
    pub traps: u64,
}

impl Plugin {
    /// Maps the code, instantiates it once and runs its `configure`. The error is one line for a person.
    pub async fn load(
        engine: &Rc<Engine>,
        module: Module,
        config: &config::Plugin,
    ) -> Result<Rc<Self>, HookError> {
        let refused = |e: wasmtime::Error| {
            HookError::Trapped(format!("its compiled code cannot be used: {e:#}"))
        };
        let code = mapped::module(engine, module.artefact).map_err(refused)?;
        code.initialize_copy_on_write_image().map_err(refused)?;
        let mut linker = Linker::new(&engine.wasmtime);
        host_call::add_to(&mut linker).map_err(refused)?;
        let pre = linker.instantiate_pre(&code).map_err(refused)?;
        let name: Arc<str> = Arc::from(module.plugin);
        let plugin = Rc::new(Self {
            name: Arc::clone(&name),
            on_error: config.on_error,
            engine: Rc::clone(engine),
            pre,
            blueprint: Blueprint {
                plugin: name,
                config: Arc::from(config.config.as_str()),
                memory_limit_bytes: config.limits.memory_bytes,
                cpu_limit: config.limits.cpu,
                hooks: module
                    .manifest
                    .hooks
                    .iter()
                    .filter_map(|name| Hook::from_name(name))
                    .collect(),
                state: module.manifest.state,
            },
            manifest: module.manifest,
            instance_limit: config.limits.instances,
            idle: RefCell::default(),
            live: Cell::new(0),
            freed: Notify::new(),
            calls: Cell::new(0),
            failures: Cell::new(0),
            traps: Cell::new(0),
        });
        drop(plugin.take_instance().await?);
        Ok(plugin)
    }

    pub fn implements(&self, hook: Hook) -> bool {
        self.blueprint.hooks.contains(&hook)
    }

    /// Runs a hook of a request. An instance with per-request state is kept in `pinned` until
    /// [`PinnedInstances::release`].
    pub async fn call(
        self: &Rc<Self>,
        hook: Hook,
        exchange: &mut Box<Exchange>,
        pinned: &mut PinnedInstances,
        args: (u32, u32, u32),
    ) -> Result<Action, HookError> {
        let raw = if self.manifest.state {
            let instance = match pinned.position(self) {
                Some(idx) => pinned.0.swap_remove(idx),
                None => self
                    .take_instance()
                    .await
                    .inspect_err(|e| self.count(hook, e))?,
            };
            let (raw, instance) = self.call_on(instance, hook, exchange, args).await?;
            pinned.0.push(instance);
            raw
        } else {
            let instance = self
                .take_instance()
                .await
                .inspect_err(|e| self.count(hook, e))?;
            self.call_on(instance, hook, exchange, args).await?.0
        };
        // What is no action is a guest that breaks the ABI; what it wanted cannot be known.
        Action::from_raw(raw).ok_or_else(|| {
            let error = HookError::Failed(format!("it returned {raw}, which is no action"));
            self.count(hook, &error);
            error
        })
    }

    /// Runs `balance` or `peer_done` on the one instance that judges an upstream's peers, so that what it has learnt is
    /// in one place. A trap empties the slot; the next call fills it again.
    pub async fn judge(
        self: &Rc<Self>,
        judge: &mut Judge,
        hook: Hook,
        exchange: &mut Box<Exchange>,
        args: (u32, u32, u32),
    ) -> Result<i32, HookError> {
        let instance = match judge.0.take() {
            Some(instance) => instance,
            None => self
                .take_instance()
                .await
                .inspect_err(|e| self.count(hook, e))?,
        };
        let (raw, instance) = self.call_on(instance, hook, exchange, args).await?;
        judge.0 = Some(instance);
        Ok(raw)
    }

    pub fn status(&self) -> PluginStatus {
        PluginStatus {
            name: self.name.to_string(),
            version: self.manifest.version.clone(),
            hooks: self.manifest.hooks.clone(),
            instances: self.live.get(),
            calls: self.calls.get(),
            failures: self.failures.get(),
            traps: self.traps.get(),
        }
    }

    async fn call_on(
        self: &Rc<Self>,
        mut taken: Taken,
        hook: Hook,
        exchange: &mut Box<Exchange>,
        args: (u32, u32, u32),
    ) -> Result<(i32, Taken), HookError> {
        self.calls.set(self.calls.get() + 1);
        let result = match taken
            .instance_mut()
            .call(&self.engine, hook, exchange, args)
            .await
        {
            Ok(raw) if is_failure(hook, raw) => Err(taken.instance_mut().failed(raw)),
            Ok(raw) => return Ok((raw, taken)),
            Err(trap) => {
                taken.discard();
                Err(trap)
            }
        };
        result.inspect_err(|e| self.count(hook, e))
    }

    fn count(&self, hook: Hook, failure: &HookError) {
        let counter = match failure {
            HookError::Failed(_) => &self.failures,
            HookError::Trapped(_) | HookError::Exhausted(_) => &self.traps,
        };
        counter.set(counter.get() + 1);
        let (plugin, hook) = (&*self.name, hook.name());
        error!(plugin, hook, "plugin {plugin} failed in {hook}: {failure}");
    }

    /// A free instance, or a new one, or the next that becomes free.
    async fn take_instance(self: &Rc<Self>) -> Result<Taken, HookError> {
        if let Some(instance) = self.idle.borrow_mut().pop() {
            return Ok(Taken {
                instance: Some(instance),
                plugin: Rc::clone(self),
            });
        }
        self.make_or_await_instance().await
    }

    async fn make_or_await_instance(self: &Rc<Self>) -> Result<Taken, HookError> {
        let wait = async {
            while self.live.get() >= self.instance_limit {
                self.freed.notified().await;
                if let Some(instance) = self.idle.borrow_mut().pop() {
                    return Some(instance);
                }
            }
            None
        };
        let waited = tokio::time::timeout(INSTANCE_WAIT, wait).await;
        let freed = waited.map_err(|_| HookError::Exhausted(self.instance_limit))?;
        if let Some(instance) = freed {
            return Ok(Taken {
                instance: Some(instance),
                plugin: Rc::clone(self),
            });
        }
        // Counted before it exists, so that no more than the limit are made at once.
        self.live.set(self.live.get() + 1);
        let mut taken = Taken {
            instance: None,
            plugin: Rc::clone(self),
        };
        taken.instance = Some(Instance::new(&self.engine, &self.pre, &self.blueprint).await?);
        Ok(taken)
    }
}

fn is_failure(hook: Hook, raw: i32) -> bool {
    match hook {
        Hook::Balance => raw < BALANCE_DECLINED || raw == BALANCE_FAILED,
        _ => raw == Action::Failed as i32,
    }
}

/// An instance out of the pool. Goes back when dropped, unless it was discarded; a call that was dropped in its middle
/// leaves a suspended guest behind, which is never used again.
struct Taken {
    /// `None` once discarded, or when making it failed: then only the count is given back.
    instance: Option<Box<Instance>>,
    plugin: Rc<Plugin>,
}

impl Taken {
    fn instance_mut(&mut self) -> &mut Instance {
        self.instance
            .as_mut()
            .expect("an instance is here until `discard`, which ends its use")
    }

    fn discard(&mut self) {
        self.instance = None;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        match self.instance.take() {
            Some(instance) if !instance.is_suspended() => {
                self.plugin.idle.borrow_mut().push(instance)
            }
            _ => self.plugin.live.set(self.plugin.live.get() - 1),
        }
        self.plugin.freed.notify_one();
    }
}

/// Instances that are kept for one request, because their plugins keep state for it.
#[derive(Default)]
pub struct PinnedInstances(Vec<Taken>);

impl PinnedInstances {
    /// The request is over: the guests forget their state and the instances are free again.
    pub async fn release(&mut self) {
        for mut taken in self.0.drain(..) {
            let plugin = Rc::clone(&taken.plugin);
            if let Err(e) = taken.instance_mut().reset_state(&plugin.engine).await {
                error!(plugin = %plugin.name, "state of a request cannot be dropped: {e}");
                taken.discard();
            }
        }
    }

    fn position(&self, plugin: &Rc<Plugin>) -> Option<usize> {
        self.0
            .iter()
            .position(|taken| Rc::ptr_eq(&taken.plugin, plugin))
    }
}

impl Drop for PinnedInstances {
    /// A request that ended without [`Self::release`] leaves its state in the guests, so they go with it.
    fn drop(&mut self) {
        for taken in &mut self.0 {
            taken.discard();
        }
    }
}

/// The instance that judges the peers of one upstream.
#[derive(Default)]
pub struct Judge(Option<Taken>);
