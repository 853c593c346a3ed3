//! wasmtime alone: what a hook call cannot cost less than, and what tells how quick the machine is just now.

use wasmtime::{Config, Engine, Instance, Linker, Module, Store, TypedFunc};

/// A function that does nothing, on an engine with the gateway's interruption.
pub(super) struct Bare {
    runtime: tokio::runtime::Runtime,
    store: Store<()>,
    function: TypedFunc<(u32, u32, u32), i32>,
}

impl Bare {
    pub(super) fn new() -> Result<Self, String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .map_err(|e| e.to_string())?;
        let (store, function) = runtime
            .block_on(instance())
            .map_err(|e| format!("wasmtime alone: {e:#}"))?;
        Ok(Self {
            runtime,
            store,
            function,
        })
    }

    pub(super) fn call(&mut self, times: u64) -> Result<(), String> {
        let (store, function) = (&mut self.store, &self.function);
        let called = self.runtime.block_on(async {
            for _ in 0..times {
                store.set_epoch_deadline(1);
                function.call_async(&mut *store, (0, 0, 0)).await?;
            }
            Ok(())
        });
        called.map_err(|e: wasmtime::Error| format!("{e:#}"))
    }
}

async fn instance() -> wasmtime::Result<(Store<()>, TypedFunc<(u32, u32, u32), i32>)> {
    let mut config = Config::new();
    config.epoch_interruption(true);
    let engine = Engine::new(&config)?;
    let mut store = Store::new(&engine, ());
    store.epoch_deadline_trap();
    let module = Module::new(&engine, MODULE)?;
    let instance: Instance = Linker::new(&engine)
        .instantiate_async(&mut store, &module)
        .await?;
    let function = instance.get_typed_func(&mut store, "f")?;
    Ok((store, function))
}

/// `(module (func (export "f") (param i32 i32 i32) (result i32) i32.const 0))`
const MODULE: &[u8] = b"\0asm\x01\0\0\0\
    \x01\x08\x01\x60\x03\x7f\x7f\x7f\x01\x7f\
    \x03\x02\x01\0\
    \x07\x05\x01\x01f\0\0\
    \x0a\x06\x01\x04\0\x41\0\x0b";

/// A plugin whose `configure` and `access` do nothing, without the SDK: exports `memory` of one page, `castling_configure`,
/// `castling_hook_access`, `castling_state_reset`, and has a manifest.
pub(super) const PLUGIN: &[u8] = b"\0asm\x01\0\0\0\
    \x01\x0f\x03`\0\x01\x7f`\0\0`\x03\x7f\x7f\x7f\x01\x7f\
    \x03\x05\x04\0\x02\x01\x01\
    \x05\x03\x01\0\x01\
    \x07M\x04\x06memory\x02\0\x12castling_configure\0\0\x14castling_hook_access\0\x01\x14castling_state_\
    reset\0\x02\
    \x0a\x11\x04\x04\0A\0\x0b\x04\0A\0\x0b\x02\0\x0b\x02\0\x0b\
    \0Y\x11castling.manifest{\"abi\":1,\"name\":\"x\",\"version\":\"1.0.0\",\"sdk\":\"0.1.0\",\"hooks\
    \":[\"access\"]}";
