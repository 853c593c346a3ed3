//! Kv zones without an end, by this thread's clock.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use castling_abi::kv::{MAX_KEY_BYTES, MAX_LIST_KEYS};
use castling_abi::{KvExpected, Status};

use super::ZoneFault;
use super::host::hand_out;
use super::world::{World, with_world};

/// Longest value that a zone of 16 MiB and more takes.
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
    let Ok(ttl_ms) = u64::try_from(ttl_ms) else {
        return Status::BadArgument as i32;
    };
    if value.len() > MAX_VALUE_BYTES {
        return Status::Limit as i32;
    }
    let now = with_world(|world| world.monotonic);
    let ends = (ttl_ms > 0).then(|| now.saturating_add(Duration::from_millis(ttl_ms)));
    with_zone(zone, key, |zone, fault| {
        let there = zone.get(key).map(|entry| entry.value.as_slice());
        if !is_as_expected(there, expected) {
            return 0;
        }
        let grows = there.is_none_or(|there| there.len() < value.len());
        if grows && fault == Some(ZoneFault::Full) {
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

pub(crate) fn kv_list(
    zone: &[u8],
    prefix: &[u8],
    after: &[u8],
    limit: usize,
    out: &mut [u8],
) -> i32 {
    if !(1..=MAX_LIST_KEYS).contains(&limit)
        || prefix.len() > MAX_KEY_BYTES
        || after.len() > MAX_KEY_BYTES
    {
        return Status::BadArgument as i32;
    }
    let from = match after {
        after if after >= prefix && !after.is_empty() => Bound::Excluded(after.to_vec()),
        _ => Bound::Included(prefix.to_vec()),
    };
    // Any valid key does: it is not looked at.
    with_zone(zone, b"-", |zone, _| {
        let mut found = zone
            .range((from, Bound::Unbounded))
            .map(|(key, _)| key.as_slice())
            .take_while(|key| key.starts_with(prefix));
        let keys: Vec<&[u8]> = found.by_ref().take(limit).collect();
        let next = keys.last().copied().filter(|_| found.next().is_some());
        let mut listing = Vec::new();
        for record in std::iter::once(next.unwrap_or_default()).chain(keys) {
            let Ok(length) = u16::try_from(record.len()) else {
                return Status::BadArgument as i32; // not reached: keys are shorter
            };
            listing.extend_from_slice(&length.to_le_bytes());
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

/// The zone without what has expired, and what is wrong with it.
fn with_zone(
    name: &[u8],
    key: &[u8],
    use_it: impl FnOnce(&mut KvZone, Option<ZoneFault>) -> i32,
) -> i32 {
    with_world(|world| {
        let World {
            kv,
            zone_faults,
            monotonic: now,
            ..
        } = world;
        let fault = zone_faults.get(name).copied();
        if fault == Some(ZoneFault::NotGranted) {
            return Status::NotGranted as i32;
        }
        if !(1..=MAX_KEY_BYTES).contains(&key.len()) {
            return Status::BadArgument as i32;
        }
        let zone = kv.entry(name.to_vec()).or_default();
        zone.retain(|_, entry| entry.ends.is_none_or(|ends| ends > *now));
        use_it(zone, fault)
    })
}
