//! The folder of the master's kv zones (`[master] zone_store`), and what it takes to leave nothing in it behind.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::config::Identity;
use crate::zone::{Prepared, ZoneError, lend_kv, prepare_kv, remove_kv};

/// Store of kv zones. Held by one gateway at a time, by a lock that ends with the process however that ends. When the last handle is
/// dropped, zones and folder are gone.
///
/// A zone's folder in it is named by the zone's name and size, so that a zone whose size changes has a new folder while the
/// old generation still uses the old one, and a gateway whose master was killed finds its zones again.
pub struct ZoneStore {
    folder: PathBuf,
    /// The folder, locked. None once it is another master's.
    lock: RefCell<Option<File>>,
    /// Folders by the path that name and size give.
    in_use: RefCell<BTreeMap<PathBuf, Weak<ZoneFolder>>>,
    /// Workers of another master may have zones in it open: nothing is removed.
    shared: Cell<bool>,
}

/// A kv zone's folder. It is removed when no generation has it any more.
pub struct ZoneFolder {
    pub path: PathBuf,
    /// Path by which the store knows it.
    key: PathBuf,
    store: Rc<ZoneStore>,
}

impl ZoneStore {
    /// Makes the folder where it is missing. Fails when another gateway holds it, and when another user owns it or may
    /// write to it.
    pub fn open(folder: &Path) -> Result<Rc<Self>, String> {
        let about = |error: io::Error| format!("zone store {}: {error}", folder.display());
        loop {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(about)?;
            let found = fs::symlink_metadata(folder).map_err(about)?;
            check_owner(&found).map_err(|reason| about(io::Error::other(reason)))?;
            let lock = match File::open(folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened.map_err(about)?,
            };
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) if is_at(&lock, folder) => {}
                // The gateway that held it has ended and removed it meanwhile.
                Ok(()) => continue,
                Err(Errno::WOULDBLOCK) => {
                    return Err(about(io::Error::other("another gateway uses it")));
                }
                Err(error) => return Err(about(error.into())),
            }
            return Ok(Rc::new(Self {
                folder: folder.to_owned(),
                lock: RefCell::new(Some(lock)),
                in_use: RefCell::default(),
                shared: Cell::new(false),
            }));
        }
    }

    /// The store of a master that hands it over, by its lock. Nothing is removed until [`Self::is_alone`]. Fails when the
    /// descriptor is not the folder's.
    pub fn inherit(folder: &Path, lock: File) -> Result<Rc<Self>, String> {
        if !is_at(&lock, folder) {
            let folder = folder.display();
            return Err(format!(
                "what was handed over as the zone store is not {folder}"
            ));
        }
        Ok(Rc::new(Self {
            folder: folder.to_owned(),
            lock: RefCell::new(Some(lock)),
            in_use: RefCell::default(),
            shared: Cell::new(true),
        }))
    }

    /// The lock, for the master that it is handed to: a lock belongs to the open file, and whoever has its descriptor holds it.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        match &*self.lock.borrow() {
            Some(lock) => Ok(lock.try_clone()?.into()),
            None => Err(io::Error::other("it is another master's")),
        }
    }

    /// Leaves the store to another master: this one's generations still use it, and nothing is removed.
    pub fn let_go(&self) {
        self.shared.set(true);
        self.lock.take();
    }

    /// The master that has handed it over has ended: what only its generations had is removed, `at_most` so many, and from now
    /// on what no generation has any more.
    pub fn is_alone(&self, at_most: usize) {
        let still_ours = self.lock.borrow().is_some();
        if still_ours {
            self.shared.set(false);
            self.remove_left(at_most);
        }
    }

    /// The zone with this name and size: one that a generation has, or one that a master that was killed has left, or a
    /// new one.
    pub fn zone(self: &Rc<Self>, name: &str, size_bytes: u64) -> Result<Rc<ZoneFolder>, ZoneError> {
        let key = self.folder.join(format!("{name}.{size_bytes}"));
        let mut path = key.clone();
        let known = self.in_use.borrow().get(&key).and_then(Weak::upgrade);
        if let Some(known) = known {
            return Ok(known);
        }
        let prepared = match prepare_kv(&path, name, size_bytes) {
            // The master before this one still uses it.
            Err(error @ (ZoneError::Mismatch { .. } | ZoneError::Damaged { .. }))
                if self.shared.get() =>
            {
                tracing::warn!(zone = name, %error, "kv zone begins anew");
                let pid = std::process::id();
                path = self.folder.join(format!("{name}.new-{pid}.{size_bytes}"));
                prepare_kv(&path, name, size_bytes)?
            }
            // A zone of another version, or a damaged one, has nothing in it that could be used.
            Err(error @ (ZoneError::Mismatch { .. } | ZoneError::Damaged { .. })) => {
                tracing::warn!(zone = name, %error, "what is left of a kv zone is removed");
                remove_kv(&path)?;
                prepare_kv(&path, name, size_bytes)?
            }
            prepared => prepared?,
        };
        match prepared {
            Prepared::Kept => tracing::info!(zone = name, "kv zone found again, with its contents"),
            Prepared::Made => tracing::debug!(zone = name, "kv zone made"),
        }
        let store = Rc::clone(self);
        let zone = Rc::new(ZoneFolder { path, key, store });
        self.in_use
            .borrow_mut()
            .insert(zone.key.clone(), Rc::downgrade(&zone));
        Ok(zone)
    }

    /// Removes the zones that a master that was killed has left and that nobody has asked for since. Looks at so many
    /// at most.
    pub fn remove_left(&self, at_most: usize) {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return;
        };
        let named_so = |path: &PathBuf| {
            // An entry that is not named as a zone's folder is another's.
            let name = path.file_name().and_then(|name| name.to_str());
            name.and_then(|name| name.rsplit_once('.'))
                .is_some_and(|(_, size)| size.parse::<u64>().is_ok())
        };
        let paths = entries.take(at_most).flatten().map(|entry| entry.path());
        let in_use: Vec<_> = self
            .in_use
            .borrow()
            .values()
            .filter_map(Weak::upgrade)
            .collect();
        for path in paths.filter(named_so) {
            if !in_use.iter().any(|zone| zone.path == path) {
                tracing::info!(path = %path.display(), "kv zone of an earlier gateway removed");
                remove(&path);
            }
        }
    }
}

