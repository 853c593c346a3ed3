//! Gauge zones of this thread.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use castling_abi::Status;

use super::ZoneFault;
use super::hook::running;
use super::world::{Facts, current, with_world};

/// Longest key.
const MAX_KEY_BYTES: usize = 4096;

/// Permits that are out.
pub(super) struct Permits {
    out: Vec<HeldPermit>,
    /// `limits.permits`.
    pub(super) limit: usize,
}

struct HeldPermit {
    holder: Weak<RefCell<Facts>>,
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

    fn count(&self, zone: &[u8], key: &[u8]) -> usize {
        let out = self.out.iter();
        out.filter(|permit| permit.is_of(zone, key)).count()
    }
}

impl HeldPermit {
    fn is_of(&self, zone: &[u8], key: &[u8]) -> bool {
        self.zone == zone && self.key == key
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
        let mut own = permits
            .out
            .iter()
            .filter(|permit| permit.is_held_by(&holder));
        if max == 0 || own.clone().any(|permit| permit.is_of(zone, key)) {
            return Status::BadArgument as i32;
        }
        if own.by_ref().count() >= permits.limit {
            return Status::Limit as i32;
        }
        match permits.count(zone, key) {
            0 if fault == Some(ZoneFault::Full) => return Status::Full as i32,
            out if out as u64 >= u64::from(max) => return 0,
            _ => {}
        }
        permits.out.push(HeldPermit {
            holder: Rc::downgrade(&holder),
            zone: zone.to_vec(),
            key: key.to_vec(),
        });
        1
    })
}

pub(crate) fn gauge_leave(zone: &[u8], key: &[u8]) -> i32 {
    let holder = current().unwrap_or_default();
    with_permits(zone, key, |permits, _| {
        let mut out = permits.out.iter();
        let held = out.position(|permit| permit.is_held_by(&holder) && permit.is_of(zone, key));
        i32::from(held.map(|idx| permits.out.swap_remove(idx)).is_some())
    })
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

/// A timer has no request.
fn may_hold() -> bool {
    running() != Some(castling_abi::Hook::Timer)
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
