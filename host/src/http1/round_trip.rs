//! Heads that the encoder writes are read back the same by the parser.

use bytes::BytesMut;
use http::{Method, StatusCode};
use proptest::prelude::*;

use super::encode::ResponseFraming;
use super::{
    HeadProgress, ReplyTo, parse_request, parse_response, write_request_head, write_response_head,
};
use crate::message::HeadLimits;
use crate::message::{BodySize, FieldName, HeadRoom, Headers, Protocol, Target};

const LIMITS: HeadLimits = HeadLimits {
    any_names: true,
    ..HeadLimits::of(64 * 1024)
};

fn headers(fields: &[(String, String)]) -> Headers {
    let mut headers = Headers::new();
    for (name, value) in fields {
        headers.add(
            FieldName::new(name.as_bytes()).expect("a name"),
            value.as_bytes(),
        );
    }
    headers
}

fn any_fields() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::vec(
        (
            "x-[a-z0-9!#$%&'*+.^_`|~-]{0,70}",
            "([!-~]([ -~\t]{0,20}[!-~])?)?",
        ),
        0..20,
    )
}

fn any_size() -> impl Strategy<Value = BodySize> {
    prop_oneof![
        Just(BodySize::None),
        any::<u64>().prop_map(BodySize::Exact),
        Just(BodySize::Unknown),
    ]
}

proptest! {
    #[test]
    fn a_request_that_was_written_is_read_the_same(
        method in "[A-Z]{1,30}".prop_filter("not served", |it| it != "CONNECT"),
        path in r#"/[!"$->@-~]{0,50}"#,
        query in prop::option::of(r#"[!"$-~]{0,50}"#),
        fields in any_fields(),
        body in any_size(),
    ) {
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let sent = headers(&fields);
        let mut out = Vec::new();
        let target = Target::new(&path, query.as_deref());
        write_request_head(&mut out, &method, &target, b"c:1", &sent, body, None);
        let mut buf = BytesMut::from(&out[..]);
        let parsed = parse_request(&mut buf, &mut HeadProgress::new(), &LIMITS, &mut HeadRoom::default())
            .expect("valid")
            .expect("whole");
        prop_assert!(buf.is_empty());
        prop_assert_eq!(&parsed.head.method, &method);
        prop_assert_eq!(&parsed.head.target, &target);
        prop_assert_eq!(parsed.head.host(), Some("c:1"));
        let expects_zero = body == BodySize::None && [Method::POST, Method::PUT, Method::PATCH].contains(&method);
        prop_assert_eq!(parsed.body.size(), if expects_zero { BodySize::Exact(0) } else { body });
        let mut received = parsed.head.headers;
        received.retain(|name, _| name.starts_with(b"x-"));
        prop_assert_eq!(received, sent);
    }

    #[test]
    fn a_response_that_was_written_is_read_the_same(
        status in 200..1000_u16,
        head_only in any::<bool>(),
        old in any::<bool>(),
        keep_alive in any::<bool>(),
        fields in any_fields(),
        body in any_size(),
    ) {
        let status = StatusCode::from_u16(status).expect("a status");
        let method = if head_only { Method::HEAD } else { Method::GET };
        let protocol = if old { Protocol::Http10 } else { Protocol::Http11 };
        let sent = headers(&fields);
        let mut out = Vec::new();
        let to = ReplyTo { method: &method, protocol, keep_alive, date: Some(&[b'x'; 29]) };
        let framing = write_response_head(&mut out, status, &sent, body, &to);
        let mut buf = BytesMut::from(&out[..]);
        let mut received = Headers::new();
        let parsed =
            parse_response(&mut buf, &mut HeadProgress::new(), &LIMITS, &method, &mut received)
                .expect("valid")
                .expect("whole");
        prop_assert!(buf.is_empty());
        prop_assert_eq!(parsed.status, status);
        prop_assert_eq!(ResponseFraming { body: parsed.body, keep_alive: parsed.keep_alive }, framing);
        received.retain(|name, _| name.starts_with(b"x-"));
        prop_assert_eq!(received, sent);
    }
}
