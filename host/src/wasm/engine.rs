//! The one wasmtime engine of a process, and the clock that interrupts guests.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::config::MAX_PLUGIN_MEMORY_BYTES;

/// A worker's engine. The helper that compiles uses the same settings, or what it compiled would not be taken.
pub struct Engine {
    pub wasmtime: wasmtime::Engine,
    ticker: Ticker,
}

/// A guest yields to the event loop, and its CPU time is counted, once a tick.
pub const TICK: Duration = Duration::from_millis(1);

/// Instances of all plugins together in one worker. Each reserves some 4 GiB of address space (not memory), which
/// lets wasmtime leave out bounds checks.
const MAX_INSTANCES: u32 = 4096;

/// Of a used instance, so much of the memory that its guest has written to is cleaned by hand and kept for the next; what is
/// beyond goes back to the system. A system call more and page faults cost more than cleaning a few pages.
const KEPT_MEMORY_BYTES: usize = 256 * 1024;

/// The same of its table. wasmtime fills 8 bytes an element at first use.
const KEPT_TABLE_BYTES: usize = 64 * 1024;

impl Engine {
    /// Reserves the address space of the instance pool and starts the clock thread.
    pub fn for_worker() -> wasmtime::Result<Self> {
        let mut pool = PoolingAllocationConfig::new();
        pool.total_core_instances(MAX_INSTANCES);
        pool.total_memories(MAX_INSTANCES);
        pool.total_tables(MAX_INSTANCES);
        pool.total_stacks(MAX_INSTANCES);
        pool.max_memory_size(MAX_PLUGIN_MEMORY_BYTES);
        if swap_is_off() {
            pool.pagemap_scan(Enabled::Auto);
            pool.linear_memory_keep_resident(KEPT_MEMORY_BYTES);
            pool.table_keep_resident(KEPT_TABLE_BYTES);
        }
        let mut config = settings();
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        let wasmtime = wasmtime::Engine::new(&config)?;
        let ticker = Ticker::start(wasmtime.clone());
        Ok(Self { wasmtime, ticker })
    }

    /// For the guests' stores: says at each tick that the guest still runs, or the clock would stop under it.
    pub(super) fn guest_runs_on(&self) -> impl Fn() + Send + Sync + use<> {
        let shared = Arc::clone(&self.ticker.shared);
        move || shared.touched.store(true, Ordering::Relaxed)
    }

    /// Says that a guest is about to run: the clock ticks for a while.
    #[inline]
    pub fn guest_runs(&self) {
        self.ticker.shared.touched.store(true, Ordering::Relaxed);
        if !self.ticker.shared.ticking.load(Ordering::Relaxed) {
            self.ticker.thread.unpark();
        }
    }
}

/// wasmtime 48 asks the kernel which pages a guest has written to, but not about those that were swapped out, and would leave
/// them to the next instance. Where there is swap, all pages go back to the system instead.
fn swap_is_off() -> bool {
    // A line of titles, then a line for each swap file or partition.
    std::fs::read_to_string("/proc/swaps").is_ok_and(|swaps| swaps.lines().count() <= 1)
}

/// What compiled code depends on; the pool is not part of it.
pub(super) fn settings() -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true);
    // A fiber's stack is this plus what wasmtime itself asks for.
    config.max_wasm_stack(512 * 1024);
    config.async_stack_size(1024 * 1024);
    // Deep enough for the way from a hook to its panic, short enough for a log line.
    config.wasm_backtrace_max_frames(NonZeroUsize::new(16));
    config.wasm_multi_memory(false);
    config.wasm_memory64(false);
    config
}

/// Ticks while guests run and sleeps otherwise, so that an idle worker does not wake up.
struct Ticker {
    shared: Arc<TickerState>,
    thread: thread::Thread,
}

struct TickerState {
    /// A guest ran since the last tick.
    touched: AtomicBool,
    /// The thread is ticking, not parked.
    ticking: AtomicBool,
    stopped: AtomicBool,
}

/// Ticks without a guest after which the thread parks.
const IDLE_TICKS: u32 = 50;

/// Parking is bounded, because `guest_runs` reads `ticking` without a fence: in a rare race its `unpark` is not sent
/// and the first tick of a guest comes this late.
const PARK_LIMIT: Duration = Duration::from_secs(1);

impl Ticker {
    fn start(engine: wasmtime::Engine) -> Self {
        let shared = Arc::new(TickerState {
            touched: AtomicBool::new(false),
            ticking: AtomicBool::new(true),
            stopped: AtomicBool::new(false),
        });
        let state = Arc::clone(&shared);
        let handle = thread::spawn(move || {
            let mut idle_ticks = 0;
            while !state.stopped.load(Ordering::Relaxed) {
                thread::sleep(TICK);
                engine.increment_epoch();
                if state.touched.swap(false, Ordering::Relaxed) {
                    idle_ticks = 0;
                    continue;
                }
                idle_ticks += 1;
                if idle_ticks >= IDLE_TICKS {
                    state.ticking.store(false, Ordering::Relaxed);
                    while !state.touched.load(Ordering::Relaxed)
                        && !state.stopped.load(Ordering::Relaxed)
                    {
                        thread::park_timeout(PARK_LIMIT);
                    }
                    state.ticking.store(true, Ordering::Relaxed);
                    idle_ticks = 0;
                }
            }
        });
        Self {
            shared,
            thread: handle.thread().clone(),
        }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        self.thread.unpark();
    }
}
