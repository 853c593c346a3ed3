//! A file that is granted to a plugin.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

/// A file that a plugin may read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantedFile {
    /// Path as the config has it, by which the plugin asks.
    pub name: String,
    /// Folder that no link of the path leads out of.
    pub folder: PathBuf,
    /// Path from there.
    pub path: PathBuf,
    /// `FILE:LINE:COLUMN`.
    pub place: String,
}

impl GrantedFile {
    /// The absolute path.
    pub fn whole_path(&self) -> PathBuf {
        self.folder.join(&self.path)
    }

    /// Opens a regular file, and waits for nothing. The error is for a person.
    pub fn open(&self) -> io::Result<File> {
        let folder = open(
            &self.folder,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let opened = openat2(&folder, &self.path, flags, Mode::empty(), resolve);
        let file = opened.map(File::from).map_err(|error| match error {
            Errno::XDEV => io::Error::other(format!("it leads out of {}", self.folder.display())),
            error => error.into(),
        })?;
        match file.metadata()?.is_file() {
            true => Ok(file),
            false => Err(io::Error::other("it is not a regular file")),
        }
    }
}
