//! The one wasmtime engine of a process.

use std::fs::File;
use std::num::NonZeroUsize;
use std::sync::Arc;

use tracing::warn;
use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::clock::Clock;
use super::cpu::CpuSlices;
use super::hook_stack::HookStack;
use crate::config::{self, MAX_INSTANCES, MAX_PLUGIN_MEMORY_BYTES, MAX_PLUGIN_TABLE_ELEMENTS};

/// A worker's engine. The helper that compiles uses the same settings, or what it compiled would not be taken.
pub struct Engine {
    pub wasmtime: wasmtime::Engine,
    pub(super) turns: Arc<CpuSlices>,
    pub(super) hook_stack: HookStack,
    /// Instances of all plugins together; fewer than were asked for where there is no address space for them.
    pub(super) instances: u32,
    /// Page map of this process; opened here, since one that is not dumpable may not open its own. `None`: it cannot be read.
    pub(super) pagemap: Option<File>,
}

/// Instances that the plugins of a config may have together, and no more: to reserve [`MAX_INSTANCES`] takes a worker 15 ms of its core,
/// which the last generation's requests wait for.
pub fn instances(config: &config::Config) -> u32 {
    config::all_instances(config).min(MAX_INSTANCES) as u32
}

/// Where `ulimit -v`, valgrind or the like leaves less room than all would take, half as many are tried, and so on down to
/// these.
const MIN_INSTANCES: u32 = 4;

/// Host calls run on the guest's stack: they have this much, however deep the guest is.
const HOST_STACK_BYTES: usize = 512 * 1024;

/// Bytes of a used instance's memory that are cleaned by hand and kept for the next, of what its guest has written to; what is
/// beyond goes back to the system. A system call more and page faults cost more than cleaning a few pages.
const KEPT_MEMORY_BYTES: usize = 256 * 1024;

/// Bytes of its table that are. wasmtime fills 8 bytes an element at first use.
const KEPT_TABLE_BYTES: usize = 64 * 1024;

impl Engine {
    /// Reserves the address space of a pool of so many instances and makes the clock. Guests run on the thread that calls this.
    /// `plugin_stack_bytes` is how deep a guest's calls may go; compiled code does not depend on it.
    pub fn for_worker(plugin_stack_bytes: usize, most_instances: u32) -> wasmtime::Result<Self> {
        let mut instances = most_instances;
        let wasmtime = loop {
            match wasmtime::Engine::new(&with_pool(instances, plugin_stack_bytes)) {
                Ok(engine) => break engine,
                Err(error) if instances <= MIN_INSTANCES => return Err(error),
                Err(_) => instances /= 2,
            }
        };
        if instances < most_instances {
            warn!(
                instances,
                "address space is limited: fewer instances of plugins"
            );
        }
        let clock = Clock::new(wasmtime.clone())
            .map_err(|e| wasmtime::format_err!("the timer that interrupts plugins: {e}"))?;
        let turns = Arc::new(CpuSlices::new(clock));
        let hook_stack = HookStack::new(stack_bytes(plugin_stack_bytes))
            .map_err(|e| wasmtime::format_err!("the stack that plugins run on: {e}"))?;
        Ok(Self {
            wasmtime,
            turns,
            hook_stack,
            instances,
            pagemap: File::open("/proc/self/pagemap").ok(),
        })
    }
}

fn with_pool(instances: u32, plugin_stack_bytes: usize) -> Config {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_core_instances(instances);
    pool.total_memories(instances);
    pool.total_tables(instances);
    pool.total_stacks(instances);
    pool.max_memory_size(MAX_PLUGIN_MEMORY_BYTES);
    pool.table_elements(MAX_PLUGIN_TABLE_ELEMENTS);
    if swap_is_off() {
        pool.pagemap_scan(Enabled::Auto);
        pool.linear_memory_keep_resident(KEPT_MEMORY_BYTES);
        pool.table_keep_resident(KEPT_TABLE_BYTES);
    }
    let mut config = settings();
    config.max_wasm_stack(plugin_stack_bytes);
    config.async_stack_size(stack_bytes(plugin_stack_bytes));
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// Stack of a guest and the host calls on top of it.
fn stack_bytes(plugin_stack_bytes: usize) -> usize {
    plugin_stack_bytes + HOST_STACK_BYTES
}

/// wasmtime 48 asks the kernel which pages a guest has written to, but not about those that were swapped out, and would leave
/// them to the next instance. Where there is swap, all pages go back to the system instead.
fn swap_is_off() -> bool {
    // A line of titles, then a line for each swap file or partition.
    std::fs::read_to_string("/proc/swaps").is_ok_and(|swaps| swaps.lines().count() <= 1)
}

/// Settings that compiled code depends on; pool and stacks are not part of it.
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

    /// Makes a config with plugins that have these limits, of which the first balances.
    fn instances_of(limits: &[u32]) -> u32 {
        let mut text = String::from(
            "[listeners.web]\nbind = '127.0.0.1:1'\n[[routes]]\nupstream = 'app'\n[upstreams.app]\npeers = ['127.0.0.1:1']\n",
        );
        if !limits.is_empty() {
            text.push_str("balance = { plugin = 'p0' }\n");
        }
        let folder = tempfile::tempdir().unwrap();
        // The contents are not looked at.
        std::fs::write(folder.path().join("p.wasm"), "").unwrap();
        for (n, limit) in limits.iter().enumerate() {
            let plugin =
                format!("[plugins.p{n}]\nwasm = 'p.wasm'\nlimits = {{ instances = {limit} }}\n");
            text.push_str(&plugin);
        }
        let file = folder.path().join("castling.toml");
        std::fs::write(&file, text).unwrap();
        instances(&config::load(&file).unwrap_or_else(|errors| panic!("{errors}")))
    }

    #[test]
    fn a_pool_has_room_for_all_that_may_be_at_once() {
        assert_eq!(instances_of(&[]), 1);
        // Three shares of four beyond a plugin's own, one that balances, and one for the snapshot.
        assert_eq!(instances_of(&[20, 3]), (20 + 12) + (3 + 12) + 1 + 1);
        // Shared out evenly, so that a few are left.
        assert!(
            (MAX_INSTANCES as u32 - 5..=MAX_INSTANCES as u32).contains(&instances_of(&[1000; 5]))
        );
    }

    #[test]
    fn compiled_code_fits_every_pool_and_stack() {
        let fingerprint = |engine: &wasmtime::Engine| {
            let mut hasher = DefaultHasher::new();
            engine.precompile_compatibility_hash().hash(&mut hasher);
            hasher.finish()
        };
        let compiler = wasmtime::Engine::new(&settings()).unwrap();
        for stack_bytes in [64 << 10, 512 << 10, 8 << 20] {
            let worker = Engine::for_worker(stack_bytes, MIN_INSTANCES).unwrap();
            assert_eq!(fingerprint(&worker.wasmtime), fingerprint(&compiler));
        }
    }
}
