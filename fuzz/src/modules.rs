//! Any bytes as a module and any text as its manifest, from the checks through the compiler to its hooks.
//!
//! An input that is a Wasm module is taken as it is; any other is a manifest, put into a module that has everything a
//! manifest may promise. What the checks let pass is compiled, loaded under narrow limits, and called.
//!
//! Holds: no panic, and no more time and memory than the limits allow.

use castling::rig::inspect;
use castling_abi::{EXPORT_CONFIGURE, EXPORT_STATE_RESET, Hook, MANIFEST_SECTION};
use wasm_encoder::{
    CodeSection, CustomSection, ExportKind, ExportSection, Function, FunctionSection, Instruction,
    MemorySection, MemoryType, Module, TypeSection, ValType,
};

use crate::site::Site;

/// Runs one input. Says how many hooks it came to call.
pub fn run(data: &[u8]) -> usize {
    thread_local! {
        static SITE: Site = Site::new(
            r#"limits = { memory = "256KiB", body = "16KiB", cpu = "5ms", calls = 20 }"#
        );
    }
    let wasm = match data.starts_with(b"\0asm") {
        true => data.to_vec(),
        false => promising(data),
    };
    let Ok(manifest) = inspect(&wasm) else {
        return 0;
    };
    SITE.with(|site| {
        // A module that cannot be compiled, instantiated or configured is refused, and nothing else happens.
        let Ok(mut rig) = site.load(&wasm) else {
            return 0;
        };
        for hook in manifest
            .hooks
            .iter()
            .filter_map(|name| Hook::from_name(name))
        {
            rig.begin(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", 2)
                .expect("this head is valid");
            rig.set_chunk(b"chunk".to_vec());
            let _ = rig.call(hook, (2, 0, 0), 1);
            rig.check_exchange();
        }
        manifest.hooks.len()
    })
}

/// A module with every hook, and this manifest.
fn promising(manifest: &[u8]) -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([], [ValType::I32]);
    types.ty().function([], []);
    types.ty().function([ValType::I32; 3], [ValType::I32]);
    let mut functions = FunctionSection::new();
    let mut code = CodeSection::new();
    for (ty, result) in [(0, Some(0)), (1, None), (2, Some(0))] {
        functions.function(ty);
        let mut body = Function::new([]);
        if let Some(result) = result {
            body.instruction(&Instruction::I32Const(result));
        }
        body.instruction(&Instruction::End);
        code.function(&body);
    }
    let mut memories = MemorySection::new();
    memories.memory(MemoryType {
        minimum: 1,
        maximum: None,
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    let mut exports = ExportSection::new();
    exports.export("memory", ExportKind::Memory, 0);
    exports.export(EXPORT_CONFIGURE, ExportKind::Func, 0);
    exports.export(EXPORT_STATE_RESET, ExportKind::Func, 1);
    for hook in Hook::ALL {
        exports.export(hook.export(), ExportKind::Func, 2);
    }
    let mut module = Module::new();
    module
        .section(&types)
        .section(&functions)
        .section(&memories);
    module.section(&exports).section(&code);
    module.section(&CustomSection {
        name: MANIFEST_SECTION.into(),
        data: manifest.into(),
    });
    module.finish()
}
