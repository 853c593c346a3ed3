//! Keys and values, shared by all workers, in an LMDB environment.

use std::fmt;
use std::ops::Bound;
use std::path::Path;
use std::time::Duration;

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, MdbError, RoTxn, RwTxn, WithTls};

use super::{ZoneError, check_name, later_ns};
use record::{NEVER_NS, STORED_HEAD_BYTES, Stored};

pub use folder::{Prepared, lend_kv, prepare_kv, remove_kv};
pub use record::Key;

mod folder;
mod record;
mod room;
mod several;
#[cfg(test)]
mod several_tests;
#[cfg(test)]
mod tests;

/// An ordered map from bytes to bytes whose entries may expire. What has expired is invisible at once, and is removed a
/// few entries with each write, or by [`KvZone::sweep`].
///
/// Reads wait for nobody. A write waits for the writers before it, of all workers: microseconds each. A worker that is
/// killed in the middle of a write loses that write only; the next writer takes its lock over and goes on. (One that is
/// *stopped* in the middle, by a debugger say, holds up the others' writes.)
///
/// Limits: keys of 1 to 510 bytes; values of [`KvZone::value_limit_bytes`]; entries of about 7/8 of the zone's size,
/// beyond which a write is refused as [`ZoneError::Full`] after all that has expired was removed; or, in a zone that
/// evicts ([`KvZone::evicting`]), makes room by removing what would expire first.
///
/// A process opens a zone's folder once, and not before a fork.
pub struct KvZone {
    name: String,
    env: Env,
    table: Table,
    size_bytes: u64,
    evicts: bool,
}

/// Condition of a change: the value that must be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected<'a> {
    /// Any value, or none.
    Anything,
    Nothing,
    Value(&'a [u8]),
}

/// Part of a zone's keys, in order of their bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    pub keys: Vec<Vec<u8>>,
    /// Key to go on after, with [`KvZone::list`]'s `after`. None: that was all.
    pub next: Option<Vec<u8>>,
}

impl KvZone {
    /// Smallest and largest size, in bytes.
    pub const MIN_BYTES: u64 = 1 << 20;
    pub const MAX_BYTES: u64 = 64 << 30;

    /// Opens a zone in a folder that the master has prepared (`prepare_kv`).
    ///
    /// Fails when it was prepared under another name, size or version or before the last boot, when it is damaged, and
    /// when this process has it open already.
    pub fn open(folder: &Path, name: &str, size_bytes: u64) -> Result<Self, ZoneError> {
        check_name(name)?;
        let (env, table) = folder::open_prepared(folder, name, size_bytes)?;
        Ok(Self {
            name: name.to_owned(),
            env,
            table,
            size_bytes,
            evicts: false,
        })
    }

    /// Says what this process's writes do when there is no room. True: what would expire first makes room; what never
    /// expires never does. False, as it is opened: they are refused. Processes may differ.
    #[must_use]
    pub fn evicting(self, evicts: bool) -> Self {
        Self { evicts, ..self }
    }

