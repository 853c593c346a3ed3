//! The zones of a generation: made new, or taken over from the one before.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::{Config, ZoneKind};
use crate::zone::{CounterZone, now_ns};

/// By name.
pub type Zones = BTreeMap<String, Arc<CounterZone>>;

/// Those that the config names. One that has kept name, kind and size is the old one, contents and all. The error is
/// lines for a person.
pub fn zones(config: &Config, old: Option<(&Config, &Zones)>) -> Result<Zones, Vec<String>> {
    let mut zones = Zones::new();
    let mut errors = Vec::new();
    for (name, zone) in &config.zones {
        let kept = old
            .filter(|(old_config, _)| old_config.zones.get(name) == Some(zone))
            .and_then(|(_, old_zones)| old_zones.get(name));
        if let Some(kept) = kept {
            zones.insert(name.clone(), Arc::clone(kept));
            continue;
        }
        let made = match zone.kind {
            ZoneKind::Counter => CounterZone::create(name, zone.size_bytes, now_ns()),
        };
        match made {
            Ok(made) => {
                zones.insert(name.clone(), Arc::new(made));
            }
            Err(error) => errors.push(error.to_string()),
        }
    }
    if errors.is_empty() {
        Ok(zones)
    } else {
        Err(errors)
    }
}
