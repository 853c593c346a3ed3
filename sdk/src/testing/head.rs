//! Heads of the request and the response, facts of the exchange, variables, state, and an answer.

use castling_abi::rules::usage::Size;
use castling_abi::rules::{self, check, path};
use castling_abi::{HeaderMap, Number, Property, Status, TlsFact, header_list};

use super::computed;
use super::hook::{check_answer, is_at, may};
use super::host::hand_out;
use super::own_variables;
use super::world::{Facts, Part, Section, with_facts, with_world};

pub(super) fn property_get(property: Property, out: &mut [u8]) -> i32 {
    if !may(&rules::PROPERTY_GET) {
        return rules::PROPERTY_GET.refused as i32;
    }
    let chosen = super::upstream::chosen(property);
    with_facts(|facts| {
        if property == Property::RoutedPath {
            return match routed(facts) {
                Some(path) => hand_out(path.as_bytes(), out),
                None => Status::NotFound as i32,
            };
        }
        let text = match property {
            Property::Host => host(facts),
            _ => facts.properties[property as usize]
                .as_ref()
                .or(chosen.as_ref()),
        };
        match text {
            Some(text) => hand_out(text, out),
            None => Status::NotFound as i32,
        }
    })
}

/// The path as routes compare it.
fn routed(facts: &Facts) -> Option<String> {
    let path = facts.properties[Property::Path as usize].as_deref()?;
    let path = path::routed(str::from_utf8(path).ok()?)?;
    Some(path.into_owned())
}

/// The host is what the field says.
fn host(facts: &Facts) -> Option<&Vec<u8>> {
    let mut fields = facts.request_headers.iter();
    let field = fields.find(|(name, _)| check::is_host_field(name.as_bytes()));
    field.map(|(_, value)| value)
}

pub(super) fn property_set(property: Property, value: &[u8]) -> i32 {
    let place = match property {
        Property::ClientAddress => rules::SETS_CLIENT_ADDRESS,
        _ => rules::PROPERTY_SET.place,
    };
    if !is_at(place) {
        return rules::PROPERTY_SET.refused as i32;
    }
    if value.len() > with_world(|world| world.limits.head.bytes) {
        return Status::Limit as i32;
    }
    with_facts(|facts| match set(facts, property, value) {
        true => 0,
        false => Status::BadArgument as i32,
    })
}

fn set(facts: &mut Facts, property: Property, value: &[u8]) -> bool {
    let is_asterisk = facts.properties[Property::Path as usize].as_deref() == Some(b"*");
    let is_valid = match property {
        Property::Method => check::is_method(value) && !(is_asterisk && value != b"OPTIONS"),
        Property::Path => check::is_settable_path(value),
        Property::Query => value.is_empty() || !is_asterisk && check::is_query(value),
        Property::Host => check::is_host(value),
        Property::ClientAddress => {
            str::from_utf8(value).is_ok_and(|text| text.parse::<std::net::IpAddr>().is_ok())
        }
        Property::ClientPort
        | Property::Scheme
        | Property::Protocol
        | Property::Listener
        | Property::Route
        | Property::Upstream
        | Property::Peer
        | Property::ServerAddress
        | Property::ServerPort
        | Property::RoutedPath => false,
    };
    match property {
        _ if !is_valid => {}
        Property::Host => set_field(&mut facts.request_headers, b"host", value),
        Property::ClientAddress => {
            let address = str::from_utf8(value)
                .ok()
                .and_then(|text| text.parse().ok());
            let text = address.map(|address: std::net::IpAddr| address.to_string().into_bytes());
            facts.properties[property as usize] = text;
        }
        Property::Query if value.is_empty() => facts.properties[property as usize] = None,
        _ => facts.properties[property as usize] = Some(value.to_vec()),
    }
    is_valid
}

pub(super) fn number_get(number: Number) -> i64 {
    if !may(&rules::NUMBER_GET) {
        return rules::NUMBER_GET.refused as i64;
    }
    let unsaid = match number {
        Number::UpstreamMicros | Number::UpstreamStatus => Status::NotFound as i64,
        Number::BodyBytesSent
        | Number::BodyBytesReceived
        | Number::DurationMicros
        | Number::Tries => 0,
    };
    with_facts(|facts| facts.numbers[number as usize].unwrap_or(unsaid))
}

pub(super) fn tls_get(fact: TlsFact, out: &mut [u8]) -> i32 {
    with_facts(|facts| match &facts.tls[fact as usize] {
        Some(text) => hand_out(text.as_bytes(), out),
        None => Status::NotFound as i32,
    })
}

