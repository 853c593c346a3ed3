//! `[listeners.NAME.tls]`, resolved.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// TLS of a listener's connections.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListenerTls {
    /// At least one. The first is for clients that name no server.
    pub certificates: Vec<Certificate>,
    /// Default `first`.
    pub unknown_name: UnknownName,
    /// Default 1.2 (nginx `ssl_protocols`).
    pub min_version: TlsVersion,
    /// Suites in the order of preference; empty: those of the library. A version of TLS whose suites are all left out is not
    /// spoken.
    pub suites: Vec<String>,
    /// Groups of the key exchange in the order of preference; empty: those of the library.
    pub groups: Vec<String>,
    /// Whether a client may come back by a session ticket, which saves the signature (nginx `ssl_session_tickets`). Default true.
    pub session_tickets: bool,
    /// Time from accept to the end of the handshake. Default 10 s.
    pub handshake_timeout: Duration,
    /// `FILE:LINE:COLUMN` of the table.
    pub place: String,
}

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

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, {} bytes", self.form, self.der.len())
    }
}
