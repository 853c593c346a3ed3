//! Flights of other requests, as a test tells them.

use std::time::Duration;

use super::world::with_world;

/// A fetch of another request that is under way.
pub(super) struct Flight {
    zone: Vec<u8>,
    key: Vec<u8>,
    takes: Duration,
    ends: Box<dyn FnOnce()>,
}

/// Has another request fetch the key's value from now on, for so long after one of this test has begun to wait for it: then `ends` runs,
/// which puts the value into the zone, or does not, so that the next one fetches.
///
/// ```
/// # use castling_sdk::prelude::*;
/// # use castling_sdk::testing::{self, Exchange};
/// let pages = || zones::kv("pages");
/// testing::script_flight("pages", "home", Duration::from_millis(20), move || {
///     pages().put("home", "hi", None).unwrap();
/// });
/// let mut exchange = Exchange::get("/");
/// exchange.request();
/// let zone = pages();
/// match zone.single_flight("home", Duration::from_secs(1)).unwrap() {
///     zones::Flight::Value(page) => assert_eq!(page, b"hi"),
///     _ => panic!("another request fetches it, and is quick enough"),
/// }
/// ```
pub fn script_flight(zone: &str, key: &str, takes: Duration, ends: impl FnOnce() + 'static) {
    let flight = Flight {
        zone: zone.as_bytes().to_vec(),
        key: key.as_bytes().to_vec(),
        takes,
        ends: Box::new(ends),
    };
    with_world(|world| world.flights.push(flight));
}

/// Whether another request fetches.
pub(super) fn is_scripted(zone: &[u8], key: &[u8]) -> bool {
    with_world(|world| {
        let mut flights = world.flights.iter();
        flights.any(|flight| flight.zone == zone && flight.key == key)
    })
}

/// Waits for it. False: it took longer.
pub(super) fn land(zone: &[u8], key: &[u8], longest: Duration) -> bool {
    let landed = with_world(|world| {
        let mut flights = world.flights.iter();
        let idx = flights.position(|flight| flight.zone == zone && flight.key == key)?;
        let flight = &mut world.flights[idx];
        if flight.takes > longest {
            flight.takes -= longest;
            return None;
        }
        Some(world.flights.swap_remove(idx))
    });
    let Some(flight) = landed else {
        super::advance_clock(longest);
        return false;
    };
    super::advance_clock(flight.takes);
    (flight.ends)();
    true
}
