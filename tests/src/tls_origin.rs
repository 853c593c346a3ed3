//! Origins that speak TLS.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    HandshakeKind, RootCertStore, ServerConfig, ServerConnection, SupportedProtocolVersion,
};

use crate::origin::Origin;
use crate::raw_origin;
use crate::tls::{Authority, Pem};

/// Handshakes that an origin has made.
#[derive(Clone, Debug, Default)]
pub struct Handshakes(Arc<Mutex<Vec<Handshake>>>);

/// A handshake that was made.
#[derive(Clone, Debug)]
pub struct Handshake {
    pub kind: Option<HandshakeKind>,
    /// The name that was asked for (SNI).
    pub name: Option<String>,
    pub has_certificate: bool,
}

/// Connection of an origin after its handshake.
pub struct TlsConnection {
    tls: rustls::StreamOwned<ServerConnection, TcpStream>,
}

impl Handshakes {
    pub fn all(&self) -> Vec<Handshake> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub fn kinds(&self) -> Vec<HandshakeKind> {
        self.all().iter().filter_map(|one| one.kind).collect()
    }
}

/// TLS of an origin with this certificate, and these versions.
pub fn server(pem: &Pem, versions: &[&'static SupportedProtocolVersion]) -> ServerConfig {
    builder(versions).with_no_client_auth().own(pem)
}

/// TLS of an origin that requires a certificate of this authority.
pub fn strict_server(
    pem: &Pem,
    versions: &[&'static SupportedProtocolVersion],
    clients: &Authority,
) -> ServerConfig {
    let mut roots = RootCertStore::empty();
    roots.add(clients.der()).expect("a root");
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .expect("a verifier");
    builder(versions)
        .with_client_cert_verifier(verifier)
        .own(pem)
}

fn builder(
    versions: &[&'static SupportedProtocolVersion],
) -> rustls::ConfigBuilder<ServerConfig, rustls::WantsVerifier> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("versions")
}

trait Own {
    fn own(self, pem: &Pem) -> ServerConfig;
}

impl Own for rustls::ConfigBuilder<ServerConfig, rustls::server::WantsServerCert> {
    fn own(self, pem: &Pem) -> ServerConfig {
        let chain: Result<Vec<_>, _> =
            CertificateDer::pem_slice_iter(pem.chain.as_bytes()).collect();
        let key = PrivateKeyDer::from_pem_slice(pem.key.as_bytes()).expect("a key");
        self.with_single_cert(chain.expect("a chain"), key)
            .expect("a certificate and its key")
    }
}

/// Runs `script` on each connection once its handshake is made, with the number of the connection (0 is the first).
pub fn scripted(
    config: ServerConfig,
    script: impl Fn(&mut TlsConnection, usize) -> Result<(), String> + Send + Sync + 'static,
) -> (Origin, Handshakes) {
    let (config, handshakes) = (Arc::new(config), Handshakes::default());
    let seen = handshakes.clone();
    let origin = raw_origin::scripted(move |raw, number| {
        let mut socket = raw.socket().try_clone().map_err(text)?;
        let mut tls = ServerConnection::new(Arc::clone(&config)).map_err(text)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut socket).map_err(text)?;
        }
        let handshake = Handshake {
            kind: tls.handshake_kind(),
            name: tls.server_name().map(str::to_owned),
            has_certificate: tls.peer_certificates().is_some(),
        };
        let mut all = seen.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(handshake);
        drop(all);
        let tls = rustls::StreamOwned::new(tls, socket);
        script(&mut TlsConnection { tls }, number)
    });
    (origin, handshakes)
}

/// Reads a line, makes the handshake, and answers a request with the line.
pub fn behind_a_line(config: ServerConfig) -> Origin {
    let config = Arc::new(config);
    raw_origin::scripted(move |raw, _| {
        let mut line = Vec::new();
        let mut socket = raw.socket().try_clone().map_err(text)?;
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).map_err(text)?;
            line.extend(byte);
        }
        let tls = ServerConnection::new(Arc::clone(&config)).map_err(text)?;
        let tls = rustls::StreamOwned::new(tls, socket);
        let mut connection = TlsConnection { tls };
        connection.read_request()?;
        connection.answer("", &line)
    })
}

/// Answers each request with its own body, on kept connections.
pub fn echoing(config: ServerConfig) -> (Origin, Handshakes) {
    scripted(config, |connection, _| {
        loop {
            let body = connection.read_request()?;
            connection.answer("", &body)?;
        }
    })
}

/// Answers one request on each connection, and says that it ends.
pub fn closing(config: ServerConfig) -> (Origin, Handshakes) {
    scripted(config, |connection, _| {
        let body = connection.read_request()?;
        connection.answer("Connection: close\r\n", &body)?;
        connection.close()
    })
}

impl TlsConnection {
    /// The socket below TLS.
    pub fn socket(&self) -> &TcpStream {
        &self.tls.sock
    }

    /// Protocol that was agreed on (ALPN).
    pub fn protocol(&self) -> Option<&[u8]> {
        self.tls.conn.alpn_protocol()
    }

    /// Reads a request whose body has a length, if any; returns its body.
    pub fn read_request(&mut self) -> Result<Vec<u8>, String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(self.read_exact(1)?);
        }
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length:"));
        let length = length.map_or(Ok(0), |length| length.trim().parse());
        self.read_exact(length.map_err(text)?)
    }

    /// Reads a request's head, in lower case but for its first line.
    pub fn read_head(&mut self) -> Result<String, String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.extend(self.read_exact(1)?);
        }
        let head = String::from_utf8_lossy(&head);
        let (first, rest) = head.split_once("\r\n").unwrap_or((&head, ""));
        Ok(format!("{first}\r\n{}", rest.to_ascii_lowercase()))
    }

    pub fn read_exact(&mut self, len: usize) -> Result<Vec<u8>, String> {
        let mut bytes = vec![0; len];
        self.tls.read_exact(&mut bytes).map_err(text)?;
        Ok(bytes)
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), String> {
        let sent = self.tls.write_all(bytes.as_ref());
        sent.and_then(|()| self.tls.flush()).map_err(text)
    }

    /// Sends a response with a length and these further fields.
    pub fn answer(&mut self, fields: &str, body: &[u8]) -> Result<(), String> {
        let length = body.len();
        let head = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {length}\r\n\r\n");
        self.send([head.as_bytes(), body].concat())
    }

    /// Sends a message of TLS without a byte of HTTP, as a ticket is one (TLS 1.3).
    pub fn send_key_update(&mut self) -> Result<(), String> {
        self.tls.conn.refresh_traffic_keys().map_err(text)?;
        self.send("")
    }

    /// Says that nothing more comes (close_notify).
    pub fn close(&mut self) -> Result<(), String> {
        self.tls.conn.send_close_notify();
        self.send("")
    }
}

fn text(error: impl ToString) -> String {
    error.to_string()
}
