//! Shared values: kv zones.

use std::cell::Cell;
use std::time::{Duration, Instant};

use castling_abi::kv::{
    MAX_KEY_BYTES, MAX_KEYS_AT_ONCE, MAX_LIST_KEYS, MAX_VALUES_BYTES, NUMBER_BYTES, key_head,
    records, value_head,
};
use castling_abi::{IMPORT_MODULE, KvExpected, Status, header_list, imports};
use tracing::error;
use wasmtime::{Caller, Linker, Result};

use super::{DONE, counter, refuse};
use crate::wasm::guest::{Guest, bytes, bytes_mut, hand_out, split};
use crate::zone::{Expected, KEY_LIMIT_BYTES, Key, KvZone, Zone, ZoneError, now_ns};

pub(super) fn add_to(linker: &mut Linker<Guest>) -> Result<()> {
    linker
        .func_wrap(IMPORT_MODULE, imports::KV_GET, kv_get)?
        .func_wrap(IMPORT_MODULE, imports::KV_PUT, kv_put)?
        .func_wrap(IMPORT_MODULE, imports::KV_DELETE, kv_delete)?
        .func_wrap(IMPORT_MODULE, imports::KV_LIST, kv_list)?
        .func_wrap(IMPORT_MODULE, imports::KV_GET_WITH_TTL, kv_get_with_ttl)?
        .func_wrap(IMPORT_MODULE, imports::KV_INCREMENT, kv_increment)?
        .func_wrap(IMPORT_MODULE, imports::KV_GET_ALL, kv_get_all)?
        .func_wrap(IMPORT_MODULE, imports::KV_PUT_ALL, kv_put_all)?
        .func_wrap(IMPORT_MODULE, imports::KV_DELETE_ALL, kv_delete_all)?;
    Ok(())
}

const _: () = assert!(
    MAX_KEY_BYTES == KEY_LIMIT_BYTES,
    "what the contract says and what the zone takes"
);

fn kv_get(
    mut caller: Caller<'_, Guest>,
    zone_ptr: u32,
    zone_len: u32,
    key_ptr: u32,
    key_len: u32,
    out: u32,
    capacity: u32,
) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let key = Key::new(bytes(memory, key_ptr, key_len)?);
    let (zone, key) = match granted(guest, bytes(memory, zone_ptr, zone_len)?, key) {
        Ok(found) => found,
        Err(status) => return refuse(status),
    };
    let read = zone.read(&key, now_ns(), |value| {
        hand_out(memory, out, capacity, value)
    });
    match read {
        Ok(Some(handed_out)) => handed_out,
        Ok(None) => refuse(Status::NotFound),
        Err(error) => refuse(status(guest, &error)),
    }
}

#[expect(clippy::too_many_arguments, reason = "the ABI has so many")]
fn kv_get_with_ttl(
    mut caller: Caller<'_, Guest>,
    zone_ptr: u32,
    zone_len: u32,
    key_ptr: u32,
    key_len: u32,
    out: u32,
    capacity: u32,
    ttl_out: u32,
) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let key = Key::new(bytes(memory, key_ptr, key_len)?);
    let (zone, key) = match granted(guest, bytes(memory, zone_ptr, zone_len)?, key) {
        Ok(found) => found,
        Err(status) => return refuse(status),
    };
    bytes_mut(memory, ttl_out, TTL_BYTES)?;
    let read = zone.read_with_ttl(&key, now_ns(), |value, ttl| {
        if value.len() <= capacity as usize {
            let ttl_ms = to_ttl_ms(ttl).to_le_bytes();
            bytes_mut(memory, ttl_out, TTL_BYTES)?.copy_from_slice(&ttl_ms);
        }
        hand_out(memory, out, capacity, value)
    });
    match read {
        Ok(Some(handed_out)) => handed_out,
        Ok(None) => refuse(Status::NotFound),
        Err(error) => refuse(status(guest, &error)),
    }
}

