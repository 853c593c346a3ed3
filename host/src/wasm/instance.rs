//! One live instance of a plugin: a store, its guest, and the functions that the host calls.

use std::future::poll_fn;
use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use castling_abi::{Action, EXPORT_CONFIGURE, EXPORT_STATE_RESET, Hook};
use wasmtime::{Error, InstancePre, PoolConcurrencyLimitError, Store, Trap, TypedFunc, format_err};

use super::cpu::{self, Cpu};
use super::demand::{Asked, Hatch, Supplier};
use super::engine::Engine;
use super::guest::{Guest, MemoryLimit, Zones};
use super::limit::LineBudget;
use super::plugin::HookError;
use super::taken::PinnedInstances;
use crate::config::PluginLimits;
use crate::exchange::Exchange;
#[cfg(test)]
use crate::metrics::Recorder;
use crate::metrics::{InstanceMetrics, PluginMetrics};

/// Serves one call at a time. After a trap it is dropped: the guest's invariants may be broken.
pub(super) struct Instance {
    store: Store<Guest>,
    hooks: HookTable,
    state_reset: Option<TypedFunc<(), ()>>,
    /// The guest's; beside the store, so that it can be watched while the store runs.
    hatch: Hatch,
    /// A call has begun and not returned. It stays so when the call's future is dropped.
    suspended: bool,
    /// Calls of its hooks so far.
    calls: u64,
}

/// By hook; `None` where the plugin does not implement it.
type HookTable = [Option<TypedFunc<(u32, u32, u32), i32>>; Hook::ALL.len()];

/// What every instance of a plugin has alike.
pub(super) struct Blueprint {
    pub(super) plugin: Arc<str>,
    /// As JSON.
    pub(super) config: Arc<str>,
    pub(super) memory_limit_bytes: usize,
    pub(super) cpu_limit: Duration,
    /// CPU time of all its hooks for one request; `None`: no limit.
    pub(super) request_cpu_limit: Option<Duration>,
    /// Largest body that it may have read or be answered.
    pub(super) body_limit_bytes: usize,
    /// Calls out that a request may make.
    pub(super) calls_limit: usize,
    pub(super) zones: Zones,
    /// Upstreams that it may call.
    pub(super) upstreams: Arc<[Arc<str>]>,
    /// It may call the gateway's own routes.
    pub(super) own_routes: bool,
    pub(super) hooks: Vec<Hook>,
    /// It keeps state for each request.
    pub(super) state: bool,
    pub(super) limits: Arc<PluginLimits>,
    pub(super) log_lines: Arc<LineBudget>,
    pub(super) metrics: Arc<PluginMetrics>,
}

impl Instance {
    /// Instantiates and configures. The error is what `configure` said, or why it trapped.
    pub(super) async fn new(
        engine: &Engine,
        pre: &InstancePre<Guest>,
        blueprint: &Blueprint,
    ) -> Result<Box<Self>, HookError> {
        let mut store = new_store(engine, blueprint);
        let (hooks, state_reset, configure) =
            Self::instantiate(&mut store, pre, blueprint)
                .await
                .map_err(|error| not_instantiated(engine, &mut store, &error))?;
        let mut instance = Box::new(Self {
            hatch: store.data().hatch.clone(),
            store,
            hooks,
            state_reset,
            suspended: false,
            calls: 0,
        });
        instance.begin_call(None);
        let result = configure.call_async(&mut instance.store, ()).await;
        match instance.end_call(result)? {
            raw if raw == Action::Continue as i32 => Ok(instance),
            raw => Err(instance.failed(raw)),
        }
    }

    async fn instantiate(
        store: &mut Store<Guest>,
        pre: &InstancePre<Guest>,
        blueprint: &Blueprint,
    ) -> Result<(HookTable, Option<TypedFunc<(), ()>>, TypedFunc<(), i32>), Error> {
        // A start function may run.
        store.data().cpu.go_on();
        let instance = pre.instantiate_async(&mut *store).await;
        cpu::stop(store.data_mut());
        let instance = instance?;
        let memory = instance
            .get_memory(&mut *store, "memory")
            .ok_or_else(|| format_err!("it exports no memory"))?;
        store.data_mut().memory = Some(memory);
        let mut hooks = [const { None }; Hook::ALL.len()];
        for &hook in &blueprint.hooks {
            hooks[hook as usize] = Some(instance.get_typed_func(&mut *store, hook.export())?);
        }
        let state_reset = match blueprint.state {
            true => Some(instance.get_typed_func(&mut *store, EXPORT_STATE_RESET)?),
            false => None,
        };
        let configure = instance.get_typed_func(&mut *store, EXPORT_CONFIGURE)?;
        Ok((hooks, state_reset, configure))
    }

