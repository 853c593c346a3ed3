//! The functions of `raw`, served from this thread's `World` and from the exchange that was lent last: each is counted, done by the module
//! of its capability, and traced.

use castling_abi::{
    ErrorKind, FileFact, Grant, HeaderMap, KvExpected, LogLevel, Number, Property, Status, TlsFact,
    rules,
};

use super::trace::{self, Shown, Told};
use super::{
    body, calls, files, gauge, head, kv, metrics, own_variables, peers, stream, streamed, system,
    tcp, topics, upstream, zones,
};

pub(crate) use super::hook::check_answer;

/// Writes a function for each call, which is its rule's.
macro_rules! calls {
    ($($rule:ident $module:ident::$name:ident($($arg:ident: $ty:ty),*) $(-> $ret:ty)?;)+) => {
        $(pub(crate) fn $name($($arg: $ty),*) $(-> $ret)? {
            trace::begin();
            let result = $module::$name($($arg),*);
            if trace::is_on() {
                let arguments: &[&dyn Shown] = &[$(&$arg),*];
                trace::note(rules::$rule.name, arguments, Told::number(result));
            }
            result
        })+
    };
}

calls! {
    LOG system::log(level: LogLevel, text: &[u8]);
    LOG_FIELDS system::log_fields(level: LogLevel, text: &[u8], fields: &[u8]);
    FAIL_WITH system::fail_with(kind: ErrorKind, text: &[u8]);
    CONFIG_GET system::config_get(out: &mut [u8]) -> i32;
    RANDOM_GET system::random_get(out: &mut [u8]);
    CLOCK_MONOTONIC system::clock_monotonic() -> i64;
    CLOCK_WALL system::clock_wall() -> i64;
    DELAY system::delay(milliseconds: u32) -> i32;
    PROPERTY_GET head::property_get(property: Property, out: &mut [u8]) -> i32;
    PROPERTY_SET head::property_set(property: Property, value: &[u8]) -> i32;
    NUMBER_GET head::number_get(number: Number) -> i64;
    TLS_GET head::tls_get(fact: TlsFact, out: &mut [u8]) -> i32;
    HEADER_GET head::header_get(map: HeaderMap, name: &[u8], out: &mut [u8]) -> i32;
    HEADERS_GET head::headers_get(map: HeaderMap, name: &[u8], out: &mut [u8]) -> i32;
    HEADER_SET head::header_set(map: HeaderMap, name: &[u8], value: &[u8]) -> i32;
    HEADER_ADD head::header_add(map: HeaderMap, name: &[u8], value: &[u8]) -> i32;
    HEADER_REMOVE head::header_remove(map: HeaderMap, name: &[u8]) -> i32;
    STATUS_GET head::status_get() -> i32;
    STATUS_SET head::status_set(code: u16) -> i32;
    VAR_GET head::var_get(name: &[u8], out: &mut [u8]) -> i32;
    VAR_SET head::var_set(name: &[u8], value: &[u8]) -> i32;
    VAR_COMPUTE head::var_compute(name: &[u8]) -> i32;
    VARIABLE_DECLARE own_variables::variable_declare(name: &[u8]) -> i32;
    STATE_GET head::state_get(out: &mut [u8]) -> i32;
    STATE_SET head::state_set(bytes: &[u8]) -> i32;
    ANSWER head::answer(status: u16, headers: &[u8], body: &[u8]) -> i32;
    BODY_SKIP head::body_skip() -> i32;
    CHUNK_GET body::chunk_get(out: &mut [u8]) -> i32;
    CHUNK_SET body::chunk_set(data: &[u8]) -> i32;
    CHUNK_END body::chunk_end() -> i32;
    BODY_PEEK body::body_peek(bytes: usize) -> i64;
    BODY_READ body::body_read(map: HeaderMap, limit: usize) -> i32;
    BODY_GET body::body_get(map: HeaderMap, out: &mut [u8]) -> i32;
    CHUNK_EMIT stream::chunk_emit(part: &[u8]) -> i32;
    RESPONSE_BEGIN stream::response_begin(status: u16, headers: &[u8], length: i64) -> i32;
    RESPONSE_WRITE stream::response_write(piece: &[u8]) -> i32;
    RESPONSE_TRAILERS stream::response_trailers(fields: &[u8]) -> i32;
    CALLS_SEND calls::calls_send(records: &[u8]) -> i32;
    CALL_STATUS calls::call_status(index: u32) -> i32;
    CALL_ERROR calls::call_error(index: u32, out: &mut [u8]) -> i32;
    CALL_ERROR_KIND calls::call_error_kind(index: u32) -> i32;
    CALL_HEADERS calls::call_headers(index: u32, out: &mut [u8]) -> i32;
    CALL_BODY calls::call_body(index: u32, out: &mut [u8]) -> i32;
    COUNTER_ADD zones::counter_add(zone: &[u8], key: &[u8], amount: i64, window_ms: i64) -> i64;
    COUNTER_GET zones::counter_get(zone: &[u8], key: &[u8]) -> i64;
    RATE_TAKE zones::rate_take(zone: &[u8], key: &[u8], interval_ns: i64, burst: i64) -> i64;
    GRANT_CHECK zones::grant_check(grant: Grant, name: &[u8]) -> i32;
    CONFIG_GRANT upstream::config_grant(grant: Grant, name: &[u8]) -> i32;
    UPSTREAM_SET upstream::upstream_set(name: &[u8]) -> i32;
    PEERS_GET peers::peers_get(out: &mut [u8]) -> i32;
    PEERS_DRAW peers::peers_draw(out: &mut [u8]) -> i32;
    PEER_ADDRESS peers::peer_address(index: u32, out: &mut [u8]) -> i32;
    PEER_NAME upstream::peer_name(index: u32, out: &mut [u8]) -> i32;
    PEER_TAGS upstream::peer_tags(index: u32, out: &mut [u8]) -> i32;
    KV_GET kv::kv_get(zone: &[u8], key: &[u8], out: &mut [u8]) -> i32;
    KV_PUT kv::kv_put(zone: &[u8], key: &[u8], value: &[u8], ttl_ms: i64, expected: (KvExpected, &[u8])) -> i32;
    KV_DELETE kv::kv_delete(zone: &[u8], key: &[u8], expected: (KvExpected, &[u8])) -> i32;
    KV_LIST kv::kv_list(zone: &[u8], prefix: &[u8], after: &[u8], limit: usize, out: &mut [u8]) -> i32;
    KV_GET_WITH_TTL kv::kv_get_with_ttl(zone: &[u8], key: &[u8], out: &mut [u8], ttl_ms: &mut i64) -> i32;
    KV_INCREMENT kv::kv_increment(zone: &[u8], key: &[u8], by: i64, ttl_ms: i64, number: &mut i64) -> i32;
    KV_GET_ALL kv::kv_get_all(zone: &[u8], keys: &[u8], out: &mut [u8]) -> i32;
    KV_PUT_ALL kv::kv_put_all(zone: &[u8], entries: &[u8], ttl_ms: i64) -> i32;
    KV_DELETE_ALL kv::kv_delete_all(zone: &[u8], keys: &[u8]) -> i32;
    KV_FLIGHT gauge::kv_flight(zone: &[u8], key: &[u8], wait_ms: u32) -> i32;
    KV_FLIGHT_END gauge::kv_flight_end(zone: &[u8], key: &[u8]) -> i32;
    GAUGE_ENTER gauge::gauge_enter(zone: &[u8], key: &[u8], max: u32) -> i32;
    GAUGE_LEAVE gauge::gauge_leave(zone: &[u8], key: &[u8]) -> i32;
    GAUGE_COUNT gauge::gauge_count(zone: &[u8], key: &[u8]) -> i64;
    CALL_OPEN streamed::call_open(record: &[u8], length: i64) -> i32;
    CALL_WRITE streamed::call_write(call: u32, bytes: &[u8]) -> i32;
    CALL_FINISH streamed::call_finish(call: u32) -> i32;
    CALL_REPLY_HEADERS streamed::call_reply_headers(call: u32, out: &mut [u8]) -> i32;
    CALL_READ streamed::call_read(call: u32, out: &mut [u8]) -> i32;
    CALL_CLOSE streamed::call_close(call: u32) -> i32;
    CALL_FAILURE streamed::call_failure(out: &mut [u8]) -> i32;
    CALL_FAILURE_KIND streamed::call_failure_kind() -> i32;
    TOPIC_PUBLISH topics::topic_publish(zone: &[u8], message: &[u8]) -> i32;
    TOPIC_NAME topics::topic_name(topic: u32, out: &mut [u8]) -> i32;
    MESSAGE_GET topics::message_get(out: &mut [u8]) -> i32;
    METRIC_DEFINE metrics::metric_define(definition: &[u8]) -> i32;
    METRIC_SERIES metrics::metric_series(metric: u32, values: &[u8]) -> i32;
    METRIC_ADD metrics::metric_add(series: u32, value: f64) -> i32;
    METRIC_SET metrics::metric_set(series: u32, value: f64) -> i32;
    METRIC_OBSERVE metrics::metric_observe(series: u32, value: f64) -> i32;
    FILE_OPEN files::file_open(name: &[u8]) -> i32;
    FILE_FACT files::file_fact(file: u32, fact: FileFact) -> i64;
    FILE_READ files::file_read(file: u32, offset: i64, out: &mut [u8]) -> i32;
    TCP_CONNECT tcp::tcp_connect(upstream: &[u8], milliseconds: u32) -> i32;
    TCP_READ tcp::tcp_read(connection: u32, out: &mut [u8], milliseconds: u32) -> i32;
    TCP_WRITE tcp::tcp_write(connection: u32, bytes: &[u8], milliseconds: u32) -> i32;
    TCP_CLOSE tcp::tcp_close(connection: u32) -> i32;
    TCP_ERROR tcp::tcp_error(out: &mut [u8]) -> i32;
}

