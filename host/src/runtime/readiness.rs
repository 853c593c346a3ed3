//! Descriptors that the event loop watches.
#![allow(
    unsafe_code,
    reason = "tokio asks for a promise about descriptors that it watches"
)]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Has the event loop watch the descriptor, from now on, for something to be read. Must be called in the runtime.
pub fn watch_readable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is open, and is given away to the AsyncFd, so that nobody closes it or puts another in
    // its place; it has one number for its life.
    Ok(unsafe { AsyncFd::register_with_interest(descriptor, Interest::READABLE) }?)
}
