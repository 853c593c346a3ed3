//! The store: a folder with accounts, certificates with their keys, and what is known of each. Nobody but the master's user may read
//! it. A file is written beside its place, and then takes it whole, so that readers need no lock; who orders holds one.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, FlockOperation, OFlags, PROC_SUPER_MAGIC, access, flock, statfs};
use rustix::io::Errno;
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Credentials;
use super::schedule::Window;
use crate::config::{Acme, AcmeCertificate, PlacedPath, read_regular};

/// A folder that is there, and that may be written to.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

/// Right to order and to write. Given back when it is dropped, and when its process ends, however that ends.
pub struct StoreLock {
    _file: File,
}

/// Names of the files of one certificate: of other names, another authority or another kind of key it would be another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    stem: String,
}

/// State of a certificate's orders, which outlives the gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// For who reads the file.
    pub names: Vec<String>,
    /// Orders that have failed since the last success.
    pub failures: u32,
    /// Time before which no order is made.
    pub not_before: Option<i64>,
    /// Reason of the last failure, in one line for a person.
    pub last_error: Option<String>,
    /// The authority's window for the renewal of the certificate that there is.
    pub window: Option<Window>,
    /// Time at which the authority is asked for it again.
    pub ask_again: Option<i64>,
}

impl Store {
    /// Opens the store, and makes it where it is missing. Fails with a line that has its place where this process may not write to
    /// it, or others may.
    pub fn open(folder: &PlacedPath) -> Result<Self, String> {
        let about = |error: io::Error| Self::about(folder, &error);
        let made = DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&**folder);
        made.map_err(about)?;
        let found = fs::metadata(&**folder).map_err(about)?;
        fault_of(&found, geteuid().as_raw()).map_or(Ok(()), |fault| Err(about(fault)))?;
        let store = Self {
            folder: folder.path.clone(),
        };
        // A certificate that cannot be kept is not to be ordered.
        store.open_lock().map_err(about)?;
        Ok(store)
    }

    /// Reads a store for `castling check`, which changes nothing. `None`: it is not there, or not for this user's eyes: another one
    /// may check.
    pub fn peek(folder: &PlacedPath) -> Result<Option<Self>, String> {
        let about = |error: io::Error| Self::about(folder, &error);
        let user = geteuid();
        let found = match fs::metadata(&**folder) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return may_be_made(folder).map(|()| None).map_err(about);
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
            Err(error) => return Err(about(error)),
        };
        if found.is_dir() && found.uid() != user.as_raw() && !user.is_root() {
            return Ok(None);
        }
        if let Some(fault) = fault_of(&found, user.as_raw()) {
            return Err(about(fault));
        }
        access(&**folder, Access::WRITE_OK | Access::EXEC_OK).map_err(|e| about(e.into()))?;
        Ok(Some(Self {
            folder: folder.path.clone(),
        }))
    }

    fn about(folder: &PlacedPath, error: &io::Error) -> String {
        format!(
            "{}: acme: store {}: {error}",
            folder.place,
            folder.display()
        )
    }

    fn open_lock(&self) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits() as i32)
            .open(self.folder.join("lock"))
    }

    /// `None`: another gateway, or the master before this one, has it.
    pub fn lock(&self) -> io::Result<Option<StoreLock>> {
        let file = self.open_lock()?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(StoreLock { _file: file })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// `None`: there is none yet. A file that is no account is an error: with another one in its place, it would be lost.
    pub fn account(&self, directory: &str) -> io::Result<Option<Credentials>> {
        let read = self.read(&account_file(directory))?;
        let parsed = read.map(|bytes| serde_json::from_slice(&bytes).map(Credentials));
        Ok(parsed.transpose()?)
    }

    pub fn save_account(&self, directory: &str, account: &Credentials) -> io::Result<()> {
        self.write(
            &account_file(directory),
            &serde_json::to_vec_pretty(&account.0)?,
        )
    }

    /// Chain and key, PEM. `None`: there is no certificate yet.
    pub fn certificate(&self, entry: &Entry) -> io::Result<Option<Vec<u8>>> {
        self.read(&entry.file("pem"))
    }

    /// Chain and key, PEM, in one file: so that they change together.
    pub fn save_certificate(&self, entry: &Entry, chain_and_key: &[u8]) -> io::Result<()> {
        self.write(&entry.file("pem"), chain_and_key)
    }

    /// A record that is not there, or cannot be read, is a new one: at worst an order comes too early.
    pub fn record(&self, entry: &Entry) -> Record {
        let read = self.read(&entry.file("json")).ok().flatten();
        let record = read.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        record.unwrap_or_default()
    }

    pub fn save_record(&self, entry: &Entry, record: &Record) -> io::Result<()> {
        self.write(&entry.file("json"), &serde_json::to_vec_pretty(record)?)
    }

    /// Path of a certificate's file, for messages.
    pub fn path(&self, entry: &Entry) -> PathBuf {
        self.folder.join(entry.file("pem"))
    }

    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        match read_regular(&self.folder.join(name), MAX_FILE_BYTES) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts the file there whole, on the disk when this returns, and looks whether that is what can be read from now on.
    fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let draft = self.folder.join(format!(".{name}.new"));
        let path = self.folder.join(name);
        let written = write_new(&draft, bytes).and_then(|()| fs::rename(&draft, &path));
        if let Err(error) = written {
            // The rest of it is of no use; the error is the one to tell.
            let _ = fs::remove_file(&draft);
            return Err(error);
        }
        File::open(&self.folder)?.sync_all()?;
        match self.read(name)? {
            Some(found) if found == bytes => Ok(()),
            Some(_) | None => Err(io::Error::other("it reads back as something else")),
        }
    }
}

