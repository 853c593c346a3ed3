//! `cache` of `[[routes]]`.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::names::Named;
use super::statuses::read_statuses;
use super::table::{Table, Value};
use super::tree::NodeKind;
use super::variables::{SET_RULE, SetVariables, is_of_response, template_parts};
use super::{Route, RouteCache, StatusSet, TemplatePart};

/// Reads the name of a zone, or a table with one.
pub(super) fn cache(value: Value<'_>, zones: &Named<'_>) -> Option<RouteCache> {
    let NodeKind::Table(_) = value.kind() else {
        let zone = zones.reference_of_kind(value, "cache")?;
        return Some(RouteCache {
            zone,
            ..RouteCache::default()
        });
    };
    let default = RouteCache::default();
    let mut table = value.table()?;
    let zone = table.required("zone", "a zone of kind \"cache\"", |value| {
        zones.reference_of_kind(value, "cache")
    });
    let cache = RouteCache {
        zone: String::new(),
        key: table.optional("key", template),
        lifetimes: table.or("ttl", default.lifetimes, lifetimes),
        heuristic: table.or("heuristic", default.heuristic, |value| {
            value.number(0.0..=1.0)
        }),
        stale_while_revalidate: stale(&mut table, "stale_while_revalidate"),
        stale_if_error: stale(&mut table, "stale_if_error"),
        obey_client: table.or("obey_client", default.obey_client, Value::boolean),
        store_cookies: table.or("store_cookies", default.store_cookies, Value::boolean),
        ignore_origin: table.or("ignore_origin", default.ignore_origin, Value::boolean),
        bypass: table.or("bypass", default.bypass, |value| value.list(template)),
        no_store: table.or("no_store", default.no_store, |value| value.list(template)),
        wait: table.or("wait", default.wait, |value| value.duration(WAIT)),
        max_body_bytes: table.or("max_body", default.max_body_bytes, |value| {
            value.size(1..=MAX_BODY_BYTES)
        }),
        keep: table.or("keep", default.keep, |value| value.duration(KEEP)),
        status_field: table.or("status_field", default.status_field, Value::boolean),
    };
    if cache.ignore_origin && cache.lifetimes.is_empty() {
        return value.refuse(
            "ignore_origin without ttl: nothing would be stored: expected ttl = { 200 = \"10m\" }",
        );
    }
    table.finish();
    Some(RouteCache {
        zone: zone?,
        ..cache
    })
}

/// Refuses what the rest of the route makes senseless.
pub(super) fn check(table: &mut Table<'_>, route: &Route, has_plugins: bool) {
    let (Some(cache), Some(value)) = (&route.cache, table.get("cache")) else {
        return;
    };
    if route.upstreams.is_empty() {
        value.refuse::<()>(
            "cache without an upstream has no effect: expected upstream = \"NAME\" beside it",
        );
        return;
    }
    let set = SetVariables::new(route.set_variables(), has_plugins);
    for text in cache.texts() {
        if let Some(name) = set.missing(text) {
            value.refuse::<()>(format_args!("cache ${name}: {SET_RULE}"));
        }
    }
}

impl Default for RouteCache {
    fn default() -> Self {
        Self {
            zone: String::new(),
            key: None,
            lifetimes: Vec::new(),
            heuristic: 0.0,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            obey_client: false,
            store_cookies: false,
            ignore_origin: false,
            bypass: Vec::new(),
            no_store: Vec::new(),
            wait: Duration::from_secs(5),
            max_body_bytes: MAX_BODY_BYTES,
            keep: Duration::from_secs(600),
            status_field: true,
        }
    }
}

impl RouteCache {
    /// Texts with variables.
    fn texts(&self) -> impl Iterator<Item = &String> {
        let conditions = self.bypass.iter().chain(&self.no_store);
        self.key.iter().chain(conditions)
    }
}

/// Lifetimes by statuses, in the order of the file: `{ 200 = "10m", "404" = "1m", 5xx = "0s" }`.
fn lifetimes(value: Value<'_>) -> Option<Vec<(StatusSet, Duration)>> {
    let lifetime = |value: Value<'_>| {
        let Some(statuses) = read_statuses(value.key()) else {
            return value.refuse(format_args!(
                "ttl {}: expected a status such as 200, 5xx or 200-299 before it",
                value.key().escape_debug()
            ));
        };
        Some((StatusSet::from_iter([statuses]), value.duration(LIFETIME)?))
    };
    let all: Vec<_> = value.table()?.values().map(lifetime).collect();
    all.into_iter().collect()
}

fn stale(table: &mut Table<'_>, key: &'static str) -> Duration {
    table.or(key, Duration::ZERO, |value| value.duration(LIFETIME))
}

/// A text whose variables have their values when a request is routed.
fn template(value: Value<'_>) -> Option<String> {
    let text = value.text()?;
    let parts = match template_parts(text) {
        Ok(parts) => parts,
        Err(why) => return value.refuse(format_args!("{}: {why}", value.key())),
    };
    let is_late = |part: &TemplatePart<'_>| match part {
        TemplatePart::Variable(name) => is_of_response(name),
        TemplatePart::Literal(_) => false,
    };
    match parts.iter().any(is_late) {
        true => {
            value.expected("a text with variables of the request: the response is not there yet")
        }
        false => Some(text.to_owned()),
    }
}

const LIFETIME: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(10 * 365 * 86400);
const WAIT: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(600);
const KEEP: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30 * 86400);
/// Largest value of a zone, without room for a head.
const MAX_BODY_BYTES: u64 = (1 << 20) - (64 << 10);
