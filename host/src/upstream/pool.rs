//! Idle connections to a peer, newest first.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::warn;

use super::http::PeerStream;
use super::life::Life;
use crate::config;
use crate::metrics::{Count, Gauge, UpstreamMetrics};
use crate::runtime::clock;

/// Bounds of the idle connections of an upstream, which its peers share.
pub struct KeepAlive {
    upstream: Arc<str>,
    /// Idle connections to all peers.
    count: Cell<usize>,
    max_idle: usize,
    idle_timeout: Duration,
    /// Age from which a connection takes no further request. `None`: any.
    max_age: Option<Duration>,
    /// Requests that a connection takes.
    max_requests: u32,
    /// Idle connections to each peer that are made before requests need them.
    min_idle: usize,
    /// Times that a peer has sent bytes that nobody had asked for.
    unasked: Count,
    /// Connections that were made.
    made: Count,
    /// Open connections, those that are being made included.
    open: Gauge,
}

/// Idle connections of one peer, and whether there may be any.
pub(super) struct Pool {
    keep_alive: Rc<KeepAlive>,
    peer: Arc<str>,
    /// Idle connections, the newest last.
    idle: RefCell<VecDeque<Idle>>,
    /// End of the time in which nothing is kept: the peer has sent bytes that nobody had asked for.
    banned_until: Cell<Option<Instant>>,
}

struct Idle {
    stream: PeerStream,
    /// `None`: for ever.
    until: Option<Instant>,
}

/// How often kept connections are looked at.
pub(super) const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Time for which no connection of a peer is kept that has sent bytes that nobody had asked for: they could be taken for
/// the next response.
const BAN: Duration = Duration::from_secs(600);

impl KeepAlive {
    /// `max_idle`: connections that are kept to all peers together, for `idle_timeout` each.
    pub fn new(
        upstream: &str,
        max_idle: usize,
        idle_timeout: Duration,
        unasked: Count,
    ) -> Rc<Self> {
        Rc::new(Self {
            upstream: Arc::from(upstream),
            count: Cell::new(0),
            max_idle,
            idle_timeout,
            max_age: None,
            max_requests: u32::MAX,
            min_idle: 0,
            unasked,
            made: Count::NOWHERE,
            open: Gauge::NOWHERE,
        })
    }

    /// Bounds of an upstream of the config.
    pub fn of(name: &str, upstream: &config::Upstream, metrics: &UpstreamMetrics) -> Rc<Self> {
        let keepalive = &upstream.keepalive;
        let max_idle = match upstream.proxy_protocol {
            None => keepalive.connections,
            // A connection with a PROXY header is one client's.
            Some(_) => 0,
        };
        Rc::new(Self {
            upstream: Arc::from(name),
            count: Cell::new(0),
            max_idle,
            idle_timeout: keepalive.timeout,
            max_age: Some(keepalive.max_age),
            max_requests: keepalive.max_requests.map_or(u32::MAX, NonZeroU32::get),
            min_idle: keepalive.min_idle,
            unasked: metrics.unasked,
            made: metrics.connections_made,
            open: metrics.connections,
        })
    }

    /// Bounds of a connection that is made now.
    pub(super) fn life(&self) -> Life {
        let expires = self
            .max_age
            .and_then(|max_age| clock::now().checked_add(max_age));
        Life {
            expires,
            requests_left: self.max_requests,
        }
    }

    pub(super) fn idle_timeout(&self) -> Duration {
        self.idle_timeout
    }

    fn forget(&self, connections: usize) {
        self.count.set(self.count.get() - connections);
    }
}

impl Pool {
    pub(super) fn new(keep_alive: &Rc<KeepAlive>, peer: &Arc<str>) -> Self {
        Self {
            keep_alive: Rc::clone(keep_alive),
            peer: Arc::clone(peer),
            idle: RefCell::default(),
            banned_until: Cell::new(None),
        }
    }

    /// Bounds of a connection that is made now.
    pub(super) fn life(&self) -> Life {
        self.keep_alive.life()
    }

    /// Idle connections.
    pub(super) fn len(&self) -> usize {
        self.idle.borrow().len()
    }

    /// Idle connections that there should be at least, if there is room for them and the peer is not to be shunned.
    pub(super) fn min_idle(&self) -> usize {
        let KeepAlive {
            count,
            max_idle,
            min_idle,
            ..
        } = &*self.keep_alive;
        match count.get() < *max_idle && self.banned_until.get().is_none() {
            true => *min_idle,
            false => 0,
        }
    }

    pub(super) fn note_made(&self) {
        self.keep_alive.made.inc();
    }

    /// Gauge of open connections to all peers.
    pub(super) fn open(&self) -> Gauge {
        self.keep_alive.open
    }

    /// The newest connection that is still good now; `surely` asks the kernel, for a request that cannot be sent again if
    /// it is not. The newest is the least likely to be closed under us, and the older ones can time out.
    #[inline]
    pub(super) fn take(&self, surely: bool, now: Instant) -> Option<PeerStream> {
        loop {
            let kept = self.idle.borrow_mut().pop_back()?;
            self.keep_alive.forget(1);
            let is_quiet = kept.stream.is_quiet(surely);
            if is_quiet && kept.is_fresh(now) {
                return Some(kept.stream);
            }
            if !is_quiet && kept.stream.has_unasked() {
                self.ban();
            }
        }
    }

    /// Keeps a connection, idle since then, for the next request. At the bound the peer's oldest goes, or this one if it
    /// has none.
    #[inline]
    pub(super) fn put(&self, stream: PeerStream, since: Instant) {
        if self.banned_until.get().is_some() && self.is_banned() {
            return;
        }
        let KeepAlive {
            count,
            max_idle,
            idle_timeout,
            ..
        } = &*self.keep_alive;
        let mut idle = self.idle.borrow_mut();
        if count.get() >= *max_idle {
            if idle.pop_front().is_none() {
                return;
            }
            count.set(count.get() - 1);
        }
        count.set(count.get() + 1);
        let until = earlier(since.checked_add(*idle_timeout), stream.expires());
        idle.push_back(Idle { stream, until });
    }

