//! `tls.acme` of listeners.

use std::collections::HashSet;
use std::net::IpAddr;

use super::AcmeCertificate;
use super::sections::is_host_name;
use super::table::Value;
use super::tree::{Node, NodeKind};

/// Certificates to be ordered: a list of names is one, a list of lists one each.
pub(super) fn certificates(value: Value<'_>, has_authority: bool) -> Option<Vec<AcmeCertificate>> {
    if !has_authority {
        return value.refuse(
            "acme: there is no authority to order from: expected a section [acme] with agree_to_terms = true",
        );
    }
    let NodeKind::List(items) = value.kind() else {
        return value.expected(NAMES_RULE);
    };
    let is_list = |node: &Node| matches!(node.kind, NodeKind::List(_));
    let certificates = match items.first() {
        None => return value.expected(NAMES_RULE),
        Some(first) if is_list(first) => value.list(certificate)?,
        Some(_) => vec![certificate(value)?],
    };
    let mut known = HashSet::new();
    for name in certificates.iter().flat_map(|it| &it.names) {
        if !known.insert(name) {
            return value.refuse(format_args!(
                "acme: {name} is in two certificates: expected each name once"
            ));
        }
    }
    Some(certificates)
}

fn certificate(value: Value<'_>) -> Option<AcmeCertificate> {
    match value.kind() {
        NodeKind::List(items) if (1..=MAX_NAMES).contains(&items.len()) => {}
        _ => return value.expected(NAMES_RULE),
    }
    let names = value.set(name)?;
    Some(AcmeCertificate { names })
}

/// `example.com`. Wildcards need a challenge by DNS.
fn name(value: Value<'_>) -> Option<String> {
    let name = value.text_or(NAME_RULE)?.to_ascii_lowercase();
    if name.starts_with("*.") {
        return value.refuse(format_args!(
            "acme \"{name}\": authorities want a challenge by DNS for wildcards, which is not supported: expected {NAME_RULE}"
        ));
    }
    if name == "localhost" || name.ends_with(".localhost") {
        return value.refuse(format_args!(
            "acme \"{name}\": it is another machine for everyone, and no authority vouches for it: expected {NAME_RULE}"
        ));
    }
    let is_address = name.parse::<IpAddr>().is_ok();
    match is_host_name(&name) && !is_address {
        true => Some(name),
        false => value.expected(NAME_RULE),
    }
}

/// Names that one certificate may have (Let's Encrypt's limit).
const MAX_NAMES: usize = 100;

const NAMES_RULE: &str =
    "a list of 1 to 100 names such as [\"example.com\", \"www.example.com\"], or of such lists";

const NAME_RULE: &str = "a host name such as \"example.com\"";
