//! `[listeners.NAME.tls]`.

use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use super::acme_names;
use super::client_certificates::client_certificates;
use super::file::read_regular;
use super::sections::TIMEOUT;
use super::table::{Table, Value};
use super::tree::NodeKind;
use super::{
    Certificate, ClientCertificates, KeyForm, ListenerTls, PrivateKey, TlsHosts, TlsVersion,
    UnknownName,
};

/// `has_authority`: there is a section `[acme]`.
pub(super) fn tls(value: Value<'_>, has_authority: bool) -> Option<ListenerTls> {
    let mut table = value.table()?;
    let acme = table.get("acme");
    let certificates = |value: Value<'_>| match value.kind() {
        NodeKind::List(items) if !items.is_empty() => value.list(certificate),
        _ => value.expected(CERTIFICATES_RULE),
    };
    let certificates = match acme {
        Some(_) => table.optional("certificates", certificates),
        None => table.required("certificates", CERTIFICATES_OR_ACME, certificates),
    };
    let acme = acme.and_then(|value| acme_names::certificates(value, has_authority));
    let min_version = table.or("min_version", TlsVersion::V12, version);
    let client_certificates = table.or("client_certificates", None, client_certificates);
    let mut known = HashSet::new();
    let hosts = table.get("hosts").map(|value| {
        let tables = value.list(Value::table).unwrap_or_default();
        let usual = (min_version, client_certificates.as_ref());
        tables
            .into_iter()
            .filter_map(|table| hosts(table, usual, &mut known))
            .collect()
    });
    let tls = ListenerTls {
        certificates: certificates.unwrap_or_default(),
        acme: acme.unwrap_or_default(),
        unknown_name: table.or("unknown_name", UnknownName::First, |value| {
            value.choice(&UNKNOWN_NAMES)
        }),
        min_version,
        suites: table.or("suites", Vec::new(), names),
        groups: table.or("groups", Vec::new(), names),
        session_tickets: table.or("session_tickets", true, Value::boolean),
        handshake_timeout: table.or("handshake_timeout", Duration::from_secs(10), |value| {
            value.duration(TIMEOUT)
        }),
        client_certificates,
        hosts: hosts.unwrap_or_default(),
        key_log: table.optional("key_log", Value::placed_path),
        place: table.place_text(),
    };
    table.finish();
    Some(tls)
}

/// `[[listeners.NAME.tls.hosts]]`. `usual` is what it has where it says nothing, `known` the names of those before it.
fn hosts(
    mut table: Table<'_>,
    usual: (TlsVersion, Option<&ClientCertificates>),
    known: &mut HashSet<String>,
) -> Option<TlsHosts> {
    let names = table.required("names", NAMES_RULE, |value| {
        let names = value.set(server_name)?;
        if names.is_empty() {
            return value.expected(NAMES_RULE);
        }
        match names.iter().find(|name| !known.insert((*name).clone())) {
            Some(twice) => value.refuse(format_args!(
                "names: {twice} is in `hosts` twice: expected each name once"
            )),
            None => Some(names),
        }
    });
    let (usual_version, usual_clients) = usual;
    let min_version = table.or("min_version", usual_version, version);
    let clients = usual_clients.cloned();
    let clients = table.or("client_certificates", clients, client_certificates);
    table.finish();
    Some(TlsHosts {
        names: names?,
        min_version,
        client_certificates: clients,
    })
}

fn version(value: Value<'_>) -> Option<TlsVersion> {
    value.choice(&VERSIONS)
}

/// Suites and groups by name. The library says which there are, when the listener is built.
pub(super) fn names(value: Value<'_>) -> Option<Vec<String>> {
    let names = value.set(|item| Some(item.plain_text("a name")?.to_owned()))?;
    match names.is_empty() {
        true => value.expected("at least one name"),
        false => Some(names),
    }
}

fn certificate(value: Value<'_>) -> Option<Certificate> {
    let mut table = value.table()?;
    let chain = table.required("certificate", "a PEM file", chain);
    let mut key_place = String::new();
    let key = table.required("key", "a PEM file", |value| {
        key_place = value.place_text();
        key(value)
    });
    let names = table.optional("names", |value| {
        let names = value.set(server_name)?;
        match names.is_empty() {
            true => value.expected("at least one name"),
            false => Some(names),
        }
    });
    table.finish();
    let (chain, own_names) = chain?;
    Some(Certificate {
        names: names.unwrap_or(own_names),
        chain,
        key: key?,
        key_place,
    })
}

