//! `[upstreams.NAME.tls]`.

use std::net::IpAddr;

use super::super::client_certificates::{authorities, revocation_lists};
use super::super::sections::is_host_name;
use super::super::table::{Table, Value};
use super::super::tls::{VERSIONS, chain, key, names};
use super::super::{Certificate, Der, TlsVersion, UpstreamTls};

pub(in super::super) fn tls(value: Value<'_>, system_roots: &mut Vec<Der>) -> Option<UpstreamTls> {
    let mut table = value.table()?;
    let tls = UpstreamTls {
        server_name: table.optional("server_name", server_name),
        verify: table.or("verify", true, Value::boolean),
        ca: table.or("ca", Vec::new(), authorities),
        crl: table.or("crl", Vec::new(), revocation_lists),
        certificate: own_certificate(value, &mut table),
        min_version: table.or("min_version", TlsVersion::V12, |value| {
            value.choice(&VERSIONS)
        }),
        suites: table.or("suites", Vec::new(), names),
        groups: table.or("groups", Vec::new(), names),
        place: table.place_text(),
    };
    if tls.needs_system_roots() && system_roots.is_empty() {
        *system_roots = roots_of_system(value)?;
    }
    table.finish();
    Some(tls)
}

/// TLS of which nothing is said. `value`: what it is for.
pub(in super::super) fn default(
    value: Value<'_>,
    system_roots: &mut Vec<Der>,
) -> Option<UpstreamTls> {
    if system_roots.is_empty() {
        *system_roots = roots_of_system(value)?;
    }
    Some(without_roots(value))
}

/// The same, for nobody who is connected to.
pub(in super::super) fn without_roots(value: Value<'_>) -> UpstreamTls {
    UpstreamTls {
        server_name: None,
        verify: true,
        ca: Vec::new(),
        crl: Vec::new(),
        certificate: None,
        min_version: TlsVersion::V12,
        suites: Vec::new(),
        groups: Vec::new(),
        place: value.place_text(),
    }
}

impl UpstreamTls {
    /// Whether certificates are checked, and by the authorities that the system trusts.
    pub fn needs_system_roots(&self) -> bool {
        self.verify && self.ca.is_empty()
    }
}

/// A host name without wildcards, or an IP address.
fn server_name(value: Value<'_>) -> Option<String> {
    let name = value.text_or(NAME_RULE)?;
    match is_host_name(name) || name.parse::<IpAddr>().is_ok() {
        true => Some(name.to_ascii_lowercase()),
        false => value.expected(NAME_RULE),
    }
}

/// `certificate` and `key`, both or none.
fn own_certificate(tls: Value<'_>, table: &mut Table<'_>) -> Option<Certificate> {
    let (given, given_key) = (table.get("certificate"), table.get("key"));
    let (given, given_key) = match (given, given_key) {
        (None, None) => return None,
        (Some(given), Some(given_key)) => (given, given_key),
        (Some(_), None) => return tls.refuse("missing key \"key\": expected a PEM file"),
        (None, Some(_)) => return tls.refuse("missing key \"certificate\": expected a PEM file"),
    };
    let (chain, key) = (chain(given), key(given_key));
    Some(Certificate {
        chain: chain?.0,
        key: key?,
        names: Vec::new(),
        key_place: given_key.place_text(),
    })
}

/// Certificates of the authorities that the system trusts. Without any, `tls` is refused.
pub(in super::super) fn roots_of_system(tls: Value<'_>) -> Option<Vec<Der>> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let why = found.errors.first();
        let why = why.map_or_else(String::new, |error| format!(" ({error})"));
        return tls.refuse(format_args!(
            "missing key \"ca\": the system has no authorities that it trusts{why}: expected a PEM file"
        ));
    }
    let certificates = found.certs.into_iter();
    Some(
        certificates
            .map(|certificate| Der(certificate.to_vec()))
            .collect(),
    )
}

const NAME_RULE: &str = "a host name such as \"example.com\", or an IP address";
