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
    /// Latency of the last check, and above it whether it has passed.
    pub last_check: AtomicU64,
    /// Failures in a row, and above them times ejected.
    pub failures: AtomicU64,
    /// End of the ejection; 0: not ejected.
    pub ejected_until_ns: AtomicU64,
    /// End of the last ejection.
    pub last_ejected_ns: AtomicU64,
    /// Successes of the interval, and above them failures.
    pub outcomes: AtomicU64,
    /// Moving average of the latency: a 32-bit float of seconds, and above it when it was noted.
    pub latency: AtomicU64,
    /// Time at which the peer came up, or came back.
    pub up_since_ns: AtomicU64,
    /// Changes of an upstream's peers: which of them may be chosen, and their weights.
    pub epoch: AtomicU64,
    /// Time when the last check was over.
    pub last_check_ns: AtomicU64,
    /// Values that an upstream's limiter has learnt: the limit and the calm latency, as 32-bit floats.
    pub learnt: AtomicU64,
    spare: [AtomicU64; 2],
}

const _: () = assert!(size_of::<PeerRecord>() == 2 * 64);

impl PeerRecord {
    /// Record of nobody, for a cell that has no memory.
    pub const fn new() -> Self {
        Self {
            operator: AtomicU64::new(0),
            check: AtomicU64::new(0),
            check_since_ns: AtomicU64::new(0),
            next_check_ns: AtomicU64::new(0),
            last_check: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            ejected_until_ns: AtomicU64::new(0),
            last_ejected_ns: AtomicU64::new(0),
            outcomes: AtomicU64::new(0),
            latency: AtomicU64::new(0),
            up_since_ns: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            last_check_ns: AtomicU64::new(0),
            learnt: AtomicU64::new(0),
            spare: [const { AtomicU64::new(0) }; 2],
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
            last_ejected_ns,
            outcomes,
            latency,
            up_since_ns,
            epoch,
            last_check_ns,
            learnt,
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
            last_ejected_ns,
            outcomes,
            latency,
            up_since_ns,
            epoch,
            last_check_ns,
            learnt,
        ] {
            word.store(0, Relaxed);
        }
    }
}
