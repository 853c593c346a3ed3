//! The host's functions, of which a hook may call the plugin's `limits.host_calls`; one more traps the guest. Name,
//! parameters and what they do. A `ptr, len` pair names bytes of the guest; `out, cap` is
//! room for the result, as the crate's documentation says. All return `i32` unless another type stands there.

/// `log(level, ptr, len)`: a line of the plugin in the gateway's log. [`crate::LogLevel`]. Returns nothing.
pub const LOG: &str = "log";
/// `log_fields(level, ptr, len, fields_ptr, fields_len)`: the same with fields, a [`crate::header_list`] of names and values, which
/// are fields of the line where the log is JSON. Names are `[A-Za-z0-9_.-]`, 1 to 64 bytes; beyond 4096 bytes of all fields the
/// rest is left out. Returns nothing.
pub const LOG_FIELDS: &str = "log_fields";
/// `fail(ptr, len)`: the text of the error that the hook is about to return. Returns nothing.
pub const FAIL: &str = "fail";
/// `fail_with(kind, ptr, len)`: the same with the error's [`crate::ErrorKind`], which decides the status that the client gets; one that
/// the host does not know counts as the plugin's own, as with `fail`. Returns nothing.
pub const FAIL_WITH: &str = "fail_with";
/// `panicked(ptr, len)`: message and place of the panic that is about to trap. Returns nothing.
pub const PANICKED: &str = "panicked";
/// `config_get(out, cap)`: the plugin's config as JSON.
pub const CONFIG_GET: &str = "config_get";
/// `random_get(ptr, len)`: fills the bytes from the system's secure random source. Returns nothing.
pub const RANDOM_GET: &str = "random_get";
/// `clock_monotonic() -> i64`: nanoseconds since some moment, never backwards.
pub const CLOCK_MONOTONIC: &str = "clock_monotonic";
/// `clock_wall() -> i64`: nanoseconds since 1970-01-01 UTC.
pub const CLOCK_WALL: &str = "clock_wall";
/// `property_get(property, out, cap)`: a [`crate::Property`].
pub const PROPERTY_GET: &str = "property_get";
/// `property_set(property, ptr, len)`: 0 or a status.
pub const PROPERTY_SET: &str = "property_set";
/// `number_get(number) -> i64`: a [`crate::Number`], or a status.
pub const NUMBER_GET: &str = "number_get";
/// `tls_get(fact, out, cap)`: a [`crate::TlsFact`].
pub const TLS_GET: &str = "tls_get";
/// `header_get(map, name_ptr, name_len, out, cap)`: the first value of that name.
pub const HEADER_GET: &str = "header_get";
/// `headers_get(map, name_ptr, name_len, out, cap)`: a [`crate::header_list`] of all values of that name, or of
/// every header when the name is empty.
pub const HEADERS_GET: &str = "headers_get";
/// `header_set(map, name_ptr, name_len, ptr, len)`: this value in the place of all of that name; 0 or a status.
pub const HEADER_SET: &str = "header_set";
/// `header_add(map, name_ptr, name_len, ptr, len)`: one more value; 0 or a status.
pub const HEADER_ADD: &str = "header_add";
/// `header_remove(map, name_ptr, name_len)`: how many were removed, or a status.
pub const HEADER_REMOVE: &str = "header_remove";
/// `status_get()`: the response's status code, 100 to 999.
pub const STATUS_GET: &str = "status_get";
/// `status_set(code)`: 200 to 599; 0 or a status.
pub const STATUS_SET: &str = "status_set";
/// `var_get(name_ptr, name_len, out, cap)`: a variable that some plugin has set.
pub const VAR_GET: &str = "var_get";
/// `var_set(name_ptr, name_len, ptr, len)`: names are `[a-z0-9_]`, 1 to 64 bytes; 0 or a status.
pub const VAR_SET: &str = "var_set";
/// `state_get(out, cap)`: bytes that the plugin has kept for this request with `state_set`; not found before that, and after a hook
/// of the plugin has trapped. [`crate::Status::NotNow`] in `timer` and `castling_configure`, which have no request.
pub const STATE_GET: &str = "state_get";
/// `state_set(ptr, len)`: keeps bytes for the plugin's later hooks on this request, whichever instance runs them, in the place of
/// those before: up to `limits.state`. 0 or a status.
pub const STATE_SET: &str = "state_set";
/// `answer(status, headers_ptr, headers_len, ptr, len)`: the response that [`crate::Action::Answer`] sends: a
/// [`crate::header_list`] and a body; 0 or a status.
pub const ANSWER: &str = "answer";
/// `response_begin(status, headers_ptr, headers_len, length: i64)`: sends the head of a response whose body follows piece by piece,
/// a [`crate::header_list`], through the filters of heads. `length` is the body's in bytes, or -1 where it is not known. In
/// `content` only, and once; what was passed to `answer` before is given up. 0, [`crate::BODY_UNWANTED`] or a status. From then on
/// the hook must return [`crate::Action::Answer`]; whatever else it comes to cuts the response.
pub const RESPONSE_BEGIN: &str = "response_begin";
/// `response_write(ptr, len)`: the next piece of the body, through the filters of bodies; returns when it is sent. Pieces of up
/// to the plugin's `limits.body`. 0, [`crate::BODY_UNWANTED`] or a status: [`crate::Status::BadArgument`] for a piece that
/// goes beyond the length. The hook's `limits.cpu`, `limits.host_calls` and (but for a sub-request)
/// `limits.calls` begin anew with each piece that is sent.
pub const RESPONSE_WRITE: &str = "response_write";
/// `response_trailers(ptr, len)`: a [`crate::header_list`] of the fields that follow the body where the client's protocol has any;
/// in the place of those of an earlier call. After `response_begin`. 0 or a status.
pub const RESPONSE_TRAILERS: &str = "response_trailers";
/// `var_compute(name_ptr, name_len)`: has the variable computed by the plugin whose it is, and waits for that; 0,
/// or [`crate::Status::NotFound`] when it has no value. For after [`crate::Status::Uncomputed`]; not in
/// `request_body`, `balance` and `peer_done`.
pub const VAR_COMPUTE: &str = "var_compute";
/// `variable_declare(name_ptr, name_len)`: says that the plugin's `variable` hook computes this variable too, besides those of its
/// manifest. The index by which the hook is called for it, which is the next one; a bad argument where the name is none, the gateway's own, or
/// the plugin's already; [`crate::Status::Limit`] beyond [`crate::rules::limits::COMPUTED_VARIABLES`] of one plugin. In `castling_configure` only
/// ([`crate::Status::NotNow`]). A module that imports this may have a `variable` hook without naming variables in its manifest.
pub const VARIABLE_DECLARE: &str = "variable_declare";
/// `chunk_get(out, cap)`: the chunk that `request_body` or `response_body` was called for.
pub const CHUNK_GET: &str = "chunk_get";
/// `chunk_set(ptr, len)`: what goes on in its place; 0 or a status.
pub const CHUNK_SET: &str = "chunk_set";
/// `chunk_end()`: the body ends with this chunk; what would still come of it is not waited for. 0 or a status.
pub const CHUNK_END: &str = "chunk_end";
/// `chunk_emit(ptr, len)`: sends bytes on in the place of the chunk, before what `chunk_set` leaves of it when the hook returns; may be
/// called often. They go through the filters after this one, to the client or the peer, and this returns when there is room for them
/// there. Parts of up to the plugin's `limits.body`, and of one call of the hook together up to `limits.emit`. 0,
/// [`crate::BODY_UNWANTED`] or a status. `limits.cpu` and `limits.host_calls` begin anew with each part that is sent. In
/// `request_body` and `response_body`.
pub const CHUNK_EMIT: &str = "chunk_emit";
/// `body_skip()`: from `response_headers`, the plugin's `response_body` hook does not see this response's body, which goes on
/// with the length that it has. 0 or a status.
pub const BODY_SKIP: &str = "body_skip";
/// `body_read(map, limit)`: waits until the whole body is there; its length. [`crate::Status::Limit`] when it is
/// longer than `limit` bytes, which may be up to the plugin's `limits.body`; it then passes on all the same.
pub const BODY_READ: &str = "body_read";
/// `body_peek(bytes) -> i64`: waits until so many bytes of the request's body are there, or all of it, which can be read and passes on
/// afterwards as if nobody had looked. Twice the number of bytes that there are, which is no more than was asked for, and one more where
/// they are the whole body; or a status: [`crate::Status::Limit`] for more than the plugin's `limits.body`.
pub const BODY_PEEK: &str = "body_peek";
/// `body_get(map, out, cap)`: the body that `body_read` has read, or the part of the request's that `body_peek` has seen if that was
/// called later; not found before.
pub const BODY_GET: &str = "body_get";
/// `calls_send(ptr, len)`: [`crate::call`] records; waits for all their responses and returns how many there are,
/// or a status when none was sent. The results of the `calls_send` before are gone.
pub const CALLS_SEND: &str = "calls_send";
/// `call_status(index)`: the response's status code; [`crate::Status::NotFound`] when the call failed, and
/// `call_error` says why.
pub const CALL_STATUS: &str = "call_status";
/// `call_error(index, out, cap)`: why a call failed, as text.
pub const CALL_ERROR: &str = "call_error";
/// `call_error_kind(index)`: the kind of that failure, a [`crate::ErrorKind`]; not found when the call has a response.
pub const CALL_ERROR_KIND: &str = "call_error_kind";
/// `call_headers(index, out, cap)`: a [`crate::header_list`].
pub const CALL_HEADERS: &str = "call_headers";
/// `call_body(index, out, cap)`.
pub const CALL_BODY: &str = "call_body";
/// `call_open(ptr, len, length: i64)`: begins one call, a [`crate::call`] record, whose bodies stream. `length` bytes of the request's body
/// follow by `call_write`, -1 where that is not known; with 0 the record has all of it, else none. The call's number for the functions
/// below, good until the request ends. Each of their waits takes the record's time-out, which is 60 s for 0 and beyond that. It counts as a call
/// out ([`crate::Status::Limit`]); [`crate::Status::Full`] where the request has [`crate::MOST_STREAMED_CALLS`] open. In hooks that may send
/// calls, and not to the gateway's own routes. Here and below: [`crate::Status::NotFound`] where the call has failed, which ends it, and
/// `call_failure` says why; a bad argument for a number that is none, and for what is not its turn.
pub const CALL_OPEN: &str = "call_open";
/// `call_write(call, ptr, len)`: the next piece of the request's body, up to the plugin's `limits.body`; waits until there is room for it. 0,
/// [`crate::BODY_UNWANTED`] where the peer answers and takes no more, or a status. The hook's `limits.cpu` and `limits.host_calls`
/// begin anew with each piece that is sent.
pub const CALL_WRITE: &str = "call_write";
/// `call_finish(call)`: ends the request's body, and waits for the response's head: its status code, or a status.
pub const CALL_FINISH: &str = "call_finish";
/// `call_reply_headers(call, out, cap)`: a [`crate::header_list`] of the response that `call_finish` has returned last.
pub const CALL_REPLY_HEADERS: &str = "call_reply_headers";
/// `call_read(call, out, cap)`: waits for bytes of the response's body, one at least; 0 at its end. `limits.cpu` and `limits.host_calls` begin
/// anew with each.
pub const CALL_READ: &str = "call_read";
/// `call_close(call)`: gives the call up, or what is left of its response. 0, or a bad argument where there is none.
pub const CALL_CLOSE: &str = "call_close";
/// `call_failure(out, cap)`: why the last of these calls has failed, as text.
pub const CALL_FAILURE: &str = "call_failure";
/// `call_failure_kind()`: the kind of that failure, a [`crate::ErrorKind`].
pub const CALL_FAILURE_KIND: &str = "call_failure_kind";
/// `delay(milliseconds)`: 0 after the time, or a status. At most [`crate::LONGEST_DELAY_MS`].
pub const DELAY: &str = "delay";
/// `counter_add(zone_ptr, zone_len, key_ptr, key_len, amount: i64, window_ms: i64) -> i64`: the count of this key
/// in its window after adding, or a status. The window begins with the first addition after the last one ended.
pub const COUNTER_ADD: &str = "counter_add";
/// `counter_get(zone_ptr, zone_len, key_ptr, key_len) -> i64`: the count, 0 when there is none, or a status.
pub const COUNTER_GET: &str = "counter_get";
/// `rate_take(zone_ptr, zone_len, key_ptr, key_len, interval_ns: i64, burst: i64) -> i64`: the generic cell rate
/// algorithm (GCRA): one cell each `interval_ns`, up to `burst` at once. 0 or more: taken, that many nanoseconds
/// until the bucket is empty again. Negative and not a status (below -1000): refused, `-(n + 1000)` where n is
/// the nanoseconds until one more would be taken.
pub const RATE_TAKE: &str = "rate_take";
/// `grant_check(grant, name_ptr, name_len)`: whether the plugin is granted the thing of this name, a [`crate::Grant`]: 0,
/// [`crate::Status::NotGranted`] or [`crate::Status::WrongKind`]. In every hook and in `castling_configure`.
pub const GRANT_CHECK: &str = "grant_check";
/// `upstream_set(ptr, len)`: has the request go to the upstream of this name, which must be granted, in the place of the route's own; no
/// name: to the route's own again. Until it goes, so not in `request_body`, `balance` and what comes after them. 0 or a status.
pub const UPSTREAM_SET: &str = "upstream_set";
/// `config_grant(grant, name_ptr, name_len)`: the thing of this name, a [`crate::Grant`], which the plugin's config names. A module that
/// imports this is granted the upstreams and zones that texts of its config are the names of, as far as the config's `grants` do
/// not list what it is granted. 0, or [`crate::Status::NotGranted`] or [`crate::Status::WrongKind`]; in `castling_configure` only
/// ([`crate::Status::NotNow`]).
pub const CONFIG_GRANT: &str = "config_grant";
/// `peers_get(out, cap)`: [`crate::PeerRecord`]s of the upstream, in `balance`.
pub const PEERS_GET: &str = "peers_get";
/// `peers_draw(out, cap)`: up to two [`crate::DrawnPeer`]s in `balance`, drawn at random by weight among the peers that may be chosen;
/// those that were tried, that are full and, while there are others, that failed lately are not drawn.
pub const PEERS_DRAW: &str = "peers_draw";
/// `peer_address(index, out, cap)`: address and port of a peer, in `balance` and `peer_done`.
pub const PEER_ADDRESS: &str = "peer_address";
/// `peer_name(index, out, cap)`: the name by which a peer is listed, host and port, in `balance` and `peer_done`: that of all addresses
/// that it has.
pub const PEER_NAME: &str = "peer_name";
/// `peer_tags(index, out, cap)`: the tags that a peer is listed with ([`crate::metric::texts`]), in `balance` and `peer_done`.
pub const PEER_TAGS: &str = "peer_tags";
/// `kv_get(zone_ptr, zone_len, key_ptr, key_len, out, cap)`: the key's value; not found when it has none or it has
/// expired. Here and below: keys have 1 to [`crate::kv::MAX_KEY_BYTES`] bytes, others are a bad argument.
pub const KV_GET: &str = "kv_get";
/// `kv_put(zone_ptr, zone_len, key_ptr, key_len, ptr, len, ttl_ms: i64, expected, expected_ptr, expected_len)`:
/// stores a value that expires after `ttl_ms` (0: never), if what is there is as expected
/// ([`crate::KvExpected`]; the bytes count for its `Value` only): 1 when it is stored, 0 when something else was
/// there, or a status: [`crate::Status::Limit`] for a value longer than 1/16 of the zone or 1 MiB,
/// [`crate::Status::Full`] when there is no room.
pub const KV_PUT: &str = "kv_put";
/// `kv_delete(zone_ptr, zone_len, key_ptr, key_len, expected, expected_ptr, expected_len)`: deletes a key, if what
/// is there is as expected: 1 when it was there and is gone, 0 when it was not or is something else, or a status.
/// Never [`crate::Status::Full`].
pub const KV_DELETE: &str = "kv_delete";
/// `kv_list(zone_ptr, zone_len, prefix_ptr, prefix_len, after_ptr, after_len, limit, out, cap)`: keys that begin
/// with the prefix and come after `after` (from the first, when it is empty), in the order of their bytes:
/// [`crate::kv`] records, of which the first is no key of the list but where to go on, as the next call's `after`; it
/// is empty when that was all. `limit` is 1 to [`crate::kv::MAX_LIST_KEYS`]. A call looks at so many entries, expired
/// ones too, that its list may be short, or empty, and yet not the last.
pub const KV_LIST: &str = "kv_list";
/// `kv_get_with_ttl(zone_ptr, zone_len, key_ptr, key_len, out, cap, ttl_out)`: as `kv_get`, and where the value is handed out, the time
/// that it has left, at `ttl_out`: an `i64` of milliseconds, little-endian, rounded up; 0: it never expires.
pub const KV_GET_WITH_TTL: &str = "kv_get_with_ttl";
/// `kv_increment(zone_ptr, zone_len, key_ptr, key_len, by: i64, ttl_ms: i64, out)`: adds to a number, and puts the new one at `out`:
/// [`crate::kv::NUMBER_BYTES`], as the value itself. A key that has no value begins at 0 and expires after `ttl_ms` (0: never);
/// one that has keeps the time that it expires at. 0 or a status, with which nothing has changed: [`crate::Status::BadArgument`] for a value
/// of another length, [`crate::Status::Limit`] for a sum that is no `i64`, [`crate::Status::Full`] when there is no room for a
/// new key.
pub const KV_INCREMENT: &str = "kv_increment";
/// `kv_get_all(zone_ptr, zone_len, keys_ptr, keys_len, out, cap)`: values of several keys as they are at one moment, in the order of the
/// keys: both [`crate::kv`] records. Here and below: [`crate::Status::Limit`] for more than
/// [`crate::kv::MAX_KEYS_AT_ONCE`] keys, a bad argument where one is not valid or the bytes do not follow the layout. A limit, too, beyond
/// [`crate::kv::MAX_VALUES_BYTES`].
pub const KV_GET_ALL: &str = "kv_get_all";
/// `kv_put_all(zone_ptr, zone_len, entries_ptr, entries_len, ttl_ms: i64)`: stores several values (a [`crate::header_list`] of keys and
/// values) that expire after `ttl_ms` (0: never), all of them or none; of a key that is there twice, the last. 0, or a status:
/// [`crate::Status::Limit`] also when the values together are longer than one may be ([`KV_PUT`]), [`crate::Status::Full`] when there is
/// no room for all.
pub const KV_PUT_ALL: &str = "kv_put_all";
/// `kv_delete_all(zone_ptr, zone_len, keys_ptr, keys_len)`: deletes keys ([`crate::kv`] records): how many were there, or a status, never
/// [`crate::Status::Full`]. All at one moment, but where a zone is too full for that: one after the other then.
pub const KV_DELETE_ALL: &str = "kv_delete_all";
/// `kv_flight(zone_ptr, zone_len, key_ptr, key_len, wait_ms)`: waits until the key has a value ([`crate::FLIGHT_VALUE`]), until it
/// has none and no other request of the gateway fetches it, so that this one does ([`crate::FLIGHT_FETCH`]), or so long
/// ([`crate::FLIGHT_TIMED_OUT`]), at most [`crate::LONGEST_DELAY_MS`]. Or a status: [`crate::Status::Limit`] beyond `limits.permits`,
/// [`crate::Status::NotNow`] without a request. Who fetches, does until `kv_flight_end`, until a hook of the plugin fails, or until the request
/// has ended, however it does; then one of those who wait does, unless the key has a value.
pub const KV_FLIGHT: &str = "kv_flight";
/// `kv_flight_end(zone_ptr, zone_len, key_ptr, key_len)`: the plugin fetches the key's value no more: it has put it there, or gives up. 1,
/// 0 when it did not, or a status.
pub const KV_FLIGHT_END: &str = "kv_flight_end";
/// `topic_publish(zone_ptr, zone_len, ptr, len)`: a message of up to [`crate::MAX_MESSAGE_BYTES`] to every plugin that is granted the
/// topic and has a `message` hook, in every worker; 0 or a status: [`crate::Status::Limit`] for one that is longer.
pub const TOPIC_PUBLISH: &str = "topic_publish";
/// `topic_name(topic, out, cap)`: the name of the topic that `message` was called for.
pub const TOPIC_NAME: &str = "topic_name";
/// `message_get(out, cap)`: the message that `message` was called for.
pub const MESSAGE_GET: &str = "message_get";
/// `gauge_enter(zone_ptr, zone_len, key_ptr, key_len, max)`: takes a permit of the key, of which the gateway's requests may hold
/// `max`, 1 or more, at a time: 1 when the request holds it now, 0 when so many are held, or a status:
/// [`crate::Status::BadArgument`] for a key of more than 4096 bytes, and where the plugin holds one of this key for the request;
/// [`crate::Status::Limit`] beyond `limits.permits`, [`crate::Status::Full`] when the zone has no room for the key,
/// [`crate::Status::NotNow`] without a request. It is held until the request has ended, however it does.
pub const GAUGE_ENTER: &str = "gauge_enter";
/// `gauge_leave(zone_ptr, zone_len, key_ptr, key_len)`: gives the key's permit back that the plugin holds for the request: 1, 0 when it
/// holds none, or a status. In any of its hooks and instances.
pub const GAUGE_LEAVE: &str = "gauge_leave";
/// `gauge_count(zone_ptr, zone_len, key_ptr, key_len) -> i64`: permits of the key that are held now, or a status.
pub const GAUGE_COUNT: &str = "gauge_count";
/// `metric_define(ptr, len)`: a [`crate::metric::Definition`]; the metric's number in this instance, or a status. In
/// `castling_configure` only ([`crate::Status::NotNow`]). The same definition again has the same number;
/// [`crate::Status::BadArgument`] when it differs from one of that name, or is not valid.
pub const METRIC_DEFINE: &str = "metric_define";
/// `metric_series(metric, ptr, len)`: label values ([`crate::metric::texts`], as many as the metric has labels): the
/// number of their series in this instance, or a status. It is good for as long as the instance. Beyond
/// `limits.metric_series` it is the series whose values are all `other`.
pub const METRIC_SERIES: &str = "metric_series";
/// `metric_add(series, value: f64)`: counters (not negative) and gauges; 0 or a status. The value must be finite.
pub const METRIC_ADD: &str = "metric_add";
/// `metric_set(series, value: f64)`: gauges; 0 or a status.
pub const METRIC_SET: &str = "metric_set";
/// `metric_observe(series, value: f64)`: histograms; 0 or a status.
pub const METRIC_OBSERVE: &str = "metric_observe";
/// `file_open(name_ptr, name_len)`: the number of the file that the config grants by this name, good for as long as the instance and in all
/// instances of the plugin; [`crate::Status::NotGranted`]. Here and below: in every hook and in `castling_configure`.
pub const FILE_OPEN: &str = "file_open";
/// `file_fact(file, fact) -> i64`: a [`crate::FileFact`], or a status. What one hook is told and reads of a file is all of one version, that
/// which there was at its first call.
pub const FILE_FACT: &str = "file_fact";
/// `file_read(file, offset: i64, out, cap)`: bytes of the file from `offset` on: how many, fewer than `cap` at its end only.
pub const FILE_READ: &str = "file_read";
/// `digest(algorithm, ptr, len, out, cap)`: a [`crate::Digest`]. Here and below: in every hook and in `castling_configure`, unless it says
/// otherwise; a bad argument for an algorithm that there is none of.
pub const DIGEST: &str = "digest";
/// `hmac(algorithm, key_ptr, key_len, ptr, len, out, cap)`: HMAC (RFC 2104) by this [`crate::Digest`].
pub const HMAC: &str = "hmac";
/// `seal(key_ptr, key_len, aad_ptr, aad_len, ptr, len, out, cap)`: encrypts by AES-GCM with a random nonce: its 12 bytes, the ciphertext, the
/// tag of 16 bytes. A key of 16 or 32 bytes says which AES; another one is a bad argument.
pub const SEAL: &str = "seal";
/// `unseal(key_ptr, key_len, aad_ptr, aad_len, ptr, len, out, cap)`: decrypts what `seal` has made; [`crate::Status::NotFound`] where it was
/// not made by this key with these associated data.
pub const UNSEAL: &str = "unseal";
/// `signature_verify(algorithm, key_ptr, key_len, ptr, len, signature_ptr, signature_len)`: a [`crate::Signature`] of a message by a public key,
/// the DER of a SubjectPublicKeyInfo or the bare key: 1 where it is the key's, 0 where it is not, a bad argument for what is no key.
pub const SIGNATURE_VERIFY: &str = "signature_verify";
/// `password_hash(algorithm, ptr, len, out, cap)`: hashes a password of up to 1024 bytes by a [`crate::PasswordHash`] with a random salt: text of up
/// to 256 bytes, for which there must be room. Waits, and counts as a call out: in hooks that may send one. [`crate::Status::Limit`] for a
/// longer password and beyond `limits.calls`, [`crate::Status::Full`] where too many wait.
pub const PASSWORD_HASH: &str = "password_hash";
/// `password_verify(hash_ptr, hash_len, ptr, len)`: 1 where the hash, a text as `password_hash` makes it, is the password's, 0 where it is not.
/// Waits as that does, with the same statuses; [`crate::Status::Limit`] also for a hash that costs more than the gateway allows, a bad
/// argument for what is no hash.
pub const PASSWORD_VERIFY: &str = "password_verify";
/// `tcp_connect(upstream_ptr, upstream_len, milliseconds)`: connects to a peer of a granted upstream, by TLS where the upstream has it: the
/// connection's number for the other calls, good until the request ends. Here and below: waits, for the time at most, which is 60 s for 0 and
/// beyond that; in hooks that may send calls. [`crate::Status::NotFound`] where it fails, and `tcp_error` says why. It counts as a call out
/// ([`crate::Status::Limit`]); [`crate::Status::Full`] where the request has [`crate::MOST_CONNECTIONS`] open.
pub const TCP_CONNECT: &str = "tcp_connect";
/// `tcp_read(connection, out, cap, milliseconds)`: bytes that the peer has sent, one at least; 0 at its end.
pub const TCP_READ: &str = "tcp_read";
/// `tcp_write(connection, ptr, len, milliseconds)`: writes all of it, `limits.body` at most; 0 or a status.
pub const TCP_WRITE: &str = "tcp_write";
/// `tcp_close(connection)`: 0, or a bad argument where it is closed already.
pub const TCP_CLOSE: &str = "tcp_close";
/// `tcp_error(out, cap)`: why the last of these calls has failed, as text.
pub const TCP_ERROR: &str = "tcp_error";
