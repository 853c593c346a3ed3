//! gRPC as far as a gateway must know it: whose requests these are, how long they may take, and how errors are told.

use std::time::Duration;

use http::{Method, StatusCode};

use super::{Headers, KnownHeader, Protocol, RequestHead};

/// Whether a request is a call of gRPC over HTTP/2. Calls of gRPC-Web are not: their errors are HTTP's.
pub fn is_call(request: &RequestHead) -> bool {
    if request.protocol != Protocol::Http2 || request.method != Method::POST {
        return false;
    }
    let content_type = request.headers.get(KnownHeader::ContentType);
    let rest = content_type.and_then(|value| value.strip_prefix(b"application/grpc"));
    matches!(rest, Some([] | [b'+' | b';', ..]))
}

/// Time that a client gives its call (`grpc-timeout`: up to 8 digits and a unit). `None`: as long as it takes, or not readable.
pub fn timeout(headers: &Headers) -> Option<Duration> {
    let (unit, digits) = headers.find_value(b"grpc-timeout")?.split_last()?;
    let is_number = (1..=8).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    let amount: u64 = str::from_utf8(digits)
        .ok()
        .filter(|_| is_number)?
        .parse()
        .ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(amount * 3600),
        b'M' => Duration::from_secs(amount * 60),
        b'S' => Duration::from_secs(amount),
        b'm' => Duration::from_millis(amount),
        b'u' => Duration::from_micros(amount),
        b'n' => Duration::from_nanos(amount),
        _ => return None,
    })
}

/// Status of gRPC for an error of the gateway's own, as its specification maps those of HTTP
/// (`http-grpc-status-mapping.md`).
pub fn status(http: StatusCode) -> u8 {
    match http {
        StatusCode::BAD_REQUEST => INTERNAL,
        StatusCode::UNAUTHORIZED => UNAUTHENTICATED,
        StatusCode::FORBIDDEN => PERMISSION_DENIED,
        StatusCode::NOT_FOUND => UNIMPLEMENTED,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

const UNKNOWN: u8 = 2;

/// Status of a call that its client's deadline has ended.
pub const DEADLINE_EXCEEDED: u8 = 4;
const PERMISSION_DENIED: u8 = 7;
const UNIMPLEMENTED: u8 = 12;
const INTERNAL: u8 = 13;
const UNAVAILABLE: u8 = 14;
const UNAUTHENTICATED: u8 = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::FieldName;

    fn with(name: &str, value: &str) -> Headers {
        let mut headers = Headers::new();
        let name = FieldName::new(name.as_bytes()).expect("a name");
        headers.add(name, value.as_bytes());
        headers
    }

    #[test]
    fn calls_are_known_by_their_content_type() {
        for (content_type, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            let mut request = RequestHead {
                method: Method::POST,
                protocol: Protocol::Http2,
                headers: with("content-type", content_type),
                ..RequestHead::default()
            };
            assert_eq!(is_call(&request), expected, "{content_type}");
            request.protocol = Protocol::Http11;
            assert!(!is_call(&request), "{content_type}");
        }
    }

    #[test]
    fn time_outs_have_a_unit() {
        let of = |value: &str| timeout(&with("grpc-timeout", value));
        assert_eq!(of("2S"), Some(Duration::from_secs(2)));
        assert_eq!(
            of("99999999H"),
            Some(Duration::from_secs(99_999_999 * 3600))
        );
        assert_eq!(of("5m"), Some(Duration::from_millis(5)));
        for bad in ["", "S", "1", "1s", "-1S", "123456789S", "1 S"] {
            assert_eq!(of(bad), None, "{bad:?}");
        }
    }
}
