//! Kv zones without an end, by this thread's clock.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use castling_abi::kv::{
    MAX_KEY_BYTES, MAX_KEYS_AT_ONCE, MAX_LIST_KEYS, MAX_VALUES_BYTES, key_head, records, value_head,
};
use castling_abi::rules::check;
use castling_abi::{Grant, KvExpected, Status, header_list};

use super::ZoneFault;
use super::host::hand_out;
use super::world::{World, with_world};
use super::zones::refusal;

/// Longest value that a zone of 16 MiB and more takes, and the longest that several are together.
const MAX_VALUE_BYTES: usize = 1 << 20;

/// A kv zone.
pub(super) type KvZone = BTreeMap<Vec<u8>, Entry>;

pub(super) struct Entry {
    value: Vec<u8>,
    /// None: never.
    ends: Option<Duration>,
}

pub(crate) fn kv_get(zone: &[u8], key: &[u8], out: &mut [u8]) -> i32 {
    with_zone(zone, key, |zone, _| match zone.get(key) {
        Some(entry) => hand_out(&entry.value, out),
        None => Status::NotFound as i32,
    })
}

pub(crate) fn kv_put(
    zone: &[u8],
    key: &[u8],
    value: &[u8],
    ttl_ms: i64,
    expected: (KvExpected, &[u8]),
) -> i32 {
    let ends = ends_after(ttl_ms);
    with_zone(zone, key, |zone, fault| {
        let Some(ends) = ends else {
            return Status::BadArgument as i32;
        };
        if value.len() > MAX_VALUE_BYTES {
            return Status::Limit as i32;
        }
        let there = zone.get(key).map(|entry| entry.value.as_slice());
        if !is_as_expected(there, expected) {
            return 0;
        }
        if fault == Some(ZoneFault::Full) && grows(there, value) {
            return Status::Full as i32;
        }
        let value = value.to_vec();
        zone.insert(key.to_vec(), Entry { value, ends });
        1
    })
}

pub(crate) fn kv_delete(zone: &[u8], key: &[u8], expected: (KvExpected, &[u8])) -> i32 {
    with_zone(zone, key, |zone, _| {
        let there = zone.get(key).map(|entry| entry.value.as_slice());
        let deleted = there.is_some() && is_as_expected(there, expected);
        if deleted {
            zone.remove(key);
        }
        i32::from(deleted)
    })
}

pub(crate) fn kv_get_with_ttl(zone: &[u8], key: &[u8], out: &mut [u8], ttl_ms: &mut i64) -> i32 {
    let now = with_world(|world| world.monotonic);
    with_zone(zone, key, |zone, _| match zone.get(key) {
        Some(entry) => {
            if entry.value.len() <= out.len() {
                let left = entry.ends.map(|ends| ends.saturating_sub(now));
                let left_ms = left.map_or(0, |left| left.as_nanos().div_ceil(1_000_000).max(1));
                *ttl_ms = i64::try_from(left_ms).unwrap_or(i64::MAX);
            }
            hand_out(&entry.value, out)
        }
        None => Status::NotFound as i32,
    })
}

pub(crate) fn kv_increment(zone: &[u8], key: &[u8], by: i64, ttl_ms: i64, number: &mut i64) -> i32 {
    let ends = ends_after(ttl_ms);
    with_zone(zone, key, |zone, fault| {
        let Some(ends) = ends else {
            return Status::BadArgument as i32;
        };
        let Some(entry) = zone.get_mut(key) else {
            if fault == Some(ZoneFault::Full) {
                return Status::Full as i32;
            }
            let value = by.to_le_bytes().to_vec();
            zone.insert(key.to_vec(), Entry { value, ends });
            *number = by;
            return 0;
        };
        let Ok(old) = entry.value.as_slice().try_into() else {
            return Status::BadArgument as i32;
        };
        let Some(sum) = i64::from_le_bytes(old).checked_add(by) else {
            return Status::Limit as i32;
        };
        entry.value = sum.to_le_bytes().to_vec();
        *number = sum;
        0
    })
}

pub(crate) fn kv_get_all(zone: &[u8], keys: &[u8], out: &mut [u8]) -> i32 {
    with_granted(zone, |zone, _| {
        let keys = match read_keys(keys) {
            Ok(keys) => keys,
            Err(status) => return status as i32,
        };
        let mut list = Vec::new();
        for key in keys {
            let value = zone.get(key).map(|entry| entry.value.as_slice());
            let Some(head) = value_head(value) else {
                return Status::Limit as i32;
            };
            list.extend_from_slice(&head);
            list.extend_from_slice(value.unwrap_or_default());
        }
        if list.len() > MAX_VALUES_BYTES {
            return Status::Limit as i32;
        }
        hand_out(&list, out)
    })
}

pub(crate) fn kv_put_all(zone: &[u8], entries: &[u8], ttl_ms: i64) -> i32 {
    let ends = ends_after(ttl_ms);
    with_granted(zone, |zone, fault| {
        let entries = match read_entries(entries) {
            Ok(entries) => entries,
            Err(status) => return status as i32,
        };
        let Some(ends) = ends else {
            return Status::BadArgument as i32;
        };
        let size_bytes: usize = entries.iter().map(|(_, value)| value.len()).sum();
        if size_bytes > MAX_VALUE_BYTES {
            return Status::Limit as i32;
        }
        let there = |key: &[u8]| zone.get(key).map(|entry| entry.value.as_slice());
        let grows = entries.iter().any(|(key, value)| grows(there(key), value));
        if grows && fault == Some(ZoneFault::Full) {
            return Status::Full as i32;
        }
        for (key, value) in entries {
            let value = value.to_vec();
            zone.insert(key.to_vec(), Entry { value, ends });
        }
        0
    })
}

