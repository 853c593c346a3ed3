//! One live instance of a plugin: a store, its guest, and the functions that the host calls.

use std::future::poll_fn;
use std::mem;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use castling_abi::{Action, EXPORT_CONFIGURE, EXPORT_STATE_RESET, Hook};
use wasmtime::{Error, InstancePre, Store, TypedFunc, UpdateDeadline, bail, format_err};

use super::demand::{Asked, Hatch, Supplier};
use super::engine::{Engine, TICK};
use super::guest::{CpuBudget, Guest, MemoryLimit, Zones};
use super::plugin::HookError;
use crate::exchange::Exchange;

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
    /// Largest body that it may have read or be answered.
    pub(super) body_limit_bytes: usize,
    /// Calls out that a request may make.
    pub(super) calls_limit: usize,
    pub(super) zones: Zones,
    /// Upstreams that it may call.
    pub(super) upstreams: Arc<[Arc<str>]>,
    pub(super) hooks: Vec<Hook>,
    /// It keeps state for each request.
    pub(super) state: bool,
}

impl Instance {
    /// Instantiates and configures. The error is what `configure` said, or why it trapped.
    pub(super) async fn new(
        engine: &Engine,
        pre: &InstancePre<Guest>,
        blueprint: &Blueprint,
    ) -> Result<Box<Self>, HookError> {
        let mut store = new_store(engine, blueprint);
        let (mut instance, configure) = Self::instantiate(engine, &mut store, pre, blueprint)
            .await
            .map(|(hooks, state_reset, configure)| {
                (
                    Box::new(Self {
                        hatch: store.data().hatch.clone(),
                        store,
                        hooks,
                        state_reset,
                        suspended: false,
                        calls: 0,
                    }),
                    configure,
                )
            })
            .map_err(|e| HookError::Trapped(format!("it cannot be instantiated: {e:#}")))?;
        engine.guest_runs();
        instance.begin_call(None);
        let result = configure.call_async(&mut instance.store, ()).await;
        match instance.end_call(result)? {
            raw if raw == Action::Continue as i32 => Ok(instance),
            raw => Err(instance.failed(raw)),
        }
    }

    async fn instantiate(
        engine: &Engine,
        store: &mut Store<Guest>,
        pre: &InstancePre<Guest>,
        blueprint: &Blueprint,
    ) -> Result<(HookTable, Option<TypedFunc<(), ()>>, TypedFunc<(), i32>), Error> {
        engine.guest_runs();
        let instance = pre.instantiate_async(&mut *store).await?;
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
        engine: &Engine,
        hook: Hook,
        exchange: &mut Box<Exchange>,
        supplier: &mut impl Supplier,
        args: (u32, u32, u32),
    ) -> Result<i32, HookError> {
        engine.guest_runs();
        self.begin_call(Some(hook));
        // Borrowed, not cloned: a clone of either is a handful of atomic operations, a tenth of an empty call.
        let Some(function) = &self.hooks[hook as usize] else {
            self.suspended = false;
            return Ok(Action::Continue as i32);
        };
        let hatch = &self.hatch;
        let lent = Lent::new(&mut self.store, exchange);
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
                    Ok(Asked { demand, reply }) => {
                        // Boxed: its state would be part of every connection's, and few hooks wait.
                        let supply = Box::pin(supplier.supply(demand)).await;
                        let supply = supply.map_err(|e| HookError::Cancelled(Box::new(e)))?;
                        // The guest waits for it as long as its call is polled.
                        let _ = reply.send(supply);
                    }
                }
            }
        };
        drop(lent);
        self.end_call(result)
    }

    /// Forgets the state of the request that the instance was kept for.
    pub(super) async fn reset_state(&mut self, engine: &Engine) -> Result<(), HookError> {
        let Some(reset) = self.state_reset.clone() else {
            return Ok(());
        };
        engine.guest_runs();
        self.begin_call(None);
        let result = reset.call_async(&mut self.store, ()).await;
        self.end_call(result)
    }

    /// The error that the guest has passed to `fail` before it returned `raw`.
    pub(super) fn failed(&mut self, raw: i32) -> HookError {
        let said = self.store.data_mut().failure.take();
        HookError::Failed(said.unwrap_or_else(|| format!("it returned {raw} without saying why")))
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
        guest.bodies = [None, None];
        guest.calls.clear();
        guest.cpu.used_ticks = 0;
        self.store.set_epoch_deadline(1);
    }

    fn end_call<T>(&mut self, result: Result<T, Error>) -> Result<T, HookError> {
        self.suspended = false;
        result.map_err(|trap| {
            let guest = self.store.data_mut();
            HookError::Trapped(trap_reason(guest, &trap))
        })
    }
}

pub(super) fn new_store(engine: &Engine, blueprint: &Blueprint) -> Store<Guest> {
    let ticks = blueprint.cpu_limit.as_nanos().div_ceil(TICK.as_nanos());
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
                denied: false,
            },
            hatch: Hatch::default(),
            upstreams: Arc::clone(&blueprint.upstreams),
            zones: Arc::clone(&blueprint.zones),
            body_limit_bytes: blueprint.body_limit_bytes,
            calls_limit: blueprint.calls_limit,
            bodies: [None, None],
            calls: Vec::new(),
            cpu: CpuBudget {
                limit_ticks: u64::try_from(ticks).unwrap_or(u64::MAX),
                used_ticks: 0,
            },
        },
    );
    store.limiter(|guest| &mut guest.memory_limit);
    let runs_on = engine.guest_runs_on();
    store.epoch_deadline_callback(move |mut store| {
        runs_on();
        let cpu = &mut store.data_mut().cpu;
        cpu.used_ticks += 1;
        if cpu.is_spent() {
            bail!("CPU limit reached");
        }
        // tokio's own yield lets the event loop look for I/O first; a plain wake-up would come straight back.
        Ok(UpdateDeadline::YieldCustom(
            1,
            Box::pin(tokio::task::yield_now()),
        ))
    });
    store.set_epoch_deadline(1);
    store
}

/// One line and the guest's backtrace: which limit or panic it was, where it can be told.
fn trap_reason(guest: &mut Guest, trap: &Error) -> String {
    let backtrace = trap
        .downcast_ref::<wasmtime::WasmBacktrace>()
        .map(|b| format!("\n{b}"))
        .unwrap_or_default();
    let cause = trap.root_cause();
    let what = if guest.cpu.is_spent() {
        format!(
            "limits.cpu of {} ms reached",
            guest.cpu.limit_ticks * TICK.as_millis() as u64
        )
    } else if mem::take(&mut guest.memory_limit.denied) {
        let panic = guest
            .panic
            .take()
            .map(|p| format!(" ({p})"))
            .unwrap_or_default();
        format!(
            "limits.memory of {} bytes reached{panic}",
            guest.memory_limit.bytes
        )
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
}

impl<'a> Lent<'a> {
    fn new(store: &'a mut Store<Guest>, exchange: &'a mut Box<Exchange>) -> Self {
        mem::swap(&mut store.data_mut().exchange, exchange);
        Self { store, exchange }
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        mem::swap(&mut self.store.data_mut().exchange, self.exchange);
    }
}
