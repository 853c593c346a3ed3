//! Spill files: one for each worker, for requests' bodies that are kept on disk. The master opens them, since workers open no
//! files there.
//!
//! A spill file has no name: it is gone with the last process that has it open, however that ends. Only its worker reads it.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::config::Config;
use crate::runtime::random;

/// Looks whether the config's spill files can be made, if it has any. The error is a line for a person.
pub fn check(config: &Config) -> Result<(), String> {
    open(config).map(drop)
}

/// Opens the spill file of a new worker; `None` where the config has none. A folder that has become bad since the config was
/// loaded is told, and the worker does without: it serves, and sends no body again that is more than is kept in memory.
pub fn open_for_worker(config: &Config) -> Option<OwnedFd> {
    open(config).unwrap_or_else(|error| {
        tracing::error!("{error}: bodies are kept in memory alone");
        None
    })
}

fn open(config: &Config) -> Result<Option<OwnedFd>, String> {
    let spill = config.workers.spill.as_ref();
    let Some(dir) = spill.map(|spill| &spill.dir).filter(|_| config.spills()) else {
        return Ok(None);
    };
    let file = unnamed(dir).or_else(|error| match error {
        // File systems without unnamed files, such as NFS, and what is no folder.
        Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL => named_for_a_moment(dir),
        error => Err(error.into()),
    });
    file.map(Some).map_err(|error| {
        let folder = dir.path.display();
        format!("{}: spill_dir {folder}: {error}", dir.place)
    })
}

/// A file that never has a name.
fn unnamed(dir: &Path) -> Result<OwnedFd, Errno> {
    // With EXCL nobody can give it one.
    let flags = OFlags::TMPFILE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
    openat(CWD, dir, flags, PRIVATE)
}

/// A file that loses its name at once. A master that is killed in between leaves it, empty.
fn named_for_a_moment(dir: &Path) -> io::Result<OwnedFd> {
    let path = dir.join(format!(".castling-spill-{:016x}", random::next()));
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::RDWR | OFlags::CLOEXEC;
    let file = openat(CWD, &path, flags, PRIVATE)?;
    fs::remove_file(&path)?;
    Ok(file)
}

const PRIVATE: Mode = Mode::from_raw_mode(0o600);

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::{FileExt, MetadataExt};

    use super::*;

    #[test]
    fn a_spill_file_is_private_and_has_no_name() {
        let folder = tempfile::tempdir().unwrap();
        let files = [
            unnamed(folder.path()).unwrap(),
            named_for_a_moment(folder.path()).unwrap(),
        ];
        for file in files.map(File::from) {
            file.write_all_at(b"abc", 1 << 20).unwrap();
            let found = file.metadata().unwrap();
            assert_eq!((found.mode() & 0o777, found.nlink()), (0o600, 0));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(named_for_a_moment(&folder.path().join("missing")).is_err());
    }
}
