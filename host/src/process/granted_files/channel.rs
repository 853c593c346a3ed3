//! New versions of granted files on their way to a worker: a datagram each, with a descriptor.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixDatagram as StdUnixDatagram;
use std::path::PathBuf;
use std::rc::Rc;

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::UnixDatagram;

use super::WatchedFile;

/// A version of a file, beside its descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    pub path: PathBuf,
    pub number: u64,
    pub len: u64,
}

/// The master's end.
pub struct FileSender {
    socket: OwnedFd,
    /// Versions that the worker has, or is about to get.
    sent: RefCell<BTreeMap<PathBuf, u64>>,
    looks: Cell<u32>,
}

/// Looks at the files after which a worker is sent all versions again.
const REPEATED_AFTER: u32 = 60;

/// A worker's end.
pub struct FileReceiver(UnixDatagram);

/// Both ends; the second is for a worker to inherit, which has these versions already.
pub fn channel(files: &[Rc<WatchedFile>]) -> io::Result<(FileSender, OwnedFd)> {
    let (ours, theirs) = StdUnixDatagram::pair()?;
    let known = files.iter().map(|file| (file.path.clone(), file.number()));
    let sender = FileSender {
        socket: ours.into(),
        sent: RefCell::new(known.collect()),
        looks: Cell::new(0),
    };
    Ok((sender, theirs.into()))
}

impl FileSender {
    /// Sends the versions that the worker does not have. What finds no room, since the worker does not read just now, is sent another
    /// time.
    pub fn tell(&self, files: &[Rc<WatchedFile>]) {
        // A worker without a free descriptor has lost what it was sent. To have the same version again changes nothing.
        let looks = self.looks.get().wrapping_add(1);
        self.looks.set(looks);
        if looks.is_multiple_of(REPEATED_AFTER) {
            self.sent.borrow_mut().clear();
        }
        for file in files {
            let number = file.number();
            if self.sent.borrow().get(&file.path) == Some(&number) {
                continue;
            }
            let (notice, memory) = file.version();
            match self.send(&notice, &memory) {
                Ok(()) => drop(self.sent.borrow_mut().insert(notice.path, number)),
                Err(error) => tracing::debug!(%error, "a worker does not take a file now"),
            }
        }
    }

    fn send(&self, notice: &Notice, memory: &OwnedFd) -> io::Result<()> {
        let bytes = serde_json::to_vec(notice)?;
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [memory.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        sendmsg(&self.socket, &[IoSlice::new(&bytes)], &mut control, flags)?;
        Ok(())
    }
}

impl FileReceiver {
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        let socket = StdUnixDatagram::from(socket);
        socket.set_nonblocking(true)?;
        Ok(Self(UnixDatagram::from_std(socket)?))
    }

    /// The next version. Waits for ever when the master is gone.
    pub async fn next(&self) -> io::Result<(Notice, OwnedFd)> {
        self.0.async_io(Interest::READABLE, || self.receive()).await
    }

    fn receive(&self) -> io::Result<(Notice, OwnedFd)> {
        let mut bytes = vec![0; MOST_BYTES];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let room = &mut [IoSliceMut::new(&mut bytes)];
        let received = recvmsg(&self.0, room, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let mut descriptors = control.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect::<Vec<_>>(),
            _ => Vec::new(),
        });
        let memory = descriptors.next().ok_or(io::ErrorKind::InvalidData)?;
        Ok((serde_json::from_slice(&bytes[..received.bytes])?, memory))
    }
}

/// A path has 4096 bytes, and in JSON up to six for each.
const MOST_BYTES: usize = 32 * 1024;