    /// Closes the connection that was idle for the longest. False: there is none.
    pub(super) fn close_oldest(&self) -> bool {
        let oldest = self.idle.borrow_mut().pop_front();
        self.keep_alive.forget(usize::from(oldest.is_some()));
        oldest.is_some()
    }

    /// Closes connections that are old by now, or that the peer has closed.
    pub(super) fn sweep(&self, now: Instant) {
        let mut unasked = false;
        let mut idle = self.idle.borrow_mut();
        let before = idle.len();
        idle.retain(|kept| {
            let is_quiet = kept.stream.is_quiet(false);
            unasked |= !is_quiet && kept.stream.has_unasked();
            is_quiet && kept.is_fresh(now)
        });
        self.keep_alive.forget(before - idle.len());
        drop(idle);
        if unasked {
            self.ban();
        }
    }

    /// Keeps nothing of the peer for a while: it has sent bytes that nobody had asked for, after the end of a response, or
    /// after one that has no body.
    #[cold]
    #[inline(never)]
    pub(super) fn ban(&self) {
        self.keep_alive.unasked.inc();
        self.banned_until.set(Some(Instant::now() + BAN));
        let dropped = std::mem::take(&mut *self.idle.borrow_mut());
        self.keep_alive.forget(dropped.len());
        warn!(
            upstream = &*self.keep_alive.upstream,
            peer = &*self.peer,
            "sent bytes that nobody had asked for: its connections are not used again for {BAN:?}"
        );
    }

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

/// The earlier of two moments. `None`: never.
fn earlier(a: Option<Instant>, b: Option<Instant>) -> Option<Instant> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, None) | (None, one) => one,
    }
}

impl Drop for Pool {
    /// The connections of a peer that has left its upstream count no more.
    fn drop(&mut self) {
        self.keep_alive.forget(self.idle.get_mut().len());
    }
}

impl Idle {
    fn is_fresh(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use super::super::http::tests::{living, pair, run};
    use super::*;

    fn pools<const N: usize>(max_idle: usize) -> [Pool; N] {
        let keep_alive = KeepAlive::new("u", max_idle, Duration::from_secs(60), Count::NOWHERE);
        [(); N].map(|()| Pool::new(&keep_alive, &Arc::from("peer")))
    }

    #[test]
    fn a_peer_that_leaves_gives_its_room_to_others() {
        run(async {
            let [leaves, stays] = pools(1);
            let now = Instant::now();
            let (ours, _theirs) = pair();
            leaves.put(ours, now);
            let (ours, _theirs) = pair();
            stays.put(ours, now);
            assert!(stays.take(true, now).is_none(), "the room is taken");
            drop(leaves);
            let (ours, _theirs) = pair();
            stays.put(ours, now);
            assert!(stays.take(true, now).is_some());
        });
    }

    #[test]
    fn the_oldest_of_a_peer_makes_room_for_its_newest() {
        run(async {
            let [pool] = pools(1);
            let now = Instant::now();
            let [(old, their_old), (new, _their_new)] = [pair(), pair()];
            drop(their_old);
            pool.put(old, now);
            pool.put(new, now);
            assert!(pool.take(true, now).is_some());
            assert!(pool.take(true, now).is_none());
        });
    }

    #[test]
    fn what_is_old_or_closed_is_not_taken() {
        run(async {
            let [pool] = pools(2);
            let now = Instant::now();
            let [(old, _theirs), (closed, theirs)] = [pair(), pair()];
            pool.put(old, now);
            pool.put(closed, now + Duration::from_secs(1));
            drop(theirs);
            assert!(pool.take(true, now + Duration::from_secs(60)).is_none());
            assert_eq!(pool.keep_alive.count.get(), 0);
        });
    }

    #[test]
    fn what_has_come_of_age_is_not_taken_however_busy_it_was() {
        run(async {
            let [pool] = pools(2);
            let now = Instant::now();
            let life = Life {
                expires: Some(now + Duration::from_secs(3)),
                ..Life::ENDLESS
            };
            let (ours, _theirs) = living(life);
            pool.put(ours, now);
            let busy = pool.take(true, now + Duration::from_secs(2));
            pool.put(busy.expect("it is young"), now + Duration::from_secs(2));
            assert!(pool.take(true, now + Duration::from_secs(3)).is_none());
            assert_eq!(pool.keep_alive.count.get(), 0);
        });
    }

    #[test]
    fn of_two_moments_the_earlier_counts() {
        let (now, later) = (Instant::now(), Instant::now() + Duration::from_secs(1));
        assert_eq!(earlier(Some(now), Some(later)), Some(now));
        assert_eq!(earlier(Some(later), Some(now)), Some(now));
        assert_eq!(earlier(None, Some(now)), Some(now));
        assert_eq!(earlier(Some(now), None), Some(now));
        assert_eq!(earlier(None, None), None);
    }

    #[test]
    fn nothing_is_kept_of_a_peer_that_has_sent_what_nobody_had_asked_for() {
        run(async {
            let [pool] = pools(2);
            let now = Instant::now();
            let [(loud, theirs), (quiet, _theirs)] = [pair(), pair()];
            pool.put(quiet, now);
            pool.put(loud, now);
            theirs.try_write(b"x").unwrap();
            assert!(pool.take(true, now).is_none());
            let (later, _theirs) = pair();
            pool.put(later, now);
            assert!(pool.take(true, now).is_none());
        });
    }
}
