//! Fields after a body.

use http::header::{self, HeaderName};

/// RFC 9110 §6.5.1: no trailers for framing, routing, authentication, what the request or response is, or how its content
/// is to be read. They are dropped: whoever decides by them has decided already.
pub fn may_be_trailer(name: &HeaderName) -> bool {
    const FORBIDDEN: [HeaderName; 27] = [
        header::AGE,
        header::AUTHORIZATION,
        header::CACHE_CONTROL,
        header::CONNECTION,
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_RANGE,
        header::CONTENT_TYPE,
        header::COOKIE,
        header::DATE,
        header::EXPECT,
        header::EXPIRES,
        header::FORWARDED,
        header::HOST,
        header::LOCATION,
        header::MAX_FORWARDS,
        header::PROXY_AUTHENTICATE,
        header::PROXY_AUTHORIZATION,
        header::RANGE,
        header::SET_COOKIE,
        header::TE,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        header::VARY,
        header::VIA,
        header::WWW_AUTHENTICATE,
    ];
    let is_forbidden = FORBIDDEN.contains(name)
        || matches!(
            name.as_str(),
            "keep-alive" | "proxy-connection" | "x-real-ip"
        )
        || name.as_str().starts_with("x-forwarded-");
    !is_forbidden
}
