//! Listening sockets. They belong to the master and are kept from generation to generation by their address, so that a
//! reload never closes a socket with connections queued in it.
//!
//! A listener that accepts per worker has a SO_REUSEPORT socket for each worker slot; one that is shared has one socket,
//! which all workers get. When a reload changes that, no socket closes: from per-worker to shared, all workers get
//! all of the sockets that there are; the other way round, the shared one becomes the first slot's.

mod bind;
mod held;
mod set;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;

pub use bind::{address_of, is_in_use};
pub use held::HeldSocket;
pub use set::SocketSet;

use super::socket_options;
use super::unix_socket::{self, SocketFile};
use crate::config::{Accept, Bind, Config, Listener};
use bind::{bind, is_not_ours_to_bind, probe};
use set::ListenerSockets;

/// The sockets that the master holds, by the address in the config; the index is the worker's slot, where each has one.
#[derive(Debug, Default)]
pub struct SocketTable {
    bound: BTreeMap<Bind, Vec<Rc<HeldSocket>>>,
}

/// A bound socket that came from another process.
#[derive(Debug)]
pub struct Adopted {
    pub bind: Bind,
    pub socket: OwnedFd,
    /// Whether the file of a Unix socket is this master's from now on, to be removed at the end.
    pub owns_file: bool,
}

impl SocketTable {
    /// Holds sockets that came from another process, of each address in the order of their indices. Those that the next
    /// config has no listener for are let go of by [`Self::commit`].
    pub fn adopt(adopted: impl IntoIterator<Item = Adopted>) -> Self {
        let mut bound: BTreeMap<Bind, Vec<Rc<HeldSocket>>> = BTreeMap::new();
        for Adopted {
            bind,
            socket,
            owns_file,
        } in adopted
        {
            let file = match &bind {
                Bind::Unix(path) if owns_file => Some(SocketFile::of(path)),
                Bind::Unix(_) | Bind::Tcp(_) => None,
            };
            let held = Rc::new(HeldSocket { socket, file });
            bound.entry(bind).or_default().push(held);
        }
        Self { bound }
    }

    /// All sockets, for another process to [adopt](Self::adopt), with their addresses, of each in the order of their
    /// indices.
    pub fn held(&self) -> impl Iterator<Item = (&Bind, &Rc<HeldSocket>)> {
        self.bound
            .iter()
            .flat_map(|(bind, sockets)| std::iter::repeat(bind).zip(sockets))
    }

    /// Whether there is a socket with this address.
    pub fn holds(&self, bind: &Bind) -> bool {
        self.bound.contains_key(bind)
    }

    /// The sockets that have files, whose files are still another process's, until they are [owned](HeldSocket::own).
    pub fn leave_files(&self) -> Vec<Rc<HeldSocket>> {
        let with_files = self.held().filter(|(_, held)| held.owns_file());
        let left: Vec<_> = with_files.map(|(_, held)| Rc::clone(held)).collect();
        left.iter().for_each(|held| held.disown());
        left
    }

    /// Sockets for every listener and worker of a config: those that are there and new ones where some are missing.
    /// Fails with a line for each listener that cannot be bound; what was bound is closed again.
    pub fn prepare(&self, config: &Config) -> Result<SocketSet, Vec<String>> {
        let workers = config.workers.count;
        let mut listeners = Vec::new();
        let mut errors = Vec::new();
        for (name, listener) in &config.listeners {
            match self.sockets_for(listener, workers) {
                Ok((sockets, accept)) => listeners.push(ListenerSockets {
                    name: name.clone(),
                    config: listener.clone(),
                    accept,
                    sockets,
                }),
                Err(error) => errors.push(format!(
                    "{}: listener \"{name}\" cannot be bound to {}: {error}",
                    listener.place, listener.bind
                )),
            }
        }
        match errors.is_empty() {
            true => Ok(SocketSet { listeners, workers }),
            false => Err(errors),
        }
    }