impl ZoneFolder {
    /// Lets workers that run as this user open it, where the master is root.
    pub fn lend(&self, identity: &Identity) -> Result<(), String> {
        if !geteuid().is_root() {
            return Ok(());
        }
        let folder = &self.store.folder;
        fs::set_permissions(folder, fs::Permissions::from_mode(PASSABLE))
            .map_err(|error| format!("zone store {}: {error}", folder.display()))?;
        lend_kv(&self.path, identity.uid, identity.gid).map_err(|error| error.to_string())
    }
}

/// Mode of a store whose zones are lent: others may pass through to these, and see nothing else.
const PASSABLE: u32 = 0o711;

impl Drop for ZoneStore {
    fn drop(&mut self) {
        if !self.shared.get() {
            // The folder stays where others have put something into it.
            let _ = fs::remove_dir(&self.folder);
        }
    }
}

impl Drop for ZoneFolder {
    fn drop(&mut self) {
        if !self.store.shared.get() {
            remove(&self.path);
        }
        self.store.in_use.borrow_mut().remove(&self.key);
    }
}

fn remove(path: &Path) {
    if let Err(error) = remove_kv(path) {
        tracing::warn!(path = %path.display(), %error, "a kv zone's folder cannot be removed");
    }
}

/// Refuses a folder that others may write to: workers map what lies in it. The error says whose it is and what to do.
fn check_owner(found: &fs::Metadata) -> Result<(), String> {
    let own = geteuid().as_raw();
    let (mode, owner) = (found.mode() & 0o7777, found.uid());
    let wrong = if !found.is_dir() {
        format!("it is no folder, and belongs to {}", user(owner))
    } else if owner != own {
        format!("it belongs to {}", user(owner))
    } else if mode & 0o022 != 0 {
        format!("others may write to it (mode {mode:o})")
    } else {
        return Ok(());
    };
    Err(format!(
        "{wrong}; expected a folder that belongs to {} and that no other may write to: remove it, or name another place by \
         `zone_store` in [master]",
        user(own)
    ))
}

