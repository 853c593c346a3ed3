//! Keys of `[listeners.NAME]` that say how HTTP is served.

use std::num::NonZeroU32;
use std::time::Duration;

use super::http2;
use super::names::Named;
use super::networks;
use super::plugin;
use super::sections::TIMEOUT;
use super::table::{Table, Value};
use super::{
    ClientFrom, FieldNames, ForwardedFor, Http2Settings, HttpSettings, Linger, Networks,
    NonAsciiTarget, PathCase, PathPolicy, Rate, RequestId, ServerField,
};

pub(super) fn settings(table: &mut Table<'_>, plugins: &Named<'_>) -> HttpSettings {
    let has_proxies = table.clone().get("trusted_proxies").is_some();
    HttpSettings {
        plugins: table.or("plugins", Vec::new(), |value| plugin::uses(value, plugins)),
        max_head_bytes: table.or("max_head", 32 << 10, |value| value.size(1 << 10..=1 << 20)),
        max_fields: table.or("max_fields", 1000, |value| value.integer(16..=10_000)),
        field_names: table.or("field_names", FieldNames::Strict, |value| {
            value.choice(&FIELD_NAMES)
        }),
        non_ascii_target: table.or("non_ascii_target", NonAsciiTarget::Encode, |value| {
            value.choice(&NON_ASCII_TARGETS)
        }),
        paths: table.or("paths", PathPolicy::Normal, path_policy),
        case: table.or("case", PathCase::Sensitive, |value| value.choice(&CASES)),
        max_body_bytes: table.or("max_body", 0, |value| value.size(0..=1 << 50)),
        head_timeout: table.or("head_timeout", Duration::from_secs(60), |value| {
            value.duration(TIMEOUT)
        }),
        body_timeout: table.or("body_timeout", Duration::from_secs(60), |value| {
            value.duration(TIMEOUT)
        }),
        send_timeout: table.or("send_timeout", Duration::from_secs(60), |value| {
            value.duration(TIMEOUT)
        }),
        idle_timeout: table.or("idle_timeout", Duration::from_secs(75), |value| {
            value.duration(TIMEOUT)
        }),
        half_close: table.or("half_close", Duration::from_secs(10), |value| {
            value.duration(Duration::ZERO..=Duration::from_secs(3600))
        }),
        body_rate: table.or("body_rate", BODY_RATE, |value| rate(value, BODY_RATE)),
        send_rate: table.or("send_rate", SEND_RATE, |value| rate(value, SEND_RATE)),
        linger: table.or("linger", LINGER, linger),
        max_requests: table.or("max_requests", None, |value| {
            Some(NonZeroU32::new(value.integer(0..=u32::MAX.into())?))
        }),
        max_age: table.or("max_age", None, max_age),
        trusted_proxies: table.or("trusted_proxies", Networks::default(), networks::networks),
        client_from: table.or("client_from", ClientFrom::XForwardedFor, |value| {
            client_from(value, has_proxies)
        }),
        x_forwarded_for: table.or("x_forwarded_for", ForwardedFor::Append, |value| {
            value.choice(&FORWARDED_FOR)
        }),
        request_id: table.or("request_id", RequestId::None, |value| {
            request_id(value, has_proxies)
        }),
        alt_svc: table.optional("alt_svc", alt_svc),
        via: table.or("via", true, Value::boolean),
        server: table.or("server", ServerField::Keep, server),
        http2: table.or("http2", Some(Http2Settings::default()), http2::http2),
    }
}

/// Path policy of a listener or a route.
pub(super) fn path_policy(value: Value<'_>) -> Option<PathPolicy> {
    value.choice(&PATH_POLICIES)
}

fn rate(value: Value<'_>, usual: Rate) -> Option<Rate> {
    let mut table = value.table()?;
    let rate = Rate {
        min: table.or("min", usual.min, |value| value.size(0..=1 << 30)),
        after: table.or("after", usual.after, |value| {
            value.duration(Duration::from_secs(1)..=Duration::from_secs(3600))
        }),
    };
    table.finish();
    Some(rate)
}

