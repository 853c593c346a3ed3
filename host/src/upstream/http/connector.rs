//! Connections to a peer: they are made, and shared where HTTP/2 is spoken.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use castling_abi::TlsFact;

use super::PeerStream;
use super::request::{Deadline, TryError};
use crate::config::PeerProtocol;
use crate::error::UpstreamError;
use crate::exchange::Exchange;
use crate::http2::ClientConnection;
use crate::message::{KnownHeader, Scheme};
use crate::runtime::clock;
use crate::transport::Transport;
use crate::transport::halves;
use crate::transport::proxy_protocol::{self, Client, Ends, Facts, TlsFacts};
use crate::transport::tls::Offer;
use crate::upstream::connect::{ConnectError, To, connect};
use crate::upstream::open_connection::OpenConnection;
use crate::upstream::{Peer, Upstream};

/// Makes connections to a peer.
pub(in crate::upstream) struct Connector<'a> {
    pub upstream: &'a Upstream,
    pub peer: &'a Rc<Peer>,
    /// Exchange that they are for. `None`: the gateway has them ready for any.
    pub exchange: Option<&'a Exchange>,
    /// Longest wait for a connection.
    pub timeout: Duration,
    /// End of the time that the exchange's try has.
    pub deadline: Option<&'a Deadline>,
}

/// A new connection, on which nothing of HTTP was said.
struct Dialed {
    transport: Transport,
    open: OpenConnection,
}

/// A new connection, for the HTTP that is spoken there.
enum Made {
    H1(PeerStream),
    H2(Rc<ClientConnection>),
}

impl<'a> Connector<'a> {
    /// A stream to the peer: of a connection that is there, or of a new one.
    pub async fn connect(&self) -> Result<PeerStream, TryError> {
        let stream = match self.upstream.shares_connections(self.peer) {
            true => Box::pin(self.share()).await?,
            false => self.make_stream().await?,
        };
        let upgrade = self.exchange.and_then(|it| it.request().upgrade);
        if upgrade.is_some()
            && !stream.takes_upgrades()
            && self.upstream.protocol == PeerProtocol::Auto
        {
            let dialed = Box::pin(self.dial(Offer::Http1)).await?;
            return Ok(self.h1(dialed));
        }
        Ok(stream)
    }

    /// A new connection, whose bytes go as they are.
    pub async fn tunnel(&self) -> Result<PeerStream, TryError> {
        let Dialed { transport, open } = self.dial(Offer::Nothing).await?;
        let (halves, life) = (halves::split(transport), self.peer.pool.life());
        let alarms = &self.upstream.alarms;
        Ok(PeerStream::tunnel(halves, alarms, life, open))
    }

    /// Makes a connection that waits for an exchange, if there are fewer of them than this.
    pub async fn make_idle(&self, fewer_than: usize) -> Result<(), TryError> {
        let Peer {
            pool, multiplex, ..
        } = &**self.peer;
        // Exchanges that need one meanwhile wait for this one.
        let _turn = match self.upstream.shares_connections(self.peer) {
            true => multiplex.turn().await,
            false => None,
        };
        if self.upstream.idle_connections(self.peer) >= fewer_than {
            return Ok(());
        }
        match self.make().await? {
            Made::H1(mut stream) => {
                // The peer may end it at any moment, as one that has served a request.
                stream.set_reused();
                pool.put(stream, clock::now());
            }
            Made::H2(connection) => multiplex.put(&connection, pool.life()),
        }
        Ok(())
    }

    fn h1(&self, dialed: Dialed) -> PeerStream {
        let Dialed { transport, open } = dialed;
        let (halves, life) = (halves::split(transport), self.peer.pool.life());
        PeerStream::h1(halves, &self.upstream.alarms, life, open)
    }

    /// A stream of a connection that others share. One is made at a time.
    async fn share(&self) -> Result<PeerStream, TryError> {
        let multiplex = &self.peer.multiplex;
        if let Some(connection) = multiplex.pick() {
            return Ok(self.stream_of(connection));
        }
        let failures = multiplex.failures();
        let _turn = multiplex.turn().await;
        if let Some(connection) = multiplex.pick() {
            return Ok(self.stream_of(connection));
        }
        if multiplex.failures() != failures {
            // Another has waited as long for the same.
            let cause = io::Error::other("no connection came of the try that was waited for");
            let peer = self.label();
            return Err(UpstreamError::Connect { peer, cause }.into());
        }
        let made = self.make_stream().await;
        if made.is_err() {
            multiplex.note_failure();
        }
        made
    }

    fn stream_of(&self, connection: Rc<ClientConnection>) -> PeerStream {
        let scheme = match self.peer.tls {
            Some(_) => Scheme::Https,
            None => Scheme::Http,
        };
        PeerStream::h2(connection, scheme, &self.upstream.alarms)
    }

    /// A stream of a new connection.
    async fn make_stream(&self) -> Result<PeerStream, TryError> {
        match self.make().await? {
            Made::H1(stream) => Ok(stream),
            Made::H2(connection) => {
                let multiplex = &self.peer.multiplex;
                multiplex.put_used(&connection, self.peer.pool.life());
                Ok(self.stream_of(connection))
            }
        }
    }

