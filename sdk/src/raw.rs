//! The host's functions, as the ABI declares them, behind wrappers that any caller may use. Nothing here decides
//! anything: what a result means, the callers say.
#![allow(
    unsafe_code,
    reason = "imports are foreign functions; this file and those below it alone call them"
)]

use castling_abi::{ErrorKind, Grant, HeaderMap, LogLevel, Number, Property, TlsFact};

#[cfg(feature = "crypto")]
pub(crate) use crypto::{
    digest, hmac, password_hash, password_verify, seal, signature_verify, unseal,
};
pub(crate) use file::{file_fact, file_open, file_read};
pub(crate) use flight::{kv_flight, kv_flight_end};
pub(crate) use gauge::{gauge_count, gauge_enter, gauge_leave};
pub(crate) use kv::{
    kv_delete, kv_delete_all, kv_get, kv_get_all, kv_get_with_ttl, kv_increment, kv_list, kv_put,
    kv_put_all,
};
pub(crate) use streamed::{
    call_close, call_failure, call_failure_kind, call_finish, call_open, call_read,
    call_reply_headers, call_write,
};
pub(crate) use tcp::{tcp_close, tcp_connect, tcp_error, tcp_read, tcp_write};
pub(crate) use topic::{message_get, topic_name, topic_publish};
pub(crate) use upstream::{config_grant, peer_name, peer_tags, upstream_set};

#[cfg(feature = "crypto")]
mod crypto;
mod file;
mod flight;
mod gauge;
mod kv;
mod streamed;
mod tcp;
mod topic;
mod upstream;

