//! What a peer is told about the client: `X-Forwarded-For`, `-Proto`, `-Host` and `Via`.

use std::net::{IpAddr, Ipv4Addr};

use crate::http1::{Headers, Known};

/// RFC 9110 §7.6.3, with a pseudonym for the host.
const VIA: &[u8] = b"1.1 castling";

/// Puts what we know of the client's side in the place of what it claims. Before the first plugin, which may know
/// better.
pub fn note_client_side(headers: &mut Headers) {
    headers.set(Known::XForwardedProto, b"http");
    if headers.contains(Known::Host) {
        headers.copy(Known::Host, Known::XForwardedHost);
    } else {
        headers.remove(Known::XForwardedHost);
    }
}

/// Appends the client to `X-Forwarded-For` (as nginx's `$proxy_add_x_forwarded_for`), and to `Via`. After the last
/// plugin, which may have found out the real client. One without an address (of a Unix socket) is not appended: nginx's
/// `unix:` is no address, and peers that read a list of them would stumble.
pub fn add_to_request(headers: &mut Headers, client: Option<IpAddr>) {
    if let Some(client) = client {
        let mut room = [0; ADDRESS_BYTES];
        headers.append_to_list(Known::XForwardedFor, address_text(client, &mut room));
    }
    headers.append_to_list(Known::Via, VIA);
}

/// Appends to `Via`.
pub fn add_to_response(headers: &mut Headers) {
    headers.append_to_list(Known::Via, VIA);
}

/// An IPv6 address takes at most 45.
const ADDRESS_BYTES: usize = 48;

fn address_text(address: IpAddr, room: &mut [u8; ADDRESS_BYTES]) -> &[u8] {
    use std::io::Write;
    if let IpAddr::V4(address) = address {
        return ipv4_text(address, room);
    }
    let mut rest = &mut room[..];
    write!(rest, "{address}").expect("an address fits its room");
    let len = ADDRESS_BYTES - rest.len();
    &room[..len]
}

/// The machinery of `Display` takes 600 instructions for one.
fn ipv4_text(address: Ipv4Addr, room: &mut [u8; ADDRESS_BYTES]) -> &[u8] {
    let mut len = 0;
    let mut put = |b: u8| {
        room[len] = b;
        len += 1;
    };
    for (idx, octet) in address.octets().into_iter().enumerate() {
        if idx > 0 {
            put(b'.');
        }
        if octet >= 100 {
            put(b'0' + octet / 100);
        }
        if octet >= 10 {
            put(b'0' + octet / 10 % 10);
        }
        put(b'0' + octet % 10);
    }
    &room[..len]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(headers: &Headers, name: Known) -> String {
        let all: Vec<&str> = headers
            .get_all(name)
            .filter_map(|value| str::from_utf8(value).ok())
            .collect();
        all.join(" | ")
    }

    #[test]
    fn the_client_is_appended_to_what_came() {
        let mut headers = Headers::new();
        headers.add(Known::XForwardedFor, b"10.0.0.1");
        headers.add(Known::XForwardedFor, b"10.0.0.2");
        add_to_request(&mut headers, Some(IpAddr::from([127, 0, 0, 1])));
        assert_eq!(
            value(&headers, Known::XForwardedFor),
            "10.0.0.1, 10.0.0.2, 127.0.0.1"
        );
    }

    #[test]
    fn a_client_without_an_address_is_not_told() {
        let mut headers = Headers::new();
        add_to_request(&mut headers, None);
        assert!(!headers.contains(Known::XForwardedFor));
        headers.add(Known::XForwardedFor, b"10.0.0.1");
        add_to_request(&mut headers, None);
        assert_eq!(value(&headers, Known::XForwardedFor), "10.0.0.1");
    }

    #[test]
    fn proto_and_host_are_ours() {
        let mut headers = Headers::new();
        headers.add(Known::XForwardedProto, b"https");
        headers.add(Known::XForwardedHost, b"evil");
        headers.add(Known::Host, b"example.com");
        note_client_side(&mut headers);
        add_to_request(&mut headers, Some(IpAddr::from([127, 0, 0, 1])));
        assert_eq!(value(&headers, Known::XForwardedProto), "http");
        assert_eq!(value(&headers, Known::XForwardedHost), "example.com");
        assert_eq!(value(&headers, Known::Via), "1.1 castling");
    }

    proptest! {
        #[test]
        fn addresses_are_written_as_others_write_them(address: IpAddr) {
            let mut room = [0; ADDRESS_BYTES];
            let expected = address.to_string();
            prop_assert_eq!(address_text(address, &mut room), expected.as_bytes());
        }
    }
}
