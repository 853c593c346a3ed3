//! A peer's or an upstream's record: the words, whose meaning is `upstream/state`'s.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// State that all processes share of one peer, or of one upstream. All words are 0 at first; times are [`crate::zone::now_ns`].
#[repr(C)]
#[derive(Debug)]
pub struct PeerRecord {
    /// Order of the operator: flags, and above them a weight.
    pub operator: AtomicU64,
    /// Result of the active checks: state, passes or fails in a row.
    pub check: AtomicU64,
    /// Time of the last change of that state.
    pub check_since_ns: AtomicU64,
    /// Time at which the next check is due.
    pub next_check_ns: AtomicU64,
    /// Latency of the last check, and why it failed.
    pub last_check: AtomicU64,
    /// Failures in a row, and above them times ejected.
    pub failures: AtomicU64,
    /// End of the ejection; 0: not ejected.
    pub ejected_until_ns: AtomicU64,
    /// Beginning of the interval that successes and failures are counted in.
    pub interval_ns: AtomicU64,
    /// Successes of the interval, and above them failures.
    pub outcomes: AtomicU64,
    /// Moving average of the latency: a 32-bit float of seconds, and above it when it was noted.
    pub latency: AtomicU64,
    /// Time at which the peer came up, or came back.
    pub up_since_ns: AtomicU64,
    /// Changes of an upstream's peers: which of them may be chosen, and their weights.
    pub epoch: AtomicU64,
    spare: [AtomicU64; 4],
}

const _: () = assert!(size_of::<PeerRecord>() == 2 * 64);

impl PeerRecord {
    /// Record of nobody, for a cell that has no memory.
    pub const fn new() -> Self {
        const ZERO: AtomicU64 = AtomicU64::new(0);
        Self {
            operator: ZERO,
            check: ZERO,
            check_since_ns: ZERO,
            next_check_ns: ZERO,
            last_check: ZERO,
            failures: ZERO,
            ejected_until_ns: ZERO,
            interval_ns: ZERO,
            outcomes: ZERO,
            latency: ZERO,
            up_since_ns: ZERO,
            epoch: ZERO,
            spare: [ZERO; 4],
        }
    }

    pub(super) fn clear(&self) {
        let Self {
            operator,
            check,
            check_since_ns,
            next_check_ns,
            last_check,
            failures,
            ejected_until_ns,
            interval_ns,
            outcomes,
            latency,
            up_since_ns,
            epoch,
            spare: _,
        } = self;
        for word in [
            operator,
            check,
            check_since_ns,
            next_check_ns,
            last_check,
            failures,
            ejected_until_ns,
            interval_ns,
            outcomes,
            latency,
            up_since_ns,
            epoch,
        ] {
            word.store(0, Relaxed);
        }
    }
}