    /// Lends a key's value, if it has one that has not expired.
    pub fn read<R>(
        &self,
        key: &Key,
        now_ns: u64,
        use_it: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>, ZoneError> {
        self.read_with_ttl(key, now_ns, |value, _| use_it(value))
    }

    /// Lends a key's value, if it has one that has not expired, and the time that it has left. None: it never expires.
    pub fn read_with_ttl<R>(
        &self,
        key: &Key,
        now_ns: u64,
        use_it: impl FnOnce(&[u8], Option<Duration>) -> R,
    ) -> Result<Option<R>, ZoneError> {
        let txn = self.read_txn()?;
        let found = self.find_live(&txn, key, now_ns).map_err(self.failed())?;
        Ok(found.map(|stored| use_it(stored.value, stored.ttl(now_ns))))
    }

    /// Stores a value, if what is there is as expected, and says whether it did. Without `ttl` it never expires.
    pub fn put(
        &self,
        key: &Key,
        value: &[u8],
        ttl: Option<Duration>,
        expected: Expected<'_>,
        now_ns: u64,
    ) -> Result<bool, ZoneError> {
        self.check_value(value.len())?;
        self.write(now_ns, true, |txn| {
            if !self.is_as_expected(txn, key, expected, now_ns)? {
                return Ok(Done::Unchanged(false));
            }
            self.replace(txn, key, value, expires_ns(ttl, now_ns), 0)?;
            Ok(Done::Changed(true))
        })
    }

    /// Has a key expire so long from now, if it is there and `is_due` by its value and the time that it has left. Says whether it was.
    pub fn extend(
        &self,
        key: &Key,
        ttl: Duration,
        now_ns: u64,
        is_due: impl Fn(&[u8], Option<Duration>) -> bool,
    ) -> Result<bool, ZoneError> {
        self.write(now_ns, true, |txn| {
            let Some(stored) = self.find_live(txn, key, now_ns)? else {
                return Ok(Done::Unchanged(false));
            };
            if !is_due(stored.value, stored.ttl(now_ns)) {
                return Ok(Done::Unchanged(false));
            }
            let value = stored.value.to_vec();
            self.replace(txn, key, &value, later_ns(now_ns, ttl), 0)?;
            Ok(Done::Changed(true))
        })
    }

    /// Adds to a number, which is a value of 8 bytes, little-endian, and returns it. A key that has none begins at 0 and
    /// has `ttl`; one that has keeps the time that it expires at.
    ///
    /// Fails, and changes nothing, where the value is no number, and where the sum is none.
    pub fn increment(
        &self,
        key: &Key,
        by: i64,
        ttl: Option<Duration>,
        now_ns: u64,
    ) -> Result<i64, ZoneError> {
        self.write(now_ns, true, |txn| {
            let Some(stored) = self.find_live(txn, key, now_ns)? else {
                self.replace(txn, key, &by.to_le_bytes(), expires_ns(ttl, now_ns), 0)?;
                return Ok(Done::Changed(Ok(by)));
            };
            let Ok(old) = stored.value.try_into() else {
                let error = ZoneError::NotANumber(stored.value.len());
                return Ok(Done::Unchanged(Err(error)));
            };
            let Some(new) = i64::from_le_bytes(old).checked_add(by) else {
                return Ok(Done::Unchanged(Err(ZoneError::NumberOverflow)));
            };
            // With expiry and version the record of what is due stays right.
            let (expires_ns, version) = (stored.expires_ns, stored.version);
            self.store(txn, key, &new.to_le_bytes(), expires_ns, version)?;
            Ok(Done::Changed(Ok(new)))
        })?
    }

    /// Deletes a key, if what is there is as expected. Says whether it was there and is gone.
    pub fn delete(
        &self,
        key: &Key,
        expected: Expected<'_>,
        now_ns: u64,
    ) -> Result<bool, ZoneError> {
        self.write(now_ns, false, |txn| {
            let was_live = self.find_live(txn, key, now_ns)?.is_some();
            if !was_live || !self.is_as_expected(txn, key, expected, now_ns)? {
                return Ok(Done::Unchanged(false));
            }
            self.remove(txn, key)?;
            Ok(Done::Changed(true))
        })
    }

    /// Keys that begin with `prefix` (all, when it is empty) and come after `after`, at most `limit` and never more than
    /// 1000. Entries that have expired are passed over and count towards the 1000, so a listing may be short, or
    /// empty, and yet have a `next`.
    pub fn list(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
        now_ns: u64,
    ) -> Result<Listing, ZoneError> {
        let prefix = Key::new_or_empty(prefix)?;
        let after = after.map(Key::new_or_empty).transpose()?;
        let from = match &after {
            Some(after) if after.bytes() >= prefix.bytes() => Bound::Excluded(after.bytes()),
            Some(_) | None => Bound::Included(prefix.bytes()),
        };
        let txn = self.read_txn()?;
        let range = (from, Bound::Unbounded);
        let found = self.table.range(&txn, &range).map_err(self.failed())?;
        let mut keys = Vec::new();
        let mut last = after.as_ref().map_or(&[][..], Key::untagged);
        for (scanned, item) in found.enumerate() {
            let (key, stored) = item.map_err(self.failed())?;
            if !key.starts_with(prefix.bytes()) {
                break;
            }
            if keys.len() >= limit || scanned >= LIST_LIMIT {
                let next = Some(last.to_vec());
                return Ok(Listing { keys, next });
            }
            last = &key[1..]; // it begins with the prefix, which has at least the tag
            if Stored::parse(stored).is_some_and(|stored| stored.is_live(now_ns)) {
                keys.push(last.to_vec());
            }
        }
        Ok(Listing { keys, next: None })
    }

    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// How full it is, in whole pages, with what has expired and is not removed yet.
    pub fn used_bytes(&self) -> Result<u64, ZoneError> {
        let txn = self.read_txn()?;
        self.used_bytes_in(&txn).map_err(self.failed())
    }

    /// Longest value: 1/16 of the zone's size, at most 1 MiB.
    pub fn value_limit_bytes(&self) -> usize {
        usize::try_from(self.size_bytes / 16)
            .map_or(VALUE_LIMIT_BYTES, |part| part.min(VALUE_LIMIT_BYTES))
    }

    /// Checks the length of a value, or of several together.
    fn check_value(&self, size_bytes: usize) -> Result<(), ZoneError> {
        let limit_bytes = self.value_limit_bytes();
        if size_bytes <= limit_bytes {
            return Ok(());
        }
        Err(ZoneError::ValueTooLarge {
            size_bytes,
            limit_bytes,
        })
    }

    fn read_txn(&self) -> Result<RoTxn<'_, WithTls>, ZoneError> {
        match self.env.read_txn() {
            // Dead processes hold their places until somebody looks.
            Err(heed::Error::Mdb(MdbError::ReadersFull)) => {
                self.env.clear_stale_readers().map_err(self.failed())?;
                self.env.read_txn().map_err(self.failed())
            }
            other => other.map_err(self.failed()),
        }
    }

