//! Compiled plugins on disk, by the hash of what they were compiled from.
//!
//! An entry is two files: `HASH.cwasm`, the native code that all workers map, and `HASH.json`, its manifest. The code
//! is trusted as the gateway's own, so the store takes nothing that another user could have written.

use std::fmt;
use std::fs::{self, DirBuilder, File, FileTimes, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::wasm::Manifest;

/// The folder of `[master] module_store`.
#[derive(Debug)]
pub struct ModuleStore {
    folder: PathBuf,
}

/// Names an entry: SHA-256 over the module's bytes, the engine's settings and the gateway's version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ModuleKey(String);

/// An entry, open: what happens to the store's files no longer matters to it.
#[derive(Clone, Debug)]
pub struct StoredModule {
    pub manifest: Manifest,
    pub artefact: Rc<File>,
}

/// The content of `HASH.json`.
#[derive(Serialize, Deserialize)]
struct EntryHead {
    manifest: Manifest,
    /// Length of the artefact. A file of another length means that the machine stopped while it was written.
    artefact_bytes: u64,
}

impl ModuleKey {
    /// `engine_fingerprint` changes with everything that compiled code depends on.
    pub fn new(wasm: &[u8], engine_fingerprint: u64) -> Self {
        let mut hash = Sha256::new();
        hash.update(wasm);
        hash.update(engine_fingerprint.to_le_bytes());
        hash.update(env!("CARGO_PKG_VERSION"));
        Self(
            hash.finalize()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        )
    }
}

impl fmt::Display for ModuleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ModuleStore {
    /// Creates the folder (mode 0700) where it is missing. Refuses one that others could write to.
    pub fn open(folder: &Path) -> io::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        check_owner(&fs::metadata(folder)?)?;
        Ok(Self {
            folder: folder.to_owned(),
        })
    }

    /// Opens the folder like [`Self::open`], but creates nothing: `None` when the folder is not there, or is another user's, whose
    /// entries are not to be trusted.
    pub fn open_existing(folder: &Path) -> io::Result<Option<Self>> {
        let metadata = match fs::metadata(folder) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
            Err(error) => return Err(error),
        };
        if metadata.uid() != rustix::process::geteuid().as_raw() {
            return Ok(None);
        }
        check_owner(&metadata)?;
        Ok(Some(Self {
            folder: folder.to_owned(),
        }))
    }

    /// The entry, marked as used now; `None` when it is missing or incomplete.
    pub fn find(&self, key: &ModuleKey) -> Option<StoredModule> {
        let head = fs::read(self.head_path(key)).ok()?;
        let head: EntryHead = serde_json::from_slice(&head).ok()?;
        let artefact = File::open(self.artefact_path(key)).ok()?;
        let metadata = artefact.metadata().ok()?;
        if metadata.len() != head.artefact_bytes || check_owner(&metadata).is_err() {
            return None;
        }
        for path in [self.head_path(key), self.artefact_path(key)] {
            let used_now = FileTimes::new().set_modified(SystemTime::now());
            // An entry that cannot be marked is compiled again one day.
            let _ = File::open(path).and_then(|file| file.set_times(used_now));
        }
        Some(StoredModule {
            manifest: head.manifest,
            artefact: Rc::new(artefact),
        })
    }

    fn draft_path(&self, key: &ModuleKey) -> PathBuf {
        self.folder
            .join(format!("{key}.{}.{DRAFT_EXTENSION}", std::process::id()))
    }

    /// Makes an entry of a copy of all that is in `artefact`, whoever else may still have that open. The head comes last: an entry
    /// without one does not count.
    pub fn insert(
        &self,
        key: &ModuleKey,
        manifest: Manifest,
        artefact: File,
    ) -> io::Result<StoredModule> {
        let draft = self.draft_path(key);
        let inserted = self.insert_by(&draft, key, manifest, artefact);
        if inserted.is_err() {
            // Where it is not there, nothing is to be removed.
            let _ = fs::remove_file(&draft);
        }
        inserted
    }

    fn insert_by(
        &self,
        draft: &Path,
        key: &ModuleKey,
        manifest: Manifest,
        mut artefact: File,
    ) -> io::Result<StoredModule> {
        artefact.rewind()?;
        let artefact_bytes = io::copy(&mut artefact, &mut create_draft(draft)?)?;
        fs::rename(draft, self.artefact_path(key))?;
        let head = serde_json::to_vec(&EntryHead {
            manifest,
            artefact_bytes,
        })?;
        create_draft(draft)?.write_all(&head)?;
        fs::rename(draft, self.head_path(key))?;
        self.find(key)
            .ok_or_else(|| io::Error::other("the entry vanished while it was written"))
    }

    /// Removes what no gateway has used for so long, and drafts that nobody finished. Looks at so many files at most.
    pub fn remove_unused(&self, unused_for: Duration, files_at_most: usize) -> usize {
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return 0;
        };
        let now = SystemTime::now();
        let mut removed = 0;
        for entry in entries.take(files_at_most).flatten() {
            let path = entry.path();
            let limit = match path.extension().and_then(|extension| extension.to_str()) {
                Some(HEAD_EXTENSION | ARTEFACT_EXTENSION) => unused_for,
                Some(DRAFT_EXTENSION) => DRAFT_LIFE,
                // A file of another name is not ours.
                _ => continue,
            };
            let modified = entry.metadata().and_then(|metadata| metadata.modified());
            let age = modified
                .ok()
                .and_then(|modified| now.duration_since(modified).ok());
            if age.is_some_and(|age| age > limit) && fs::remove_file(&path).is_ok() {
                removed += 1;
            }
        }
        removed
    }

    fn head_path(&self, key: &ModuleKey) -> PathBuf {
        self.folder.join(format!("{key}.{HEAD_EXTENSION}"))
    }

    fn artefact_path(&self, key: &ModuleKey) -> PathBuf {
        self.folder.join(format!("{key}.{ARTEFACT_EXTENSION}"))
    }
}