/// `castling_abi::imports` with the types of C.
mod import {
    #[link(wasm_import_module = "castling")]
    unsafe extern "C" {
        pub(super) fn log(level: u32, ptr: *const u8, len: usize);
        pub(super) fn log_fields(
            level: u32,
            ptr: *const u8,
            len: usize,
            fields: *const u8,
            fields_len: usize,
        );
        pub(super) fn fail_with(kind: u32, ptr: *const u8, len: usize);
        pub(super) fn panicked(ptr: *const u8, len: usize);
        pub(super) fn config_get(out: *mut u8, cap: usize) -> i32;
        pub(super) fn random_get(ptr: *mut u8, len: usize);
        // SAFETY: takes nothing and touches no memory.
        pub(super) safe fn clock_monotonic() -> i64;
        // SAFETY: takes nothing and touches no memory.
        pub(super) safe fn clock_wall() -> i64;
        pub(super) fn property_get(property: u32, out: *mut u8, cap: usize) -> i32;
        pub(super) fn property_set(property: u32, ptr: *const u8, len: usize) -> i32;
        // SAFETY: takes numbers and touches no memory.
        pub(super) safe fn number_get(number: u32) -> i64;
        pub(super) fn tls_get(fact: u32, out: *mut u8, cap: usize) -> i32;
        pub(super) fn header_get(
            map: u32,
            name: *const u8,
            name_len: usize,
            out: *mut u8,
            cap: usize,
        ) -> i32;
        pub(super) fn headers_get(
            map: u32,
            name: *const u8,
            name_len: usize,
            out: *mut u8,
            cap: usize,
        ) -> i32;
        pub(super) fn header_set(
            map: u32,
            name: *const u8,
            name_len: usize,
            ptr: *const u8,
            len: usize,
        ) -> i32;
        pub(super) fn header_add(
            map: u32,
            name: *const u8,
            name_len: usize,
            ptr: *const u8,
            len: usize,
        ) -> i32;
        pub(super) fn header_remove(map: u32, name: *const u8, name_len: usize) -> i32;
        // SAFETY: takes nothing and touches no memory.
        pub(super) safe fn status_get() -> i32;
        // SAFETY: takes numbers and touches no memory.
        pub(super) safe fn status_set(code: u32) -> i32;
        pub(super) fn var_get(name: *const u8, name_len: usize, out: *mut u8, cap: usize) -> i32;
        pub(super) fn var_set(name: *const u8, name_len: usize, ptr: *const u8, len: usize) -> i32;
        pub(super) fn state_get(out: *mut u8, cap: usize) -> i32;
        pub(super) fn state_set(ptr: *const u8, len: usize) -> i32;
        pub(super) fn answer(
            status: u32,
            headers: *const u8,
            headers_len: usize,
            ptr: *const u8,
            len: usize,
        ) -> i32;
        pub(super) fn response_begin(
            status: u32,
            headers: *const u8,
            headers_len: usize,
            length: i64,
        ) -> i32;
        pub(super) fn response_write(ptr: *const u8, len: usize) -> i32;
        pub(super) fn response_trailers(ptr: *const u8, len: usize) -> i32;
        pub(super) fn var_compute(name: *const u8, name_len: usize) -> i32;
        pub(super) fn variable_declare(name: *const u8, name_len: usize) -> i32;
        pub(super) fn chunk_get(out: *mut u8, cap: usize) -> i32;
        pub(super) fn chunk_set(ptr: *const u8, len: usize) -> i32;
        // SAFETY: takes nothing and touches no memory.
        pub(super) safe fn chunk_end() -> i32;
        pub(super) fn chunk_emit(ptr: *const u8, len: usize) -> i32;
        // SAFETY: takes a number and touches no memory.
        pub(super) safe fn body_peek(bytes: usize) -> i64;
        // SAFETY: takes nothing and touches no memory.
        pub(super) safe fn body_skip() -> i32;
        // SAFETY: takes numbers and touches no memory.
        pub(super) safe fn body_read(map: u32, limit: usize) -> i32;
        pub(super) fn body_get(map: u32, out: *mut u8, cap: usize) -> i32;
        pub(super) fn calls_send(ptr: *const u8, len: usize) -> i32;
        // SAFETY: takes a number and touches no memory.
        pub(super) safe fn call_status(index: u32) -> i32;
        pub(super) fn call_error(index: u32, out: *mut u8, cap: usize) -> i32;
        // SAFETY: takes a number and touches no memory.
        pub(super) safe fn call_error_kind(index: u32) -> i32;
        pub(super) fn call_headers(index: u32, out: *mut u8, cap: usize) -> i32;
        pub(super) fn call_body(index: u32, out: *mut u8, cap: usize) -> i32;
        // SAFETY: takes a number and touches no memory.
        pub(super) safe fn delay(milliseconds: u32) -> i32;
        pub(super) fn counter_add(
            zone: *const u8,
            zone_len: usize,
            key: *const u8,
            key_len: usize,
            amount: i64,
            window_ms: i64,
        ) -> i64;
        pub(super) fn counter_get(
            zone: *const u8,
            zone_len: usize,
            key: *const u8,
            key_len: usize,
        ) -> i64;
        pub(super) fn rate_take(
            zone: *const u8,
            zone_len: usize,
            key: *const u8,
            key_len: usize,
            interval_ns: i64,
            burst: i64,
        ) -> i64;
        pub(super) fn grant_check(grant: u32, name: *const u8, name_len: usize) -> i32;
        pub(super) fn peers_get(out: *mut u8, cap: usize) -> i32;
        pub(super) fn peers_draw(out: *mut u8, cap: usize) -> i32;
        pub(super) fn peer_address(index: u32, out: *mut u8, cap: usize) -> i32;
        pub(super) fn metric_define(ptr: *const u8, len: usize) -> i32;
        pub(super) fn metric_series(metric: u32, ptr: *const u8, len: usize) -> i32;
        // SAFETY: takes numbers and touches no memory.
        pub(super) safe fn metric_add(series: u32, value: f64) -> i32;
        // SAFETY: takes numbers and touches no memory.
        pub(super) safe fn metric_set(series: u32, value: f64) -> i32;
        // SAFETY: takes numbers and touches no memory.
        pub(super) safe fn metric_observe(series: u32, value: f64) -> i32;
    }
}

