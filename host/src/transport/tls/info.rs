//! Facts that TLS knows of a connection, as plugins and logs see it.

use std::sync::Arc;

use castling_abi::TlsFact;
use rustls::server::ServerConnection;
use rustls::{CipherSuite, HandshakeKind, NamedGroup, ProtocolVersion};

use super::client_certificate::ClientCertificate;
use super::policy::Policies;

/// Facts of a connection whose handshake is over: made once, and the same for all of its requests.
pub struct TlsInfo {
    version: &'static str,
    cipher: &'static str,
    group: Option<&'static str>,
    /// Name of the server that the client asked for, in lower case.
    server_name: Option<Box<str>>,
    alpn: Option<Box<str>>,
    is_resumed: bool,
    client: Option<Box<ClientCertificate>>,
    /// `None`: clients of all servers are verified in the same way.
    policies: Option<Arc<Policies>>,
}

impl TlsInfo {
    pub(super) fn new(connection: &ServerConnection, policies: Option<Arc<Policies>>) -> Self {
        let version = connection.protocol_version().map(version_name);
        let suite = connection.negotiated_cipher_suite();
        let group = connection.negotiated_key_exchange_group();
        let alpn = connection.alpn_protocol().map(String::from_utf8_lossy);
        let chain = connection.peer_certificates().unwrap_or_default();
        Self {
            version: version.unwrap_or(UNKNOWN),
            cipher: suite.map_or(UNKNOWN, |suite| suite_name(suite.suite())),
            group: group.map(|group| group_name(group.name())),
            server_name: connection.server_name().map(Box::from),
            alpn: alpn.map(|name| name.into()),
            is_resumed: connection.handshake_kind() == Some(HandshakeKind::Resumed),
            client: chain
                .first()
                .map(|own| Box::new(ClientCertificate::new(own.clone()))),
            policies,
        }
    }

    pub(super) fn is_resumed(&self) -> bool {
        self.is_resumed
    }

    /// Whether the client has shown a certificate, which was verified then.
    pub fn has_client_certificate(&self) -> bool {
        self.client.is_some()
    }

    /// Whether a request for this host is not for this connection, whose client was verified for another server, or not at all.
    pub fn is_misdirected(&self, host: Option<&str>) -> bool {
        let verified_for = self.server_name.as_deref();
        let policies = self.policies.as_ref();
        policies.is_some_and(|policies| !policies.verify_alike(verified_for, host))
    }

    /// A fact as text. `None`: there is none.
    pub fn fact(&self, fact: TlsFact) -> Option<&str> {
        match fact {
            TlsFact::Version => Some(self.version),
            TlsFact::Cipher => Some(self.cipher),
            TlsFact::Group => self.group,
            TlsFact::ServerName => self.server_name.as_deref(),
            TlsFact::Alpn => self.alpn.as_deref(),
            TlsFact::Resumed => Some(yes_or_no(self.is_resumed)),
            // Early data is not taken.
            TlsFact::Early => Some(yes_or_no(false)),
            // nginx's words; it would say FAILED of what has no connection here.
            TlsFact::ClientVerify => Some(match self.client {
                Some(_) => "SUCCESS",
                None => "NONE",
            }),
            TlsFact::ClientSubject
            | TlsFact::ClientIssuer
            | TlsFact::ClientSerial
            | TlsFact::ClientFingerprint
            | TlsFact::ClientNotBefore
            | TlsFact::ClientNotAfter
            | TlsFact::ClientDns
            | TlsFact::ClientIp
            | TlsFact::ClientUri
            | TlsFact::ClientEmail
            | TlsFact::ClientCertificate => self.client.as_ref()?.fact(fact),
        }
    }
}

/// Stands for something that the library learns to speak before this file does.
const UNKNOWN: &str = "unknown";

const fn yes_or_no(is_so: bool) -> &'static str {
    match is_so {
        true => "yes",
        false => "no",
    }
}

fn version_name(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::TLSv1_2 => "TLSv1.2",
        ProtocolVersion::TLSv1_3 => "TLSv1.3",
        _ => UNKNOWN,
    }
}

/// Name of a suite in the registry of IANA.
pub(super) fn suite_name(suite: CipherSuite) -> &'static str {
    match suite {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_256_GCM_SHA384 => "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 => {
            "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"
        }
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 => {
            "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"
        }
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 => {
            "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"
        }
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => {
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
        }
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => {
            "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"
        }
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 => {
            "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256"
        }
        _ => UNKNOWN,
    }
}

/// Name of a group in the registry of IANA.
pub(super) fn group_name(group: NamedGroup) -> &'static str {
    match group {
        NamedGroup::X25519 => "X25519",
        NamedGroup::secp256r1 => "secp256r1",
        NamedGroup::secp384r1 => "secp384r1",
        NamedGroup::X25519MLKEM768 => "X25519MLKEM768",
        NamedGroup::secp256r1MLKEM768 => "secp256r1MLKEM768",
        NamedGroup::MLKEM768 => "MLKEM768",
        NamedGroup::MLKEM1024 => "MLKEM1024",
        _ => UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use rustls::crypto::aws_lc_rs;

    use super::*;

    #[test]
    fn every_suite_and_group_of_the_library_has_its_name() {
        for suite in aws_lc_rs::ALL_CIPHER_SUITES {
            assert_ne!(suite_name(suite.suite()), UNKNOWN, "{suite:?}");
        }
        for group in aws_lc_rs::ALL_KX_GROUPS {
            assert_ne!(group_name(group.name()), UNKNOWN, "{group:?}");
        }
    }
}
