//! Files that the config grants, to read: `grants = { files = ["geo.mmdb"] }`.
//!
//! ```
//! use castling_sdk::prelude::*;
//! use castling_sdk::testing::{self, Exchange};
//!
//! struct Blocked { list: files::File }
//!
//! #[plugin]
//! impl Blocked {
//!     fn configure(_: std::collections::BTreeMap<String, String>) -> Result<Self> {
//!         Ok(Self { list: files::open("blocked.txt")? })
//!     }
//!
//!     fn access(&self, request: &mut Request) -> Result<Verdict> {
//!         let mut list = vec![0; self.list.len() as usize];
//!         self.list.read_at(0, &mut list)?;
//!         let address = request.client_address();
//!         Ok(match list.split(|byte| *byte == b'\n').any(|line| line == address.as_bytes()) {
//!             true => Response::status(403).into(),
//!             false => Verdict::Continue,
//!         })
//!     }
//! }
//!
//! testing::set_file("blocked.txt", "198.51.100.7\n192.0.2.1\n");
//! let plugin = Blocked { list: files::open("blocked.txt").unwrap() };
//! let verdict = plugin.access(Exchange::get("/").request()).unwrap();
//! assert_eq!(verdict, Response::status(403).into());
//! ```

use std::cell::{Ref, RefCell};
use std::fmt;

use castling_abi::FileFact;

use crate::buffer::{length, status};
use crate::error::{self, Result};
use crate::{bail, host, log};

/// The file that the config grants by this name. Fails where it does not; in `configure`, `castling check` and a reload refuse the
/// config then.
pub fn open(name: &str) -> Result<File> {
    let file = host::file_open(name.as_bytes());
    match u32::try_from(file) {
        Ok(file) => Ok(File { file }),
        Err(_) => Err(error::refusal(
            format_args!("files::open({name:?})"),
            status(file),
        )),
    }
}

/// A granted file, good for as long as the plugin: when the operator puts another in its place, later hooks read that one, and what one
/// hook reads is all of one version.
///
/// Nothing here waits: the contents are in memory. A read costs about as much as a system call, so that a few long ones beat many short ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    file: u32,
}

impl File {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.fact(FileFact::Length)
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A number that other contents have another of. What a plugin has made of a file in an earlier hook, or in `configure`, is good
    /// as long as this is the same.
    pub fn version(&self) -> u64 {
        self.fact(FileFact::Version)
    }

    /// Reads from `offset` on; returns how many bytes there were, fewer than there is room for only at the end.
    pub fn read_at(&self, offset: u64, room: &mut [u8]) -> Result<usize> {
        let Ok(offset) = i64::try_from(offset) else {
            return Ok(0);
        };
        length(host::file_read(self.file, offset, room))
            .map_err(|status| error::refusal(format_args!("read_at({offset})"), status))
    }

    /// Reads all of it.
    pub fn read(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.len()).unwrap_or(usize::MAX)];
        let read = self.read_at(0, &mut bytes)?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Reads all of it, as text.
    pub fn read_text(&self) -> Result<String> {
        match String::from_utf8(self.read()?) {
            Ok(text) => Ok(text),
            Err(_) => bail!("expected UTF-8"),
        }
    }

    fn fact(&self, fact: FileFact) -> u64 {
        // The host knows the number, since `open` got it there.
        u64::try_from(host::file_fact(self.file, fact)).unwrap_or_default()
    }
}

/// What a plugin has made of a granted file: a table, a list of users. It is made again when the operator puts another file in the place.
/// Where that cannot be done, what was made before stays. An instance that has made nothing before, because its [`open`](Self::open) finds the
/// wrong file already, fails to configure: at a start, at a reload, in a new worker.
///
/// ```
/// use castling_sdk::prelude::*;
/// use castling_sdk::testing;
///
/// fn names(text: &str) -> Result<Vec<String>> {
///     match text.is_empty() {
///         true => bail!("expected a name a line"),
///         false => Ok(text.lines().map(str::to_owned).collect()),
///     }
/// }
///
/// testing::set_file("names", "ada\ncharles\n");
/// let file = files::Followed::open("names", |file| names(&file.read_text()?))?;
/// assert_eq!(file.get().len(), 2);
/// testing::set_file("names", "grace\n");
/// assert_eq!(*file.get(), ["grace"]);
/// testing::set_file("names", "");
/// assert_eq!(*file.get(), ["grace"], "a file that is wrong is told in the log, and what was made before stays");
/// # Ok::<(), Error>(())
/// ```
pub struct Followed<T> {
    name: String,
    file: File,
    read: Box<dyn Fn(File) -> Result<T>>,
    made: RefCell<Made<T>>,
}

struct Made<T> {
    /// Version of the file that was looked at last.
    version: u64,
    of_file: T,
}

impl<T> Followed<T> {
    /// Opens the file that the config grants by this name, and makes something of it. Fails where it is not granted, or `read` fails.
    pub fn open(name: &str, read: impl Fn(File) -> Result<T> + 'static) -> Result<Self> {
        let file = open(name)?;
        let version = file.version();
        let of_file = read(file).map_err(|error| error.context(name))?;
        Ok(Self {
            name: name.to_owned(),
            file,
            read: Box::new(read),
            made: RefCell::new(Made { version, of_file }),
        })
    }

    /// What was made of the file as it is now. Of one that `read` fails for, the log has an error, once for each instance, and what was made
    /// before stays.
    ///
    /// Costs a host call while the file is the same.
    ///
    /// # Panics
    ///
    /// Where the file has changed while something still has what an earlier call has lent: let go of it before the hook returns.
    pub fn get(&self) -> Ref<'_, T> {
        let version = self.file.version();
        if self.made.borrow().version != version {
            self.follow(version);
        }
        Ref::map(self.made.borrow(), |made| &made.of_file)
    }

    #[cold]
    fn follow(&self, version: u64) {
        // What was there is kept until the other is whole.
        let read = (self.read)(self.file);
        let mut made = self.made.borrow_mut();
        made.version = version;
        match read {
            Ok(of_file) => made.of_file = of_file,
            Err(error) => {
                let name = &self.name;
                log::error!("file {name} is not used as it is now: {error}");
            }
        }
    }
}

impl<T> fmt::Debug for Followed<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Followed").field(&self.name).finish()
    }
}

/// Lines of a table in a file, with their numbers: those that are empty or begin with `#` are left out, and the others have no blanks around them.
///
/// ```
/// # use castling_sdk::prelude::*;
/// let lines: Vec<_> = files::lines("# users\n\n ada:x \n").collect();
/// assert_eq!(lines, [(3, "ada:x")]);
/// ```
pub fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().map(str::trim).zip(1..);
    lines
        .filter(|(line, _)| !line.is_empty() && !line.starts_with('#'))
        .map(|(line, number)| (number, line))
}
