//! The one wasmtime engine of a process.

use std::num::NonZeroUsize;
use std::sync::Arc;

use wasmtime::{Config, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::clock::Clock;
use super::cpu::Turns;
use crate::config::{MAX_PLUGIN_MEMORY_BYTES, MAX_PLUGIN_TABLE_ELEMENTS};

/// A worker's engine. The helper that compiles uses the same settings, or what it compiled would not be taken.
pub struct Engine {
    pub wasmtime: wasmtime::Engine,
    pub(super) turns: Arc<Turns>,
}

/// Instances of all plugins together in one worker. Each reserves some 4 GiB of address space (not memory), which
/// lets wasmtime leave out bounds checks.
pub(super) const MAX_INSTANCES: u32 = 4096;

/// Host calls run on the guest's stack: they have this much, however deep the guest is.
const HOST_STACK_BYTES: usize = 512 * 1024;

impl Engine {
    /// Reserves the address space of the instance pool and makes the clock. Guests run on the thread that calls this.
    /// `plugin_stack_bytes` is how deep a guest's calls may go; compiled code does not depend on it.
    pub fn for_worker(plugin_stack_bytes: usize) -> wasmtime::Result<Self> {
        let mut pool = PoolingAllocationConfig::new();
        pool.total_core_instances(MAX_INSTANCES);
        pool.total_memories(MAX_INSTANCES);
        pool.total_tables(MAX_INSTANCES);
        pool.total_stacks(MAX_INSTANCES);
        pool.max_memory_size(MAX_PLUGIN_MEMORY_BYTES);
        pool.table_elements(MAX_PLUGIN_TABLE_ELEMENTS);
        let mut config = settings();
        config.max_wasm_stack(plugin_stack_bytes);
        config.async_stack_size(plugin_stack_bytes + HOST_STACK_BYTES);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        let wasmtime = wasmtime::Engine::new(&config)?;
        let clock = Clock::new(wasmtime.clone())
            .map_err(|e| wasmtime::format_err!("the timer that interrupts plugins: {e}"))?;
        let turns = Arc::new(Turns::new(clock));
        Ok(Self { wasmtime, turns })
    }
}

/// What compiled code depends on; pool and stacks are not part of it.
pub(super) fn settings() -> Config {
    let mut config = Config::new();
    config.epoch_interruption(true);
    // Deep enough for the way from a hook to its panic, short enough for a log line.
    config.wasm_backtrace_max_frames(NonZeroUsize::new(16));
    config.wasm_multi_memory(false);
    config.wasm_memory64(false);
    config
}

#[cfg(test)]
mod tests {
    use std::hash::{DefaultHasher, Hash, Hasher};

    use super::*;

    #[test]
    fn compiled_code_fits_every_pool_and_stack() {
        let fingerprint = |engine: &wasmtime::Engine| {
            let mut hasher = DefaultHasher::new();
            engine.precompile_compatibility_hash().hash(&mut hasher);
            hasher.finish()
        };
        let compiler = wasmtime::Engine::new(&settings()).unwrap();
        for stack_bytes in [64 << 10, 512 << 10, 8 << 20] {
            let worker = Engine::for_worker(stack_bytes).unwrap();
            assert_eq!(fingerprint(&worker.wasmtime), fingerprint(&compiler));
        }
    }
}
