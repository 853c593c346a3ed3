//! A connected socket of either kind, TCP or Unix, as its reader and its writer share it.
//!
//! What can be done at once is done without asking tokio to watch: whether it can is one load. As tokio's own reads and writes
//! do, a read that leaves room and a write that leaves bytes count as the last for now, which saves the call that
//! would only say so.

mod options;
mod queued;

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::task::{Context, Poll};

use bytes::BytesMut;
use rustix::net::RecvFlags;
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

pub use options::{keep_alive, put_off_port};

pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Reads into the room that `buf` has, of which there must be some. `WouldBlock`: [`Self::poll_read_ready`] tells when.
    pub fn try_read(&self, buf: &mut BytesMut) -> io::Result<usize> {
        let room = buf.capacity() - buf.len();
        let read = match self {
            Self::Tcp(stream) => stream.try_read_buf(buf),
            Self::Unix(stream) => stream.try_read_buf(buf),
        }?;
        if 0 < read && read < room {
            self.block(Interest::READABLE);
        }
        Ok(read)
    }

    /// Looks at what has come, or takes it. `WouldBlock`: [`Self::poll_read_ready`] tells when.
    pub fn try_receive(&self, into: &mut [u8], flags: RecvFlags) -> io::Result<usize> {
        let receive = || {
            let (_, bytes) = rustix::net::recv(self, into, flags | RecvFlags::DONTWAIT)?;
            Ok(bytes)
        };
        match self {
            Self::Tcp(stream) => stream.try_io(Interest::READABLE, receive),
            Self::Unix(stream) => stream.try_io(Interest::READABLE, receive),
        }
    }

    /// `WouldBlock`: [`Self::poll_write_ready`] tells when.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let written = match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
        }?;
        self.wrote(written, bytes.len());
        Ok(written)
    }

    pub fn try_write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let written = match self {
            Self::Tcp(stream) => stream.try_write_vectored(pieces),
            Self::Unix(stream) => stream.try_write_vectored(pieces),
        }?;
        self.wrote(written, pieces.iter().map(|piece| piece.len()).sum());
        Ok(written)
    }

    /// Readiness as the event loop has heard of it so far.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
        }
    }

    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_write_ready(cx),
            Self::Unix(stream) => stream.poll_write_ready(cx),
        }
    }

    /// Readiness, asked once.
    pub fn is_read_ready(&self) -> bool {
        let nothing = || Ok(());
        match self {
            Self::Tcp(stream) => stream.try_io(Interest::READABLE, nothing),
            Self::Unix(stream) => stream.try_io(Interest::READABLE, nothing),
        }
        .is_ok()
    }

    /// Bytes that the kernel has taken and the other side has not (tcp(7), unix(7): SIOCOUTQ). 0 where it does not tell.
    pub fn queued_bytes(&self) -> u64 {
        queued::bytes(self).unwrap_or(0)
    }

    fn wrote(&self, written: usize, of: usize) {
        if 0 < written && written < of {
            self.block(Interest::WRITABLE);
        }
    }

    /// Not ready until the event loop hears of it again.
    fn block(&self, interest: Interest) {
        let blocks = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        let _blocks = match self {
            Self::Tcp(stream) => stream.try_io(interest, blocks),
            Self::Unix(stream) => stream.try_io(interest, blocks),
        };
    }
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        Self::Unix(stream)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}
