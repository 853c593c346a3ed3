//! The host's functions for topics.

mod import {
    #[link(wasm_import_module = "castling")]
    unsafe extern "C" {
        pub(super) fn topic_publish(
            zone: *const u8,
            zone_len: usize,
            ptr: *const u8,
            len: usize,
        ) -> i32;
        pub(super) fn topic_name(topic: u32, out: *mut u8, cap: usize) -> i32;
        pub(super) fn message_get(out: *mut u8, cap: usize) -> i32;
    }
}

pub(crate) fn topic_publish(zone: &[u8], message: &[u8]) -> i32 {
    // SAFETY: pointers and lengths are those of live slices, which the host only reads, and only during the call.
    unsafe { import::topic_publish(zone.as_ptr(), zone.len(), message.as_ptr(), message.len()) }
}

pub(crate) fn topic_name(topic: u32, out: &mut [u8]) -> i32 {
    // SAFETY: pointer and length are those of one live slice that nobody else can see: the host writes at most its
    // length, and only during the call.
    unsafe { import::topic_name(topic, out.as_mut_ptr(), out.len()) }
}

pub(crate) fn message_get(out: &mut [u8]) -> i32 {
    // SAFETY: `out` as in `topic_name`.
    unsafe { import::message_get(out.as_mut_ptr(), out.len()) }
}
