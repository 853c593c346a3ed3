//! Shared values: kv zones.

use std::time::Duration;

use castling_abi::kv::{MAX_KEY_BYTES, MAX_LIST_KEYS};
use castling_abi::{IMPORT_MODULE, KvExpected, Status, imports};
use tracing::error;
use wasmtime::{Caller, Linker, Result};

use super::{counter, refuse};
use crate::wasm::guest::{Guest, bytes, hand_out, split};
use crate::zone::{Expected, KEY_LIMIT_BYTES, Key, KvZone, Zone, ZoneError, now_ns};

pub(super) fn add_to(linker: &mut Linker<Guest>) -> Result<()> {
    linker
        .func_wrap(IMPORT_MODULE, imports::KV_GET, kv_get)?
        .func_wrap(IMPORT_MODULE, imports::KV_PUT, kv_put)?
        .func_wrap(IMPORT_MODULE, imports::KV_DELETE, kv_delete)?
        .func_wrap(IMPORT_MODULE, imports::KV_LIST, kv_list)?;
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
    let (Ok(ttl_ms), Some(expected)) = (u64::try_from(ttl_ms), expected) else {
        return refuse(Status::BadArgument);
    };
    let ttl = (ttl_ms > 0).then(|| Duration::from_millis(ttl_ms));
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
    let mut records = Vec::new();
    for record in std::iter::once(&next).chain(&listing.keys) {
        let Ok(length) = u16::try_from(record.len()) else {
            return refuse(Status::HostFailed); // not reached: keys are shorter
        };
        records.extend_from_slice(&length.to_le_bytes());
        records.extend_from_slice(record);
    }
    hand_out(memory, out, capacity, &records)
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
        Zone::Counter(_) => Err(Status::WrongKind),
    }
}

fn read_expected(expected: u32, value: &[u8]) -> Option<Expected<'_>> {
    KvExpected::from_raw(expected).map(|expected| match expected {
        KvExpected::Any => Expected::Anything,
        KvExpected::Absent => Expected::Nothing,
        KvExpected::Value => Expected::Value(value),
    })
}

/// Status that the guest is told; what is no fault of its own goes into the log.
fn status(guest: &Guest, error: &ZoneError) -> Status {
    match error {
        ZoneError::KeyLength(_) => Status::BadArgument,
        ZoneError::ValueTooLarge { .. } => Status::Limit,
        ZoneError::Full(_) => Status::Full,
        ZoneError::Size { .. }
        | ZoneError::Name(_)
        | ZoneError::Mismatch { .. }
        | ZoneError::Damaged { .. }
        | ZoneError::Unsupported(_)
        | ZoneError::Io { .. }
        | ZoneError::File { .. }
        | ZoneError::Store { .. } => {
            let plugin = &*guest.plugin;
            error!(plugin, "a zone cannot be used: {error}");
            Status::HostFailed
        }
    }
}
