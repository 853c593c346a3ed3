//! When much memory has been freed, so that the allocator may be asked to give it back to the kernel.
//!
//! What a burst of requests or connections has used lies between what still lives; by itself the allocator keeps
//! it for good (measured: 8 of 10 KiB a connection, `docs/MEMORY.md`).

use std::cell::Cell;
use std::time::Duration;

use tokio::sync::Notify;

/// What connections and requests use, roughly, and the most that it was.
#[derive(Default)]
pub struct Ebb {
    used_bytes: Cell<usize>,
    peak_bytes: Cell<usize>,
    low: Notify,
}

/// Less than this is not worth a look.
const FALL_BYTES: usize = 8 * 1024 * 1024;

/// What was freed just now may be wanted again just now; and no more often than this.
const REST: Duration = Duration::from_secs(2);

impl Ebb {
    /// So much more is used.
    pub fn take(&self, bytes: usize) {
        let used = self.used_bytes.get() + bytes;
        self.used_bytes.set(used);
        if used > self.peak_bytes.get() {
            self.peak_bytes.set(used);
        }
    }

    /// So much of what was taken is free again.
    pub fn give(&self, bytes: usize) {
        self.used_bytes.set(self.used_bytes.get() - bytes);
        if self.has_fallen() {
            self.low.notify_one();
        }
    }

    /// Resolves when use has fallen far below its peak and is still there after a rest. The peak begins anew.
    pub async fn low(&self) {
        loop {
            self.low.notified().await;
            tokio::time::sleep(REST).await;
            if self.has_fallen() {
                self.begin_anew();
                return;
            }
        }
    }

    fn begin_anew(&self) {
        self.peak_bytes.set(self.used_bytes.get());
    }

    fn has_fallen(&self) -> bool {
        self.peak_bytes.get() - self.used_bytes.get() >= FALL_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_deep_fall_is_an_ebb() {
        let ebb = Ebb::default();
        ebb.take(3 * FALL_BYTES);
        ebb.give(FALL_BYTES - 1);
        assert!(!ebb.has_fallen());
        ebb.give(1);
        assert!(ebb.has_fallen());
        ebb.take(1);
        assert!(!ebb.has_fallen());
        ebb.give(1);
        ebb.begin_anew();
        assert!(!ebb.has_fallen());
        ebb.give(FALL_BYTES);
        assert!(ebb.has_fallen());
    }
}
