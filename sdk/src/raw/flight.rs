//! The host's functions for flights of kv zones.

mod import {
    #[link(wasm_import_module = "castling")]
    unsafe extern "C" {
        pub(super) fn kv_flight(
            zone: *const u8,
            zone_len: usize,
            key: *const u8,
            key_len: usize,
            wait_ms: u32,
        ) -> i32;
        pub(super) fn kv_flight_end(
            zone: *const u8,
            zone_len: usize,
            key: *const u8,
            key_len: usize,
        ) -> i32;
    }
}

pub(crate) fn kv_flight(zone: &[u8], key: &[u8], wait_ms: u32) -> i32 {
    // SAFETY: pointers and lengths are those of live slices, which the host only reads, and only during the call.
    unsafe { import::kv_flight(zone.as_ptr(), zone.len(), key.as_ptr(), key.len(), wait_ms) }
}

pub(crate) fn kv_flight_end(zone: &[u8], key: &[u8]) -> i32 {
    // SAFETY: as in `kv_flight`.
    unsafe { import::kv_flight_end(zone.as_ptr(), zone.len(), key.as_ptr(), key.len()) }
}
