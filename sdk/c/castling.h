/* The ABI of Castling for plugins in C. Written by `cargo xtask abi` from sdk/abi; docs/plugins/languages.md says how it is used.
 *
 * Pointers and lengths name bytes of the plugin's memory; those outside of it trap. A call that hands out bytes takes (out, cap) and returns
 * their length: where that is larger than cap, nothing was written, and the plugin calls again with more room. A negative result is an
 * enum castling_status. */
#ifndef CASTLING_H
#define CASTLING_H

#include <stdint.h>

#define CASTLING_IMPORT(name) __attribute__((import_module("castling"), import_name(#name)))
#define CASTLING_EXPORT(name) __attribute__((export_name(#name)))

/* Begins a hook: CASTLING_HOOK(access) { ... }. It returns an enum castling_action; what a, b and c are, sdk/abi says. */
#define CASTLING_HOOK(name)                    \
    CASTLING_EXPORT(castling_hook_##name)      \
    int32_t castling_hook_##name(uint32_t a, uint32_t b, uint32_t c)

/* Begins what is called once, before any hook. */
#define CASTLING_CONFIGURE CASTLING_EXPORT(castling_configure) int32_t castling_configure(void)

/* The manifest, a string of JSON; once a module. */
#define CASTLING_MANIFEST(json) \
    __asm__(".section .custom_section.castling.manifest,\"\",@\n.ascii " #json "\n.text\n")

enum castling_digest {
    CASTLING_DIGEST_SHA256 = 0,
    CASTLING_DIGEST_SHA384 = 1,
    CASTLING_DIGEST_SHA512 = 2,
};

enum castling_signature {
    CASTLING_SIGNATURE_ECDSA_P256_SHA256_FIXED = 0,
    CASTLING_SIGNATURE_ECDSA_P256_SHA256_ASN1 = 1,
    CASTLING_SIGNATURE_ECDSA_P384_SHA384_FIXED = 2,
    CASTLING_SIGNATURE_ECDSA_P384_SHA384_ASN1 = 3,
    CASTLING_SIGNATURE_ED25519 = 4,
    CASTLING_SIGNATURE_RSA_PKCS1_SHA256 = 5,
    CASTLING_SIGNATURE_RSA_PSS_SHA256 = 6,
};

enum castling_password_hash {
    CASTLING_PASSWORD_HASH_ARGON2ID = 0,
    CASTLING_PASSWORD_HASH_BCRYPT = 1,
    CASTLING_PASSWORD_HASH_PBKDF2_SHA256 = 2,
};

enum castling_file_fact {
    CASTLING_FILE_FACT_LENGTH = 0,
    CASTLING_FILE_FACT_VERSION = 1,
};

enum castling_error_kind {
    CASTLING_ERROR_KIND_OWN = 0,
    CASTLING_ERROR_KIND_TIMEOUT = 1,
    CASTLING_ERROR_KIND_CONNECT = 2,
    CASTLING_ERROR_KIND_REFUSED = 3,
    CASTLING_ERROR_KIND_BROKEN = 4,
    CASTLING_ERROR_KIND_UNAVAILABLE = 5,
    CASTLING_ERROR_KIND_LIMIT = 6,
    CASTLING_ERROR_KIND_TOO_LARGE = 7,
    CASTLING_ERROR_KIND_NOT_GRANTED = 8,
    CASTLING_ERROR_KIND_BAD_ARGUMENT = 9,
    CASTLING_ERROR_KIND_NOT_NOW = 10,
    CASTLING_ERROR_KIND_NOT_FOUND = 11,
    CASTLING_ERROR_KIND_FULL = 12,
    CASTLING_ERROR_KIND_WRONG_KIND = 13,
    CASTLING_ERROR_KIND_HOST_FAILED = 14,
    CASTLING_ERROR_KIND_UNCOMPUTED = 15,
};

enum castling_hook {
    CASTLING_HOOK_POST_READ = 0,
    CASTLING_HOOK_REWRITE = 1,
    CASTLING_HOOK_PREACCESS = 2,
    CASTLING_HOOK_ACCESS = 3,
    CASTLING_HOOK_CONTENT = 4,
    CASTLING_HOOK_BALANCE = 5,
    CASTLING_HOOK_PEER_DONE = 6,
    CASTLING_HOOK_RESPONSE_HEADERS = 7,
    CASTLING_HOOK_RESPONSE_BODY = 8,
    CASTLING_HOOK_LOG = 9,
    CASTLING_HOOK_REQUEST_BODY = 10,
    CASTLING_HOOK_VARIABLE = 11,
    CASTLING_HOOK_TIMER = 12,
    CASTLING_HOOK_MESSAGE = 13,
    CASTLING_HOOK_AFTER_RESPONSE = 14,
};

enum castling_action {
    CASTLING_ACTION_FAILED = -1,
    CASTLING_ACTION_CONTINUE = 0,
    CASTLING_ACTION_ANSWER = 1,
    CASTLING_ACTION_REROUTE = 2,
};

enum castling_status {
    CASTLING_STATUS_NOT_FOUND = -1,
    CASTLING_STATUS_BAD_ARGUMENT = -2,
    CASTLING_STATUS_NOT_NOW = -3,
    CASTLING_STATUS_LIMIT = -4,
    CASTLING_STATUS_NOT_GRANTED = -5,
    CASTLING_STATUS_FULL = -6,
    CASTLING_STATUS_WRONG_KIND = -7,
    CASTLING_STATUS_HOST_FAILED = -8,
    CASTLING_STATUS_UNCOMPUTED = -9,
};

enum castling_grant {
    CASTLING_GRANT_UPSTREAM = 0,
    CASTLING_GRANT_COUNTER_ZONE = 1,
    CASTLING_GRANT_KV_ZONE = 2,
    CASTLING_GRANT_GAUGE_ZONE = 3,
    CASTLING_GRANT_TOPIC = 4,
};

enum castling_kv_expected {
    CASTLING_KV_EXPECTED_ANY = 0,
    CASTLING_KV_EXPECTED_ABSENT = 1,
    CASTLING_KV_EXPECTED_VALUE = 2,
};

enum castling_header_map {
    CASTLING_HEADER_MAP_REQUEST = 0,
    CASTLING_HEADER_MAP_RESPONSE = 1,
    CASTLING_HEADER_MAP_TRAILERS = 2,
};

enum castling_property {
    CASTLING_PROPERTY_METHOD = 0,
    CASTLING_PROPERTY_PATH = 1,
    CASTLING_PROPERTY_QUERY = 2,
    CASTLING_PROPERTY_HOST = 3,
    CASTLING_PROPERTY_CLIENT_ADDRESS = 4,
    CASTLING_PROPERTY_CLIENT_PORT = 5,
    CASTLING_PROPERTY_SCHEME = 6,
    CASTLING_PROPERTY_PROTOCOL = 7,
    CASTLING_PROPERTY_LISTENER = 8,
    CASTLING_PROPERTY_ROUTE = 9,
    CASTLING_PROPERTY_UPSTREAM = 10,
    CASTLING_PROPERTY_PEER = 11,
    CASTLING_PROPERTY_SERVER_ADDRESS = 12,
    CASTLING_PROPERTY_SERVER_PORT = 13,
    CASTLING_PROPERTY_ROUTED_PATH = 14,
};

enum castling_tls_fact {
    CASTLING_TLS_FACT_VERSION = 0,
    CASTLING_TLS_FACT_CIPHER = 1,
    CASTLING_TLS_FACT_GROUP = 2,
    CASTLING_TLS_FACT_SERVER_NAME = 3,
    CASTLING_TLS_FACT_ALPN = 4,
    CASTLING_TLS_FACT_RESUMED = 5,
    CASTLING_TLS_FACT_EARLY = 6,
    CASTLING_TLS_FACT_CLIENT_VERIFY = 7,
    CASTLING_TLS_FACT_CLIENT_SUBJECT = 8,
    CASTLING_TLS_FACT_CLIENT_ISSUER = 9,
    CASTLING_TLS_FACT_CLIENT_SERIAL = 10,
    CASTLING_TLS_FACT_CLIENT_FINGERPRINT = 11,
    CASTLING_TLS_FACT_CLIENT_NOT_BEFORE = 12,
    CASTLING_TLS_FACT_CLIENT_NOT_AFTER = 13,
    CASTLING_TLS_FACT_CLIENT_DNS = 14,
    CASTLING_TLS_FACT_CLIENT_IP = 15,
    CASTLING_TLS_FACT_CLIENT_URI = 16,
    CASTLING_TLS_FACT_CLIENT_EMAIL = 17,
    CASTLING_TLS_FACT_CLIENT_CERTIFICATE = 18,
};

enum castling_number {
    CASTLING_NUMBER_BODY_BYTES_SENT = 0,
    CASTLING_NUMBER_BODY_BYTES_RECEIVED = 1,
    CASTLING_NUMBER_DURATION_MICROS = 2,
    CASTLING_NUMBER_UPSTREAM_MICROS = 3,
    CASTLING_NUMBER_TRIES = 4,
    CASTLING_NUMBER_UPSTREAM_STATUS = 5,
};

enum castling_peer_outcome {
    CASTLING_PEER_OUTCOME_RESPONDED = 0,
    CASTLING_PEER_OUTCOME_CONNECT_FAILED = 1,
    CASTLING_PEER_OUTCOME_BROKEN = 2,
    CASTLING_PEER_OUTCOME_TIMED_OUT = 3,
    CASTLING_PEER_OUTCOME_CANCELLED = 4,
};

enum castling_log_level {
    CASTLING_LOG_LEVEL_ERROR = 0,
    CASTLING_LOG_LEVEL_WARN = 1,
    CASTLING_LOG_LEVEL_INFO = 2,
    CASTLING_LOG_LEVEL_DEBUG = 3,
    CASTLING_LOG_LEVEL_TRACE = 4,
};

enum castling_metric_kind {
    CASTLING_METRIC_KIND_COUNTER = 0,
    CASTLING_METRIC_KIND_GAUGE = 1,
    CASTLING_METRIC_KIND_GAUGE_MAX = 2,
    CASTLING_METRIC_KIND_HISTOGRAM = 3,
};

#define CASTLING_CALL_RECORD_HEAD_BYTES (6 * 4)
#define CASTLING_CALL_MAX_DEPTH (5)
#define CASTLING_CALL_MAX_CALLS (16)
#define CASTLING_CRYPTO_LARGEST_CRYPTO_BYTES (16 << 20)
#define CASTLING_HEADER_LIST_RECORD_HEAD_BYTES (6)
#define CASTLING_KV_MAX_KEY_BYTES (510)
#define CASTLING_KV_MAX_LIST_KEYS (1000)
#define CASTLING_KV_MAX_KEYS_AT_ONCE (100)
#define CASTLING_KV_MAX_VALUES_BYTES (16 << 20)
#define CASTLING_KV_NUMBER_BYTES (8)
#define CASTLING_KV_NO_VALUE 0xffffffffu
#define CASTLING_ABI_VERSION (1)
#define CASTLING_BALANCE_DECLINED (-1)
#define CASTLING_BALANCE_FAILED (-2)
#define CASTLING_BODY_UNWANTED (1)
#define CASTLING_MAX_MESSAGE_BYTES (4096)
#define CASTLING_FLIGHT_VALUE (0)
#define CASTLING_FLIGHT_FETCH (1)
#define CASTLING_FLIGHT_TIMED_OUT (2)
#define CASTLING_MOST_CONNECTIONS (16)
#define CASTLING_MOST_STREAMED_CALLS (16)
#define CASTLING_LENGTH_UNKNOWN (-1)
#define CASTLING_PEER_RECORD_BYTES (16)
#define CASTLING_PEER_TRIED (1)
#define CASTLING_PEER_COOLING (2)
#define CASTLING_LONGEST_DELAY_MS (60000)
#define CASTLING_METRIC_DEFINITION_HEAD_BYTES (4 * 4)
#define CASTLING_METRIC_MAX_METRICS (64)
#define CASTLING_METRIC_MAX_LABELS (8)
#define CASTLING_METRIC_MAX_BUCKETS (64)
#define CASTLING_METRIC_MAX_NAME_BYTES (128)
#define CASTLING_METRIC_MAX_HELP_BYTES (512)
#define CASTLING_METRIC_MAX_BYTES (16 * 1024)
#define CASTLING_METRIC_MAX_VALUE_BYTES (128)

/* a line of the plugin in the gateway's log. [`LogLevel`]. */
CASTLING_IMPORT(log)
void castling_log(uint32_t level, const void *ptr, uint32_t len);

/* the same with fields, a [`header_list`] of names and values, which are fields of the line where the log is
 * JSON. Names are `[A-Za-z0-9_.-]`, 1 to 64 bytes; beyond 4096 bytes of all fields the rest is left out. */
CASTLING_IMPORT(log_fields)
void castling_log_fields(uint32_t level, const void *ptr, uint32_t len, const void *fields_ptr, uint32_t fields_len);

/* the text of the error that the hook is about to return. */
CASTLING_IMPORT(fail)
void castling_fail(const void *ptr, uint32_t len);

/* the same with the error's [`ErrorKind`], which decides the status that the client gets; one that the host does
 * not know counts as the plugin's own, as with `fail`. */
CASTLING_IMPORT(fail_with)
void castling_fail_with(uint32_t kind, const void *ptr, uint32_t len);

/* message and place of the panic that is about to trap. */
CASTLING_IMPORT(panicked)
void castling_panicked(const void *ptr, uint32_t len);

/* the plugin's config as JSON. */
CASTLING_IMPORT(config_get)
int32_t castling_config_get(void *out, uint32_t cap);

/* fills the bytes from the system's secure random source. */
CASTLING_IMPORT(random_get)
void castling_random_get(void *ptr, uint32_t len);

/* nanoseconds since some moment, never backwards. */
CASTLING_IMPORT(clock_monotonic)
int64_t castling_clock_monotonic(void);

/* nanoseconds since 1970-01-01 UTC. */
CASTLING_IMPORT(clock_wall)
int64_t castling_clock_wall(void);

/* a [`Property`]. */
CASTLING_IMPORT(property_get)
int32_t castling_property_get(uint32_t property, void *out, uint32_t cap);

/* 0 or a status. */
CASTLING_IMPORT(property_set)
int32_t castling_property_set(uint32_t property, const void *ptr, uint32_t len);

/* a [`Number`], or a status. */
CASTLING_IMPORT(number_get)
int64_t castling_number_get(uint32_t number);

/* a [`TlsFact`]. */
CASTLING_IMPORT(tls_get)
int32_t castling_tls_get(uint32_t fact, void *out, uint32_t cap);

/* the first value of that name. */
CASTLING_IMPORT(header_get)
int32_t castling_header_get(uint32_t map, const void *name_ptr, uint32_t name_len, void *out, uint32_t cap);

/* a [`header_list`] of all values of that name, or of every header when the name is empty. */
CASTLING_IMPORT(headers_get)
int32_t castling_headers_get(uint32_t map, const void *name_ptr, uint32_t name_len, void *out, uint32_t cap);

/* this value in the place of all of that name; 0 or a status. */
CASTLING_IMPORT(header_set)
int32_t castling_header_set(uint32_t map, const void *name_ptr, uint32_t name_len, const void *ptr, uint32_t len);

/* one more value; 0 or a status. */
CASTLING_IMPORT(header_add)
int32_t castling_header_add(uint32_t map, const void *name_ptr, uint32_t name_len, const void *ptr, uint32_t len);

/* how many were removed, or a status. */
CASTLING_IMPORT(header_remove)
int32_t castling_header_remove(uint32_t map, const void *name_ptr, uint32_t name_len);

/* the response's status code, 100 to 999. */
CASTLING_IMPORT(status_get)
int32_t castling_status_get(void);

/* 200 to 599; 0 or a status. */
CASTLING_IMPORT(status_set)
int32_t castling_status_set(uint32_t code);

/* a variable that some plugin has set. */
CASTLING_IMPORT(var_get)
int32_t castling_var_get(const void *name_ptr, uint32_t name_len, void *out, uint32_t cap);

/* names are `[a-z0-9_]`, 1 to 64 bytes; 0 or a status. */
CASTLING_IMPORT(var_set)
int32_t castling_var_set(const void *name_ptr, uint32_t name_len, const void *ptr, uint32_t len);

/* bytes that the plugin has kept for this request with `state_set`; not found before that, and after a hook of
 * the plugin has trapped. [`Status::NotNow`] in `timer` and `castling_configure`, which have no request. */
CASTLING_IMPORT(state_get)
int32_t castling_state_get(void *out, uint32_t cap);

/* keeps bytes for the plugin's later hooks on this request, whichever instance runs them, in the place of those
 * before: up to `limits.state`. 0 or a status. */
CASTLING_IMPORT(state_set)
int32_t castling_state_set(const void *ptr, uint32_t len);

/* the response that [`Action::Answer`] sends: a [`header_list`] and a body; 0 or a status. */
CASTLING_IMPORT(answer)
int32_t castling_answer(uint32_t status, const void *headers_ptr, uint32_t headers_len, const void *ptr, uint32_t len);

/* sends the head of a response whose body follows piece by piece, a [`header_list`], through the filters of
 * heads. `length` is the body's in bytes, or -1 where it is not known. In `content` only, and once; what was
 * passed to `answer` before is given up. 0, [`BODY_UNWANTED`] or a status. From then on the hook must return
 * [`Action::Answer`]; whatever else it comes to cuts the response. */
CASTLING_IMPORT(response_begin)
int32_t castling_response_begin(uint32_t status, const void *headers_ptr, uint32_t headers_len, int64_t length);

/* the next piece of the body, through the filters of bodies; returns when it is sent. Pieces of up to the
 * plugin's `limits.body`. 0, [`BODY_UNWANTED`] or a status: [`Status::BadArgument`] for a piece that goes beyond
 * the length. The hook's `limits.cpu`, `limits.host_calls` and (but for a sub-request) `limits.calls` begin anew
 * with each piece that is sent. */
CASTLING_IMPORT(response_write)
int32_t castling_response_write(const void *ptr, uint32_t len);

/* a [`header_list`] of the fields that follow the body where the client's protocol has any; in the place of those
 * of an earlier call. After `response_begin`. 0 or a status. */
CASTLING_IMPORT(response_trailers)
int32_t castling_response_trailers(const void *ptr, uint32_t len);

/* has the variable computed by the plugin whose it is, and waits for that; 0, or [`Status::NotFound`] when it has
 * no value. For after [`Status::Uncomputed`]; not in `request_body`, `balance` and `peer_done`. */
CASTLING_IMPORT(var_compute)
int32_t castling_var_compute(const void *name_ptr, uint32_t name_len);

/* says that the plugin's `variable` hook computes this variable too, besides those of its manifest. The index by
 * which the hook is called for it, which is the next one; a bad argument where the name is none, the gateway's
 * own, or the plugin's already; [`Status::Limit`] beyond [`rules::limits::COMPUTED_VARIABLES`] of one plugin. In
 * `castling_configure` only ([`Status::NotNow`]). A module that imports this may have a `variable` hook without
 * naming variables in its manifest. */
CASTLING_IMPORT(variable_declare)
int32_t castling_variable_declare(const void *name_ptr, uint32_t name_len);

/* the chunk that `request_body` or `response_body` was called for. */
CASTLING_IMPORT(chunk_get)
int32_t castling_chunk_get(void *out, uint32_t cap);

/* what goes on in its place; 0 or a status. */
CASTLING_IMPORT(chunk_set)
int32_t castling_chunk_set(const void *ptr, uint32_t len);

/* the body ends with this chunk; what would still come of it is not waited for. 0 or a status. */
CASTLING_IMPORT(chunk_end)
int32_t castling_chunk_end(void);

/* sends bytes on in the place of the chunk, before what `chunk_set` leaves of it when the hook returns; may be
 * called often. They go through the filters after this one, to the client or the peer, and this returns when
 * there is room for them there. Parts of up to the plugin's `limits.body`, and of one call of the hook together
 * up to `limits.emit`. 0, [`BODY_UNWANTED`] or a status. `limits.cpu` and `limits.host_calls` begin anew with
 * each part that is sent. In `request_body` and `response_body`. */
CASTLING_IMPORT(chunk_emit)
int32_t castling_chunk_emit(const void *ptr, uint32_t len);

/* from `response_headers`, the plugin's `response_body` hook does not see this response's body, which goes on
 * with the length that it has. 0 or a status. */
CASTLING_IMPORT(body_skip)
int32_t castling_body_skip(void);

/* waits until the whole body is there; its length. [`Status::Limit`] when it is longer than `limit` bytes, which
 * may be up to the plugin's `limits.body`; it then passes on all the same. */
CASTLING_IMPORT(body_read)
int32_t castling_body_read(uint32_t map, uint32_t limit);

/* waits until so many bytes of the request's body are there, or all of it, which can be read and passes on
 * afterwards as if nobody had looked. Twice the number of bytes that there are, which is no more than was asked
 * for, and one more where they are the whole body; or a status: [`Status::Limit`] for more than the plugin's
 * `limits.body`. */
CASTLING_IMPORT(body_peek)
int64_t castling_body_peek(uint32_t bytes);

/* the body that `body_read` has read, or the part of the request's that `body_peek` has seen if that was called
 * later; not found before. */
CASTLING_IMPORT(body_get)
int32_t castling_body_get(uint32_t map, void *out, uint32_t cap);

/* [`call`] records; waits for all their responses and returns how many there are, or a status when none was sent.
 * The results of the `calls_send` before are gone. */
CASTLING_IMPORT(calls_send)
int32_t castling_calls_send(const void *ptr, uint32_t len);

/* the response's status code; [`Status::NotFound`] when the call failed, and `call_error` says why. */
CASTLING_IMPORT(call_status)
int32_t castling_call_status(uint32_t index);

/* why a call failed, as text. */
CASTLING_IMPORT(call_error)
int32_t castling_call_error(uint32_t index, void *out, uint32_t cap);

/* the kind of that failure, a [`ErrorKind`]; not found when the call has a response. */
CASTLING_IMPORT(call_error_kind)
int32_t castling_call_error_kind(uint32_t index);

/* a [`header_list`]. */
CASTLING_IMPORT(call_headers)
int32_t castling_call_headers(uint32_t index, void *out, uint32_t cap);

/* . */
CASTLING_IMPORT(call_body)
int32_t castling_call_body(uint32_t index, void *out, uint32_t cap);

/* begins one call, a [`call`] record, whose bodies stream. `length` bytes of the request's body follow by
 * `call_write`, -1 where that is not known; with 0 the record has all of it, else none. The call's number for the
 * functions below, good until the request ends. Each of their waits takes the record's time-out, which is 60 s
 * for 0 and beyond that. It counts as a call out ([`Status::Limit`]); [`Status::Full`] where the request has
 * [`MOST_STREAMED_CALLS`] open. In hooks that may send calls, and not to the gateway's own routes. Here and
 * below: [`Status::NotFound`] where the call has failed, which ends it, and `call_failure` says why; a bad
 * argument for a number that is none, and for what is not its turn. */
CASTLING_IMPORT(call_open)
int32_t castling_call_open(const void *ptr, uint32_t len, int64_t length);

/* the next piece of the request's body, up to the plugin's `limits.body`; waits until there is room for it. 0,
 * [`BODY_UNWANTED`] where the peer answers and takes no more, or a status. The hook's `limits.cpu` and
 * `limits.host_calls` begin anew with each piece that is sent. */
CASTLING_IMPORT(call_write)
int32_t castling_call_write(uint32_t call, const void *ptr, uint32_t len);

/* ends the request's body, and waits for the response's head: its status code, or a status. */
CASTLING_IMPORT(call_finish)
int32_t castling_call_finish(uint32_t call);

/* a [`header_list`] of the response that `call_finish` has returned last. */
CASTLING_IMPORT(call_reply_headers)
int32_t castling_call_reply_headers(uint32_t call, void *out, uint32_t cap);

/* waits for bytes of the response's body, one at least; 0 at its end. `limits.cpu` and `limits.host_calls` begin
 * anew with each. */
CASTLING_IMPORT(call_read)
int32_t castling_call_read(uint32_t call, void *out, uint32_t cap);

/* gives the call up, or what is left of its response. 0, or a bad argument where there is none. */
CASTLING_IMPORT(call_close)
int32_t castling_call_close(uint32_t call);

/* why the last of these calls has failed, as text. */
CASTLING_IMPORT(call_failure)
int32_t castling_call_failure(void *out, uint32_t cap);

/* the kind of that failure, a [`ErrorKind`]. */
CASTLING_IMPORT(call_failure_kind)
int32_t castling_call_failure_kind(void);

/* 0 after the time, or a status. At most [`LONGEST_DELAY_MS`]. */
CASTLING_IMPORT(delay)
int32_t castling_delay(uint32_t milliseconds);

/* the count of this key in its window after adding, or a status. The window begins with the first addition after
 * the last one ended. */
CASTLING_IMPORT(counter_add)
int64_t castling_counter_add(const void *zone_ptr, uint32_t zone_len, const void *key_ptr, uint32_t key_len, int64_t amount, int64_t window_ms);

/* the count, 0 when there is none, or a status. */
CASTLING_IMPORT(counter_get)
int64_t castling_counter_get(const void *zone_ptr, uint32_t zone_len, const void *key_ptr, uint32_t key_len);

/* the generic cell rate algorithm (GCRA): one cell each `interval_ns`, up to `burst` at once. 0 or more: taken,
 * that many nanoseconds until the bucket is empty again. Negative and not a status (below -1000): refused, `-(n +
 * 1000)` where n is the nanoseconds until one more would be taken. */
CASTLING_IMPORT(rate_take)
int64_t castling_rate_take(const void *zone_ptr, uint32_t zone_len, const void *key_ptr, uint32_t key_len, int64_t interval_ns, int64_t burst);

/* whether the plugin is granted the thing of this name, a [`Grant`]: 0, [`Status::NotGranted`] or
 * [`Status::WrongKind`]. In every hook and in `castling_configure`. */
CASTLING_IMPORT(grant_check)
int32_t castling_grant_check(uint32_t grant, const void *name_ptr, uint32_t name_len);

/* has the request go to the upstream of this name, which must be granted, in the place of the route's own; no
 * name: to the route's own again. Until it goes, so not in `request_body`, `balance` and what comes after them. 0
 * or a status. */
CASTLING_IMPORT(upstream_set)
int32_t castling_upstream_set(const void *ptr, uint32_t len);

/* the thing of this name, a [`Grant`], which the plugin's config names. A module that imports this is granted the
 * upstreams and zones that texts of its config are the names of, as far as the config's `grants` do not list what
 * it is granted. 0, or [`Status::NotGranted`] or [`Status::WrongKind`]; in `castling_configure` only
 * ([`Status::NotNow`]). */
CASTLING_IMPORT(config_grant)
int32_t castling_config_grant(uint32_t grant, const void *name_ptr, uint32_t name_len);

/* [`PeerRecord`]s of the upstream, in `balance`. */
CASTLING_IMPORT(peers_get)
int32_t castling_peers_get(void *out, uint32_t cap);

/* up to two [`DrawnPeer`]s in `balance`, drawn at random by weight among the peers that may be chosen; those that
 * were tried, that are full and, while there are others, that failed lately are not drawn. */
CASTLING_IMPORT(peers_draw)
int32_t castling_peers_draw(void *out, uint32_t cap);

/* address and port of a peer, in `balance` and `peer_done`. */
CASTLING_IMPORT(peer_address)
int32_t castling_peer_address(uint32_t index, void *out, uint32_t cap);

/* the name by which a peer is listed, host and port, in `balance` and `peer_done`: that of all addresses that it
 * has. */
CASTLING_IMPORT(peer_name)
int32_t castling_peer_name(uint32_t index, void *out, uint32_t cap);

/* the tags that a peer is listed with ([`metric::texts`]), in `balance` and `peer_done`. */
CASTLING_IMPORT(peer_tags)
int32_t castling_peer_tags(uint32_t index, void *out, uint32_t cap);

/* the key's value; not found when it has none or it has expired. Here and below: keys have 1 to
 * [`kv::MAX_KEY_BYTES`] bytes, others are a bad argument. */
CASTLING_IMPORT(kv_get)
int32_t castling_kv_get(const void *zone_ptr, uint32_t zone_len, const void *key_ptr, uint32_t key_len, void *out, uint32_t cap);

/* stores a value that expires after `ttl_ms` (0: never), if what is there is as expected ([`KvExpected`]; the
 * bytes count for its `Value` only): 1 when it is stored, 0 when something else was there, or a status:
 * [`Status::Limit`] for a value longer than 1/16 of the zone or 1 MiB, [`Status::Full`] when there is no room. */
CASTLING_IMPORT(kv_put)
int32_t castling_kv_put(const void *zone_ptr, uint32_t zone_len, const void *key_ptr, uint32_t key_len, const void *ptr, uint32_t len, int64_t ttl_ms, uint32_t expected, const void *expected_ptr, uint32_t expected_len);

/* deletes a key, if what is there is as expected: 1 when it was there and is gone, 0 when it was not or is
 * something else, or a status. Never [`Status::Full`]. */
CASTLING_IMPORT(kv_delete)
int32_t castling_kv_delete(const void *zone_ptr, uint32_t zone_len, const void *key_ptr, uint32_t key_len, uint32_t expected, const void *expected_ptr, uint32_t expected_len);

/* keys that begin with the prefix and come after `after` (from the first, when it is empty), in the order of
 * their bytes: [`kv`] records, of which the first is no key of the list but where to go on, as the next call's
 * `after`; it is empty when that was all. `limit` is 1 to [`kv::MAX_LIST_KEYS`]. A call looks at so many entries,
 * expired ones too, that its list may be short, or empty, and yet not the last. */
CASTLING_IMPORT(kv_list)
int32_t castling_kv_list(const void *zone_ptr, uint32_t zone_len, const void *prefix_ptr, uint32_t prefix_len, const void *after_ptr, uint32_t after_len, uint32_t limit, void *out, uint32_t cap);

/* as `kv_get`, and where the value is handed out, the time that it has left, at `ttl_out`: an `i64` of
 * milliseconds, little-endian, rounded up; 0: it never expires. */
CASTLING_IMPORT(kv_get_with_ttl)
int32_t castling_kv_get_with_ttl(const void *zone_ptr, uint32_t zone_len, const void *key_ptr, uint32_t key_len, void *out, uint32_t cap, void *ttl_out);

/* adds to a number, and puts the new one at `out`: [`kv::NUMBER_BYTES`], as the value itself. A key that has no
 * value begins at 0 and expires after `ttl_ms` (0: never); one that has keeps the time that it expires at. 0 or a
 * status, with which nothing has changed: [`Status::BadArgument`] for a value of another length,
 * [`Status::Limit`] for a sum that is no `i64`, [`Status::Full`] when there is no room for a new key. */
CASTLING_IMPORT(kv_increment)
int32_t castling_kv_increment(const void *zone_ptr, uint32_t zone_len, const void *key_ptr, uint32_t key_len, int64_t by, int64_t ttl_ms, void *out);

/* values of several keys as they are at one moment, in the order of the keys: both [`kv`] records. Here and
 * below: [`Status::Limit`] for more than [`kv::MAX_KEYS_AT_ONCE`] keys, a bad argument where one is not valid or
 * the bytes do not follow the layout. A limit, too, beyond [`kv::MAX_VALUES_BYTES`]. */
CASTLING_IMPORT(kv_get_all)
int32_t castling_kv_get_all(const void *zone_ptr, uint32_t zone_len, const void *keys_ptr, uint32_t keys_len, void *out, uint32_t cap);

/* stores several values (a [`header_list`] of keys and values) that expire after `ttl_ms` (0: never), all of them
 * or none; of a key that is there twice, the last. 0, or a status: [`Status::Limit`] also when the values
 * together are longer than one may be ([`KV_PUT`]), [`Status::Full`] when there is no room for all. */
CASTLING_IMPORT(kv_put_all)
int32_t castling_kv_put_all(const void *zone_ptr, uint32_t zone_len, const void *entries_ptr, uint32_t entries_len, int64_t ttl_ms);

/* deletes keys ([`kv`] records): how many were there, or a status, never [`Status::Full`]. All at one moment, but
 * where a zone is too full for that: one after the other then. */
CASTLING_IMPORT(kv_delete_all)
int32_t castling_kv_delete_all(const void *zone_ptr, uint32_t zone_len, const void *keys_ptr, uint32_t keys_len);

/* waits until the key has a value ([`FLIGHT_VALUE`]), until it has none and no other request of the gateway
 * fetches it, so that this one does ([`FLIGHT_FETCH`]), or so long ([`FLIGHT_TIMED_OUT`]), at most
 * [`LONGEST_DELAY_MS`]. Or a status: [`Status::Limit`] beyond `limits.permits`, [`Status::NotNow`] without a
 * request. Who fetches, does until `kv_flight_end`, until a hook of the plugin fails, or until the request has
 * ended, however it does; then one of those who wait does, unless the key has a value. */
CASTLING_IMPORT(kv_flight)
int32_t castling_kv_flight(const void *zone_ptr, uint32_t zone_len, const void *key_ptr, uint32_t key_len, uint32_t wait_ms);

/* the plugin fetches the key's value no more: it has put it there, or gives up. 1, 0 when it did not, or a
 * status. */
CASTLING_IMPORT(kv_flight_end)
int32_t castling_kv_flight_end(const void *zone_ptr, uint32_t zone_len, const void *key_ptr, uint32_t key_len);

/* a message of up to [`MAX_MESSAGE_BYTES`] to every plugin that is granted the topic and has a `message` hook, in
 * every worker; 0 or a status: [`Status::Limit`] for one that is longer. */
CASTLING_IMPORT(topic_publish)
int32_t castling_topic_publish(const void *zone_ptr, uint32_t zone_len, const void *ptr, uint32_t len);

/* the name of the topic that `message` was called for. */
CASTLING_IMPORT(topic_name)
int32_t castling_topic_name(uint32_t topic, void *out, uint32_t cap);

/* the message that `message` was called for. */
CASTLING_IMPORT(message_get)
int32_t castling_message_get(void *out, uint32_t cap);

/* takes a permit of the key, of which the gateway's requests may hold `max`, 1 or more, at a time: 1 when the
 * request holds it now, 0 when so many are held, or a status: [`Status::BadArgument`] for a key of more than 4096
 * bytes, and where the plugin holds one of this key for the request; [`Status::Limit`] beyond `limits.permits`,
 * [`Status::Full`] when the zone has no room for the key, [`Status::NotNow`] without a request. It is held until
 * the request has ended, however it does. */
CASTLING_IMPORT(gauge_enter)
int32_t castling_gauge_enter(const void *zone_ptr, uint32_t zone_len, const void *key_ptr, uint32_t key_len, uint32_t max);

/* gives the key's permit back that the plugin holds for the request: 1, 0 when it holds none, or a status. In any
 * of its hooks and instances. */
CASTLING_IMPORT(gauge_leave)
int32_t castling_gauge_leave(const void *zone_ptr, uint32_t zone_len, const void *key_ptr, uint32_t key_len);

/* permits of the key that are held now, or a status. */
CASTLING_IMPORT(gauge_count)
int64_t castling_gauge_count(const void *zone_ptr, uint32_t zone_len, const void *key_ptr, uint32_t key_len);

/* a [`metric::Definition`]; the metric's number in this instance, or a status. In `castling_configure` only
 * ([`Status::NotNow`]). The same definition again has the same number; [`Status::BadArgument`] when it differs
 * from one of that name, or is not valid. */
CASTLING_IMPORT(metric_define)
int32_t castling_metric_define(const void *ptr, uint32_t len);

/* label values ([`metric::texts`], as many as the metric has labels): the number of their series in this
 * instance, or a status. It is good for as long as the instance. Beyond `limits.metric_series` it is the series
 * whose values are all `other`. */
CASTLING_IMPORT(metric_series)
int32_t castling_metric_series(uint32_t metric, const void *ptr, uint32_t len);

/* counters (not negative) and gauges; 0 or a status. The value must be finite. */
CASTLING_IMPORT(metric_add)
int32_t castling_metric_add(uint32_t series, double value);

/* gauges; 0 or a status. */
CASTLING_IMPORT(metric_set)
int32_t castling_metric_set(uint32_t series, double value);

/* histograms; 0 or a status. */
CASTLING_IMPORT(metric_observe)
int32_t castling_metric_observe(uint32_t series, double value);

/* the number of the file that the config grants by this name, good for as long as the instance and in all
 * instances of the plugin; [`Status::NotGranted`]. Here and below: in every hook and in `castling_configure`. */
CASTLING_IMPORT(file_open)
int32_t castling_file_open(const void *name_ptr, uint32_t name_len);

/* a [`FileFact`], or a status. What one hook is told and reads of a file is all of one version, that which there
 * was at its first call. */
CASTLING_IMPORT(file_fact)
int64_t castling_file_fact(uint32_t file, uint32_t fact);

/* bytes of the file from `offset` on: how many, fewer than `cap` at its end only. */
CASTLING_IMPORT(file_read)
int32_t castling_file_read(uint32_t file, int64_t offset, void *out, uint32_t cap);

/* a [`Digest`]. Here and below: in every hook and in `castling_configure`, unless it says otherwise; a bad
 * argument for an algorithm that there is none of. */
CASTLING_IMPORT(digest)
int32_t castling_digest(uint32_t algorithm, const void *ptr, uint32_t len, void *out, uint32_t cap);

/* HMAC (RFC 2104) by this [`Digest`]. */
CASTLING_IMPORT(hmac)
int32_t castling_hmac(uint32_t algorithm, const void *key_ptr, uint32_t key_len, const void *ptr, uint32_t len, void *out, uint32_t cap);

/* encrypts by AES-GCM with a random nonce: its 12 bytes, the ciphertext, the tag of 16 bytes. A key of 16 or 32
 * bytes says which AES; another one is a bad argument. */
CASTLING_IMPORT(seal)
int32_t castling_seal(const void *key_ptr, uint32_t key_len, const void *aad_ptr, uint32_t aad_len, const void *ptr, uint32_t len, void *out, uint32_t cap);

/* decrypts what `seal` has made; [`Status::NotFound`] where it was not made by this key with these associated
 * data. */
CASTLING_IMPORT(unseal)
int32_t castling_unseal(const void *key_ptr, uint32_t key_len, const void *aad_ptr, uint32_t aad_len, const void *ptr, uint32_t len, void *out, uint32_t cap);

/* a [`Signature`] of a message by a public key, the DER of a SubjectPublicKeyInfo or the bare key: 1 where it is
 * the key's, 0 where it is not, a bad argument for what is no key. */
CASTLING_IMPORT(signature_verify)
int32_t castling_signature_verify(uint32_t algorithm, const void *key_ptr, uint32_t key_len, const void *ptr, uint32_t len, const void *signature_ptr, uint32_t signature_len);

/* hashes a password of up to 1024 bytes by a [`PasswordHash`] with a random salt: text of up to 256 bytes, for
 * which there must be room. Waits, and counts as a call out: in hooks that may send one. [`Status::Limit`] for a
 * longer password and beyond `limits.calls`, [`Status::Full`] where too many wait. */
CASTLING_IMPORT(password_hash)
int32_t castling_password_hash(uint32_t algorithm, const void *ptr, uint32_t len, void *out, uint32_t cap);

/* 1 where the hash, a text as `password_hash` makes it, is the password's, 0 where it is not. Waits as that does,
 * with the same statuses; [`Status::Limit`] also for a hash that costs more than the gateway allows, a bad
 * argument for what is no hash. */
CASTLING_IMPORT(password_verify)
int32_t castling_password_verify(const void *hash_ptr, uint32_t hash_len, const void *ptr, uint32_t len);

/* connects to a peer of a granted upstream, by TLS where the upstream has it: the connection's number for the
 * other calls, good until the request ends. Here and below: waits, for the time at most, which is 60 s for 0 and
 * beyond that; in hooks that may send calls. [`Status::NotFound`] where it fails, and `tcp_error` says why. It
 * counts as a call out ([`Status::Limit`]); [`Status::Full`] where the request has [`MOST_CONNECTIONS`] open. */
CASTLING_IMPORT(tcp_connect)
int32_t castling_tcp_connect(const void *upstream_ptr, uint32_t upstream_len, uint32_t milliseconds);

/* bytes that the peer has sent, one at least; 0 at its end. */
CASTLING_IMPORT(tcp_read)
int32_t castling_tcp_read(uint32_t connection, void *out, uint32_t cap, uint32_t milliseconds);

/* writes all of it, `limits.body` at most; 0 or a status. */
CASTLING_IMPORT(tcp_write)
int32_t castling_tcp_write(uint32_t connection, const void *ptr, uint32_t len, uint32_t milliseconds);

/* 0, or a bad argument where it is closed already. */
CASTLING_IMPORT(tcp_close)
int32_t castling_tcp_close(uint32_t connection);

/* why the last of these calls has failed, as text. */
CASTLING_IMPORT(tcp_error)
int32_t castling_tcp_error(void *out, uint32_t cap);

#endif
