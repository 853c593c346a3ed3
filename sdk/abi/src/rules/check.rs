//! Names, values and numbers that calls take.

use core::net::Ipv6Addr;

/// Fields that the gateway writes itself (RFC 9110 §7.6.1, RFC 9112 §6): no plugin sets them. In lower case.
pub const FRAMING: [&str; 8] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whether the field of this name, in whatever case, frames the message.
pub fn is_framing(name: &[u8]) -> bool {
    FRAMING
        .iter()
        .any(|framing| framing.as_bytes().eq_ignore_ascii_case(name))
}

/// [`is_framing`] for a name in lower case, at compile time.
pub const fn is_framing_lower(name: &[u8]) -> bool {
    let mut at = 0;
    while at < FRAMING.len() {
        if are_equal(FRAMING[at].as_bytes(), name) {
            return true;
        }
        at += 1;
    }
    false
}

const fn are_equal(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// Fields that follow no body, in lower case; nor do those whose name begins with `x-forwarded-`.
const NO_TRAILERS: [&str; 30] = [
    "age",
    "authorization",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "expect",
    "expires",
    "forwarded",
    "host",
    "keep-alive",
    "location",
    "max-forwards",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "range",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "vary",
    "via",
    "www-authenticate",
    "x-real-ip",
];

/// Whether a field of this name, in whatever case, may follow a body. RFC 9110 §6.5.1: no trailers for framing, routing, authentication,
/// what the request or response is, or how its content is to be read. They are dropped: whoever decides by them has decided already.
pub fn may_be_trailer(name: &[u8]) -> bool {
    const FORWARDED: &[u8] = b"x-forwarded-";
    let is_named = NO_TRAILERS
        .iter()
        .any(|one| one.as_bytes().eq_ignore_ascii_case(name));
    let begins = name.get(..FORWARDED.len());
    !is_named && !begins.is_some_and(|begins| begins.eq_ignore_ascii_case(FORWARDED))
}

/// Longest name of a field, bytes.
pub const MAX_NAME_BYTES: usize = u16::MAX as usize;

/// Whether a field may have this name: a token (RFC 9110 §5.6.2).
pub fn is_field_name(name: &[u8]) -> bool {
    matches!(name.len(), 1..=MAX_NAME_BYTES) && is_token(name)
}

/// Whether a field may have this value (RFC 9110 §5.5, obs-text included): nothing that would end its line.
pub fn is_field_value(value: &[u8]) -> bool {
    value.iter().all(|&byte| is_value_byte(byte))
}

/// Whether a plugin may set a field of this name to this value: well formed, and not about framing, which is the gateway's business.
pub fn may_set_field(name: &[u8], value: &[u8]) -> bool {
    is_field_name(name) && !is_framing(name) && is_value_of(name, value)
}

/// RFC 9112 §3.2: what is no host there is answered 400.
fn is_value_of(name: &[u8], value: &[u8]) -> bool {
    match is_host_field(name) {
        true => is_host(value),
        false => is_field_value(value),
    }
}

/// Whether the field of this name is `Host`, which a request has one of: it is replaced, not added to, and not removed.
pub fn is_host_field(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(b"host")
}

/// A byte that a field's value may have.
#[inline]
pub const fn is_value_byte(byte: u8) -> bool {
    byte >= b' ' && byte != 0x7f || byte == b'\t'
}

fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&byte| TOKEN[byte as usize])
}

/// RFC 9110 §5.6.2: `tchar`.
pub const TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let marks = b"!#$%&'*+-.^_`|~";
    let mut at = 0;
    while at < marks.len() {
        table[marks[at] as usize] = true;
        at += 1;
    }
    let mut b = 0;
    while b < 128 {
        if (b as u8).is_ascii_alphanumeric() {
            table[b] = true;
        }
        b += 1;
    }
    table
};

/// Whether a response may have this status: 200 to 599. An interim response would leave the client waiting for another.
pub const fn is_final_status(status: u32) -> bool {
    matches!(status, 200..=599)
}

/// Whether a request that a plugin sends or changes may have this method: a token, and no tunnel.
pub fn is_method(method: &[u8]) -> bool {
    is_token(method) && method != b"CONNECT"
}

