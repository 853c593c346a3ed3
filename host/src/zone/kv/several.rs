//! Several keys of a kv zone at once.

use std::time::Duration;

use super::{Done, Expected, Key, KvZone, expires_ns};
use crate::zone::ZoneError;

impl KvZone {
    /// Lends the values of several keys, as they are at one moment. None: there is none, or it has expired.
    pub fn read_all<R>(
        &self,
        keys: &[Key],
        now_ns: u64,
        use_them: impl FnOnce(&[Option<&[u8]>]) -> R,
    ) -> Result<R, ZoneError> {
        let txn = self.read_txn()?;
        let value = |key| {
            let found = self.find_live(&txn, key, now_ns)?;
            Ok(found.map(|stored| stored.value))
        };
        let values: Result<Vec<_>, _> = keys.iter().map(value).collect();
        Ok(use_them(&values.map_err(self.failed())?))
    }

    /// Stores several values, all or none. Of a key that is there twice, the last counts. Without `ttl` they never expire.
    ///
    /// Together they may be as long as one value.
    pub fn put_all(
        &self,
        entries: &[(Key, &[u8])],
        ttl: Option<Duration>,
        now_ns: u64,
    ) -> Result<(), ZoneError> {
        self.check_value(entries.iter().map(|(_, value)| value.len()).sum())?;
        let expires_ns = expires_ns(ttl, now_ns);
        self.write(now_ns, true, |txn| {
            for ((key, value), nth) in entries.iter().zip(0..) {
                self.replace(txn, key, value, expires_ns, nth)?;
            }
            Ok(Done::Changed(()))
        })
    }

    /// Deletes several keys, and says how many were there. All at one moment; in a zone that is too full to write that
    /// beside what is there, one after the other.
    pub fn delete_all(&self, keys: &[Key], now_ns: u64) -> Result<usize, ZoneError> {
        let deleted = self.write(now_ns, false, |txn| {
            let mut deleted = 0;
            for key in keys {
                if self.find_live(txn, key, now_ns)?.is_some() {
                    deleted += usize::from(self.remove(txn, key)?);
                }
            }
            Ok(match deleted {
                0 => Done::Unchanged(0),
                deleted => Done::Changed(deleted),
            })
        });
        match deleted {
            Err(ZoneError::Full(_)) => keys.iter().try_fold(0, |deleted, key| {
                let was_there = self.delete(key, Expected::Anything, now_ns)?;
                Ok(deleted + usize::from(was_there))
            }),
            deleted => deleted,
        }
    }
}
