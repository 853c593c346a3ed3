//! Certificates of a listener, by the names that clients ask for.

use std::fmt;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
};

use super::by_name::ByName;
use super::info::{group_name, suite_name};
use crate::config::{Certificate, KeyForm, ListenerTls, UnknownName};

/// Certificates by name.
pub(super) struct Certificates {
    /// Certificates of a name in the order of the config: the first that the client can check is taken.
    by_name: ByName<Vec<Arc<CertifiedKey>>>,
    /// For clients that name no server, or one that nothing is for.
    usual: Vec<Arc<CertifiedKey>>,
    unknown_name: UnknownName,
}

/// Cryptography with these suites and groups; empty: those of the library. The error is a line with the rule.
pub(super) fn provider(
    suites: &[String],
    groups: &[String],
) -> Result<Arc<CryptoProvider>, String> {
    let mut provider = aws_lc_rs::default_provider();
    if !suites.is_empty() {
        let all = aws_lc_rs::ALL_CIPHER_SUITES;
        let suite = |name: &String| {
            let found = all.iter().find(|suite| suite_name(suite.suite()) == *name);
            found.copied().ok_or_else(|| {
                let known = all.iter().map(|suite| suite_name(suite.suite()));
                let known: Vec<_> = known.collect();
                format!("suites \"{name}\": expected some of {}", known.join(", "))
            })
        };
        provider.cipher_suites = suites.iter().map(suite).collect::<Result<_, _>>()?;
    }
    if !groups.is_empty() {
        let all = aws_lc_rs::ALL_KX_GROUPS;
        let group = |name: &String| {
            let found = all.iter().find(|group| group_name(group.name()) == *name);
            found.copied().ok_or_else(|| {
                let known = all.iter().map(|group| group_name(group.name()));
                let known: Vec<_> = known.collect();
                format!("groups \"{name}\": expected some of {}", known.join(", "))
            })
        };
        provider.kx_groups = groups.iter().map(group).collect::<Result<_, _>>()?;
    }
    Ok(Arc::new(provider))
}

impl Certificates {
    /// The error is a line with the place of the key that is wrong.
    pub(super) fn new(tls: &ListenerTls, provider: &CryptoProvider) -> Result<Self, String> {
        let mut by_name: ByName<Vec<_>> = ByName::default();
        let mut usual = Vec::new();
        let first = tls.certificates.first();
        for certificate in &tls.certificates {
            let certified = Arc::new(certified(certificate, provider)?);
            // Another kind of key for the same names stands in for the first where the client cannot check that.
            if first.is_some_and(|first| first.names == certificate.names) {
                usual.push(Arc::clone(&certified));
            }
            for name in &certificate.names {
                by_name.entry(name).push(Arc::clone(&certified));
            }
        }
        Ok(Self {
            by_name,
            usual,
            unknown_name: tls.unknown_name,
        })
    }

    /// Whether a client that asks for this name gets a certificate.
    pub(super) fn serves(&self, name: Option<&str>) -> bool {
        match (name, self.unknown_name) {
            (Some(name), UnknownName::Refuse) => self.named(name).is_some(),
            _ => true,
        }
    }

    /// Certificates for this name, or for all names with another first label.
    fn named(&self, name: &str) -> Option<&[Arc<CertifiedKey>]> {
        self.by_name.get(name).map(Vec::as_slice)
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| self.named(name));
        let candidates = named.unwrap_or(&self.usual);
        let schemes = hello.signature_schemes();
        let fitting = candidates
            .iter()
            .find(|candidate| candidate.key.choose_scheme(schemes).is_some());
        // None fits: rustls ends the handshake by what the first cannot do.
        fitting.or(candidates.first()).cloned()
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "certificates of {} names", self.by_name.len())
    }
}

/// Certificate with its key, if it is the certificate's. The error is a line with its place.
pub(super) fn certified(
    certificate: &Certificate,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, String> {
    let place = &certificate.key_place;
    let der = certificate.key.der.clone();
    let key = match certificate.key.form {
        KeyForm::Pkcs1 => PrivateKeyDer::Pkcs1(PrivatePkcs1KeyDer::from(der)),
        KeyForm::Pkcs8 => PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der)),
        KeyForm::Sec1 => PrivateKeyDer::Sec1(PrivateSec1KeyDer::from(der)),
    };
    let key = provider.key_provider.load_private_key(key);
    let key = key.map_err(|error| format!("{place}: key: {error}"))?;
    let chain = certificate.chain.iter().cloned();
    let chain = chain.map(CertificateDer::from).collect();
    let certified = CertifiedKey::new(chain, key);
    match certified.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {
            Ok(certified)
        }
        Err(rustls::Error::InconsistentKeys(_)) => Err(format!(
            "{place}: key: it is not the key of the certificate"
        )),
        Err(error) => Err(format!("{place}: certificate: {error}")),
    }
}
