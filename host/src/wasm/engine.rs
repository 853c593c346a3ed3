//! The one wasmtime engine of a process.

use std::num::NonZeroUsize;
use std::sync::Arc;

use wasmtime::{Config, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::clock::Clock;
use super::cpu::Turns;
use crate::config::MAX_PLUGIN_MEMORY_BYTES;

/// A worker's engine. The helper that compiles uses the same settings, or what it compiled would not be taken.
pub struct Engine {
    pub wasmtime: wasmtime::Engine,
    pub(super) turns: Arc<Turns>,
}

/// Instances of all plugins together in one worker. Each reserves some 4 GiB of address space (not memory), which
/// lets wasmtime leave out bounds checks.
const MAX_INSTANCES: u32 = 4096;

impl Engine {
    /// Reserves the address space of the instance pool and makes the clock. Guests run on the thread that calls this.
    pub fn for_worker() -> wasmtime::Result<Self> {
        let mut pool = PoolingAllocationConfig::new();
        pool.total_core_instances(MAX_INSTANCES);
        pool.total_memories(MAX_INSTANCES);
        pool.total_tables(MAX_INSTANCES);
        pool.total_stacks(MAX_INSTANCES);
        pool.max_memory_size(MAX_PLUGIN_MEMORY_BYTES);
        let mut config = settings();
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        let wasmtime = wasmtime::Engine::new(&config)?;
        let clock = Clock::new(wasmtime.clone())
            .map_err(|e| wasmtime::format_err!("the timer that interrupts plugins: {e}"))?;
        let turns = Arc::new(Turns::new(clock));
        Ok(Self { wasmtime, turns })
    }
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
