//! Listening sockets. They belong to the master: one SO_REUSEPORT socket for each worker slot of a listener, kept from
//! generation to generation, so that a reload never closes a socket with connections queued in it.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::rc::Rc;

use socket2::{Domain, Protocol, Socket, Type};

use crate::config::{Config, Listener};

/// The sockets that the master holds, by the address in the config; the index is the worker's slot.
#[derive(Debug, Default)]
pub struct SocketTable {
    bound: BTreeMap<SocketAddr, Vec<Rc<TcpListener>>>,
}

/// The sockets of one generation. Those that are new are bound, but take no connection before [`SocketTable::commit`].
#[derive(Debug)]
pub struct SocketSet {
    listeners: Vec<ListenerSockets>,
    workers: usize,
}

#[derive(Debug)]
struct ListenerSockets {
    name: String,
    bind: SocketAddr,
    backlog: i32,
    sockets: Vec<Rc<TcpListener>>,
}

impl SocketTable {
    /// Sockets for every listener and worker of a config: those that are there and new ones where some are missing.
    /// Fails with a line for each listener that cannot be bound; what was bound is closed again.
    pub fn prepare(&self, config: &Config) -> Result<SocketSet, Vec<String>> {
        let workers = config.workers.count;
        let mut listeners = Vec::new();
        let mut errors = Vec::new();
        for (name, listener) in &config.listeners {
            match self.sockets_for(listener, workers) {
                Ok(sockets) => listeners.push(ListenerSockets {
                    name: name.clone(),
                    bind: listener.bind,
                    backlog: i32::try_from(listener.backlog).unwrap_or(i32::MAX),
                    sockets,
                }),
                Err(error) => errors.push(format!(
                    "listener \"{name}\" cannot be bound to {}: {error}",
                    listener.bind
                )),
            }
        }
        match errors.is_empty() {
            true => Ok(SocketSet { listeners, workers }),
            false => Err(errors),
        }
    }

    /// Makes the sockets of a set listen and lets go of those of listeners that are no longer there. These close when
    /// the workers that hold them, too, have stopped accepting.
    pub fn commit(&mut self, set: &SocketSet) -> Result<(), Vec<String>> {
        for listener in &set.listeners {
            for socket in &listener.sockets {
                // A second call on a socket that listens sets its backlog.
                rustix::net::listen(socket.as_ref(), listener.backlog).map_err(|error| {
                    vec![format!(
                        "listener \"{}\": {}: {error}",
                        listener.name, listener.bind
                    )]
                })?;
            }
        }
        self.bound = set
            .listeners
            .iter()
            .map(|l| (l.bind, l.sockets.clone()))
            .collect();
        Ok(())
    }

    /// Never fewer than there are: a socket with connections queued in it is not closed, another worker serves it.
    fn sockets_for(&self, listener: &Listener, workers: usize) -> io::Result<Vec<Rc<TcpListener>>> {
        let mut sockets = self.bound.get(&listener.bind).cloned().unwrap_or_default();
        if sockets.is_empty() && !self.overlaps(listener.bind) {
            probe(listener.bind)?;
        }
        while sockets.len() < workers {
            // Port 0 is chosen with the first socket; the others share it.
            let address = match sockets.first() {
                Some(first) => first.local_addr()?,
                None => listener.bind,
            };
            sockets.push(Rc::new(bind(address, true)?.into()));
        }
        Ok(sockets)
    }

    /// We hold the port on an address that includes this one, or the other way round (`0.0.0.0` and `127.0.0.1`).
    fn overlaps(&self, address: SocketAddr) -> bool {
        self.bound.keys().any(|held| {
            let same_family = held.is_ipv4() == address.is_ipv4();
            let either_is_wildcard = held.ip().is_unspecified() || address.ip().is_unspecified();
            held.port() == address.port() && same_family && either_is_wildcard
        })
    }
}

impl SocketSet {
    /// The sockets of one worker, with their listeners' names.
    pub fn of_slot(&self, slot: usize) -> impl Iterator<Item = (&str, &Rc<TcpListener>)> {
        self.listeners.iter().flat_map(move |listener| {
            slot_sockets(listener.sockets.len(), self.workers, slot)
                .map(move |index| (listener.name.as_str(), &listener.sockets[index]))
        })
    }

    /// Names and addresses, with the port that was chosen where the config says 0.
    pub fn addresses(&self) -> impl Iterator<Item = (&str, SocketAddr)> {
        self.listeners.iter().map(|listener| {
            let bound = listener
                .sockets
                .first()
                .and_then(|socket| socket.local_addr().ok());
            (listener.name.as_str(), bound.unwrap_or(listener.bind))
        })
    }
}

/// Socket `i` goes to worker `i % workers`: its own slot's, and after a reload with fewer workers also what the surplus
/// slots have left behind.
fn slot_sockets(sockets: usize, workers: usize, slot: usize) -> impl Iterator<Item = usize> {
    (slot..sockets).step_by(workers.max(1))
}

/// Somebody listens there, be it one of ours.
pub fn is_in_use(address: SocketAddr) -> bool {
    probe(address).is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

/// With SO_REUSEPORT, binding would silently join another process of the same user. Without it, that process's sockets
/// make this fail with "address in use", as an operator expects.
fn probe(address: SocketAddr) -> io::Result<()> {
    match address.port() {
        0 => Ok(()),
        _ => bind(address, false).map(drop),
    }
}

fn bind(address: SocketAddr, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if matches!(address.ip(), IpAddr::V6(_)) {
        // An IPv6 listener is that and no more, whatever net.ipv6.bindv6only says.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn indices(sockets: usize, workers: usize, slot: usize) -> Vec<usize> {
        slot_sockets(sockets, workers, slot).collect()
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
    fn an_address_of_another_socket_is_in_use_though_both_share_ports() {
        let other = bind("127.0.0.1:0".parse().unwrap(), true).unwrap();
        other.listen(1).unwrap();
        let address = other.local_addr().unwrap().as_socket().unwrap();
        assert_eq!(probe(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(other);
        probe(address).unwrap();
    }

    #[test]
    fn a_wildcard_overlaps_the_addresses_of_its_family_and_port() {
        let bound = [("0.0.0.0:80".parse().unwrap(), Vec::new())].into();
        let table = SocketTable { bound };
        assert!(table.overlaps("127.0.0.1:80".parse().unwrap()));
        assert!(!table.overlaps("127.0.0.1:81".parse().unwrap()));
        assert!(!table.overlaps("[::1]:80".parse().unwrap()));
    }
}
