//! The functions of `raw`, served from this thread's `World` and from the exchange that was lent last.

use std::time::Duration;

use castling_abi::{
    DRAWN_PEER_BYTES, DrawnPeer, ErrorKind, HeaderMap, Hook, LONGEST_DELAY_MS, LogLevel, Number,
    PEER_COOLING, PEER_TRIED, PeerRecord, Property, Status, TlsFact, header_list,
};

use super::hook::{may_change_request, may_change_response, may_wait, running};
use super::world::{Facts, Section, with_facts, with_world};
use super::{FakePeer, own_variables};
use crate::header::{is_name, is_of_framing, is_value};
use crate::random;

pub(crate) use super::calls::{
    call_body, call_error, call_error_kind, call_headers, call_status, calls_send,
};
#[cfg(feature = "crypto")]
pub(crate) use super::crypto::{
    digest, hmac, password_hash, password_verify, seal, signature_verify, unseal,
};
pub(crate) use super::files::{file_fact, file_open, file_read};
pub(crate) use super::gauge::{gauge_count, gauge_enter, gauge_leave, kv_flight, kv_flight_end};
pub(crate) use super::hook::check_answer;
pub(crate) use super::kv::{
    kv_delete, kv_delete_all, kv_get, kv_get_all, kv_get_with_ttl, kv_increment, kv_list, kv_put,
    kv_put_all,
};
pub(crate) use super::metrics::{
    metric_add, metric_define, metric_observe, metric_series, metric_set,
};
pub(crate) use super::stream::{chunk_emit, response_begin, response_trailers, response_write};
pub(crate) use super::streamed::{
    call_close, call_failure, call_failure_kind, call_finish, call_open, call_read,
    call_reply_headers, call_write,
};
pub(crate) use super::tcp::{tcp_close, tcp_connect, tcp_error, tcp_read, tcp_write};
pub(crate) use super::topics::{message_get, topic_name, topic_publish};
pub(crate) use super::upstream::{config_grant, peer_name, peer_tags, upstream_set};
pub(crate) use super::zones::{counter_add, counter_get, grant_check, rate_take};

pub(crate) fn log(level: LogLevel, text: &[u8]) {
    let line = String::from_utf8_lossy(text).into_owned();
    with_world(|world| world.log_lines.push((level, line)));
}

/// Prints an event as a log of text has it.
pub(crate) fn log_fields(level: LogLevel, text: &[u8], fields: &[u8]) {
    let mut line = String::from_utf8_lossy(text).into_owned();
    for (key, value) in header_list::records(fields).map_while(Result::ok) {
        let [key, value] = [key, value].map(String::from_utf8_lossy);
        let is_plain = !value.is_empty()
            && value
                .chars()
                .all(|c| !c.is_whitespace() && !c.is_control() && !matches!(c, '"' | '=' | '\\'));
        line += &match is_plain {
            true => format!(" {key}={value}"),
            false => format!(" {key}={value:?}"),
        };
    }
    log(level, line.as_bytes());
}

pub(crate) fn fail_with(kind: ErrorKind, text: &[u8]) {
    let text = String::from_utf8_lossy(text).into_owned();
    with_world(|world| {
        world.failure = Some(text);
        world.failure_kind = kind;
    });
}

pub(crate) fn config_get(out: &mut [u8]) -> i32 {
    with_world(|world| hand_out(world.config.as_bytes(), out))
}

pub(crate) fn random_get(out: &mut [u8]) {
    with_world(|world| {
        for word in out.chunks_mut(8) {
            word.copy_from_slice(&world.next_random().to_le_bytes()[..word.len()]);
        }
    });
}

pub(crate) fn clock_monotonic() -> i64 {
    with_world(|world| i64::try_from(world.monotonic.as_nanos()).unwrap_or(i64::MAX))
}

pub(crate) fn clock_wall() -> i64 {
    with_world(|world| i64::try_from(world.wall.as_nanos()).unwrap_or(i64::MAX))
}

