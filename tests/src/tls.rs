//! Certificates, and clients that speak TLS.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rcgen::{
    CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa, Issuer, KeyPair,
    RevokedCertParams, SignatureAlgorithm,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
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
        self.certify_with(Self::params(names), kind)
    }

    /// A certificate for these names that signs itself and may sign others, as `openssl req -x509` makes it. Good until that year.
    pub fn self_signed(names: &[&str], until: i32) -> Pem {
        let mut params = Self::params(names);
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let own = params.self_signed(&key).expect("a certificate");
        Pem {
            chain: own.pem(),
            key: key.serialize_pem(),
        }
    }

    /// Parameters of a certificate for these names.
    pub fn params(names: &[&str]) -> CertificateParams {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        CertificateParams::new(names).expect("names")
    }

    pub fn certify_with(
        &self,
        params: CertificateParams,
        kind: &'static SignatureAlgorithm,
    ) -> Pem {
        let key = KeyPair::generate_for(kind).expect("a key");
        let own = params
            .signed_by(&key, self.issuer())
            .expect("a certificate");
        Pem {
            chain: own.pem() + &self.issuer.pem(),
            key: key.serialize_pem(),
        }
    }

    /// A certificate of a client with this serial number, good in these years.
    pub fn certify_client(&self, name: &str, serial: u64, years: (i32, i32)) -> Pem {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params.serial_number = Some(serial.into());
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        self.sign(params)
    }

    /// Signs what a test has said of a certificate.
    pub fn sign(&self, params: CertificateParams) -> Pem {
        self.sign_with(params, &KeyPair::generate().expect("a key"))
    }

    pub fn sign_with(&self, params: CertificateParams, key: &KeyPair) -> Pem {
        let issuer: &Issuer<'_, KeyPair> = &self.issuer;
        let own = params.signed_by(key, issuer).expect("a certificate");
        Pem {
            chain: own.pem() + &self.issuer.pem(),
            key: key.serialize_pem(),
        }
    }

    /// A list of revoked certificates, by their serial numbers, that is good in these years.
    pub fn revoke(&self, serials: &[u64], years: (i32, i32)) -> String {
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: (*serial).into(),
            revocation_time: rcgen::date_time_ymd(years.0, 1, 1),
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(years.0, 1, 1),
            next_update: rcgen::date_time_ymd(years.1, 1, 1),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer).expect("a list");
        list.pem().expect("PEM")
    }

    /// The authority's own certificate.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    pub(crate) fn der(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }
}

/// Client that trusts one authority.
#[derive(Clone, Debug)]
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
        Self::of_roots([authority.der()], versions)
    }

    /// Trusts the authorities whose certificates these are, PEM. Each connection has a full handshake.
    pub fn trusting(pem: &str) -> Self {
        let roots = CertificateDer::pem_slice_iter(pem.as_bytes());
        let roots: Result<Vec<_>, _> = roots.collect();
        let mut client = Self::of_roots(roots.expect("certificates"), rustls::ALL_VERSIONS);
        client.config.resumption = rustls::client::Resumption::disabled();
        client
    }

    fn of_roots(
        authorities: impl IntoIterator<Item = CertificateDer<'static>>,
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority).expect("a root");
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { config }
    }

    /// Shows this certificate to a server that asks for one.
    pub fn with_certificate(mut self, pem: &Pem) -> Self {
        let chain = CertificateDer::pem_slice_iter(pem.chain.as_bytes());
        let chain = chain.collect::<Result<_, _>>().expect("a chain");
        let key = PrivateKeyDer::from_pem_slice(pem.key.as_bytes()).expect("a key");
        let provider = Arc::clone(self.config.crypto_provider());
        let key = provider.key_provider.load_private_key(key);
        let certified = CertifiedKey::new(chain, key.expect("a key of a known kind"));
        self.config.client_auth_cert_resolver = Arc::new(SingleCertAndKey::from(certified));
        self
    }

    /// Offers these protocols (ALPN).
    pub fn offering(mut self, protocols: &[&str]) -> Self {
        let protocols = protocols.iter().map(|name| name.as_bytes().to_vec());
        self.config.alpn_protocols = protocols.collect();
        self
    }

    /// For sockets of tokio's, with these protocols (ALPN).
    pub(crate) fn connector(&self, protocols: &[&str]) -> tokio_rustls::TlsConnector {
        let mut config = self.config.clone();
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        Arc::new(config).into()
    }

    /// Connects and makes the handshake.
    pub fn connect(&self, address: SocketAddr, name: &str) -> Result<TlsStream, std::io::Error> {
        self.connect_behind(address, name, b"")
    }

    /// Connects and makes the handshake, behind these bytes.
    pub fn connect_behind(
        &self,
        address: SocketAddr,
        name: &str,
        first: &[u8],
    ) -> Result<TlsStream, std::io::Error> {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut connection = ClientConnection::new(Arc::new(self.config.clone()), name)
            .expect("the client's own config");
        let mut socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(DEADLINE))?;
        socket.write_all(first)?;
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

    /// Sends, and reads until `end` is there or the connection ends.
    pub fn ask(&mut self, request: impl AsRef<[u8]>, end: &str) -> Result<String, std::io::Error> {
        self.tls.write_all(request.as_ref())?;
        let mut read = Vec::new();
        while !read.ends_with(end.as_bytes()) {
            let mut byte = [0];
            self.tls.read_exact(&mut byte)?;
            read.push(byte[0]);
        }
        Ok(String::from_utf8(read).expect("text"))
    }

    /// Reads so many bytes.
    pub fn read_exact<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.tls.read_exact(&mut bytes).expect("more");
        bytes
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

/// Answer of a server to the key of a WebSocket (RFC 6455 §1.3).
pub fn websocket_accept(key: &str) -> String {
    use base64::Engine as _;
    let text = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let algorithm = &::aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY;
    let hash = ::aws_lc_rs::digest::digest(algorithm, text.as_bytes());
    base64::engine::general_purpose::STANDARD.encode(hash)
}
