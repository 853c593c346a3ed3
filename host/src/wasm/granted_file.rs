//! Files that plugins may read, as a worker has them: each version in a memory file, which the master has made and sealed.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::{Errno, pread};

/// Files by their paths.
pub type GrantedFiles = BTreeMap<PathBuf, Arc<GrantedFile>>;

/// A file, whose version changes when the master has read another.
#[derive(Debug)]
pub struct GrantedFile {
    current: Mutex<Arc<FileVersion>>,
}

/// Contents of a file at some time. They never change: the memory file is sealed.
#[derive(Debug)]
pub struct FileVersion {
    pub memory: OwnedFd,
    pub len: u64,
    /// Number that other contents have another of. Below 2⁶³.
    pub number: u64,
}

impl GrantedFile {
    pub fn new(version: FileVersion) -> Arc<Self> {
        let current = Mutex::new(Arc::new(version));
        Arc::new(Self { current })
    }

    /// Version for who reads from now on. Others keep theirs until they have done.
    pub fn replace(&self, version: FileVersion) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        *current = Arc::new(version);
    }

    pub(super) fn current(&self) -> Arc<FileVersion> {
        Arc::clone(&self.current.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl FileVersion {
    /// Fills `room` from `offset` on, and returns how much there was.
    pub(super) fn read_at(&self, offset: u64, room: &mut [u8]) -> Result<usize, Errno> {
        let mut filled = 0;
        while filled < room.len() {
            let at = offset.saturating_add(filled as u64);
            if at >= self.len {
                break;
            }
            match pread(&self.memory, &mut room[filled..], at) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn no_offset_reads_beyond_the_end() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        let version = FileVersion {
            memory: file.into(),
            len: 10,
            number: 1,
        };
        let read = |offset, most: usize| {
            let mut room = vec![0; most];
            let read = version.read_at(offset, &mut room).unwrap();
            room.truncate(read);
            String::from_utf8(room).unwrap()
        };
        assert_eq!(read(0, 3), "012");
        assert_eq!(read(7, 100), "789");
        for offset in [10, 11, i64::MAX as u64, u64::MAX] {
            assert_eq!(read(offset, 5), "");
        }
    }
}
