//! States of a master. Each owns what a master has in it and in no other.

use std::mem;
use std::rc::Rc;

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};

use crate::process::generation::Generation;
use crate::process::instance_lock::InstanceLock;
use crate::process::metrics::Ledger;
use crate::process::sockets::SocketTable;
use crate::process::zone_store::ZoneStore;
use crate::process::zones::Zones;

/// State of a master. From `Active` it goes to `Stopping` or to `HandedOver`, from these to `Ended`, and never back.
pub(super) enum MasterState {
    /// The gateway is this master's: it serves, reloads and hands over.
    Active(Active),
    /// The master was told to stop, and its workers finish. The lock keeps the next gateway out until they have.
    Stopping { _lock: InstanceLock },
    /// Another master has the lock and the sockets; this one's workers finish.
    HandedOver(HandedOver),
    /// The last worker has ended, and the next gateway may begin.
    Ended,
}

/// Possessions of the master whose gateway it is.
pub(super) struct Active {
    pub(super) lock: InstanceLock,
    pub(super) sockets: SocketTable,
    pub(super) current: Current,
}

/// Generation that serves, or what the next one takes over.
pub(super) enum Current {
    /// No generation has served yet. The zones are those that another master has handed over, if any.
    Starting(Zones),
    /// New connections go to this generation's workers, zones are its own.
    Serving(Rc<Generation>),
    /// The workers were told to drain (WINCH) and connections wait in the sockets; the zones wait for the next generation.
    Parked(Zones),
}

/// Rest of a master that another has taken over from.
pub(super) struct HandedOver {
    /// Process id of the other master.
    pub(super) successor: u32,
    /// Whether this master and those before it ended in order; None until its last worker has ended.
    pub(super) is_done: watch::Sender<Option<bool>>,
}

impl MasterState {
    pub(super) fn active(&self) -> Option<&Active> {
        match self {
            Self::Active(active) => Some(active),
            Self::Stopping { .. } | Self::HandedOver(_) | Self::Ended => None,
        }
    }

    pub(super) fn active_mut(&mut self) -> Option<&mut Active> {
        match self {
            Self::Active(active) => Some(active),
            Self::Stopping { .. } | Self::HandedOver(_) | Self::Ended => None,
        }
    }

    /// The generation that serves. None before the first, while the workers are parked, and after `Active`.
    pub(super) fn serving(&self) -> Option<&Rc<Generation>> {
        match &self.active()?.current {
            Current::Serving(generation) => Some(generation),
            Current::Starting(_) | Current::Parked(_) => None,
        }
    }

    /// Process id of the master that has taken over.
    pub(super) fn successor(&self) -> Option<u32> {
        match self {
            Self::HandedOver(handed_over) => Some(handed_over.successor),
            Self::Active(_) | Self::Stopping { .. } | Self::Ended => None,
        }
    }

    /// Leaves `Active` for the state that `next` makes of the lock, and returns what that state has no use for. In any other
    /// state nothing happens.
    pub(super) fn leave_active(
        &mut self,
        next: impl FnOnce(InstanceLock) -> Self,
    ) -> Option<(SocketTable, Current)> {
        match mem::replace(self, Self::Ended) {
            Self::Active(active) => {
                *self = next(active.lock);
                Some((active.sockets, active.current))
            }
            other => {
                *self = other;
                None
            }
        }
    }
}

impl Active {
    pub(super) fn new(lock: InstanceLock, sockets: SocketTable, zones: Zones) -> Self {
        Self {
            lock,
            sockets,
            current: Current::Starting(zones),
        }
    }

    /// Takes the generation out that serves; its zones wait for the next one. None when no generation serves.
    pub(super) fn park(&mut self) -> Option<Rc<Generation>> {
        let Current::Serving(generation) = &self.current else {
            return None;
        };
        let zones = generation.with_zones(Clone::clone);
        self.current.replace(Current::Parked(zones))
    }
}

impl Current {
    /// Puts another in its place. Returns the generation that has served until now; zones that waited are let go of.
    pub(super) fn replace(&mut self, by: Self) -> Option<Rc<Generation>> {
        mem::replace(self, by).into_generation()
    }

    pub(super) fn into_generation(self) -> Option<Rc<Generation>> {
        match self {
            Self::Serving(generation) => Some(generation),
            Self::Starting(_) | Self::Parked(_) => None,
        }
    }

    /// Lends the zones that the next generation takes over.
    pub(super) fn with_zones<T>(&self, use_them: impl FnOnce(&Zones) -> T) -> T {
        match self {
            Self::Serving(generation) => generation.with_zones(use_them),
            Self::Starting(zones) | Self::Parked(zones) => use_them(zones),
        }
    }
}

/// Memory that generations share. It outlives each of them, in every state of the master.
#[derive(Default)]
pub(super) struct SharedMemory {
    /// Store of the kv zones; opened for the first config that has one, and kept from then on.
    pub(super) zone_store: Option<Rc<ZoneStore>>,
    /// Metrics; made for the first generation, or handed over by another master.
    pub(super) metrics: Option<Rc<Ledger>>,
}

/// Tasks of a master that others may have to end.
#[derive(Default)]
pub(super) struct Tasks {
    /// Server of the control socket.
    pub(super) control: Option<AbortHandle>,
    /// Reloads, the last one or those that run.
    pub(super) reload: Option<JoinHandle<()>>,
    /// Upgrade that runs, until there is no way back.
    pub(super) upgrade: Option<AbortHandle>,
}

impl Tasks {
    /// Ends the reload and the upgrade that run: their workers go with them, and their waiters learn why.
    pub(super) fn abort_changes(&mut self) {
        if let Some(reload) = self.reload.take() {
            reload.abort();
        }
        if let Some(upgrade) = self.upgrade.take() {
            upgrade.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PlacedPath;

    #[test]
    fn what_is_the_active_masters_is_left_once() {
        let folder = tempfile::tempdir().unwrap();
        let control = PlacedPath {
            path: folder.path().join("control.sock"),
            place: "site.toml:2:11".to_owned(),
        };
        let lock = InstanceLock::take(&control, None).unwrap();
        let active = Active::new(lock, SocketTable::default(), Zones::new());
        let mut state = MasterState::Active(active);
        assert!(state.active_mut().unwrap().park().is_none());
        assert!(state.serving().is_none());

        let stop = |lock| MasterState::Stopping { _lock: lock };
        assert!(state.leave_active(stop).is_some());
        assert!(state.active().is_none() && state.successor().is_none());
        let held = InstanceLock::take(&control, None).err().unwrap();
        assert!(held.contains("a gateway is running already"), "{held}");
        let hand_over = |_| {
            MasterState::HandedOver(HandedOver {
                successor: 7,
                is_done: watch::Sender::default(),
            })
        };
        assert!(state.leave_active(hand_over).is_none());
        assert_eq!(state.successor(), None);

        let control = PlacedPath {
            path: folder.path().join("other.sock"),
            ..control
        };
        let lock = InstanceLock::take(&control, None).unwrap();
        let active = Active::new(lock, SocketTable::default(), Zones::new());
        let mut state = MasterState::Active(active);
        assert!(state.leave_active(hand_over).is_some());
        assert_eq!(state.successor(), Some(7));
        assert!(!folder.path().join("other.sock.lock").exists(), "let go of");
    }
}
