//! A live instance of a plugin: a store, its guest, and the functions that the host calls.

use std::future::poll_fn;
use std::mem;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use castling_abi::{Action, ErrorKind, Hook};
use wasmtime::{
    Error, Extern, Global, Memory, ModuleExport, PoolConcurrencyLimitError, Store, Trap, TypedFunc,
    Val, WasmParams, WasmResults, format_err,
};

use super::code::Code;
use super::cpu::{self, Cpu};
use super::engine::Engine;
use super::guest::{CallReport, Guest, MemoryLimit};
use super::hook_call::HookCall;
use super::hook_error::HookError;
use super::hook_stack::HookStack;
use super::instance_template::InstanceTemplate;
use super::io_request::{Handoff, PendingIo, Perform};
use super::limit::most_of_head;
use super::module_text;
use crate::exchange::{Exchange, PluginKey};
use crate::metrics::InstanceMetrics;

/// Serves one call at a time. After a trap it is dropped: the guest's invariants may be broken.
///
/// In this order: what every call looks at comes first, as in [`Plugin`](super::plugin::Plugin).
#[repr(C, align(64))]
pub(super) struct Instance {
    store: Store<Guest>,
    /// Calls of its hooks so far.
    calls: u64,
    /// A call has begun and not returned. It stays so when the call's future is dropped.
    suspended: bool,
    /// The guest's; beside the store, so that it can be watched while the store runs.
    handoff: Handoff,
    memory: Memory,
    /// Functions that were called: to find one and to check its type takes a tenth of a microsecond.
    hooks: HookTable,
    wasm: wasmtime::Instance,
    code: Rc<Code>,
    state_reset: Option<TypedFunc<(), ()>>,
}

/// By hook.
type HookTable = [Entry; Hook::ALL.len()];

/// A line of the processor's cache to itself.
#[repr(align(64))]
struct Entry(Option<TypedFunc<(u32, u32, u32), i32>>);

impl Instance {
    /// Instantiates and configures. The error is what `configure` said, or why it trapped.
    pub(super) async fn new(
        engine: &Engine,
        code: &Rc<Code>,
        template: &InstanceTemplate,
    ) -> Result<Box<Self>, HookError> {
        let mut instance = Self::unconfigured(engine, code, template).await?;
        match code.snapshot.get() {
            Some(snapshot) => snapshot
                .put_into(&mut instance)
                .map_err(|error| not_instantiated(&mut instance.store, &error))?,
            None => instance.configure().await?,
        }
        let cpu = &mut instance.store.data_mut().cpu;
        cpu.limit_hooks(template.cpu_limit);
        // A call, as far as its wear goes.
        instance.calls = 1;
        Ok(instance)
    }

    /// Only instantiates. Nothing must be called but `configure`.
    pub(super) async fn unconfigured(
        engine: &Engine,
        code: &Rc<Code>,
        template: &InstanceTemplate,
    ) -> Result<Box<Self>, HookError> {
        let mut store = new_store(engine, template);
        // A start function may run.
        store.data().cpu.go_on();
        let wasm = code.pre.instantiate_async(&mut store).await;
        cpu::stop(store.data_mut());
        let wasm = wasm.map_err(|error| match error.is::<PoolConcurrencyLimitError>() {
            true => HookError::Exhausted(format!(
                "all {} instances that a worker has for its plugins are in use",
                engine.instances
            )),
            false => not_instantiated(&mut store, &error),
        })?;
        let memory = export(&wasm, &mut store, &code.memory, Extern::into_memory)
            .map_err(|error| not_instantiated(&mut store, &error))?;
        store.data_mut().memory = Some(memory);
        Ok(Box::new(Self {
            handoff: store.data().handoff.clone(),
            store,
            wasm,
            memory,
            code: Rc::clone(code),
            hooks: [const { Entry(None) }; Hook::ALL.len()],
            state_reset: None,
            suspended: false,
            calls: 0,
        }))
    }

    async fn configure(&mut self) -> Result<(), HookError> {
        let export = self.code.configure;
        let configure = self
            .function::<(), i32>(&export)
            .map_err(|error| not_instantiated(&mut self.store, &error))?;
        let initialize = self.code.initialize;
        let initialize = initialize.map(|export| self.function::<(), ()>(&export));
        let initialize = initialize
            .transpose()
            .map_err(|error| not_instantiated(&mut self.store, &error))?;
        // Both are one call, as far as limits go, and what a snapshot makes up for.
        self.begin_call(None, false);
        let initialized = match initialize {
            Some(initialize) => initialize.call_async(&mut self.store, ()).await,
            None => Ok(()),
        };
        let result = match initialized {
            Ok(()) => configure.call_async(&mut self.store, ()).await,
            Err(trap) => Err(trap),
        };
        let error = match self.end_call(result) {
            Ok(raw) if raw == Action::Continue as i32 => return Ok(()),
            Ok(raw) => self.failed(raw),
            Err(error) => error,
        };
        Err(error.without_values(&self.store.data().config))
    }

