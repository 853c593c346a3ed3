//! Idle connections to the peers of an upstream, newest first.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use super::connection::Connection;

pub(super) struct Pool {
    /// By peer; the newest last.
    idle: Box<[RefCell<Vec<Idle>>]>,
    count: Cell<usize>,
    max_idle: usize,
    idle_timeout: Duration,
}

struct Idle {
    connection: Box<Connection>,
    /// `None`: for ever.
    until: Option<Instant>,
}

/// How often kept connections are looked at.
pub(super) const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

impl Pool {
    pub(super) fn new(peers: usize, max_idle: usize, idle_timeout: Duration) -> Self {
        Self {
            idle: (0..peers).map(|_| RefCell::default()).collect(),
            count: Cell::new(0),
            max_idle,
            idle_timeout,
        }
    }

    /// The newest connection to this peer that is still good now; `surely` asks the kernel, for a request that cannot be
    /// sent again if it is not. The newest is the least likely to be closed under us,
    /// and the older ones can time out.
    pub(super) fn take(
        &self,
        peer_idx: usize,
        surely: bool,
        now: Instant,
    ) -> Option<Box<Connection>> {
        let mut idle = self.idle[peer_idx].borrow_mut();
        while let Some(kept) = idle.pop() {
            self.count.set(self.count.get() - 1);
            let reader = &kept.connection.reader;
            let good = if surely {
                reader.is_quiet_now()
            } else {
                reader.is_quiet()
            };
            if good && kept.is_fresh(now) {
                return Some(kept.connection);
            }
        }
        None
    }

    /// Keeps a connection, idle since then, for the next request. At the bound the peer's oldest goes, or this one if it
    /// has none.
    pub(super) fn put(&self, connection: Box<Connection>, since: Instant) {
        let mut idle = self.idle[connection.peer_idx].borrow_mut();
        if self.count.get() >= self.max_idle {
            if idle.is_empty() {
                return;
            }
            idle.remove(0);
            self.count.set(self.count.get() - 1);
        }
        self.count.set(self.count.get() + 1);
        idle.push(Idle {
            connection,
            until: since.checked_add(self.idle_timeout),
        });
    }

    pub(super) fn sweep(&self) {
        if self.count.get() == 0 {
            return;
        }
        let now = Instant::now();
        for idle in &self.idle {
            let mut idle = idle.borrow_mut();
            let before = idle.len();
            idle.retain(|kept| kept.is_fresh(now) && kept.connection.reader.is_quiet());
            self.count.set(self.count.get() - (before - idle.len()));
        }
    }
}

impl Idle {
    fn is_fresh(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}
