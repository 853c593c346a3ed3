//! Room in a kv zone: what has expired, and in a zone that evicts what would expire first, goes when a write needs it.

use heed::{MdbError, RoTxn, RwTxn};

use super::record::{DUE, Due, EVICTED, count};
use super::{Done, KvZone, Record, store_error};
use crate::zone::ZoneError;

impl KvZone {
    /// Removes at most `limit` entries that have expired, and says how many. Costs a read when there are none.
    pub fn sweep(&self, now_ns: u64, limit: usize) -> Result<usize, ZoneError> {
        {
            let txn = self.read_txn()?;
            let first = self.first_due(&txn, now_ns).map_err(self.failed())?;
            if first.is_none() {
                return Ok(0);
            }
        }
        self.remove_some(limit, |txn, limit| self.remove_due(txn, now_ns, limit))
    }

    /// Entries that made room before they had expired, since the zone was made.
    pub fn evicted(&self) -> Result<u64, ZoneError> {
        let txn = self.read_txn()?;
        self.evicted_in(&txn).map_err(self.failed())
    }

    /// Bytes that entries may take. The rest lets a change be written beside the old value, and deletions always.
    pub(super) fn limit_bytes(&self) -> u64 {
        self.size_bytes - self.size_bytes / 8 - SPARE_BYTES
    }

