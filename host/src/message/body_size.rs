//! Sizes of bodies, whichever way their ends are marked.

use http::{Method, StatusCode};

/// Size of a body as far as its head tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodySize {
    /// No body, and no field says so.
    None,
    /// Exactly so many bytes. 0 is a body that is known to be empty.
    Exact(u64),
    /// All bytes that come before the end, which the protocol marks.
    Unknown,
}

/// Whether the response to a request of this method never has a body, whatever a plugin or a peer gives with it: since it
/// answers HEAD, or by its status (RFC 9110 §6.4.1).
pub fn never_has_body(status: StatusCode, request_method: &Method) -> bool {
    *request_method == Method::HEAD
        || status.is_informational()
        || status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
}