    /// A new connection.
    async fn make(&self) -> Result<Made, TryError> {
        let dialed = self.dial(Offer::Usual).await?;
        let speaks_http2 = match self.upstream.protocol {
            PeerProtocol::Http1 => false,
            PeerProtocol::Http2 => true,
            PeerProtocol::Auto => dialed.transport.is_http2(),
        };
        self.peer.multiplex.note(speaks_http2);
        if !speaks_http2 {
            return Ok(Made::H1(self.h1(dialed)));
        }
        let alarms = &self.upstream.alarms;
        let Dialed { transport, open } = dialed;
        let (after, deadline) = self.connect_timeout();
        let handshake = Box::pin(self.upstream.http2.handshake(Rc::new(transport)));
        let (connection, driver) = handshake.await.map_err(|cause| {
            let peer = self.label();
            TryError::from(UpstreamError::Preface { peer, cause })
        })?;
        tokio::task::spawn_local(async move {
            driver.await;
            drop(open);
        });
        let settled = Box::pin(connection.settled());
        let peer = self.label();
        match alarms.alarm().limit(after, settled).await {
            Ok(true) => {}
            Ok(false) => {
                let cause = io::Error::other("it does not speak it");
                return Err(UpstreamError::Preface { peer, cause }.into());
            }
            Err(_) => {
                let error = UpstreamError::ConnectTimeout { peer, after };
                return Err(self.late(deadline, error));
            }
        }
        Ok(Made::H2(connection))
    }

    /// A new connection.
    async fn dial(&self, offer: Offer) -> Result<Dialed, TryError> {
        let open = self.peer.open();
        let to = To {
            address: &self.peer.address,
            alternate: Some(&self.peer.alternate),
            options: &self.upstream.connect_options,
            header: self.proxy_header(),
            tls: self.peer.tls.as_ref(),
            offer,
        };
        let alarm = self.upstream.alarms.alarm();
        let (after, deadline) = self.connect_timeout();
        let protection = self.upstream.protection.as_deref();
        let permits = protection.map(|it| it.connect(&self.upstream.balancer.peers()));
        let (permit, _pending) = permits.transpose().map_err(TryError::Overflow)?.unzip();
        let connected = connect(to, &alarm, after).await;
        let mut transport =
            connected.map_err(|error| self.connect_error(error, after, deadline))?;
        transport.hold(permit.flatten());
        self.peer.pool.note_made();
        Ok(Dialed { transport, open })
    }

    fn connect_error(
        &self,
        error: ConnectError,
        after: Duration,
        deadline: Option<&Deadline>,
    ) -> TryError {
        let peer = self.label();
        TryError::from(match error {
            ConnectError::Shortage(cause) => return TryError::Shortage(cause),
            ConnectError::Failed(cause) => UpstreamError::Connect { peer, cause },
            ConnectError::Handshake(cause) => UpstreamError::Handshake { peer, cause },
            ConnectError::TimedOut => {
                return self.late(deadline, UpstreamError::ConnectTimeout { peer, after });
            }
            ConnectError::HandshakeTimedOut => {
                return self.late(deadline, UpstreamError::HandshakeTimeout { peer, after });
            }
        })
    }

    /// Longest wait for a connection, and the try's deadline if that is what bounds it.
    fn connect_timeout(&self) -> (Duration, Option<&'a Deadline>) {
        let Some(deadline) = self.deadline else {
            return (self.timeout, None);
        };
        match deadline.at.saturating_duration_since(clock::now()) {
            left if left < self.timeout => (left, Some(deadline)),
            _ => (self.timeout, None),
        }
    }

    /// The error of a wait for a connection that took too long, or until after the try's deadline.
    fn late(&self, deadline: Option<&Deadline>, error: UpstreamError) -> TryError {
        match deadline {
            Some(deadline) => TryError::Upstream {
                cause: deadline.error(&self.peer.label),
                sent: false,
            },
            None => error.into(),
        }
    }

    /// PROXY header for a connection of this exchange, where the upstream has one.
    fn proxy_header(&self) -> Option<Vec<u8>> {
        let version = self.upstream.proxy_protocol?;
        let Some(exchange) = self.exchange else {
            let (client, facts) = (Client::Nobody, Facts::default());
            return Some(proxy_protocol::write(version, client, &facts));
        };
        let context = exchange.context();
        let client = match (context.client.ip(), context.server.tcp()) {
            // A call of a plugin's.
            _ if context.client.is_nobody() => Client::Nobody,
            (Some(ip), Some(server)) => Client::Known(Ends {
                client: (ip, context.client.port().unwrap_or(0)).into(),
                server,
            }),
            (_, _) => Client::Unknown,
        };
        let fact = |fact| context.tls.as_ref()?.fact(fact);
        let request_id = exchange.request().headers.get(KnownHeader::XRequestId);
        let facts = Facts {
            alpn: fact(TlsFact::Alpn),
            authority: fact(TlsFact::ServerName),
            unique_id: request_id.filter(|id| id.len() <= 128),
            tls: context.tls.as_ref().map(|tls| TlsFacts {
                version: fact(TlsFact::Version).unwrap_or_default(),
                cipher: fact(TlsFact::Cipher).unwrap_or_default(),
                has_certificate: tls.has_client_certificate(),
            }),
        };
        Some(proxy_protocol::write(version, client, &facts))
    }

    fn label(&self) -> String {
        self.peer.label.to_string()
    }
}