pub(crate) fn log(level: LogLevel, text: &[u8]) {
    // SAFETY: pointer and length are those of one live slice, which the host only reads, and only during the call.
    unsafe { import::log(level as u32, text.as_ptr(), text.len()) }
}

pub(crate) fn log_fields(level: LogLevel, text: &[u8], fields: &[u8]) {
    // SAFETY: `text` and `fields` as in `log`.
    unsafe {
        import::log_fields(
            level as u32,
            text.as_ptr(),
            text.len(),
            fields.as_ptr(),
            fields.len(),
        );
    }
}

pub(crate) fn fail_with(kind: ErrorKind, text: &[u8]) {
    // SAFETY: `text` as in `log`.
    unsafe { import::fail_with(kind as u32, text.as_ptr(), text.len()) }
}

pub(crate) fn panicked(text: &[u8]) {
    // SAFETY: as in `log`.
    unsafe { import::panicked(text.as_ptr(), text.len()) }
}

pub(crate) fn config_get(out: &mut [u8]) -> i32 {
    // SAFETY: pointer and length are those of one live slice that nobody else can see: the host writes at most its
    // length, and only during the call.
    unsafe { import::config_get(out.as_mut_ptr(), out.len()) }
}

pub(crate) fn random_get(out: &mut [u8]) {
    // SAFETY: `out` as in `config_get`.
    unsafe { import::random_get(out.as_mut_ptr(), out.len()) }
}

pub(crate) fn clock_monotonic() -> i64 {
    import::clock_monotonic()
}

pub(crate) fn clock_wall() -> i64 {
    import::clock_wall()
}

pub(crate) fn property_get(property: Property, out: &mut [u8]) -> i32 {
    // SAFETY: `out` as in `config_get`.
    unsafe { import::property_get(property as u32, out.as_mut_ptr(), out.len()) }
}

pub(crate) fn property_set(property: Property, value: &[u8]) -> i32 {
    // SAFETY: `value` as in `log`.
    unsafe { import::property_set(property as u32, value.as_ptr(), value.len()) }
}

pub(crate) fn number_get(number: Number) -> i64 {
    import::number_get(number as u32)
}

pub(crate) fn tls_get(fact: TlsFact, out: &mut [u8]) -> i32 {
    // SAFETY: as in `config_get`.
    unsafe { import::tls_get(fact as u32, out.as_mut_ptr(), out.len()) }
}

pub(crate) fn header_get(map: HeaderMap, name: &[u8], out: &mut [u8]) -> i32 {
    // SAFETY: `name` as in `log`, `out` as in `config_get`; a shared and an exclusive borrow do not overlap.
    unsafe {
        import::header_get(
            map as u32,
            name.as_ptr(),
            name.len(),
            out.as_mut_ptr(),
            out.len(),
        )
    }
}

pub(crate) fn headers_get(map: HeaderMap, name: &[u8], out: &mut [u8]) -> i32 {
    // SAFETY: as in `header_get`.
    unsafe {
        import::headers_get(
            map as u32,
            name.as_ptr(),
            name.len(),
            out.as_mut_ptr(),
            out.len(),
        )
    }
}

pub(crate) fn header_set(map: HeaderMap, name: &[u8], value: &[u8]) -> i32 {
    // SAFETY: `name` and `value` as in `log`.
    unsafe {
        import::header_set(
            map as u32,
            name.as_ptr(),
            name.len(),
            value.as_ptr(),
            value.len(),
        )
    }
}

pub(crate) fn header_add(map: HeaderMap, name: &[u8], value: &[u8]) -> i32 {
    // SAFETY: `name` and `value` as in `log`.
    unsafe {
        import::header_add(
            map as u32,
            name.as_ptr(),
            name.len(),
            value.as_ptr(),
            value.len(),
        )
    }
}

