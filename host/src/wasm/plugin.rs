//! A plugin in one worker: its code, its config, and the instances that serve its calls.

mod after_response;
mod instances;
mod policy;
mod queue;

use std::cell::{Cell, OnceCell, RefCell};
use std::fs::File;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

pub use after_response::AfterResponseCall;
use after_response::AfterResponses;
use castling_abi::{Action, BALANCE_DECLINED, BALANCE_FAILED, Hook, imports};
pub use policy::PolicyResult;
use queue::Queue;
use serde::{Deserialize, Serialize};
use tracing::{debug, error};
use wasmtime::Linker;

use super::code::Code;
use super::engine::Engine;
use super::granted_file::GrantedFiles;
use super::hook_call::HookCall;
use super::hook_error::HookError;
use super::hook_stack::{HookStack, MaybeFuture};
use super::host_io::{CallIo, HostIo};
use super::instance::Instance;
use super::instance_guard::{InstanceGuard, PinnedInstances};
use super::instance_template::{InstanceTemplate, template};
use super::limit::LineBudget;
use super::quarantine::Quarantine;
use super::share::Share;
use super::snapshot::Snapshot;
use super::{Manifest, host_call, mapped, module_text};
use crate::config::{self, Isolation, OnError, PluginLimits};
use crate::exchange::{Exchange, PluginKey};
use crate::metrics::{AfterResponseMetrics, HookMetrics, PluginMetrics, Recorder};
use crate::zone::{self, Topic, Zone};

/// A compiled plugin on its way into a worker.
pub struct Module {
    /// The plugin's name in the config.
    pub plugin: String,
    pub manifest: Manifest,
    /// Opened by the master, written by the compile helper.
    pub artefact: File,
}

impl Module {
    /// Opens the module once more, for instances with another config.
    pub fn again(&self) -> Result<Self, io::Error> {
        Ok(Self {
            plugin: self.plugin.clone(),
            manifest: self.manifest.clone(),
            artefact: self.artefact.try_clone()?,
        })
    }
}

/// In this order: what every call looks at comes first and shares few lines of the processor's cache, which the kernel has
/// emptied since the last one.
#[repr(C, align(64))]
pub struct Plugin {
    engine: Rc<Engine>,
    /// Hooks wait for nothing, and no request keeps an instance: they are mostly run without further ado.
    is_quick: bool,
    /// The module uses a host call that waits, so that its hooks run on fibers.
    waits: bool,
    /// The module uses the host call that sends on parts of a body.
    pub emits: bool,
    /// Free instances; the last one used is taken first, its memory is warm.
    #[expect(
        clippy::vec_box,
        reason = "an instance is large, and moves at every call"
    )]
    idle: RefCell<Vec<Box<Instance>>>,
    /// Calls that wait for an instance: mostly none, and then nobody need be told.
    all_waiting: Cell<usize>,
    /// After so many calls an instance is not used again: `limits.instance_calls`, or after the first.
    most_calls: u64,
    calls: Cell<u64>,
    metrics: HookMetrics,
    quarantine: Quarantine,
    isolation: Isolation,
    /// Instances that exist, idle ones included.
    live: Cell<usize>,
    /// Instances of all pools of the plugin.
    all_live: Rc<Cell<usize>>,
    limits: Arc<PluginLimits>,
    pub name: Arc<str>,
    pub manifest: Manifest,
    pub on_error: OnError,
    code: Rc<Code>,
    template: InstanceTemplate,
    /// For the gateway's lines about its failures.
    failure_lines: Arc<LineBudget>,
    /// By [`Share`].
    waiting: [Queue; Share::ALL.len()],
    failures: Cell<u64>,
    traps: Cell<u64>,
    exhausted: Cell<u64>,
    after_responses: AfterResponses,
    /// Variables that its `configure` has named besides those of its manifest.
    declared: OnceCell<Vec<String>>,
}

