//! Flights: who fetches the value of a key that several want, over all workers.

use std::sync::Arc;

use super::{Bell, Gauge, NAME_LIMIT_BYTES, Permit, ZoneError};

/// Flights of all kv zones of a gateway, as a worker has them open.
///
/// A flight is the one permit of its key in a gauge zone that is the gateway's own: so there is one at a time over all workers, and one
/// whose worker was killed is gone with it. Those who wait for it hold a permit of another key meanwhile, by which whoever ends a
/// flight knows that the bell is to be rung.
#[derive(Debug)]
pub struct Flights {
    gauge: Arc<Gauge>,
    bell: Bell,
}

/// Key of a flight: a zone's name, and a key there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FlightKey(Box<[u8]>);

/// A flight under way, which ends when this is dropped, or with the worker.
#[derive(Debug)]
pub struct Flight {
    flights: Arc<Flights>,
    key: FlightKey,
    /// `None`: there was no room for it, and others may have the same.
    permit: Option<Permit>,
}

impl Flights {
    /// Size of their zone, bytes: 8192 cells.
    pub const SIZE_BYTES: u64 = 128 << 10;

    /// Name of their zone, which no zone of a config has.
    pub const ZONE: &str = "of flights";

    pub fn new(gauge: Arc<Gauge>, bell: Bell) -> Arc<Self> {
        Arc::new(Self { gauge, bell })
    }

    /// Begins the flight; `None`: it is under way. Where there is no room for it, or the worker is counted nowhere, it is
    /// one that does not keep others from theirs.
    pub fn begin(self: &Arc<Self>, key: &FlightKey) -> Option<Flight> {
        let permit = match self.gauge.enter(&key.0, 1) {
            Ok(None) => return None,
            Ok(permit) => permit,
            Err(error) => {
                tracing::debug!(%error, "a flight that keeps others from nothing");
                None
            }
        };
        Some(Flight {
            flights: Arc::clone(self),
            key: key.clone(),
            permit,
        })
    }

    /// A flight that keeps nobody from theirs.
    pub fn alone(self: &Arc<Self>, key: &FlightKey) -> Flight {
        Flight {
            flights: Arc::clone(self),
            key: key.clone(),
            permit: None,
        }
    }

    pub fn is_under_way(&self, key: &FlightKey) -> bool {
        self.gauge.zone().count(&key.0) > 0
    }

    /// Whether somebody waits for its end.
    pub fn is_awaited(&self, key: &FlightKey) -> bool {
        self.gauge.zone().count(&key.waiters()) > 0
    }

    /// Has the end of the flight ring the bell, until what this returns is dropped.
    pub fn await_end(&self, key: &FlightKey) -> Result<Option<Permit>, ZoneError> {
        self.gauge.enter(&key.waiters(), u64::MAX)
    }

    pub fn bell(&self) -> &Bell {
        &self.bell
    }
}

impl FlightKey {
    pub fn new(zone: &str, key: &[u8]) -> Self {
        debug_assert!(zone.len() <= NAME_LIMIT_BYTES, "zones have such names");
        let mut bytes = Vec::with_capacity(2 + zone.len() + key.len());
        bytes.extend_from_slice(&[FLIGHT, zone.len() as u8]);
        bytes.extend_from_slice(zone.as_bytes());
        bytes.extend_from_slice(key);
        Self(bytes.into())
    }

    /// Key of those who wait for its end.
    fn waiters(&self) -> Box<[u8]> {
        let mut bytes = self.0.clone();
        bytes[0] = WAITERS;
        bytes
    }
}

/// First bytes of keys.
const FLIGHT: u8 = b'f';
const WAITERS: u8 = b'w';

impl Flight {
    pub fn is_of(&self, key: &FlightKey) -> bool {
        self.key == *key
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        // Given back first: who waits sees that, or is seen here.
        self.permit = None;
        if self.flights.is_awaited(&self.key) {
            self.flights.bell.ring();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;
    use crate::zone::GaugeZone;

    fn workers() -> (GaugeZone, [Arc<Flights>; 2]) {
        let zone = GaugeZone::create(Flights::ZONE, Flights::SIZE_BYTES).unwrap();
        let bell = Bell::create().unwrap();
        let worker = |row| {
            zone.take_row(row).unwrap();
            let file = zone.descriptor().try_clone_to_owned().unwrap();
            let own = GaugeZone::open(file, Flights::ZONE, Flights::SIZE_BYTES).unwrap();
            let bell = Bell::open(bell.as_fd().try_clone_to_owned().unwrap());
            Flights::new(Gauge::new(own, Some(row)), bell)
        };
        let workers = [worker(1), worker(2)];
        (zone, workers)
    }

    fn has_rung(flights: &Flights) -> bool {
        let mut fds = [PollFd::new(flights.bell(), PollFlags::IN)];
        poll(&mut fds, Some(&Timespec::default())).unwrap() == 1
    }

    #[test]
    fn one_flies_and_the_bell_is_rung_for_those_who_wait() {
        let (_zone, [one, other]) = workers();
        let key = FlightKey::new("pages", b"/a");
        assert_ne!(key, FlightKey::new("page", b"s/a"));
        let flight = one.begin(&key).unwrap();
        assert!(other.begin(&key).is_none() && one.begin(&key).is_none());
        assert!(other.is_under_way(&key));
        drop(flight);
        assert!(!has_rung(&one), "nobody waits");
        let flight = other.begin(&key).unwrap();
        let _waits = one.await_end(&key).unwrap().unwrap();
        drop(flight);
        assert!(has_rung(&one) && !one.is_under_way(&key));
    }

    #[test]
    fn a_flight_ends_with_its_worker_and_one_without_room_keeps_nobody() {
        let (zone, [one, other]) = workers();
        let key = FlightKey::new("pages", b"/a");
        std::mem::forget(one.begin(&key).unwrap());
        zone.clear_row(1);
        let again = other.begin(&key).unwrap();
        assert!(one.begin(&key).is_none());
        drop(again);
        let nowhere = Flights::new(
            Gauge::new(GaugeZone::create("x", 4096).unwrap(), None),
            Bell::create().unwrap(),
        );
        let both = [(); 2].map(|()| nowhere.begin(&key));
        assert!(both.iter().all(Option::is_some));
    }
}
