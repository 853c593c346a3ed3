//! The zones of a generation: made new, or taken over from the one before.

use std::cell::LazyCell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::rc::Rc;
use std::sync::Arc;

use crate::config::{self, Config, WhenFull, ZoneKind};
use crate::zone::{
    self, Bell, CounterZone, Gauge, GaugeZone, KvZone, Topic, TopicZone, Zone, ZoneError, now_ns,
};

use super::channel::ZoneHandle;
use super::sys;
use super::upgrade::{InheritedZone, ZoneInMemory};
use super::zone_store::{ZoneFolder, ZoneStore};

/// Zones of the master, by name.
pub type Zones = BTreeMap<String, SharedZone>;

/// A zone as the master holds it for its workers.
#[derive(Clone)]
pub enum SharedZone {
    Counter(Rc<CounterZone>),
    Kv(Rc<ZoneFolder>),
    Gauge(Rc<GaugeZone>),
    Topic(Rc<TopicZone>),
}

impl SharedZone {
    /// `inherit` says under which number the worker will have a descriptor.
    pub fn handle(&self, mut inherit: impl FnMut(OwnedFd) -> RawFd) -> io::Result<ZoneHandle> {
        Ok(match self {
            Self::Counter(zone) => {
                ZoneHandle::Counter(inherit(zone.descriptor().try_clone_to_owned()?))
            }
            Self::Kv(folder) => ZoneHandle::Kv(folder.path.clone()),
            Self::Topic(zone) => {
                ZoneHandle::Topic(inherit(zone.descriptor().try_clone_to_owned()?))
            }
            Self::Gauge(zone) => {
                ZoneHandle::Gauge(inherit(zone.descriptor().try_clone_to_owned()?))
            }
        })
    }
}

/// Zones in memory that another master hands over. One that was made in a way that this version does not know is left to
/// it, with a warning: it begins anew.
pub fn inherit(handed_over: Vec<InheritedZone>) -> Zones {
    let mut zones = Zones::new();
    for zone in handed_over {
        let InheritedZone {
            name,
            kind,
            size_bytes,
            memory,
        } = zone;
        let opened = match kind {
            ZoneInMemory::Counter => CounterZone::open(memory, &name, size_bytes)
                .map(|zone| SharedZone::Counter(Rc::new(zone))),
            ZoneInMemory::Topic => TopicZone::open(memory, &name, size_bytes)
                .map(|zone| SharedZone::Topic(Rc::new(zone))),
            ZoneInMemory::Gauge => GaugeZone::open(memory, &name, size_bytes)
                .map(|zone| SharedZone::Gauge(Rc::new(zone))),
        };
        match opened {
            Ok(zone) => drop(zones.insert(name, zone)),
            Err(error) => tracing::warn!(zone = name, %error, "zone begins anew"),
        }
    }
    zones
}

/// Makes the zones that the config names. A zone in memory that has kept name, kind and size since `old` is the old one, contents and
/// all; a kv zone is what the store has of that name and size. The store is asked for with the first kv zone. The error
/// is lines for a person.
pub fn zones(
    config: &Config,
    store: impl Fn() -> Result<Rc<ZoneStore>, String>,
    old: &Zones,
) -> Result<Zones, Vec<String>> {
    let lent = |zone: SharedZone| {
        if let (SharedZone::Kv(folder), Some(identity)) = (&zone, &config.workers.user) {
            folder.lend(identity)?;
        }
        Ok(zone)
    };
    let make = |name: &str, wanted: &config::Zone| {
        let at_zone = |error: &dyn std::fmt::Display| format!("{}: {error}", wanted.place);
        match wanted.kind {
            ZoneKind::Kv | ZoneKind::Cache => store()?
                .zone(name, wanted.size_bytes)
                .map_err(|error| {
                    at_zone(&format_args!(
                        "{error}; `zone_store` of [master] says where it lies"
                    ))
                })
                .and_then(|folder| lent(SharedZone::Kv(folder))),
            kind @ (ZoneKind::Counter | ZoneKind::Gauge | ZoneKind::Topic) => {
                let zone = in_memory(kind, name, wanted.size_bytes, old.get(name));
                zone.map_err(|error| at_zone(&error))
            }
        }
    };
    let mut zones = Zones::new();
    let mut errors = Vec::new();
    for (name, wanted) in &config.zones {
        match make(name, wanted) {
            Ok(zone) => drop(zones.insert(name.clone(), zone)),
            Err(error) => errors.push(error),
        }
    }
    // A store that cannot be used is told once.
    errors.dedup();
    if errors.is_empty() {
        Ok(zones)
    } else {
        Err(errors)
    }
}

