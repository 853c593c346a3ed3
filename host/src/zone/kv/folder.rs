//! The folder of a kv zone: made by the master, marked with what it is, opened by workers.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

use heed::Env;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};

use super::{KvZone, Table, map_bytes, open_table, store_error};
use crate::zone::{ZoneError, check_name, check_size, raw};

/// Result of [`prepare_kv`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prepared {
    /// The zone was there, with its contents.
    Kept,
    /// The zone is new and empty.
    Made,
}

/// Makes the folder of a kv zone, or finds it made already. For the master, before it starts the workers that open it.
///
/// The parent must exist. It should lie in memory (`/dev/shm`, a run folder). All space is taken at once, where the
/// file system can. A folder from before the last boot, and one whose making was broken off, is made anew.
///
/// Fails, and changes nothing, when a zone of another name, size or version is there, or something that is no zone, or
/// a folder that other users own or may enter. The master's process does not keep the zone open: what workers write
/// cannot hurt it.
pub fn prepare_kv(folder: &Path, name: &str, size_bytes: u64) -> Result<Prepared, ZoneError> {
    check_name(name)?;
    check_size(name, size_bytes, KvZone::MIN_BYTES, KvZone::MAX_BYTES)?;
    let wanted = Marker::new(name, size_bytes)?;
    match DirBuilder::new().mode(PRIVATE).create(folder) {
        Err(cause) if cause.kind() != ErrorKind::AlreadyExists => return Err(file(folder)(cause)),
        Ok(()) | Err(_) => {}
    }
    must_be_private(folder, name, geteuid().as_raw())?;
    match Marker::read(folder, name)? {
        Some(found) if found.boot == wanted.boot => {
            found.must_be(&wanted, name)?;
            return Ok(Prepared::Kept);
        }
        Some(found) => {
            // Files of an earlier boot may be torn on a disk: nothing was ever synced.
            found.must_be(&wanted, name)?;
            remove_files(folder)?;
        }
        None => {
            only_ours(folder, name)?;
            remove_files(folder)?;
        }
    }
    let (env, _) = open(folder, name, size_bytes)?;
    reserve(&folder.join(DATA_FILE), map_bytes(size_bytes))?;
    drop(env);
    wanted.write(folder)?;
    Ok(Prepared::Made)
}

/// Lets the processes of another user open a prepared zone. For a master that is root and no worker of it.
///
/// Its data belong to that user then. Folder and marker stay root's, and others may pass through it to what they know
/// the name of: who has taken over a worker cannot put something else into a place where root will look.
pub fn lend_kv(folder: &Path, uid: u32, gid: u32) -> Result<(), ZoneError> {
    fs::set_permissions(folder, fs::Permissions::from_mode(PASSABLE)).map_err(file(folder))?;
    // Root reads it before each generation, and an earlier version has lent it, too.
    let marker = folder.join(MARKER_FILE);
    lchown(&marker, Some(ROOT), Some(ROOT))
        .and_then(|()| fs::set_permissions(&marker, fs::Permissions::from_mode(READABLE)))
        .map_err(file(&marker))?;
    for path in [DATA_FILE, LOCK_FILE].map(|name| folder.join(name)) {
        // Owners change by name and not by descriptor: LMDB's lock, see `LOCK_FILE`.
        lchown(&path, Some(uid), Some(gid)).map_err(file(&path))?;
    }
    Ok(())
}

