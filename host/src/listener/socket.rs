//! A listening socket in a worker: waiting for connections and taking them.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrAny, SocketFlags, acceptfrom_with, getsockname};
use tokio::io::unix::AsyncFdReadyGuard;
use tokio::net::{TcpStream, UnixStream};

use super::watch::Watch;
use crate::config::Accept;
use crate::transport::Socket;
use crate::transport::address::ClientAddress;

/// A bound and listening socket that the event loop watches.
pub struct ListeningSocket {
    watch: Watch,
    is_unix: bool,
}

/// There may be connections. Ends with [`ReadyGuard::end`].
pub struct ReadyGuard<'a> {
    socket: &'a ListeningSocket,
    guard: AsyncFdReadyGuard<'a, OwnedFd>,
}

impl ListeningSocket {
    pub fn new(socket: OwnedFd, accept: Accept) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        let is_unix = getsockname(&socket)?.address_family() == AddressFamily::UNIX;
        Ok(Self {
            watch: Watch::new(socket, accept)?,
            is_unix,
        })
    }

    /// Waits until there may be connections.
    pub async fn turn(&self) -> io::Result<ReadyGuard<'_>> {
        let guard = self.watch.readable().await?;
        Ok(ReadyGuard {
            socket: self,
            guard,
        })
    }

    /// Takes a connection; `None` when none is queued.
    pub fn accept(&self) -> io::Result<Option<(Socket, ClientAddress)>> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (socket, client) = match acceptfrom_with(self.watch.socket(), flags) {
            Ok(accepted) => accepted,
            Err(Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if self.is_unix {
            let stream = UnixStream::from_std(socket.into())?;
            return Ok(Some((Socket::Unix(stream), ClientAddress::UNIX)));
        }
        let client = client.and_then(|client: SocketAddrAny| SocketAddr::try_from(client).ok());
        let client = client.map_or(ClientAddress::NOBODY, ClientAddress::from);
        let stream = TcpStream::from_std(socket.into())?;
        Ok(Some((Socket::Tcp(stream), client)))
    }

    /// Takes a connection and closes it; false when none is queued.
    pub fn refuse(&self) -> io::Result<bool> {
        match acceptfrom_with(self.watch.socket(), SocketFlags::CLOEXEC) {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a connection waits to be taken.
    pub fn has_queued(&self) -> bool {
        let mut look = [PollFd::new(self.watch.socket(), PollFlags::IN)];
        poll(&mut look, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    /// Other workers wait on it, too: a connection wakes one of those that wait, so who cannot take it must not wait.
    pub fn is_shared(&self) -> bool {
        self.watch.is_exclusive()
    }

    /// Connections are for others until [`Self::join`]. Does nothing to a socket that is not shared.
    pub fn leave(&self) {
        self.watch.leave();
    }

    /// Waits with the others, behind them. What is queued already is heard of.
    pub fn join(&self) -> io::Result<()> {
        self.watch.join()
    }
}

impl ReadyGuard<'_> {
    /// `is_empty`: no connection was left. Otherwise the next turn comes at once.
    pub fn end(mut self, is_empty: bool) -> io::Result<()> {
        if self.socket.is_shared() {
            // The kernel wakes who has waited longest, and a waiter keeps its place however much it takes, so that the
            // first to come would get all. Joining anew is going to the end of the line (nginx does it after 16
            // connections), and tells of what is queued still, so that nothing needs to be asked for in vain.
            self.socket.leave();
            self.guard.clear_ready();
            return self.socket.join();
        }
        if is_empty {
            self.guard.clear_ready();
        }
        Ok(())
    }
}
