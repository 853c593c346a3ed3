//! Fields that tell a peer about the client: `X-Forwarded-For`, `-Proto`, `-Host` and `Via`. Claims of the client that the
//! gateway does not answer for are removed.

use std::net::IpAddr;

use crate::address::AddressText;
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

/// Removes [`CLAIMS`] of a client. Called before the first plugin, and not for sub-requests: fields that a plugin sets go on
/// to the peer.
pub fn remove_claims(headers: &mut Headers) {
    for claim in CLAIMS {
        headers.remove(claim);
    }
}

/// Fields in which a client could tell a peer who it is, and which the gateway does not write itself: a peer that trusts
/// the gateway would believe them (RFC 7239 §8.1).
const CLAIMS: [Known; 3] = [Known::Forwarded, Known::XForwardedPort, Known::XRealIp];

/// Appends the client to `X-Forwarded-For` (as nginx's `$proxy_add_x_forwarded_for`), and to `Via`. After the last
/// plugin, which may have found out the real client. One without an address (of a Unix socket) is not appended: nginx's
/// `unix:` is no address, and peers that read a list of them would stumble.
pub fn add_to_request(headers: &mut Headers, client: Option<IpAddr>) {
    if let Some(client) = client {
        headers.append_to_list(Known::XForwardedFor, AddressText::new(client).bytes());
    }
    headers.append_to_list(Known::Via, VIA);
}

/// Appends to `Via`.
pub fn add_to_response(headers: &mut Headers) {
    headers.append_to_list(Known::Via, VIA);
}

#[cfg(test)]
mod tests {
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
    fn claims_that_nobody_answers_for_are_removed() {
        let mut headers = Headers::new();
        for claim in CLAIMS {
            headers.add(claim, b"10.0.0.1");
        }
        headers.add(Known::Server, b"other");
        remove_claims(&mut headers);
        assert!(CLAIMS.iter().all(|claim| !headers.contains(*claim)));
        assert!(headers.contains(Known::Server));
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
}
