//! The gateway's own variables, made of the facts that a test has set; and those that a plugin says it computes.

use castling_abi::rules::{self, check, limits};
use castling_abi::variable::OwnVariable;
use castling_abi::{HeaderMap, Number, Property, Status, TlsFact};

use super::head;
use super::hook::may;
use super::world::{with_facts, with_world};
use crate::buffer::ShortBytes;
use crate::params::Params;

/// Value of the one with this name; `None` where the exchange has none.
pub(super) fn value(name: &[u8]) -> Option<Vec<u8>> {
    let name = std::str::from_utf8(name).ok()?;
    let own = OwnVariable::of(name)?;
    if let Some(property) = Property::from_name(name) {
        return text(|out| head::property_get(property, out));
    }
    if let Some(fact) = TlsFact::from_name(name) {
        return text(|out| head::tls_get(fact, out));
    }
    let rest = name.strip_prefix(own.name).unwrap_or_default();
    let header = |map, name: &str| {
        let name = name.replace('_', "-");
        text(|out| head::header_get(map, name.as_bytes(), out))
    };
    match own.name {
        "http_" | "request_header_" => header(HeaderMap::Request, rest),
        "sent_http_" | "response_header_" => header(HeaderMap::Response, rest),
        "request_id" => header(HeaderMap::Request, "x-request-id"),
        "arg_" => argument(rest),
        "cookie_" => {
            let is_it = |other: &[u8]| other.eq_ignore_ascii_case(rest.as_bytes());
            crate::header::cookie(is_it).map(|value| value.as_bytes().to_vec())
        }
        "request" => request_line(),
        "status" => {
            let status = with_facts(|facts| facts.response.as_ref().map(|(status, _)| *status));
            status.map(digits)
        }
        "tries" => Some(digits(number(Number::Tries).unwrap_or(0))),
        "body_bytes_sent" => Some(digits(number(Number::BodyBytesSent).unwrap_or(0))),
        "body_bytes_received" => Some(digits(number(Number::BodyBytesReceived).unwrap_or(0))),
        "duration" => Some(seconds(number(Number::DurationMicros).unwrap_or(0))),
        "upstream_duration" => number(Number::UpstreamMicros).map(seconds),
        "pid" => Some(digits(std::process::id())),
        _ => None,
    }
}

/// A test calls the `variable` hook by itself, with the name. What a plugin names in `configure` is counted from its first.
pub(crate) fn variable_declare(name: &[u8]) -> i32 {
    if !may(&rules::VARIABLE_DECLARE) {
        return rules::VARIABLE_DECLARE.refused as i32;
    }
    let is_own = std::str::from_utf8(name).is_ok_and(|name| OwnVariable::of(name).is_some());
    with_world(|world| {
        if !check::is_variable_name(name) || is_own || world.declared.iter().any(|it| it == name) {
            return Status::BadArgument as i32;
        }
        if world.declared.len() >= limits::COMPUTED_VARIABLES {
            return Status::Limit as i32;
        }
        world.declared.push(name.to_vec());
        i32::try_from(world.declared.len() - 1).unwrap_or(i32::MAX)
    })
}

fn text(read: impl Fn(&mut [u8]) -> i32) -> Option<Vec<u8>> {
    let bytes = ShortBytes::read(read).ok()?;
    Some(bytes.to_vec())
}

/// The first parameter of the query with this name, in any case.
fn argument(name: &str) -> Option<Vec<u8>> {
    let query = text(|out| head::property_get(Property::Query, out))?;
    let params = Params::parse(query);
    let mut named = params
        .iter()
        .filter(|(other, _)| other.eq_ignore_ascii_case(name));
    named.next().map(|(_, value)| value.as_bytes().to_vec())
}

fn request_line() -> Option<Vec<u8>> {
    let property = |property| text(|out| head::property_get(property, out));
    let mut line = property(Property::Method)?;
    line.push(b' ');
    line.extend(property(Property::Path)?);
    if let Some(query) = property(Property::Query) {
        line.push(b'?');
        line.extend(query);
    }
    line.push(b' ');
    line.extend(property(Property::Protocol)?);
    Some(line)
}

fn number(number: Number) -> Option<i64> {
    let value = head::number_get(number);
    (value >= 0).then_some(value)
}

fn digits(number: impl ToString) -> Vec<u8> {
    number.to_string().into_bytes()
}

/// With milliseconds, rounded.
fn seconds(micros: i64) -> Vec<u8> {
    let millis = (micros + 500) / 1000;
    format!("{}.{:03}", millis / 1000, millis % 1000).into_bytes()
}
