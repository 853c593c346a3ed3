//! `[upstreams.NAME.sticky]`.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::super::names::Named;
use super::super::sections::is_host_name;
use super::super::table::{Table, Value};
use super::super::tree::NodeKind;
use super::super::{Balance, Peer, SameSite, Secret, Sticky, StickyCookie};
use super::balance::request_text;
use super::cookie::refuse_dropped;
use super::sticky_learn::learn;

/// `peers`: of the upstream, some of which have a `route` where requests are bound by it. `has_lists`: there are peers in a file or at
/// a URL, which may have one, too. `zones`: those of the config.
pub(super) fn sticky(
    table: &mut Table<'_>,
    (peers, has_lists): (&[Peer], bool),
    policy: &Balance,
    zones: &Named<'_>,
) -> Option<Sticky> {
    let are_routed = peers.iter().any(|peer| peer.route.is_some());
    let is_others = matches!(policy, Balance::Target | Balance::Plugin(_));
    let sticky = table.get("sticky").and_then(|value| match is_others {
        true => value.refuse(
            "sticky is for policies of the gateway's own: expected none beside \"target\" or a plugin",
        ),
        false => read(value, are_routed || has_lists, zones),
    });
    match (&sticky, table.get("sticky")) {
        (Some(Sticky::Cookie(_) | Sticky::Learn(_)), _) | (None, None) if are_routed => {
            table.get("peers")?.refuse(
                "routes of peers without effect: expected sticky = { route = [\"$cookie_NAME\"] }",
            )
        }
        _ => sticky,
    }
}

fn read(value: Value<'_>, are_routed: bool, zones: &Named<'_>) -> Option<Sticky> {
    let mut table = value.table()?;
    let given = ["cookie", "route", "learn"].map(|key| table.get(key));
    let mut given = given.into_iter().flatten();
    if let (Some(first), Some(second)) = (given.next(), given.next()) {
        return second.refuse(format_args!(
            "{} beside {}: expected one of them, by which sessions are known",
            second.key(),
            first.key()
        ));
    }
    let sticky = match table.get("route") {
        Some(route) if !are_routed => route.refuse(
            "route without effect: expected peers with a route, such as { address = \"10.0.0.1:80\", route = \"a\" }",
        ),
        Some(route) => texts(route, request_text).map(Sticky::Route),
        None => match table.get("learn") {
            Some(texts) => learn(texts, &mut table, zones).map(Sticky::Learn),
            None => match ["lookup", "zone", "timeout"].iter().find_map(|key| table.get(key)) {
                Some(of_learn) => of_learn.refuse(format_args!(
                    "{} without learn: expected learn = [\"$upstream_cookie_NAME\"], by which sessions are known",
                    of_learn.key()
                )),
                None => cookie(&mut table).map(Sticky::Cookie),
            },
        },
    };
    table.finish();
    sticky
}

/// A text, or a list of them.
pub(super) fn texts(
    value: Value<'_>,
    read: impl Fn(Value<'_>) -> Option<String>,
) -> Option<Vec<String>> {
    match value.kind() {
        NodeKind::List(items) if items.is_empty() => value.expected("at least one text"),
        NodeKind::List(_) => value.list(read),
        _ => Some(vec![read(value)?]),
    }
}

fn cookie(table: &mut Table<'_>) -> Option<StickyCookie> {
    let name = table.required("cookie", COOKIE_RULE, cookie_name);
    let secrets = table.required("secret", SECRET_RULE, secrets);
    let cookie = StickyCookie {
        name: name.unwrap_or_default(),
        secrets: secrets.clone().unwrap_or_default(),
        path: table.or("path", "/".to_owned(), path),
        domain: table.optional("domain", domain),
        max_age: table.optional("max_age", |value| value.duration(AGES)),
        secure: table.or("secure", false, Value::boolean),
        http_only: table.or("http_only", true, Value::boolean),
        same_site: table.optional("same_site", |value| value.choice(&SAME_SITES)),
    };
    refuse_dropped(table, &cookie);
    secrets.map(|_| cookie)
}

/// A token (RFC 6265 §4.1.1).
fn cookie_name(value: Value<'_>) -> Option<String> {
    let name = value.text_or(NAME_RULE)?;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    match !name.is_empty() && name.bytes().all(is_token) {
        true => Some(name.to_owned()),
        false => value.expected(NAME_RULE),
    }
}

/// A text, or a list of them. Messages do not show them.
fn secrets(value: Value<'_>) -> Option<Vec<Secret>> {
    let secrets = match value.kind() {
        NodeKind::List(_) => value.list(secret)?,
        _ => vec![secret(value)?],
    };
    match secrets.is_empty() {
        true => value.refuse(format_args!("secret: expected {SECRET_RULE}")),
        false => Some(secrets),
    }
}

fn secret(value: Value<'_>) -> Option<Secret> {
    match value.kind() {
        NodeKind::Text(text) if text.trim().len() >= SECRET_BYTES => {
            Some(Secret(text.trim().as_bytes().to_vec()))
        }
        _ => value.refuse(format_args!("secret: expected {SECRET_RULE}")),
    }
}

fn path(value: Value<'_>) -> Option<String> {
    let path = value.plain_text(PATH_RULE)?;
    match path.starts_with('/') && path.is_ascii() && !path.contains(';') {
        true => Some(path.to_owned()),
        false => value.expected(PATH_RULE),
    }
}

fn domain(value: Value<'_>) -> Option<String> {
    let domain = value.text_or(DOMAIN_RULE)?;
    match is_host_name(domain.strip_prefix('.').unwrap_or(domain)) {
        true => Some(domain.to_owned()),
        false => value.expected(DOMAIN_RULE),
    }
}

const COOKIE_RULE: &str = "the name of a cookie, or \"route\" or \"learn\"";
const NAME_RULE: &str = "the name of a cookie, such as \"route\"";
const PATH_RULE: &str = "a path such as \"/\"";
const DOMAIN_RULE: &str = "a host name such as \"example.com\"";
const SECRET_RULE: &str =
    "at least 16 characters that nobody can guess, such as `openssl rand -hex 32` prints";
const SECRET_BYTES: usize = 16;
const AGES: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(10 * 365 * 24 * 3600);

const SAME_SITES: [(&str, SameSite); 3] = [
    ("lax", SameSite::Lax),
    ("strict", SameSite::Strict),
    ("none", SameSite::None),
];
