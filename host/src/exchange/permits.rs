//! Permits of gauge zones, and flights of kv zones, that plugins hold for an exchange.

use super::PluginKey;
use crate::metrics::Gauge;
use crate::zone::{Flight, FlightKey, Permit};

/// Permits and flights of each plugin that holds some. They end with the exchange, however that does.
#[derive(Default)]
pub struct Permits {
    permits: Vec<HeldPermit>,
    flights: Vec<(PluginKey, Flight)>,
}

struct HeldPermit {
    plugin: PluginKey,
    permit: Permit,
    /// Permits of the zone that this worker has out, in the metrics.
    out: Gauge,
}

impl Permits {
    /// Count of those that the plugin holds.
    pub fn held_by(&self, plugin: PluginKey) -> usize {
        let flights = self.flights.iter();
        self.of(plugin).count() + flights.filter(|(holder, _)| *holder == plugin).count()
    }

    /// Whether one of the plugin's is such a one.
    pub fn has(&self, plugin: PluginKey, is_it: impl Fn(&Permit) -> bool) -> bool {
        self.of(plugin).any(|held| is_it(&held.permit))
    }

    pub fn hold(&mut self, plugin: PluginKey, permit: Permit, out: Gauge) {
        out.add(1.0);
        self.permits.push(HeldPermit {
            plugin,
            permit,
            out,
        });
    }

    /// Gives back the plugin's permit that is such a one; false: it holds none.
    pub fn give_back(&mut self, plugin: PluginKey, is_it: impl Fn(&Permit) -> bool) -> bool {
        let mut all = self.permits.iter();
        let found = all.position(|held| held.plugin == plugin && is_it(&held.permit));
        found.map(|idx| self.permits.swap_remove(idx)).is_some()
    }

    pub fn hold_flight(&mut self, plugin: PluginKey, flight: Flight) {
        self.flights.push((plugin, flight));
    }

    /// Whether the request is the one that fetches, for whichever plugin: another one of it is not to wait for itself.
    pub fn has_flight(&self, key: &FlightKey) -> bool {
        self.flights.iter().any(|(_, flight)| flight.is_of(key))
    }

    /// Ends the plugin's flight of this key; false: it has none.
    pub fn end_flight(&mut self, plugin: PluginKey, key: &FlightKey) -> bool {
        let found = self.flight(plugin, key);
        found.map(|idx| self.flights.swap_remove(idx)).is_some()
    }

    /// Ends the flights of a plugin that has trapped: others are not to wait for it. Its permits stay, as its request does.
    #[cold]
    pub fn end_flights(&mut self, plugin: PluginKey) {
        self.flights.retain(|(holder, _)| *holder != plugin);
    }

    fn flight(&self, plugin: PluginKey, key: &FlightKey) -> Option<usize> {
        let mut all = self.flights.iter();
        all.position(|(holder, flight)| *holder == plugin && flight.is_of(key))
    }

    fn of(&self, plugin: PluginKey) -> impl Iterator<Item = &HeldPermit> {
        self.permits
            .iter()
            .filter(move |held| held.plugin == plugin)
    }

    #[inline]
    pub(super) fn clear(&mut self) {
        self.permits.clear();
        self.flights.clear();
    }
}

impl Drop for HeldPermit {
    fn drop(&mut self) {
        self.out.add(-1.0);
    }
}
