//! When much memory has been freed, so that the allocator may be asked to give it back to the kernel.
//!
//! What a burst of requests or connections has used lies between what still lives; by itself the allocator keeps
//! it for good (measured: 8 of 10 KiB a connection, `docs/MEMORY.md`).

use std::cell::Cell;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// What connections and requests use, roughly, and the most that it was.
#[derive(Default)]
pub struct Ebb {
    used_bytes: Cell<usize>,
    peak_bytes: Cell<usize>,
    low: Notify,
    /// Of a fall that is not judged yet.
    rest_ends: Cell<Option<Instant>>,
}

/// A desk with its buffers and its exchange (`docs/MEMORY.md`).
const DESK_BYTES: usize = 16 * 1024;

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

    /// A desk is used until what this returns is dropped.
    pub fn at_a_desk(&self) -> AtADesk<'_> {
        self.take(DESK_BYTES);
        AtADesk(self)
    }

    /// Resolves when use has fallen far below its peak and is still there after a rest. The peak begins anew.
    /// Who cancels it and asks again goes on with the same rest.
    pub async fn low(&self) {
        loop {
            if self.rest_ends.get().is_none() {
                self.low.notified().await;
                self.rest_ends.set(Some(Instant::now() + REST));
            }
            if let Some(rest_ends) = self.rest_ends.get() {
                tokio::time::sleep_until(rest_ends).await;
            }
            self.rest_ends.set(None);
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

pub struct AtADesk<'a>(&'a Ebb);

impl Drop for AtADesk<'_> {
    fn drop(&mut self) {
        self.0.give(DESK_BYTES);
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

    #[tokio::test]
    async fn an_ebb_is_heard_of_though_each_wait_is_cut_short() {
        let ebb = Ebb::default();
        ebb.take(FALL_BYTES);
        ebb.give(FALL_BYTES);
        let mut cut = 0;
        let short = REST / 20;
        while tokio::time::timeout(short, ebb.low()).await.is_err() {
            cut += 1;
            assert!(cut < 400, "never heard of");
        }
        assert!(cut > 0 && !ebb.has_fallen());
    }
}