pub(crate) fn header_remove(map: HeaderMap, name: &[u8]) -> i32 {
    // SAFETY: `name` as in `log`.
    unsafe { import::header_remove(map as u32, name.as_ptr(), name.len()) }
}

pub(crate) fn status_get() -> i32 {
    import::status_get()
}

pub(crate) fn status_set(code: u16) -> i32 {
    import::status_set(u32::from(code))
}

pub(crate) fn var_get(name: &[u8], out: &mut [u8]) -> i32 {
    // SAFETY: as in `header_get`.
    unsafe { import::var_get(name.as_ptr(), name.len(), out.as_mut_ptr(), out.len()) }
}

pub(crate) fn var_set(name: &[u8], value: &[u8]) -> i32 {
    // SAFETY: `name` and `value` as in `log`.
    unsafe { import::var_set(name.as_ptr(), name.len(), value.as_ptr(), value.len()) }
}

pub(crate) fn state_get(out: &mut [u8]) -> i32 {
    // SAFETY: `out` as in `config_get`.
    unsafe { import::state_get(out.as_mut_ptr(), out.len()) }
}

pub(crate) fn state_set(bytes: &[u8]) -> i32 {
    // SAFETY: `bytes` as in `log`.
    unsafe { import::state_set(bytes.as_ptr(), bytes.len()) }
}

pub(crate) fn var_compute(name: &[u8]) -> i32 {
    // SAFETY: `name` as in `log`.
    unsafe { import::var_compute(name.as_ptr(), name.len()) }
}

pub(crate) fn variable_declare(name: &[u8]) -> i32 {
    // SAFETY: `name` as in `log`.
    unsafe { import::variable_declare(name.as_ptr(), name.len()) }
}

pub(crate) fn answer(status: u16, headers: &[u8], body: &[u8]) -> i32 {
    // SAFETY: `headers` and `body` as in `log`.
    unsafe {
        import::answer(
            u32::from(status),
            headers.as_ptr(),
            headers.len(),
            body.as_ptr(),
            body.len(),
        )
    }
}

pub(crate) fn response_begin(status: u16, headers: &[u8], length: i64) -> i32 {
    // SAFETY: `headers` as in `log`.
    unsafe { import::response_begin(u32::from(status), headers.as_ptr(), headers.len(), length) }
}

pub(crate) fn response_write(piece: &[u8]) -> i32 {
    // SAFETY: `piece` as in `log`.
    unsafe { import::response_write(piece.as_ptr(), piece.len()) }
}

pub(crate) fn response_trailers(fields: &[u8]) -> i32 {
    // SAFETY: `fields` as in `log`.
    unsafe { import::response_trailers(fields.as_ptr(), fields.len()) }
}

pub(crate) fn chunk_get(out: &mut [u8]) -> i32 {
    // SAFETY: `out` as in `config_get`.
    unsafe { import::chunk_get(out.as_mut_ptr(), out.len()) }
}

pub(crate) fn chunk_set(data: &[u8]) -> i32 {
    // SAFETY: `data` as in `log`.
    unsafe { import::chunk_set(data.as_ptr(), data.len()) }
}

pub(crate) fn chunk_end() -> i32 {
    import::chunk_end()
}

pub(crate) fn chunk_emit(part: &[u8]) -> i32 {
    // SAFETY: `part` as in `log`.
    unsafe { import::chunk_emit(part.as_ptr(), part.len()) }
}

pub(crate) fn body_peek(bytes: usize) -> i64 {
    import::body_peek(bytes)
}

pub(crate) fn body_skip() -> i32 {
    import::body_skip()
}

pub(crate) fn body_read(map: HeaderMap, limit: usize) -> i32 {
    import::body_read(map as u32, limit)
}

pub(crate) fn body_get(map: HeaderMap, out: &mut [u8]) -> i32 {
    // SAFETY: `out` as in `config_get`.
    unsafe { import::body_get(map as u32, out.as_mut_ptr(), out.len()) }
}

