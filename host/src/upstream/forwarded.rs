//! What a peer is told about the client: `X-Forwarded-For`, `-Proto`, `-Host` and `Via`.

use std::net::IpAddr;

use http::{HeaderName, HeaderValue, header};

use crate::http1::Headers;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// RFC 9110 §7.6.3, with a pseudonym for the host.
const VIA: HeaderValue = HeaderValue::from_static("1.1 castling");

/// Puts what we know of the client's side in the place of what it claims. Before the first plugin, which may know
/// better.
pub fn note_client_side(headers: &mut Headers) {
    headers.set(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    match headers.get(&header::HOST).cloned() {
        Some(host) => headers.set(X_FORWARDED_HOST, host),
        None => {
            headers.remove(&X_FORWARDED_HOST);
        }
    }
}

/// Appends the client to `X-Forwarded-For` (as nginx's `$proxy_add_x_forwarded_for`), and to `Via`. After the last
/// plugin, which may have found out the real client. One without an address (of a Unix socket) is not appended: nginx's
/// `unix:` is no address, and peers that read a list of them would stumble.
pub fn add_to_request(headers: &mut Headers, client: Option<IpAddr>) {
    if let Some(client) = client {
        append(headers, X_FORWARDED_FOR, address_value(client));
    }
    append(headers, header::VIA, VIA);
}

/// Appends to `Via`.
pub fn add_to_response(headers: &mut Headers) {
    append(headers, header::VIA, VIA);
}

/// One field with all values, in their order.
fn append(headers: &mut Headers, name: HeaderName, value: HeaderValue) {
    if !headers.contains(&name) {
        headers.add(name, value);
        return;
    }
    let mut list = Vec::with_capacity(64);
    for earlier in headers.get_all(&name) {
        list.extend_from_slice(earlier.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(value.as_bytes());
    // Joined values and ", " make a value again.
    if let Ok(joined) = HeaderValue::from_maybe_shared(bytes::Bytes::from(list)) {
        headers.set(name, joined);
    }
}

fn address_value(address: IpAddr) -> HeaderValue {
    use std::io::Write;
    let mut text = [0_u8; 48];
    let mut room = &mut text[..];
    let size = room.len();
    // An IPv6 address takes at most 45 bytes.
    write!(room, "{address}").expect("an address fits its room");
    let len = size - room.len();
    HeaderValue::from_bytes(&text[..len]).expect("an address is visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(headers: &Headers, name: &HeaderName) -> String {
        let all: Vec<&str> = headers
            .get_all(name)
            .filter_map(|v| v.to_str().ok())
            .collect();
        all.join(" | ")
    }

    #[test]
    fn the_client_is_appended_to_what_came() {
        let mut headers = Headers::new();
        headers.add(X_FORWARDED_FOR, HeaderValue::from_static("10.0.0.1"));
        headers.add(X_FORWARDED_FOR, HeaderValue::from_static("10.0.0.2"));
        add_to_request(&mut headers, Some(IpAddr::from([127, 0, 0, 1])));
        assert_eq!(
            value(&headers, &X_FORWARDED_FOR),
            "10.0.0.1, 10.0.0.2, 127.0.0.1"
        );
    }

    #[test]
    fn a_client_without_an_address_is_not_told() {
        let mut headers = Headers::new();
        add_to_request(&mut headers, None);
        assert!(!headers.contains(&X_FORWARDED_FOR));
        headers.add(X_FORWARDED_FOR, HeaderValue::from_static("10.0.0.1"));
        add_to_request(&mut headers, None);
        assert_eq!(value(&headers, &X_FORWARDED_FOR), "10.0.0.1");
    }

    #[test]
    fn proto_and_host_are_ours() {
        let mut headers = Headers::new();
        headers.add(X_FORWARDED_PROTO, HeaderValue::from_static("https"));
        headers.add(X_FORWARDED_HOST, HeaderValue::from_static("evil"));
        headers.add(header::HOST, HeaderValue::from_static("example.com"));
        note_client_side(&mut headers);
        add_to_request(&mut headers, Some(IpAddr::from([127, 0, 0, 1])));
        assert_eq!(value(&headers, &X_FORWARDED_PROTO), "http");
        assert_eq!(value(&headers, &X_FORWARDED_HOST), "example.com");
        assert_eq!(value(&headers, &header::VIA), "1.1 castling");
    }
}
