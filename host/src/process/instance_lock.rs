//! Instance lock: each control socket has one gateway, and files say so.

use std::cell::Cell;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use rustix::process::umask;

use crate::config::PlacedPath;

/// Held for the master's life; the system lets go of it when the process ends, however it ends. What lies at the
/// control socket's path while nobody holds the lock is a dead master's.
///
/// The lock belongs to the open file: a master that is handed the descriptor holds it, too.
pub struct InstanceLock {
    /// Locked.
    file: File,
    path: PathBuf,
    control: PlacedPath,
    pid_file: Option<PlacedPath>,
    /// The files are this master's to remove.
    owns_files: bool,
    killed_before: Option<String>,
    /// Device and inode of the control socket that this master has put up.
    own_control: Cell<Option<(u64, u64)>>,
    /// Device and inode of the pid file that this master has put up.
    own_pid_file: Cell<Option<(u64, u64)>>,
}

impl InstanceLock {
    /// Creates the folder of the control socket where it is missing. Fails when another gateway holds the lock.
    pub fn take(control: &PlacedPath, pid_file: Option<&PlacedPath>) -> Result<Self, String> {
        let about = |error: io::Error| about_control(control, &error);
        if let Some(folder) = control.parent() {
            fs::create_dir_all(folder).map_err(about)?;
        }
        let path = lock_path(control);
        loop {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(OFlags::NOFOLLOW.bits() as i32)
                .open(&path)
                .map_err(about)?;
            must_be_plain(&file).map_err(about)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if is_at(&file, &path) => {}
                // The gateway that held it has ended and removed it meanwhile: it was not the lock any more.
                Ok(()) => continue,
                Err(Errno::WOULDBLOCK) => return Err(already_running(&mut file, control)),
                Err(error) => return Err(about(error.into())),
            }
            // A gateway that ended in order has removed the file, and one that was killed has left its pid in it.
            let mut before = String::new();
            // A file that cannot be read says nothing.
            let _ = (&mut file).take(PID_DIGITS).read_to_string(&mut before);
            let is_pid = !before.is_empty() && before.bytes().all(|byte| byte.is_ascii_digit());
            return Ok(Self {
                file,
                path,
                control: control.clone(),
                pid_file: pid_file.cloned(),
                owns_files: true,
                killed_before: is_pid.then_some(before),
                own_control: Cell::default(),
                own_pid_file: Cell::default(),
            });
        }
    }

    /// The pid of the gateway before, when that one was killed.
    pub fn killed_before(&self) -> Option<&str> {
        self.killed_before.as_deref()
    }

    /// The lock of a master that hands it over and still owns the files. Fails when the descriptor is not the lock's.
    pub fn inherit(
        file: File,
        control: PlacedPath,
        pid_file: Option<PlacedPath>,
    ) -> Result<Self, String> {
        let path = lock_path(&control);
        if !is_at(&file, &path) {
            return Err(format!(
                "what was handed over as the lock is not {}",
                path.display()
            ));
        }
        Ok(Self {
            file,
            path,
            control,
            pid_file,
            owns_files: false,
            killed_before: None,
            own_control: Cell::default(),
            own_pid_file: Cell::default(),
        })
    }

    /// The lock's file, for the master that it is handed to.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Puts this process into the place that commands and tools find: the control socket, for the master's user only, and
    /// the pid file. A dead or an old master's are replaced, without a moment that has none; a file that is no
    /// socket is not.
    pub fn put_up_files(&self) -> Result<UnixListener, String> {
        let listener = self.put_up_control()?;
        self.put_up_pid_file()?;
        Ok(listener)
    }

    /// The control socket that lies there is the one that this master has put up.
    pub fn has_control(&self) -> bool {
        let there = identity(&self.control);
        there.is_some() && there == self.own_control.get()
    }

    /// The control socket alone.
    pub fn put_up_control(&self) -> Result<UnixListener, String> {
        let bound = self
            .write_pid_into_lock()
            .and_then(|()| self.bind_control());
        bound.map_err(|error| about_control(&self.control, &error))
    }

    /// The pid file alone, where there is to be one.
    pub fn put_up_pid_file(&self) -> Result<(), String> {
        match &self.pid_file {
            Some(path) => {
                let made = write_pid_file(path);
                let made =
                    made.map_err(|e| format!("{}: pid file {}: {e}", path.place, path.display()))?;
                self.own_pid_file.set(Some(made));
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Says whose the files are from now on, this master's or another's.
    pub fn set_owner(&mut self, is_owner: bool) {
        self.owns_files = is_owner;
    }

    fn write_pid_into_lock(&self) -> io::Result<()> {
        let pid = std::process::id().to_string();
        self.file.set_len(0)?;
        // The offset is shared with a master that has the descriptor, too.
        self.file.write_all_at(pid.as_bytes(), 0)
    }

    fn bind_control(&self) -> io::Result<UnixListener> {
        match fs::symlink_metadata(&*self.control) {
            Ok(found) if found.file_type().is_socket() => {}
            Ok(_) => {
                return Err(io::Error::other("a file that is no socket is in its place"));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let draft = draft_of(&self.control);
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let before = umask(Mode::from_raw_mode(0o177));
        let listener = UnixListener::bind(&draft);
        umask(before);
        let listener = listener?;
        listener.set_nonblocking(true)?;
        let made = fs::symlink_metadata(&draft)?;
        fs::rename(&draft, &*self.control)?;
        self.own_control.set(Some((made.dev(), made.ino())));
        Ok(listener)
    }
}

impl Drop for InstanceLock {
    fn drop(&mut self) {
        if !self.owns_files {
            return;
        }
        // The lock goes last: until then all of this is ours. Files that others have put there meanwhile stay, and what cannot
        // be removed is replaced by the next start.
        let own_pid = std::process::id().to_string();
        if let Some(pid_file) = &self.pid_file
            && self
                .own_pid_file
                .get()
                .is_some_and(|own| identity(pid_file) == Some(own))
            && fs::read_to_string(&**pid_file).is_ok_and(|pid| pid.trim() == own_pid)
        {
            let _ = fs::remove_file(&**pid_file);
        }
        if self.has_control() {
            let _ = fs::remove_file(&*self.control);
        }
        if is_at(&self.file, &self.path) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn about_control(control: &PlacedPath, error: &io::Error) -> String {
    let (place, control) = (&control.place, control.display());
    format!("{place}: control socket {control}: {error}")
}

/// Device and inode of what lies there, a link's own.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let there = fs::symlink_metadata(path).ok()?;
    Some((there.dev(), there.ino()))
}

fn lock_path(control: &Path) -> PathBuf {
    let mut path = control.as_os_str().to_owned();
    path.push(".lock");
    PathBuf::from(path)
}

/// A path beside the socket, as long as its name, which the system bounds (108 bytes, unix(7)).
fn draft_of(control: &Path) -> PathBuf {
    let mut draft = control.as_os_str().as_bytes().to_vec();
    if let Some(last) = draft.last_mut() {
        *last = if *last == b'~' { b'#' } else { b'~' };
    }
    PathBuf::from(OsString::from_vec(draft))
}

/// Writes the pid file so that there is a whole pid in it at any moment. Returns its device and inode.
fn write_pid_file(path: &Path) -> io::Result<(u64, u64)> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    // A file that somebody else has put there is removed, not written into, be it a link to another file.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = File::create_new(&draft)?;
    writeln!(file, "{}", std::process::id())?;
    let made = file.metadata()?;
    fs::rename(&draft, path).inspect_err(|_| {
        // The error that counts is the first.
        let _ = fs::remove_file(&draft);
    })?;
    Ok((made.dev(), made.ino()))
}

/// Refuses a lock that is another file's second name: the lock is emptied and written to, which would cost that file's
/// contents.
fn must_be_plain(lock: &File) -> io::Result<()> {
    let found = lock.metadata()?;
    // A file without a name was removed meanwhile, in order.
    if found.is_file() && found.nlink() <= 1 {
        return Ok(());
    }
    Err(io::Error::other(
        "what is in the place of its lock is no plain file with one name",
    ))
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

fn already_running(lock: &mut File, control: &Path) -> String {
    let mut pid = String::new();
    // A lock that cannot be read leaves the message without a pid.
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

/// Bytes read of a lock: more than a pid has.
const PID_DIGITS: u64 = 20;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn placed(path: impl Into<PathBuf>) -> PlacedPath {
        PlacedPath {
            path: path.into(),
            place: "site.toml:2:11".to_owned(),
        }
    }

    #[test]
    fn a_second_gateway_is_refused_until_the_first_has_ended() {
        let folder = tempfile::tempdir().unwrap();
        let control = placed(folder.path().join("run/control.sock"));
        let first = InstanceLock::take(&control, None).unwrap();
        let _listener = first.put_up_files().unwrap();
        let refused = InstanceLock::take(&control, None).err().unwrap();
        assert!(
            refused.contains(&format!("(pid {})", std::process::id())),
            "{refused}"
        );
        assert_eq!(first.killed_before(), None);
        drop(first);
        let second = InstanceLock::take(&control, None).unwrap();
        assert_eq!(second.killed_before(), None);
        let _listener = second.put_up_files().unwrap();
        // Nothing is dropped but the lock, as by a kill.
        let file = second.file.try_clone().unwrap();
        flock(&file, FlockOperation::Unlock).unwrap();
        std::mem::forget(second);
        let third = InstanceLock::take(&control, None).unwrap();
        let pid = std::process::id().to_string();
        assert_eq!(third.killed_before(), Some(pid.as_str()));
    }

    #[test]
    fn a_dead_masters_socket_is_replaced_and_all_files_go_at_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let control = placed(folder.path().join("control.sock"));
        drop(UnixListener::bind(&*control).unwrap());
        let lock =
            InstanceLock::take(&control, Some(&placed(folder.path().join("run/pid")))).unwrap();
        let _listener = lock.put_up_files().unwrap();
        let mode = fs::metadata(&*control).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let pid = fs::read_to_string(folder.path().join("run/pid")).unwrap();
        assert_eq!(pid, format!("{}\n", std::process::id()));
        drop(lock);
        fs::remove_dir(folder.path().join("run")).unwrap();
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_lock_that_was_handed_over_is_held_by_both_and_its_files_are_the_owners() {
        let folder = tempfile::tempdir().unwrap();
        let control = placed(folder.path().join("control.sock"));
        let mut old = InstanceLock::take(&control, None).unwrap();
        let _old_listener = old.put_up_files().unwrap();
        let file = File::from(old.descriptor().try_clone_to_owned().unwrap());
        let mut new = InstanceLock::inherit(file, control.clone(), None).unwrap();
        assert!(old.has_control() && !new.has_control());
        let listener = new.put_up_files().unwrap();
        assert!(new.has_control() && !old.has_control());
        old.set_owner(false);
        new.set_owner(true);
        drop(old);
        assert!(InstanceLock::take(&control, None).is_err());
        let _client = std::os::unix::net::UnixStream::connect(&*control).unwrap();
        listener.accept().unwrap();
        drop(new);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);

        let other = tempfile::tempfile().unwrap();
        let refused = InstanceLock::inherit(other, control, None).err().unwrap();
        assert!(refused.contains("is not"), "{refused}");
    }

    #[test]
    fn what_others_have_put_in_the_place_of_its_files_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let control = placed(path("control.sock"));
        let lock = InstanceLock::take(&control, Some(&placed(path("pid")))).unwrap();
        let _listener = lock.put_up_files().unwrap();
        let names = ["control.sock", "control.sock.lock", "pid"];
        for name in names {
            fs::rename(path(name), path(&format!("old.{name}"))).unwrap();
        }
        let _others = UnixListener::bind(&*control).unwrap();
        fs::write(path("control.sock.lock"), "").unwrap();
        fs::write(path("pid"), std::process::id().to_string()).unwrap();
        drop(lock);
        for name in names {
            assert!(path(name).exists(), "{name}");
        }
    }

    #[test]
    fn nothing_is_written_through_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("precious"), "x").unwrap();
        let control = placed(path("control.sock"));
        let link_at =
            |name: &str| std::os::unix::fs::symlink(path("precious"), path(name)).unwrap();

        link_at("control.sock.lock");
        assert!(InstanceLock::take(&control, None).is_err());
        fs::remove_file(path("control.sock.lock")).unwrap();
        fs::hard_link(path("precious"), path("control.sock.lock")).unwrap();
        let refused = InstanceLock::take(&control, None).err().unwrap();
        assert!(
            refused.ends_with("is no plain file with one name"),
            "{refused}"
        );
        fs::remove_file(path("control.sock.lock")).unwrap();

        link_at("pid.new");
        let lock = InstanceLock::take(&control, Some(&placed(path("pid")))).unwrap();
        let _listener = lock.put_up_files().unwrap();
        let pid = fs::read_to_string(path("pid")).unwrap();
        assert_eq!(pid, format!("{}\n", std::process::id()));
        assert_eq!(fs::read_to_string(path("precious")).unwrap(), "x");
    }

    #[test]
    fn a_file_that_is_no_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let control = placed(folder.path().join("precious.txt"));
        fs::write(&*control, "x").unwrap();
        let lock = InstanceLock::take(&control, None).unwrap();
        let refused = lock.put_up_files().unwrap_err();
        assert!(
            refused.starts_with("site.toml:2:11: control socket "),
            "{refused}"
        );
        // Nor is it removed at the end.
        drop(lock);
        assert!(control.exists());
    }
}