    /// Runs `change` in a transaction of its own; makes room and runs it again when there was none.
    pub(super) fn write<R>(
        &self,
        now_ns: u64,
        grows: bool,
        change: impl Fn(&mut RwTxn<'_>) -> Result<Done<R>, heed::Error>,
    ) -> Result<R, ZoneError> {
        let write = || match self.try_write(now_ns, grows, &change) {
            Err(heed::Error::Mdb(MdbError::MapFull | MdbError::TxnFull)) => Ok(None),
            other => other.map_err(self.failed()),
        };
        for _ in 0..WRITE_ROUNDS {
            if let Some(result) = write()? {
                return Ok(result);
            }
            // Pages that a reader was looking at when it died are in use until it is cleared away.
            let readers = self.env.clear_stale_readers().map_err(self.failed())?;
            let removed = self.sweep(now_ns, SWEEP_FULL)?;
            if readers == 0 && removed == 0 {
                break;
            }
        }
        let (mut left, mut step) = (EVICT_MOST, 1);
        if !grows || !self.evicts {
            left = 0;
        }
        while left > 0 {
            let evict = |txn: &mut RwTxn<'_>, limit| self.evict_in(txn, now_ns, limit, 0);
            let evicted = self.remove_some(step.min(left), evict)?;
            if evicted == 0 {
                break;
            }
            if let Some(result) = write()? {
                return Ok(result);
            }
            left -= evicted;
            step = (2 * step).min(EVICT_STEP_MOST);
        }
        Err(ZoneError::Full(self.name.clone()))
    }

    /// Runs the change. None, and no change, when the zone would be fuller than it may be.
    fn try_write<R>(
        &self,
        now_ns: u64,
        grows: bool,
        change: impl Fn(&mut RwTxn<'_>) -> Result<Done<R>, heed::Error>,
    ) -> Result<Option<R>, heed::Error> {
        let mut txn = self.env.write_txn()?;
        // Before the change: what it writes may be what would expire first.
        if grows && self.evicts {
            let down_to_bytes = self.evicting_from_bytes();
            self.evict_in(&mut txn, now_ns, EVICT_AHEAD, down_to_bytes)?;
        }
        match change(&mut txn)? {
            Done::Unchanged(result) => Ok(Some(result)), // dropped: aborted
            Done::Changed(result) => {
                self.remove_due(&mut txn, now_ns, SWEEP_STEP)?;
                if grows && self.used_bytes_in(&txn)? > self.limit_bytes() {
                    return Ok(None);
                }
                txn.commit()?;
                Ok(Some(result))
            }
        }
    }

    /// Bytes in use from which on each write evicts. Below the limit, because pages get free only when most of the
    /// entries in them are gone, and those that expire first lie anywhere: so that goes with the writes, a few entries
    /// each, and hardly one has to wait for hundreds.
    fn evicting_from_bytes(&self) -> u64 {
        self.limit_bytes() - self.size_bytes / 32
    }

    /// Removes up to `limit` entries in a transaction of its own; fewer where there is no room to remove so many.
    fn remove_some(
        &self,
        mut limit: usize,
        remove: impl Fn(&mut RwTxn<'_>, usize) -> Result<usize, heed::Error>,
    ) -> Result<usize, ZoneError> {
        while limit > 0 {
            let removed = self.env.write_txn().and_then(|mut txn| {
                let removed = remove(&mut txn, limit)?;
                txn.commit()?;
                Ok(removed)
            });
            match removed {
                Err(heed::Error::Mdb(MdbError::MapFull | MdbError::TxnFull)) => limit /= 2,
                other => return other.map_err(|cause| store_error(&self.name, cause)),
            }
        }
        Ok(0)
    }

    /// Removes up to `limit` entries that expire first, until no more than `down_to_bytes` are in use, and counts those that
    /// had not expired.
    fn evict_in(
        &self,
        txn: &mut RwTxn<'_>,
        now_ns: u64,
        limit: usize,
        down_to_bytes: u64,
    ) -> Result<usize, heed::Error> {
        let (mut expired, mut evicted) = (0, 0);
        while expired + evicted < limit && self.used_bytes_in(txn)? > down_to_bytes {
            let is_expired = self.remove_due(txn, now_ns, 1)? > 0;
            if is_expired {
                expired += 1;
            } else if self.remove_due(txn, u64::MAX, 1)? > 0 {
                evicted += 1;
            } else {
                break;
            }
        }
        if evicted > 0 {
            let sum = self.evicted_in(txn)?.saturating_add(evicted as u64);
            self.table.put(txn, &EVICTED, &sum.to_be_bytes())?;
        }
        Ok(expired + evicted)
    }

    fn evicted_in(&self, txn: &RoTxn<'_>) -> Result<u64, heed::Error> {
        let found = self.table.get(txn, &EVICTED)?;
        Ok(found.map_or(0, count))
    }

    /// Removes up to `limit` entries that expire at `until_ns` or before, the first ones first.
    fn remove_due(
        &self,
        txn: &mut RwTxn<'_>,
        until_ns: u64,
        limit: usize,
    ) -> Result<usize, heed::Error> {
        for removed in 0..limit {
            let Some((due, key)) = self.first_due(txn, until_ns)? else {
                return Ok(removed);
            };
            let expired = Due::parse(due).and_then(|due| Some((due.key(key).ok()?, due.version)));
            let due = due.to_vec();
            self.table.delete(txn, &due)?;
            // The entry may have been written again since, if a due key was left over.
            if let Some((key, version)) = expired
                && let Some(stored) = self.find(txn, &key)?
                && stored.version == version
            {
                self.table.delete(txn, key.bytes())?;
            }
        }
        Ok(limit)
    }

    /// The first due key, if its entry expires at `until_ns` or before, and the entry's key.
    fn first_due<'txn>(
        &self,
        txn: &'txn RoTxn<'_>,
        until_ns: u64,
    ) -> Result<Option<Record<'txn>>, heed::Error> {
        let first = self.table.get_greater_than_or_equal_to(txn, &[DUE])?;
        Ok(first.filter(|(due, _)| match Due::parse(due) {
            Some(due) => due.expires_ns <= until_ns,
            None => true, // nothing that we wrote: away with it
        }))
    }
}

/// Expired entries that a write removes besides: more than it adds, so that they cannot pile up.
const SWEEP_STEP: usize = 2;
/// Expired entries that a write removes at once when there is no room.
const SWEEP_FULL: usize = 256;
/// How often a write removes what has expired.
const WRITE_ROUNDS: usize = 8;
/// Entries that a write evicts besides where little room is left: more than it adds.
const EVICT_AHEAD: usize = 8;
/// Most entries that a write evicts in one transaction, for which other workers' writes wait: at first one, then twice as
/// many each time.
const EVICT_STEP_MOST: usize = 256;
/// Entries that one write evicts at most, before it is refused.
const EVICT_MOST: usize = 4096;
/// Bytes of the zone for the store's own pages.
const SPARE_BYTES: u64 = 128 << 10;