pub(super) fn header_get(map: HeaderMap, name: &[u8], out: &mut [u8]) -> i32 {
    in_section(map, |section| {
        match section.iter().find(|(candidate, _)| same(candidate, name)) {
            Some((_, value)) => hand_out(value, out),
            None => Status::NotFound as i32,
        }
    })
}

pub(super) fn headers_get(map: HeaderMap, name: &[u8], out: &mut [u8]) -> i32 {
    in_section(map, |section| {
        let mut list = Vec::new();
        for (candidate, value) in section {
            if name.is_empty() || same(candidate, name) {
                let Some(head) = header_list::record_head(candidate.as_bytes(), value) else {
                    return Status::Limit as i32;
                };
                list.extend_from_slice(&head);
                list.extend_from_slice(candidate.as_bytes());
                list.extend_from_slice(value);
            }
        }
        hand_out(&list, out)
    })
}

pub(super) fn header_set(map: HeaderMap, name: &[u8], value: &[u8]) -> i32 {
    change(map, name, value, true)
}

pub(super) fn header_add(map: HeaderMap, name: &[u8], value: &[u8]) -> i32 {
    change(map, name, value, false)
}

fn change(map: HeaderMap, name: &[u8], value: &[u8], replaces: bool) -> i32 {
    let Some(part) = part_to_change(map) else {
        return rules::HEADER_SET.refused as i32;
    };
    with_facts(|facts| {
        let Some(section) = section(facts, map) else {
            return rules::HEADER_SET.refused as i32;
        };
        // A second Host would make the request ambiguous (RFC 9112 §3.2).
        let replaces = replaces || check::is_host_field(name);
        let goes = match replaces {
            true => size_of_named(section, name),
            false => Size::default(),
        };
        // Counted first, as far as it is not refused for another reason.
        let before = facts.usage.clone();
        if let Err(refused) = facts.add(part, Size::of(name, value), goes) {
            return refused as i32;
        }
        if !check::may_set_field(name, value) {
            facts.usage = before;
            return Status::BadArgument as i32;
        }
        let Some(section) = self::section(facts, map) else {
            return rules::HEADER_SET.refused as i32;
        };
        match replaces {
            true => set_field(section, name, value),
            false => section.push((lower(name), value.to_vec())),
        }
        0
    })
}

/// This value in the place of the first of that name, the others go.
pub(super) fn set_field(section: &mut Section, name: &[u8], value: &[u8]) {
    let first = section
        .iter()
        .position(|(candidate, _)| same(candidate, name));
    let Some(first) = first else {
        section.push((lower(name), value.to_vec()));
        return;
    };
    let mut idx = 0;
    section.retain(|(candidate, _)| {
        let keep = idx <= first || !same(candidate, name);
        idx += 1;
        keep
    });
    section[first].1 = value.to_vec();
}

pub(super) fn header_remove(map: HeaderMap, name: &[u8]) -> i32 {
    let Some(part) = part_to_change(map) else {
        return rules::HEADER_REMOVE.refused as i32;
    };
    if !check::is_field_name(name) || check::is_host_field(name) {
        return Status::BadArgument as i32;
    }
    with_facts(|facts| {
        let Some(section) = section(facts, map) else {
            return rules::HEADER_REMOVE.refused as i32;
        };
        let gone = size_of_named(section, name);
        section.retain(|(candidate, _)| !same(candidate, name));
        if gone.count > 0 {
            facts.take_away(part, gone);
        }
        i32::try_from(gone.count).unwrap_or(i32::MAX)
    })
}

/// Part of the exchange that this is, where it may be changed now.
fn part_to_change(map: HeaderMap) -> Option<Part> {
    let part = match map {
        HeaderMap::Request => Part::RequestHead,
        HeaderMap::Response => Part::ReplyHead,
        HeaderMap::Trailers => return None,
    };
    is_at(rules::changes(map)).then_some(part)
}

fn size_of_named(section: &Section, name: &[u8]) -> Size {
    let named = section
        .iter()
        .filter(|(candidate, _)| same(candidate, name));
    named
        .map(|(name, value)| Size::of(name.as_bytes(), value))
        .sum()
}

pub(super) fn status_get() -> i32 {
    let is_there = may(&rules::STATUS_GET);
    with_facts(|facts| match &facts.response {
        Some((status, _)) if is_there => i32::from(*status),
        Some(_) | None => rules::STATUS_GET.refused as i32,
    })
}

