//! The stage between an accepted socket and its protocol: limits of connections, and TLS.

use std::rc::Rc;
use std::time::Duration;

use tracing::debug;

use super::{Acceptor, proxied};
use crate::connection::{self, Serving};
use crate::transport::address::{ClientAddress, Network, ServerAddress};
use crate::transport::tls::ServerTls;
use crate::transport::{Socket, Transport, halves};

/// Counts the connection, and has it served by a task of its own; closes it where its client has too many.
pub(super) fn admit(socket: Socket, client: ClientAddress, acceptor: &Rc<Acceptor>) {
    let permit = ConnectionPermit::new(acceptor);
    if let Some(proxies) = acceptor.proxy_protocol() {
        return proxied::admit(socket, client, proxies, permit);
    }
    let server = acceptor.local_address(&socket);
    begin(socket, client, server, permit);
}

/// Has a connection served whose ends are known.
pub(super) fn begin(
    socket: Socket,
    client: ClientAddress,
    server: ServerAddress,
    mut permit: ConnectionPermit,
) {
    if !permit.count_address(client) {
        // The socket closes here.
        let name = &permit.acceptor.service().name;
        debug!(listener = %name, %client, "connection refused: max_connections_per_address");
        return;
    }
    let acceptor = &permit.acceptor;
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
pub(super) struct ConnectionPermit {
    pub(super) acceptor: Rc<Acceptor>,
    /// Where connections of an address are counted; `None` before that is known.
    network: Option<Network>,
}

impl ConnectionPermit {
    fn new(acceptor: &Rc<Acceptor>) -> Self {
        acceptor.count_connections(acceptor.connections() + 1);
        acceptor.worker().connection_opened();
        Self {
            acceptor: Rc::clone(acceptor),
            network: None,
        }
    }

    /// Counts the connection as one of the client's. False: it has as many as it may.
    fn count_address(&mut self, client: ClientAddress) -> bool {
        let Acceptor {
            addresses,
            max_connections_per_address,
            ..
        } = &*self.acceptor;
        let metrics = &self.acceptor.service().metrics;
        let network = client.ip().map(Network::of);
        let has_room =
            network.is_none_or(|network| addresses.enter(network, *max_connections_per_address));
        match has_room {
            true => {
                self.network = network;
                metrics.accepted.inc();
            }
            false => metrics.refused_address.inc(),
        }
        has_room
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
