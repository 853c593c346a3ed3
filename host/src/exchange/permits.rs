//! Permits of gauge zones that plugins hold for an exchange.

use super::PluginKey;
use crate::metrics::Gauge;
use crate::zone::Permit;

/// Permits of each plugin that holds some. They are given back with the exchange, however that ends.
#[derive(Default)]
pub struct Permits(Vec<HeldPermit>);

struct HeldPermit {
    plugin: PluginKey,
    permit: Permit,
    /// Permits of the zone that this worker has out, in the metrics.
    out: Gauge,
}

impl Permits {
    /// Count of those that the plugin holds.
    pub fn held_by(&self, plugin: PluginKey) -> usize {
        self.of(plugin).count()
    }

    /// Whether one of the plugin's is such a one.
    pub fn has(&self, plugin: PluginKey, is_it: impl Fn(&Permit) -> bool) -> bool {
        self.of(plugin).any(|held| is_it(&held.permit))
    }

    pub fn hold(&mut self, plugin: PluginKey, permit: Permit, out: Gauge) {
        out.add(1.0);
        self.0.push(HeldPermit {
            plugin,
            permit,
            out,
        });
    }

    /// Gives back the plugin's permit that is such a one; false: it holds none.
    pub fn give_back(&mut self, plugin: PluginKey, is_it: impl Fn(&Permit) -> bool) -> bool {
        let mut all = self.0.iter();
        let found = all.position(|held| held.plugin == plugin && is_it(&held.permit));
        found.map(|idx| self.0.swap_remove(idx)).is_some()
    }

    fn of(&self, plugin: PluginKey) -> impl Iterator<Item = &HeldPermit> {
        self.0.iter().filter(move |held| held.plugin == plugin)
    }

    #[inline]
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

impl Drop for HeldPermit {
    fn drop(&mut self) {
        self.out.add(-1.0);
    }
}
