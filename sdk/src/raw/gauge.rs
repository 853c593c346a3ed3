//! The host's functions for gauge zones.

mod import {
    #[link(wasm_import_module = "castling")]
    unsafe extern "C" {
        pub(super) fn gauge_enter(
            zone: *const u8,
            zone_len: usize,
            key: *const u8,
            key_len: usize,
            max: u32,
        ) -> i32;
        pub(super) fn gauge_leave(
            zone: *const u8,
            zone_len: usize,
            key: *const u8,
            key_len: usize,
        ) -> i32;
        pub(super) fn gauge_count(
            zone: *const u8,
            zone_len: usize,
            key: *const u8,
            key_len: usize,
        ) -> i64;
    }
}

pub(crate) fn gauge_enter(zone: &[u8], key: &[u8], max: u32) -> i32 {
    // SAFETY: pointers and lengths are those of live slices, which the host only reads, and only during the call.
    unsafe { import::gauge_enter(zone.as_ptr(), zone.len(), key.as_ptr(), key.len(), max) }
}

pub(crate) fn gauge_leave(zone: &[u8], key: &[u8]) -> i32 {
    // SAFETY: as in `gauge_enter`.
    unsafe { import::gauge_leave(zone.as_ptr(), zone.len(), key.as_ptr(), key.len()) }
}

pub(crate) fn gauge_count(zone: &[u8], key: &[u8]) -> i64 {
    // SAFETY: as in `gauge_enter`.
    unsafe { import::gauge_count(zone.as_ptr(), zone.len(), key.as_ptr(), key.len()) }
}