/// State of a plugin in one worker, as `castling status` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginStatus {
    pub name: String,
    pub version: String,
    pub hooks: Vec<String>,
    pub instances: usize,
    /// Instances that serve a call, or wait with one.
    #[serde(default)]
    pub instances_in_use: usize,
    /// `limits.instances`, of all workers.
    #[serde(default)]
    pub instances_limit: usize,
    /// Calls that wait for an instance.
    #[serde(default)]
    pub waiting: usize,
    pub calls: u64,
    /// Calls that returned an error.
    pub failures: u64,
    pub traps: u64,
    /// Calls for which no instance was free.
    pub exhausted: u64,
    /// Calls of `after_response` that run or wait.
    #[serde(default)]
    pub after_responses: usize,
    /// Calls of it that came to nothing: too many waited, they took too long, or the worker ended.
    #[serde(default)]
    pub after_responses_lost: u64,
    /// `in` service, `out` because it keeps trapping, or on `trial`.
    pub state: String,
}

impl Plugin {
    /// Maps the code, instantiates it once and runs its `configure`. `meets_computed`: its hooks run where a plugin computes
    /// variables. `sibling`: another pool of the same plugin, which has another config. The error is one line for a person.
    pub async fn load(
        engine: &Rc<Engine>,
        module: Module,
        meets_computed: bool,
        config: &config::Plugin,
        (zones, files): (&zone::Zones, &GrantedFiles),
        recorder: Recorder,
        sibling: Option<&Rc<Self>>,
    ) -> Result<Rc<Self>, HookError> {
        let refused = |e: wasmtime::Error| {
            let e = module_text::text(&format!("{e:#}"));
            HookError::Trapped(format!("its compiled code cannot be used: {e}"))
        };
        let mapped = mapped::module(engine, module.artefact).map_err(refused)?;
        mapped.initialize_copy_on_write_image().map_err(refused)?;
        let mut linker = Linker::new(&engine.wasmtime);
        host_call::add_to(&mut linker, meets_computed).map_err(refused)?;
        let pre = linker.instantiate_pre(&mapped).map_err(refused)?;
        let names = module.manifest.hooks.iter();
        let hooks: Vec<Hook> = names.filter_map(|name| Hook::from_name(name)).collect();
        let code = Code::new(pre, &hooks, module.manifest.state).map_err(refused)?;
        let name: Arc<str> = Arc::from(module.plugin);
        let metrics = recorder.hooks(&name, config.limits.instances);
        let (in_module, most) = (&module.manifest.name, config.limits.metric_series);
        let own = PluginMetrics::new(recorder, &name, in_module, most);
        let after_metrics = match hooks.contains(&Hook::AfterResponse) {
            true => recorder.after_response(&name),
            false => AfterResponseMetrics::default(),
        };
        let uses = |is: &dyn Fn(&str) -> bool| mapped.imports().any(|import| is(import.name()));
        let waits = uses(&|name| host_call::waits(name, meets_computed));
        let emits = uses(&|name| name == imports::CHUNK_EMIT);
        let shared = (zones, files);
        let computes = Arc::from(module.manifest.variables.as_slice());
        let template = template(&name, (hooks, computes), config, shared, own, recorder);
        let limits = Arc::clone(&template.limits);
        let mut plugin = Self {
            on_error: config.on_error,
            engine: Rc::clone(engine),
            code: Rc::new(code),
            waits,
            emits,
            is_quick: false,
            failure_lines: LineBudget::new(&name, limits.log_lines),
            most_calls: most_calls(config),
            template,
            name,
            manifest: module.manifest,
            limits,
            isolation: config.isolation,
            quarantine: Quarantine::new(config.quarantine.clone(), metrics.quarantine),
            idle: RefCell::default(),
            live: Cell::new(0),
            all_live: sibling
                .map(|it| Rc::clone(&it.all_live))
                .unwrap_or_default(),
            waiting: Default::default(),
            all_waiting: Cell::new(0),
            calls: Cell::new(0),
            failures: Cell::new(0),
            traps: Cell::new(0),
            exhausted: Cell::new(0),
            after_responses: AfterResponses::new(&config.limits, after_metrics),
            metrics,
            declared: OnceCell::new(),
        };
        plugin.is_quick = !plugin.waits && !plugin.keeps_instance();
        let plugin = Rc::new(plugin);
        let mut first = plugin.take_instance(None).await?;
        let (_, guest) = first.instance_mut().memory();
        // This instance is the first.
        let _ = plugin.declared.set(std::mem::take(&mut guest.declared));
        plugin.keep_snapshot(first.instance_mut()).await;
        Ok(plugin)
    }

