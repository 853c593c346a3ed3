//! Handshakes with clients.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use rustls::Error;
use rustls::crypto::CryptoProvider;
use rustls::server::{Accepted, AcceptedAlert, Acceptor, ServerConnection};
use tokio::sync::Semaphore;

use super::certificates::Certificates;
use super::challenge::Challenges;
use super::key_log::KeyLogFile;
use super::policy::{Common, Policies};
use super::{Appending, TicketChain, Tls, TlsInfo};
use crate::config::{Certificate, ListenerTls};
use crate::metrics::{HandshakeMetrics, HandshakeResult};
use crate::transport::Socket;

/// TLS of a listener, in one worker.
pub struct ServerTls {
    policies: Arc<Policies>,
    /// Whether requests are for servers whose clients are verified otherwise than those of others.
    tells_hosts_apart: bool,
    certificates: Arc<Certificates>,
    provider: Arc<CryptoProvider>,
    challenges: Challenges,
    timeout: Duration,
    turns: Rc<HandshakeTurns>,
    metrics: HandshakeMetrics,
}

/// Turns of a worker's handshakes: a signature takes up to a millisecond, in which nobody else is served, so that there is one
/// a turn of the event loop. A client that is asked for another key share (HelloRetryRequest) has its signature outside of them.
pub struct HandshakeTurns(Semaphore);

/// Reason why a client has no TLS.
#[derive(Debug)]
pub enum HandshakeError {
    Timeout(Duration),
    /// The client has left.
    Io(io::Error),
    /// The client speaks HTTP, and was told so.
    PlainHttp,
    /// The client names a server that there is no certificate for.
    UnknownName(String),
    /// The client was an ACME authority, and has seen what it wanted to see (RFC 8737 §3: it closes the connection).
    Challenge(String),
    Tls(Error),
}

/// Most bytes that a client may send in a handshake, all messages together; rustls bounds each.
const HANDSHAKE_BYTES: usize = 128 << 10;

/// Room for one read of a handshake; a hello with ML-KEM's share takes some 1.5 KiB.
const READ_BYTES: usize = 4 << 10;

/// Alert `unrecognized_name`, fatal (RFC 8446 §6.2), in a record of its own.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

/// Answer to a request that comes without TLS, as nginx has it (its status 497).
const PLAIN_HTTP: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain\r\n\
    content-length: 47\r\n\r\nThis port speaks TLS: ask by https and not http";

impl Default for HandshakeTurns {
    fn default() -> Self {
        Self(Semaphore::new(1))
    }
}

impl HandshakeTurns {
    /// Waits for a turn, works, and lets others of the event loop have theirs before the next one.
    pub(super) async fn take<T>(&self, work: impl FnOnce() -> T) -> T {
        // Nobody closes the semaphore.
        let turn = self.0.acquire().await;
        let done = work();
        tokio::task::yield_now().await;
        drop(turn);
        done
    }
}

impl ServerTls {
    /// `alpn`: protocols that are spoken, the preferred one first (RFC 7301). The error is a line for the operator, with the place.
    pub fn new(
        listener: &str,
        tls: &ListenerTls,
        alpn: &[&[u8]],
        chain: &TicketChain,
        turns: &Rc<HandshakeTurns>,
        metrics: HandshakeMetrics,
    ) -> Result<Self, String> {
        let placed = |error: String| format!("{}: listener {listener}: tls: {error}", tls.place);
        let provider = super::certificates::provider(&tls.suites, &tls.groups).map_err(placed)?;
        let certificates = Arc::new(Certificates::new(tls, &provider)?);
        let key_log = tls.key_log.as_ref().map(KeyLogFile::open).transpose()?;
        let common = Common {
            listener,
            provider: Arc::clone(&provider),
            certificates: Arc::clone(&certificates),
            tickets: tls.session_tickets.then_some(chain),
            alpn,
            key_log: key_log.map(Arc::new),
        };
        let policies = Policies::new(&common, tls).map_err(placed)?;
        Ok(Self {
            policies: Arc::new(policies),
            tells_hosts_apart: tls.tells_hosts_apart(),
            certificates,
            provider,
            challenges: Challenges::default(),
            timeout: tls.handshake_timeout,
            turns: Rc::clone(turns),
            metrics,
        })
    }

    /// Takes a certificate that was ordered, where the listener waits for it: handshakes from now on have it. The error is a line for
    /// a person.
    pub fn take_ordered(&self, id: &str, certificate: &Certificate) -> Result<(), String> {
        self.certificates
            .take_ordered(id, certificate, &self.provider)
    }

    /// Answers these challenges of an authority from now on, and no others.
    pub fn replace_challenges(&self, challenges: &[Certificate]) -> Result<(), String> {
        self.challenges.replace(challenges, &self.provider)
    }

    /// Makes a handshake, whose time is bounded. What the client is told of a failure is out where it takes it.
    pub async fn accept(&self, socket: &Socket) -> Result<Tls, HandshakeError> {
        let handshake = tokio::time::timeout(self.timeout, self.handshake(socket));
        let made = match handshake.await {
            Ok(result) => result,
            Err(_) => Err(HandshakeError::Timeout(self.timeout)),
        };
        self.metrics.count(match &made {
            Ok(tls) if tls.is_resumed() => HandshakeResult::Resumed,
            Ok(_) => HandshakeResult::Full,
            Err(error) => error.result(),
        });
        made
    }