/// A zone in memory: the old one where that has this kind and size, or a new one.
fn in_memory(
    kind: ZoneKind,
    name: &str,
    size_bytes: u64,
    old: Option<&SharedZone>,
) -> Result<SharedZone, ZoneError> {
    let kept = match (kind, old) {
        (ZoneKind::Counter, Some(SharedZone::Counter(kept))) => kept.size_bytes() == size_bytes,
        (ZoneKind::Gauge, Some(SharedZone::Gauge(kept))) => kept.size_bytes() == size_bytes,
        (ZoneKind::Topic, Some(SharedZone::Topic(kept))) => kept.size_bytes() == size_bytes,
        (
            ZoneKind::Counter | ZoneKind::Gauge | ZoneKind::Topic | ZoneKind::Kv | ZoneKind::Cache,
            _,
        ) => false,
    };
    if let (true, Some(old)) = (kept, old) {
        return Ok(old.clone());
    }
    Ok(match kind {
        ZoneKind::Gauge => SharedZone::Gauge(Rc::new(GaugeZone::create(name, size_bytes)?)),
        ZoneKind::Topic => SharedZone::Topic(Rc::new(TopicZone::create(name, size_bytes)?)),
        ZoneKind::Counter | ZoneKind::Kv | ZoneKind::Cache => {
            SharedZone::Counter(Rc::new(CounterZone::create(name, size_bytes, now_ns())?))
        }
    })
}

/// Lends kv zones to this user again, whose next worker opens them by name, after a generation that came to nothing had lent
/// them to its own user.
pub fn lend_again(zones: &Zones, user: &config::Identity) {
    for (name, zone) in zones {
        if let SharedZone::Kv(folder) = zone
            && let Err(error) = folder.lend(user)
        {
            tracing::error!(zone = name, user = user.name, "{error}");
        }
    }
}

/// Opens a worker's zones, from what the master hands it. `row`: the worker's in gauge zones; `topics`: the
/// bell of topics. The error is lines for a person.
pub fn open(
    config: &Config,
    handles: BTreeMap<String, ZoneHandle>,
    row: Option<u32>,
    topics: &Arc<Bell>,
) -> Result<zone::Zones, Vec<String>> {
    let open = |name: &str, handle| {
        let wanted = config.zones.get(name);
        let size_bytes = wanted.map_or(0, |zone| zone.size_bytes);
        let evicts = wanted.is_some_and(|zone| zone.when_full == WhenFull::Evict);
        let is_cache = wanted.is_some_and(|zone| zone.kind == ZoneKind::Cache);
        let opened = match handle {
            ZoneHandle::Counter(fd) => {
                let file = sys::inherited(fd).map_err(|error| format!("zone {name}: {error}"))?;
                CounterZone::open(file, name, size_bytes).map(Zone::Counter)
            }
            ZoneHandle::Topic(fd) => {
                let file = sys::inherited(fd).map_err(|error| format!("zone {name}: {error}"))?;
                let opened = TopicZone::open(file, name, size_bytes);
                opened.map(|zone| Zone::Topic(Topic::new(zone, topics)))
            }
            ZoneHandle::Gauge(fd) => {
                let file = sys::inherited(fd).map_err(|error| format!("zone {name}: {error}"))?;
                let opened = GaugeZone::open(file, name, size_bytes);
                opened.map(|zone| Zone::Gauge(Gauge::new(zone, row)))
            }
            ZoneHandle::Kv(folder) => {
                let opened = KvZone::open(&folder, name, size_bytes);
                opened.map(|zone| match is_cache {
                    true => Zone::Cache(Arc::new(zone.evicting(true))),
                    false => Zone::Kv(Arc::new(zone.evicting(evicts))),
                })
            }
        };
        opened.map_err(|error| match &error {
            ZoneError::File { cause, .. } if cause.kind() == io::ErrorKind::PermissionDenied => {
                format!("{error}; expected a `zone_store` in [master] to which the user that workers run as may pass")
            }
            _ => error.to_string(),
        })
    };
    let mut zones = zone::Zones::new();
    for (name, handle) in handles {
        let place = config.zones.get(&name).map_or("", |zone| &zone.place);
        let zone = open(&name, handle).map_err(|error| vec![format!("{place}: {error}")])?;
        zones.insert(name, Arc::new(zone));
    }
    Ok(zones)
}

