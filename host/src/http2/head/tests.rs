use proptest::prelude::*;

use super::*;

const LIMITS: HeadLimits = HeadLimits::of(1 << 16);

fn read(uri: &str, fields: &[(&str, &str)]) -> Result<ReceivedRequest, HeadError> {
    let mut request = Request::builder().method("POST").uri(uri);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let request = request.body(()).expect("a request");
    read_request(&request, false, &LIMITS, &mut HeadRoom::default())
}

fn refused(uri: &str, fields: &[(&str, &str)]) -> HeadError {
    read(uri, fields).map(|it| it.head).expect_err("refused")
}

#[test]
fn a_head_is_taken_over_by_the_rules_of_http1() {
    let fields = [
        ("x-b", "c"),
        ("cookie", "a=1"),
        ("x_d", "e"),
        ("cookie", "b=2"),
        ("content-length", "3"),
        ("content-length", "3"),
    ];
    let request = read("https://a.test:1/p/%2e?q", &fields).expect("taken");
    assert_eq!(request.head.target.as_str(), "/p/%2e?q");
    assert_eq!(request.head.host(), Some("a.test:1"));
    assert_eq!(request.head.protocol, Protocol::Http2);
    assert_eq!(
        (request.size, request.dropped_fields),
        (BodySize::Exact(3), 1)
    );
    let fields = request.head.headers.iter();
    let fields: Vec<_> = fields
        .map(|(name, value)| [name, b": ", value].concat())
        .collect();
    let expected: [&[u8]; 4] = [
        b"host: a.test:1",
        b"x-b: c",
        b"content-length: 3",
        b"cookie: a=1; b=2",
    ];
    assert_eq!(fields, expected);
}

#[test]
fn one_host_is_asked_and_the_other_says_the_same() {
    let host = |uri: &str, hosts: &[(&str, &str)]| {
        read(uri, hosts).map(|it| it.head.host().map(str::to_owned))
    };
    assert_eq!(host("/p", &[("host", "a")]), Ok(Some("a".to_owned())));
    assert_eq!(
        host("http://A.b/", &[("host", "a.B")]),
        Ok(Some("A.b".to_owned()))
    );
    assert_eq!(host("/p", &[]), Err(HeadError::HostMissing));
    assert_eq!(
        refused("http://a/", &[("host", "b")]),
        HeadError::HostDiffers
    );
    let twice = [("host", "a"), ("host", "a")];
    assert_eq!(refused("http://a/", &twice), HeadError::HostRepeated);
    assert_eq!(refused("http://u@a/", &[]), HeadError::HostInvalid);
}

#[test]
fn what_a_peer_could_misread_is_refused() {
    let value = |value: &str| refused("http://a/", &[("x", value)]);
    for bad in [" a", "a ", "a\t", "\ta"] {
        assert_eq!(value(bad), HeadError::ValueInvalid, "{bad:?}");
    }
    let twice = [("authorization", "a"), ("authorization", "b")];
    assert_eq!(refused("http://a/", &twice), HeadError::FieldRepeated);
    for bad in ["+1", "1,1", "0x1", "18446744073709551616"] {
        let length = [("content-length", bad)];
        assert_eq!(refused("http://a/", &length), HeadError::LengthInvalid);
    }
}

#[test]
fn bytes_beyond_ascii_in_a_target_are_encoded_or_refused() {
    let request = read("http://a/\u{e4}?\u{e4}", &[]).expect("taken");
    assert_eq!(request.head.target.as_str(), "/%C3%A4?%C3%A4");
}

fn response_text(status: u16, fields: &[(&str, &str)], size: BodySize) -> Vec<String> {
    let mut headers = Headers::new();
    for (name, value) in fields {
        let name = FieldName::new(name.as_bytes()).expect("a name");
        headers.add(name, value.as_bytes());
    }
    let form = Form {
        method: &Method::GET,
        size,
        date: None,
    };
    let status = StatusCode::from_u16(status).expect("a status");
    let response = response(status, &headers, &form);
    let fields = response.headers().iter();
    fields
        .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap_or("?")))
        .collect()
}

#[test]
fn a_response_has_no_field_of_a_connection_and_its_own_length() {
    let fields = [
        ("connection", "close"),
        ("transfer-encoding", "chunked"),
        ("keep-alive", "a"),
        ("upgrade", "a"),
        ("content-length", "7"),
        ("x-a", "b"),
    ];
    let exact = response_text(200, &fields, BodySize::Exact(3));
    assert_eq!(exact, ["x-a: b", "content-length: 3"]);
    assert_eq!(response_text(200, &fields, BodySize::Unknown), ["x-a: b"]);
    // The length of a body that is not sent.
    let unsent = response_text(304, &fields, BodySize::None);
    assert_eq!(unsent, ["content-length: 7", "x-a: b"]);
    assert_eq!(response_text(204, &fields, BodySize::None), ["x-a: b"]);
}

proptest! {
    #[test]
    fn any_head_is_taken_or_refused(
        path in "/[a-zA-Z0-9%._~!$&'()*+,;=:@/?-]{0,20}",
        name in "[a-z_-]{1,8}",
        value in "[ -~]{0,12}",
    ) {
        let request = Request::builder().uri(format!("http://a{path}")).header(&name, &value);
        if let Ok(request) = request.body(()) {
            let read = read_request(&request, true, &LIMITS, &mut HeadRoom::default());
            if let Ok(read) = read {
                prop_assert_eq!(read.head.target.as_str(), path);
            }
        }
    }
}
