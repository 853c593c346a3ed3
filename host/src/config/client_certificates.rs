//! `client_certificates` of `[listeners.NAME.tls]`.

use rustls_pki_types::pem::{Error, PemObject};
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::{parse_x509_certificate, parse_x509_crl};

use super::distinguished_name::distinguished_name;
use super::table::{Table, Value};
use super::tls::read_pem;
use super::tree::NodeKind;
use super::{ClientCertificates, Der, VerifyClient};

/// `Some(None)`: clients are asked for no certificate.
pub(super) fn client_certificates(value: Value<'_>) -> Option<Option<ClientCertificates>> {
    let mut table = value.table()?;
    let verify = table.or("verify", Some(VerifyClient::Required), |value| {
        value.choice(&VERIFY)
    });
    let authorities = match verify {
        Some(_) => table.required("ca", FILES_RULE, authorities),
        // The files of what is off may be missing.
        None => ignored(&mut table, "ca"),
    };
    let revocation_lists = match verify {
        Some(_) => table.or("crl", Vec::new(), revocation_lists),
        None => ignored(&mut table, "crl").unwrap_or_default(),
    };
    let place = table.place_text();
    table.finish();
    let Some(verify) = verify else {
        return Some(None);
    };
    Some(Some(ClientCertificates {
        verify,
        authorities: authorities?,
        revocation_lists,
        place,
    }))
}

fn ignored<T>(table: &mut Table<'_>, key: &'static str) -> Option<T> {
    table.get(key);
    None
}

/// Certificates of authorities, DER.
pub(super) fn authorities(value: Value<'_>) -> Option<Vec<Der>> {
    of_files(value, |value| {
        let authorities = blocks::<CertificateDer<'_>>(value, MAX_CA_BYTES, "CERTIFICATE")?;
        for (idx, der) in authorities.iter().enumerate() {
            if let Err(why) = check_authority(&der.0) {
                return value.refuse(format_args!("ca: certificate {} {why}", idx + 1));
            }
        }
        Some(authorities)
    })
}

/// A certificate that signs no other would have nobody verified, which looks as if it worked.
fn check_authority(der: &[u8]) -> Result<(), String> {
    let (_, certificate) =
        parse_x509_certificate(der).map_err(|error| format!("cannot be read: {error}"))?;
    let is_own_issuer = certificate.subject().as_raw() == certificate.issuer().as_raw();
    match certificate.is_ca() || is_own_issuer {
        true => Ok(()),
        false => Err(format!(
            "is no authority's ({}): expected those that have signed the certificates",
            distinguished_name(certificate.subject())
        )),
    }
}

pub(super) fn revocation_lists(value: Value<'_>) -> Option<Vec<Der>> {
    of_files(value, |value| {
        let lists = blocks::<CertificateRevocationListDer<'_>>(value, MAX_CRL_BYTES, "X509 CRL")?;
        for (idx, der) in lists.iter().enumerate() {
            if let Err(error) = parse_x509_crl(&der.0) {
                let number = idx + 1;
                return value.refuse(format_args!("crl: list {number} cannot be read: {error}"));
            }
        }
        Some(lists)
    })
}

/// Reads one file, or each of a list.
fn of_files<T>(value: Value<'_>, read: impl Fn(Value<'_>) -> Option<Vec<T>>) -> Option<Vec<T>> {
    match value.kind() {
        NodeKind::List(files) if files.is_empty() => value.expected(FILES_RULE),
        NodeKind::List(_) => Some(value.list(read)?.into_iter().flatten().collect()),
        _ => read(value),
    }
}

/// Blocks of a PEM file that begin with `BEGIN` and this label, DER; at least one.
fn blocks<T: PemObject + AsRef<[u8]>>(
    value: Value<'_>,
    limit_bytes: u64,
    label: &str,
) -> Option<Vec<Der>> {
    let (path, bytes) = read_pem(value, limit_bytes)?;
    let blocks = T::pem_slice_iter(&bytes).map(|block| Ok(Der(block?.as_ref().to_vec())));
    let (key, path) = (value.key(), path.display());
    match blocks.collect::<Result<Vec<_>, Error>>() {
        Ok(blocks) if blocks.is_empty() => value.refuse(format_args!(
            "{key}: {path}: it has none: expected PEM, BEGIN {label}"
        )),
        Ok(blocks) => Some(blocks),
        Err(error) => value.refuse(format_args!("{key}: {path}: {error}")),
    }
}

const VERIFY: [(&str, Option<VerifyClient>); 3] = [
    ("required", Some(VerifyClient::Required)),
    ("optional", Some(VerifyClient::Optional)),
    ("off", None),
];

const FILES_RULE: &str = "a PEM file or a list of them";

/// Longest file of authorities.
const MAX_CA_BYTES: u64 = 1 << 20;

/// Longest file of revocation lists, which all workers have in memory: a revoked certificate takes some 40 bytes.
const MAX_CRL_BYTES: u64 = 8 << 20;