    /// Makes the sockets of a set listen, with their options, and lets go of those of listeners that are no longer there. These close when
    /// the workers that hold them, too, have stopped accepting.
    pub fn commit(&mut self, set: &SocketSet) -> Result<(), Vec<String>> {
        for ListenerSockets {
            name,
            config,
            sockets,
            ..
        } in &set.listeners
        {
            for held in sockets {
                // A reload may have changed it.
                let mode = match &held.file {
                    Some(file) => file.set_mode(config.socket.mode),
                    None => Ok(()),
                };
                let listens = mode.and_then(|()| socket_options::listen(&held.socket, config));
                listens.map_err(|error| {
                    let (place, bind) = (&config.place, &config.bind);
                    vec![format!("{place}: listener \"{name}\": {bind}: {error}")]
                })?;
            }
        }
        self.bound = set
            .listeners
            .iter()
            .map(|l| (l.config.bind.clone(), l.sockets.clone()))
            .collect();
        Ok(())
    }

    /// Never fewer than there are: a socket with connections queued in it is not closed, another worker serves it.
    fn sockets_for(
        &self,
        listener: &Listener,
        workers: usize,
    ) -> io::Result<(Vec<Rc<HeldSocket>>, Accept)> {
        let mut sockets = self.bound.get(&listener.bind).cloned().unwrap_or_default();
        let address = match &listener.bind {
            Bind::Tcp(address) => *address,
            Bind::Unix(path) => {
                if sockets.is_empty() {
                    let (socket, file) = unix_socket::bind(path, listener.socket.mode)?;
                    let file = Some(file);
                    sockets.push(Rc::new(HeldSocket { socket, file }));
                }
                return Ok((sockets, Accept::Shared));
            }
        };
        if sockets.is_empty() && !self.overlaps(address) {
            probe(address, listener.socket.ipv6_only)?;
        }
        for held in &sockets {
            held.must_be_ipv6_only(address, listener.socket.ipv6_only)?;
        }
        let accept = match sockets.iter().all(|held| held.shares_port()) {
            true => listener.socket.accept,
            false => Accept::Shared,
        };
        let wanted = match accept {
            Accept::PerWorker => workers,
            Accept::Shared => 1,
        };
        let there = sockets.len();
        while sockets.len() < wanted {
            let socket = match bind(address, listener.socket.ipv6_only, true) {
                Ok(socket) => socket.into(),
                Err(error) if there > 0 && is_not_ours_to_bind(&error) => {
                    tracing::warn!(%address, %error, "no socket for each worker can be bound beside the one that is open: workers share it");
                    sockets.truncate(there);
                    return Ok((sockets, Accept::Shared));
                }
                Err(error) => return Err(error),
            };
            sockets.push(Rc::new(HeldSocket { socket, file: None }));
        }
        Ok((sockets, accept))
    }

