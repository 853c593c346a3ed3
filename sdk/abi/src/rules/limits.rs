//! Defaults of a plugin's `limits`, as far as a host call can reach them; and bounds of calls that no config moves.

/// `limits.body`: a body that a plugin answers, reads, sends or puts in the place of a chunk, bytes.
pub const BODY_BYTES: usize = 1 << 20;

/// `limits.calls`: calls out of one request.
pub const CALLS: u32 = 32;

/// `limits.host_calls`: host calls of one call of a hook.
pub const HOST_CALLS: u32 = 100_000;

/// `limits.headers`: fields that a plugin may add to one head, less those it has taken away.
pub const HEADERS: usize = 128;

/// `limits.header_bytes`: bytes of their names and values; no path, query or host that it sets is longer either.
pub const HEADER_BYTES: usize = 64 << 10;

/// `limits.variables`: variables that a plugin may set in one request.
pub const VARIABLES: usize = 64;

/// `limits.variable_bytes`: bytes of their names and values.
pub const VARIABLE_BYTES: usize = 64 << 10;

/// Variables that the plugins of one route may compute, and so one plugin.
pub const COMPUTED_VARIABLES: usize = 64;

/// `limits.state`: state that a plugin may keep for a request between hooks, bytes.
pub const STATE_BYTES: usize = 64 << 10;

/// `limits.permits`: permits of gauge zones and flights that a plugin may hold for one request.
pub const PERMITS: usize = 16;

/// `limits.emit`: bytes that one call of a hook on a body may send on before it returns.
pub const EMIT_BYTES: usize = 128 << 20;

/// Longest key of a counter or gauge zone, bytes.
pub const ZONE_KEY_BYTES: usize = 4096;

/// Most random bytes of one call. The kernel gives so many in one piece.
pub const RANDOM_BYTES: u32 = 256;

/// Bytes that one read of a connection brings, at most.
pub const TCP_READ_BYTES: usize = 64 << 10;