/// A new file that only its owner may read and write; the one that was there is replaced.
fn create_draft(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}

const HEAD_EXTENSION: &str = "json";
const ARTEFACT_EXTENSION: &str = "cwasm";
const DRAFT_EXTENSION: &str = "draft";

/// Longer than any compilation may take.
const DRAFT_LIFE: Duration = Duration::from_secs(3600);

fn check_owner(metadata: &fs::Metadata) -> io::Result<()> {
    let refused = |text: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    let user = rustix::process::geteuid().as_raw();
    if metadata.uid() != user {
        return refused(format!(
            "it belongs to user {}; expected user {user}, who runs the gateway",
            metadata.uid()
        ));
    }
    if metadata.mode() & 0o022 != 0 {
        return refused(format!(
            "others may write to it (mode {:o}); expected 700, what lies there is run as native code",
            metadata.mode() & 0o777
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn manifest() -> Manifest {
        let json = r#"{"abi":1,"name":"x","version":"1.0.0","sdk":"0.1.0","hooks":["access"]}"#;
        serde_json::from_str(json).unwrap()
    }

    fn code() -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"code").unwrap();
        file
    }

    #[test]
    fn an_entry_is_found_under_the_key_it_was_stored_under() {
        let folder = tempfile::tempdir().unwrap();
        let store = ModuleStore::open(&folder.path().join("a/b")).unwrap();
        let key = ModuleKey::new(b"wasm", 1);
        assert!(store.find(&key).is_none());
        let stored = store.insert(&key, manifest(), code()).unwrap();
        assert_eq!(stored.manifest, manifest());
        assert!(store.find(&key).is_some());
        assert!(store.find(&ModuleKey::new(b"wasm", 2)).is_none());
    }

    #[test]
    fn an_artefact_of_another_length_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let store = ModuleStore::open(folder.path()).unwrap();
        let key = ModuleKey::new(b"wasm", 1);
        store.insert(&key, manifest(), code()).unwrap();
        fs::write(store.artefact_path(&key), b"co").unwrap();
        assert!(store.find(&key).is_none());
    }

    #[test]
    fn a_store_that_others_may_write_to_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o770)).unwrap();
        let error = ModuleStore::open(folder.path()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("mode 770"), "{error}");
    }

    #[test]
    fn who_only_looks_creates_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("a");
        assert!(ModuleStore::open_existing(&missing).unwrap().is_none());
        assert!(!missing.exists());
        assert!(ModuleStore::open_existing(folder.path()).unwrap().is_some());
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o770)).unwrap();
        ModuleStore::open_existing(folder.path()).unwrap_err();
    }

    #[test]
    fn only_what_nobody_has_used_for_long_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let store = ModuleStore::open(folder.path()).unwrap();
        let long_ago = FileTimes::new().set_modified(SystemTime::now() - 40 * DAY);
        for name in ["old.cwasm", "old.json", "old.txt"] {
            File::create(folder.path().join(name))
                .unwrap()
                .set_times(long_ago)
                .unwrap();
        }
        File::create(folder.path().join("new.cwasm")).unwrap();
        assert_eq!(store.remove_unused(30 * DAY, 1000), 2);
        assert!(folder.path().join("new.cwasm").exists() && folder.path().join("old.txt").exists());
    }

    const DAY: Duration = Duration::from_secs(24 * 3600);
}
