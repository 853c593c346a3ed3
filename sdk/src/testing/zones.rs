//! Counter zones without an end, by this thread's clock.

use std::collections::BTreeMap;
use std::time::Duration;

use castling_abi::rules::check;
use castling_abi::{Grant, Status};

use super::ZoneFault;
use super::world::{World, with_world};

/// By zone and key.
pub(super) struct Zones {
    counts: BTreeMap<Key, Count>,
    /// When the bucket will be empty again: GCRA's theoretical arrival time.
    empty_at: BTreeMap<Key, Duration>,
}

type Key = (Vec<u8>, Vec<u8>);

#[derive(Clone, Copy)]
struct Count {
    count: i64,
    window_end: Duration,
}

impl Zones {
    pub(super) const fn new() -> Self {
        Self {
            counts: BTreeMap::new(),
            empty_at: BTreeMap::new(),
        }
    }
}

pub(crate) fn counter_add(zone: &[u8], key: &[u8], amount: i64, window_ms: i64) -> i64 {
    with_granted(zone, key, |world| {
        let window = above_zero(window_ms).map(Duration::from_millis);
        let (Some(window), true) = (window, amount >= 0) else {
            return Status::BadArgument as i64;
        };
        let fresh = Count {
            count: 0,
            window_end: world.monotonic.saturating_add(window),
        };
        let count = world
            .zones
            .counts
            .entry(full_key(zone, key))
            .or_insert(fresh);
        if count.window_end <= world.monotonic {
            *count = fresh;
        }
        count.count = count.count.saturating_add(amount);
        count.count
    })
}

/// Zones are all there and of every kind, as far as the test does not say otherwise, and so are upstreams, before an exchange says which
/// it has. Hosts are granted by their patterns, once there are any.
pub(crate) fn grant_check(grant: Grant, name: &[u8]) -> i32 {
    let refused = match grant {
        Grant::Upstream => super::hosts::refusal_of_grant(name),
        Grant::CounterZone | Grant::KvZone | Grant::GaugeZone | Grant::Topic => {
            refusal(grant, name)
        }
    };
    refused.map_or(0, |status| status as i32)
}

/// Why the zone cannot be used as one of this kind.
pub(super) fn refusal(kind: Grant, zone: &[u8]) -> Option<Status> {
    with_world(|world| {
        let fault = world.zone_faults.get(zone);
        let known = world.zone_kinds.get(zone);
        match (fault, known) {
            (Some(ZoneFault::NotGranted), _) => Some(Status::NotGranted),
            (_, Some(known)) if *known != kind => Some(Status::WrongKind),
            _ => None,
        }
    })
}

/// Kind of a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZoneKind {
    /// Counts and rates.
    Counter,
    /// Values.
    Kv,
    /// Permits.
    Gauge,
    /// Messages.
    Topic,
}

/// Says of what kind a zone of this thread is: calls for another kind are refused. A zone of which nothing is said is of any.
pub fn set_zone_kind(zone: &str, kind: ZoneKind) {
    let kind = match kind {
        ZoneKind::Counter => Grant::CounterZone,
        ZoneKind::Kv => Grant::KvZone,
        ZoneKind::Gauge => Grant::GaugeZone,
        ZoneKind::Topic => Grant::Topic,
    };
    with_world(|world| world.zone_kinds.insert(zone.as_bytes().to_vec(), kind));
}

pub(crate) fn counter_get(zone: &[u8], key: &[u8]) -> i64 {
    with_granted(zone, key, |world| {
        let count = world.zones.counts.get(&full_key(zone, key));
        count
            .filter(|count| count.window_end > world.monotonic)
            .map_or(0, |count| count.count)
    })
}

pub(crate) fn rate_take(zone: &[u8], key: &[u8], interval_ns: i64, burst: i64) -> i64 {
    with_granted(zone, key, |world| {
        let (Some(interval_ns), Some(burst)) = (above_zero(interval_ns), above_zero(burst)) else {
            return Status::BadArgument as i64;
        };
        let Some(room_ns) = interval_ns.checked_mul(burst) else {
            return Status::BadArgument as i64;
        };
        let (interval, room) = (
            Duration::from_nanos(interval_ns),
            Duration::from_nanos(room_ns),
        );
        let now = world.monotonic;
        let empty_at = world.zones.empty_at.entry(full_key(zone, key)).or_default();
        let reset = (*empty_at).max(now) + interval - now;
        if reset > room {
            return -(nanos(reset - room).saturating_add(1_000));
        }
        *empty_at = now + reset;
        nanos(reset)
    })
}

fn with_granted(zone: &[u8], key: &[u8], use_it: impl FnOnce(&mut World) -> i64) -> i64 {
    if !check::is_zone_key(key) {
        return Status::BadArgument as i64;
    }
    match refusal(Grant::CounterZone, zone) {
        Some(refused) => refused as i64,
        None => with_world(use_it),
    }
}

fn full_key(zone: &[u8], key: &[u8]) -> Key {
    (zone.to_vec(), key.to_vec())
}

fn above_zero(number: i64) -> Option<u64> {
    u64::try_from(number).ok().filter(|&number| number > 0)
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}