    async fn handshake(&self, socket: &Socket) -> Result<Tls, HandshakeError> {
        let mut input = Input::default();
        let accepted = self.hello(socket, &mut input).await?;
        let name = accepted.client_hello().server_name().map(str::to_owned);
        let challenge = self.challenges.answer(&accepted.client_hello());
        let is_challenge = challenge.is_some();
        if !is_challenge && !self.certificates.serves(name.as_deref()) {
            send(socket, &UNRECOGNIZED_NAME).await?;
            return Err(HandshakeError::UnknownName(name.unwrap_or_default()));
        }
        let usual = || Arc::clone(&self.policies.of(name.as_deref()).config);
        let config = challenge.unwrap_or_else(usual);
        let sign = || accepted.into_connection(config);
        let mut connection = match self.turns.take(sign).await {
            Ok(connection) => connection,
            Err((error, alert)) => return refuse(socket, error, alert).await,
        };
        loop {
            send_sealed(socket, &mut connection).await?;
            if !connection.is_handshaking() && is_challenge {
                return Err(HandshakeError::Challenge(name.unwrap_or_default()));
            }
            if !connection.is_handshaking() {
                let policies = self.tells_hosts_apart.then(|| Arc::clone(&self.policies));
                let info = TlsInfo::new(&connection, policies);
                return Ok(Tls::new(connection, input.received).with_info(info));
            }
            if input.received.is_empty() {
                input.read(socket).await?;
            }
            let bytes = connection.read_tls(&mut &input.received[..])?;
            input.received.advance(bytes);
            if let Err(error) = connection.process_new_packets() {
                send_sealed(socket, &mut connection).await?;
                return Err(HandshakeError::Tls(error));
            }
        }
    }

    async fn hello(&self, socket: &Socket, input: &mut Input) -> Result<Accepted, HandshakeError> {
        let mut acceptor = Acceptor::default();
        input.read(socket).await?;
        // A record begins with its type, below 32; a method with a letter.
        if input.received.first().is_some_and(u8::is_ascii_uppercase) {
            send(socket, PLAIN_HTTP).await?;
            return Err(HandshakeError::PlainHttp);
        }
        loop {
            let bytes = acceptor.read_tls(&mut &input.received[..])?;
            input.received.advance(bytes);
            match acceptor.accept() {
                Ok(Some(accepted)) => return Ok(accepted),
                Ok(None) if input.received.is_empty() => input.read(socket).await?,
                Ok(None) => {}
                Err((error, alert)) => return refuse(socket, error, alert).await,
            }
        }
    }
}

/// Bytes of a handshake as they come.
#[derive(Default)]
struct Input {
    received: BytesMut,
    read_bytes: usize,
}

impl Input {
    /// Waits for more, at least a byte.
    async fn read(&mut self, socket: &Socket) -> Result<(), HandshakeError> {
        if self.read_bytes > HANDSHAKE_BYTES {
            return Err(HandshakeError::Tls(Error::General(
                "the handshake is too long".to_owned(),
            )));
        }
        self.received.reserve(READ_BYTES);
        loop {
            match socket.try_read(&mut self.received) {
                Ok(0) => return Err(io::Error::from(ErrorKind::UnexpectedEof).into()),
                Ok(bytes) => {
                    self.read_bytes += bytes;
                    return Ok(());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    poll_fn(|cx| socket.poll_read_ready(cx)).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}

async fn refuse<T>(
    socket: &Socket,
    error: Error,
    mut alert: AcceptedAlert,
) -> Result<T, HandshakeError> {
    let mut out = BytesMut::new();
    // Appending to memory cannot fail.
    let _ = alert.write_all(&mut Appending(&mut out));
    send(socket, &out).await?;
    Err(HandshakeError::Tls(error))
}

async fn send_sealed(
    socket: &Socket,
    connection: &mut ServerConnection,
) -> Result<(), HandshakeError> {
    let mut out = BytesMut::new();
    while connection.wants_write() {
        connection.write_tls(&mut Appending(&mut out))?;
    }
    send(socket, &out).await
}

async fn send(socket: &Socket, mut bytes: &[u8]) -> Result<(), HandshakeError> {
    while !bytes.is_empty() {
        match socket.try_write(bytes) {
            Ok(0) => return Err(io::Error::from(ErrorKind::WriteZero).into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                poll_fn(|cx| socket.poll_write_ready(cx)).await?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

impl HandshakeError {
    /// Label of the metric.
    fn result(&self) -> HandshakeResult {
        match self {
            Self::Timeout(_) => HandshakeResult::Timeout,
            Self::Io(_) => HandshakeResult::ClientLeft,
            Self::PlainHttp => HandshakeResult::PlainHttp,
            Self::UnknownName(_) => HandshakeResult::UnknownName,
            Self::Challenge(_) => HandshakeResult::Challenge,
            Self::Tls(error) => match error {
                Error::NoCertificatesPresented
                | Error::InvalidCertificate(_)
                | Error::InvalidCertRevocationList(_) => HandshakeResult::ClientCertificate,
                Error::PeerIncompatible(_) => HandshakeResult::Incompatible,
                // The client does not trust the server's certificate, say.
                Error::AlertReceived(_) => HandshakeResult::RefusedByClient,
                _ => HandshakeResult::Malformed,
            },
        }
    }

    /// Whether the client was sent something that says why.
    pub fn was_told(&self) -> bool {
        match self {
            Self::PlainHttp | Self::UnknownName(_) | Self::Challenge(_) | Self::Tls(_) => true,
            Self::Timeout(_) | Self::Io(_) => false,
        }
    }
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout(limit) => write!(f, "not over in {limit:?}"),
            Self::Io(error) => write!(f, "{error}"),
            Self::PlainHttp => f.write_str("HTTP without TLS"),
            Self::UnknownName(name) => {
                write!(f, "no certificate for {name:?}")
            }
            Self::Challenge(name) => {
                write!(
                    f,
                    "an authority's challenge for {name:?}, which was answered"
                )
            }
            Self::Tls(error) => write!(f, "{error}"),
        }
    }
}
