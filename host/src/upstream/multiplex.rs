//! Connections of HTTP/2 to a peer, each for many requests at a time.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::life::Life;
use crate::http2::ClientConnection;

/// Connections to one peer. There are more than one only when the requests under way are more than the peer takes on one.
pub(super) struct Multiplex {
    connections: RefCell<Vec<Kept>>,
    /// Turn to make a connection; others wait for that, since it will do for them, too.
    connecting: Semaphore,
    /// Tries of a connection that came to nothing.
    failures: Cell<u64>,
    idle_timeout: Duration,
    /// The peer has chosen HTTP/2 when it was last asked.
    is_chosen: Cell<bool>,
}

struct Kept {
    connection: Rc<ClientConnection>,
    life: Life,
    /// Since when it has no request. `None`: it has some, as far as is known.
    idle_since: Option<Instant>,
}

impl Multiplex {
    /// `idle_timeout`: so long is a connection kept without a request.
    pub(super) fn new(idle_timeout: Duration) -> Self {
        Self {
            connections: RefCell::default(),
            connecting: Semaphore::new(1),
            failures: Cell::new(0),
            idle_timeout,
            is_chosen: Cell::new(false),
        }
    }

    /// A connection on which a request can begin now. The oldest is filled first, so that others become idle.
    pub(super) fn pick(&self) -> Option<Rc<ClientConnection>> {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|kept| kept.connection.is_open());
        let at = connections.iter().position(|it| it.connection.has_room())?;
        let kept = &mut connections[at];
        kept.idle_since = None;
        let connection = Rc::clone(&kept.connection);
        if !kept.life.has_more() {
            connections.remove(at);
        }
        Some(connection)
    }

    /// The turn to make a connection. Whoever gets it looks for one first.
    pub(super) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed.
        self.connecting.acquire().await.ok()
    }

    /// Keeps a connection for requests to come.
    pub(super) fn put(&self, connection: &Rc<ClientConnection>, life: Life) {
        self.connections.borrow_mut().push(Kept {
            connection: Rc::clone(connection),
            life,
            idle_since: None,
        });
    }

    /// Keeps a connection, on which one request is about to begin, if it takes more than that.
    pub(super) fn put_used(&self, connection: &Rc<ClientConnection>, mut life: Life) {
        if life.has_more() {
            self.put(connection, life);
        }
    }

    /// Connections that take requests.
    pub(super) fn len(&self) -> usize {
        let connections = self.connections.borrow();
        let open = connections.iter().filter(|it| it.connection.is_open());
        open.count()
    }

    pub(super) fn failures(&self) -> u64 {
        self.failures.get()
    }

    pub(super) fn note_failure(&self) {
        self.failures.set(self.failures.get() + 1);
    }

    /// Notes what the peer has chosen.
    pub(super) fn note(&self, is_chosen: bool) {
        self.is_chosen.set(is_chosen);
    }

    pub(super) fn is_chosen(&self) -> bool {
        self.is_chosen.get()
    }

    /// Lets go of connections that have ended, have come of age or were idle for long. Each closes when its last request has ended.
    pub(super) fn sweep(&self, now: Instant) {
        self.connections.borrow_mut().retain_mut(|kept| {
            if kept.life.is_over(now) {
                return false;
            }
            if !kept.connection.is_idle() {
                kept.idle_since = None;
                return kept.connection.is_open();
            }
            let since = *kept.idle_since.get_or_insert(now);
            kept.connection.is_open() && now - since < self.idle_timeout
        });
    }
}
