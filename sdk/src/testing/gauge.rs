//! Gauge zones, and flights of kv zones, of this thread.

use std::cell::RefCell;
use std::rc::{Rc, Weak};
use std::time::Duration;

use castling_abi::rules::{self, check};
use castling_abi::{FLIGHT_FETCH, FLIGHT_TIMED_OUT, FLIGHT_VALUE, Grant, LONGEST_DELAY_MS, Status};

use super::ZoneFault;
use super::hook::may;
use super::kv::kv_get;
use super::world::{Facts, current, with_world};
use super::zones;

/// Permits that are out.
pub(super) struct Permits {
    out: Vec<HeldPermit>,
}

struct HeldPermit {
    holder: Weak<RefCell<Facts>>,
    /// The plugin that has taken it.
    plugin: usize,
    /// Whether it is a flight, and not of a gauge zone.
    is_flight: bool,
    zone: Vec<u8>,
    key: Vec<u8>,
}

impl Permits {
    pub(super) const fn new() -> Self {
        Self { out: Vec::new() }
    }

    fn held_by(&self, (holder, plugin): &Holder) -> usize {
        let out = self.out.iter();
        out.filter(|permit| permit.is_of_plugin(holder, *plugin))
            .count()
    }

    /// Takes back what this exchange holds of the key: 1, or 0 where it holds nothing.
    fn end(&mut self, (holder, plugin): &Holder, is_flight: bool, zone: &[u8], key: &[u8]) -> i32 {
        let mut out = self.out.iter();
        let held = out.position(|permit| {
            permit.is_of_plugin(holder, *plugin) && permit.is_of(is_flight, zone, key)
        });
        i32::from(held.map(|idx| self.out.swap_remove(idx)).is_some())
    }

    fn count(&self, zone: &[u8], key: &[u8]) -> usize {
        let out = self.out.iter();
        out.filter(|permit| permit.is_of(false, zone, key)).count()
    }
}

/// Exchange and plugin.
type Holder = (Rc<RefCell<Facts>>, usize);

/// The plugin that calls, for the exchange that was lent last.
fn holder() -> Option<Holder> {
    let plugin = with_world(|world| world.plugin);
    current().map(|exchange| (exchange, plugin))
}

impl HeldPermit {
    fn is_of_plugin(&self, exchange: &Rc<RefCell<Facts>>, plugin: usize) -> bool {
        self.is_held_by(exchange) && self.plugin == plugin
    }

    fn is_of(&self, is_flight: bool, zone: &[u8], key: &[u8]) -> bool {
        self.is_flight == is_flight && self.zone == zone && self.key == key
    }

    fn is_held_by(&self, exchange: &Rc<RefCell<Facts>>) -> bool {
        std::ptr::eq(self.holder.as_ptr(), Rc::as_ptr(exchange))
    }
}

pub(crate) fn gauge_enter(zone: &[u8], key: &[u8], max: u32) -> i32 {
    let holder = match holder() {
        Some(holder) if may(&rules::GAUGE_ENTER) => holder,
        _ => return refusal(zone, key).unwrap_or(rules::GAUGE_ENTER.refused) as i32,
    };
    let limit = with_world(|world| world.limits.permits);
    with_permits(zone, key, |permits, fault| {
        let own = permits
            .out
            .iter()
            .filter(|permit| permit.is_of_plugin(&holder.0, holder.1));
        if max == 0 || { own }.any(|permit| permit.is_of(false, zone, key)) {
            return Status::BadArgument as i32;
        }
        if permits.held_by(&holder) >= limit {
            return Status::Limit as i32;
        }
        match permits.count(zone, key) {
            0 if fault == Some(ZoneFault::Full) => return Status::Full as i32,
            out if out as u64 >= u64::from(max) => return 0,
            _ => {}
        }
        permits.out.push(HeldPermit {
            holder: Rc::downgrade(&holder.0),
            plugin: holder.1,
            is_flight: false,
            zone: zone.to_vec(),
            key: key.to_vec(),
        });
        1
    })
}

pub(crate) fn gauge_leave(zone: &[u8], key: &[u8]) -> i32 {
    let holder = holder().unwrap_or_default();
    with_permits(zone, key, |permits, _| {
        permits.end(&holder, false, zone, key)
    })
}

/// Where it would wait for another request, who the test has said that fetches has its time: [`super::script_flight`]. Without that, the
/// time passes, as nobody else runs meanwhile.
pub(crate) fn kv_flight(zone: &[u8], key: &[u8], wait_ms: u32) -> i32 {
    if let Some(refused) = refusal_of_flight(zone, key) {
        return refused as i32;
    }
    let holder = match holder() {
        Some(holder) if may(&rules::KV_FLIGHT) => holder,
        _ => return rules::KV_FLIGHT.refused as i32,
    };
    if wait_ms > LONGEST_DELAY_MS {
        return Status::BadArgument as i32;
    }
    let flown = fly(&holder, zone, key);
    if flown != FLIGHT_TIMED_OUT {
        return flown;
    }
    match super::flight::land(zone, key, Duration::from_millis(wait_ms.into())) {
        true => fly(&holder, zone, key),
        false => FLIGHT_TIMED_OUT,
    }
}

/// [`FLIGHT_TIMED_OUT`] where another request fetches.
fn fly(holder: &Holder, zone: &[u8], key: &[u8]) -> i32 {
    let has_value = kv_get(zone, key, &mut []) >= 0;
    let is_scripted = super::flight::is_scripted(zone, key);
    with_world(|world| {
        let (permits, limit) = (&mut world.permits, world.limits.permits);
        let flight = permits
            .out
            .iter()
            .find(|permit| permit.is_of(true, zone, key));
        match flight {
            Some(flight) if flight.is_of_plugin(&holder.0, holder.1) => FLIGHT_FETCH,
            _ if permits.held_by(holder) >= limit => Status::Limit as i32,
            _ if has_value => FLIGHT_VALUE,
            Some(_) => FLIGHT_TIMED_OUT,
            None if is_scripted => FLIGHT_TIMED_OUT,
            None => {
                permits.out.push(HeldPermit {
                    holder: Rc::downgrade(&holder.0),
                    plugin: holder.1,
                    is_flight: true,
                    zone: zone.to_vec(),
                    key: key.to_vec(),
                });
                FLIGHT_FETCH
            }
        }
    })
}

pub(crate) fn kv_flight_end(zone: &[u8], key: &[u8]) -> i32 {
    match refusal_of_flight(zone, key) {
        Some(refused) => refused as i32,
        None => {
            let holder = holder().unwrap_or_default();
            with_world(|world| world.permits.end(&holder, true, zone, key))
        }
    }
}

fn refusal_of_flight(zone: &[u8], key: &[u8]) -> Option<Status> {
    match check::is_kv_key(key) {
        true => zones::refusal(Grant::KvZone, zone),
        false => Some(Status::BadArgument),
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

/// Ends the flights of a plugin whose hook has failed: others wait for what it was to fetch.
pub(super) fn plugin_failed(exchange: &Rc<RefCell<Facts>>, plugin: usize) {
    with_world(|world| {
        let out = &mut world.permits.out;
        out.retain(|permit| !permit.is_flight || !permit.is_of_plugin(exchange, plugin));
    });
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

fn refusal(zone: &[u8], key: &[u8]) -> Option<Status> {
    match check::is_zone_key(key) {
        true => zones::refusal(Grant::GaugeZone, zone),
        false => Some(Status::BadArgument),
    }
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