    /// Runs one hook against the exchange, which is lent to the guest meanwhile and given back also when this future
    /// is dropped. What the guest waits for comes from `supplier`. Returns what the guest returned. After
    /// `Err(Trapped)` or `Err(Cancelled)` the instance must not be used again.
    pub(super) async fn call(
        &mut self,
        hook: Hook,
        exchange: &mut Box<Exchange>,
        pinned: &mut PinnedInstances,
        supplier: &mut impl Supplier,
        args: (u32, u32, u32),
    ) -> Result<i32, HookError> {
        self.begin_call(Some(hook));
        // Borrowed, not cloned: a clone of either is a handful of atomic operations, a tenth of an empty call.
        let Some(function) = &self.hooks[hook as usize] else {
            cpu::stop(self.store.data_mut());
            self.suspended = false;
            return Ok(Action::Continue as i32);
        };
        let hatch = &self.hatch;
        let mut lent = Lent::new(&mut self.store, exchange);
        let result = {
            let mut call = pin!(function.call_async(&mut *lent.store, args));
            loop {
                let asked = poll_fn(|cx| match call.as_mut().poll(cx) {
                    Poll::Ready(result) => Poll::Ready(Err(result)),
                    // Pending for another reason: it has yielded.
                    Poll::Pending => hatch
                        .take()
                        .map_or(Poll::Pending, |asked| Poll::Ready(Ok(asked))),
                });
                match asked.await {
                    Err(result) => break result,
                    Ok(Asked {
                        demand,
                        exchange,
                        reply,
                    }) => {
                        let stand_in = mem::replace(lent.exchange, exchange);
                        lent.is_home = true;
                        // Boxed: its state would be part of every connection's, and few hooks wait.
                        let supply = Box::pin(supplier.supply(demand, lent.exchange, pinned)).await;
                        let supply = supply.map_err(|e| HookError::Cancelled(Box::new(e)))?;
                        lent.is_home = false;
                        let exchange = mem::replace(lent.exchange, stand_in);
                        // The guest takes it at once: its call is polled next, and nothing is awaited in between.
                        let _ = reply.send((supply, exchange));
                    }
                }
            }
        };
        // What it has used is the exchange's, too.
        cpu::stop(lent.store.data_mut());
        drop(lent);
        self.end_call(result)
    }

    /// Forgets the state of the request that the instance was kept for.
    pub(super) async fn reset_state(&mut self) -> Result<(), HookError> {
        let Some(reset) = self.state_reset.clone() else {
            return Ok(());
        };
        self.begin_call(None);
        let result = reset.call_async(&mut self.store, ()).await;
        self.end_call(result)
    }

    /// The error that the guest has passed to `fail` before it returned `raw`.
    pub(super) fn failed(&mut self, raw: i32) -> HookError {
        let guest = self.store.data_mut();
        let said = guest.failure.take();
        let said = said.unwrap_or_else(|| format!("it returned {raw} without saying why"));
        HookError::Failed(match guest.reached.take() {
            Some(reached) => format!("{said} ({reached})"),
            None => said,
        })
    }

    /// A call was dropped in its middle: the guest's stack is unwound, its memory is as it was then.
    pub(super) fn is_suspended(&self) -> bool {
        self.suspended
    }

    pub(super) fn calls(&self) -> u64 {
        self.calls
    }

    /// Linear memory now.
    pub(super) fn memory_bytes(&self) -> usize {
        self.store
            .data()
            .memory
            .map_or(0, |memory| memory.data_size(&self.store))
    }

    fn begin_call(&mut self, hook: Option<Hook>) {
        self.suspended = true;
        self.calls += 1;
        let guest = self.store.data_mut();
        guest.hook = hook;
        guest.failure = None;
        guest.panic = None;
        guest.cpu.begin();
        guest.host_calls_left = guest.limits.host_calls;
        guest.reached = None;
        guest.memory_limit.denied = None;
        self.store.set_epoch_deadline(1);
    }

    fn end_call<T>(&mut self, result: Result<T, Error>) -> Result<T, HookError> {
        self.suspended = false;
        let guest = self.store.data_mut();
        cpu::stop(guest);
        // An idle instance holds no request's bytes.
        guest.bodies = [None, None];
        guest.calls.clear();
        result.map_err(|trap| HookError::Trapped(trap_reason(&mut self.store, &trap)))
    }
}

pub(super) fn new_store(engine: &Engine, blueprint: &Blueprint) -> Store<Guest> {
    let mut store = Store::new(
        &engine.wasmtime,
        Guest {
            exchange: Exchange::idle(),
            memory: None,
            plugin: Arc::clone(&blueprint.plugin),
            config: Arc::clone(&blueprint.config),
            hook: None,
            failure: None,
            panic: None,
            memory_limit: MemoryLimit {
                bytes: blueprint.memory_limit_bytes,
                table_elements: blueprint.limits.table_elements,
                denied: None,
            },
            hatch: Hatch::default(),
            upstreams: Arc::clone(&blueprint.upstreams),
            own_routes: blueprint.own_routes,
            zones: Arc::clone(&blueprint.zones),
            body_limit_bytes: blueprint.body_limit_bytes,
            calls_limit: blueprint.calls_limit,
            bodies: [None, None],
            calls: Vec::new(),
            limits: Arc::clone(&blueprint.limits),
            log_lines: Arc::clone(&blueprint.log_lines),
            host_calls_left: blueprint.limits.host_calls,
            reached: None,
            cpu: Cpu::new(
                Arc::clone(&engine.turns),
                blueprint.cpu_limit,
                blueprint.request_cpu_limit,
            ),
            metrics: InstanceMetrics::new(&blueprint.metrics),
        },
    );
    store.limiter(|guest| &mut guest.memory_limit);
    store.epoch_deadline_callback(|mut store| cpu::tick(store.data_mut()));
    store.set_epoch_deadline(1);
    store
}

