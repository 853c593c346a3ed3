//! The upstream of a request.

mod import {
    #[link(wasm_import_module = "castling")]
    unsafe extern "C" {
        pub(super) fn upstream_set(ptr: *const u8, len: usize) -> i32;
    }
}

pub(crate) fn upstream_set(name: &[u8]) -> i32 {
    // SAFETY: pointer and length are those of one live slice, which the host only reads, and only during the call.
    unsafe { import::upstream_set(name.as_ptr(), name.len()) }
}