    /// Runs one hook against the exchange, within a job on the hook stack; the guest must be one that waits for nothing. The exchange is
    /// lent to the guest meanwhile and given back however the call ends. What it has returned is for [`Self::end_call`]; a job
    /// that is given up when it has paused leaves the instance suspended.
    #[inline]
    pub(super) fn call_on_stack(
        &mut self,
        call: HookCall,
        exchange: &mut Box<Exchange>,
    ) -> Result<i32, Error> {
        // The result is as wide as an error, so that either comes in a register.
        let returned = self.run_on_stack(call, exchange)?;
        Ok(returned as i32)
    }

    fn run_on_stack(&mut self, call: HookCall, exchange: &mut Box<Exchange>) -> Result<i64, Error> {
        let (hook, args) = (call.hook(), call.args());
        self.begin_call(Some(hook), true);
        self.find(hook)?;
        // Borrowed, not cloned: a clone is a handful of atomic operations, a tenth of an empty call.
        let Some(function) = &self.hooks[hook as usize].0 else {
            cpu::stop(self.store.data_mut());
            return Ok(Action::Continue as i64);
        };
        let lent = ExchangeGuard::new(&mut self.store, exchange);
        let result = function.call(&mut *lent.store, args).map(i64::from);
        // CPU time of the call is the exchange's, too.
        cpu::stop(lent.store.data_mut());
        result
    }

    /// Runs one hook against the exchange on a fiber. The exchange is lent to the guest meanwhile and given back also when
    /// this future is dropped. What the guest waits for comes from `io`; when that fails, the request is over and the
    /// instance must not be used again. What the guest has returned is for [`Self::end_call`].
    pub(super) async fn call(
        &mut self,
        call: HookCall,
        exchange: &mut Box<Exchange>,
        io: &mut dyn Perform,
    ) -> Result<Result<i32, Error>, crate::error::Error> {
        let (hook, args) = (call.hook(), call.args());
        self.begin_call(Some(hook), false);
        if let Err(error) = self.find(hook) {
            return Ok(Err(error));
        }
        let Some(function) = &self.hooks[hook as usize].0 else {
            cpu::stop(self.store.data_mut());
            return Ok(Ok(Action::Continue as i32));
        };
        let handoff = &self.handoff;
        let mut lent = ExchangeGuard::new(&mut self.store, exchange);
        let result = {
            let mut call = pin!(function.call_async(&mut *lent.store, args));
            loop {
                let pending = poll_fn(|cx| match call.as_mut().poll(cx) {
                    Poll::Ready(result) => Poll::Ready(Err(result)),
                    // Pending for another reason: it has yielded.
                    Poll::Pending => handoff
                        .take()
                        .map_or(Poll::Pending, |pending| Poll::Ready(Ok(pending))),
                });
                match pending.await {
                    Err(result) => break result,
                    Ok(PendingIo {
                        request,
                        exchange,
                        reply,
                    }) => {
                        let stand_in = mem::replace(lent.exchange, exchange);
                        lent.is_home = true;
                        let result = io.perform(request, lent.exchange).await?;
                        lent.is_home = false;
                        let exchange = mem::replace(lent.exchange, stand_in);
                        // The guest takes it at once: its call is polled next, and nothing is awaited in between.
                        let _ = reply.send((result, exchange));
                    }
                }
            }
        };
        // CPU time of the call is the exchange's, too.
        cpu::stop(lent.store.data_mut());
        Ok(result)
    }

    /// Forgets the state of the request that the instance was kept for.
    pub(super) async fn reset_state(
        &mut self,
        hook_stack: Option<&HookStack>,
    ) -> Result<(), HookError> {
        let Some(export) = self.code.state_reset else {
            return Ok(());
        };
        let reset = match &self.state_reset {
            Some(reset) => reset.clone(),
            None => self
                .function(&export)
                .map_err(|error| not_instantiated(&mut self.store, &error))?,
        };
        self.state_reset = Some(reset.clone());
        self.begin_call(None, hook_stack.is_some());
        let result = match hook_stack {
            Some(hook_stack) => hook_stack.run(|| reset.call(&mut self.store, ())).await,
            None => reset.call_async(&mut self.store, ()).await,
        };
        self.end_call(result)
    }

    /// The error that the guest has passed to `fail` before it returned `raw`.
    #[cold]
    #[inline(never)]
    pub(super) fn failed(&mut self, raw: i32) -> HookError {
        let guest = self.store.data_mut();
        let CallReport {
            failure,
            kind,
            reached,
            ..
        } = guest.report.take().map(|said| *said).unwrap_or_default();
        let said = failure.unwrap_or_else(|| format!("it returned {raw} without saying why"));
        let said = match reached {
            Some(reached) => format!("{said} ({reached})"),
            None => said,
        };
        let kind = kind.unwrap_or(ErrorKind::Own);
        HookError::Failed { said, kind }
    }

