//! Compiled code from a file into the process.
#![allow(
    unsafe_code,
    reason = "wasmtime cannot check that a file holds code which it has made itself"
)]

use std::fs::File;

use wasmtime::Module;

use super::engine::Engine;

/// Maps the code that the compile helper has written.
///
/// All workers that map the same file share its pages.
pub(super) fn module(engine: &Engine, artefact: File) -> wasmtime::Result<Module> {
    // SAFETY: the file must hold what `Engine::precompile_module` returned, and must not change while it is mapped.
    // The descriptor comes from the master, which opens it in its module store: a folder that only the master's user
    // may write to (checked in `process::module_store`), where files are written by our own helper under a temporary
    // name, renamed once, and never written again. wasmtime checks version and settings itself.
    unsafe { Module::deserialize_open_file(&engine.wasmtime, artefact) }
}
