//! Files that plugins are granted: the master reads them, since workers open nothing, into memory files that are sealed, and looks
//! whether they have changed.
//!
//! A memory file cannot be cut short below a worker that reads, as a mapped file could. Workers inherit the first version's descriptor
//! and get later ones through a socket of their own.

mod channel;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use rustix::fs::{MemfdFlags, SealFlags, Stat, fcntl_add_seals, fstat, memfd_create};
use tokio::task::JoinHandle;

use crate::config::{Config, GrantedFile};
use crate::wasm::{self, FileVersion};

pub use channel::{FileReceiver, FileSender, Notice, channel};

/// Files of all generations, by path: one that two have is read and kept once.
#[derive(Default)]
pub struct GrantedFiles(RefCell<BTreeMap<PathBuf, Weak<WatchedFile>>>);

/// A file, as long as a generation has it.
pub struct WatchedFile {
    pub path: PathBuf,
    granted: GrantedFile,
    limit_bytes: u64,
    kept: RefCell<Kept>,
    /// Stamp of a change that is waited out: whoever writes it may not have done.
    seen: Cell<Option<(Stamp, Instant)>>,
    /// The last failure was told.
    is_told: Cell<bool>,
    /// A look or a reading that the file system has not answered in time: there is no other until it has.
    pending: RefCell<Option<Pending>>,
}

enum Pending {
    Stamp(Aside<Stamp>),
    Contents(Aside<Kept>),
}

/// Work on a thread of its own: a network file system whose server is away may take for ever, and the master's loop goes on.
type Aside<T> = JoinHandle<io::Result<T>>;

/// The contents that workers have.
#[derive(Clone)]
struct Kept {
    stamp: Stamp,
    memory: Arc<OwnedFd>,
    len: u64,
    number: u64,
}

/// Device, number, length and times of a file: what tells that it is another.
type Stamp = (u64, u64, u64, [i64; 4]);

/// Time after which files are looked at again.
pub const LOOK_EACH: Duration = Duration::from_secs(1);

/// Time that a file system has to answer where a version is there that is used meanwhile.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Time that it has for a file of which there is no version yet.
const FIRST_ANSWER_WITHIN: Duration = Duration::from_secs(30);

impl GrantedFiles {
    /// The files of a config, read where no generation has them. The error is a line for a person.
    pub async fn of(&self, config: &Config) -> Result<Vec<Rc<WatchedFile>>, String> {
        let limit_bytes = config.workers.max_granted_file_bytes;
        let mut files: Vec<Rc<WatchedFile>> = Vec::new();
        for (plugin, granted) in config.granted_files() {
            let path = granted.whole_path();
            if files.iter().any(|file| file.path == path) {
                continue;
            }
            let known = self.0.borrow().get(&path).and_then(Weak::upgrade);
            let known = known.filter(|known| known.limit_bytes == limit_bytes);
            let file = match known {
                Some(file) => {
                    file.follow(true).await;
                    file
                }
                None => {
                    let (place, name) = (&granted.place, &granted.name);
                    let mut reading = read(granted, limit_bytes);
                    let read = within(FIRST_ANSWER_WITHIN, &mut reading).await;
                    let read = read.unwrap_or_else(|| Err(no_answer(FIRST_ANSWER_WITHIN)));
                    let read = read.map_err(|error| {
                        format!("{place}: plugin {plugin}: file {name}: {error}")
                    })?;
                    Rc::new(WatchedFile {
                        path: path.clone(),
                        granted: granted.clone(),
                        limit_bytes,
                        kept: RefCell::new(read),
                        seen: Cell::new(None),
                        is_told: Cell::new(false),
                        pending: RefCell::default(),
                    })
                }
            };
            self.0.borrow_mut().insert(path, Rc::downgrade(&file));
            files.push(file);
        }
        let mut known = self.0.borrow_mut();
        known.retain(|_, file| file.strong_count() > 0);
        Ok(files)
    }
}

impl WatchedFile {
    /// Number of the version that is kept.
    pub fn number(&self) -> u64 {
        self.kept.borrow().number
    }

    /// The version that is kept, and its descriptor.
    pub fn version(&self) -> (Notice, Arc<OwnedFd>) {
        let kept = self.kept.borrow();
        let notice = Notice {
            path: self.path.clone(),
            number: kept.number,
            len: kept.len,
        };
        (notice, Arc::clone(&kept.memory))
    }

    /// Whether a change has been the same for half of the time between two looks, which two generations may take right after one another.
    fn has_settled(&self, stamp: Stamp) -> bool {
        match self.seen.get() {
            Some((seen, at)) if seen == stamp => at.elapsed() >= LOOK_EACH / 2,
            Some(_) | None => {
                self.seen.set(Some((stamp, Instant::now())));
                false
            }
        }
    }

