//! `[acme]` and `tls.acme` of listeners, resolved.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Der, PlacedPath};

/// The authority that certificates are ordered from (RFC 8555).
#[derive(Clone, Debug, PartialEq)]
pub struct Acme {
    /// URL of the authority's directory. Default Let's Encrypt's.
    pub directory: String,
    /// URIs by which the authority reaches the operator, such as `mailto:hostmaster@example.com`. Default none.
    pub contact: Vec<String>,
    /// Folder of the account's key, the certificates and their keys. Default `acme` beside the config.
    pub store: PlacedPath,
    /// Ways to show that a name is ours, the preferred one first. At least one. Default both.
    pub challenges: Vec<ChallengeKind>,
    /// Authorities that vouch for the directory's own TLS. Default those of the system.
    pub roots: Vec<Der>,
    /// Profile of certificates, by the authority's word for it. Default the authority's choice.
    pub profile: Option<String>,
    /// Account elsewhere that the one here is bound to (RFC 8555 §7.3.4). Default none.
    pub external_account: Option<ExternalAccount>,
    /// Default `p256`.
    pub key_type: AcmeKeyType,
    /// `FILE:LINE:COLUMN` of the table.
    pub place: String,
}

/// A certificate to be ordered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcmeCertificate {
    /// Host names in lower case, none twice; at least one.
    pub names: Vec<String>,
}

/// Way to show that a name is ours. In the file by its name in the RFCs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ChallengeKind {
    /// A text over plain HTTP, at port 80 of the name (RFC 8555 §8.3).
    Http01,
    /// A certificate over TLS, at port 443 of the name (RFC 8737).
    TlsAlpn01,
}

/// Kind of the keys that certificates are for. In the file `"p256"`, `"p384"` or `"rsa2048"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AcmeKeyType {
    P256,
    P384,
    Rsa2048,
}

/// Account at an authority that gives certificates only to those whom it knows.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalAccount {
    pub kid: String,
    /// Key of the HMAC. It is never shown.
    pub hmac_key: Vec<u8>,
}

impl AcmeCertificate {
    /// The names as one text, which tells certificates apart.
    pub fn id(&self) -> String {
        let mut names: Vec<_> = self.names.iter().map(String::as_str).collect();
        names.sort_unstable();
        names.join(",")
    }
}

impl AcmeKeyType {
    /// The word in the file.
    pub const fn name(self) -> &'static str {
        match self {
            Self::P256 => "p256",
            Self::P384 => "p384",
            Self::Rsa2048 => "rsa2048",
        }
    }
}

impl fmt::Debug for ExternalAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} bytes of key", self.kid, self.hmac_key.len())
    }
}