/// Whether a request's path may be this: `*`, or `/` and then visible ASCII without `?` and `#`.
pub fn is_path(path: &[u8]) -> bool {
    path == b"*" || path.first() == Some(&b'/') && path.iter().all(|&byte| is_path_byte(byte))
}

/// Whether a query may be this: visible ASCII without `#`; may be empty.
pub fn is_query(query: &[u8]) -> bool {
    query.iter().all(|&byte| is_target_byte(byte))
}

/// Whether a plugin may set a request's path to this.
pub fn is_settable_path(path: &[u8]) -> bool {
    path.first() == Some(&b'/') && is_path(path)
}

/// Whether a call out may have this target: a path that begins with `/`, and perhaps a query.
pub fn is_call_target(target: &[u8]) -> bool {
    target.first() == Some(&b'/') && is_query(target)
}

/// Visible ASCII without `#`: a fragment is not for servers (RFC 9110 §4.2.5). More than RFC 3986 has, as browsers send
/// `|`, `"` and the like as they are.
#[inline]
pub const fn is_target_byte(b: u8) -> bool {
    b.is_ascii_graphic() && b != b'#'
}

/// A byte of a path.
#[inline]
pub const fn is_path_byte(b: u8) -> bool {
    is_target_byte(b) && b != b'?'
}

/// Whether a request may be for this host: a name, an IPv4 or a bracketed IPv6 address, and perhaps a port.
///
/// Stricter than RFC 9110 §7.2, which allows percent-encoding and `!$&'()*+,;=` in names and a colon without a port: no
/// name in DNS has those, and what reads them does not agree on what they mean.
pub fn is_host(host: &[u8]) -> bool {
    let (is_name_valid, port) = match host.strip_prefix(b"[") {
        Some(rest) => {
            let Some(end) = rest.iter().position(|&b| b == b']') else {
                return false;
            };
            (is_ipv6(&rest[..end]), &rest[end + 1..])
        }
        None => {
            let end = host_name_len(host);
            (end != 0, &host[end..])
        }
    };
    is_name_valid && (port.is_empty() || port.strip_prefix(b":").is_some_and(is_port))
}

/// Length of the name that a host begins with: labels of unreserved characters with a dot between them, and perhaps one behind
/// the last. No label is empty, as a resolver has no such name, and `a..b` is `a.b` to some who compare: the name ends before.
fn host_name_len(host: &[u8]) -> usize {
    let mut before = b'.';
    let ends = |&byte: &u8| {
        let is_empty_label = (byte == b'.') & (before == b'.');
        before = byte;
        !UNRESERVED[byte as usize] | is_empty_label
    };
    host.iter().position(ends).unwrap_or(host.len())
}

fn is_ipv6(address: &[u8]) -> bool {
    core::str::from_utf8(address).is_ok_and(|address| address.parse::<Ipv6Addr>().is_ok())
}

/// RFC 3986 §2.3.
const UNRESERVED: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 128 {
        let b = byte as u8;
        table[byte] = b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
        byte += 1;
    }
    table
};

fn is_port(port: &[u8]) -> bool {
    // `parse` alone would take a sign.
    let digits = port.iter().all(u8::is_ascii_digit);
    digits && core::str::from_utf8(port).is_ok_and(|port| port.parse::<u16>().is_ok())
}

/// Whether a variable may have this name: `[a-z0-9_]`, 1 to 64 bytes.
#[inline]
pub fn is_variable_name(name: &[u8]) -> bool {
    let is_part = |byte: u8| byte.is_ascii_lowercase() | byte.is_ascii_digit() | (byte == b'_');
    // To the end whatever is found, so that it goes by several bytes at once.
    matches!(name.len(), 1..=64) && name.iter().fold(true, |all, &byte| all & is_part(byte))
}

/// Whether a kv zone may have this key, and a flight one.
pub const fn is_kv_key(key: &[u8]) -> bool {
    matches!(key.len(), 1..=crate::kv::MAX_KEY_BYTES)
}

/// Whether a counter or gauge zone may have this key.
pub const fn is_zone_key(key: &[u8]) -> bool {
    key.len() <= super::limits::ZONE_KEY_BYTES
}
