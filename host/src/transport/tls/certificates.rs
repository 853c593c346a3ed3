//! Certificates of a listener, by the names that clients ask for.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
};

use super::by_name::ByName;
use super::info::{group_name, suite_name};
use crate::config::{Certificate, KeyForm, ListenerTls, UnknownName};

/// Certificates by name. A handshake takes the lock for a look, and nobody holds it longer than to put another table in its place.
pub(super) struct Certificates {
    table: RwLock<Table>,
    unknown_name: UnknownName,
}

struct Table {
    /// Certificates of the listener in the order of the config, then those that are ordered.
    held: Vec<Held>,
    /// Certificates of a name in that order: the first that the client can check is taken. A name without any waits for the one that
    /// is ordered.
    by_name: ByName<Vec<Arc<CertifiedKey>>>,
    /// For clients that name no server, or one that nothing is for.
    usual: Vec<Arc<CertifiedKey>>,
}

/// Certificate of a listener, or the place of one that is ordered.
#[derive(Clone)]
struct Held {
    names: Vec<String>,
    /// Id of a certificate that is ordered ([`crate::config::AcmeCertificate::id`]).
    ordered: Option<String>,
    /// `None`: no certificate has come yet.
    certified: Option<Arc<CertifiedKey>>,
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
        let mut held = Vec::new();
        for certificate in &tls.certificates {
            held.push(Held {
                names: certificate.names.clone(),
                ordered: None,
                certified: Some(Arc::new(certified(certificate, provider)?)),
            });
        }
        held.extend(tls.acme.iter().map(|ordered| Held {
            names: ordered.names.clone(),
            ordered: Some(ordered.id()),
            certified: None,
        }));
        Ok(Self {
            table: RwLock::new(Table::new(held)),
            unknown_name: tls.unknown_name,
        })
    }

    /// Puts a certificate that was ordered into its place, where this listener has one for it. Handshakes from now on have it. The
    /// error is a line for a person.
    pub(super) fn take_ordered(
        &self,
        id: &str,
        certificate: &Certificate,
        provider: &CryptoProvider,
    ) -> Result<(), String> {
        let mut held = self.read().held.clone();
        let place = held
            .iter_mut()
            .find(|held| held.ordered.as_deref() == Some(id));
        if let Some(place) = place {
            place.certified = Some(Arc::new(certified(certificate, provider)?));
            let table = Table::new(held);
            *self.table.write().unwrap_or_else(PoisonError::into_inner) = table;
        }
        Ok(())
    }

    /// Whether a client that asks for this name gets a certificate.
    pub(super) fn serves(&self, name: Option<&str>) -> bool {
        let table = self.read();
        match name.and_then(|name| table.by_name.get(name)) {
            Some(named) => !named.is_empty(),
            None if name.is_some() && self.unknown_name == UnknownName::Refuse => false,
            None => !table.usual.is_empty(),
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Table> {
        // A table is whole before it is put there.
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn new(held: Vec<Held>) -> Self {
        let mut by_name: ByName<Vec<_>> = ByName::default();
        let mut usual = Vec::new();
        let first = held.iter().find(|held| held.certified.is_some());
        for one in &held {
            let Some(certified) = &one.certified else {
                continue;
            };
            // Another kind of key for the same names stands in for the first where the client cannot check that.
            if first.is_some_and(|first| first.names == one.names) {
                usual.push(Arc::clone(certified));
            }
            for name in &one.names {
                by_name.entry(name).push(Arc::clone(certified));
            }
        }
        for name in held.iter().flat_map(|held| &held.names) {
            // A name that a wildcard serves need not wait.
            if by_name.get(name).is_none() {
                by_name.entry(name);
            }
        }
        Self {
            held,
            by_name,
            usual,
        }
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let table = self.read();
        let named = hello.server_name().and_then(|name| table.by_name.get(name));
        let candidates = named.unwrap_or(&table.usual);
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
        write!(f, "certificates of {} names", self.read().by_name.len())
    }
}

/// Fails unless the key is the certificate's, with a line that has its place.
pub fn check_pair(certificate: &Certificate) -> Result<(), String> {
    certified(certificate, &aws_lc_rs::default_provider()).map(drop)
}

/// Certificate with its key, if it is the certificate's. The error is a line with its place.
pub(super) fn certified(
    certificate: &Certificate,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, String> {
    let place = &certificate.key_place;
    let certified = with_key(certificate, provider)?;
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

/// Certificate with its key, whatever it is.
pub(super) fn with_key(
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
    Ok(CertifiedKey::new(chain, key))
}
