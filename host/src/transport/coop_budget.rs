//! How much a connection does in a row before others have their turn.

/// Bytes that were read or written in a row without a wait. tokio counts only calls that ask it to watch.
#[derive(Default)]
pub(super) struct CoopBudget(usize);

/// Bytes that one connection reads, or writes, before others have their turn: with hundreds of them that never have to wait,
/// a request of another waits some milliseconds.
pub(super) const TURN_BYTES: usize = 64 * 1024;

/// A call counts as so many bytes at least.
pub(super) const CALL_BYTES: usize = 1024;

impl CoopBudget {
    /// False, once, at the bound: other tasks must have their turn first.
    pub(super) fn goes_on(&mut self) -> bool {
        let goes_on = self.0 < TURN_BYTES;
        if !goes_on {
            self.0 = 0;
        }
        goes_on
    }

    /// Adds the bytes that a call has read or written.
    pub(super) fn add(&mut self, bytes: usize) {
        self.0 += bytes.max(CALL_BYTES);
    }

    /// Begins anew: there was a wait.
    pub(super) fn end(&mut self) {
        self.0 = 0;
    }
}
