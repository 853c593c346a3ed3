//! Bytes that come over a socket: requests of clients, responses of peers, chunked bodies of both. An input is the
//! bytes themselves.
//!
//! Holds: no panic; a message is the same in however many pieces it comes; what is passed on of it, once written, is
//! read as the one message that it is.

use castling::rig::wire;

/// Requests on one connection, one behind the other, with their bodies.
pub fn requests(data: &[u8]) {
    wire::requests(data);
}

/// Responses on one connection.
pub fn responses(data: &[u8]) {
    wire::responses(data);
}

/// A chunked body with its trailers.
pub fn chunks(data: &[u8]) {
    wire::chunked_body(data);
}

/// Header that a proxy sends in front of a connection.
pub fn proxy_headers(data: &[u8]) {
    wire::proxy_header(data);
}

/// Answer of a name server.
pub fn name_answers(data: &[u8]) {
    wire::name_answer(data);
}

/// Head of a request that came by HTTP/2.
pub fn http2_heads(data: &[u8]) {
    wire::http2_head(data);
}
