//! The file of a listening Unix socket: made with its permissions, in the place of a dead server's, removed at the end.

use std::cell::Cell;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind as bind_socket, socket_with,
};

/// Removes the file when it is dropped, if it is the same file still.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: Option<(u64, u64)>,
    disowned: Cell<bool>,
}

/// Binds a socket that does not listen yet. Fails when a server listens at the path, or what lies there is no socket.
pub(super) fn bind(path: &Path, mode: u32) -> io::Result<(OwnedFd, SocketFile)> {
    remove_left_over(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let address = SocketAddrUnix::new(path)?;
    bind_socket(&socket, &address)?;
    let file = SocketFile::of(path);
    // Permissions may come after the bind: before the socket listens, no process can connect.
    file.set_mode(mode)?;
    Ok((socket, file))
}

impl SocketFile {
    /// The file that lies there now.
    pub(super) fn of(path: &Path) -> Self {
        let found = fs::symlink_metadata(path).ok();
        Self {
            path: path.to_owned(),
            identity: found.map(|found| (found.dev(), found.ino())),
            disowned: Cell::new(false),
        }
    }

    /// Gives the file these permissions, unless it is another's by now.
    pub(super) fn set_mode(&self, mode: u32) -> io::Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = match rustix::fs::open(&self.path, flags, Mode::empty()) {
            Ok(found) => File::from(found),
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let there = found.metadata()?;
        if self.identity != Some((there.dev(), there.ino())) {
            return Ok(());
        }
        // This name leads to the file that was looked at, whatever lies at the path meanwhile.
        let by_descriptor = format!("/proc/self/fd/{}", found.as_raw_fd());
        fs::set_permissions(by_descriptor, Permissions::from_mode(mode))
    }

    /// Whether the same file still lies there.
    fn is_there(&self) -> bool {
        let there = fs::symlink_metadata(&self.path).ok();
        let there = there.map(|there| (there.dev(), there.ino()));
        there.is_some() && there == self.identity
    }

    /// Leaves the file to another process, which removes it.
    pub(super) fn disown(&self) {
        self.disowned.set(true);
    }

    /// Takes the file back: the other process has let go of it.
    pub(super) fn own(&self) {
        self.disowned.set(false);
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if !self.disowned.get() && self.is_there() {
            // A file that cannot be removed is replaced by the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Removes the file that a server which was killed has left.
fn remove_left_over(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {}
        Ok(_) => return Err(io::Error::other("a file that is no socket is in its place")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    match is_served(path)? {
        true => Err(io::ErrorKind::AddrInUse.into()),
        false => fs::remove_file(path),
    }
}

/// Whether a server listens at the path. It does not only where the kernel says so; a server that could be connected to sees
/// the connection end.
pub(super) fn is_served(path: &Path) -> io::Result<bool> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) => {
            drop(UnixStream::from(socket));
            Ok(true)
        }
        Err(error) if error == Errno::CONNREFUSED => Ok(false),
        // The server's queue is full, or its socket is of another type.
        Err(error) if [Errno::AGAIN, Errno::PROTOTYPE].contains(&error) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_file_has_its_permissions_and_goes_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.sock");
        let (_socket, file) = bind(&path, 0o660).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_dead_servers_file_is_replaced_a_live_ones_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.sock");
        let server = UnixListener::bind(&path).unwrap();
        assert_eq!(
            bind(&path, 0o666).unwrap_err().kind(),
            io::ErrorKind::AddrInUse
        );
        drop(server);
        assert!(path.exists());
        // A process that another test starts has the server's socket open, too, until it executes its program.
        let bound = (0..1000).find_map(|_| {
            let refused = |_: &io::Error| std::thread::sleep(std::time::Duration::from_millis(5));
            bind(&path, 0o666).inspect_err(refused).ok()
        });
        assert!(bound.is_some());
    }

    #[test]
    fn what_is_no_socket_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        fs::write(&path, "x").unwrap();
        assert!(bind(&path, 0o666).is_err());
        assert!(path.exists());
    }

    #[test]
    fn a_file_that_is_anothers_by_now_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.sock");
        let (_socket, file) = bind(&path, 0o666).unwrap();
        // A file of its own: the inode of one that is gone could come again.
        fs::rename(&path, folder.path().join("old.sock")).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(folder.path().join("precious"), "").unwrap();
        std::os::unix::fs::symlink(folder.path().join("precious"), &path).unwrap();
        let mode = || fs::metadata(&path).unwrap().permissions().mode();
        let before = mode();
        file.set_mode(0o777).unwrap();
        assert_eq!(mode(), before);
        drop(file);
        assert!(path.exists());
        let (_socket, file) = bind(&folder.path().join("handed.sock"), 0o666).unwrap();
        file.disown();
        drop(file);
        assert!(folder.path().join("handed.sock").exists());
    }
}
