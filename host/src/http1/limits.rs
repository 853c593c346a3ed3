//! Bounds of what surrounds a message's head and body.

/// Skipped before a start line; more are not an accident.
pub(super) const MAX_EMPTY_LINES: u32 = 4;

/// In one body; a flood of small chunks with large extensions ends here.
pub(super) const MAX_EXTENSION_BYTES: usize = 16 * 1024;

/// Fields in one trailer section.
pub(super) const MAX_TRAILERS: usize = 32;

/// Bytes of a trailer section, its blank line included.
pub(super) const MAX_TRAILER_BYTES: usize = 8 * 1024;
