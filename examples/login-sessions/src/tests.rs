use castling_sdk::testing::{self, Exchange};

use super::*;

/// Of `myPassword`.
const HASH: &str = "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC";

fn login() -> Login {
    let config = format!(
        r#"{{"sessions": "sessions", "attempts": "attempts", "attempts_a_minute": 1, "idle": "30m",
            "header": "x-user", "users": {{"ada": "{HASH}"}}}}"#
    );
    Login::configure(testing::config(&config).unwrap()).unwrap()
}

fn answer(exchange: &mut Exchange) -> Response {
    match login().access(exchange.request()).unwrap() {
        Verdict::Answer(response) => response,
        other => panic!("{other:?}"),
    }
}

fn header(response: &Response, name: &str) -> String {
    let value = response.header_value(name).unwrap();
    value.as_str().unwrap().to_owned()
}

fn posted(target: &str, form: &str, client: &str) -> Response {
    let exchange = Exchange::new("POST", target).body(form);
    answer(&mut exchange.client_address(client))
}

/// Token of a new session.
fn log_in() -> String {
    let response = posted("/login", "user=ada&password=myPassword", "192.0.2.1");
    let cookie = header(&response, "set-cookie");
    let (token, flags) = cookie.split_once(';').unwrap();
    assert_eq!(flags, " Path=/; Secure; HttpOnly; SameSite=Lax");
    token.to_owned()
}

fn with_session(token: &str) -> Exchange {
    let exchange = Exchange::get("/a").header("cookie", token);
    exchange.header("X-User", "root")
}

fn is_known(token: &str) -> bool {
    let mut exchange = with_session(token);
    let verdict = login().access(exchange.request()).unwrap();
    let users = exchange.request().header_all("x-user");
    match verdict {
        Verdict::Continue => {
            assert_eq!(users, [HeaderValue::new("ada").unwrap()]);
            true
        }
        _ => {
            assert!(users.is_empty());
            false
        }
    }
}

#[test]
fn who_has_no_session_is_sent_to_the_form_and_back() {
    let response = answer(&mut Exchange::get("/a?b=c&d"));
    let place = header(&response, "location");
    assert_eq!(
        (response.status_code(), &*place),
        (303, "/login?next=%2Fa%3Fb%3Dc%26d")
    );
    assert_eq!(answer(&mut Exchange::get(&place)).status_code(), 200);
    let response = posted(&place, "user=ada&password=myPassword", "192.0.2.1");
    assert_eq!(
        (response.status_code(), &*header(&response, "location")),
        (303, "/a?b=c&d")
    );
    let response = answer(&mut Exchange::new("POST", "/a"));
    assert_eq!(header(&response, "location"), "/login");
}

#[test]
fn nobody_is_sent_to_another_host() {
    for next in [
        "//evil.example",
        "/%5Cevil.example",
        "https://evil.example",
        "",
        "/%0Ax",
        "/%20",
    ] {
        testing::advance_clock(Duration::from_secs(60));
        let target = format!("/login?next={next}");
        let response = posted(&target, "user=ada&password=myPassword", "192.0.2.1");
        assert_eq!(header(&response, "location"), "/", "{next}");
    }
}

#[test]
fn a_session_lasts_as_long_as_it_is_used_and_until_its_end() {
    let token = log_in();
    assert!(is_known(&token));
    for _ in 0..4 {
        testing::advance_clock(Duration::from_secs(20 * 60));
        assert!(is_known(&token));
    }
    testing::advance_clock(Duration::from_secs(30 * 60));
    assert!(!is_known(&token));

    let token = log_in();
    let response = answer(&mut Exchange::new("POST", "/logout").header("cookie", &token));
    assert!(header(&response, "set-cookie").starts_with("__Host-session=; Path=/; Max-Age=0;"));
    assert!(!is_known(&token));
    assert!(!is_known("__Host-session=0"));
}

#[test]
fn a_login_ends_the_session_before() {
    let token = log_in();
    testing::advance_clock(Duration::from_secs(60));
    let again = Exchange::new("POST", "/login").body("user=ada&password=myPassword");
    answer(&mut again.header("cookie", &token));
    assert!(!is_known(&token));
}

#[test]
fn wrong_passwords_are_few() {
    let wrong = "user=ada&password=wrong";
    assert_eq!(posted("/login", wrong, "192.0.2.1").status_code(), 401);
    // By client and by user.
    let refused = posted("/login", "user=bob&password=wrong", "192.0.2.1");
    assert_eq!(refused.status_code(), 429);
    assert_eq!(posted("/login", wrong, "192.0.2.2").status_code(), 429);
    assert_eq!(posted("/login", "user=bob", "192.0.2.3").status_code(), 401);
    testing::advance_clock(Duration::from_secs(60));
    assert_eq!(posted("/login", "", "192.0.2.1").status_code(), 401);
    let logged: Vec<_> = testing::take_log()
        .into_iter()
        .map(|(_, line)| line)
        .collect();
    assert_eq!(logged[0], "a login has failed client=192.0.2.1");
}
