//! Facts of a certificate for an operator: who it is for, from when to when it is good, and its kind of key.

use x509_parser::parse_x509_certificate;
use x509_parser::public_key::PublicKey;

use super::Certificate;

/// Seconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub not_before: i64,
    pub not_after: i64,
}

impl Certificate {
    /// Time in which the server's own certificate is good.
    pub fn validity(&self) -> Option<Validity> {
        validity(self.chain.first()?)
    }

    /// Names that it is for, or the subject's where it is for none.
    pub fn title(&self) -> String {
        match self.names.is_empty() {
            true => "no name".to_owned(),
            false => self.names.join(", "),
        }
    }

    /// Length of an RSA key; `None` for keys of other kinds.
    pub(super) fn rsa_bits(&self) -> Option<usize> {
        let (_, certificate) = parse_x509_certificate(self.chain.first()?).ok()?;
        match certificate.public_key().parsed().ok()? {
            PublicKey::RSA(key) => Some(key.key_size()),
            _ => None,
        }
    }
}

pub(super) fn validity(der: &[u8]) -> Option<Validity> {
    let (_, certificate) = parse_x509_certificate(der).ok()?;
    let validity = certificate.validity();
    Some(Validity {
        not_before: validity.not_before.timestamp(),
        not_after: validity.not_after.timestamp(),
    })
}