pub(crate) fn property_get(property: Property, out: &mut [u8]) -> i32 {
    let chosen = super::upstream::chosen(property);
    with_facts(|facts| {
        match facts.properties[property as usize]
            .as_ref()
            .or(chosen.as_ref())
        {
            Some(text) => hand_out(text, out),
            None => Status::NotFound as i32,
        }
    })
}

pub(crate) fn property_set(property: Property, value: &[u8]) -> i32 {
    with_facts(|facts| {
        let valid = match property {
            Property::Method => is_name(value),
            Property::Path => {
                value.first() == Some(&b'/') && is_target(value) && !value.contains(&b'?')
            }
            Property::Query => is_target(value),
            Property::Host => !value.is_empty() && is_target(value),
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
        if !valid {
            return Status::BadArgument as i32;
        }
        let too_late = property == Property::ClientAddress
            && !matches!(running(), None | Some(Hook::PostRead));
        if facts.response.is_some() || too_late || !may_change_request() {
            return Status::NotNow as i32;
        }
        let removed = property == Property::Query && value.is_empty();
        facts.properties[property as usize] = (!removed).then(|| value.to_vec());
        0
    })
}

pub(crate) fn number_get(number: Number) -> i64 {
    with_facts(|facts| facts.numbers[number as usize].unwrap_or(Status::NotFound as i64))
}

pub(crate) fn tls_get(fact: TlsFact, out: &mut [u8]) -> i32 {
    with_facts(|facts| match &facts.tls[fact as usize] {
        Some(text) => hand_out(text.as_bytes(), out),
        None => Status::NotFound as i32,
    })
}

pub(crate) fn header_get(map: HeaderMap, name: &[u8], out: &mut [u8]) -> i32 {
    in_section(map, |section| {
        match section.iter().find(|(candidate, _)| same(candidate, name)) {
            Some((_, value)) => hand_out(value, out),
            None => Status::NotFound as i32,
        }
    })
}

pub(crate) fn headers_get(map: HeaderMap, name: &[u8], out: &mut [u8]) -> i32 {
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

pub(crate) fn header_set(map: HeaderMap, name: &[u8], value: &[u8]) -> i32 {
    change_section(map, name, value, |section, name| {
        section.retain(|(candidate, _)| *candidate != name);
        section.push((name, value.to_vec()));
    })
}

pub(crate) fn header_add(map: HeaderMap, name: &[u8], value: &[u8]) -> i32 {
    change_section(map, name, value, |section, name| {
        section.push((name, value.to_vec()))
    })
}

pub(crate) fn header_remove(map: HeaderMap, name: &[u8]) -> i32 {
    if !may_change(map) {
        return Status::NotNow as i32;
    }
    in_section(map, |section| {
        let before = section.len();
        section.retain(|(candidate, _)| !same(candidate, name));
        i32::try_from(before - section.len()).unwrap_or(i32::MAX)
    })
}

pub(crate) fn status_get() -> i32 {
    with_facts(|facts| {
        facts
            .response
            .as_ref()
            .map_or(Status::NotNow as i32, |response| i32::from(response.0))
    })
}

pub(crate) fn status_set(code: u16) -> i32 {
    with_facts(|facts| match &mut facts.response {
        None => Status::NotNow as i32,
        Some(_) if !may_change_response() => Status::NotNow as i32,
        Some(_) if !(200..600).contains(&code) => Status::BadArgument as i32,
        Some(response) => {
            response.0 = code;
            0
        }
    })
}

pub(crate) fn var_get(name: &[u8], out: &mut [u8]) -> i32 {
    let set = with_facts(|facts| facts.vars.get(name).cloned());
    match set.or_else(|| own_variables::value(name)) {
        Some(value) => hand_out(&value, out),
        None => Status::NotFound as i32,
    }
}

pub(crate) fn var_set(name: &[u8], value: &[u8]) -> i32 {
    let valid = (1..=64).contains(&name.len())
        && name
            .iter()
            .all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    if !valid {
        return Status::BadArgument as i32;
    }
    with_facts(|facts| facts.vars.insert(name.to_vec(), value.to_vec()));
    0
}

pub(crate) fn state_get(out: &mut [u8]) -> i32 {
    with_facts(|facts| match &facts.state {
        Some(state) => hand_out(state, out),
        None => Status::NotFound as i32,
    })
}

pub(crate) fn state_set(bytes: &[u8]) -> i32 {
    with_facts(|facts| facts.state = Some(bytes.to_vec()));
    0
}

/// Nothing is computed here: a test sets what another plugin would compute.
pub(crate) fn var_compute(_name: &[u8]) -> i32 {
    Status::NotFound as i32
}

pub(crate) fn answer(status: u16, headers: &[u8], body: &[u8]) -> i32 {
    if let Some(refused) = check_answer(status, headers, body) {
        return refused as i32;
    }
    with_facts(|facts| facts.answer = Some((status, headers.to_vec(), body.to_vec())));
    0
}

pub(crate) fn chunk_get(out: &mut [u8]) -> i32 {
    with_facts(|facts| hand_out(&facts.chunk, out))
}

pub(crate) fn chunk_set(data: &[u8]) -> i32 {
    with_facts(|facts| facts.chunk = data.to_vec());
    0
}

pub(crate) fn body_skip() -> i32 {
    with_facts(|facts| facts.body_skipped = true);
    0
}

pub(crate) fn chunk_end() -> i32 {
    with_facts(|facts| facts.body_ended = true);
    0
}

pub(crate) fn body_peek(bytes: usize) -> i64 {
    if !may_wait() || running() == Some(Hook::ResponseHeaders) {
        return Status::NotNow as i64;
    }
    if bytes > with_world(|world| world.body_limit_bytes) {
        return Status::Limit as i64;
    }
    with_facts(|facts| {
        if facts.response.is_some() {
            return Status::NotNow as i64;
        }
        let bodies = &mut facts.bodies;
        let seen = bodies.request.len().min(bytes);
        bodies.request_read = Some(seen);
        let is_whole = seen == bodies.request.len();
        2 * i64::try_from(seen).unwrap_or_default() + i64::from(is_whole)
    })
}

pub(crate) fn body_read(map: HeaderMap, limit: usize) -> i32 {
    if !may_wait() {
        return Status::NotNow as i32;
    }
    let limit = limit.min(with_world(|world| world.body_limit_bytes));
    with_facts(|facts| {
        let has_response = facts.response.is_some();
        let bodies = &mut facts.bodies;
        let (body, read) = match map {
            HeaderMap::Request => (&bodies.request, &mut bodies.request_read),
            HeaderMap::Response => (&bodies.response, &mut bodies.response_read),
            HeaderMap::Trailers => return Status::BadArgument as i32,
        };
        if has_response != (map == HeaderMap::Response) {
            return Status::NotNow as i32;
        }
        if body.len() > limit {
            return Status::Limit as i32;
        }
        *read = Some(body.len());
        i32::try_from(body.len()).unwrap_or(Status::Limit as i32)
    })
}

pub(crate) fn body_get(map: HeaderMap, out: &mut [u8]) -> i32 {
    with_facts(|facts| {
        let bodies = &facts.bodies;
        let (body, read) = match map {
            HeaderMap::Request => (&bodies.request, bodies.request_read),
            HeaderMap::Response => (&bodies.response, bodies.response_read),
            HeaderMap::Trailers => return Status::BadArgument as i32,
        };
        match read {
            Some(bytes) => hand_out(&body[..bytes], out),
            None => Status::NotFound as i32,
        }
    })
}

pub(crate) fn delay(milliseconds: u32) -> i32 {
    if !may_wait() {
        return Status::NotNow as i32;
    }
    if milliseconds > LONGEST_DELAY_MS {
        return Status::BadArgument as i32;
    }
    super::advance_clock(Duration::from_millis(milliseconds.into()));
    0
}

pub(crate) fn peers_get(out: &mut [u8]) -> i32 {
    with_facts(|facts| {
        let records = facts.peers.iter().map(|peer| record(peer).to_bytes());
        hand_out(&records.flatten().collect::<Vec<_>>(), out)
    })
}

fn record(peer: &FakePeer) -> PeerRecord {
    let tried = if peer.tried { PEER_TRIED } else { 0 };
    let cooling = if peer.cooling { PEER_COOLING } else { 0 };
    PeerRecord {
        weight: peer.weight,
        active: peer.active,
        flags: tried | cooling,
        reserved: 0,
    }
}

/// Draws with [`random::below`], so that a test can say which: the place of the first among the weights of all that may be chosen, then
/// that of the second among the others'.
pub(crate) fn peers_draw(out: &mut [u8]) -> i32 {
    let peers = with_facts(|facts| facts.peers.clone());
    let untried = || peers.iter().enumerate().filter(|(_, peer)| !peer.tried);
    let is_any_sound = untried().any(|(_, peer)| !peer.cooling);
    let mut left: Vec<_> = untried()
        .filter(|(_, peer)| !(is_any_sound && peer.cooling))
        .collect();
    let mut drawn = Vec::new();
    while drawn.len() < 2 * DRAWN_PEER_BYTES && !left.is_empty() {
        let total = left.iter().map(|(_, peer)| peer.weight as usize).sum();
        let mut place = random::below(total);
        let at = left.iter().position(|(_, peer)| {
            let is_it = place < peer.weight as usize;
            place = place.saturating_sub(peer.weight as usize);
            is_it
        });
        let (index, peer) = left.remove(at.unwrap_or(0));
        let peer = DrawnPeer {
            index: u32::try_from(index).unwrap_or(u32::MAX),
            record: record(peer),
        };
        drawn.extend_from_slice(&peer.to_bytes());
    }
    hand_out(&drawn, out)
}

pub(crate) fn peer_address(index: u32, out: &mut [u8]) -> i32 {
    with_facts(|facts| {
        let peer = usize::try_from(index)
            .ok()
            .and_then(|index| facts.peers.get(index));
        peer.map_or(Status::NotFound as i32, |peer| {
            hand_out(peer.address.as_bytes(), out)
        })
    })
}

/// Hands out bytes as the ABI says: the length, and the bytes where there is room for all.
pub(super) fn hand_out(bytes: &[u8], out: &mut [u8]) -> i32 {
    if let Some(room) = out.get_mut(..bytes.len()) {
        room.copy_from_slice(bytes);
    }
    i32::try_from(bytes.len()).unwrap_or(Status::Limit as i32)
}

fn may_change(map: HeaderMap) -> bool {
    match map {
        HeaderMap::Request => may_change_request(),
        HeaderMap::Response => may_change_response(),
        HeaderMap::Trailers => false,
    }
}

fn in_section(map: HeaderMap, read: impl FnOnce(&mut Section) -> i32) -> i32 {
    with_facts(|facts| match section(facts, map) {
        Some(section) => read(section),
        None => Status::NotNow as i32,
    })
}

fn change_section(
    map: HeaderMap,
    name: &[u8],
    value: &[u8],
    change: impl FnOnce(&mut Section, String),
) -> i32 {
    let Some(name) = str::from_utf8(name)
        .ok()
        .filter(|name| is_name(name.as_bytes()))
    else {
        return Status::BadArgument as i32;
    };
    if !is_value(value) || is_of_framing(name) {
        return Status::BadArgument as i32;
    }
    if !may_change(map) {
        return Status::NotNow as i32;
    }
    in_section(map, |section| {
        change(section, name.to_ascii_lowercase());
        0
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

/// Whether a text can stand in a request's target without being encoded.
pub(super) fn is_target(text: &[u8]) -> bool {
    text.iter()
        .all(|&byte| byte > b' ' && byte != 0x7f && byte != b'#')
}
