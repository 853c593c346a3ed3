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

use castling_abi::FileFact;

use crate::buffer::{length, status};
use crate::error::{self, Result};
use crate::host;

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

    fn fact(&self, fact: FileFact) -> u64 {
        // The host knows the number, since `open` got it there.
        u64::try_from(host::file_fact(self.file, fact)).unwrap_or_default()
    }
}
