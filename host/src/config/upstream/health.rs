//! `[upstreams.NAME.passive]` and `[upstreams.NAME.check]`.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

use super::super::sections::{TIMEOUT, is_host_name};
use super::super::statuses::statuses;
use super::super::table::{Table, Value};
use super::super::tree::NodeKind;
use super::super::{
    CheckKind, CheckStart, HealthCheck, HttpCheck, Passive, StatusSet, SuccessRate,
};
use super::peers::is_peer_address;

pub(super) fn passive(value: Value<'_>) -> Option<Passive> {
    let mut table = value.table()?;
    let default = Passive::default();
    let failures = table.or("failures", default.failures, |value| {
        value.integer(0..=1000)
    });
    let ejection = table.or("ejection", default.ejection, |value| {
        value.duration(TIMEOUT)
    });
    let passive = Passive {
        failures,
        statuses: table.or("statuses", StatusSet::NONE, statuses),
        ejection,
        max_ejection: table.or(
            "max_ejection",
            default.max_ejection.max(ejection),
            |value| value.duration(ejection..=*TIMEOUT.end()),
        ),
        max_ejected: table.or("max_ejected", default.max_ejected, |value| {
            number(value, 0.0..=1.0)
        }),
        success_rate: table.optional("success_rate", success_rate),
    };
    table.finish();
    Some(passive)
}

fn success_rate(value: Value<'_>) -> Option<SuccessRate> {
    let mut table = value.table()?;
    let rate = SuccessRate {
        interval: table.or("interval", Duration::from_secs(10), |value| {
            value.duration(Duration::from_secs(1)..=Duration::from_secs(3600))
        }),
        requests: table.or("requests", 100, |value| value.integer(1..=1_000_000)),
        peers: table.or("peers", 5, |value| value.integer(2..=1000)),
        deviations: table.or("deviations", 1.9, |value| number(value, 0.1..=10.0)),
        at_least: table.or("at_least", 0.0, |value| number(value, 0.0..=1.0)),
    };
    table.finish();
    Some(rate)
}

/// `host`: text that peers get as `Host`, where the upstream has one.
pub(super) fn check(value: Value<'_>, has_http2: bool) -> Option<HealthCheck> {
    let mut table = value.table()?;
    let kind = table.or("kind", "http", |value| {
        value.choice(&[("http", "http"), ("tcp", "tcp"), ("grpc", "grpc")])
    });
    let kind = match kind {
        "tcp" => CheckKind::Tcp,
        "grpc" => grpc(value, &mut table, has_http2)?,
        _ => CheckKind::Http(http(&mut table)),
    };
    let interval = table.or("interval", Duration::from_secs(5), |value| {
        value.duration(INTERVAL)
    });
    let of_interval = |table: &mut Table<'_>, key, default| {
        table.or(key, default, |value| value.duration(INTERVAL))
    };
    let check = HealthCheck {
        kind,
        interval,
        fast_interval: of_interval(
            &mut table,
            "fast_interval",
            (interval / 5).max(*INTERVAL.start()),
        ),
        down_interval: of_interval(&mut table, "down_interval", interval),
        timeout: table.or("timeout", Duration::from_secs(2).min(interval), |value| {
            value.duration(*TIMEOUT.start()..=interval)
        }),
        rise: table.or("rise", 2, |value| value.integer(1..=100)),
        fall: table.or("fall", 3, |value| value.integer(1..=100)),
        jitter: table.or("jitter", 0.1, |value| number(value, 0.0..=0.5)),
        start: table.or("start", CheckStart::Optimistic, |value| {
            value.choice(&STARTS)
        }),
        port: table.optional("port", |value| value.integer(1..=65535)),
    };
    table.finish();
    Some(check)
}

fn grpc(value: Value<'_>, table: &mut Table<'_>, has_http2: bool) -> Option<CheckKind> {
    if !has_http2 {
        return value.refuse(
            "check: kind \"grpc\": expected `protocol` \"http2\" or \"auto\" of the upstream",
        );
    }
    let service = table.or("service", String::new(), |value| {
        Some(value.text()?.to_owned())
    });
    Some(CheckKind::Grpc { service })
}

