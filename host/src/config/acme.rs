//! `[acme]`.

use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use http::Uri;

use super::client_certificates::authorities;
use super::place::SourceMap;
use super::sections::MAIN_FILE;
use super::table::Value;
use super::tree::NodeKind;
use super::upstream::tls::roots_of_system;
use super::{Acme, AcmeKeyType, ChallengeKind, ExternalAccount, PlacedPath};

/// Let's Encrypt's, whose certificates all clients take.
const DIRECTORY: &str = "https://acme-v02.api.letsencrypt.org/directory";

pub(super) fn resolve(map: &SourceMap, section: Option<Value<'_>>) -> Option<Acme> {
    let section = section?;
    let mut table = section.table()?;
    table.required("agree_to_terms", AGREE_RULE, |value| match value.kind() {
        NodeKind::Boolean(true) => Some(()),
        _ => value.expected(AGREE_RULE),
    });
    let store = PlacedPath {
        path: map.resolve_path(MAIN_FILE, "acme"),
        place: table.place_text(),
    };
    let given_ca = table.get("ca");
    let roots = match given_ca {
        Some(value) => authorities(value),
        None => roots_of_system(section),
    };
    let acme = Acme {
        directory: table.or("directory", DIRECTORY.to_owned(), directory),
        contact: table.or("contact", Vec::new(), |value| match value.kind() {
            NodeKind::List(_) => value.set(contact),
            _ => Some(vec![contact(value)?]),
        }),
        store: table.or("store", store, Value::placed_path),
        challenges: table.or(
            "challenges",
            CHALLENGES.map(|(_, kind)| kind).to_vec(),
            challenges,
        ),
        roots: roots.unwrap_or_default(),
        profile: table.optional("profile", |value| {
            Some(value.plain_text("a profile's name")?.to_owned())
        }),
        external_account: table.optional("external_account", external_account),
        key_type: table.or("key_type", AcmeKeyType::P256, |value| {
            value.choice(&KEY_TYPES)
        }),
        place: table.place_text(),
    };
    table.finish();
    Some(acme)
}

fn directory(value: Value<'_>) -> Option<String> {
    let text = value.plain_text(DIRECTORY_RULE)?;
    let is_https = |uri: Uri| {
        let is_plain = |it: &str| !it.contains('@');
        uri.scheme_str() == Some("https") && uri.authority().is_some_and(|it| is_plain(it.as_str()))
    };
    // The parsed URL knows nothing of a fragment.
    match !text.contains('#') && text.parse().is_ok_and(is_https) {
        true => Some(text.to_owned()),
        false => value.expected(DIRECTORY_RULE),
    }
}

/// An address of mail, with its scheme or without, or a telephone's.
fn contact(value: Value<'_>) -> Option<String> {
    let text = value.plain_text(CONTACT_RULE)?;
    match text.split_once(':') {
        Some(("mailto", rest)) if rest.contains('@') => Some(text.to_owned()),
        Some(("tel", rest)) if !rest.is_empty() => Some(text.to_owned()),
        None if text.contains('@') => Some(format!("mailto:{text}")),
        Some(_) | None => value.expected(CONTACT_RULE),
    }
}

fn challenges(value: Value<'_>) -> Option<Vec<ChallengeKind>> {
    match value.kind() {
        NodeKind::List(items) if items.is_empty() => value.expected("at least one challenge"),
        _ => value.set(|item| item.choice(&CHALLENGES)),
    }
}

/// The key is base64url, as authorities show it. Messages do not show it.
fn external_account(value: Value<'_>) -> Option<ExternalAccount> {
    let mut table = value.table()?;
    let kid = table.required("kid", "the key's id", |value| {
        Some(value.plain_text("the key's id")?.to_owned())
    });
    let hmac_key = table.required("hmac_key", "the key in base64url", |value| {
        let NodeKind::Text(text) = value.kind() else {
            return value.refuse("hmac_key: expected the key in base64url");
        };
        let text = text.trim().trim_end_matches('=');
        match BASE64_URL_SAFE_NO_PAD.decode(text) {
            Ok(key) if !key.is_empty() => Some(key),
            Ok(_) | Err(_) => value.refuse("hmac_key: expected the key in base64url"),
        }
    });
    table.finish();
    Some(ExternalAccount {
        kid: kid?,
        hmac_key: hmac_key?,
    })
}

const AGREE_RULE: &str = "true, when you agree to the terms of service of the authority";

const DIRECTORY_RULE: &str = "a URL such as \"https://acme-v02.api.letsencrypt.org/directory\"";

const CONTACT_RULE: &str = "an address such as \"mailto:hostmaster@example.com\"";

/// The default order: nothing but the port that is to be encrypted is needed for the first.
const CHALLENGES: [(&str, ChallengeKind); 2] = [
    ("tls-alpn-01", ChallengeKind::TlsAlpn01),
    ("http-01", ChallengeKind::Http01),
];

const KEY_TYPES: [(&str, AcmeKeyType); 3] = [
    (AcmeKeyType::P256.name(), AcmeKeyType::P256),
    (AcmeKeyType::P384.name(), AcmeKeyType::P384),
    (AcmeKeyType::Rsa2048.name(), AcmeKeyType::Rsa2048),
];
