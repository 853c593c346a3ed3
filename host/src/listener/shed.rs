//! Connections for which the process has no descriptor left.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;

use super::ListeningSocket;
use crate::service::Service;

/// A descriptor is kept for the day that none is left. Then it is given up for the connection that waits, which is closed
/// at once, and taken again: clients are told, instead of waiting in a queue that does not move. One a worker.
pub struct Shedder {
    spare: RefCell<Option<OwnedFd>>,
    /// Connections, since the last report.
    closed: Cell<u64>,
    /// Pauses in accepting, since the last report.
    pauses: Cell<u64>,
    reporting: Cell<bool>,
}

/// Between two lines in the log.
const REPORT_EVERY: Duration = Duration::from_secs(1);

impl Shedder {
    pub fn new() -> Rc<Self> {
        Rc::new(Self {
            spare: RefCell::new(spare()),
            closed: Cell::new(0),
            pauses: Cell::new(0),
            reporting: Cell::new(false),
        })
    }

    /// Takes the connection that waits and closes it; false when none waits, which the kernel does not tell a process
    /// without a descriptor. Fails where the spare descriptor is of no use: somebody else has taken it meanwhile, or
    /// the whole system has none.
    pub fn shed(self: &Rc<Self>, socket: &ListeningSocket, service: &Service) -> io::Result<bool> {
        let given_up = self.spare.take();
        let closed = match given_up {
            Some(given_up) => {
                drop(given_up);
                socket.refuse()
            }
            None => Err(Errno::MFILE.into()),
        };
        self.spare.replace(spare());
        if let Ok(true) = closed {
            service.metrics.refused_descriptors.inc();
            self.closed.set(self.closed.get() + 1);
            self.report();
        }
        closed
    }

    /// A connection can neither be taken nor closed: it waits a while in the kernel's queue.
    pub fn paused(self: &Rc<Self>) {
        self.pauses.set(self.pauses.get() + 1);
        self.report();
    }

    /// Writes one line for all that happens within a second.
    fn report(self: &Rc<Self>) {
        if self.reporting.replace(true) {
            return;
        }
        let this = Rc::clone(self);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(REPORT_EVERY).await;
            this.reporting.set(false);
            let (closed, pauses) = (this.closed.take(), this.pauses.take());
            tracing::warn!(
                closed,
                pauses,
                "no descriptors or memory for new connections: raise the limit of open files or lower max_connections"
            );
        });
    }
}

fn spare() -> Option<OwnedFd> {
    open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
}
