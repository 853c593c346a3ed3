//! Gauge zones, and flights of kv zones, of this thread.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::time::Duration;

use castling_abi::{FLIGHT_FETCH, FLIGHT_TIMED_OUT, FLIGHT_VALUE, Hook, LONGEST_DELAY_MS, Status};

use super::ZoneFault;
use super::hook::{may_wait, running};
use super::kv::kv_get;
use super::world::{Facts, current, with_world};

/// Longest key of a gauge zone.
const MAX_KEY_BYTES: usize = 4096;

/// Longest key of a flight.
const MAX_FLIGHT_KEY_BYTES: usize = castling_abi::kv::MAX_KEY_BYTES;

/// Permits that are out.
pub(super) struct Permits {
    out: Vec<HeldPermit>,
    /// `limits.permits`.
    pub(super) limit: usize,
}

struct HeldPermit {
    holder: Weak<RefCell<Facts>>,
    /// Whether it is a flight, and not of a gauge zone.
    is_flight: bool,
    zone: Vec<u8>,
    key: Vec<u8>,
}

impl Permits {
    pub(super) const fn new() -> Self {
        Self {
            out: Vec::new(),
            limit: 16,
        }
    }

    fn held_by(&self, holder: &Rc<RefCell<Facts>>) -> usize {
        let out = self.out.iter();
        out.filter(|permit| permit.is_held_by(holder)).count()
    }

    /// Takes back what this exchange holds of the key: 1, or 0 where it holds nothing.
    fn end(
        &mut self,
        holder: &Rc<RefCell<Facts>>,
        is_flight: bool,
        zone: &[u8],
        key: &[u8],
    ) -> i32 {
        let mut out = self.out.iter();
        let held =
            out.position(|permit| permit.is_held_by(holder) && permit.is_of(is_flight, zone, key));
        i32::from(held.map(|idx| self.out.swap_remove(idx)).is_some())
    }

    fn count(&self, zone: &[u8], key: &[u8]) -> usize {
        let out = self.out.iter();
        out.filter(|permit| permit.is_of(false, zone, key)).count()
    }
}

impl HeldPermit {
    fn is_of(&self, is_flight: bool, zone: &[u8], key: &[u8]) -> bool {
        self.is_flight == is_flight && self.zone == zone && self.key == key
    }

    fn is_held_by(&self, exchange: &Rc<RefCell<Facts>>) -> bool {
        std::ptr::eq(self.holder.as_ptr(), Rc::as_ptr(exchange))
    }
}

pub(crate) fn gauge_enter(zone: &[u8], key: &[u8], max: u32) -> i32 {
    let holder = match current() {
        Some(holder) if may_hold() => holder,
        _ => return refusal(zone, key).unwrap_or(Status::NotNow) as i32,
    };
    with_permits(zone, key, |permits, fault| {
        let own = permits
            .out
            .iter()
            .filter(|permit| permit.is_held_by(&holder));
        if max == 0 || { own }.any(|permit| permit.is_of(false, zone, key)) {
            return Status::BadArgument as i32;
        }
        if permits.held_by(&holder) >= permits.limit {
            return Status::Limit as i32;
        }
        match permits.count(zone, key) {
            0 if fault == Some(ZoneFault::Full) => return Status::Full as i32,
            out if out as u64 >= u64::from(max) => return 0,
            _ => {}
        }
        permits.out.push(HeldPermit {
            holder: Rc::downgrade(&holder),
            is_flight: false,
            zone: zone.to_vec(),
            key: key.to_vec(),
        });
        1
    })
}

pub(crate) fn gauge_leave(zone: &[u8], key: &[u8]) -> i32 {
    let holder = current().unwrap_or_default();
    with_permits(zone, key, |permits, _| {
        permits.end(&holder, false, zone, key)
    })
}

/// Lets the time pass where it would wait for another request: nobody else runs meanwhile.
pub(crate) fn kv_flight(zone: &[u8], key: &[u8], wait_ms: u32) -> i32 {
    if let Some(refused) = refusal_of_flight(zone, key) {
        return refused as i32;
    }
    if wait_ms > LONGEST_DELAY_MS {
        return Status::BadArgument as i32;
    }
    let holder = match current() {
        Some(holder) if may_hold() && may_wait() => holder,
        _ => return Status::NotNow as i32,
    };
    let has_value = kv_get(zone, key, &mut []) >= 0;
    let flown = with_world(|world| {
        let permits = &mut world.permits;
        let flight = permits
            .out
            .iter()
            .find(|permit| permit.is_of(true, zone, key));
        match flight {
            Some(flight) if flight.is_held_by(&holder) => FLIGHT_FETCH,
            _ if permits.held_by(&holder) >= permits.limit => Status::Limit as i32,
            _ if has_value => FLIGHT_VALUE,
            Some(_) => FLIGHT_TIMED_OUT,
            None => {
                permits.out.push(HeldPermit {
                    holder: Rc::downgrade(&holder),
                    is_flight: true,
                    zone: zone.to_vec(),
                    key: key.to_vec(),
                });
                FLIGHT_FETCH
            }
        }
    });
    if flown == FLIGHT_TIMED_OUT {
        super::advance_clock(Duration::from_millis(wait_ms.into()));
    }
    flown
}

pub(crate) fn kv_flight_end(zone: &[u8], key: &[u8]) -> i32 {
    match refusal_of_flight(zone, key) {
        Some(refused) => refused as i32,
        None => {
            let holder = current().unwrap_or_default();
            with_world(|world| world.permits.end(&holder, true, zone, key))
        }
    }
}

fn refusal_of_flight(zone: &[u8], key: &[u8]) -> Option<Status> {
    match key.len() {
        1..=MAX_FLIGHT_KEY_BYTES => refusal(zone, key),
        _ => Some(Status::BadArgument),
    }
}

pub(crate) fn gauge_count(zone: &[u8], key: &[u8]) -> i64 {
    let mut count = 0;
    let status = with_permits(zone, key, |permits, _| {
        count = permits.count(zone, key) as i64;
        0
    });
    match status {
        0 => count,
        refused => i64::from(refused),
    }
}

/// Gives back what the exchange holds.
pub(super) fn request_ends(exchange: &Rc<RefCell<Facts>>) {
    with_world(|world| {
        world
            .permits
            .out
            .retain(|permit| !permit.is_held_by(exchange))
    });
}

/// A timer and a message have no request.
fn may_hold() -> bool {
    !matches!(running(), Some(Hook::Timer | Hook::Message))
}

fn refusal(zone: &[u8], key: &[u8]) -> Option<Status> {
    if key.len() > MAX_KEY_BYTES {
        return Some(Status::BadArgument);
    }
    let fault = with_world(|world| world.zone_faults.get(zone).copied());
    (fault == Some(ZoneFault::NotGranted)).then_some(Status::NotGranted)
}

fn with_permits(
    zone: &[u8],
    key: &[u8],
    use_them: impl FnOnce(&mut Permits, Option<ZoneFault>) -> i32,
) -> i32 {
    if let Some(refused) = refusal(zone, key) {
        return refused as i32;
    }
    with_world(|world| use_them(&mut world.permits, world.zone_faults.get(zone).copied()))
}