    /// We hold the port on an address that includes this one, or the other way round (`0.0.0.0` and `127.0.0.1`).
    fn overlaps(&self, address: SocketAddr) -> bool {
        let held = self.bound.keys().filter_map(|bind| match bind {
            Bind::Tcp(held) => Some(held),
            Bind::Unix(_) => None,
        });
        held.into_iter().any(|held| {
            let takes_both = |address: &SocketAddr| address.ip() == Ipv6Addr::UNSPECIFIED;
            let same_family =
                held.is_ipv4() == address.is_ipv4() || takes_both(held) || takes_both(&address);
            let either_is_wildcard = held.ip().is_unspecified() || address.ip().is_unspecified();
            held.port() == address.port() && same_family && either_is_wildcard
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use socket2::{Domain, Protocol, Socket, Type};

    use super::*;

    /// A config of these listeners.
    fn config(listeners: &str) -> Config {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("castling.toml");
        let rest = "[workers]\ncount = 2\n[upstreams.app]\npeers = [\"127.0.0.1:9\"]\n[[routes]]\nupstream = \"app\"";
        std::fs::write(&path, format!("{listeners}\n{rest}")).unwrap();
        crate::config::load(&path).unwrap()
    }

    fn free_address() -> SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    }

    /// Counts the sockets that each of two workers gets.
    fn of_workers(set: &SocketSet) -> [usize; 2] {
        [set.of_slot(0).count(), set.of_slot(1).count()]
    }

    #[test]
    fn no_socket_closes_when_a_listener_begins_or_ceases_to_be_shared() {
        let address = free_address();
        let with = |accept| {
            config(&format!(
                "[listeners.web]\nbind = \"{address}\"\naccept = \"{accept}\""
            ))
        };
        let mut table = SocketTable::default();
        for (accept, each) in [
            ("shared", [1, 1]),
            ("per_worker", [1, 1]),
            ("shared", [2, 2]),
            ("per_worker", [1, 1]),
        ] {
            let before: Vec<_> = table.held().map(|(_, held)| Rc::clone(held)).collect();
            let set = table.prepare(&with(accept)).unwrap();
            table.commit(&set).unwrap();
            assert_eq!(of_workers(&set), each, "{accept}");
            let after: Vec<_> = table.held().map(|(_, held)| held).collect();
            let kept = before
                .iter()
                .zip(&after)
                .all(|(old, new)| Rc::ptr_eq(old, new));
            assert!(kept && after.len() >= before.len(), "{accept}");
        }
        assert_eq!(table.held().count(), 2);
    }

    #[test]
    fn connections_have_the_options_of_the_config_also_after_a_reload() {
        use rustix::net::sockopt;
        let address = free_address();
        let with =
            |options: &str| config(&format!("[listeners.web]\nbind = \"{address}\"\n{options}"));
        let mut table = SocketTable::default();
        let mut accepted = |options: &str| {
            let set = table.prepare(&with(options)).unwrap();
            table.commit(&set).unwrap();
            let _client = std::net::TcpStream::connect(address).unwrap();
            let accepted = set
                .of_slot(0)
                .chain(set.of_slot(1))
                .find_map(|(_, held, _)| {
                    // Whichever of the two it was queued in.
                    rustix::net::accept(held.as_fd()).ok()
                });
            accepted.unwrap()
        };
        let socket = accepted("tcp_keepalive = { idle = \"60s\", interval = \"5s\", count = 3 }");
        assert!(sockopt::tcp_nodelay(&socket).unwrap());
        assert!(sockopt::socket_keepalive(&socket).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&socket).unwrap().as_secs(), 60);
        assert_eq!(sockopt::tcp_keepintvl(&socket).unwrap().as_secs(), 5);
        assert_eq!(sockopt::tcp_keepcnt(&socket).unwrap(), 3);
        let socket = accepted("nodelay = false");
        assert!(!sockopt::tcp_nodelay(&socket).unwrap());
        assert!(!sockopt::socket_keepalive(&socket).unwrap());
    }

    #[test]
    fn a_deferred_connection_is_there_with_its_first_bytes() {
        use std::io::Write;
        let address = free_address();
        let listener = format!("[listeners.web]\nbind = \"{address}\"\naccept = \"shared\"");
        let mut table = SocketTable::default();
        let set = table
            .prepare(&config(&format!("{listener}\ndefer_accept = \"10s\"")))
            .unwrap();
        table.commit(&set).unwrap();
        let (_, held, _) = set.of_slot(0).next().unwrap();
        let accept = || rustix::net::accept(held.as_fd());
        let mut client = std::net::TcpStream::connect(address).unwrap();
        assert_eq!(accept().unwrap_err(), rustix::io::Errno::AGAIN);
        client.write_all(b"x").unwrap();
        // Over loopback the bytes are there when the write returns.
        accept().unwrap();
    }

    #[test]
    fn an_ipv6_listener_takes_ipv4_clients_only_where_it_is_told_to() {
        let Ok(free) = std::net::TcpListener::bind("[::]:0") else {
            eprintln!("SKIPPED: this machine has no IPv6");
            return;
        };
        let port = free.local_addr().unwrap().port();
        drop(free);
        let with = |ipv6_only| {
            config(&format!(
                "[listeners.web]\nbind = \"[::]:{port}\"\nipv6_only = {ipv6_only}"
            ))
        };
        let connects = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        let mut table = SocketTable::default();
        let set = table.prepare(&with(true)).unwrap();
        table.commit(&set).unwrap();
        assert!(!connects());
        let refused = table.prepare(&with(false)).unwrap_err();
        let error = "ipv6_only = false, but the socket that is open has true: it stays so until the gateway ends";
        assert!(refused[0].ends_with(error), "{refused:?}");
        drop((table, set));
        let mut table = SocketTable::default();
        let set = table.prepare(&with(false)).unwrap();
        table.commit(&set).unwrap();
        assert!(connects());
    }

    #[test]
    fn sockets_of_another_process_are_adopted() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.sock");
        let address = free_address();
        let listeners = format!(
            "[listeners.web]\nbind = \"{address}\"\n[listeners.local]\nbind = \"unix:{}\"",
            path.display()
        );
        let config = config(&listeners);
        let mut old = SocketTable::default();
        let set = old.prepare(&config).unwrap();
        old.commit(&set).unwrap();
        let handed = old.held().map(|(bind, held)| Adopted {
            bind: bind.clone(),
            socket: held.try_clone().unwrap(),
            owns_file: held.owns_file(),
        });
        let mut new = SocketTable::adopt(handed.collect::<Vec<_>>());
        old.held().for_each(|(_, held)| held.disown());
        drop((old, set));
        assert!(path.exists());
        let set = new.prepare(&config).unwrap();
        new.commit(&set).unwrap();
        assert_eq!((new.held().count(), of_workers(&set)), (3, [2, 2]));
        drop((new, set));
        assert!(!path.exists());
    }

