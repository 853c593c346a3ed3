//! Files that a test grants.

use castling_abi::{FileFact, Status};

use super::world::with_world;

/// A file's name and what is in it.
pub(super) type Granted = (Vec<u8>, Vec<u8>);

/// Grants a file of this name and these contents, or puts them in the place of what was in it.
///
/// ```
/// # use castling_sdk::{files, testing};
/// assert!(files::open("geo.mmdb").is_err(), "not granted");
/// testing::set_file("geo.mmdb", "first");
/// let file = files::open("geo.mmdb").unwrap();
/// let first = file.version();
/// testing::set_file("geo.mmdb", "other");
/// assert_eq!(file.read().unwrap(), b"other");
/// assert_ne!(file.version(), first);
/// ```
pub fn set_file(name: &str, contents: impl AsRef<[u8]>) {
    let contents = contents.as_ref().to_vec();
    with_world(|world| {
        let mut files = world.files.iter_mut();
        match files.find(|(known, _)| known == name.as_bytes()) {
            Some((_, known)) => *known = contents,
            None => world.files.push((name.as_bytes().to_vec(), contents)),
        }
    });
}

pub(crate) fn file_open(name: &[u8]) -> i32 {
    let found = with_world(|world| world.files.iter().position(|(known, _)| known == name));
    match found.and_then(|idx| i32::try_from(idx).ok()) {
        Some(idx) => idx,
        None => Status::NotGranted as i32,
    }
}

pub(crate) fn file_fact(file: u32, fact: FileFact) -> i64 {
    with_world(|world| match (world.files.get(file as usize), fact) {
        (None, _) => Status::BadArgument as i64,
        (Some((_, contents)), FileFact::Length) => contents.len() as i64,
        (Some((_, contents)), FileFact::Version) => number(contents),
    })
}

pub(crate) fn file_read(file: u32, offset: i64, out: &mut [u8]) -> i32 {
    with_world(|world| {
        let (Some((_, contents)), Ok(offset)) =
            (world.files.get(file as usize), u64::try_from(offset))
        else {
            return Status::BadArgument as i32;
        };
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = contents.get(offset..).unwrap_or_default();
        let read = rest.len().min(out.len());
        out[..read].copy_from_slice(&rest[..read]);
        i32::try_from(read).unwrap_or(i32::MAX)
    })
}

/// Hash of the contents (FNV-1a).
fn number(contents: &[u8]) -> i64 {
    let hash = contents
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
    i64::try_from(hash >> 1).unwrap_or_default()
}
