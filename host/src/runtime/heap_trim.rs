//! When much memory has been freed, so that the allocator may be asked to give it back to the kernel.
//!
//! What a burst of requests or connections has used lies between what still lives; by itself the allocator keeps
//! it for good (measured: 8 of 10 KiB a connection, `docs/MEMORY.md`).

use std::cell::Cell;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// Estimate of the heap that connections and requests use, and the most that it was; tells when to trim the heap.
#[derive(Default)]
pub struct HeapTrim {
    used_bytes: Cell<usize>,
    peak_bytes: Cell<usize>,
    fallen: Notify,
    /// End of the settle time after a fall that is not judged yet.
    settle_ends: Cell<Option<Instant>>,
}

/// A workspace with its buffers and its exchange (`docs/MEMORY.md`).
const WORKSPACE_BYTES: usize = 16 * 1024;

/// Smallest fall that is worth a look.
const FALL_BYTES: usize = 8 * 1024 * 1024;

/// Time between a fall and its trim, and between two trims: memory that was freed just now may be wanted again just
/// now.
const SETTLE_TIME: Duration = Duration::from_secs(2);

impl HeapTrim {
    /// Adds to the estimate.
    pub fn add(&self, bytes: usize) {
        let used = self.used_bytes.get() + bytes;
        self.used_bytes.set(used);
        if used > self.peak_bytes.get() {
            self.peak_bytes.set(used);
        }
    }

    /// Subtracts from the estimate.
    pub fn sub(&self, bytes: usize) {
        self.used_bytes.set(self.used_bytes.get() - bytes);
        if self.has_fallen() {
            self.fallen.notify_one();
        }
    }

    /// A workspace is used until what this returns is dropped.
    pub fn count_workspace(&self) -> WorkspaceInUse<'_> {
        self.add(WORKSPACE_BYTES);
        WorkspaceInUse(self)
    }

    /// Resolves when use has fallen far below its peak and is still there after a rest. The peak begins anew.
    /// Who cancels it and asks again goes on with the same rest.
    pub async fn due(&self) {
        loop {
            if self.settle_ends.get().is_none() {
                self.fallen.notified().await;
                self.settle_ends.set(Some(Instant::now() + SETTLE_TIME));
            }
            if let Some(settle_ends) = self.settle_ends.get() {
                tokio::time::sleep_until(settle_ends).await;
            }
            self.settle_ends.set(None);
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

pub struct WorkspaceInUse<'a>(&'a HeapTrim);

impl Drop for WorkspaceInUse<'_> {
    fn drop(&mut self) {
        self.0.sub(WORKSPACE_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_deep_fall_is_an_ebb() {
        let heap_trim = HeapTrim::default();
        heap_trim.add(3 * FALL_BYTES);
        heap_trim.sub(FALL_BYTES - 1);
        assert!(!heap_trim.has_fallen());
        heap_trim.sub(1);
        assert!(heap_trim.has_fallen());
        heap_trim.add(1);
        assert!(!heap_trim.has_fallen());
        heap_trim.sub(1);
        heap_trim.begin_anew();
        assert!(!heap_trim.has_fallen());
        heap_trim.sub(FALL_BYTES);
        assert!(heap_trim.has_fallen());
    }

    #[tokio::test]
    async fn an_ebb_is_heard_of_though_each_wait_is_cut_short() {
        let heap_trim = HeapTrim::default();
        heap_trim.add(FALL_BYTES);
        heap_trim.sub(FALL_BYTES);
        let mut cut = 0;
        let short = SETTLE_TIME / 20;
        while tokio::time::timeout(short, heap_trim.due()).await.is_err() {
            cut += 1;
            assert!(cut < 400, "never heard of");
        }
        assert!(cut > 0 && !heap_trim.has_fallen());
    }
}