/// Removes a kv zone that no process has open any more. A folder that is not there is no error.
///
/// Fails when the folder holds anything else too.
pub fn remove_kv(folder: &Path) -> Result<(), ZoneError> {
    remove_files(folder)?;
    match fs::remove_dir(folder) {
        Err(cause) if cause.kind() != ErrorKind::NotFound => Err(file(folder)(cause)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Opens a prepared folder, in a worker. It must belong to the worker's user, or to root, who has lent it.
pub(super) fn open_prepared(
    folder: &Path,
    name: &str,
    size_bytes: u64,
) -> Result<(Env, Table), ZoneError> {
    must_be_private(folder, name, ROOT)?;
    let wanted = Marker::new(name, size_bytes)?;
    let found = Marker::read(folder, name)?.ok_or_else(|| ZoneError::Damaged {
        zone: name.to_owned(),
        what: format!("{} is not prepared", folder.display()),
    })?;
    found.must_be(&wanted, name)?;
    if found.boot != wanted.boot {
        return Err(mismatch(name, "boot", found.boot, &wanted.boot));
    }
    open(folder, name, size_bytes)
}

fn open(folder: &Path, name: &str, size_bytes: u64) -> Result<(Env, Table), ZoneError> {
    let store = |cause| store_error(name, cause);
    let env = raw::open_env(folder, map_bytes(size_bytes), READERS_MAX).map_err(store)?;
    env.clear_stale_readers().map_err(store)?;
    let table = open_table(&env).map_err(store)?;
    Ok((env, table))
}

/// Processes that may have one zone open at once, of all generations that are still there.
const READERS_MAX: u32 = 1024;

/// Says what the folder is. Written last, so a folder without it was never used.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Marker {
    format: u32,
    kind: String,
    name: String,
    size_bytes: u64,
    /// The kernel's id of this boot.
    boot: String,
}

impl Marker {
    fn new(name: &str, size_bytes: u64) -> Result<Self, ZoneError> {
        let path = Path::new("/proc/sys/kernel/random/boot_id");
        let boot = fs::read_to_string(path).map_err(file(path))?;
        Ok(Self {
            format: FORMAT,
            kind: "kv".to_owned(),
            name: name.to_owned(),
            size_bytes,
            boot: boot.trim().to_owned(),
        })
    }

    fn read(folder: &Path, zone: &str) -> Result<Option<Self>, ZoneError> {
        let path = folder.join(MARKER_FILE);
        let opened = match File::open(&path) {
            Ok(opened) => opened,
            Err(cause) if cause.kind() == ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(file(&path)(cause)),
        };
        let mut text = Vec::new();
        let read = opened.take(MARKER_LIMIT_BYTES).read_to_end(&mut text);
        read.map_err(file(&path))?;
        let damaged = |cause: String| ZoneError::Damaged {
            zone: zone.to_owned(),
            what: format!("{}: {cause}", path.display()),
        };
        if text.len() as u64 == MARKER_LIMIT_BYTES {
            return Err(damaged("it is too long".to_owned()));
        }
        let marker = serde_json::from_slice(&text).map_err(|cause| damaged(cause.to_string()))?;
        Ok(Some(marker))
    }

    /// Under a temporary name first: it is there whole or not at all.
    fn write(&self, folder: &Path) -> Result<(), ZoneError> {
        let path = folder.join(MARKER_NEW_FILE);
        let text = serde_json::to_vec(self).map_err(io::Error::from);
        text.and_then(|text| File::create(&path)?.write_all(&text))
            .and_then(|()| fs::rename(&path, folder.join(MARKER_FILE)))
            .map_err(file(&path))
    }

    fn must_be(&self, wanted: &Self, zone: &str) -> Result<(), ZoneError> {
        let differs = |what, found: &dyn ToString, expected: &dyn ToString| {
            mismatch(zone, what, found.to_string(), &expected.to_string())
        };
        if self.format != wanted.format {
            return Err(differs("version", &self.format, &wanted.format));
        }
        if self.kind != wanted.kind {
            return Err(differs("kind", &self.kind, &wanted.kind));
        }
        if self.name != wanted.name {
            return Err(differs("name", &self.name, &wanted.name));
        }
        if self.size_bytes != wanted.size_bytes {
            return Err(differs("size", &self.size_bytes, &wanted.size_bytes));
        }
        Ok(())
    }
}

/// Version of the format of marker, keys and values.
const FORMAT: u32 = 1;

/// Size limit of a marker: far more than one with the longest name has.
const MARKER_LIMIT_BYTES: u64 = 4096;

const MARKER_FILE: &str = "zone.json";
const MARKER_NEW_FILE: &str = "zone.json.new";
const DATA_FILE: &str = "data.mdb";
// Never open the lock file here while a zone is open: closing it would drop LMDB's own lock on it (fcntl locks belong
// to the process, not to the descriptor).
const LOCK_FILE: &str = "lock.mdb";
const FILES: [&str; 4] = [MARKER_FILE, MARKER_NEW_FILE, DATA_FILE, LOCK_FILE];

/// Refuses a folder into which somebody else may have put anything: its files are mapped and believed. It belongs to
/// this user, or to the other one that is named.
fn must_be_private(folder: &Path, zone: &str, or_to: u32) -> Result<(), ZoneError> {
    let found = fs::symlink_metadata(folder).map_err(file(folder))?;
    if !found.is_dir() {
        return Err(mismatch(
            zone,
            "its place",
            folder.display().to_string(),
            "a folder",
        ));
    }
    let ours = geteuid().as_raw();
    if found.uid() != ours && found.uid() != or_to {
        let expected = ours.to_string();
        return Err(mismatch(
            zone,
            "owner of its folder",
            found.uid().to_string(),
            &expected,
        ));
    }
    let mode = found.mode() & 0o777;
    if mode != PRIVATE && mode != PASSABLE {
        let (found, expected) = (format!("{mode:o}"), format!("{PRIVATE:o}"));
        return Err(mismatch(zone, "mode of its folder", found, &expected));
    }
    Ok(())
}

/// The user and nobody else may enter.
const PRIVATE: u32 = 0o700;
/// Mode of a folder that others may pass through to a file of theirs.
const PASSABLE: u32 = 0o711;
/// Mode of a marker that other users' workers read.
const READABLE: u32 = 0o644;
const ROOT: u32 = 0;

/// The marker first, so that what is left by a remover that dies is a folder never used.
fn remove_files(folder: &Path) -> Result<(), ZoneError> {
    for path in FILES.map(|name| folder.join(name)) {
        match fs::remove_file(&path) {
            Err(cause) if cause.kind() != ErrorKind::NotFound => return Err(file(&path)(cause)),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// A folder that somebody uses for something else is not ours to clear.
fn only_ours(folder: &Path, zone: &str) -> Result<(), ZoneError> {
    for entry in fs::read_dir(folder).map_err(file(folder))? {
        let name = entry.map_err(file(folder))?.file_name();
        if !FILES.iter().any(|ours| name == *ours) {
            return Err(ZoneError::Damaged {
                zone: zone.to_owned(),
                what: format!("{} holds {name:?}, which is not a zone's", folder.display()),
            });
        }
    }
    Ok(())
}

/// Takes the space now, so that a full file system shows here and not at a write.
fn reserve(path: &Path, size_bytes: usize) -> Result<(), ZoneError> {
    let data = File::options().write(true).open(path).map_err(file(path))?;
    match fallocate(&data, FallocateFlags::empty(), 0, size_bytes as u64) {
        // Some file systems cannot reserve. A write may then fail with the file system's error.
        Ok(()) | Err(Errno::OPNOTSUPP) => Ok(()),
        Err(cause) => Err(file(path)(cause.into())),
    }
}

fn file(path: &Path) -> impl Fn(io::Error) -> ZoneError + use<> {
    let path: PathBuf = path.to_owned();
    move |cause| ZoneError::File {
        path: path.clone(),
        cause,
    }
}

fn mismatch(zone: &str, what: &'static str, found: String, expected: &str) -> ZoneError {
    ZoneError::Mismatch {
        zone: zone.to_owned(),
        what,
        found,
        expected: expected.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zone::{Expected, Key};

    const SIZE: u64 = KvZone::MIN_BYTES;

    fn private(folder: &Path) -> io::Result<()> {
        DirBuilder::new().mode(PRIVATE).create(folder)
    }

    #[test]
    fn a_folder_that_others_may_enter_is_refused() {
        let parent = tempfile::tempdir().expect("folder");
        let folder = parent.path().join("sessions");
        let refused = || {
            let refused = prepare_kv(&folder, "sessions", SIZE);
            refused.expect_err("exposed").to_string()
        };
        DirBuilder::new()
            .mode(0o755)
            .create(&folder)
            .expect("folder");
        assert_eq!(
            refused(),
            "zone sessions: mode of its folder is 755, expected 700"
        );
        fs::remove_dir(&folder).expect("empty");
        std::os::unix::fs::symlink(parent.path(), &folder).expect("link");
        assert!(refused().contains("expected a folder"));
    }

    #[test]
    fn a_folder_is_made_once_and_then_kept() {
        let parent = tempfile::tempdir().expect("folder");
        let folder = parent.path().join("sessions");
        assert_eq!(
            prepare_kv(&folder, "sessions", SIZE).expect("made"),
            Prepared::Made
        );
        let zone = KvZone::open(&folder, "sessions", SIZE).expect("open");
        let key = Key::new(b"k").expect("short");
        zone.put(&key, b"v", None, Expected::Anything, 0)
            .expect("room");
        assert_eq!(
            prepare_kv(&folder, "sessions", SIZE).expect("kept"),
            Prepared::Kept
        );
        assert!(
            KvZone::open(&folder, "sessions", SIZE).is_err(),
            "once a process"
        );
        drop(zone);
        let zone = KvZone::open(&folder, "sessions", SIZE).expect("open");
        let value = zone.read(&key, 0, <[u8]>::to_vec);
        assert_eq!(value.expect("readable").expect("there"), b"v");
        drop(zone);
        remove_kv(&folder).expect("removed");
        remove_kv(&folder).expect("no error");
        assert!(KvZone::open(&folder, "sessions", SIZE).is_err());
    }

    #[test]
    fn what_is_something_else_is_refused_and_left() {
        let parent = tempfile::tempdir().expect("folder");
        let folder = parent.path().join("sessions");
        prepare_kv(&folder, "sessions", SIZE).expect("made");
        let refused = |name, size| {
            prepare_kv(&folder, name, size)
                .expect_err("another")
                .to_string()
        };
        assert_eq!(
            refused("other", SIZE),
            "zone other: name is sessions, expected other"
        );
        assert_eq!(
            refused("sessions", SIZE * 2),
            "zone sessions: size is 1048576, expected 2097152"
        );
        fs::write(folder.join(MARKER_FILE), "{}").expect("written");
        assert!(refused("sessions", SIZE).contains("zone.json: missing field"));
        let endless = File::create(folder.join(MARKER_FILE)).expect("written");
        endless.set_len(1 << 40).expect("no space taken");
        assert!(refused("sessions", SIZE).contains("zone.json: it is too long"));

        let foreign = parent.path().join("foreign");
        private(&foreign).expect("folder");
        fs::write(foreign.join("letter"), "").expect("written");
        assert!(matches!(
            prepare_kv(&foreign, "sessions", SIZE),
            Err(ZoneError::Damaged { .. })
        ));
        assert!(foreign.join("letter").exists());
        assert!(prepare_kv(&folder, "sessions", 5).is_err());
    }

    #[test]
    fn half_made_ones_and_those_of_an_earlier_boot_are_made_anew() {
        let parent = tempfile::tempdir().expect("folder");
        let folder = parent.path().join("sessions");
        private(&folder).expect("folder");
        fs::write(folder.join(DATA_FILE), "half").expect("written");
        assert_eq!(
            prepare_kv(&folder, "sessions", SIZE).expect("made"),
            Prepared::Made
        );

        let mut marker = Marker::read(&folder, "").expect("good").expect("there");
        marker.boot = "earlier".to_owned();
        marker.write(&folder).expect("written");
        fs::write(folder.join(DATA_FILE), "torn").expect("written");
        assert!(KvZone::open(&folder, "sessions", SIZE).is_err());
        assert_eq!(
            prepare_kv(&folder, "sessions", SIZE).expect("made"),
            Prepared::Made
        );
        assert!(KvZone::open(&folder, "sessions", SIZE).is_ok());
    }

    #[test]
    fn what_root_reads_is_not_lent() {
        if !geteuid().is_root() {
            eprintln!("SKIPPED, needs root: {}:{}", file!(), line!());
            return;
        }
        let parent = tempfile::tempdir().expect("folder");
        let folder = parent.path().join("sessions");
        prepare_kv(&folder, "sessions", SIZE).expect("made");
        lchown(folder.join(MARKER_FILE), Some(12345), Some(12345)).expect("as before");
        lend_kv(&folder, 12345, 12345).expect("lent");
        let found = |name: &str| fs::metadata(folder.join(name)).expect("there");
        assert_eq!(found(DATA_FILE).uid(), 12345);
        assert_eq!(found(LOCK_FILE).uid(), 12345);
        assert_eq!(found(MARKER_FILE).uid(), ROOT);
        assert_eq!(found(MARKER_FILE).mode() & 0o777, READABLE);
    }

    #[test]
    fn a_store_that_is_none_is_an_error() {
        let parent = tempfile::tempdir().expect("folder");
        let folder = parent.path().join("sessions");
        prepare_kv(&folder, "sessions", SIZE).expect("made");
        fs::write(folder.join(DATA_FILE), [1; 8192]).expect("written");
        let error = KvZone::open(&folder, "sessions", SIZE).expect_err("damaged");
        assert!(matches!(error, ZoneError::Damaged { .. }), "{error}");
    }
}
