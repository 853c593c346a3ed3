//! A client's certificate, as plugins and logs see it.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::OnceLock;

use castling_abi::TlsFact;
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use crate::config::{add_escaped, distinguished_name};

/// A certificate that was verified. Its texts are made when the first is asked for.
pub(super) struct ClientCertificate {
    der: CertificateDer<'static>,
    texts: OnceLock<Box<Texts>>,
    encoded: OnceLock<String>,
}

/// Empty ones are not there.
#[derive(Default)]
struct Texts {
    subject: String,
    issuer: String,
    /// Upper-case digits, two a byte.
    serial: String,
    /// SHA-256, in lower-case digits.
    fingerprint: String,
    not_before: String,
    not_after: String,
    /// Names of the subject, by kind (subjectAltName). With commas in between.
    dns: String,
    ip: String,
    uri: String,
    email: String,
}

impl ClientCertificate {
    pub(super) fn new(der: CertificateDer<'static>) -> Self {
        Self {
            der,
            texts: OnceLock::new(),
            encoded: OnceLock::new(),
        }
    }

    /// `None`: the certificate does not say that, or it is no fact of a certificate.
    pub(super) fn fact(&self, fact: TlsFact) -> Option<&str> {
        let texts = || self.texts.get_or_init(|| Box::new(Texts::new(&self.der)));
        let text = match fact {
            TlsFact::ClientSubject => &texts().subject,
            TlsFact::ClientIssuer => &texts().issuer,
            TlsFact::ClientSerial => &texts().serial,
            TlsFact::ClientFingerprint => &texts().fingerprint,
            TlsFact::ClientNotBefore => &texts().not_before,
            TlsFact::ClientNotAfter => &texts().not_after,
            TlsFact::ClientDns => &texts().dns,
            TlsFact::ClientIp => &texts().ip,
            TlsFact::ClientUri => &texts().uri,
            TlsFact::ClientEmail => &texts().email,
            // RFC 9440 §2.1: a byte sequence (RFC 8941 §3.3.5).
            TlsFact::ClientCertificate => self
                .encoded
                .get_or_init(|| format!(":{}:", base64(&self.der))),
            TlsFact::Version
            | TlsFact::Cipher
            | TlsFact::Group
            | TlsFact::ServerName
            | TlsFact::Alpn
            | TlsFact::Resumed
            | TlsFact::Early
            | TlsFact::ClientVerify => return None,
        };
        (!text.is_empty()).then_some(text)
    }
}

impl Texts {
    fn new(der: &[u8]) -> Self {
        let mut texts = Self {
            fingerprint: digits(&Sha256::digest(der)).to_ascii_lowercase(),
            ..Self::default()
        };
        // A certificate that rustls has verified and this library cannot read has no more texts than that.
        if let Ok((_, certificate)) = parse_x509_certificate(der) {
            texts.read(&certificate);
        }
        texts
    }

    fn read(&mut self, certificate: &X509Certificate<'_>) {
        self.subject = distinguished_name(certificate.subject());
        self.issuer = distinguished_name(certificate.issuer());
        let serial = certificate.raw_serial();
        // A zero in front is for the sign.
        self.serial = digits(
            serial
                .strip_prefix(&[0])
                .filter(|rest| !rest.is_empty())
                .unwrap_or(serial),
        );
        let validity = certificate.validity();
        self.not_before = time(validity.not_before.timestamp());
        self.not_after = time(validity.not_after.timestamp());
        let names = certificate.subject_alternative_name();
        let Ok(Some(names)) = names else {
            return;
        };
        for name in &names.value.general_names {
            match name {
                GeneralName::DNSName(name) => add(&mut self.dns, name),
                GeneralName::URI(name) => add(&mut self.uri, name),
                GeneralName::RFC822Name(name) => add(&mut self.email, name),
                GeneralName::IPAddress(bytes) => {
                    if let Some(address) = address(bytes) {
                        add(&mut self.ip, &address.to_string());
                    }
                }
                GeneralName::OtherName(..)
                | GeneralName::X400Address(_)
                | GeneralName::DirectoryName(_)
                | GeneralName::EDIPartyName(_)
                | GeneralName::RegisteredID(_)
                | GeneralName::Invalid(..) => {}
            }
        }
    }
}

fn add(list: &mut String, name: &str) {
    if !list.is_empty() {
        list.push(',');
    }
    add_escaped(list, name, ",");
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02X}");
        text
    })
}

/// `2026-01-31T00:00:00Z`. Empty beyond the year 9999.
fn time(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| String::new(), |time| time.to_string())
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut three = [0, 0, 0, 0];
        three[1..=chunk.len()].copy_from_slice(chunk);
        let number = u32::from_be_bytes(three);
        for place in 0..4 {
            match place <= chunk.len() {
                true => {
                    let digit = number >> (18 - 6 * place) & 0x3f;
                    text.push(char::from(DIGITS[digit as usize]));
                }
                false => text.push('='),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_encoded_as_rfc_4648_has_it() {
        let cases = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, encoded) in cases {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
        assert_eq!(base64(&[0xfb, 0xff]), "+/8=");
    }

    #[test]
    fn what_is_no_certificate_has_its_fingerprint() {
        let certificate = ClientCertificate::new(CertificateDer::from(b"x".to_vec()));
        let fingerprint = certificate.fact(TlsFact::ClientFingerprint);
        assert_eq!(
            fingerprint,
            Some("2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881")
        );
        assert_eq!(certificate.fact(TlsFact::ClientSubject), None);
        assert_eq!(certificate.fact(TlsFact::ClientCertificate), Some(":eA==:"));
        assert_eq!(certificate.fact(TlsFact::Version), None);
    }

    #[test]
    fn times_and_addresses_are_text() {
        assert_eq!(time(0), "1970-01-01T00:00:00Z");
        assert_eq!(time(i64::MAX), "");
        assert_eq!(address(&[192, 0, 2, 1]).unwrap().to_string(), "192.0.2.1");
        assert_eq!(address(&[0; 16]).unwrap().to_string(), "::");
        assert_eq!(address(&[1]), None);
    }
}