/// `user mallory (1001)`.
fn user(uid: u32) -> String {
    match nix::unistd::User::from_uid(uid.into()) {
        Ok(Some(user)) => format!("user {} ({uid})", user.name),
        // A user without a name is told by number.
        Ok(None) | Err(_) => format!("user {uid}"),
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(open), Ok(there)) => (open.dev(), open.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::zone::{Expected, Key, KvZone};

    const SIZE: u64 = KvZone::MIN_BYTES;

    fn parent() -> (tempfile::TempDir, PathBuf) {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("zones");
        (parent, folder)
    }

    #[test]
    fn a_zone_lives_as_long_as_somebody_has_it_and_its_folder_goes_with_it() {
        let (parent, folder) = parent();
        let store = ZoneStore::open(&folder).unwrap();
        let first = store.zone("sessions", SIZE).unwrap();
        let again = store.zone("sessions", SIZE).unwrap();
        let larger = store.zone("sessions", 2 * SIZE).unwrap();
        assert!(Rc::ptr_eq(&first, &again));
        assert_ne!(first.path, larger.path);
        drop((store, first));
        assert!(again.path.exists());
        drop(again);
        assert!(larger.path.exists());
        drop(larger);
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_store_that_was_handed_over_loses_nothing_before_the_old_master_has_ended() {
        let (parent, folder) = parent();
        let old = ZoneStore::open(&folder).unwrap();
        let (both, only_old) = (old.zone("both", SIZE), old.zone("only_old", SIZE));
        let (both, only_old) = (both.unwrap(), only_old.unwrap());
        let broken = old.zone("broken", SIZE).unwrap();
        fs::write(broken.path.join("zone.json"), "{}").unwrap();

        let new = ZoneStore::inherit(&folder, old.descriptor().unwrap().into()).unwrap();
        let kept = new.zone("both", SIZE).unwrap();
        assert_eq!(kept.path, both.path);
        let anew = new.zone("broken", SIZE).unwrap();
        assert_ne!(anew.path, broken.path);
        old.let_go();
        drop((old, both, only_old));
        assert!(ZoneStore::open(&folder).is_err(), "the lock is held");
        assert!(folder.join(format!("only_old.{SIZE}")).exists());
        drop(new.zone("removed_later", SIZE).unwrap());
        assert!(folder.join(format!("removed_later.{SIZE}")).exists());

        drop(broken);
        new.is_alone(100);
        let mut left: Vec<_> = fs::read_dir(&folder)
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        left.sort();
        let mut expected = [kept.path.clone(), anew.path.clone()];
        expected.sort();
        assert_eq!(left, expected);
        assert!(Rc::ptr_eq(&new.zone("broken", SIZE).unwrap(), &anew));
        drop((new, kept, anew));
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_a_killed_master_has_left_is_found_again_or_removed() {
        let (_parent, folder) = parent();
        let key = Key::new(b"k").unwrap();
        {
            let store = ZoneStore::open(&folder).unwrap();
            let kept = store.zone("kept", SIZE).unwrap();
            let zone = KvZone::open(&kept.path, "kept", SIZE).unwrap();
            zone.put(&key, b"v", None, Expected::Anything, 0).unwrap();
            let left = store.zone("left", SIZE).unwrap();
            let broken = store.zone("broken", SIZE).unwrap();
            fs::write(broken.path.join("zone.json"), "{}").unwrap();
            // Nothing is dropped but the lock, as by a kill.
            let lock = store.descriptor().unwrap();
            flock(&lock, FlockOperation::Unlock).unwrap();
            std::mem::forget((kept, left, broken, store));
        }
        let store = ZoneStore::open(&folder).unwrap();
        let kept = store.zone("kept", SIZE).unwrap();
        let broken = store.zone("broken", SIZE).unwrap();
        store.remove_left(100);
        let mut there: Vec<_> = fs::read_dir(&folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        there.sort();
        assert_eq!(there, [broken.path.clone(), kept.path.clone()]);
        let zone = KvZone::open(&kept.path, "kept", SIZE).unwrap();
        let value = zone.read(&key, 0, <[u8]>::to_vec).unwrap();
        assert_eq!(value.as_deref(), Some(&b"v"[..]));
        KvZone::open(&broken.path, "broken", SIZE).unwrap();
    }

    #[test]
    fn a_folder_that_is_anothers_is_refused() {
        let (parent, folder) = parent();
        let refused = |folder: &Path| ZoneStore::open(folder).err().unwrap();
        let held = ZoneStore::open(&folder).unwrap();
        assert!(refused(&folder).ends_with("zones: another gateway uses it"));
        drop(held);

        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(refused(&folder).contains("no other may write to"));
        assert!(folder.exists());
        let link = parent.path().join("link");
        std::os::unix::fs::symlink(&folder, &link).unwrap();
        assert!(refused(&link).contains("it is no folder, and belongs to user "));
        if geteuid().is_root() {
            let taken = parent.path().join("taken");
            fs::create_dir(&taken).unwrap();
            std::os::unix::fs::chown(&taken, Some(12345), None).unwrap();
            let told = refused(&taken);
            assert!(
                told.contains(
                    "it belongs to user 12345; expected a folder that belongs to user root (0)"
                ),
                "{told}"
            );
            assert!(told.contains("`zone_store` in [master]"), "{told}");
        }
        let file = parent.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(refused(&file.join("zones")).contains("Not a directory"));
    }
}
