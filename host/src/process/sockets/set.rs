//! The sockets of one generation, and which of them each worker gets.

use std::rc::Rc;

use super::held::HeldSocket;
use crate::config::{Accept, Bind, Listener};

/// The sockets of one generation. Those that are new are bound, but take no connection before
/// [`SocketTable::commit`](super::SocketTable::commit).
#[derive(Debug)]
pub struct SocketSet {
    pub(super) listeners: Vec<ListenerSockets>,
    pub(super) workers: usize,
}

#[derive(Debug)]
pub(super) struct ListenerSockets {
    pub(super) name: String,
    pub(super) config: Listener,
    /// Way of accepting that can be had: sockets from outside that do not share their port, or not with this user, are shared
    /// by the workers.
    pub(super) accept: Accept,
    pub(super) sockets: Vec<Rc<HeldSocket>>,
}

impl SocketSet {
    /// The sockets of one worker, with their listeners' names.
    pub fn of_slot(&self, slot: usize) -> impl Iterator<Item = (&str, &Rc<HeldSocket>, Accept)> {
        self.listeners.iter().flat_map(move |listener| {
            let (count, accept) = (listener.sockets.len(), listener.accept);
            slot_sockets(count, self.workers, slot, accept)
                .map(move |index| (listener.name.as_str(), &listener.sockets[index], accept))
        })
    }

    /// Addresses in the config, with their listeners' names.
    pub fn addresses(&self) -> impl Iterator<Item = (&str, &Bind)> {
        self.listeners
            .iter()
            .map(|listener| (listener.name.as_str(), &listener.config.bind))
    }
}

/// Shared sockets go to every worker. Otherwise socket `i` goes to worker `i % workers`: its own slot's, and after a
/// reload with fewer workers also what the surplus slots have left behind.
fn slot_sockets(
    sockets: usize,
    workers: usize,
    slot: usize,
    accept: Accept,
) -> impl Iterator<Item = usize> {
    let (first, step) = match accept {
        Accept::PerWorker => (slot, workers.max(1)),
        Accept::Shared => (0, 1),
    };
    (first..sockets).step_by(step)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn indices(sockets: usize, workers: usize, slot: usize) -> Vec<usize> {
        slot_sockets(sockets, workers, slot, Accept::PerWorker).collect()
    }

    #[test]
    fn each_worker_has_its_own_socket() {
        assert_eq!([indices(2, 2, 0), indices(2, 2, 1)], [vec![0], vec![1]]);
    }

    #[test]
    fn surplus_sockets_go_to_the_workers_that_remain() {
        assert_eq!(
            [indices(5, 2, 0), indices(5, 2, 1)],
            [vec![0, 2, 4], vec![1, 3]]
        );
        assert_eq!(indices(4, 1, 0), [0, 1, 2, 3]);
    }

    #[test]
    fn shared_sockets_go_to_every_worker() {
        let of = |slot| slot_sockets(3, 2, slot, Accept::Shared).collect::<Vec<_>>();
        assert_eq!([of(0), of(1)], [[0, 1, 2], [0, 1, 2]]);
    }
}