    /// Reads the file again when it has changed: `at_once`, or when two looks in a row have found the same. What cannot be read is
    /// told, once, and the version before stays.
    pub async fn follow(&self, at_once: bool) {
        if at_once && !self.has_answered().await {
            return;
        }
        let pending = self.pending.take();
        let pending = pending.unwrap_or_else(|| Pending::Stamp(look(&self.granted)));
        let found = match pending {
            Pending::Stamp(looking) => match self.answer(looking, Pending::Stamp).await {
                Ok(stamp) if stamp == self.kept.borrow().stamp => {
                    self.seen.set(None);
                    self.is_told.set(false);
                    return;
                }
                Ok(stamp) if !at_once && !self.has_settled(stamp) => return,
                Ok(_) => {
                    let reading = read(&self.granted, self.limit_bytes);
                    self.answer(reading, Pending::Contents).await
                }
                Err(error) => Err(error),
            },
            Pending::Contents(reading) => self.answer(reading, Pending::Contents).await,
        };
        self.take(found);
        self.seen.set(None);
    }

    /// Waits for what is pending, and forgets it: it may say what was there some time ago. False: there is still no answer.
    async fn has_answered(&self) -> bool {
        let pending = self.pending.take();
        let answered = match pending {
            None => return true,
            Some(Pending::Stamp(looking)) => self.answer(looking, Pending::Stamp).await.map(drop),
            Some(Pending::Contents(reading)) => {
                self.answer(reading, Pending::Contents).await.map(drop)
            }
        };
        match (answered, self.pending.borrow().is_some()) {
            (Err(error), true) => {
                self.take(Err(error));
                false
            }
            _ => true,
        }
    }

    /// Waits for an answer for a while. One that takes longer is kept for the next look.
    async fn answer<T>(
        &self,
        mut aside: Aside<T>,
        pending: fn(Aside<T>) -> Pending,
    ) -> io::Result<T> {
        match within(ANSWER_WITHIN, &mut aside).await {
            Some(answer) => answer,
            None => {
                *self.pending.borrow_mut() = Some(pending(aside));
                Err(no_answer(ANSWER_WITHIN))
            }
        }
    }

    fn take(&self, found: io::Result<Kept>) {
        let path = self.path.display();
        match found {
            Ok(read) => {
                let (bytes, version) = (read.len, read.number);
                let is_other = version != self.number();
                let mut kept = self.kept.borrow_mut();
                match is_other {
                    true => *kept = read,
                    // Workers have these bytes already, in the memory that is kept.
                    false => kept.stamp = read.stamp,
                }
                self.is_told.set(false);
                if is_other {
                    tracing::info!(%path, bytes, version, "a granted file has changed");
                }
            }
            Err(error) if !self.is_told.replace(true) => {
                tracing::error!(%path, %error, "a granted file cannot be read: plugins keep the version before");
            }
            Err(_) => {}
        }
    }
}

/// Files of a config for a gateway without workers. The error is a line for a person.
pub async fn for_check(config: &Config) -> Result<wasm::GrantedFiles, String> {
    let mut opened = wasm::GrantedFiles::new();
    for file in GrantedFiles::default().of(config).await? {
        let (notice, memory) = file.version();
        let memory = memory.try_clone();
        let memory = memory.map_err(|error| format!("{}: {error}", file.granted.place))?;
        let version = notice.version(memory);
        opened.insert(file.path.clone(), wasm::GrantedFile::new(version));
    }
    Ok(opened)
}

impl Notice {
    /// The version that this and the descriptor are.
    pub fn version(&self, memory: OwnedFd) -> FileVersion {
        FileVersion {
            memory,
            len: self.len,
            number: self.number,
        }
    }
}

/// The answer, if it comes in this time.
async fn within<T>(longest: Duration, aside: &mut Aside<T>) -> Option<io::Result<T>> {
    let answer = tokio::time::timeout(longest, aside).await.ok()?;
    Some(answer.unwrap_or_else(|error| Err(io::Error::other(error))))
}

fn no_answer(longest: Duration) -> io::Error {
    let seconds = longest.as_secs();
    io::Error::other(format!(
        "the file system has not answered within {seconds} s"
    ))
}

fn look(granted: &GrantedFile) -> Aside<Stamp> {
    let granted = granted.clone();
    tokio::task::spawn_blocking(move || stamp(&granted.open()?))
}

fn read(granted: &GrantedFile, limit_bytes: u64) -> Aside<Kept> {
    let granted = granted.clone();
    tokio::task::spawn_blocking(move || copy(&granted, limit_bytes))
}

