//! The host's functions on connections.

mod import {
    #[link(wasm_import_module = "castling")]
    unsafe extern "C" {
        pub(super) fn tcp_connect(upstream: *const u8, len: usize, milliseconds: u32) -> i32;
        pub(super) fn tcp_read(connection: u32, out: *mut u8, cap: usize, milliseconds: u32)
        -> i32;
        pub(super) fn tcp_write(
            connection: u32,
            ptr: *const u8,
            len: usize,
            milliseconds: u32,
        ) -> i32;
        // SAFETY: takes a number and touches no memory.
        pub(super) safe fn tcp_close(connection: u32) -> i32;
        pub(super) fn tcp_error(out: *mut u8, cap: usize) -> i32;
    }
}

pub(crate) fn tcp_connect(upstream: &[u8], milliseconds: u32) -> i32 {
    // SAFETY: the host reads `upstream.len()` bytes at the pointer, which are borrowed for the call.
    unsafe { import::tcp_connect(upstream.as_ptr(), upstream.len(), milliseconds) }
}

pub(crate) fn tcp_read(connection: u32, out: &mut [u8], milliseconds: u32) -> i32 {
    // SAFETY: the host writes at most `out.len()` bytes at the pointer, which are borrowed mutably for the call.
    unsafe { import::tcp_read(connection, out.as_mut_ptr(), out.len(), milliseconds) }
}

pub(crate) fn tcp_write(connection: u32, bytes: &[u8], milliseconds: u32) -> i32 {
    // SAFETY: `bytes` as `upstream` in `tcp_connect`.
    unsafe { import::tcp_write(connection, bytes.as_ptr(), bytes.len(), milliseconds) }
}

pub(crate) fn tcp_close(connection: u32) -> i32 {
    import::tcp_close(connection)
}

pub(crate) fn tcp_error(out: &mut [u8]) -> i32 {
    // SAFETY: `out` as in `tcp_read`.
    unsafe { import::tcp_error(out.as_mut_ptr(), out.len()) }
}
