//! `[listeners.NAME.tls]` and `[upstreams.NAME.tls]`, resolved.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{AcmeCertificate, PlacedPath};

/// TLS of a listener's connections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListenerTls {
    /// The first is for clients that name no server. At least one here or in `acme`.
    pub certificates: Vec<Certificate>,
    /// Certificates that the gateway orders itself. Default none.
    pub acme: Vec<AcmeCertificate>,
    /// Default `first`.
    pub unknown_name: UnknownName,
    /// Default 1.2 (nginx `ssl_protocols`).
    pub min_version: TlsVersion,
    /// Suites that are spoken, of which the client's order chooses; empty: those of the library. A version of TLS whose suites are all left out is not
    /// spoken.
    pub suites: Vec<String>,
    /// Groups of the key exchange, likewise.
    pub groups: Vec<String>,
    /// Whether a client may come back by a session ticket, which saves the signature (nginx `ssl_session_tickets`). Default true.
    pub session_tickets: bool,
    /// Time from accept to the end of the handshake. Default 10 s.
    pub handshake_timeout: Duration,
    /// Default none: clients are asked for no certificate.
    pub client_certificates: Option<ClientCertificates>,
    /// Policies of some servers; a name is in one of them at most.
    pub hosts: Vec<TlsHosts>,
    /// File that the secrets of all sessions are written to, for debugging: who reads it reads what clients send. Default none.
    pub key_log: Option<PlacedPath>,
    /// `FILE:LINE:COLUMN` of the table.
    pub place: String,
}

/// TLS to the peers of an upstream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UpstreamTls {
    /// Name that peers are asked for (SNI) and that their certificates have to be for; an IP address is not asked for. Default
    /// each peer's own from the config (nginx `proxy_ssl_name`).
    pub server_name: Option<String>,
    /// Whether certificates are checked. Default true (nginx `proxy_ssl_verify`, which is off).
    pub verify: bool,
    /// Certificates of the authorities that vouch for peers; empty: those of the system (nginx
    /// `proxy_ssl_trusted_certificate`).
    pub ca: Vec<Der>,
    /// Lists of revoked certificates. Default none. With any, each certificate of a chain but the authority's own has to be of
    /// an issuer that has one, which is in date (nginx `proxy_ssl_crl`).
    pub crl: Vec<Der>,
    /// The gateway's own, for peers that ask for one. Default none.
    pub certificate: Option<Certificate>,
    /// Default 1.2.
    pub min_version: TlsVersion,
    /// As those of a listener.
    pub suites: Vec<String>,
    pub groups: Vec<String>,
    /// `FILE:LINE:COLUMN` of the table.
    pub place: String,
}

/// Policy of the servers with these names, as the client names them in its hello. What it does not say is the listener's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TlsHosts {
    /// In lower case; `*.example.com` is for one label more than `example.com`. At least one.
    pub names: Vec<String>,
    pub min_version: TlsVersion,
    pub client_certificates: Option<ClientCertificates>,
}

/// Certificates that clients are asked for, and how they are verified (nginx `ssl_verify_client`, `ssl_client_certificate`,
/// `ssl_crl`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClientCertificates {
    /// Default `required`.
    pub verify: VerifyClient,
    /// Authorities whose certificates are good; at least one.
    pub authorities: Vec<Der>,
    /// Revocation lists. Empty: nothing is revoked. Else there must be one of each authority in a client's chain, and it must
    /// not be past its time, as OpenSSL has it.
    pub revocation_lists: Vec<Der>,
    /// `FILE:LINE:COLUMN` of the table.
    pub place: String,
}

impl ListenerTls {
    /// Whether some client is asked for a certificate.
    pub fn asks_clients(&self) -> bool {
        let of_hosts = self.hosts.iter().map(|hosts| &hosts.client_certificates);
        of_hosts
            .chain([&self.client_certificates])
            .any(Option::is_some)
    }

    /// Whether the clients of some servers are verified otherwise than those of others.
    pub fn tells_hosts_apart(&self) -> bool {
        let own = self.client_certificates.as_ref();
        let mut of_hosts = self
            .hosts
            .iter()
            .map(|hosts| hosts.client_certificates.as_ref());
        of_hosts.any(|other| !ClientCertificates::are_same(own, other))
    }
}

impl ClientCertificates {
    /// Whether both verify the same, wherever they stand.
    pub fn are_same(one: Option<&Self>, other: Option<&Self>) -> bool {
        match (one, other) {
            (None, None) => true,
            (Some(one), Some(other)) => {
                one.verify == other.verify
                    && one.authorities == other.authorities
                    && one.revocation_lists == other.revocation_lists
            }
            (None, Some(_)) | (Some(_), None) => false,
        }
    }
}

/// Treatment of a client without a certificate. In the file `"required"`, `"optional"` or `"off"`. A certificate that is not good
/// ends the handshake in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerifyClient {
    /// Handshake ends with the alert `certificate_required`.
    Required,
    /// Handshake goes on; routes may ask for one.
    Optional,
}

/// A certificate, or a list of revoked ones. Hexadecimal in JSON: a list of numbers is twice as long.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Der(pub Vec<u8>);

/// A certificate with its chain and its key, and the names that it is for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// DER: the server's own first, then each certificate's issuer.
    pub chain: Vec<Vec<u8>>,
    pub key: PrivateKey,
    /// Names in lower case; `*.example.com` is for one label more than `example.com`.
    pub names: Vec<String>,
    /// `FILE:LINE:COLUMN` of `key`.
    pub key_place: String,
}

/// PKCS#8, PKCS#1 or SEC1, DER. It is never shown.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct PrivateKey {
    pub form: KeyForm,
    pub der: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyForm {
    Pkcs1,
    Pkcs8,
    Sec1,
}

/// Treatment of a client that names a server for which there is no certificate. In the file `"first"` or `"refuse"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownName {
    /// Handshake goes on with the listener's first certificate (nginx's default server).
    First,
    /// Handshake ends with the alert `unrecognized_name` (nginx `ssl_reject_handshake`).
    Refuse,
}

/// Version of TLS. In the file `"1.2"` or `"1.3"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum TlsVersion {
    V12,
    V13,
}

impl From<Der> for String {
    fn from(der: Der) -> Self {
        let mut text = Self::with_capacity(2 * der.0.len());
        for byte in der.0 {
            for digit in [byte >> 4, byte & 15] {
                text.push(char::from(HEX[usize::from(digit)]));
            }
        }
        text
    }
}

impl TryFrom<String> for Der {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let digit = |byte: u8| HEX.iter().position(|hex| *hex == byte);
        let byte = |pair: &[u8]| match *pair {
            [high, low] => Some((digit(high)? << 4 | digit(low)?) as u8),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
        bytes.map(Self).ok_or("no hexadecimal text")
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

impl fmt::Debug for Der {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, {} bytes", self.form, self.der.len())
    }
}