    #[test]
    fn a_socket_from_outside_that_does_not_share_its_port_is_shared_by_workers() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let bind = Bind::Tcp(listener.local_addr().unwrap());
        let config = config(&format!("[listeners.web]\nbind = \"{bind}\""));
        let mut table = SocketTable::adopt([Adopted {
            bind,
            socket: listener.into(),
            owns_file: false,
        }]);
        let set = table.prepare(&config).unwrap();
        table.commit(&set).unwrap();
        assert_eq!((table.held().count(), of_workers(&set)), (1, [1, 1]));
        assert!(
            set.of_slot(0)
                .all(|(_, _, accept)| accept == Accept::Shared)
        );
    }

    #[test]
    fn a_socket_that_shares_its_port_with_another_user_is_shared_by_workers() {
        let listener = bind_as_nobody();
        let Ok(listener) = listener else {
            eprintln!("SKIPPED: only root can make a socket another user's");
            return;
        };
        listener.listen(1).unwrap();
        let bind = Bind::Tcp(listener.local_addr().unwrap().as_socket().unwrap());
        let config = config(&format!("[listeners.web]\nbind = \"{bind}\""));
        let mut table = SocketTable::adopt([Adopted {
            bind,
            socket: listener.into(),
            owns_file: false,
        }]);
        for _ in 0..2 {
            let set = table.prepare(&config).unwrap();
            table.commit(&set).unwrap();
            assert_eq!((table.held().count(), of_workers(&set)), (1, [1, 1]));
            assert!(
                set.of_slot(1)
                    .all(|(_, _, accept)| accept == Accept::Shared)
            );
        }
    }

    /// A socket of another user. systemd, which is root, binds one for a gateway that is not, with `ReusePort=yes`; here it is the
    /// other way round.
    fn bind_as_nobody() -> io::Result<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        std::os::unix::fs::fchown(&socket, Some(65534), None)?;
        socket.set_reuse_port(true)?;
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        socket.bind(&any.into())?;
        Ok(socket)
    }

    #[test]
    fn a_wildcard_overlaps_the_addresses_of_its_family_and_port() {
        let bound = [(Bind::Tcp("0.0.0.0:80".parse().unwrap()), Vec::new())].into();
        let table = SocketTable { bound };
        assert!(table.overlaps("127.0.0.1:80".parse().unwrap()));
        assert!(!table.overlaps("127.0.0.1:81".parse().unwrap()));
        assert!(!table.overlaps("[::1]:80".parse().unwrap()));
    }
}
