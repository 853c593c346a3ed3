//! The host's functions for kv zones.

use castling_abi::KvExpected;

mod import {
    #[link(wasm_import_module = "castling")]
    unsafe extern "C" {
        pub(super) fn kv_get(
            zone: *const u8,
            zone_len: usize,
            key: *const u8,
            key_len: usize,
            out: *mut u8,
            cap: usize,
        ) -> i32;
        pub(super) fn kv_put(
            zone: *const u8,
            zone_len: usize,
            key: *const u8,
            key_len: usize,
            ptr: *const u8,
            len: usize,
            ttl_ms: i64,
            expected: u32,
            expected_ptr: *const u8,
            expected_len: usize,
        ) -> i32;
        pub(super) fn kv_delete(
            zone: *const u8,
            zone_len: usize,
            key: *const u8,
            key_len: usize,
            expected: u32,
            expected_ptr: *const u8,
            expected_len: usize,
        ) -> i32;
        pub(super) fn kv_list(
            zone: *const u8,
            zone_len: usize,
            prefix: *const u8,
            prefix_len: usize,
            after: *const u8,
            after_len: usize,
            limit: usize,
            out: *mut u8,
            cap: usize,
        ) -> i32;
        pub(super) fn kv_get_with_ttl(
            zone: *const u8,
            zone_len: usize,
            key: *const u8,
            key_len: usize,
            out: *mut u8,
            cap: usize,
            ttl_out: *mut i64,
        ) -> i32;
        pub(super) fn kv_increment(
            zone: *const u8,
            zone_len: usize,
            key: *const u8,
            key_len: usize,
            by: i64,
            ttl_ms: i64,
            out: *mut i64,
        ) -> i32;
        pub(super) fn kv_get_all(
            zone: *const u8,
            zone_len: usize,
            keys: *const u8,
            keys_len: usize,
            out: *mut u8,
            cap: usize,
        ) -> i32;
        pub(super) fn kv_put_all(
            zone: *const u8,
            zone_len: usize,
            entries: *const u8,
            entries_len: usize,
            ttl_ms: i64,
        ) -> i32;
        pub(super) fn kv_delete_all(
            zone: *const u8,
            zone_len: usize,
            keys: *const u8,
            keys_len: usize,
        ) -> i32;
    }
}

pub(crate) fn kv_get(zone: &[u8], key: &[u8], out: &mut [u8]) -> i32 {
    // SAFETY: pointers and lengths are those of live slices. The host only reads `zone` and `key`, and writes at most its length
    // to `out`, which nobody else can see; both only during the call.
    unsafe {
        import::kv_get(
            zone.as_ptr(),
            zone.len(),
            key.as_ptr(),
            key.len(),
            out.as_mut_ptr(),
            out.len(),
        )
    }
}

pub(crate) fn kv_put(
    zone: &[u8],
    key: &[u8],
    value: &[u8],
    ttl_ms: i64,
    (expected, there): (KvExpected, &[u8]),
) -> i32 {
    // SAFETY: all slices as `key` in `kv_get`.
    unsafe {
        import::kv_put(
            zone.as_ptr(),
            zone.len(),
            key.as_ptr(),
            key.len(),
            value.as_ptr(),
            value.len(),
            ttl_ms,
            expected as u32,
            there.as_ptr(),
            there.len(),
        )
    }
}

pub(crate) fn kv_delete(zone: &[u8], key: &[u8], (expected, there): (KvExpected, &[u8])) -> i32 {
    // SAFETY: all slices as `key` in `kv_get`.
    unsafe {
        import::kv_delete(
            zone.as_ptr(),
            zone.len(),
            key.as_ptr(),
            key.len(),
            expected as u32,
            there.as_ptr(),
            there.len(),
        )
    }
}

pub(crate) fn kv_list(
    zone: &[u8],
    prefix: &[u8],
    after: &[u8],
    limit: usize,
    out: &mut [u8],
) -> i32 {
    // SAFETY: as in `kv_get`.
    unsafe {
        import::kv_list(
            zone.as_ptr(),
            zone.len(),
            prefix.as_ptr(),
            prefix.len(),
            after.as_ptr(),
            after.len(),
            limit,
            out.as_mut_ptr(),
            out.len(),
        )
    }
}

/// `ttl_ms`: 0 for a value that never expires.
pub(crate) fn kv_get_with_ttl(zone: &[u8], key: &[u8], out: &mut [u8], ttl_ms: &mut i64) -> i32 {
    // SAFETY: slices as in `kv_get`; `ttl_ms` is a live number of eight bytes that nobody else can see, of which any bytes are
    // one. The host writes it as this machine has it: little-endian.
    unsafe {
        import::kv_get_with_ttl(
            zone.as_ptr(),
            zone.len(),
            key.as_ptr(),
            key.len(),
            out.as_mut_ptr(),
            out.len(),
            ttl_ms,
        )
    }
}

pub(crate) fn kv_increment(zone: &[u8], key: &[u8], by: i64, ttl_ms: i64, number: &mut i64) -> i32 {
    // SAFETY: slices as in `kv_get`, `number` as `ttl_ms` in `kv_get_with_ttl`.
    unsafe {
        import::kv_increment(
            zone.as_ptr(),
            zone.len(),
            key.as_ptr(),
            key.len(),
            by,
            ttl_ms,
            number,
        )
    }
}

pub(crate) fn kv_get_all(zone: &[u8], keys: &[u8], out: &mut [u8]) -> i32 {
    // SAFETY: slices as in `kv_get`.
    unsafe {
        import::kv_get_all(
            zone.as_ptr(),
            zone.len(),
            keys.as_ptr(),
            keys.len(),
            out.as_mut_ptr(),
            out.len(),
        )
    }
}

pub(crate) fn kv_put_all(zone: &[u8], entries: &[u8], ttl_ms: i64) -> i32 {
    // SAFETY: all slices as `key` in `kv_get`.
    unsafe {
        import::kv_put_all(
            zone.as_ptr(),
            zone.len(),
            entries.as_ptr(),
            entries.len(),
            ttl_ms,
        )
    }
}

pub(crate) fn kv_delete_all(zone: &[u8], keys: &[u8]) -> i32 {
    // SAFETY: all slices as `key` in `kv_get`.
    unsafe { import::kv_delete_all(zone.as_ptr(), zone.len(), keys.as_ptr(), keys.len()) }
}
