//! A gauge zone in the hands of one worker, and the permits that it has taken.

use std::sync::Arc;

use super::{GaugeZone, ZoneError};

/// A gauge zone as a worker has it open.
#[derive(Debug)]
pub struct Gauge {
    zone: GaugeZone,
    /// The worker's row; without one it gets no permits.
    row: Option<u32>,
}

/// Place of a key that has a permit out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyPlace(u32);

/// A permit that is out until this is dropped, or the worker has ended.
#[derive(Debug)]
pub struct Permit {
    gauge: Arc<Gauge>,
    row: u32,
    cell: u32,
}

impl Gauge {
    pub fn new(zone: GaugeZone, row: Option<u32>) -> Arc<Self> {
        Arc::new(Self { zone, row })
    }

    pub fn zone(&self) -> &GaugeZone {
        &self.zone
    }

    /// Takes one of the key's permits, of which `max` may be out in all workers; `None`: so many are. Fails when there is no room
    /// for the key.
    pub fn enter(self: &Arc<Self>, key: &[u8], max: u64) -> Result<Option<Permit>, ZoneError> {
        let row = self.row.ok_or_else(|| self.zone.no_row())?;
        let entered = self.zone.enter(row, key, max)?;
        Ok(entered.map(|cell| Permit {
            gauge: Arc::clone(self),
            row,
            cell,
        }))
    }

    /// Place of the key, which it has for as long as one of its permits is out.
    pub fn place_of(&self, key: &[u8]) -> Option<KeyPlace> {
        self.zone.cell_of(key).map(KeyPlace)
    }

    /// Whether the permit is one of the key that has this place.
    pub fn is_at(self: &Arc<Self>, permit: &Permit, place: Option<KeyPlace>) -> bool {
        Arc::ptr_eq(self, &permit.gauge) && place == Some(KeyPlace(permit.cell))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.gauge.zone.leave(self.row, self.cell);
    }
}