    /// A call was dropped in its middle: the guest's stack is unwound, its memory is as it was then.
    #[inline]
    pub(super) fn is_suspended(&self) -> bool {
        self.suspended
    }

    /// Whether it has had so many calls, or its memory has grown to three quarters of its limit: it is not used again.
    #[inline]
    pub(super) fn is_worn(&self, most_calls: u64) -> bool {
        self.calls >= most_calls || self.store.data().is_grown
    }

    /// Linear memory now.
    pub(super) fn memory_bytes(&self) -> usize {
        self.store.data().memory_limit.grown_to
    }

    /// Linear memory of the instance, and what the host keeps for it.
    pub(super) fn memory(&mut self) -> (&mut [u8], &mut Guest) {
        self.memory.data_and_store_mut(&mut self.store)
    }

    pub(super) fn guest(&self) -> &Guest {
        self.store.data()
    }

    /// The memory is as large as that, or larger.
    pub(super) fn grow_to(&mut self, bytes: usize) -> Result<(), Error> {
        let missing = bytes.saturating_sub(self.memory_bytes());
        if missing > 0 {
            let page_bytes = self.memory.page_size(&self.store);
            let pages = (missing as u64).div_ceil(page_bytes);
            self.memory.grow(&mut self.store, pages)?;
        }
        Ok(())
    }

    /// Values of the globals that its code lets the host see, by their index there.
    pub(super) fn globals(&mut self) -> Result<Vec<Val>, Error> {
        (0..self.code.globals.len())
            .map(|idx| Ok(self.global(idx)?.get(&mut self.store)))
            .collect()
    }

    pub(super) fn set_global(&mut self, idx: usize, value: Val) -> Result<(), Error> {
        self.global(idx)?.set(&mut self.store, value)
    }

    fn global(&mut self, idx: usize) -> Result<Global, Error> {
        let Self {
            wasm, store, code, ..
        } = self;
        export(wasm, store, &code.globals[idx], Extern::into_global)
    }

    /// Sees to it that the hook, if there is one, is in the table.
    #[inline]
    fn find(&mut self, hook: Hook) -> Result<(), Error> {
        if self.hooks[hook as usize].0.is_some() {
            return Ok(());
        }
        self.look_up(hook)
    }

    #[cold]
    fn look_up(&mut self, hook: Hook) -> Result<(), Error> {
        if let Some(export) = self.code.hooks[hook as usize] {
            self.hooks[hook as usize].0 = Some(self.function(&export)?);
        }
        Ok(())
    }

    fn function<P: WasmParams, R: WasmResults>(
        &mut self,
        function: &ModuleExport,
    ) -> Result<TypedFunc<P, R>, Error> {
        let function = export(&self.wasm, &mut self.store, function, Extern::into_func)?;
        function.typed(&self.store)
    }

    #[inline]
    fn begin_call(&mut self, hook: Option<Hook>, on_hook_stack: bool) {
        self.suspended = true;
        self.calls += 1;
        let guest = self.store.data_mut();
        guest.hook = hook;
        guest.host_calls_left = guest.host_calls;
        guest.forget_report();
        guest.cpu.begin(on_hook_stack);
        self.store.set_epoch_deadline(1);
    }

    /// A call has returned or trapped. After `Err(Trapped)` the instance must not be used again.
    pub(super) fn end_call<T>(&mut self, result: Result<T, Error>) -> Result<T, HookError> {
        match result {
            Ok(returned) => {
                cpu::stop(self.store.data_mut());
                self.rest();
                Ok(returned)
            }
            Err(trap) => Err(self.trapped(&trap)),
        }
    }

    /// A call has returned. An idle instance holds no request's bytes.
    #[inline]
    pub(super) fn rest(&mut self) {
        self.suspended = false;
        self.store.data_mut().forget_results();
    }

    /// A call has trapped: the instance must not be used again.
    #[cold]
    #[inline(never)]
    pub(super) fn trapped(&mut self, trap: &Error) -> HookError {
        cpu::stop(self.store.data_mut());
        self.suspended = false;
        self.store.data_mut().forget_results();
        HookError::Trapped(trap_reason(&mut self.store, trap))
    }
}

/// The code has said that it exports this.
fn export<T>(
    instance: &wasmtime::Instance,
    store: &mut Store<Guest>,
    export: &ModuleExport,
    kind: impl FnOnce(Extern) -> Option<T>,
) -> Result<T, Error> {
    let found = instance.get_module_export(store, export).and_then(kind);
    found.ok_or_else(|| format_err!("an export is of another kind than its manifest says"))
}

