//! The stage between an accepted socket and its protocol: limits of connections.

use std::rc::Rc;

use tracing::debug;

use super::Acceptor;
use crate::connection;
use crate::transport::Socket;
use crate::transport::address::{ClientAddress, Network};

/// Counts the connection, and has it served by a task of its own; closes it where its client has too many.
pub(super) fn admit(socket: Socket, client: ClientAddress, acceptor: &Rc<Acceptor>) {
    let Some(permit) = ConnectionPermit::new(client, acceptor) else {
        // The socket closes here.
        let name = &acceptor.service().name;
        debug!(listener = %name, %client, "connection refused: max_connections_per_address");
        return;
    };
    let server = acceptor.local_address(&socket);
    let serving = Rc::clone(acceptor.serving());
    tokio::task::spawn_local(connection::serve(socket, client, server, serving, permit));
}

/// An open connection, counted until this is dropped, also by a panic.
struct ConnectionPermit {
    acceptor: Rc<Acceptor>,
    /// Where connections of an address are counted.
    network: Option<Network>,
}

impl ConnectionPermit {
    /// `None`: the client has as many connections as it may.
    fn new(client: ClientAddress, acceptor: &Rc<Acceptor>) -> Option<Self> {
        let metrics = &acceptor.service().metrics;
        let network = client.ip().map(Network::of);
        if let Some(network) = network
            && !acceptor
                .addresses
                .enter(network, acceptor.max_connections_per_address)
        {
            metrics.refused_address.inc();
            return None;
        }
        metrics.accepted.inc();
        acceptor.count_connections(acceptor.connections() + 1);
        acceptor.worker().connection_opened();
        Some(Self {
            acceptor: Rc::clone(acceptor),
            network,
        })
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        let acceptor = &self.acceptor;
        if let Some(network) = self.network {
            acceptor.addresses.leave(network);
        }
        acceptor.count_connections(acceptor.connections() - 1);
        acceptor.room.notify_waiters();
        acceptor.worker().connection_closed();
    }
}