/// Fault of a folder that this user would have as a store.
fn fault_of(found: &fs::Metadata, user: u32) -> Option<io::Error> {
    let owner = found.uid();
    let fault = if !found.is_dir() {
        "it is not a folder".to_owned()
    } else if owner != user {
        // The owner may change the mode, and with it who looks into the folder.
        format!("it belongs to user {owner}: expected {user}, the gateway's")
    } else if found.mode() & 0o077 != 0 {
        "others may look into it: expected mode 0700".to_owned()
    } else {
        return None;
    };
    Some(io::Error::other(fault))
}

/// Looks whether a folder that is not there could be made, as far as that can be known without making it.
fn may_be_made(folder: &Path) -> io::Result<()> {
    let mut above = folder.ancestors().skip(1);
    let Some(nearest) = above.find(|path| path.exists()) else {
        return Ok(());
    };
    let shown = nearest.display();
    match access(nearest, Access::WRITE_OK | Access::EXEC_OK) {
        // The gateway may be started by a user who may.
        Err(Errno::ACCESS) if !geteuid().is_root() => return Ok(()),
        Err(error) => return Err(io::Error::other(format!("{shown}: {error}"))),
        Ok(()) => {}
    }
    match nearest.is_dir() && statfs(nearest)?.f_type != PROC_SUPER_MAGIC {
        true => Ok(()),
        false => Err(io::Error::other(format!(
            "{shown}: no folder can be made there"
        ))),
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

impl Entry {
    pub fn of(acme: &Acme, certificate: &AcmeCertificate) -> Self {
        let key_type = acme.key_type.name();
        let first = certificate.names.first().map_or("", String::as_str);
        // A name may be nearly as long as a file's may be.
        let first = first.get(..MAX_STEM_BYTES).unwrap_or(first);
        let whole = [&acme.directory, key_type, &certificate.id()].join("\n");
        Self {
            stem: format!("{first}-{}", short_hash(&whole)),
        }
    }

    fn file(&self, extension: &str) -> String {
        format!("{}.{extension}", self.stem)
    }
}

fn account_file(directory: &str) -> String {
    format!("account-{}.json", short_hash(directory))
}

fn short_hash(text: &str) -> String {
    let hash = Sha256::digest(text.as_bytes());
    hash.iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Longest part of a certificate's name in the names of its files.
const MAX_STEM_BYTES: usize = 200;

/// Longest file: a chain of some certificates with its key takes 10 KiB.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A store in this folder, and an entry for it.
#[cfg(test)]
pub fn placed_store(folder: &Path) -> (Store, Entry) {
    let store = Store::open(&tests::placed(folder.join("store"))).unwrap();
    (store, tests::entry("https://ca", &["a.test"]))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::AcmeKeyType;

    pub(super) fn placed(path: PathBuf) -> PlacedPath {
        PlacedPath {
            path,
            place: "site.toml:2:9".to_owned(),
        }
    }

    fn acme(directory: &str) -> Acme {
        Acme {
            directory: directory.to_owned(),
            contact: Vec::new(),
            store: placed(PathBuf::new()),
            challenges: Vec::new(),
            roots: Vec::new(),
            profile: None,
            external_account: None,
            key_type: AcmeKeyType::P256,
            place: String::new(),
        }
    }

    pub(super) fn entry(directory: &str, names: &[&str]) -> Entry {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        Entry::of(&acme(directory), &AcmeCertificate { names })
    }

    #[test]
    fn what_is_saved_is_read_and_only_by_its_user() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/store");
        let store = Store::open(&placed(path.clone())).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        let entry = entry("https://ca", &["a.test", "b.test"]);
        assert_eq!(store.certificate(&entry).unwrap(), None);
        assert_eq!(store.record(&entry), Record::default());
        for text in ["one", "another"] {
            store.save_certificate(&entry, text.as_bytes()).unwrap();
            let read = store.certificate(&entry).unwrap();
            assert_eq!(read.as_deref(), Some(text.as_bytes()));
        }
        let record = Record {
            failures: 3,
            not_before: Some(7),
            last_error: Some("no".to_owned()),
            ..Record::default()
        };
        store.save_record(&entry, &record).unwrap();
        assert_eq!(store.record(&entry), record);
        let account = Credentials(serde_json::json!({ "id": "x" }));
        store.save_account("https://ca", &account).unwrap();
        assert_eq!(store.account("https://ca").unwrap().unwrap().0, account.0);
        assert!(store.account("https://other").unwrap().is_none());
        for file in fs::read_dir(&path).unwrap() {
            let file = file.unwrap();
            let mode = file.metadata().unwrap().mode() & 0o777;
            assert_eq!(mode, 0o600, "{:?}", file.file_name());
        }
    }

    #[test]
    fn certificates_of_other_names_or_authorities_are_others() {
        let one = entry("https://ca", &["a.test", "b.test"]);
        assert!(one.file("pem").starts_with("a.test-"));
        for other in [
            entry("https://other", &["a.test", "b.test"]),
            entry("https://ca", &["a.test"]),
            entry("https://ca", &["a.test", "b.test", "c.test"]),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn one_at_a_time_holds_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&placed(folder.path().join("s"))).unwrap();
        let held = store.lock().unwrap();
        assert!(held.is_some());
        assert!(store.lock().unwrap().is_none());
        drop(held);
        assert!(store.lock().unwrap().is_some());
    }

    #[test]
    fn a_store_that_others_may_read_or_nobody_may_write_is_refused_with_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("open");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        let shown = path.display();
        assert_eq!(
            Store::open(&placed(path.clone())).unwrap_err(),
            format!(
                "site.toml:2:9: acme: store {shown}: others may look into it: expected mode 0700"
            )
        );
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        Store::open(&placed(file.clone())).unwrap_err();
        let error = Store::peek(&placed(file)).unwrap_err();
        assert!(error.ends_with("it is not a folder"), "{error}");
        assert!(
            Store::peek(&placed(folder.path().join("none")))
                .unwrap()
                .is_none()
        );
        Store::open(&placed("/proc/none".into())).unwrap_err();
        let told = |path: PathBuf| Store::peek(&placed(path)).unwrap_err();
        let error = told("/proc/none/deep".into());
        assert!(error.contains("none/deep: /proc: "), "{error}");
        let error = told(path);
        assert!(error.ends_with("expected mode 0700"), "{error}");
        let error = told(folder.path().join("file/deep"));
        assert!(error.contains("acme: store "), "{error}");
    }

    #[test]
    fn a_folder_of_another_user_is_no_store() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o700)).unwrap();
        let found = fs::metadata(folder.path()).unwrap();
        let user = found.uid();
        assert!(fault_of(&found, user).is_none());
        let fault = fault_of(&found, user + 1).unwrap().to_string();
        let expected = format!(
            "it belongs to user {user}: expected {}, the gateway's",
            user + 1
        );
        assert_eq!(fault, expected);
    }

    #[test]
    fn the_longest_name_has_its_files() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&placed(folder.path().join("s"))).unwrap();
        let long = |end: &str| format!("{}.{end}", ["a".repeat(60).as_str(); 4].join("."));
        let (one, other) = (long("one"), long("other"));
        let (one, other) = (
            entry("https://ca", &[one.as_str()]),
            entry("https://ca", &[other.as_str()]),
        );
        assert_ne!(one, other);
        store.save_certificate(&one, b"x").unwrap();
        assert_eq!(store.certificate(&other).unwrap(), None);
    }

    #[test]
    fn a_damaged_record_is_a_new_one_and_a_damaged_account_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&placed(folder.path().join("s"))).unwrap();
        let entry = entry("https://ca", &["a.test"]);
        store.write(&entry.file("json"), b"{").unwrap();
        assert_eq!(store.record(&entry), Record::default());
        store.write(&account_file("https://ca"), b"{").unwrap();
        store.account("https://ca").unwrap_err();
    }
}
