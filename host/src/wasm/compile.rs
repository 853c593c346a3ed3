//! Wasm bytes to native code. Runs in the helper process only: bytes that nobody has checked yet meet the compiler
//! here, under the helper's limits.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::engine::settings;
pub use super::manifest::inspect;
use super::manifest::{Manifest, ModuleError};
use super::{bulk, module_state};

/// Native code for a module that [`inspect`] has accepted.
pub fn compile(wasm: &[u8]) -> Result<(Manifest, Vec<u8>), ModuleError> {
    let mut manifest = inspect(wasm)?;
    let exposed = module_state::exposed(wasm);
    manifest.state_is_exposed = exposed.is_some();
    let engine = wasmtime::Engine::new(&settings())
        .map_err(|e| ModuleError::Compile(format!("{e:#}")).told())?;
    let wasm = exposed.as_deref().unwrap_or(wasm);
    let in_pieces = bulk::in_pieces(wasm);
    let artefact = engine
        .precompile_module(in_pieces.as_deref().unwrap_or(wasm))
        .map_err(|e| ModuleError::Compile(format!("{e:#}")).told())?;
    Ok((manifest, artefact))
}

/// Version of what [`compile`] makes of a module, beyond what wasmtime does: to be raised with every change of it, or of what it finds
/// out and keeps beside the code.
const REVISION: u32 = 2;

/// Changes whenever compiled code of another build of the gateway would not fit: wasmtime's version, its settings, the
/// CPU's features, what else is done to a module.
pub fn engine_fingerprint() -> u64 {
    let mut hasher = DefaultHasher::new();
    if let Ok(engine) = wasmtime::Engine::new(&settings()) {
        engine.precompile_compatibility_hash().hash(&mut hasher);
    }
    castling_abi::ABI_VERSION.hash(&mut hasher);
    REVISION.hash(&mut hasher);
    hasher.finish()
}
