//! Idle connections to the peers of an upstream, newest first.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;

use super::connection::Connection;
use crate::balancer::Balancer;
use crate::metrics::Count;

pub(super) struct Pool {
    /// By peer.
    kept: Box<[Kept]>,
    count: Cell<usize>,
    max_idle: usize,
    idle_timeout: Duration,
    upstream: Arc<str>,
    balancer: Rc<Balancer>,
    /// Times that a peer has sent bytes that nobody had asked for.
    unasked: Count,
}

/// Idle connections of one peer, and whether there may be any.
#[derive(Default)]
struct Kept {
    /// Idle connections, the newest last.
    idle: RefCell<VecDeque<Idle>>,
    /// End of the time in which nothing is kept: the peer has sent bytes that nobody had asked for.
    banned_until: Cell<Option<Instant>>,
}

struct Idle {
    connection: Box<Connection>,
    /// `None`: for ever.
    until: Option<Instant>,
}

/// How often kept connections are looked at.
pub(super) const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Time for which no connection of a peer is kept that has sent bytes that nobody had asked for: they could be taken for
/// the next response.
const BAN: Duration = Duration::from_secs(600);

impl Pool {
    pub(super) fn new(
        upstream: &Arc<str>,
        balancer: &Rc<Balancer>,
        max_idle: usize,
        idle_timeout: Duration,
        unasked: Count,
    ) -> Self {
        Self {
            kept: balancer.peers().iter().map(|_| Kept::default()).collect(),
            count: Cell::new(0),
            max_idle,
            idle_timeout,
            upstream: Arc::clone(upstream),
            balancer: Rc::clone(balancer),
            unasked,
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
        loop {
            let kept = self.kept[peer_idx].idle.borrow_mut().pop_back()?;
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
            if !good && reader.has_bytes() {
                self.ban(peer_idx);
            }
        }
    }

    /// Keeps a connection, idle since then, for the next request. At the bound the peer's oldest goes, or this one if it
    /// has none.
    pub(super) fn put(&self, connection: Box<Connection>, since: Instant) {
        let kept = &self.kept[connection.peer_idx];
        if kept.banned_until.get().is_some() && kept.is_banned() {
            return;
        }
        let mut idle = kept.idle.borrow_mut();
        if self.count.get() >= self.max_idle {
            if idle.pop_front().is_none() {
                return;
            }
            self.count.set(self.count.get() - 1);
        }
        self.count.set(self.count.get() + 1);
        idle.push_back(Idle {
            connection,
            until: since.checked_add(self.idle_timeout),
        });
    }

    pub(super) fn sweep(&self) {
        if self.count.get() == 0 {
            return;
        }
        let now = Instant::now();
        for (peer_idx, kept) in self.kept.iter().enumerate() {
            let mut unasked = false;
            let mut idle = kept.idle.borrow_mut();
            let before = idle.len();
            idle.retain(|kept| {
                let reader = &kept.connection.reader;
                let is_quiet = reader.is_quiet();
                unasked |= !is_quiet && reader.has_bytes();
                is_quiet && kept.is_fresh(now)
            });
            self.count.set(self.count.get() - (before - idle.len()));
            drop(idle);
            if unasked {
                self.ban(peer_idx);
            }
        }
    }

    /// Keeps nothing of a peer for a while that has sent bytes that nobody had asked for: after the end of a response, or
    /// after one that has no body.
    #[cold]
    #[inline(never)]
    pub(super) fn ban(&self, peer_idx: usize) {
        let kept = &self.kept[peer_idx];
        self.unasked.inc();
        kept.banned_until.set(Some(Instant::now() + BAN));
        let dropped = std::mem::take(&mut *kept.idle.borrow_mut());
        self.count.set(self.count.get() - dropped.len());
        warn!(
            upstream = &*self.upstream,
            peer = &*self.balancer.peers()[peer_idx].label,
            "sent bytes that nobody had asked for: its connections are not used again for {BAN:?}"
        );
    }
}

impl Kept {
    #[cold]
    #[inline(never)]
    fn is_banned(&self) -> bool {
        let is_banned = self
            .banned_until
            .get()
            .is_some_and(|until| Instant::now() < until);
        if !is_banned {
            self.banned_until.set(None);
        }
        is_banned
    }
}

impl Idle {
    fn is_fresh(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}