/// Makes empty zones for this process alone, of which nothing is left but what it has open: for `castling check`, beside a gateway
/// that runs.
pub fn private_zones(config: &Config) -> Result<zone::Zones, Vec<String>> {
    // A folder of its own, not beside the gateway's: another user may check. It goes with this function; what is open stays.
    let folder = LazyCell::new(|| tempfile::tempdir().map_err(|error| error.to_string()));
    let store = LazyCell::new(|| {
        let folder = folder.as_ref().map_err(String::clone)?;
        ZoneStore::open(&folder.path().join("zones"))
    });
    let make = |name: &str, zone: &config::Zone| {
        let made = match zone.kind {
            ZoneKind::Counter => {
                let size_bytes = zone.size_bytes.min(CHECKED_BYTES);
                CounterZone::create(name, size_bytes, now_ns()).map(Zone::Counter)
            }
            ZoneKind::Topic => {
                let bell =
                    Bell::create().map_err(|error| format!("the bell of topics: {error}"))?;
                let zone = TopicZone::create(name, TopicZone::MIN_BYTES);
                zone.map(|zone| Zone::Topic(Topic::new(zone, &Arc::new(bell))))
            }
            ZoneKind::Gauge => GaugeZone::create(name, zone.size_bytes).and_then(|zone| {
                zone.take_row(0)?;
                Ok(Zone::Gauge(Gauge::new(zone, Some(0))))
            }),
            kind @ (ZoneKind::Kv | ZoneKind::Cache) => {
                let size_bytes = zone.size_bytes.min(CHECKED_BYTES);
                let folder = store
                    .as_ref()
                    .map_err(String::clone)?
                    .zone(name, size_bytes);
                let opened = folder.and_then(|folder| KvZone::open(&folder.path, name, size_bytes));
                opened.map(Arc::new).map(|zone| match kind {
                    ZoneKind::Cache => Zone::Cache(zone),
                    _ => Zone::Kv(zone),
                })
            }
        };
        made.map_err(|error| format!("{}: {error}", zone.place))
    };
    let mut zones = zone::Zones::new();
    for (name, zone) in &config.zones {
        zones.insert(
            name.clone(),
            Arc::new(make(name, zone).map_err(|error| vec![error])?),
        );
    }
    Ok(zones)
}

/// Largest zone of a check, bytes. Such a zone takes as large values as any.
const CHECKED_BYTES: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counter_zones_that_are_handed_over_keep_their_contents_or_begin_anew() {
        let made = CounterZone::create("limits", CounterZone::MIN_BYTES, now_ns()).unwrap();
        let window = std::time::Duration::from_secs(3600);
        made.add(b"k", 5, window, now_ns());
        let handed_over = |name: &str| InheritedZone {
            name: name.to_owned(),
            kind: ZoneInMemory::Counter,
            size_bytes: CounterZone::MIN_BYTES,
            memory: made.descriptor().try_clone_to_owned().unwrap(),
        };
        // Memory that is not what it is said to be is not taken, as that of another version would not be.
        let zones = inherit(vec![handed_over("limits"), handed_over("other")]);
        assert_eq!(zones.keys().collect::<Vec<_>>(), ["limits"]);
        let SharedZone::Counter(zone) = &zones["limits"] else {
            panic!("a counter zone");
        };
        assert_eq!(zone.add(b"k", 1, window, now_ns()), 6);
    }
}