fn kv_get_all(
    mut caller: Caller<'_, Guest>,
    zone_ptr: u32,
    zone_len: u32,
    keys_ptr: u32,
    keys_len: u32,
    out: u32,
    capacity: u32,
) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let keys = read_keys(bytes(memory, keys_ptr, keys_len)?);
    let zone = kv_zone(guest, bytes(memory, zone_ptr, zone_len)?);
    let (zone, keys) = match zone.and_then(|zone| Ok((zone, keys?))) {
        Ok(found) => found,
        Err(status) => return refuse(status),
    };
    let read = zone.read_all(&keys, now_ns(), |values| {
        hand_out_values(memory, out, capacity, values)
    });
    read.unwrap_or_else(|error| refuse(status(guest, &error)))
}

/// Hands out records of values as [`hand_out`] does, without putting them together elsewhere first.
fn hand_out_values(
    memory: &mut [u8],
    out: u32,
    capacity: u32,
    values: &[Option<&[u8]>],
) -> Result<i32> {
    let heads: Option<Vec<_>> = values.iter().map(|value| value_head(*value)).collect();
    let record_bytes = |value: &Option<&[u8]>| size_of::<u32>() + value.map_or(0, <[u8]>::len);
    let length: usize = values.iter().map(record_bytes).sum();
    let (Some(heads), Ok(handed_out)) = (heads, u32::try_from(length)) else {
        return refuse(Status::Limit);
    };
    if length > MAX_VALUES_BYTES {
        return refuse(Status::Limit);
    }
    if handed_out <= capacity {
        let mut room = bytes_mut(memory, out, handed_out)?;
        for (head, value) in heads.iter().zip(values) {
            for part in [&head[..], value.unwrap_or_default()] {
                let place = room.split_off_mut(..part.len());
                place.expect("as long as all parts").copy_from_slice(part);
            }
        }
    }
    Ok(handed_out.cast_signed())
}

const _: () = assert!(
    MAX_VALUES_BYTES <= i32::MAX as usize,
    "the length of what is handed out is no status"
);

#[expect(clippy::too_many_arguments, reason = "the ABI has so many")]
fn kv_increment(
    mut caller: Caller<'_, Guest>,
    zone_ptr: u32,
    zone_len: u32,
    key_ptr: u32,
    key_len: u32,
    by: i64,
    ttl_ms: i64,
    out: u32,
) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let key = Key::new(bytes(memory, key_ptr, key_len)?);
    let (zone, key) = match granted(guest, bytes(memory, zone_ptr, zone_len)?, key) {
        Ok(found) => found,
        Err(status) => return refuse(status),
    };
    let room = bytes_mut(memory, out, NUMBER_BYTES as u32)?;
    let Ok(ttl) = read_ttl(ttl_ms) else {
        return refuse(Status::BadArgument);
    };
    match zone.increment(&key, by, ttl, now_ns()) {
        Ok(number) => {
            room.copy_from_slice(&number.to_le_bytes());
            Ok(DONE)
        }
        Err(error) => refuse(status(guest, &error)),
    }
}

fn kv_put_all(
    mut caller: Caller<'_, Guest>,
    zone_ptr: u32,
    zone_len: u32,
    entries_ptr: u32,
    entries_len: u32,
    ttl_ms: i64,
) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let entries = read_entries(bytes(memory, entries_ptr, entries_len)?);
    let zone = kv_zone(guest, bytes(memory, zone_ptr, zone_len)?);
    let wanted = zone.and_then(|zone| Ok((zone, entries?, read_ttl(ttl_ms)?)));
    let (zone, entries, ttl) = match wanted {
        Ok(wanted) => wanted,
        Err(status) => return refuse(status),
    };
    match zone.put_all(&entries, ttl, now_ns()) {
        Ok(()) => Ok(DONE),
        Err(error) => refuse(status(guest, &error)),
    }
}

fn kv_delete_all(
    mut caller: Caller<'_, Guest>,
    zone_ptr: u32,
    zone_len: u32,
    keys_ptr: u32,
    keys_len: u32,
) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let keys = read_keys(bytes(memory, keys_ptr, keys_len)?);
    let zone = kv_zone(guest, bytes(memory, zone_ptr, zone_len)?);
    let (zone, keys) = match zone.and_then(|zone| Ok((zone, keys?))) {
        Ok(found) => found,
        Err(status) => return refuse(status),
    };
    match zone.delete_all(&keys, now_ns()) {
        Ok(deleted) => Ok(i32::try_from(deleted).unwrap_or(i32::MAX)),
        Err(error) => refuse(status(guest, &error)),
    }
}

