//! Checks of peers' certificates.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::CryptoProvider;
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, RootCertStore, SignatureScheme};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use x509_parser::parse_x509_certificate;
use x509_parser::time::ASN1Time;

use crate::config::{Der, UpstreamTls};

/// Verifier of an upstream's peers. `system`: authorities where the upstream names none. The error is for a line with the place.
pub(super) fn verifier(
    tls: &UpstreamTls,
    system: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ServerCertVerifier>, String> {
    if !tls.verify {
        return Ok(Arc::new(Unverified(Arc::clone(provider))));
    }
    let roots = match &tls.ca[..] {
        [] => Arc::clone(system),
        own => {
            let mut roots = RootCertStore::empty();
            for certificate in own {
                let added = roots.add(der(certificate));
                added.map_err(|error| format!("ca: {error}"))?;
            }
            Arc::new(roots)
        }
    };
    let crls = tls.crl.iter();
    let crls = crls.map(|crl| CertificateRevocationListDer::from(crl.0.clone()));
    let verifier = WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider))
        .with_crls(crls)
        // A list that is out of date says nothing of what was revoked since, as OpenSSL has it.
        .enforce_revocation_expiration()
        .build();
    Ok(Arc::new(Verified {
        by_authority: verifier.map_err(|error| error.to_string())?,
        own: tls.ca.clone(),
    }))
}

pub(super) fn der(certificate: &Der) -> CertificateDer<'_> {
    CertificateDer::from(&certificate.0[..])
}

/// Takes certificates that an authority vouches for, and those that are named themselves.
#[derive(Debug)]
struct Verified {
    by_authority: Arc<WebPkiServerVerifier>,
    /// Certificates of `ca`. A peer that has one of them needs nobody to vouch for it: one that signs itself, as `openssl req -x509`
    /// makes it, would not be taken as a server's otherwise, since it is an authority's.
    own: Vec<Der>,
}

impl Verified {
    fn is_own(&self, certificate: &CertificateDer<'_>) -> bool {
        self.own.iter().any(|own| own.0 == certificate.as_ref())
    }
}

impl ServerCertVerifier for Verified {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if !self.is_own(certificate) {
            let by_authority = &self.by_authority;
            return by_authority.verify_server_cert(certificate, chain, name, ocsp, now);
        }
        check_dates(certificate, now)?;
        verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let by_authority = &self.by_authority;
        by_authority.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let by_authority = &self.by_authority;
        by_authority.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_authority.supported_verify_schemes()
    }
}

fn check_dates(certificate: &CertificateDer<'_>, time: UnixTime) -> Result<(), CertificateError> {
    let (_, certificate) =
        parse_x509_certificate(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let since_epoch = |time: ASN1Time| {
        let seconds = u64::try_from(time.timestamp()).unwrap_or(0);
        UnixTime::since_unix_epoch(Duration::from_secs(seconds))
    };
    let validity = certificate.validity();
    let [not_before, not_after] = [validity.not_before, validity.not_after].map(since_epoch);
    if time < not_before {
        Err(CertificateError::NotValidYetContext { time, not_before })
    } else if time > not_after {
        Err(CertificateError::ExpiredContext { time, not_after })
    } else {
        Ok(())
    }
}

/// Takes whatever certificate a peer has, for `verify = false`. Signatures prove only that the peer has the key of a
/// certificate that nobody has looked at, so that they are not checked either.
#[derive(Debug)]
struct Unverified(Arc<CryptoProvider>);

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
