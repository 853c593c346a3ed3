//! The handshake of WebSockets where one side has it by HTTP/1 (RFC 6455 §4) and the other by HTTP/2 (RFC 8441).

use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::message::FieldName;
use crate::message::Headers;

const KEY: &[u8] = b"sec-websocket-key";
const ACCEPT: &[u8] = b"sec-websocket-accept";

/// RFC 6455 §1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Adds the key that HTTP/1 asks for, where a client has sent none: by HTTP/2 there is none.
pub(super) fn add_key(headers: &mut Headers) {
    let mut nonce = [0; 16];
    // The key keeps caches from answering, and no secret: zeros would do.
    let _ = rand::fill(&mut nonce);
    set(headers, KEY, STANDARD.encode(nonce).as_bytes());
}

/// Whether the response accepts the request's key. A peer by HTTP/2 has none to accept, and its response gets what a client by
/// HTTP/1 expects.
pub(super) fn is_accepted(request: &Headers, response: &mut Headers) -> bool {
    let Some(key) = request.find_value(KEY) else {
        return true;
    };
    let expected = accept(key);
    if let Some(given) = response.find_value(ACCEPT) {
        return given == expected.as_bytes();
    }
    set(response, ACCEPT, expected.as_bytes());
    true
}

fn accept(key: &[u8]) -> String {
    let text = [key, GUID].concat();
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &text);
    STANDARD.encode(hash)
}

fn set(headers: &mut Headers, name: &[u8], value: &[u8]) {
    if let Some(name) = FieldName::new(name) {
        headers.set(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6455 §1.3.
    #[test]
    fn a_key_is_accepted_by_its_hash() {
        let mut request = Headers::new();
        set(&mut request, KEY, b"dGhlIHNhbXBsZSBub25jZQ==");
        let mut response = Headers::new();
        assert!(is_accepted(&request, &mut response));
        let expected = &b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="[..];
        assert_eq!(response.find_value(ACCEPT), Some(expected));
        assert!(is_accepted(&request, &mut response));
        set(&mut response, ACCEPT, b"other");
        assert!(!is_accepted(&request, &mut response));
        add_key(&mut request);
        assert_eq!(request.find_value(KEY).map(<[u8]>::len), Some(24));
    }
}
