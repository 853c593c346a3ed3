//! What makes a plugin for `wasm32-wasip1` a reactor of WASI: an `_initialize`, which the gateway calls before all others.
//!
//! rustc links a `cdylib` of that target without one. The linker then takes each export for the `main` of a program and has it run all
//! constructors before and all destructors after, with every hook.
#![allow(
    unsafe_code,
    reason = "calls the constructors, which the linker provides"
)]

unsafe extern "C" {
    fn __wasm_call_ctors();
}

#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    // SAFETY: the gateway calls this once for each instance, before anything else; the function is the linker's own.
    unsafe { __wasm_call_ctors() }
}
