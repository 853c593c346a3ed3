//! The host's functions on calls whose bodies stream.

mod import {
    #[link(wasm_import_module = "castling")]
    unsafe extern "C" {
        pub(super) fn call_open(ptr: *const u8, len: usize, length: i64) -> i32;
        pub(super) fn call_write(call: u32, ptr: *const u8, len: usize) -> i32;
        // SAFETY: takes a number and touches no memory.
        pub(super) safe fn call_finish(call: u32) -> i32;
        pub(super) fn call_reply_headers(call: u32, out: *mut u8, cap: usize) -> i32;
        pub(super) fn call_read(call: u32, out: *mut u8, cap: usize) -> i32;
        // SAFETY: takes a number and touches no memory.
        pub(super) safe fn call_close(call: u32) -> i32;
        pub(super) fn call_failure(out: *mut u8, cap: usize) -> i32;
        // SAFETY: takes nothing and touches no memory.
        pub(super) safe fn call_failure_kind() -> i32;
    }
}

pub(crate) fn call_open(record: &[u8], length: i64) -> i32 {
    // SAFETY: the host reads `record.len()` bytes at the pointer, which are borrowed for the call.
    unsafe { import::call_open(record.as_ptr(), record.len(), length) }
}

pub(crate) fn call_write(call: u32, bytes: &[u8]) -> i32 {
    // SAFETY: `bytes` as `record` in `call_open`.
    unsafe { import::call_write(call, bytes.as_ptr(), bytes.len()) }
}

pub(crate) fn call_finish(call: u32) -> i32 {
    import::call_finish(call)
}

pub(crate) fn call_reply_headers(call: u32, out: &mut [u8]) -> i32 {
    // SAFETY: the host writes at most `out.len()` bytes at the pointer, which are borrowed mutably for the call.
    unsafe { import::call_reply_headers(call, out.as_mut_ptr(), out.len()) }
}

pub(crate) fn call_read(call: u32, out: &mut [u8]) -> i32 {
    // SAFETY: `out` as in `call_reply_headers`.
    unsafe { import::call_read(call, out.as_mut_ptr(), out.len()) }
}

pub(crate) fn call_close(call: u32) -> i32 {
    import::call_close(call)
}

pub(crate) fn call_failure(out: &mut [u8]) -> i32 {
    // SAFETY: `out` as in `call_reply_headers`.
    unsafe { import::call_failure(out.as_mut_ptr(), out.len()) }
}

pub(crate) fn call_failure_kind() -> i32 {
    import::call_failure_kind()
}