pub(super) fn status_set(code: u16) -> i32 {
    let may_set = may(&rules::STATUS_SET);
    with_facts(|facts| match &mut facts.response {
        Some(response) if may_set => match check::is_final_status(code.into()) {
            true => {
                response.0 = code;
                0
            }
            false => Status::BadArgument as i32,
        },
        Some(_) | None => rules::STATUS_SET.refused as i32,
    })
}

pub(super) fn var_get(name: &[u8], out: &mut [u8]) -> i32 {
    let set = with_facts(|facts| facts.vars.get(name).cloned());
    if set.is_none() && computed::is_uncomputed(name) {
        return Status::Uncomputed as i32;
    }
    match set.or_else(|| own_variables::value(name)) {
        Some(value) => hand_out(&value, out),
        None if !check::is_variable_name(name) => Status::BadArgument as i32,
        None => Status::NotFound as i32,
    }
}

pub(super) fn var_set(name: &[u8], value: &[u8]) -> i32 {
    if !check::is_variable_name(name) {
        return Status::BadArgument as i32;
    }
    if !may(&rules::VAR_SET) {
        return rules::VAR_SET.refused as i32;
    }
    with_facts(|facts| {
        let there = facts.vars.get(name);
        let goes = there.map(|value| Size::of(name, value));
        let comes = Size::of(name, value);
        if let Err(refused) = facts.add(Part::Variables, comes, goes.unwrap_or_default()) {
            return refused as i32;
        }
        facts.vars.insert(name.to_vec(), value.to_vec());
        0
    })
}

/// A plugin of the chain computes it; else nothing is computed here: a test sets what another plugin would compute.
pub(super) fn var_compute(name: &[u8]) -> i32 {
    if may(&rules::VAR_COMPUTE) {
        computed::compute(name);
    }
    let is_set = with_facts(|facts| facts.vars.contains_key(name));
    match (is_set, check::is_variable_name(name)) {
        (true, _) => 0,
        (false, true) if computed::is_uncomputed(name) => rules::VAR_COMPUTE.refused as i32,
        (false, true) => Status::NotFound as i32,
        (false, false) => Status::BadArgument as i32,
    }
}

pub(super) fn state_get(out: &mut [u8]) -> i32 {
    if !may(&rules::STATE_GET) {
        return rules::STATE_GET.refused as i32;
    }
    let plugin = with_world(|world| world.plugin);
    with_facts(|facts| match facts.states.get(&plugin) {
        Some(state) => hand_out(state, out),
        None => Status::NotFound as i32,
    })
}

pub(super) fn state_set(bytes: &[u8]) -> i32 {
    if !may(&rules::STATE_SET) {
        return rules::STATE_SET.refused as i32;
    }
    let (plugin, most) = with_world(|world| (world.plugin, world.limits.state_bytes));
    if bytes.len() > most {
        return Status::Limit as i32;
    }
    with_facts(|facts| facts.states.insert(plugin, bytes.to_vec()));
    0
}

pub(super) fn answer(status: u16, headers: &[u8], body: &[u8]) -> i32 {
    if !may(&rules::ANSWER) {
        return rules::ANSWER.refused as i32;
    }
    if let Some(refused) = check_answer(status, headers, body) {
        return refused as i32;
    }
    with_facts(|facts| facts.answer = Some((status, headers.to_vec(), body.to_vec())));
    0
}

pub(super) fn body_skip() -> i32 {
    if !may(&rules::BODY_SKIP) {
        return rules::BODY_SKIP.refused as i32;
    }
    let plugin = with_world(|world| world.plugin);
    with_facts(|facts| facts.skips.push(plugin));
    0
}

fn in_section(map: HeaderMap, read: impl FnOnce(&mut Section) -> i32) -> i32 {
    let is_there = is_at(rules::reads(map));
    with_facts(|facts| match section(facts, map) {
        Some(section) if is_there => read(section),
        Some(_) | None => rules::HEADER_GET.refused as i32,
    })
}

fn section(facts: &mut Facts, map: HeaderMap) -> Option<&mut Section> {
    match map {
        HeaderMap::Request => Some(&mut facts.request_headers),
        HeaderMap::Response => facts.response.as_mut().map(|response| &mut response.1),
        HeaderMap::Trailers => Some(&mut facts.trailers),
    }
}

fn same(candidate: &str, name: &[u8]) -> bool {
    candidate.as_bytes().eq_ignore_ascii_case(name)
}

/// A valid name in lower case.
fn lower(name: &[u8]) -> String {
    String::from_utf8_lossy(name).to_ascii_lowercase()
}