/// Chain in a PEM file, and the names that its first certificate is for.
pub(super) fn chain(value: Value<'_>) -> Option<(Vec<Vec<u8>>, Vec<String>)> {
    let (path, bytes) = read_pem(value, MAX_PEM_BYTES)?;
    let mut chain = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&bytes) {
        match certificate {
            Ok(certificate) => chain.push(certificate.as_ref().to_vec()),
            Err(error) => {
                return value.refuse(format_args!("certificate: {}: {error}", path.display()));
            }
        }
    }
    match names_of_chain(&chain) {
        Ok(names) => Some((chain, names)),
        Err(why) => value.refuse(format_args!("certificate: {}: {why}", path.display())),
    }
}

/// Names of the first certificate (DER), if each has signed the one before it, as far as their names say.
pub fn names_of_chain(chain: &[Vec<u8>]) -> Result<Vec<String>, String> {
    let mut names = None;
    let mut issuer = Vec::new();
    for (idx, der) in chain.iter().enumerate() {
        let number = idx + 1;
        let (_, certificate) = parse_x509_certificate(der)
            .map_err(|error| format!("certificate {number} cannot be read: {error}"))?;
        match &names {
            None => names = Some(names_of(&certificate)?),
            Some(_) if certificate.subject().as_raw() != issuer => {
                return Err(format!(
                    "certificate {number} is not the issuer of the one before it: expected the server's own first, then \
                     each certificate's issuer"
                ));
            }
            Some(_) => {}
        }
        issuer = certificate.issuer().as_raw().to_vec();
    }
    names.ok_or_else(|| "it has no certificate: expected PEM, BEGIN CERTIFICATE".to_owned())
}

fn names_of(certificate: &X509Certificate<'_>) -> Result<Vec<String>, String> {
    let alternatives = certificate
        .subject_alternative_name()
        .map_err(|error| format!("its subjectAltName cannot be read: {error}"))?;
    let alternatives = alternatives.map(|alternatives| &alternatives.value.general_names);
    let names = alternatives
        .into_iter()
        .flatten()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        });
    Ok(names.collect())
}

pub(super) fn key(value: Value<'_>) -> Option<PrivateKey> {
    let (path, bytes) = read_pem(value, MAX_PEM_BYTES)?;
    match private_key(&bytes) {
        Ok(key) => Some(key),
        Err(error) => value.refuse(format_args!("key: {}: {error}", path.display())),
    }
}

/// The first key in a PEM text.
pub fn private_key(pem: &[u8]) -> Result<PrivateKey, String> {
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|error| error.to_string())?;
    let form = match key {
        PrivateKeyDer::Pkcs1(_) => KeyForm::Pkcs1,
        PrivateKeyDer::Pkcs8(_) => KeyForm::Pkcs8,
        PrivateKeyDer::Sec1(_) => KeyForm::Sec1,
        _ => return Err("of a kind that is not known".to_owned()),
    };
    Ok(PrivateKey {
        form,
        der: key.secret_der().to_vec(),
    })
}

/// A file that the value names, with its path.
pub(super) fn read_pem(value: Value<'_>, limit_bytes: u64) -> Option<(PathBuf, Vec<u8>)> {
    let path = value.path()?;
    match read_regular(&path, limit_bytes) {
        Ok(bytes) => Some((path, bytes)),
        Err(error) => value.refuse(format_args!("{}: {}: {error}", value.key(), path.display())),
    }
}

/// `example.com`, `*.example.com`.
fn server_name(value: Value<'_>) -> Option<String> {
    let name = value.text_or(NAME_RULE)?.to_ascii_lowercase();
    let host = name.strip_prefix("*.").unwrap_or(&name);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    match host.len() <= 253 && host.split('.').all(is_label) {
        true => Some(name),
        false => value.expected(NAME_RULE),
    }
}

const CERTIFICATES_RULE: &str =
    "a list such as [{ certificate = \"site.pem\", key = \"site.key\" }]";

const CERTIFICATES_OR_ACME: &str = "a list such as [{ certificate = \"site.pem\", key = \"site.key\" }], or key \"acme\" with the names of one to order";

const NAMES_RULE: &str = "a list such as [\"example.com\", \"*.example.com\"]";

const NAME_RULE: &str = "a host name such as \"example.com\" or \"*.example.com\"";

const UNKNOWN_NAMES: [(&str, UnknownName); 2] = [
    ("first", UnknownName::First),
    ("refuse", UnknownName::Refuse),
];

pub(super) const VERSIONS: [(&str, TlsVersion); 2] =
    [("1.2", TlsVersion::V12), ("1.3", TlsVersion::V13)];

/// Longest PEM file.
const MAX_PEM_BYTES: u64 = 1 << 20;