pub(crate) fn calls_send(records: &[u8]) -> i32 {
    // SAFETY: `records` as in `log`.
    unsafe { import::calls_send(records.as_ptr(), records.len()) }
}

pub(crate) fn call_status(index: u32) -> i32 {
    import::call_status(index)
}

pub(crate) fn call_error(index: u32, out: &mut [u8]) -> i32 {
    // SAFETY: `out` as in `config_get`.
    unsafe { import::call_error(index, out.as_mut_ptr(), out.len()) }
}

pub(crate) fn call_error_kind(index: u32) -> i32 {
    import::call_error_kind(index)
}

pub(crate) fn call_headers(index: u32, out: &mut [u8]) -> i32 {
    // SAFETY: `out` as in `config_get`.
    unsafe { import::call_headers(index, out.as_mut_ptr(), out.len()) }
}

pub(crate) fn call_body(index: u32, out: &mut [u8]) -> i32 {
    // SAFETY: `out` as in `config_get`.
    unsafe { import::call_body(index, out.as_mut_ptr(), out.len()) }
}

pub(crate) fn delay(milliseconds: u32) -> i32 {
    import::delay(milliseconds)
}

pub(crate) fn counter_add(zone: &[u8], key: &[u8], amount: i64, window_ms: i64) -> i64 {
    // SAFETY: `zone` and `key` as in `log`.
    unsafe {
        import::counter_add(
            zone.as_ptr(),
            zone.len(),
            key.as_ptr(),
            key.len(),
            amount,
            window_ms,
        )
    }
}

pub(crate) fn grant_check(grant: Grant, name: &[u8]) -> i32 {
    // SAFETY: `name` as in `log`.
    unsafe { import::grant_check(grant as u32, name.as_ptr(), name.len()) }
}

pub(crate) fn counter_get(zone: &[u8], key: &[u8]) -> i64 {
    // SAFETY: `zone` and `key` as in `log`.
    unsafe { import::counter_get(zone.as_ptr(), zone.len(), key.as_ptr(), key.len()) }
}

pub(crate) fn rate_take(zone: &[u8], key: &[u8], interval_ns: i64, burst: i64) -> i64 {
    // SAFETY: `zone` and `key` as in `log`.
    unsafe {
        import::rate_take(
            zone.as_ptr(),
            zone.len(),
            key.as_ptr(),
            key.len(),
            interval_ns,
            burst,
        )
    }
}

pub(crate) fn peers_get(out: &mut [u8]) -> i32 {
    // SAFETY: `out` as in `config_get`.
    unsafe { import::peers_get(out.as_mut_ptr(), out.len()) }
}

pub(crate) fn peers_draw(out: &mut [u8]) -> i32 {
    // SAFETY: `out` as in `config_get`.
    unsafe { import::peers_draw(out.as_mut_ptr(), out.len()) }
}

pub(crate) fn peer_address(index: u32, out: &mut [u8]) -> i32 {
    // SAFETY: `out` as in `config_get`.
    unsafe { import::peer_address(index, out.as_mut_ptr(), out.len()) }
}

pub(crate) fn metric_define(definition: &[u8]) -> i32 {
    // SAFETY: `definition` as in `log`.
    unsafe { import::metric_define(definition.as_ptr(), definition.len()) }
}

pub(crate) fn metric_series(metric: u32, values: &[u8]) -> i32 {
    // SAFETY: `values` as in `log`.
    unsafe { import::metric_series(metric, values.as_ptr(), values.len()) }
}

pub(crate) fn metric_add(series: u32, value: f64) -> i32 {
    import::metric_add(series, value)
}

pub(crate) fn metric_set(series: u32, value: f64) -> i32 {
    import::metric_set(series, value)
}

pub(crate) fn metric_observe(series: u32, value: f64) -> i32 {
    import::metric_observe(series, value)
}
