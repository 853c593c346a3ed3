//! How the event loop watches a listening socket: its own worker's alone, or one that other workers wait on, too, so that a
//! connection wakes one of them and not all.
//!
//! The latter is what EPOLLEXCLUSIVE is for, which tokio cannot be asked for. An epoll instance of our own, nested in
//! tokio's, does not have the effect: the kernel ends its walk over the exclusive waiters only at one that somebody
//! sleeps on directly (`ep_poll_callback`, `fs/eventpoll.c`). Measured with 6 waiting processes and 100 connections on
//! Linux 6.18, the kernel woke each process 101 times where it was nested, and 17 or 18 times where it was not. So the
//! socket is registered with tokio in the ordinary way, then taken out of tokio's epoll instance and put into it again with the
//! flag, under the token that tokio has given it, which the kernel tells in `/proc/self/fdinfo` (proc(5)).
#![allow(
    unsafe_code,
    reason = "tokio's epoll instance is known by its number only"
)]

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};

use crate::config::Accept;
use crate::runtime::readiness::watch_readable;

pub(super) struct Watch {
    socket: AsyncFd<OwnedFd>,
    place: Option<Place>,
}

/// Key of the socket in tokio's epoll instance.
struct Place {
    epoll: OwnedFd,
    /// Means the socket's registration to tokio, as long as [`Watch::socket`] is there.
    token: u64,
}

impl Watch {
    /// Must be called in the runtime.
    pub(super) fn new(socket: OwnedFd, accept: Accept) -> io::Result<Self> {
        let socket = watch_readable(socket)?;
        let place = match accept {
            Accept::PerWorker => None,
            Accept::Shared => match find(socket.as_raw_fd()) {
                Ok(place) => Some(place),
                // `/proc` is not there, say.
                Err(error) => {
                    tracing::warn!(%error, "a connection of a shared socket wakes every worker");
                    None
                }
            },
        };
        let watch = Self { socket, place };
        watch.join()?;
        Ok(watch)
    }

    pub(super) fn socket(&self) -> &OwnedFd {
        self.socket.get_ref()
    }

    /// Waits until there may be a connection.
    pub(super) async fn readable(&self) -> io::Result<AsyncFdReadyGuard<'_, OwnedFd>> {
        self.socket.readable().await
    }

    /// A connection wakes one of those that watch the socket.
    pub(super) fn is_exclusive(&self) -> bool {
        self.place.is_some()
    }

    /// Watches behind all others. Tells of what is queued. Does nothing to a socket that is not watched exclusively.
    pub(super) fn join(&self) -> io::Result<()> {
        let Some(place) = &self.place else {
            return Ok(());
        };
        self.leave();
        // mio's READABLE, without RDHUP: that may not stand beside EXCLUSIVE, and a listening socket has none.
        let flags = EventFlags::IN | EventFlags::ET | EventFlags::EXCLUSIVE;
        let token = EventData::new_u64(place.token);
        // The token means this very socket to tokio; with the AsyncFd the socket leaves the instance.
        Ok(epoll::add(&place.epoll, self.socket(), token, flags)?)
    }

    /// Watches no more, until [`Self::join`]. Does nothing to a socket that is not watched exclusively.
    pub(super) fn leave(&self) {
        let Some(place) = &self.place else { return };
        match epoll::delete(&place.epoll, self.socket()) {
            // The socket has left before.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => tracing::warn!(%error, "a shared socket is still watched"),
        }
    }
}

fn find(socket: RawFd) -> io::Result<Place> {
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        // A descriptor that was closed meanwhile: that of this folder.
        let Ok(target) = fs::read_link(entry.path()) else {
            continue;
        };
        let number = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let (Some(number), true) = (number, target.as_os_str() == "anon_inode:[eventpoll]") else {
            continue;
        };
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}"))?;
        if let Some(token) = info.lines().find_map(|line| token_of(line, socket)) {
            // SAFETY: the descriptor was open a moment ago, it is an epoll instance of this process that watches our
            // socket, so tokio's, which the runtime we run in keeps open; the borrow ends in this line.
            let epoll = unsafe { BorrowedFd::borrow_raw(number) }.try_clone_to_owned()?;
            return Ok(Place { epoll, token });
        }
    }
    Err(io::Error::other(
        "the socket is in no epoll instance that /proc shows",
    ))
}

/// Reads a line such as `tfd:       16 events:     2019 data: 55d0c2a3e880  pos:0 ino:5e6f sdev:8`.
fn token_of(line: &str, socket: RawFd) -> Option<u64> {
    let mut words = line.split_ascii_whitespace();
    let mut after = |label: &str| {
        words.by_ref().find(|word| *word == label)?;
        words.next()
    };
    let is_ours = after("tfd:")?.parse::<RawFd>().ok()? == socket;
    let token = u64::from_str_radix(after("data:")?, 16).ok()?;
    is_ours.then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The flags that the kernel shows of this socket.
    fn events(place: &Place, socket: RawFd) -> Option<u32> {
        let info = format!("/proc/self/fdinfo/{}", place.epoll.as_raw_fd());
        let info = fs::read_to_string(info).unwrap();
        let line = info.lines().find(|line| token_of(line, socket).is_some())?;
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        Some(u32::from_str_radix(words[3], 16).unwrap())
    }

    #[tokio::test]
    async fn a_shared_socket_is_watched_exclusively_and_tells_of_what_is_queued() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let watch = Watch::new(listener.into(), Accept::Shared).unwrap();
        let place = watch.place.as_ref().unwrap();
        let fd = watch.socket().as_raw_fd();
        assert!(events(place, fd).unwrap() & EventFlags::EXCLUSIVE.bits() != 0);
        watch.leave();
        assert_eq!(events(place, fd), None);
        let _client = std::net::TcpStream::connect(address).unwrap();
        watch.join().unwrap();
        drop(watch.readable().await.unwrap());
    }

    #[tokio::test]
    async fn a_socket_of_one_worker_is_watched_in_the_ordinary_way() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let watch = Watch::new(listener.into(), Accept::PerWorker).unwrap();
        assert!(!watch.is_exclusive());
        let place = find(watch.socket().as_raw_fd()).unwrap();
        let events = events(&place, watch.socket().as_raw_fd()).unwrap();
        assert_eq!(events & EventFlags::EXCLUSIVE.bits(), 0);
    }

    #[test]
    fn a_token_is_found_by_its_socket() {
        let line = "tfd:       16 events:     2019 data:     55d0c2a3e880  pos:0 ino:5e6f sdev:8";
        assert_eq!(token_of(line, 16), Some(0x55d0_c2a3_e880));
        assert_eq!(token_of(line, 1), None);
        assert_eq!(token_of("pos:\t0", 0), None);
    }
}
