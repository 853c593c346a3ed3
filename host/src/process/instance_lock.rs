//! One gateway for each control socket, and the files that say so.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, flock};
use rustix::io::Errno;
use rustix::process::umask;

/// Held for the master's life; the system lets go of it when the process ends, however it ends. What lies at the
/// control socket's path while nobody holds the lock is a dead master's.
pub struct InstanceLock {
    /// Locked.
    _file: File,
    path: PathBuf,
    control: PathBuf,
    pid_file: Option<PathBuf>,
    killed_before: Option<String>,
}

impl InstanceLock {
    /// Creates the folder of the control socket where it is missing. Fails when another gateway holds the lock.
    pub fn take(control: &Path) -> Result<Self, String> {
        let about = |error: io::Error| format!("control socket {}: {error}", control.display());
        if let Some(folder) = control.parent() {
            fs::create_dir_all(folder).map_err(about)?;
        }
        let mut path = control.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        loop {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(about)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if is_at(&file, &path) => {}
                // The gateway that held it has ended and removed it meanwhile: it was not the lock any more.
                Ok(()) => continue,
                Err(Errno::WOULDBLOCK) => return Err(already_running(&mut file, control)),
                Err(error) => return Err(about(error.into())),
            }
            // One that ended in order has removed the file.
            let mut before = String::new();
            // What cannot be read says nothing.
            let _ = (&mut file).take(PID_DIGITS).read_to_string(&mut before);
            let is_pid = !before.is_empty() && before.bytes().all(|byte| byte.is_ascii_digit());
            let pid = std::process::id().to_string();
            file.set_len(0)
                .and_then(|()| file.rewind())
                .and_then(|()| file.write_all(pid.as_bytes()))
                .map_err(about)?;
            return Ok(Self {
                _file: file,
                path,
                control: control.to_owned(),
                pid_file: None,
                killed_before: is_pid.then_some(before),
            });
        }
    }

    /// The pid of the gateway before, when that one was killed.
    pub fn killed_before(&self) -> Option<&str> {
        self.killed_before.as_deref()
    }

    /// The control socket, for the master's user only. A dead master's is replaced; a file that is no socket is not.
    pub fn bind_control(&self) -> Result<UnixListener, String> {
        let about =
            |error: io::Error| format!("control socket {}: {error}", self.control.display());
        match fs::symlink_metadata(&self.control) {
            Ok(found) if found.file_type().is_socket() => {
                fs::remove_file(&self.control).map_err(about)?;
            }
            Ok(_) => {
                return Err(about(io::Error::other(
                    "a file that is no socket is in its place",
                )));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(about(error)),
        }
        let before = umask(Mode::from_raw_mode(0o177));
        let listener = UnixListener::bind(&self.control);
        umask(before);
        let listener = listener.map_err(about)?;
        listener.set_nonblocking(true).map_err(about)?;
        Ok(listener)
    }

    /// Writes the pid, to be removed at the end.
    pub fn write_pid_file(&mut self, path: &Path) -> Result<(), String> {
        let about = |error: io::Error| format!("pid file {}: {error}", path.display());
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(about)?;
        }
        fs::write(path, format!("{}\n", std::process::id())).map_err(about)?;
        self.pid_file = Some(path.to_owned());
        Ok(())
    }
}

impl Drop for InstanceLock {
    fn drop(&mut self) {
        // What cannot be removed is replaced by the next start. The lock goes last: until then all of this is ours.
        if let Some(pid_file) = &self.pid_file {
            let _ = fs::remove_file(pid_file);
        }
        let _ = fs::remove_file(&self.control);
        let _ = fs::remove_file(&self.path);
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

fn already_running(lock: &mut File, control: &Path) -> String {
    let mut pid = String::new();
    // Without it the message has no pid.
    let _ = lock.take(PID_DIGITS).read_to_string(&mut pid);
    let pid = match pid.is_empty() {
        true => String::new(),
        false => format!(" (pid {pid})"),
    };
    format!(
        "a gateway is running already{pid}: it holds {}",
        control.display()
    )
}

/// More than a pid has.
const PID_DIGITS: u64 = 20;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_second_gateway_is_refused_until_the_first_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let control = folder.path().join("run/control.sock");
        let first = InstanceLock::take(&control).unwrap();
        let refused = InstanceLock::take(&control).err().unwrap();
        assert!(
            refused.contains(&format!("(pid {})", std::process::id())),
            "{refused}"
        );
        assert_eq!(first.killed_before(), None);
        drop(first);
        let second = InstanceLock::take(&control).unwrap();
        assert_eq!(second.killed_before(), None);
        // As a kill would: nothing is dropped but the lock.
        let file = second._file.try_clone().unwrap();
        flock(&file, FlockOperation::Unlock).unwrap();
        std::mem::forget(second);
        let third = InstanceLock::take(&control).unwrap();
        let pid = std::process::id().to_string();
        assert_eq!(third.killed_before(), Some(pid.as_str()));
        assert_eq!(fs::read_to_string(&third.path).unwrap(), pid);
    }

    #[test]
    fn a_dead_masters_socket_is_replaced_and_all_files_go_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let control = folder.path().join("control.sock");
        drop(UnixListener::bind(&control).unwrap());
        let mut lock = InstanceLock::take(&control).unwrap();
        let _listener = lock.bind_control().unwrap();
        lock.write_pid_file(&folder.path().join("pid")).unwrap();
        let mode = fs::metadata(&control).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(lock);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let control = folder.path().join("precious.txt");
        fs::write(&control, "x").unwrap();
        let lock = InstanceLock::take(&control).unwrap();
        assert!(lock.bind_control().is_err());
        assert!(control.exists());
    }
}
