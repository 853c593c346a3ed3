//! How a log file is opened by a process that may do more than the user whom the file is for.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::process::geteuid;

use crate::config::Identity;

/// Opens a file for appending: several processes write to it, each line with one write.
///
/// Root who writes beside workers of another `user` follows no link and takes nothing but a plain file, unless nobody
/// but root can put something into the folder: that user could have a link to `/etc/passwd` in the file's place.
pub(super) fn open(path: &Path, user: Option<&Identity>) -> io::Result<File> {
    let Some(user) = user.filter(|_| geteuid().is_root() && !is_roots_alone(path)) else {
        return OpenOptions::new()
            .append(true)
            .create(true)
            .mode(NEW_LOG)
            .open(path);
    };
    let file = open_unfollowed(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other(
            "it is no plain file; expected one, or a folder that root alone may write to",
        ));
    }
    must_be_safe(&found, user)?;
    Ok(file)
}

/// Does not wait for a pipe's reader either. Fails for a link.
pub fn open_unfollowed(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(NEW_LOG)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32)
        .open(path)
}

/// Refuses a file that is not the user's, nor root's with this name alone: it could be a second name of `/etc/shadow`.
pub fn must_be_safe(found: &Metadata, user: &Identity) -> io::Result<()> {
    let is_roots = found.uid() == 0 && found.nlink() == 1;
    if is_roots || found.uid() == user.uid {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "it belongs to user {} and has {} names; expected a file of root's with one name, or one of user {}",
        found.uid(),
        found.nlink(),
        user.name
    )))
}

/// Whether only root may put something into the file's folder, or another folder into its place.
fn is_roots_alone(path: &Path) -> bool {
    let Some(Ok(folder)) = path.parent().map(fs::canonicalize) else {
        return false;
    };
    folder.ancestors().all(|folder| {
        fs::symlink_metadata(folder)
            .is_ok_and(|found| found.uid() == 0 && found.mode() & OTHERS_MAY_WRITE == 0)
    })
}

/// Mode of a log file that is made: its user writes, its group (log shippers, say) reads, and nobody else, since paths,
/// queries and addresses of clients are in it. A file that is there keeps its mode.
const NEW_LOG: u32 = 0o640;

const OTHERS_MAY_WRITE: u32 = 0o022;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{chown, symlink};

    use super::*;

    #[test]
    fn a_new_log_is_not_for_everybody() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new.log");
        assert_eq!(
            open(&path, None).unwrap().metadata().unwrap().mode() & 0o137,
            0
        );
        let path = folder.path().join("other.log");
        let made = open_unfollowed(&path).unwrap();
        assert_eq!(made.metadata().unwrap().mode() & 0o137, 0);
    }

    #[test]
    fn root_follows_no_link_that_the_workers_user_could_have_made() {
        if !geteuid().is_root() {
            eprintln!("SKIPPED, needs root: {}:{}", file!(), line!());
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let user = Identity {
            name: "somebody".to_owned(),
            uid: 12345,
            gid: 12345,
            place: String::new(),
        };
        chown(folder.path(), Some(12345), None).unwrap();
        open(&path("own.log"), Some(&user)).unwrap();
        chown(path("own.log"), Some(12345), None).unwrap();
        open(&path("own.log"), Some(&user)).unwrap();

        symlink(path("planted"), path("soft.log")).unwrap();
        assert!(open(&path("soft.log"), Some(&user)).is_err());
        assert!(!path("planted").exists());
        fs::write(path("precious"), "").unwrap();
        fs::hard_link(path("precious"), path("hard.log")).unwrap();
        let refused = open(&path("hard.log"), Some(&user)).unwrap_err();
        assert!(refused.to_string().contains("has 2 names"), "{refused}");

        // A link that no other user may write to is the operator's.
        open(&path("soft.log"), None).unwrap();
        open(Path::new("/dev/null"), Some(&user)).unwrap();
        assert!(is_roots_alone(Path::new("/dev/null")));
    }
}