fn linger(value: Value<'_>) -> Option<Linger> {
    let mut table = value.table()?;
    let linger = Linger {
        bytes: table.or("bytes", LINGER.bytes, |value| value.size(0..=1 << 30)),
        time: table.or("time", LINGER.time, |value| {
            value.duration(Duration::ZERO..=Duration::from_secs(3600))
        }),
    };
    table.finish();
    Some(linger)
}

fn client_from(value: Value<'_>, has_proxies: bool) -> Option<ClientFrom> {
    match has_proxies {
        true => value.choice(&CLIENT_FROM),
        false => {
            value.refuse("client_from is for listeners with trusted_proxies: expected none here")
        }
    }
}

fn request_id(value: Value<'_>, has_proxies: bool) -> Option<RequestId> {
    match value.choice(&REQUEST_IDS)? {
        RequestId::Keep if !has_proxies => {
            value.expected("\"none\" or \"make\" without trusted_proxies")
        }
        choice => Some(choice),
    }
}

/// `None` for 0.
fn max_age(value: Value<'_>) -> Option<Option<Duration>> {
    let age = value.duration(Duration::ZERO..=*TIMEOUT.end())?;
    if age.is_zero() {
        Some(None)
    } else if age < Duration::from_secs(1) {
        value.expected("\"0s\" for none, or 1 s to 30 days")
    } else {
        Some(Some(age))
    }
}

fn alt_svc(value: Value<'_>) -> Option<String> {
    let text = value.plain_text(ALT_SVC_RULE)?;
    match text.is_ascii() {
        true => Some(text.to_owned()),
        false => value.expected(ALT_SVC_RULE),
    }
}

fn server(value: Value<'_>) -> Option<ServerField> {
    match value.plain_text(SERVER_RULE)? {
        "keep" => Some(ServerField::Keep),
        "remove" => Some(ServerField::Remove),
        text if text.is_ascii() => Some(ServerField::Fixed(text.to_owned())),
        _ => value.expected(SERVER_RULE),
    }
}

const PATH_POLICIES: [(&str, PathPolicy); 3] = [
    ("normal", PathPolicy::Normal),
    ("strict", PathPolicy::Strict),
    ("as_sent", PathPolicy::AsSent),
];

const CASES: [(&str, PathCase); 2] = [
    ("sensitive", PathCase::Sensitive),
    ("insensitive", PathCase::Insensitive),
];

const FIELD_NAMES: [(&str, FieldNames); 2] =
    [("strict", FieldNames::Strict), ("any", FieldNames::Any)];

const NON_ASCII_TARGETS: [(&str, NonAsciiTarget); 2] = [
    ("encode", NonAsciiTarget::Encode),
    ("refuse", NonAsciiTarget::Refuse),
];

const BODY_RATE: Rate = Rate {
    min: 500,
    after: Duration::from_secs(20),
};

const SEND_RATE: Rate = Rate {
    min: 240,
    after: Duration::from_secs(5),
};

const LINGER: Linger = Linger {
    bytes: 1 << 20,
    time: Duration::from_secs(5),
};

const CLIENT_FROM: [(&str, ClientFrom); 3] = [
    ("x-forwarded-for", ClientFrom::XForwardedFor),
    ("forwarded", ClientFrom::Forwarded),
    ("x-real-ip", ClientFrom::XRealIp),
];

const FORWARDED_FOR: [(&str, ForwardedFor); 2] = [
    ("append", ForwardedFor::Append),
    ("replace", ForwardedFor::Replace),
];

const REQUEST_IDS: [(&str, RequestId); 3] = [
    ("none", RequestId::None),
    ("make", RequestId::Make),
    ("keep", RequestId::Keep),
];

const ALT_SVC_RULE: &str = "a text in ASCII such as 'h3=\":443\"; ma=86400'";

const SERVER_RULE: &str = "\"keep\", \"remove\" or a text in ASCII";