#[expect(clippy::too_many_arguments, reason = "the ABI has so many")]
fn kv_put(
    mut caller: Caller<'_, Guest>,
    zone_ptr: u32,
    zone_len: u32,
    key_ptr: u32,
    key_len: u32,
    ptr: u32,
    len: u32,
    ttl_ms: i64,
    expected: u32,
    expected_ptr: u32,
    expected_len: u32,
) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let key = Key::new(bytes(memory, key_ptr, key_len)?);
    let value = bytes(memory, ptr, len)?;
    let expected = read_expected(expected, bytes(memory, expected_ptr, expected_len)?);
    let (zone, key) = match granted(guest, bytes(memory, zone_ptr, zone_len)?, key) {
        Ok(found) => found,
        Err(status) => return refuse(status),
    };
    let (Ok(ttl), Some(expected)) = (read_ttl(ttl_ms), expected) else {
        return refuse(Status::BadArgument);
    };
    match zone.put(&key, value, ttl, expected, now_ns()) {
        Ok(stored) => Ok(i32::from(stored)),
        Err(error) => refuse(status(guest, &error)),
    }
}

#[expect(clippy::too_many_arguments, reason = "the ABI has so many")]
fn kv_delete(
    mut caller: Caller<'_, Guest>,
    zone_ptr: u32,
    zone_len: u32,
    key_ptr: u32,
    key_len: u32,
    expected: u32,
    expected_ptr: u32,
    expected_len: u32,
) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let key = Key::new(bytes(memory, key_ptr, key_len)?);
    let expected = read_expected(expected, bytes(memory, expected_ptr, expected_len)?);
    let (zone, key) = match granted(guest, bytes(memory, zone_ptr, zone_len)?, key) {
        Ok(found) => found,
        Err(status) => return refuse(status),
    };
    let Some(expected) = expected else {
        return refuse(Status::BadArgument);
    };
    match zone.delete(&key, expected, now_ns()) {
        Ok(deleted) => Ok(i32::from(deleted)),
        Err(error) => refuse(status(guest, &error)),
    }
}

#[expect(clippy::too_many_arguments, reason = "the ABI has so many")]
fn kv_list(
    mut caller: Caller<'_, Guest>,
    zone_ptr: u32,
    zone_len: u32,
    prefix_ptr: u32,
    prefix_len: u32,
    after_ptr: u32,
    after_len: u32,
    limit: u32,
    out: u32,
    capacity: u32,
) -> Result<i32> {
    let (memory, guest) = split(&mut caller)?;
    let prefix = bytes(memory, prefix_ptr, prefix_len)?;
    let after = bytes(memory, after_ptr, after_len)?;
    let zone = match kv_zone(guest, bytes(memory, zone_ptr, zone_len)?) {
        Ok(zone) => zone,
        Err(status) => return refuse(status),
    };
    let limit = limit as usize;
    if !(1..=MAX_LIST_KEYS).contains(&limit) {
        return refuse(Status::BadArgument);
    }
    let after = (!after.is_empty()).then_some(after);
    let listing = match zone.list(prefix, after, limit, now_ns()) {
        Ok(listing) => listing,
        Err(error) => return refuse(status(guest, &error)),
    };
    let next = listing.next.unwrap_or_default();
    let mut listed = Vec::new();
    for record in std::iter::once(&next).chain(&listing.keys) {
        let Some(head) = key_head(record) else {
            return refuse(Status::HostFailed); // not reached: keys are shorter
        };
        listed.extend_from_slice(&head);
        listed.extend_from_slice(record);
    }
    hand_out(memory, out, capacity, &listed)
}

/// Zone and key, where both may be used.
fn granted<'a>(
    guest: &'a Guest,
    name: &[u8],
    key: Result<Key, ZoneError>,
) -> Result<(&'a KvZone, Key), Status> {
    let zone = kv_zone(guest, name)?;
    let key = key.map_err(|error| status(guest, &error))?;
    Ok((zone, key))
}

