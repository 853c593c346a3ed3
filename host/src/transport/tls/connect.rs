//! Handshakes with peers.

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::sync::Arc;

use bytes::BytesMut;
use rustls::client::{ClientConnection, Resumption};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;

use super::certificates::{certified, provider};
use super::policy::versions;
use super::verify::{der, verifier};
use super::{HandshakeTurns, Tls};
use crate::config::{Der, UpstreamTls};
use crate::transport::Socket;

/// TLS to the peers of an upstream, in one worker.
pub struct ClientTls {
    config: ClientConfig,
    /// Name of all peers; `None`: each has its own.
    server_name: Option<String>,
    turns: Rc<HandshakeTurns>,
}

/// TLS to one peer.
pub struct PeerTls {
    /// Has the sessions that the peer has given: another peer could not resume them.
    config: Arc<ClientConfig>,
    /// Name that its certificate is to be for, and that it is asked for (SNI). An IP address is not asked for (RFC 6066 §3).
    name: ServerName<'static>,
    turns: Rc<HandshakeTurns>,
}

/// Protocols that a peer is offered (ALPN, RFC 7301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// Those of its upstream.
    Usual,
    Http1,
    /// None: what follows is the client's business.
    Nothing,
}

/// Authorities that the system trusts.
#[derive(Clone)]
pub struct SystemRoots(Arc<RootCertStore>);

/// HTTP/1.1 in ALPN (RFC 7301 §6).
const HTTP1_ALPN: &[u8] = b"http/1.1";

/// Sessions kept of a peer: as many tickets as rustls keeps for one name.
const KEPT_SESSIONS: usize = 8;

impl SystemRoots {
    pub fn new(certificates: &[Der]) -> Self {
        let mut roots = RootCertStore::empty();
        // An old one that cannot be read vouches for nobody.
        roots.add_parsable_certificates(certificates.iter().map(der));
        Self(Arc::new(roots))
    }
}

impl ClientTls {
    /// `alpn`: protocols that are offered, the preferred one first (RFC 7301). The error is a line for the operator, with the
    /// place.
    pub fn new(
        upstream: &str,
        tls: &UpstreamTls,
        alpn: &[&[u8]],
        system: &SystemRoots,
        turns: &Rc<HandshakeTurns>,
    ) -> Result<Self, String> {
        let placed = |error: String| format!("{}: upstream {upstream}: tls: {error}", tls.place);
        let provider = provider(&tls.suites, &tls.groups).map_err(placed)?;
        let verifier = verifier(tls, &system.0, &provider).map_err(placed)?;
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions(tls.min_version))
            .map_err(|error| placed(error.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match &tls.certificate {
            None => builder.with_no_client_auth(),
            Some(certificate) => {
                let own = certified(certificate, &provider)?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own)))
            }
        };
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(Self {
            config,
            server_name: tls.server_name.clone(),
            turns: Rc::clone(turns),
        })
    }

    /// TLS to the peer with this name, `HOST` or `HOST:PORT`. The error is a line for a person.
    pub fn peer(&self, address: &str) -> Result<PeerTls, String> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let name = self.server_name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| format!("tls: {name:?} is no name that a certificate can be for"))?;
        let mut config = self.config.clone();
        config.resumption = Resumption::in_memory_sessions(KEPT_SESSIONS);
        Ok(PeerTls {
            config: Arc::new(config),
            name,
            turns: Rc::clone(&self.turns),
        })
    }
}

impl PeerTls {
    /// Makes a handshake. What the peer is told of a failure is out where it takes it.
    pub async fn connect(&self, socket: &Socket, offer: Offer) -> io::Result<Tls> {
        let protocols = match offer {
            Offer::Usual => self.config.alpn_protocols.clone(),
            Offer::Http1 => vec![HTTP1_ALPN.to_vec()],
            Offer::Nothing => Vec::new(),
        };
        let (config, name) = (Arc::clone(&self.config), self.name.clone());
        let connection = ClientConnection::new_with_alpn(config, name, protocols);
        let mut tls = Tls::new(connection.map_err(io::Error::other)?, BytesMut::new());
        tls.collect();
        loop {
            // A failure to write is learnt by reading.
            poll_fn(|cx| tls.poll_flush(socket, cx)).await;
            if !tls.connection.is_handshaking() {
                return Ok(tls);
            }
            poll_fn(|cx| socket.poll_read_ready(cx)).await?;
            match self.turns.take(|| tls.fill(socket)).await {
                Ok(()) if tls.has_ended && tls.connection.is_handshaking() => {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(explained(error)),
            }
        }
    }
}

/// Says in other words what a peer without TLS looks like.
fn explained(error: io::Error) -> io::Error {
    let of_tls = error.get_ref().and_then(|cause| cause.downcast_ref());
    match of_tls {
        Some(rustls::Error::InvalidMessage(what)) => {
            io::Error::other(format!("it does not speak TLS ({what:?})"))
        }
        _ => error,
    }
}
