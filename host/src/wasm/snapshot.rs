//! Snapshots: what `configure` makes of an instance, so that further instances need not run it.
//!
//! The state of an instance is its linear memory, its mutable globals, its tables, the segments it has dropped, and what the
//! host keeps for it. A snapshot is made only of a module whose instances change neither tables nor segments and whose globals
//! the host can see ([`super::module_state`]: read from the code, not said by the plugin), and has the rest: the pages that differ from those of an instance
//! that was not configured, the memory's size, the globals that differ, and the metrics that were defined.
//!
//! `configure` without a snapshot runs once for each instance, and nobody must be able to tell the difference. So there is one only where
//! `configure` has made no host calls but those that give every instance the same and change nothing that a snapshot does not bring along
//! ([`Guest::note_repeatable`]); a host call that nobody has thought of here means that there is none. One that draws random
//! bytes, reads a clock, writes to the log, counts, or uses a zone runs for each instance as ever: two instances never have the same
//! secrets. What is left, a guest's computing, is deterministic: the same code, from the same state, with the same answers.
//!
//! It is taken from an instance that has been configured and has served nothing, so there is no byte of any request in it.

use std::fs::File;
use std::os::unix::fs::FileExt;

use rustix::param::page_size;
use wasmtime::{Result, Val, format_err};

use super::guest::Guest;
use super::instance::Instance;
use crate::metrics::InstanceMetrics;

pub(super) struct Snapshot {
    memory_bytes: usize,
    /// Bytes in memory at the ranges' places, one after the other.
    bytes: Box<[u8]>,
    ranges: Box<[MemoryRange]>,
    /// By their index in the code's list.
    globals: Box<[(usize, Val)]>,
    metrics: InstanceMetrics,
}

/// Bytes that `configure` has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct MemoryRange {
    start: usize,
    len: usize,
}

impl Snapshot {
    /// Takes the snapshot of an instance that has just been configured; `fresh` has not. `pagemap` is this process's. `None`: `configure` is to
    /// run for each instance.
    pub(super) fn of(
        configured: &mut Instance,
        fresh: &mut Instance,
        pagemap: Option<&File>,
    ) -> Option<Self> {
        let guest = configured.guest();
        if !guest.is_repeatable() {
            return None;
        }
        let metrics = guest.metrics.clone();
        let mut globals = Vec::new();
        let after = configured.globals().ok()?;
        for (idx, (after, before)) in after.iter().zip(fresh.globals().ok()?).enumerate() {
            if bits(after)? != bits(&before)? {
                globals.push((idx, *after));
            }
        }
        let (before, after) = (fresh.memory().0, configured.memory().0);
        let ranges = changes(before, after, touched(after, pagemap));
        if ranges.iter().map(|range| range.len).sum::<usize>() > LARGEST_BYTES {
            return None;
        }
        let bytes = ranges
            .iter()
            .flat_map(|range| &after[range.start..][..range.len]);
        Some(Self {
            memory_bytes: after.len(),
            bytes: bytes.copied().collect(),
            ranges: ranges.into(),
            globals: globals.into(),
            metrics,
        })
    }

    /// Makes of a fresh instance what it would be after `configure`.
    pub(super) fn put_into(&self, fresh: &mut Instance) -> Result<()> {
        fresh.grow_to(self.memory_bytes)?;
        let (memory, guest) = fresh.memory();
        guest.metrics.clone_from(&self.metrics);
        let mut bytes = &*self.bytes;
        for MemoryRange { start, len } in &self.ranges {
            let (room, range) = memory
                .get_mut(*start..start + len)
                .zip(bytes.split_at_checked(*len))
                .ok_or_else(|| format_err!("its snapshot is larger than its memory"))?;
            room.copy_from_slice(range.0);
            bytes = range.1;
        }
        for (idx, value) in &self.globals {
            fresh.set_global(*idx, *value)?;
        }
        Ok(())
    }

