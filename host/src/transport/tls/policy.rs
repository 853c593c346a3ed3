//! Policies of handshakes: versions, and certificates that clients are asked for.

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use sha2::{Digest, Sha256};

use super::TicketChain;
use super::by_name::ByName;
use super::certificates::Certificates;
use super::key_log::KeyLogFile;
use super::tickets::Tickets;
use crate::config::{ClientCertificates, Der, ListenerTls, TlsVersion, VerifyClient};

/// Policies of a listener's handshakes, by the name of the server that the client asks for.
pub(super) struct Policies {
    /// The first is the listener's own.
    policies: Vec<Policy>,
    /// Indices of the others.
    by_name: ByName<usize>,
}

pub(super) struct Policy {
    pub config: Arc<ServerConfig>,
    /// Index of the first policy whose clients are verified in the same way.
    verifies_as: usize,
}

impl Policies {
    pub(super) fn new(common: &Common<'_>, tls: &ListenerTls) -> Result<Self, String> {
        let own = (tls.min_version, tls.client_certificates.as_ref());
        let of_hosts = tls.hosts.iter();
        let of_hosts =
            of_hosts.map(|hosts| (hosts.min_version, hosts.client_certificates.as_ref()));
        let all: Vec<_> = [own].into_iter().chain(of_hosts).collect();
        let policies = all.iter().map(|(min_version, clients)| {
            let is_same = |(_, other): &(_, _)| ClientCertificates::are_same(*clients, *other);
            Ok(Policy {
                config: common.config(*min_version, *clients)?,
                verifies_as: all.iter().position(is_same).unwrap_or(0),
            })
        });
        let policies = policies.collect::<Result<_, String>>()?;
        let mut by_name = ByName::default();
        for (hosts, idx) in tls.hosts.iter().zip(1..) {
            for name in &hosts.names {
                *by_name.entry(name) = idx;
            }
        }
        Ok(Self { policies, by_name })
    }

    /// Policy of a server. `None`: the client has named none.
    pub(super) fn of(&self, name: Option<&str>) -> &Policy {
        let named = name.and_then(|name| self.by_name.get(name));
        &self.policies[named.copied().unwrap_or(0)]
    }

    /// Whether clients of both servers are verified in the same way.
    pub(super) fn verify_alike(&self, name: Option<&str>, other: Option<&str>) -> bool {
        self.of(name).verifies_as == self.of(other).verifies_as
    }
}

/// Things that all handshakes of a listener have.
pub(super) struct Common<'a> {
    pub listener: &'a str,
    pub provider: Arc<CryptoProvider>,
    pub certificates: Arc<Certificates>,
    /// `None`: there are no tickets.
    pub tickets: Option<&'a TicketChain>,
    /// Protocols that are spoken, the preferred one first.
    pub alpn: &'a [&'a [u8]],
    pub key_log: Option<Arc<KeyLogFile>>,
}

/// Versions from this one on.
pub(super) fn versions(least: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static V12: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
    static V13: [&SupportedProtocolVersion; 1] = [&version::TLS13];
    match least {
        TlsVersion::V12 => &V12,
        TlsVersion::V13 => &V13,
    }
}

impl Common<'_> {
    /// The error is for a line with the place of the listener, or has its own.
    fn config(
        &self,
        min_version: TlsVersion,
        clients: Option<&ClientCertificates>,
    ) -> Result<Arc<ServerConfig>, String> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(versions(min_version))
            .map_err(|error| error.to_string())?;
        let mut config = builder
            .with_client_cert_verifier(self.verifier(clients)?)
            .with_cert_resolver(Arc::clone(&self.certificates) as Arc<_>);
        config.alpn_protocols = self.alpn.iter().map(|it| it.to_vec()).collect();
        // A store in each worker would resume only what comes to the same one: tickets are opened by all.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        match self.tickets {
            Some(chain) => {
                let binding = ticket_binding(self.listener, clients);
                config.ticketer = Arc::new(Tickets::new(chain.clone(), &binding));
            }
            None => config.send_tls13_tickets = 0,
        }
        if let Some(key_log) = &self.key_log {
            config.key_log = Arc::clone(key_log) as Arc<_>;
        }
        Ok(Arc::new(config))
    }

    fn verifier(
        &self,
        clients: Option<&ClientCertificates>,
    ) -> Result<Arc<dyn ClientCertVerifier>, String> {
        let Some(clients) = clients else {
            return Ok(WebPkiClientVerifier::no_client_auth());
        };
        let mut roots = RootCertStore::empty();
        for der in &clients.authorities {
            let added = roots.add(CertificateDer::from(der.0.clone()));
            added.map_err(|error| format!("client_certificates: ca: {error}"))?;
        }
        let lists = clients.revocation_lists.iter().map(|der| der.0.clone());
        let lists = lists.map(CertificateRevocationListDer::from);
        let provider = Arc::clone(&self.provider);
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .with_crls(lists)
            // A list that nobody renews would otherwise keep letting in what was revoked since.
            .enforce_revocation_expiration();
        let builder = match clients.verify {
            VerifyClient::Required => builder,
            VerifyClient::Optional => builder.allow_unauthenticated(),
        };
        let built = builder.build();
        built.map_err(|error| format!("client_certificates: {error}"))
    }
}

/// Text that the keys of tickets are made of beside their secret. A session that is resumed has no certificate verified anew, so
/// what it was verified by is in it: a ticket from before other authorities, lists or demands opens nothing.
fn ticket_binding(listener: &str, clients: Option<&ClientCertificates>) -> Vec<u8> {
    let Some(clients) = clients else {
        return listener.as_bytes().to_vec();
    };
    let mut hash = Sha256::new();
    hash.update([match clients.verify {
        VerifyClient::Required => 1,
        VerifyClient::Optional => 2,
    }]);
    for list in [&clients.authorities, &clients.revocation_lists] {
        hash.update((list.len() as u64).to_be_bytes());
        for Der(der) in list {
            hash.update((der.len() as u64).to_be_bytes());
            hash.update(der);
        }
    }
    // A name has no zero byte, so that no listener's name is another's with a hash.
    [listener.as_bytes(), &[0], &hash.finalize()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_are_bound_to_all_that_verifies() {
        let clients = |verify, authorities: &[&[u8]], lists: &[&[u8]]| ClientCertificates {
            verify,
            authorities: authorities.iter().map(|der| Der(der.to_vec())).collect(),
            revocation_lists: lists.iter().map(|der| Der(der.to_vec())).collect(),
            place: String::new(),
        };
        let (required, optional) = (VerifyClient::Required, VerifyClient::Optional);
        let all = [
            None,
            Some(clients(required, &[b"a"], &[])),
            Some(clients(optional, &[b"a"], &[])),
            Some(clients(required, &[b"b"], &[])),
            Some(clients(required, &[b"a", b"b"], &[])),
            Some(clients(required, &[b"a"], &[b"b"])),
            Some(clients(required, &[b"ab"], &[])),
        ];
        let bindings = all.iter().flat_map(|clients| {
            ["x", "y"].map(|listener| ticket_binding(listener, clients.as_ref()))
        });
        let mut bindings: Vec<_> = bindings.collect();
        bindings.sort();
        let count = bindings.len();
        bindings.dedup();
        assert_eq!(bindings.len(), count);
        let moved = ClientCertificates {
            place: "elsewhere".to_owned(),
            ..clients(required, &[b"a"], &[])
        };
        assert_eq!(
            ticket_binding("x", Some(&moved)),
            ticket_binding("x", all[1].as_ref())
        );
    }
}