pub(super) fn new_store(engine: &Engine, template: &InstanceTemplate) -> Store<Guest> {
    let mut store = Store::new(
        &engine.wasmtime,
        Guest {
            exchange: Exchange::idle(),
            memory: None,
            plugin: Arc::clone(&template.plugin),
            config: Arc::clone(&template.config),
            hook: None,
            is_grown: false,
            host_calls_left: template.limits.host_calls,
            host_calls: template.limits.host_calls,
            report: None,
            results: None,
            key: PluginKey::of(&template.plugin),
            most_of_head: most_of_head(&template.limits),
            memory_limit: MemoryLimit {
                bytes: template.memory_limit_bytes,
                grown_to: 0,
                table_elements: template.limits.table_elements,
            },
            handoff: Handoff::default(),
            upstreams: Arc::clone(&template.upstreams),
            own_routes: template.own_routes,
            zones: Arc::clone(&template.zones),
            files: Arc::clone(&template.files),
            hosts: Arc::clone(&template.hosts),
            computes: Arc::clone(&template.computes),
            declared: Vec::new(),
            body_limit_bytes: template.body_limit_bytes,
            calls_limit: template.calls_limit,
            limits: Arc::clone(&template.limits),
            log_lines: Arc::clone(&template.log_lines),
            repeatable_calls: 0,
            cpu: Cpu::new(
                Arc::clone(&engine.turns),
                template.configure_cpu_limit,
                template.request_cpu_limit,
            ),
            metrics: InstanceMetrics::new(&template.metrics),
        },
    );
    store.limiter(|guest| guest);
    store.epoch_deadline_callback(|mut store| cpu::tick(store.data_mut()));
    store.set_epoch_deadline(1);
    store
}

fn not_instantiated(store: &mut Store<Guest>, error: &Error) -> HookError {
    let why = trap_reason(store, error);
    HookError::Trapped(format!("it cannot be instantiated: {why}"))
}

/// Describes a failure in one line and the guest's backtrace: which limit or panic it was, where it can be told.
fn trap_reason(store: &mut Store<Guest>, trap: &Error) -> String {
    let stack_bytes = store.engine().get_max_wasm_stack();
    let guest = store.data_mut();
    let CallReport { panic, denied, .. } =
        guest.report.take().map(|said| *said).unwrap_or_default();
    let backtrace = trap
        .downcast_ref::<wasmtime::WasmBacktrace>()
        .map(|b| format!("\n{}", module_text::backtrace(b)))
        .unwrap_or_default();
    let cause = trap.root_cause();
    let what = if let Some(limit) = guest.cpu.reached() {
        limit
    } else if let Some(denied) = denied {
        let panic = panic.map(|p| format!(" ({p})")).unwrap_or_default();
        format!("{denied}{panic}")
    } else if let Some(Trap::StackOverflow) = trap.downcast_ref() {
        format!("workers.plugin_stack of {stack_bytes} bytes reached")
    } else if let Some(panic) = panic {
        panic
    } else {
        module_text::text(&cause.to_string())
    };
    format!("{what}{backtrace}")
}

/// An exchange in the hands of a guest. Two pointers change places, and change back when this goes.
struct ExchangeGuard<'a> {
    store: &'a mut Store<Guest>,
    exchange: &'a mut Box<Exchange>,
    /// The exchange is back for a while, because the guest waits.
    is_home: bool,
}

impl<'a> ExchangeGuard<'a> {
    fn new(store: &'a mut Store<Guest>, exchange: &'a mut Box<Exchange>) -> Self {
        mem::swap(&mut store.data_mut().exchange, exchange);
        Self {
            store,
            exchange,
            is_home: false,
        }
    }
}

impl Drop for ExchangeGuard<'_> {
    fn drop(&mut self) {
        self.store.data_mut().cpu.give_up();
        if self.is_home {
            return;
        }
        mem::swap(&mut self.store.data_mut().exchange, self.exchange);
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
        let engine = Engine::for_worker(64 << 10, 8).unwrap();
        let module = Module::new(&engine.wasmtime, EMPTY).unwrap();
        let linker = Linker::new(&engine.wasmtime);
        let pre = linker.instantiate_pre(&module).unwrap();
        let template = InstanceTemplate::of_test();
        let code = Rc::new(Code::new(pre, &template.hooks, false).unwrap());
        let mut instances = Vec::new();
        for _ in 0..engine.instances {
            instances.push(Instance::new(&engine, &code, &template).await.unwrap());
        }
        let beyond = Instance::new(&engine, &code, &template).await.err();
        assert!(
            matches!(beyond, Some(HookError::Exhausted(_))),
            "{beyond:?}"
        );
        instances.pop();
        Instance::new(&engine, &code, &template).await.unwrap();
    }
}
