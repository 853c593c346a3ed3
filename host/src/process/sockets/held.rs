//! A listening socket that the master holds, with its file where it is a Unix socket.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use socket2::SockRef;

use crate::process::unix_socket::SocketFile;

/// A socket that the master holds. The file of a Unix socket is removed when the last generation that has it lets go.
#[derive(Debug)]
pub struct HeldSocket {
    pub(super) socket: OwnedFd,
    /// File of a Unix socket, unless another process looks after it.
    pub(super) file: Option<SocketFile>,
}

impl HeldSocket {
    pub fn try_clone(&self) -> io::Result<OwnedFd> {
        self.socket.try_clone()
    }

    /// Whether its file is this master's to remove.
    pub fn owns_file(&self) -> bool {
        self.file.is_some()
    }

    /// Leaves its file alone from now on: another process has [adopted](super::SocketTable::adopt) the socket.
    pub fn disown(&self) {
        if let Some(file) = &self.file {
            file.disown();
        }
    }

    /// Takes its file: the other process has let go of it.
    pub fn own(&self) {
        if let Some(file) = &self.file {
            file.own();
        }
    }

    /// Refuses a changed `ipv6_only`: it is fixed once a socket is bound, and a second socket beside it would leave connections
    /// behind.
    pub(super) fn must_be_ipv6_only(&self, address: SocketAddr, wanted: bool) -> io::Result<()> {
        match address.is_ipv4() || SockRef::from(&self.socket).only_v6()? == wanted {
            true => Ok(()),
            false => Err(io::Error::other(format!(
                "ipv6_only = {wanted}, but the socket that is open has {}: it stays so until the gateway ends",
                !wanted
            ))),
        }
    }

    /// Whether more sockets can be bound to its address.
    pub(super) fn shares_port(&self) -> bool {
        // A socket that cannot say so does not share it.
        SockRef::from(&self.socket).reuse_port().unwrap_or(false)
    }
}

impl AsFd for HeldSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