    /// Further instances become as this one, which is configured and has served nothing, where that cannot be told from running
    /// `configure`.
    async fn keep_snapshot(&self, configured: &mut Instance) {
        let mut snapshot = None;
        if self.manifest.state_is_exposed {
            let fresh = Instance::unconfigured(&self.engine, &self.code, &self.template).await;
            snapshot = fresh.ok().and_then(|mut fresh| {
                Snapshot::of(configured, &mut fresh, self.engine.pagemap.as_ref())
            });
        }
        let plugin = &*self.name;
        match snapshot {
            Some(snapshot) => {
                let bytes = snapshot.bytes();
                debug!(plugin, bytes, "further instances are made from a snapshot");
                // This instance is the first.
                let _ = self.code.snapshot.set(snapshot);
            }
            None => debug!(plugin, "`configure` runs for each instance"),
        }
    }

    /// An instance stays with its request.
    fn keeps_instance(&self) -> bool {
        self.manifest.state || self.isolation == Isolation::Request
    }

    /// Topics that it is granted, each with its place among its zones and its name.
    pub fn topics(&self) -> impl Iterator<Item = (u32, &str, &Arc<Topic>)> {
        let granted = (0..).zip(self.template.zones.iter());
        granted.filter_map(|(idx, granted)| match &*granted.zone {
            Zone::Topic(topic) => Some((idx, &*granted.name, topic)),
            Zone::Counter(_) | Zone::Kv(_) | Zone::Gauge(_) | Zone::Cache(_) => None,
        })
    }

