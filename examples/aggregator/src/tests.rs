use castling_sdk::testing::{self, Exchange, FailedCall};

use super::*;

fn page() -> Page {
    let config = r#"{"timeout": "1s", "forward": ["authorization"], "parts": {
        "user": {"upstream": "users", "path": "/me", "required": true},
        "news": {"upstream": "news", "path": "/latest"}}}"#;
    testing::config(config).unwrap()
}

/// Status and body.
fn answer(mut exchange: Exchange) -> (u16, String) {
    match page().content(exchange.request()).unwrap() {
        Verdict::Answer(response) => {
            let body = String::from_utf8_lossy(response.body_bytes()).into_owned();
            (response.status_code(), body)
        }
        other => panic!("{other:?}"),
    }
}

fn json(text: &'static str) -> impl Fn(&http::Request) -> Response {
    move |_| Response::status(200).body(text)
}

#[test]
fn parts_are_asked_with_what_the_client_has_sent() {
    let exchange = Exchange::get("/?q=1").header("authorization", "Bearer 7");
    let exchange = exchange.call("news", json("[1]")).call("users", |call| {
        assert_eq!(
            (call.target(), call.longest_wait()),
            ("/me?q=1", Some(Duration::from_secs(1)))
        );
        let name = call.header_value("authorization").unwrap();
        Response::status(200).json(&name.as_str()).unwrap()
    });
    let whole = r#"{"errors":{},"news":[1],"user":"Bearer 7"}"#;
    assert_eq!(answer(exchange), (200, whole.to_owned()));
}

#[test]
fn a_part_that_fails_is_missing_and_told() {
    let user = || Exchange::get("/").call("users", json("7"));
    for (exchange, why) in [
        (
            user().failing_call_of("news", FailedCall::Timeout, "secret"),
            "timeout",
        ),
        (
            user().failing_call_of("news", FailedCall::Refused, "secret"),
            "refused",
        ),
        (
            user().call("news", |_| Response::status(500)),
            "another status",
        ),
        (user().call("news", json("<p>")), "no JSON"),
    ] {
        let expected = format!(r#"{{"errors":{{"news":"{why}"}},"user":7}}"#);
        assert_eq!(answer(exchange), (200, expected));
    }
}

#[test]
fn there_is_no_page_without_a_required_part() {
    let news = || Exchange::get("/").call("news", json("7"));
    for (exchange, status, why) in [
        (
            news().failing_call_of("users", FailedCall::Timeout, ""),
            504,
            "timeout",
        ),
        (
            news().failing_call_of("users", FailedCall::Connect, ""),
            502,
            "no connection",
        ),
        (
            news().failing_call_of("users", FailedCall::Unavailable, ""),
            503,
            "unavailable",
        ),
        (
            news().call("users", |_| Response::status(404)),
            502,
            "another status",
        ),
    ] {
        let expected = format!(r#"{{"errors":{{"user":"{why}"}}}}"#);
        assert_eq!(answer(exchange), (status, expected));
    }
}
