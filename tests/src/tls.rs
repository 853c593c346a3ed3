//! Certificates, and clients that speak TLS.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rcgen::{CertificateParams, CertifiedIssuer, IsCa, Issuer, KeyPair, SignatureAlgorithm};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

use crate::DEADLINE;

/// Authority of a test.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// Certificate with its chain and its key, PEM.
pub struct Pem {
    pub chain: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        Self { issuer }
    }

    /// A certificate for these names, with a P-256 key.
    pub fn certify(&self, names: &[&str]) -> Pem {
        self.certify_as(names, &rcgen::PKCS_ECDSA_P256_SHA256)
    }

    pub fn certify_as(&self, names: &[&str], kind: &'static SignatureAlgorithm) -> Pem {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = CertificateParams::new(names).expect("names");
        let key = KeyPair::generate_for(kind).expect("a key");
        let issuer: &Issuer<'_, KeyPair> = &self.issuer;
        let own = params.signed_by(&key, issuer).expect("a certificate");
        Pem {
            chain: own.pem() + &self.issuer.pem(),
            key: key.serialize_pem(),
        }
    }

    fn der(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }
}

/// Client that trusts one authority.
pub struct TlsClient {
    config: ClientConfig,
}

/// A connection of it.
pub struct TlsStream {
    tls: rustls::StreamOwned<ClientConnection, TcpStream>,
}

impl TlsClient {
    pub fn new(authority: &Authority) -> Self {
        Self::with_versions(authority, rustls::ALL_VERSIONS)
    }

    pub fn with_versions(
        authority: &Authority,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(authority.der()).expect("a root");
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { config }
    }

    /// Offers these protocols (ALPN).
    pub fn offering(mut self, protocols: &[&str]) -> Self {
        let protocols = protocols.iter().map(|name| name.as_bytes().to_vec());
        self.config.alpn_protocols = protocols.collect();
        self
    }

    /// Connects and makes the handshake.
    pub fn connect(&self, address: SocketAddr, name: &str) -> Result<TlsStream, std::io::Error> {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut connection = ClientConnection::new(Arc::new(self.config.clone()), name)
            .expect("the client's own config");
        let mut socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(DEADLINE))?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        Ok(TlsStream {
            tls: rustls::StreamOwned::new(connection, socket),
        })
    }
}

impl TlsStream {
    pub fn connection(&self) -> &ClientConnection {
        &self.tls.conn
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.tls.write_all(bytes.as_ref()).expect("written");
    }

    /// Reads up to the end, which must be said (close_notify).
    pub fn read_to_end(&mut self) -> Result<String, std::io::Error> {
        let mut text = String::new();
        self.tls.read_to_string(&mut text)?;
        Ok(text)
    }

    /// Reads until `end` is there.
    pub fn read_until(&mut self, end: &str) -> String {
        let mut read = Vec::new();
        while !read.ends_with(end.as_bytes()) {
            let mut byte = [0];
            self.tls.read_exact(&mut byte).expect("more");
            read.push(byte[0]);
        }
        String::from_utf8(read).expect("text")
    }
}
