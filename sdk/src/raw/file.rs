//! The host's functions on granted files.

use castling_abi::FileFact;

mod import {
    #[link(wasm_import_module = "castling")]
    unsafe extern "C" {
        pub(super) fn file_open(name: *const u8, name_len: usize) -> i32;
        // SAFETY: takes numbers and touches no memory.
        pub(super) safe fn file_fact(file: u32, fact: u32) -> i64;
        pub(super) fn file_read(file: u32, offset: i64, out: *mut u8, cap: usize) -> i32;
    }
}

pub(crate) fn file_open(name: &[u8]) -> i32 {
    // SAFETY: the host reads `name.len()` bytes at the pointer, which are borrowed for the call.
    unsafe { import::file_open(name.as_ptr(), name.len()) }
}

pub(crate) fn file_fact(file: u32, fact: FileFact) -> i64 {
    import::file_fact(file, fact as u32)
}

pub(crate) fn file_read(file: u32, offset: i64, out: &mut [u8]) -> i32 {
    // SAFETY: the host writes at most `out.len()` bytes at the pointer, which are borrowed mutably for the call.
    unsafe { import::file_read(file, offset, out.as_mut_ptr(), out.len()) }
}