    /// Variables that its `variable` hook computes, by the index that it is called with.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        let declared = self.declared.get().map(Vec::as_slice).unwrap_or_default();
        let named = self.manifest.variables.iter().chain(declared);
        named.map(String::as_str)
    }

    pub fn implements(&self, hook: Hook) -> bool {
        self.template.hooks.contains(&hook)
    }

    /// Runs a job on the hook stack, whose hooks are called by [`Self::call_on_stack`]. `None`: the plugin's hooks wait, or
    /// somebody is there.
    #[inline]
    pub fn run_on_stack<'a, T: 'a>(
        &'a self,
        job: impl FnOnce() -> T + 'a,
    ) -> Option<MaybeFuture<'a, T>> {
        let hook_stack = self.stack_when_quick()?;
        Some(hook_stack.start(job).into())
    }

    /// Where its hooks run without further ado, when nobody is there.
    #[inline]
    fn stack_when_quick(&self) -> Option<&HookStack> {
        let hook_stack = &self.engine.hook_stack;
        (self.is_quick && hook_stack.is_free()).then_some(hook_stack)
    }

    /// Runs a hook of a request within a job on the hook stack. What nearly every call is, without the state of a future. `None`: it
    /// cannot be run so, for it waits, or no instance is free; or nobody waits for the job any more.
    #[inline]
    pub fn call_on_stack(
        &self,
        call: HookCall,
        exchange: &mut Box<Exchange>,
    ) -> Option<Result<Action, HookError>> {
        let hook = call.hook();
        if !self.is_quick {
            return None;
        }
        let mut borrow_idle = self.borrow_idle()?;
        self.count_call();
        let instance = borrow_idle.instance.as_mut()?;
        let result = instance.call_on_stack(call, exchange);
        match result {
            Ok(raw) if !is_failure(hook, raw) => {
                self.returned(instance);
                Some(self.action(hook, exchange, raw))
            }
            Err(_) if self.engine.hook_stack.is_given_up() => None,
            result => {
                let mut instance = borrow_idle.instance.take();
                let failure = self.ended_badly(&mut instance, hook, exchange, result);
                borrow_idle.instance = instance;
                Some(Err(failure))
            }
        }
    }

    /// Runs a hook of a request. An instance with per-request state is kept in `pinned` until
    /// [`PinnedInstances::release`].
    pub async fn call(
        self: &Rc<Self>,
        call: HookCall,
        exchange: &mut Box<Exchange>,
        pinned: &mut PinnedInstances,
        io: &mut dyn HostIo,
    ) -> Result<Action, HookError> {
        let hook = call.hook();
        let raw = if self.keeps_instance() {
            let mut guard = match pinned.position(self) {
                Some(idx) => pinned.0.remove(idx),
                None => self
                    .take_instance(Some((hook, exchange)))
                    .await
                    .inspect_err(|e| self.count(hook, None, e))?,
            };
            let raw = self.call_on(&mut guard, call, exchange, pinned, io).await;
            if guard.instance.is_some() {
                // First: a call of the same plugin that was nested in this one has left another, without this one's state.
                pinned.0.insert(0, guard);
            }
            raw?
        } else {
            let mut guard = match self.take_idle(hook, exchange) {
                Some(guard) => guard,
                None => self
                    .take_instance(Some((hook, exchange)))
                    .await
                    .inspect_err(|e| self.count(hook, None, e))?,
            };
            self.call_on(&mut guard, call, exchange, pinned, io).await?
        };
        self.action(hook, exchange, raw)
    }

    pub fn status(&self) -> PluginStatus {
        PluginStatus {
            name: self.name.to_string(),
            version: self.manifest.version.clone(),
            hooks: self.manifest.hooks.clone(),
            instances: self.live.get(),
            instances_in_use: self.live.get() - self.idle.borrow().len(),
            instances_limit: self.limits.instances,
            waiting: self.all_waiting.get(),
            calls: self.calls.get(),
            failures: self.failures.get(),
            traps: self.traps.get(),
            exhausted: self.exhausted.get(),
            after_responses: self.after_responses.admitted(),
            after_responses_lost: self.after_responses.lost(),
            state: self.quarantine.state().to_owned(),
        }
    }

    /// For a call of its hooks that begins at once; `None`: it runs on a fiber.
    #[inline]
    pub(super) fn hook_stack(&self) -> Option<&HookStack> {
        let hook_stack = &self.engine.hook_stack;
        (!self.waits && hook_stack.is_free()).then_some(hook_stack)
    }

    /// Runs one hook. After a trap the instance is gone from `guard`.
    async fn call_on(
        &self,
        guard: &mut InstanceGuard,
        call: HookCall,
        exchange: &mut Box<Exchange>,
        pinned: &mut PinnedInstances,
        io: &mut dyn HostIo,
    ) -> Result<i32, HookError> {
        let hook = call.hook();
        self.count_call();
        let instance = guard.instance_mut();
        let called = match self.hook_stack() {
            Some(hook_stack) => Ok(hook_stack
                .run(|| instance.call_on_stack(call, exchange))
                .await),
            None => {
                let mut io = CallIo { io, pinned };
                instance.call(call, exchange, &mut io).await
            }
        };
        match called {
            Ok(result) => self.ended(&mut guard.instance, hook, exchange, result),
            Err(cancelled) => {
                guard.discard();
                let cancelled = HookError::Cancelled(Box::new(cancelled));
                Err(self.failed(hook, exchange, cancelled))
            }
        }
    }

    #[inline]
    fn count_call(&self) {
        self.calls.set(self.calls.get() + 1);
        self.metrics.calls.inc();
    }

    /// Takes what a hook has returned, as far as it has not failed. After a trap the instance is gone.
    #[inline]
    fn ended(
        &self,
        used: &mut Option<Box<Instance>>,
        hook: Hook,
        exchange: &mut Exchange,
        result: wasmtime::Result<i32>,
    ) -> Result<i32, HookError> {
        match (result, used.as_mut()) {
            (Ok(raw), Some(instance)) if !is_failure(hook, raw) => {
                self.returned(instance);
                Ok(raw)
            }
            (result, _) => Err(self.ended_badly(used, hook, exchange, result)),
        }
    }

    #[cold]
    #[inline(never)]
    fn ended_badly(
        &self,
        used: &mut Option<Box<Instance>>,
        hook: Hook,
        exchange: &mut Exchange,
        result: wasmtime::Result<i32>,
    ) -> HookError {
        let key = PluginKey::of(&self.name);
        let instance = used.as_mut().expect("a call has an instance");
        let failure = match result {
            Ok(raw) => {
                self.returned(instance);
                instance.failed(raw)
            }
            Err(trap) => {
                let failure = instance.trapped(&trap);
                *used = None;
                exchange.context_mut().states.forget(key);
                failure
            }
        };
        // Others wait for what it was to fetch, and the request may go on for long.
        exchange.context_mut().permits.end_flights(key);
        self.failed(hook, exchange, failure)
    }

    #[inline]
    fn returned(&self, instance: &mut Instance) {
        instance.rest();
        self.quarantine.returned(&self.name);
    }

    #[cold]
    #[inline(never)]
    fn failed(&self, hook: Hook, exchange: &Exchange, failure: HookError) -> HookError {
        // Timers and messages run for no client.
        let whose = (!matches!(hook, Hook::Timer | Hook::Message)).then_some(exchange);
        self.count(hook, whose, &failure);
        failure
    }

    /// A number that is no action is a guest that breaks the ABI; what it wanted cannot be known.
    #[inline]
    fn action(&self, hook: Hook, exchange: &Exchange, raw: i32) -> Result<Action, HookError> {
        Action::from_raw(raw).ok_or_else(|| self.no_action(hook, exchange, raw))
    }

    #[cold]
    #[inline(never)]
    fn no_action(&self, hook: Hook, exchange: &Exchange, raw: i32) -> HookError {
        let what = format!("it returned {raw}, which is no action");
        self.failed(hook, exchange, HookError::failed(what))
    }

    /// `whose`: the request that the failure is of; `None`: another one would have met it as well.
    fn count(&self, hook: Hook, whose: Option<&Exchange>, failure: &HookError) {
        let (counter, cause) = match failure {
            HookError::Failed { .. } => {
                // An error of `configure`: a hook's has told that it returned.
                self.quarantine.abandoned();
                (&self.failures, self.metrics.errors)
            }
            HookError::Trapped(_) => {
                self.quarantine.trapped(&self.name, whose);
                (&self.traps, self.metrics.traps)
            }
            HookError::Exhausted(_) => {
                self.quarantine.abandoned();
                (&self.exhausted, self.metrics.exhausted)
            }
            // No fault of the plugin's.
            HookError::Cancelled(_) => {
                self.quarantine.abandoned();
                return;
            }
            // Told already.
            HookError::Quarantined => return,
        };
        counter.set(counter.get() + 1);
        cause.inc();
        if self.failure_lines.admits() {
            let (plugin, hook) = (&*self.name, hook.name());
            error!(plugin, hook, "plugin {plugin} failed in {hook}: {failure}");
        }
    }
}

/// Calls after which an instance is not used again: `limits.instance_calls`, or 0 where each request has its own.
fn most_calls(config: &config::Plugin) -> u64 {
    match (config.isolation, config.limits.instance_calls) {
        (Isolation::Request, _) => 0,
        (Isolation::Call, 0) => u64::MAX,
        (Isolation::Call, most) => most,
    }
}

fn is_failure(hook: Hook, raw: i32) -> bool {
    match hook {
        Hook::Balance => raw < BALANCE_DECLINED || raw == BALANCE_FAILED,
        _ => raw == Action::Failed as i32,
    }
}
