//! The count of a peer's open connections.

use std::cell::Cell;
use std::rc::Rc;

use super::state::PeerState;
use crate::metrics::Gauge;

/// An open connection to a peer, or one that is being made; counted until it is dropped. It does not hold the peer, whose pool
/// may hold it. The default counts nowhere.
#[derive(Default)]
pub(super) struct OpenConnection {
    /// Counts until it is dropped.
    _counted: Option<Counted>,
}

struct Counted {
    /// Connections of the peer, from this worker.
    connections: Rc<Cell<u32>>,
    state: PeerState,
    /// Connections to all peers of the upstream.
    gauge: Gauge,
}

impl OpenConnection {
    pub fn new(connections: &Rc<Cell<u32>>, state: &PeerState, gauge: Gauge) -> Self {
        let counted = Counted {
            connections: Rc::clone(connections),
            state: state.clone(),
            gauge,
        };
        counted.set(connections.get() + 1);
        gauge.add(1.0);
        Self {
            _counted: Some(counted),
        }
    }
}

impl Counted {
    fn set(&self, connections: u32) {
        self.connections.set(connections);
        self.state.publish_connections(connections);
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.set(self.connections.get() - 1);
        self.gauge.add(-1.0);
    }
}
