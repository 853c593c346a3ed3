//! Shared numbers: counter zones.

use std::time::Duration;

use castling_abi::rules::check;
use castling_abi::{IMPORT_MODULE, Status, imports};
use wasmtime::{Caller, Linker, Result};

use crate::wasm::guest::{GrantedZone, Guest, bytes, split};
use crate::zone::{CounterZone, Updated, Zone, now_ns};

pub(super) fn add_to(linker: &mut Linker<Guest>) -> Result<()> {
    linker
        .func_wrap(IMPORT_MODULE, imports::COUNTER_ADD, counter_add)?
        .func_wrap(IMPORT_MODULE, imports::COUNTER_GET, counter_get)?
        .func_wrap(IMPORT_MODULE, imports::RATE_TAKE, rate_take)?;
    Ok(())
}

fn counter_add(
    mut caller: Caller<'_, Guest>,
    zone_ptr: u32,
    zone_len: u32,
    key_ptr: u32,
    key_len: u32,
    amount: i64,
    window_ms: i64,
) -> Result<i64> {
    let (memory, guest) = split(&mut caller)?;
    let key = bytes(memory, key_ptr, key_len)?;
    let zone = match granted(guest, bytes(memory, zone_ptr, zone_len)?, key) {
        Ok(zone) => zone,
        Err(status) => return refuse(status),
    };
    let (Ok(amount), Ok(window_ms @ 1..)) = (u64::try_from(amount), u64::try_from(window_ms))
    else {
        return refuse(Status::BadArgument);
    };
    let count = zone.add(key, amount, Duration::from_millis(window_ms), now_ns());
    Ok(i64::try_from(count).unwrap_or(i64::MAX))
}

fn counter_get(
    mut caller: Caller<'_, Guest>,
    zone_ptr: u32,
    zone_len: u32,
    key_ptr: u32,
    key_len: u32,
) -> Result<i64> {
    let (memory, guest) = split(&mut caller)?;
    let key = bytes(memory, key_ptr, key_len)?;
    match granted(guest, bytes(memory, zone_ptr, zone_len)?, key) {
        Ok(zone) => {
            let count = zone.get(key, now_ns()).map_or(0, |reading| reading.value);
            Ok(i64::try_from(count).unwrap_or(i64::MAX))
        }
        Err(status) => refuse(status),
    }
}

fn rate_take(
    mut caller: Caller<'_, Guest>,
    zone_ptr: u32,
    zone_len: u32,
    key_ptr: u32,
    key_len: u32,
    interval_ns: i64,
    burst: i64,
) -> Result<i64> {
    let (memory, guest) = split(&mut caller)?;
    let key = bytes(memory, key_ptr, key_len)?;
    let zone = match granted(guest, bytes(memory, zone_ptr, zone_len)?, key) {
        Ok(zone) => zone,
        Err(status) => return refuse(status),
    };
    let (Ok(interval_ns @ 1..), Ok(burst @ 1..)) =
        (u64::try_from(interval_ns), u64::try_from(burst))
    else {
        return refuse(Status::BadArgument);
    };
    let Some(room_ns) = interval_ns.checked_mul(burst) else {
        return refuse(Status::BadArgument);
    };
    Ok(match take(zone, key, interval_ns, room_ns, now_ns()) {
        Ok(until_empty_ns) => i64::try_from(until_empty_ns).unwrap_or(i64::MAX),
        // The ABI keeps a refusal apart from a status by this offset.
        Err(wait_ns) => {
            -(i64::try_from(wait_ns)
                .unwrap_or(i64::MAX)
                .saturating_sub(1000)
                + 1000)
        }
    })
}

/// GCRA (ITU-T I.371): the zone holds the time at which the key's bucket will be empty. A cell fits while that, with the
/// cell, is no further away than the room for bursts. `Err`: so long until one fits.
fn take(
    zone: &CounterZone,
    key: &[u8],
    interval_ns: u64,
    room_ns: u64,
    now_ns: u64,
) -> Result<u64, u64> {
    let empty_after = |empty_at: Option<u64>| {
        let empty_at = empty_at.unwrap_or(0).max(now_ns);
        empty_at.saturating_add(interval_ns) - now_ns
    };
    let updated = zone.update(key, Duration::from_nanos(room_ns), now_ns, |empty_at| {
        let after = empty_after(empty_at);
        (after <= room_ns).then(|| now_ns.saturating_add(after))
    });
    match updated {
        // Contended: others were quicker all the time; the cell is let through uncounted rather than refused.
        Updated::Stored(empty_at) | Updated::Contended(empty_at) => {
            Ok(empty_at.saturating_sub(now_ns))
        }
        Updated::Left(empty_at) => Err(empty_after(empty_at) - room_ns),
    }
}

fn granted<'a>(guest: &'a Guest, name: &[u8], key: &[u8]) -> Result<&'a CounterZone, Status> {
    if !check::is_zone_key(key) {
        return Err(Status::BadArgument);
    }
    match zone(guest, name)? {
        Zone::Counter(zone) => Ok(zone),
        Zone::Kv(_) | Zone::Gauge(_) | Zone::Topic(_) | Zone::Cache(_) => Err(Status::WrongKind),
    }
}

/// The zone of this name, if the plugin is granted it.
pub(super) fn zone<'a>(guest: &'a Guest, name: &[u8]) -> Result<&'a Zone, Status> {
    granted_zone(guest, name).map(|granted| &*granted.zone)
}

pub(super) fn granted_zone<'a>(guest: &'a Guest, name: &[u8]) -> Result<&'a GrantedZone, Status> {
    let mut granted = guest.zones.iter();
    let zone = granted.find(|granted| granted.name.as_bytes() == name);
    zone.ok_or(Status::NotGranted)
}

fn refuse(status: Status) -> Result<i64> {
    Ok(i64::from(status as i32))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_burst_passes_and_then_one_an_interval() {
        let start = now_ns();
        let zone = CounterZone::create("test", CounterZone::MIN_BYTES, start).unwrap();
        // A rate of one a second, three at once.
        let take = |at: u64| take(&zone, b"key", SECOND, 3 * SECOND, start + at);
        assert_eq!(take(0), Ok(SECOND));
        assert_eq!(take(0), Ok(2 * SECOND));
        assert_eq!(take(0), Ok(3 * SECOND));
        assert_eq!(take(0), Err(SECOND));
        assert_eq!(take(SECOND / 2), Err(SECOND / 2));
        assert_eq!(take(SECOND), Ok(3 * SECOND));
        assert_eq!(take(100 * SECOND), Ok(SECOND));
    }
}