    /// How much is copied for an instance.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

impl Guest {
    /// The host call that is under way gives every instance of the plugin in this worker the same when it comes from `configure`, and
    /// has no effect but on what an [`Snapshot`] has.
    pub(super) fn note_repeatable(&mut self) {
        self.repeatable_calls = self.repeatable_calls.wrapping_add(1);
    }

    /// `configure`, which has just returned, has made no other host calls.
    fn is_repeatable(&self) -> bool {
        let made = self.host_calls - self.host_calls_left;
        self.repeatable_calls == made && self.metrics.is_within_limits()
    }
}

/// Where `after` is not `before`, which goes on with zeros. Only the pages in `touched` are looked at.
fn changes(before: &[u8], after: &[u8], touched: impl Fn(usize) -> bool) -> Vec<MemoryRange> {
    let mut ranges: Vec<MemoryRange> = Vec::new();
    let page_bytes = page_size();
    for page in (0..after.len().div_ceil(page_bytes)).filter(|page| touched(*page)) {
        let end = after.len().min((page + 1) * page_bytes);
        for start in (page * page_bytes..end).step_by(LINE_BYTES) {
            let line = &after[start..end.min(start + LINE_BYTES)];
            let (len, zeros) = (line.len(), [0; LINE_BYTES]);
            if line == before.get(start..start + len).unwrap_or(&zeros[..len]) {
                continue;
            }
            match ranges.last_mut() {
                Some(last) if start - (last.start + last.len) <= GAP_BYTES => {
                    last.len = start + len - last.start;
                }
                _ => ranges.push(MemoryRange { start, len }),
            }
        }
    }
    ranges
}

/// A larger snapshot is not made: it is copied in one piece, and `configure` runs in turns with others.
const LARGEST_BYTES: usize = 1024 * 1024;

/// The unit in which memory is compared.
const LINE_BYTES: usize = 64;

/// Longest gap between two changes that is copied with them.
const GAP_BYTES: usize = 256;

/// Whether each page of the guest's memory was ever read or written; all of them, where the system does not say.
///
/// To read a page that was not would map it, and it would stay so for the instances that have this memory later: each of them
/// would have it looked at when it ends (measured: some 3 µs for 1 MiB of such pages).
fn touched(memory: &[u8], pagemap: Option<&File>) -> impl Fn(usize) -> bool + use<> {
    let page_bytes = page_size();
    let mut entries = vec![0; memory.len().div_ceil(page_bytes) * ENTRY_BYTES];
    let first = memory.as_ptr().addr() / page_bytes * ENTRY_BYTES;
    let read = pagemap.map(|pagemap| pagemap.read_exact_at(&mut entries, first as u64));
    let is_known = matches!(read, Some(Ok(())));
    move |idx| {
        let entry = entries.as_chunks::<ENTRY_BYTES>().0.get(idx);
        !is_known || entry.is_none_or(|entry| u64::from_ne_bytes(*entry) & PRESENT_OR_SWAPPED != 0)
    }
}

/// Bits of an entry for each page, as in the kernel's `admin-guide/mm/pagemap`: bit 63 says that it is present, bit 62 that it was swapped out. One
/// with neither is what the mapping began with: the module's image, or zeros.
const PRESENT_OR_SWAPPED: u64 = 0b11 << 62;
const ENTRY_BYTES: usize = 8;

/// `None` for what is no number.
fn bits(value: &Val) -> Option<u128> {
    match value {
        Val::I32(value) => Some(value.cast_unsigned().into()),
        Val::I64(value) => Some(value.cast_unsigned().into()),
        Val::F32(bits) => Some((*bits).into()),
        Val::F64(bits) => Some((*bits).into()),
        Val::V128(value) => Some(value.as_u128()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use castling_abi::rules::{self, Rule};
    use castling_abi::{EXPORT_CONFIGURE, imports};
    use wasm_encoder::{
        CodeSection, ConstExpr, DataSection, EntityType, ExportKind, ExportSection, Function,
        FunctionSection, GlobalSection, GlobalType, ImportSection, MemArg, MemorySection,
        MemoryType, TypeSection, ValType,
    };
    use wasmtime::{Linker, Module};

    use super::*;
    use crate::wasm::code::Code;
    use crate::wasm::engine::Engine;
    use crate::wasm::host_call;
    use crate::wasm::instance_template::InstanceTemplate;
    use crate::wasm::module_state;

    /// A module with one page of memory that begins with "before", a global of 1024, this import and this `configure`.
    fn module(import: Option<(&str, &str)>, configure: &Function) -> Vec<u8> {
        let (mut types, mut imports) = (TypeSection::new(), ImportSection::new());
        types.ty().function([], [ValType::I32]);
        if let Some((name, signature)) = import {
            let (params, result) = types_of(signature);
            types.ty().function(params, result);
            imports.import("castling", name, EntityType::Function(1));
        }
        let mut functions = FunctionSection::new();
        functions.function(0);
        let mut memories = MemorySection::new();
        memories.memory(MemoryType {
            minimum: 1,
            maximum: None,
            memory64: false,
            shared: false,
            page_size_log2: None,
        });
        let mut globals = GlobalSection::new();
        let mutable = GlobalType {
            val_type: ValType::I32,
            mutable: true,
            shared: false,
        };
        globals.global(mutable, &ConstExpr::i32_const(1024));
        let mut exports = ExportSection::new();
        exports.export("memory", ExportKind::Memory, 0);
        exports.export(EXPORT_CONFIGURE, ExportKind::Func, imports.len());
        let (mut code, mut data) = (CodeSection::new(), DataSection::new());
        code.function(configure);
        data.active(0, &ConstExpr::i32_const(0), *b"before");
        let mut module = wasm_encoder::Module::new();
        module
            .section(&types)
            .section(&imports)
            .section(&functions)
            .section(&memories)
            .section(&globals)
            .section(&exports)
            .section(&code)
            .section(&data);
        module.finish()
    }

    /// `(i32, i64) -> i32`
    fn types_of(signature: &str) -> (Vec<ValType>, Vec<ValType>) {
        let (params, result) = signature.split_once(')').unwrap();
        let types = |list: &str| {
            let names = list.split(", ").filter(|name| !name.is_empty());
            names
                .map(|name| match name {
                    "i32" => ValType::I32,
                    "i64" => ValType::I64,
                    "f64" => ValType::F64,
                    other => panic!("{other}"),
                })
                .collect()
        };
        (
            types(&params[1..]),
            types(result.trim_start_matches(" -> ")),
        )
    }

    /// Whether there is a snapshot, and an instance made from it (or, without one, one that was configured).
    async fn snapshot(engine: &Engine, wasm: &[u8]) -> (bool, Box<Instance>) {
        let module = Module::new(&engine.wasmtime, module_state::exposed(wasm).unwrap()).unwrap();
        let mut linker = Linker::new(&engine.wasmtime);
        host_call::add_to(&mut linker, true).unwrap();
        let pre = linker.instantiate_pre(&module).unwrap();
        let code = Rc::new(Code::new(pre, &[], false).unwrap());
        let template = InstanceTemplate::of_test();
        let mut first = Instance::new(engine, &code, &template).await.unwrap();
        let fresh = Instance::unconfigured(engine, &code, &template).await;
        let snapshot = Snapshot::of(&mut first, &mut fresh.unwrap(), engine.pagemap.as_ref());
        let is_some = snapshot.is_some();
        if let Some(snapshot) = snapshot {
            let _ = code.snapshot.set(snapshot);
        }
        let second = Instance::new(engine, &code, &template).await.unwrap();
        (is_some, second)
    }

    #[tokio::test]
    async fn what_configure_has_changed_is_there_without_it() {
        let engine = Engine::for_worker(64 << 10, 8).unwrap();
        let mut configure = Function::new([]);
        let at = |align| MemArg {
            offset: 0,
            align,
            memory_index: 0,
        };
        // Bumps the global, writes to the first page and to the last of those that it grows to.
        configure
            .instructions()
            .global_get(0)
            .i32_const(16)
            .i32_add()
            .global_set(0)
            .i32_const(2)
            .memory_grow(0)
            .drop()
            .i32_const(0)
            .i32_const(i32::from(b'B'))
            .i32_store8(at(0))
            .i32_const(196600)
            .i64_const(-1)
            .i64_store(at(3))
            .i32_const(0)
            .end();
        let (is_some, mut instance) = snapshot(&engine, &module(None, &configure)).await;
        assert!(is_some);
        let globals = instance.globals().unwrap();
        assert_eq!(globals.iter().map(bits).collect::<Vec<_>>(), [Some(1040)]);
        let (memory, _) = instance.memory();
        assert_eq!((memory.len(), &memory[..7]), (3 << 16, &b"Before\0"[..]));
        let written = memory.iter().filter(|byte| **byte != 0).count();
        assert_eq!((written, &memory[196600..]), (14, &[0xff; 8][..]));
    }

    #[tokio::test]
    async fn what_gives_each_instance_something_else_leaves_no_snapshot() {
        let engine = Engine::for_worker(64 << 10, 8).unwrap();
        for Rule {
            name, signature, ..
        } in rules::ALL
        {
            let (params, result) = types_of(signature);
            let mut configure = Function::new([]);
            let mut calls = configure.instructions();
            for ty in params {
                match ty {
                    ValType::I64 => calls.i64_const(0),
                    ValType::F64 => calls.f64_const(0.0.into()),
                    _ => calls.i32_const(0),
                };
            }
            calls.call(0);
            if !result.is_empty() {
                calls.drop();
            }
            calls.i32_const(0).end();
            let (is_some, _) =
                snapshot(&engine, &module(Some((name, signature)), &configure)).await;
            // Lines that are not written, and grants, which are the config's; the definition of a metric is not valid here.
            let repeatable = [
                imports::CONFIG_GET,
                imports::LOG,
                imports::LOG_FIELDS,
                imports::GRANT_CHECK,
                imports::CONFIG_GRANT,
                imports::VARIABLE_DECLARE,
                imports::FILE_OPEN,
            ];
            let is_repeatable = repeatable.contains(name);
            assert_eq!(is_some, is_repeatable, "{name}");
        }
    }

    #[test]
    fn bytes_that_differ_are_found() {
        let page_bytes = page_size();
        let before = vec![1; 2 * page_bytes];
        let mut after = vec![1; 2 * page_bytes];
        after.resize(5 * page_bytes, 0);
        assert_eq!(changes(&before, &after, |_| true), []);
        for at in [0, 300, 1000, 3 * page_bytes, 5 * page_bytes - 1] {
            after[at] = 2;
        }
        let range = |start, len| MemoryRange { start, len };
        let last = range(5 * page_bytes - 64, 64);
        let expected = [
            range(0, 320),
            range(960, 64),
            range(3 * page_bytes, 64),
            last,
        ];
        assert_eq!(changes(&before, &after, |_| true), expected);
        assert_eq!(changes(&before, &after, |page| page == 4), [last]);
    }

    #[test]
    fn pages_that_nobody_has_touched_are_told_from_others() {
        let page_bytes = page_size();
        let mut memory = vec![0_u8; 1 << 30]; // a mapping of its own
        let start = memory.as_ptr().addr().next_multiple_of(page_bytes) - memory.as_ptr().addr();
        let memory = &mut memory[start..][..64 * page_bytes];
        memory[17 * page_bytes] = 1;
        assert!(
            touched(memory, None)(16),
            "what is not known counts as touched"
        );
        let pagemap = File::open("/proc/self/pagemap").unwrap();
        let touched = touched(memory, Some(&pagemap));
        assert!(touched(17));
        assert!(touched(64), "what is not known counts as touched");
    }
}
