//! Challenges of an ACME authority over TLS (RFC 8737): it connects as a client that offers `acme-tls/1` and nothing else, and
//! wants a certificate that nobody else could show.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::by_name::ByName;
use super::certificates::with_key;
use crate::config::Certificate;

/// The one protocol that an authority offers (RFC 8737 §6.2).
const PROTOCOL: &[u8] = b"acme-tls/1";

/// Challenges that a listener answers now, by name.
#[derive(Default)]
pub(super) struct Challenges {
    /// Whether there are any.
    are_live: Cell<bool>,
    by_name: RefCell<ByName<Option<Arc<ServerConfig>>>>,
}

impl Challenges {
    /// Puts these in the place of those that there were. The error is a line for a person.
    pub(super) fn replace(
        &self,
        challenges: &[Certificate],
        provider: &Arc<CryptoProvider>,
    ) -> Result<(), String> {
        let mut by_name: ByName<Option<_>> = ByName::default();
        for certificate in challenges {
            let config = Arc::new(config(certificate, provider)?);
            for name in &certificate.names {
                *by_name.entry(name) = Some(Arc::clone(&config));
            }
        }
        self.are_live.set(!challenges.is_empty());
        self.by_name.replace(by_name);
        Ok(())
    }

    /// Config of the handshake that answers this hello, if it is an authority's.
    #[inline]
    pub(super) fn answer(&self, hello: &ClientHello<'_>) -> Option<Arc<ServerConfig>> {
        if !self.are_live.get() {
            return None;
        }
        let mut offered = hello.alpn()?;
        if offered.next() != Some(PROTOCOL) || offered.next().is_some() {
            return None;
        }
        let by_name = self.by_name.borrow();
        by_name.get(hello.server_name()?)?.clone()
    }
}

fn config(
    certificate: &Certificate,
    provider: &Arc<CryptoProvider>,
) -> Result<ServerConfig, String> {
    // The certificate is for the authority alone: it has a critical extension, for which rustls does not look whether the key fits.
    let one = Arc::new(One(Arc::new(with_key(certificate, provider)?)));
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_cert_resolver(one);
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Certificate of one challenge.
struct One(Arc<CertifiedKey>);

impl ResolvesServerCert for One {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

impl fmt::Debug for One {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("certificate of a challenge")
    }
}
