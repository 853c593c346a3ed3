//! The upstream of a request, facts of its peers, and what a config names.

use castling_abi::Grant;

mod import {
    #[link(wasm_import_module = "castling")]
    unsafe extern "C" {
        pub(super) fn upstream_set(ptr: *const u8, len: usize) -> i32;
        pub(super) fn peer_name(index: u32, out: *mut u8, cap: usize) -> i32;
        pub(super) fn peer_tags(index: u32, out: *mut u8, cap: usize) -> i32;
        pub(super) fn config_grant(grant: u32, ptr: *const u8, len: usize) -> i32;
    }
}

pub(crate) fn upstream_set(name: &[u8]) -> i32 {
    // SAFETY: pointer and length are those of one live slice, which the host only reads, and only during the call.
    unsafe { import::upstream_set(name.as_ptr(), name.len()) }
}

pub(crate) fn config_grant(grant: Grant, name: &[u8]) -> i32 {
    // SAFETY: `name` as in `upstream_set`.
    unsafe { import::config_grant(grant as u32, name.as_ptr(), name.len()) }
}

pub(crate) fn peer_name(index: u32, out: &mut [u8]) -> i32 {
    // SAFETY: pointer and length are those of one live slice that nobody else can see: the host writes at most its length, and only
    // during the call.
    unsafe { import::peer_name(index, out.as_mut_ptr(), out.len()) }
}

pub(crate) fn peer_tags(index: u32, out: &mut [u8]) -> i32 {
    // SAFETY: `out` as in `peer_name`.
    unsafe { import::peer_tags(index, out.as_mut_ptr(), out.len()) }
}