pub(crate) fn kv_delete_all(zone: &[u8], keys: &[u8]) -> i32 {
    with_granted(zone, |zone, _| match read_keys(keys) {
        Ok(keys) => {
            let deleted = keys.iter().filter(|key| zone.remove(**key).is_some());
            i32::try_from(deleted.count()).unwrap_or(i32::MAX)
        }
        Err(status) => status as i32,
    })
}

pub(crate) fn kv_list(
    zone: &[u8],
    prefix: &[u8],
    after: &[u8],
    limit: usize,
    out: &mut [u8],
) -> i32 {
    let is_valid = (1..=MAX_LIST_KEYS).contains(&limit)
        && prefix.len() <= MAX_KEY_BYTES
        && after.len() <= MAX_KEY_BYTES;
    let from = match after {
        after if after >= prefix && !after.is_empty() => Bound::Excluded(after.to_vec()),
        _ => Bound::Included(prefix.to_vec()),
    };
    with_granted(zone, |zone, _| {
        if !is_valid {
            return Status::BadArgument as i32;
        }
        let mut found = zone
            .range((from, Bound::Unbounded))
            .map(|(key, _)| key.as_slice())
            .take_while(|key| key.starts_with(prefix));
        let keys: Vec<&[u8]> = found.by_ref().take(limit).collect();
        let next = keys.last().copied().filter(|_| found.next().is_some());
        let mut listing = Vec::new();
        for record in std::iter::once(next.unwrap_or_default()).chain(keys) {
            let Some(head) = key_head(record) else {
                return Status::BadArgument as i32; // not reached: keys are shorter
            };
            listing.extend_from_slice(&head);
            listing.extend_from_slice(record);
        }
        hand_out(&listing, out)
    })
}

fn is_as_expected(there: Option<&[u8]>, (expected, value): (KvExpected, &[u8])) -> bool {
    match expected {
        KvExpected::Any => true,
        KvExpected::Absent => there.is_none(),
        KvExpected::Value => there == Some(value),
    }
}

fn grows(there: Option<&[u8]>, value: &[u8]) -> bool {
    there.is_none_or(|there| there.len() < value.len())
}

/// End of what is stored now. `None`: the time to live is not valid.
fn ends_after(ttl_ms: i64) -> Option<Option<Duration>> {
    let ttl_ms = u64::try_from(ttl_ms).ok()?;
    let now = with_world(|world| world.monotonic);
    Some((ttl_ms > 0).then(|| now.saturating_add(Duration::from_millis(ttl_ms))))
}

fn read_keys(list: &[u8]) -> Result<Vec<&[u8]>, Status> {
    let keys = records(list).take(MAX_KEYS_AT_ONCE + 1);
    let keys = keys.map(|key| checked(key.map_err(|()| Status::BadArgument)?));
    not_too_many(keys.collect::<Result<_, _>>()?)
}

/// Key and value.
type Pair<'a> = (&'a [u8], &'a [u8]);

fn read_entries(list: &[u8]) -> Result<Vec<Pair<'_>>, Status> {
    let entries = header_list::records(list).take(MAX_KEYS_AT_ONCE + 1);
    let entries = entries.map(|entry| {
        let (key, value) = entry.map_err(|()| Status::BadArgument)?;
        Ok((checked(key)?, value))
    });
    not_too_many(entries.collect::<Result<_, _>>()?)
}

fn checked(key: &[u8]) -> Result<&[u8], Status> {
    check::is_kv_key(key)
        .then_some(key)
        .ok_or(Status::BadArgument)
}

fn not_too_many<T>(list: Vec<T>) -> Result<Vec<T>, Status> {
    (list.len() <= MAX_KEYS_AT_ONCE)
        .then_some(list)
        .ok_or(Status::Limit)
}

/// The zone, for a call on one key, which is checked.
fn with_zone(
    name: &[u8],
    key: &[u8],
    use_it: impl FnOnce(&mut KvZone, Option<ZoneFault>) -> i32,
) -> i32 {
    with_granted(name, |zone, fault| match checked(key) {
        Ok(_) => use_it(zone, fault),
        Err(status) => status as i32,
    })
}

/// The zone without what has expired, and what is wrong with it.
fn with_granted(name: &[u8], use_it: impl FnOnce(&mut KvZone, Option<ZoneFault>) -> i32) -> i32 {
    if let Some(refused) = refusal(Grant::KvZone, name) {
        return refused as i32;
    }
    with_world(|world| {
        let World {
            kv,
            zone_faults,
            monotonic: now,
            ..
        } = world;
        let fault = zone_faults.get(name).copied();
        let zone = kv.entry(name.to_vec()).or_default();
        zone.retain(|_, entry| entry.ends.is_none_or(|ends| ends > *now));
        use_it(zone, fault)
    })
}
