//! Reading a file of the config: a regular one and not too large, so that nothing that an operator or a link names keeps the
//! gateway waiting or takes its memory.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// Opens a regular file for reading. A pipe without a writer, or a device, is refused and not waited for.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32)
        .open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is not a regular file")),
    }
}

/// Opens a file for appending that nobody but its user may read, and makes it where it is missing. Follows no link.
pub fn open_private(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32)
        .open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    match found.mode() & 0o077 {
        0 => Ok(file),
        _ => Err(io::Error::other(
            "others may read it or write to it: expected mode 0600",
        )),
    }
}

/// All bytes of a file; more than `limit_bytes` are refused, however large the file was when it was opened.
pub fn read_regular(path: &Path, limit_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?
        .take(limit_bytes.saturating_add(1))
        .read_to_end(&mut bytes)?;
    match bytes.len() as u64 > limit_bytes {
        true => Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is larger than {} KiB", limit_bytes / 1024),
        )),
        false => Ok(bytes),
    }
}

/// Size limit of all files of a config, those of `from_file` included.
pub(super) const MAX_BYTES: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    #[test]
    fn what_is_private_is_opened_only_where_it_is() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        open_private(&path).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        symlink(&path, folder.path().join("link")).unwrap();
        open_private(&folder.path().join("link")).unwrap_err();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        let refused = open_private(&path).unwrap_err().to_string();
        assert!(refused.contains("expected mode 0600"), "{refused}");
    }

    #[test]
    fn only_regular_files_of_some_size_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, vec![b'x'; 2048]).unwrap();
        assert_eq!(read_regular(&path, 2048).unwrap().len(), 2048);
        let refused = |path: &Path| read_regular(path, 2047).unwrap_err().to_string();
        assert_eq!(refused(&path), "it is larger than 1 KiB");
        let pipe = folder.path().join("pipe");
        mkfifoat(CWD, &pipe, Mode::RUSR | Mode::WUSR).unwrap();
        for path in [&pipe, folder.path(), Path::new("/dev/zero")] {
            assert_eq!(refused(path), "it is not a regular file");
        }
    }
}