#[cfg(feature = "crypto")]
pub(crate) use with_crypto::{
    digest, hmac, password_hash, password_verify, seal, signature_verify, unseal,
};

#[cfg(feature = "crypto")]
mod with_crypto {
    use castling_abi::{Digest, PasswordHash, Signature, rules};

    use super::super::crypto;
    use super::super::trace::{self, Shown, Told};

    calls! {
        DIGEST crypto::digest(algorithm: Digest, data: &[u8], out: &mut [u8]) -> i32;
        HMAC crypto::hmac(algorithm: Digest, key: &[u8], data: &[u8], out: &mut [u8]) -> i32;
        SEAL crypto::seal(key: &[u8], aad: &[u8], plain: &[u8], out: &mut [u8]) -> i32;
        UNSEAL crypto::unseal(key: &[u8], aad: &[u8], sealed: &[u8], out: &mut [u8]) -> i32;
        SIGNATURE_VERIFY crypto::signature_verify(algorithm: Signature, key: &[u8], message: &[u8], signature: &[u8]) -> i32;
        PASSWORD_HASH crypto::password_hash(algorithm: PasswordHash, password: &[u8], out: &mut [u8]) -> i32;
        PASSWORD_VERIFY crypto::password_verify(hash: &[u8], password: &[u8]) -> i32;
    }
}

/// Hands out bytes as the ABI says: the length, and the bytes where there is room for all.
pub(super) fn hand_out(bytes: &[u8], out: &mut [u8]) -> i32 {
    if let Some(room) = out.get_mut(..bytes.len()) {
        room.copy_from_slice(bytes);
    }
    i32::try_from(bytes.len()).unwrap_or(Status::Limit as i32)
}
