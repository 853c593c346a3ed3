//! The stage between an accepted socket and its protocol: limits of connections, and TLS.

use std::rc::Rc;
use std::time::Duration;

use tracing::debug;

use super::Acceptor;
use crate::connection::{self, Serving};
use crate::transport::address::{ClientAddress, Network};
use crate::transport::tls::ServerTls;
use crate::transport::{Socket, Transport, halves};

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
    let Some(tls) = acceptor.tls() else {
        let served = connection::serve(socket.into(), client, server, serving, permit);
        tokio::task::spawn_local(served);
        return;
    };
    let tls = Rc::clone(tls);
    tokio::task::spawn_local(async move {
        // In a box: the task of a connection is not to keep room for its handshake.
        if let Some(transport) = Box::pin(handshake(socket, client, &tls, &serving)).await {
            match transport.is_http2() {
                true => connection::serve_http2(transport, client, server, serving, permit).await,
                false => connection::serve(transport, client, server, serving, permit).await,
            }
        }
    });
}

/// `None`: the client has no TLS, and was told why where there is a way.
async fn handshake(
    socket: Socket,
    client: ClientAddress,
    tls: &ServerTls,
    serving: &Serving,
) -> Option<Transport> {
    match tls.accept(&socket).await {
        Ok(tls) => Some(Transport::with_tls(socket, tls)),
        Err(error) => {
            debug!(listener = %serving.service.name, %client, "TLS handshake failed: {error}");
            if error.was_told() {
                let (mut reader, mut writer) = halves::split(socket);
                let linger = halves::linger(&mut reader, &mut writer, LINGER_BYTES);
                // Either way the connection ends here.
                let _ = tokio::time::timeout(LINGER_TIME, linger).await;
            }
            None
        }
    }
}

/// Bounds of what is read of a client that was told why it has no TLS: closed with bytes unread, the kernel would reset the
/// connection, and what it was told with it.
const LINGER_BYTES: usize = 16 << 10;
const LINGER_TIME: Duration = Duration::from_secs(1);

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
