//! A bell that all workers hear.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};

/// An eventfd (eventfd(2)) that the master makes and all workers inherit. It is rung when something in shared memory has
/// changed that somebody may wait for.
///
/// Nobody reads from it: each worker has it in its own epoll by edges (`EPOLLET`), of which a write is one for everybody who waits, and
/// so no worker takes the others' news away. Its count only grows and would be full after 2^64 rings.
#[derive(Debug)]
pub struct Bell(OwnedFd);

impl Bell {
    pub fn create() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC.union(EventfdFlags::NONBLOCK);
        Ok(Self(eventfd(0, flags)?))
    }

    /// Opens one that a master has made, by the descriptor that came from it.
    pub fn open(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }

    /// Rings it. What is seen in shared memory after that is at least what was there before.
    pub fn ring(&self) {
        // Writing fails when the count is full, and by then it has been readable for long.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