fn http(table: &mut Table<'_>) -> HttpCheck {
    let ok = StatusSet::from_iter([200..=399]);
    HttpCheck {
        method: table.or("method", "GET".to_owned(), method),
        path: table.or("path", "/".to_owned(), path),
        host: table.optional("host", host),
        headers: table.or("headers", Vec::new(), |value| fields(value, &FRAMING)),
        statuses: table.or("statuses", ok, passing_statuses),
        expect_headers: table.or("expect_headers", Vec::new(), |value| fields(value, &[])),
        expect_body: table.optional("expect_body", |value| match value.text()? {
            "" => value.expected("a text that is not empty"),
            text => Some(text.to_owned()),
        }),
    }
}

/// Statuses of a peer that is well, at least one.
fn passing_statuses(value: Value<'_>) -> Option<StatusSet> {
    match value.kind() {
        NodeKind::List(items) if items.is_empty() => value.refuse(
            "statuses is empty, so that no peer could pass a check: expected at least one, such as \"200-399\"",
        ),
        _ => statuses(value),
    }
}

fn method(value: Value<'_>) -> Option<String> {
    match Method::from_bytes(value.text()?.as_bytes()) {
        Ok(method) if method != Method::CONNECT => Some(method.to_string()),
        Ok(_) | Err(_) => value.expected("a method such as \"GET\" or \"HEAD\""),
    }
}

fn path(value: Value<'_>) -> Option<String> {
    let text = value.text()?;
    let is_target = text
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'#');
    match text.starts_with('/') && is_target {
        true => Some(text.to_owned()),
        false => value.expected("a path that begins with /, maybe with a query"),
    }
}

fn host(value: Value<'_>) -> Option<String> {
    let text = value.text()?;
    match is_host_name(text) || is_peer_address(text) {
        true => Some(text.to_owned()),
        false => value.expected("a host such as \"app.internal\""),
    }
}

/// Fields of a head, but for these.
pub(super) fn fields(value: Value<'_>, but: &[&str]) -> Option<Vec<(String, String)>> {
    let fields: Vec<_> = value
        .table()?
        .values()
        .map(|value| field(value, but))
        .collect();
    fields.into_iter().collect()
}

fn field(value: Value<'_>, but: &[&str]) -> Option<(String, String)> {
    let name = match HeaderName::from_bytes(value.key().as_bytes()) {
        Ok(name) if !but.contains(&name.as_str()) => name,
        Ok(_) | Err(_) => {
            let what = format_args!("header {:?}: expected a field's name", value.key());
            value.map().refuse(value.key_place(), what);
            return None;
        }
    };
    let text = value.text()?;
    match HeaderValue::from_str(text) {
        Ok(_) => Some((name.as_str().to_owned(), text.to_owned())),
        Err(_) => value.expected("a field's value"),
    }
}

/// Fields that the gateway sets itself.
const FRAMING: [&str; 5] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "te",
];

/// A number of this range.
pub(in super::super) fn number(value: Value<'_>, range: RangeInclusive<f64>) -> Option<f64> {
    let number = match value.kind() {
        NodeKind::Float(number) => number.unwrap_or(f64::NAN),
        // Config numbers are small.
        NodeKind::Integer(number) => number.map_or(f64::NAN, |number| number as f64),
        NodeKind::Boolean(_)
        | NodeKind::Datetime(_)
        | NodeKind::Text(_)
        | NodeKind::List(_)
        | NodeKind::Table(_)
        | NodeKind::Refused => f64::NAN,
    };
    match range.contains(&number) {
        true => Some(number),
        false => value.expected(format_args!("{} to {}", range.start(), range.end())),
    }
}

const STARTS: [(&str, CheckStart); 2] = [
    ("optimistic", CheckStart::Optimistic),
    ("mandatory", CheckStart::Mandatory),
];

const INTERVAL: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(3600);