fn kv_zone<'a>(guest: &'a Guest, name: &[u8]) -> Result<&'a KvZone, Status> {
    match counter::zone(guest, name)? {
        Zone::Kv(zone) => Ok(zone),
        Zone::Counter(_) | Zone::Gauge(_) | Zone::Topic(_) | Zone::Cache(_) => {
            Err(Status::WrongKind)
        }
    }
}

/// Keys of a call on several.
fn read_keys(list: &[u8]) -> Result<Vec<Key>, Status> {
    let keys = records(list).take(MAX_KEYS_AT_ONCE + 1).map(|key| {
        let key = key.map_err(|()| Status::BadArgument)?;
        Key::new(key).map_err(|_| Status::BadArgument)
    });
    not_too_many(keys.collect::<Result<_, _>>()?)
}

/// Keys and values of a call on several.
fn read_entries(list: &[u8]) -> Result<Vec<(Key, &[u8])>, Status> {
    let entries = header_list::records(list).take(MAX_KEYS_AT_ONCE + 1);
    let entries = entries.map(|entry| {
        let (key, value) = entry.map_err(|()| Status::BadArgument)?;
        let key = Key::new(key).map_err(|_| Status::BadArgument)?;
        Ok((key, value))
    });
    not_too_many(entries.collect::<Result<_, _>>()?)
}

fn not_too_many<T>(list: Vec<T>) -> Result<Vec<T>, Status> {
    (list.len() <= MAX_KEYS_AT_ONCE)
        .then_some(list)
        .ok_or(Status::Limit)
}

/// Time to live as the ABI has it: 0 is for ever.
fn read_ttl(ttl_ms: i64) -> Result<Option<Duration>, Status> {
    let ttl_ms = u64::try_from(ttl_ms).map_err(|_| Status::BadArgument)?;
    Ok((ttl_ms > 0).then(|| Duration::from_millis(ttl_ms)))
}

/// Time that is left, as the ABI has it.
fn to_ttl_ms(ttl: Option<Duration>) -> i64 {
    let ttl_ms = ttl.map_or(0, |ttl| ttl.as_nanos().div_ceil(1_000_000).max(1));
    i64::try_from(ttl_ms).unwrap_or(i64::MAX)
}

/// Bytes of a time to live that is handed out.
const TTL_BYTES: u32 = 8;

fn read_expected(expected: u32, value: &[u8]) -> Option<Expected<'_>> {
    KvExpected::from_raw(expected).map(|expected| match expected {
        KvExpected::Any => Expected::Anything,
        KvExpected::Absent => Expected::Nothing,
        KvExpected::Value => Expected::Value(value),
    })
}

/// Status that the guest is told; what is no fault of its own goes into the log.
pub(super) fn status(guest: &Guest, error: &ZoneError) -> Status {
    match error {
        ZoneError::KeyLength(_) | ZoneError::NotANumber(_) => Status::BadArgument,
        ZoneError::ValueTooLarge { .. } | ZoneError::NumberOverflow => Status::Limit,
        // Others were quicker all the time: to try again may help.
        ZoneError::Full(_) | ZoneError::Contended(_) => Status::Full,
        ZoneError::Size { .. }
        | ZoneError::Name(_)
        | ZoneError::Mismatch { .. }
        | ZoneError::Damaged { .. }
        | ZoneError::Unsupported(_)
        | ZoneError::Io { .. }
        | ZoneError::File { .. }
        | ZoneError::NoRow(_)
        | ZoneError::Store { .. } => {
            tell_unusable(&guest.plugin, error);
            Status::HostFailed
        }
    }
}

/// Tells it once in a while: each request of a worker may meet it.
#[cold]
fn tell_unusable(plugin: &str, error: &ZoneError) {
    thread_local! {
        static TOLD_AT: Cell<Option<Instant>> = const { Cell::new(None) };
    }
    let now = Instant::now();
    let is_due = |told_at| now.duration_since(told_at) >= TELL_EACH;
    if TOLD_AT.get().is_none_or(is_due) {
        TOLD_AT.set(Some(now));
        error!(plugin, "a zone cannot be used: {error}");
    }
}

const TELL_EACH: Duration = Duration::from_secs(10);
