use castling_sdk::testing::{self, Exchange};

use super::*;

/// bcrypt's, of cost 5, of "myPassword".
const HASH: &str = "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC";

fn plugin(more: &str) -> BasicAuth {
    let config = format!(r#"{{"users": {{"ada": "{HASH}"}}{more}}}"#);
    BasicAuth::configure(testing::config(&config).unwrap()).unwrap()
}

fn with(user: &str, password: &str) -> Exchange {
    let credentials = BASE64.encode(format!("{user}:{password}").as_bytes());
    Exchange::get("/").header("authorization", format!("Basic {credentials}"))
}

fn status(plugin: &BasicAuth, exchange: &mut Exchange) -> Option<u16> {
    match plugin.access(exchange.request()).unwrap() {
        Verdict::Answer(response) => Some(response.status_code()),
        _ => None,
    }
}

#[test]
fn who_knows_the_password_passes() {
    let plugin = plugin(r#", "header": "x-user""#);
    let mut right = with("ada", "myPassword").header("x-user", "root");
    assert_eq!(status(&plugin, &mut right), None);
    let request = right.request();
    assert_eq!(request.header("x-user").unwrap(), "ada");
    assert_eq!(request.var("user").unwrap(), "ada");
    assert_eq!(request.header("authorization"), None);
    let basic = |text: &str| Exchange::get("/").header("authorization", text);
    for mut wrong in [
        with("ada", "other"),
        with("bob", "myPassword"),
        with("", "myPassword"),
        Exchange::get("/"),
        basic("Basic"),
        basic("Basic !"),
        basic("Bearer YWRhOm15UGFzc3dvcmQ="),
        basic("Basic YWRh"),
    ] {
        assert_eq!(status(&plugin, &mut wrong), Some(401));
    }
    let Verdict::Answer(refused) = plugin.access(Exchange::get("/").request()).unwrap() else {
        panic!("it has passed");
    };
    let challenge = refused.header_value("www-authenticate").unwrap();
    assert_eq!(challenge, "Basic realm=\"restricted\", charset=\"UTF-8\"");
}

#[test]
fn a_password_that_was_right_is_kept_until_it_is_another() {
    let cache = r#", "cache": {"zone": "kept", "secret": "0123456789abcdef"}"#;
    let one = plugin(cache);
    assert_eq!(status(&one, &mut with("ada", "myPassword")), None);
    let cache = one.config.cache.as_ref().unwrap();
    assert!(
        cache
            .zone
            .get(kept_as(cache, HASH, "myPassword"))
            .unwrap()
            .is_some()
    );
    assert!(
        cache
            .zone
            .get(kept_as(cache, HASH, "other"))
            .unwrap()
            .is_none()
    );
    assert_eq!(status(&one, &mut with("ada", "other")), Some(401));
    assert_eq!(status(&one, &mut with("ada", "myPassword")), None);
}

#[test]
fn who_tries_too_often_is_not_verified() {
    let cache = r#", "cache": {"zone": "kept", "secret": "0123456789abcdef"}"#;
    let plugin = plugin(&format!(
        r#"{cache}, "attempts": {{"zone": "tries", "a_minute": 2}}"#
    ));
    for expected in [401, 401, 429, 429] {
        assert_eq!(status(&plugin, &mut with("ada", "guess")), Some(expected));
    }
    let names = &plugin.config.attempts.as_ref().unwrap().zone;
    assert_eq!(status(&plugin, &mut with("bob", "guess")), Some(429));
    assert_eq!(
        names.get("user bob").unwrap(),
        0,
        "whoever is barred adds nothing"
    );
    assert_eq!(
        status(&plugin, &mut with("ada", "myPassword")),
        Some(429),
        "not even the right one"
    );
    testing::advance_clock(MINUTE);
    assert_eq!(status(&plugin, &mut with("ada", "myPassword")), None);
}

#[test]
fn who_was_let_in_before_needs_no_password() {
    let plugin = plugin(r#", "unless": "access""#);
    assert_eq!(
        status(&plugin, &mut Exchange::get("/").var("access", "1")),
        None
    );
    assert_eq!(
        status(&plugin, &mut Exchange::get("/").var("access", "0")),
        Some(401)
    );
    let mut inside = with("root", "x").var("access", "1");
    assert_eq!(status(&plugin, &mut inside), None);
    assert_eq!(
        inside.request().header("authorization"),
        None,
        "nobody has looked at it"
    );
}

#[test]
fn a_file_is_followed() {
    testing::set_file("users", format!("# all\nada:{HASH}:her name\n"));
    let config = testing::config(r#"{"file": "users"}"#).unwrap();
    let plugin = BasicAuth::configure(config).unwrap();
    assert_eq!(status(&plugin, &mut with("ada", "myPassword")), None);
    testing::set_file("users", "ada:$apr1$x$y\n");
    assert_eq!(
        status(&plugin, &mut with("ada", "myPassword")),
        None,
        "it is wrong"
    );
    testing::set_file("users", format!("bob:{HASH}\n"));
    assert_eq!(status(&plugin, &mut with("ada", "myPassword")), Some(401));
    assert_eq!(status(&plugin, &mut with("bob", "myPassword")), None);
}

#[test]
fn a_config_without_sense_is_refused() {
    testing::set_file("bad", "ada\n");
    for (config, error) in [
        ("{}".to_owned(), "expected `users` or `file`"),
        (
            r#"{"users": {"ada": "{SHA}x"}}"#.to_owned(),
            "config.users.ada: expected a hash by bcrypt",
        ),
        (
            r#"{"users": {"ada": "$2y$05$short"}}"#.to_owned(),
            "config.users.ada: expected a hash by bcrypt",
        ),
        (
            format!(r#"{{"users": {{"a": "{HASH}"}}, "attempts": {{"zone": "z"}}}}"#),
            "config.attempts: expected `cache` beside it",
        ),
        (
            r#"{"file": "bad"}"#.to_owned(),
            "config.file: bad: line 1: expected `name:hash`",
        ),
        (
            format!(r#"{{"users": {{"a:b": "{HASH}"}}}}"#),
            "expected a name without a colon",
        ),
        (
            format!(r#"{{"users": {{"a": "{HASH}"}}, "realm": "a\"b"}}"#),
            "config.realm",
        ),
        (
            format!(
                r#"{{"users": {{"a": "{HASH}"}}, "cache": {{"zone": "z", "secret": "short"}}}}"#
            ),
            "config.cache.secret: expected 16 bytes or more",
        ),
    ] {
        let refused = testing::config(&config)
            .and_then(BasicAuth::configure)
            .err();
        let refused = refused.map(|error| error.to_string()).unwrap_or_default();
        assert!(refused.contains(error), "{config}: {refused}");
    }
}
