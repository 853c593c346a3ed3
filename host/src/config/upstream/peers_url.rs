//! `peers_url` of an upstream.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::Uri;
use http::uri::{Authority, Scheme};

use super::super::table::{Table, Value};
use super::super::tree::NodeKind;
use super::super::{Der, PeersUrl, Secret, UpstreamTls};
use super::health::fields;
use super::peers::is_peer_address;
use super::tls;

/// A URL, or a table with one.
pub(super) fn peers_url(value: Value<'_>, system_roots: &mut Vec<Der>) -> Option<PeersUrl> {
    let mut table = match value.kind() {
        NodeKind::Table(_) => Some(value.table()?),
        NodeKind::Text(_)
        | NodeKind::Integer(_)
        | NodeKind::Float(_)
        | NodeKind::Boolean(_)
        | NodeKind::Datetime(_)
        | NodeKind::List(_)
        | NodeKind::Refused => None,
    };
    let located = match &mut table {
        None => located(value),
        Some(table) => table.required("url", URL_RULE, located),
    };
    let is_https = located.as_ref().is_some_and(|located| located.is_https);
    let given_tls = table.as_mut().and_then(|table| table.get("tls"));
    let tls = match given_tls {
        Some(value) if located.is_some() && !is_https => {
            value.expected("none beside an http URL: `url` is to begin with https://")
        }
        Some(given) => tls::tls(given, system_roots),
        None if is_https => tls::default(value, system_roots),
        None => None,
    };
    let mut or =
        |key: &'static str, default: Duration, range: RangeInclusive<Duration>| match &mut table {
            Some(table) => table.or(key, default, |value| value.duration(range)),
            None => default,
        };
    let interval = or("interval", Duration::from_secs(10), INTERVAL);
    let timeout = or("timeout", Duration::from_secs(5), WAIT);
    let headers = table.as_mut().map(headers);
    if let Some(table) = table {
        table.finish();
    }
    let located = located?;
    let needs_roots = tls.as_ref().is_some_and(UpstreamTls::needs_system_roots);
    Some(PeersUrl {
        url: located.url,
        authority: located.authority,
        target: located.target,
        interval,
        timeout,
        headers: headers.unwrap_or_default(),
        tls,
        system_roots: match needs_roots {
            true => system_roots.clone(),
            false => Vec::new(),
        },
    })
}

struct Located {
    url: String,
    authority: String,
    target: String,
    is_https: bool,
}

fn located(value: Value<'_>) -> Option<Located> {
    let text = value.plain_text(URL_RULE)?;
    // The parsed URL knows nothing of a fragment.
    if text.contains('#') {
        return value.expected("a URL without a fragment, which no server would see");
    }
    let parsed = text.parse::<Uri>().ok();
    let has_user = |uri: &Uri| uri.authority().is_some_and(|it| it.as_str().contains('@'));
    if parsed.as_ref().is_some_and(has_user) {
        // Without the value, of which the password is a part.
        return value.refuse(format_args!(
            "{}: expected a URL without a user: a password goes in headers = {{ authorization = \"Basic …\" }}",
            value.key()
        ));
    }
    let parts = parsed.and_then(|uri| parts(text, &uri));
    parts.or_else(|| value.expected(URL_RULE))
}

fn parts(text: &str, uri: &Uri) -> Option<Located> {
    let scheme = uri.scheme()?;
    let is_https = *scheme == Scheme::HTTPS;
    if !is_https && *scheme != Scheme::HTTP {
        return None;
    }
    let authority = authority(uri.authority()?, if is_https { 443 } else { 80 })?;
    Some(Located {
        url: match text.split_once('?') {
            Some((shown, _)) => format!("{shown}?..."),
            None => text.to_owned(),
        },
        authority,
        target: match uri.path_and_query()?.as_str() {
            query if query.starts_with('?') => format!("/{query}"),
            target => target.to_owned(),
        },
        is_https,
    })
}

/// `HOST:PORT`.
fn authority(authority: &Authority, default_port: u16) -> Option<String> {
    let host = authority.host().to_ascii_lowercase();
    let port = match authority.port_u16() {
        Some(port) => port,
        None if authority.as_str().len() == host.len() => default_port,
        // A colon without a port, or with one that is none.
        None => return None,
    };
    let text = format!("{host}:{port}");
    is_peer_address(&text).then_some(text)
}

/// Fields are secrets: messages do not show their values.
fn headers(table: &mut Table<'_>) -> Vec<(String, Secret)> {
    let fields = table.or("headers", Vec::new(), |value| fields(value, &OURS));
    let secret = |(name, text): (String, String)| (name, Secret(text.into_bytes()));
    fields.into_iter().map(secret).collect()
}

/// Fields that the gateway sets itself.
const OURS: [&str; 9] = [
    "accept-encoding",
    "connection",
    "content-length",
    "host",
    "if-modified-since",
    "if-none-match",
    "range",
    "te",
    "transfer-encoding",
];

const URL_RULE: &str = "a URL such as \"https://registry.internal/peers/app\": http or https, a host, and a port if it is another";
const INTERVAL: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
const WAIT: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(15);