    fn is_as_expected(
        &self,
        txn: &RoTxn<'_>,
        key: &Key,
        expected: Expected<'_>,
        now_ns: u64,
    ) -> Result<bool, heed::Error> {
        if expected == Expected::Anything {
            return Ok(true);
        }
        let live = self.find_live(txn, key, now_ns)?;
        Ok(match (expected, live) {
            (Expected::Anything, _) | (Expected::Nothing, None) => true,
            (Expected::Nothing, Some(_)) | (Expected::Value(_), None) => false,
            (Expected::Value(value), Some(stored)) => stored.value == value,
        })
    }

    fn used_bytes_in(&self, txn: &RoTxn<'_>) -> Result<u64, heed::Error> {
        Ok(self.table.stat(txn)?.non_free_page_size() as u64)
    }

    fn find<'txn>(
        &self,
        txn: &'txn RoTxn<'_>,
        key: &Key,
    ) -> Result<Option<Stored<'txn>>, heed::Error> {
        let found = self.table.get(txn, key.bytes())?;
        Ok(found.and_then(Stored::parse))
    }

    fn find_live<'txn>(
        &self,
        txn: &'txn RoTxn<'_>,
        key: &Key,
        now_ns: u64,
    ) -> Result<Option<Stored<'txn>>, heed::Error> {
        let found = self.find(txn, key)?;
        Ok(found.filter(|stored| stored.is_live(now_ns)))
    }

    fn remove(&self, txn: &mut RwTxn<'_>, key: &Key) -> Result<bool, heed::Error> {
        if let Some(stored) = self.find(txn, key)?
            && stored.expires_ns != NEVER_NS
        {
            let due = key.due(stored.expires_ns, stored.version);
            self.table.delete(txn, due.bytes())?;
        }
        self.table.delete(txn, key.bytes())
    }

    /// Puts a value in the place of what the key has. `nth` tells the entries of one transaction apart.
    fn replace(
        &self,
        txn: &mut RwTxn<'_>,
        key: &Key,
        value: &[u8],
        expires_ns: u64,
        nth: u64,
    ) -> Result<(), heed::Error> {
        self.remove(txn, key)?;
        let version = txn.id() as u64 * ENTRIES_AT_ONCE + nth;
        self.store(txn, key, value, expires_ns, version)?;
        if expires_ns != NEVER_NS {
            let due = key.due(expires_ns, version);
            self.table.put(txn, due.bytes(), key.untagged())?;
        }
        Ok(())
    }

    fn store(
        &self,
        txn: &mut RwTxn<'_>,
        key: &Key,
        value: &[u8],
        expires_ns: u64,
        version: u64,
    ) -> Result<(), heed::Error> {
        let size_bytes = STORED_HEAD_BYTES + value.len();
        self.table
            .put_reserved(txn, key.bytes(), size_bytes, |space| {
                use std::io::Write;
                space.write_all(&expires_ns.to_be_bytes())?;
                space.write_all(&version.to_be_bytes())?;
                space.write_all(value)
            })
    }

    fn failed(&self) -> impl Fn(heed::Error) -> ZoneError {
        |cause| store_error(&self.name, cause)
    }
}

impl fmt::Debug for KvZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KvZone")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Longest value that any zone takes.
const VALUE_LIMIT_BYTES: usize = 1 << 20;
/// Entries that one listing looks at.
const LIST_LIMIT: usize = 1000;
/// Versions that a transaction has for its entries: as many as one may write, or more.
const ENTRIES_AT_ONCE: u64 = 128;

/// Outcome of a transaction.
enum Done<R> {
    Changed(R),
    Unchanged(R),
}

/// Key and value.
type Record<'txn> = (&'txn [u8], &'txn [u8]);

fn expires_ns(ttl: Option<Duration>, now_ns: u64) -> u64 {
    ttl.map_or(NEVER_NS, |ttl| later_ns(now_ns, ttl))
}

type Table = Database<'static, Bytes, Bytes>;

fn open_table(env: &Env) -> Result<Table, heed::Error> {
    let txn = env.write_txn()?;
    let made = env.create_databases_and_commit(txn, |opener, txn| {
        opener
            .create_database(txn, None)
            .map(CommitOrAbort::<_, ()>::Commit)
    })?;
    match made {
        CommitOrAbort::Commit(table) => Ok(table),
        CommitOrAbort::Abort(()) => Err(heed::Error::Mdb(MdbError::Problem)), // not what was asked for
    }
}

/// The size of LMDB's map: the zone's, in pages of whatever size.
fn map_bytes(size_bytes: u64) -> usize {
    usize::try_from(size_bytes.next_multiple_of(64 << 10)).unwrap_or(usize::MAX)
}

fn store_error(zone: &str, cause: heed::Error) -> ZoneError {
    let zone = zone.to_owned();
    match &cause {
        heed::Error::Mdb(
            MdbError::Corrupted
            | MdbError::PageNotFound
            | MdbError::Invalid
            | MdbError::VersionMismatch
            | MdbError::Panic,
        ) => ZoneError::Damaged {
            zone,
            what: cause.to_string(),
        },
        _ => ZoneError::Store { zone, cause },
    }
}