fn copy(granted: &GrantedFile, limit_bytes: u64) -> io::Result<Kept> {
    let mut source = granted.open()?;
    let before = stamp(&source)?;
    if before.2 > limit_bytes {
        return Err(too_large(limit_bytes));
    }
    let memory = memfd_create(
        "castling-file",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    )?;
    let mut memory = File::from(memory);
    let mut hash = digest::Context::new(&digest::SHA256);
    let (mut len, mut room) = (0_u64, vec![0; COPY_BYTES]);
    loop {
        let read = match source.read(&mut room) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        len += read as u64;
        if len > limit_bytes {
            return Err(too_large(limit_bytes));
        }
        hash.update(&room[..read]);
        memory.write_all(&room[..read])?;
    }
    if stamp(&source)? != before {
        return Err(io::Error::other(
            "it changes while it is read; expected a new file to be put in its place by a rename",
        ));
    }
    fcntl_add_seals(
        &memory,
        SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
    )?;
    let mut number = [0; 8];
    number.copy_from_slice(&hash.finish().as_ref()[..8]);
    Ok(Kept {
        stamp: before,
        memory: Arc::new(memory.into()),
        len,
        number: u64::from_le_bytes(number) >> 1,
    })
}

fn too_large(limit_bytes: u64) -> io::Error {
    io::Error::other(format!(
        "it is larger than workers.max_granted_file of {limit_bytes} bytes"
    ))
}

fn stamp(file: &File) -> io::Result<Stamp> {
    let stat: Stat = fstat(file)?;
    let times = [
        stat.st_mtime as i64,
        stat.st_mtime_nsec as i64,
        stat.st_ctime as i64,
        stat.st_ctime_nsec as i64,
    ];
    Ok((stat.st_dev, stat.st_ino, stat.st_size as u64, times))
}

const COPY_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{FileExt, symlink};

    use super::*;

    fn granted(folder: &tempfile::TempDir, name: &str) -> GrantedFile {
        GrantedFile {
            name: name.to_owned(),
            folder: folder.path().to_owned(),
            path: PathBuf::from(name),
            place: "site.toml:1:1".to_owned(),
        }
    }

    #[test]
    fn a_copy_is_sealed_and_other_contents_have_another_number() {
        let folder = tempfile::tempdir().unwrap();
        let write = |text: &str| fs::write(folder.path().join("a"), text).unwrap();
        let file = granted(&folder, "a");
        write("one");
        let one = copy(&file, 3).unwrap();
        write("two");
        let two = copy(&file, 3).unwrap();
        assert_ne!(one.number, two.number);
        write("one");
        assert_eq!(copy(&file, 3).unwrap().number, one.number);
        let memory = File::from(one.memory.try_clone().unwrap());
        assert!(memory.write_all_at(b"x", 0).is_err() && memory.set_len(0).is_err());
        write("four");
        let refused = copy(&file, 3).err().unwrap().to_string();
        assert_eq!(refused, too_large(3).to_string());
    }

    #[tokio::test]
    async fn a_file_system_that_hangs_is_waited_for_once_and_stops_nothing() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "one").unwrap();
        let file = granted(&folder, "a");
        let kept = copy(&file, 3).unwrap();
        let watched = WatchedFile {
            path: file.whole_path(),
            granted: file.clone(),
            limit_bytes: 3,
            kept: RefCell::new(kept),
            seen: Cell::new(None),
            is_told: Cell::new(false),
            pending: RefCell::default(),
        };
        let (answers, hanging) = std::sync::mpsc::channel();
        let aside = tokio::task::spawn_blocking(move || hanging.recv().unwrap());
        *watched.pending.borrow_mut() = Some(Pending::Contents(aside));
        fs::write(folder.path().join("a"), "two").unwrap();
        let number = watched.number();
        watched.follow(true).await;
        assert!(watched.pending.borrow().is_some() && watched.is_told.get());
        assert_eq!(watched.number(), number);
        answers.send(copy(&file, 3)).unwrap();
        while watched.number() == number {
            watched.follow(true).await;
        }
        assert!(watched.pending.borrow().is_none() && !watched.is_told.get());
    }

    #[test]
    fn a_link_that_leads_out_is_refused_and_one_within_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("inner");
        fs::create_dir(&inner).unwrap();
        fs::write(folder.path().join("outer"), "secret").unwrap();
        fs::write(inner.join("file"), "good").unwrap();
        symlink("file", inner.join("near")).unwrap();
        symlink("../outer", inner.join("out")).unwrap();
        symlink(folder.path().join("outer"), inner.join("absolute")).unwrap();
        let open = |name: &str| {
            let file = GrantedFile {
                folder: inner.clone(),
                ..granted(&folder, name)
            };
            file.open().map(drop).map_err(|error| error.to_string())
        };
        assert_eq!(open("near"), Ok(()));
        let out = Err(format!("it leads out of {}", inner.display()));
        assert_eq!(open("out"), out);
        assert_eq!(open("absolute"), out);
    }
}