fn not_instantiated(engine: &Engine, store: &mut Store<Guest>, error: &Error) -> HookError {
    if error.is::<PoolConcurrencyLimitError>() {
        return HookError::Exhausted(format!(
            "all {} instances that a worker has for its plugins are in use",
            engine.instances
        ));
    }
    let why = trap_reason(store, error);
    HookError::Trapped(format!("it cannot be instantiated: {why}"))
}

/// One line and the guest's backtrace: which limit or panic it was, where it can be told.
fn trap_reason(store: &mut Store<Guest>, trap: &Error) -> String {
    let stack_bytes = store.engine().get_max_wasm_stack();
    let guest = store.data_mut();
    let backtrace = trap
        .downcast_ref::<wasmtime::WasmBacktrace>()
        .map(|b| format!("\n{b}"))
        .unwrap_or_default();
    let cause = trap.root_cause();
    let what = if let Some(limit) = guest.cpu.reached() {
        limit
    } else if let Some(denied) = guest.memory_limit.denied.take() {
        let panic = guest
            .panic
            .take()
            .map(|p| format!(" ({p})"))
            .unwrap_or_default();
        format!("{denied}{panic}")
    } else if let Some(Trap::StackOverflow) = trap.downcast_ref() {
        format!("workers.plugin_stack of {stack_bytes} bytes reached")
    } else if let Some(panic) = guest.panic.take() {
        panic
    } else {
        format!("{cause}")
    };
    format!("{what}{backtrace}")
}

/// An exchange in the hands of a guest. Two pointers change places, and change back when this goes.
struct Lent<'a> {
    store: &'a mut Store<Guest>,
    exchange: &'a mut Box<Exchange>,
    /// It is back for a while, because the guest waits.
    is_home: bool,
}

impl<'a> Lent<'a> {
    fn new(store: &'a mut Store<Guest>, exchange: &'a mut Box<Exchange>) -> Self {
        mem::swap(&mut store.data_mut().exchange, exchange);
        Self {
            store,
            exchange,
            is_home: false,
        }
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if self.is_home {
            return;
        }
        mem::swap(&mut self.store.data_mut().exchange, self.exchange);
    }
}

#[cfg(test)]
impl Blueprint {
    /// Of a plugin without hooks, with default limits.
    pub(super) fn of_test() -> Self {
        let (plugin, limits) = (Arc::from("test"), PluginLimits::default());
        Self {
            config: Arc::from("{}"),
            memory_limit_bytes: limits.memory_bytes,
            cpu_limit: limits.cpu,
            request_cpu_limit: limits.request_cpu,
            body_limit_bytes: limits.body_bytes,
            calls_limit: limits.calls as usize,
            zones: Arc::default(),
            upstreams: Arc::default(),
            own_routes: false,
            hooks: Vec::new(),
            state: false,
            metrics: PluginMetrics::new(
                Recorder::alone(256).expect("the metrics' memory can be made"),
                &plugin,
                "test",
                10,
            ),
            log_lines: LineBudget::new(&plugin, limits.log_lines),
            limits: Arc::new(limits),
            plugin,
        }
    }
}

#[cfg(test)]
mod tests {
    use wasmtime::{Linker, Module};

    use super::*;

    /// `(module (memory (export "memory") 1) (func (export "castling_configure") (result i32) i32.const 0))`
    const EMPTY: &[u8] =
        b"\0asm\x01\0\0\0\x01\x05\x01\x60\0\x01\x7f\x03\x02\x01\0\x05\x03\x01\0\x01\
        \x07\x1f\x02\x06memory\x02\0\x12castling_configure\0\0\x0a\x06\x01\x04\0\x41\0\x0b";

    #[tokio::test]
    async fn one_instance_more_than_a_worker_has_is_no_trap() {
        let engine = Engine::for_worker(64 << 10).unwrap();
        let module = Module::new(&engine.wasmtime, EMPTY).unwrap();
        let linker = Linker::new(&engine.wasmtime);
        let pre = linker.instantiate_pre(&module).unwrap();
        let blueprint = Blueprint::of_test();
        let mut instances = Vec::new();
        for _ in 0..engine.instances {
            instances.push(Instance::new(&engine, &pre, &blueprint).await.unwrap());
        }
        let beyond = Instance::new(&engine, &pre, &blueprint).await.err();
        assert!(
            matches!(beyond, Some(HookError::Exhausted(_))),
            "{beyond:?}"
        );
        instances.pop();
        Instance::new(&engine, &pre, &blueprint).await.unwrap();
    }
}
