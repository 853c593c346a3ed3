//! Tests of claims: rules that they must keep, and what they tell.

use super::*;

/// The outcome of a token with these claims, where `config` says what is asked of them. NOW stands for now.
fn outcome_with(config: &str, claims: &str) -> String {
    outcome_of(&mut es256_plugin(config), &es256_token(&at_now(claims)))
}

/// `NOW+5` and the like become numbers.
fn at_now(claims: &str) -> String {
    let mut text = String::new();
    let mut rest = claims;
    while let Some((before, after)) = rest.split_once("NOW") {
        let end = after.find(|c: char| !matches!(c, '+' | '-' | '0'..='9'));
        let (offset, after) = after.split_at(end.unwrap_or(after.len()));
        let offset: i64 = offset.parse().unwrap_or(0);
        text.push_str(before);
        text.push_str(&NOW.saturating_add_signed(offset).to_string());
        rest = after;
    }
    text + rest
}

#[test]
fn times_are_kept_with_leeway() {
    let expired = refused("the token has expired");
    let early = refused("the token is not valid yet");
    let no_time = refused("the token has a time that is none");
    let passed = String::from("passed");
    for (claims, expected) in [
        (r#"{"exp":NOW-59}"#, &passed),
        (r#"{"exp":NOW-60}"#, &expired),
        (r#"{"exp":0}"#, &expired),
        (r#"{"exp":-1}"#, &expired),
        (r#"{"exp":1e300}"#, &passed),
        (r#"{"exp":NOW+1.5}"#, &passed),
        (r#"{"exp":NOW+9,"nbf":NOW+60}"#, &passed),
        (r#"{"exp":NOW+9,"nbf":NOW+61}"#, &early),
        (r#"{"exp":NOW+9,"nbf":NOW+60.5}"#, &early),
        (r#"{"exp":NOW+9,"iat":NOW+60}"#, &passed),
        (r#"{"exp":NOW+9,"iat":NOW+61}"#, &early),
        (r#"{"exp":NOW+9,"iat":NOW-99999}"#, &passed),
        (r#"{"exp":"NOW+9"}"#, &no_time),
        (r#"{"exp":NOW+9,"nbf":null}"#, &no_time),
        (r#"{"exp":NOW+9,"nbf":"soon"}"#, &no_time),
        (r#"{"exp":NOW+9,"iat":[]}"#, &no_time),
    ] {
        assert_eq!(
            &outcome_with(r#""realm": null"#, claims),
            expected,
            "{claims}"
        );
    }
    for (claims, expected) in [(r#"{"exp":NOW+1}"#, &passed), (r#"{"exp":NOW}"#, &expired)] {
        assert_eq!(
            &outcome_with(r#""leeway": "0s""#, claims),
            expected,
            "{claims}"
        );
    }
}

#[test]
fn issuer_and_audience_are_for_us() {
    let config = r#""required": [], "issuers": ["a", "https://b"], "audiences": ["api", "web"]"#;
    let issuer = refused("the token's issuer is not accepted");
    let audience = refused("the token is for another audience");
    let passed = String::from("passed");
    for (claims, expected) in [
        (r#"{"iss":"a","aud":"api"}"#, &passed),
        (r#"{"iss":"https://b","aud":["x","web"]}"#, &passed),
        (r#"{"iss":"https://b/","aud":"api"}"#, &issuer),
        (r#"{"iss":["a"],"aud":"api"}"#, &issuer),
        (r#"{"aud":"api"}"#, &issuer),
        (r#"{"iss":"a"}"#, &audience),
        (r#"{"iss":"a","aud":"API"}"#, &audience),
        (r#"{"iss":"a","aud":[]}"#, &audience),
        (r#"{"iss":"a","aud":["x",1,null]}"#, &audience),
        (r#"{"iss":"a","aud":{"api":"api"}}"#, &audience),
    ] {
        assert_eq!(&outcome_with(config, claims), expected, "{claims}");
    }
}

#[test]
fn required_claims_are_there() {
    let lacks = refused("the token lacks a required claim");
    assert_eq!(
        outcome_with(r#""realm": null"#, "{}"),
        lacks,
        "exp, unless said"
    );
    let config = r#""required": ["sub", "jti"]"#;
    assert_eq!(outcome_with(config, r#"{"sub":"ada"}"#), lacks);
    assert_eq!(outcome_with(config, r#"{"sub":"ada","jti":null}"#), lacks);
    assert_eq!(outcome_with(r#""realm": null"#, r#"{"exp":null}"#), lacks);
    for jti in ["0", "\"\"", "false", "[]"] {
        let claims = format!(r#"{{"sub":"ada","jti":{jti}}}"#);
        assert_eq!(outcome_with(config, &claims), "passed", "{claims}");
    }
}

#[test]
fn a_token_that_allows_less_is_forbidden_more() {
    let config = r#""required": [], "scopes": ["read", "write"], "realm": "a \"b\"""#;
    let forbidden = "403 realm=\"a \\\"b\\\"\", error=\"insufficient_scope\", \
                     error_description=\"the token's scope does not allow this\", scope=\"read write\"";
    for (claims, passes) in [
        (r#"{"scope":"write x read"}"#, true),
        (r#"{"scp":["read","write"]}"#, true),
        (r#"{"scp":"read write"}"#, true),
        (r#"{"scope":"read"}"#, false),
        (r#"{"scope":"readwrite write"}"#, false),
        (r#"{"scope":["read"],"scp":["read","write"]}"#, false),
        (r#"{"scope":7}"#, false),
        ("{}", false),
    ] {
        let expected = if passes { "passed" } else { forbidden };
        assert_eq!(outcome_with(config, claims), expected, "{claims}");
    }
    // A client that cannot prove it is not told that it would not be enough.
    let mut plugin = es256_plugin(config);
    let token = format!(
        "{}.{}",
        unsigned(r#"{"alg":"ES256"}"#, "{}"),
        base64([1; 64])
    );
    assert!(outcome_of(&mut plugin, &token).starts_with("401 realm="));
}

#[test]
fn claims_become_variables_and_headers() {
    let mut plugin = es256_plugin(
        r#""required": [],
           "claims": {"sub": "user", "groups": "groups", "https://x/y": "url", "/a/b~1c/1": "deep", "no": "none", "/a/x": "none"},
           "headers": {"sub": "x-user", "admin": "x-admin", "o": "x-object", "no": "x-no", "nil": "x-nil"}"#,
    );
    let token = es256_token(
        r#"{"sub":"ada\r\nx-admin: true","groups":["a",1,true],"https://x/y":1.5,"a":{"b/c":[0,{"d":2}]},
            "admin":false,"o":{"k":"v"},"nil":null}"#,
    );
    let mut exchange = bearer(&token)
        .header("x-user", "forged")
        .header("x-user", "twice")
        .header("x-no", "forged")
        .header("x-nil", "forged");
    assert_eq!(outcome(&mut plugin, &mut exchange), "passed");
    let request = exchange.request();
    for (name, expected) in [
        ("user", Some("ada  x-admin: true")),
        ("groups", Some("a,1,true")),
        ("url", Some("1.5")),
        ("deep", Some("{\"d\":2}")),
        ("none", None),
    ] {
        let value = request.var(name);
        assert_eq!(
            value.as_ref().and_then(|value| value.as_str()),
            expected,
            "{name}"
        );
    }
    for (name, expected) in [
        ("x-user", Some("ada  x-admin: true")),
        ("x-admin", Some("false")),
        ("x-object", Some("{\"k\":\"v\"}")),
        ("x-no", None),
        ("x-nil", None),
    ] {
        let values = request.header_all(name);
        let values: Vec<_> = values.iter().map(|value| value.as_str().unwrap()).collect();
        assert_eq!(values, expected.into_iter().collect::<Vec<_>>(), "{name}");
    }
}

#[test]
fn upstreams_see_no_forged_claim_whatever_comes_of_the_token() {
    let config = r#""required": [], "headers": {"sub": "x-user"}, "optional": true"#;
    let mut plugin = es256_plugin(config);
    let mut without = Exchange::get("/").header("x-user", "forged");
    assert_eq!(outcome(&mut plugin, &mut without), "passed");
    assert_eq!(without.request().header("x-user"), None);
    let mut bad = bearer("bad").header("x-user", "forged");
    assert!(outcome(&mut plugin, &mut bad).starts_with("401 error"));
    assert_eq!(bad.request().header("x-user"), None);
}
