//! Flights of kv zones: the memory and the bell that all workers share, of whichever generation. And the bell of topics.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::zone::{Bell, Flights, Gauge, GaugeZone, ZoneError};

/// Flights as a master has them.
pub struct SharedFlights {
    pub zone: GaugeZone,
    pub bell: Bell,
    /// Bell of topics, whose memory is a zone's.
    pub topics: Bell,
}

/// Descriptors of another master's, or for a worker.
#[derive(Debug)]
pub struct FlightDescriptors {
    pub zone: OwnedFd,
    pub bell: OwnedFd,
    pub topics: OwnedFd,
}

impl SharedFlights {
    /// Fails, for a person, when memory or descriptors do not suffice.
    pub fn create() -> Result<Self, String> {
        let zone = GaugeZone::create(Flights::ZONE, Flights::SIZE_BYTES);
        let bell = || Bell::create().map_err(|error| format!("the bells of workers: {error}"));
        Ok(Self {
            zone: zone.map_err(|error| error.to_string())?,
            bell: bell()?,
            topics: bell()?,
        })
    }

    /// Flights that another master hands over. Those that were made in a way that this version does not know, or of a version
    /// without them, begin anew.
    pub fn inherit(handed_over: Option<FlightDescriptors>) -> Result<Self, String> {
        let Some(handed_over) = handed_over else {
            return Self::create();
        };
        match open_zone(handed_over.zone) {
            Ok(zone) => Ok(Self {
                zone,
                bell: Bell::open(handed_over.bell),
                topics: Bell::open(handed_over.topics),
            }),
            Err(error) => {
                tracing::warn!(%error, "flights begin anew");
                Self::create()
            }
        }
    }

    pub fn descriptors(&self) -> io::Result<FlightDescriptors> {
        Ok(FlightDescriptors {
            zone: self.zone.descriptor().try_clone_to_owned()?,
            bell: self.bell.as_fd().try_clone_to_owned()?,
            topics: self.topics.as_fd().try_clone_to_owned()?,
        })
    }
}

/// Opens the flights of a worker with this row.
pub fn open(zone: OwnedFd, bell: OwnedFd, row: Option<u32>) -> Result<Arc<Flights>, ZoneError> {
    let zone = open_zone(zone)?;
    Ok(Flights::new(Gauge::new(zone, row), Bell::open(bell)))
}

/// Flights of this process alone, for `castling check`.
pub fn private_flights() -> Result<Arc<Flights>, String> {
    let SharedFlights { zone, bell, .. } = SharedFlights::create()?;
    Ok(Flights::new(Gauge::new(zone, None), bell))
}

fn open_zone(memory: OwnedFd) -> Result<GaugeZone, ZoneError> {
    GaugeZone::open(memory, Flights::ZONE, Flights::SIZE_BYTES)
}
