//! Where a token is looked for.

use super::*;

#[test]
fn who_has_no_token_is_told_so() {
    let mut plugin = es256_plugin(r#""required": []"#);
    for exchange in [
        Exchange::get("/"),
        Exchange::get("/").header("authorization", "Basic YTpi"),
        Exchange::get("/").header("authorization", "Bearer"),
        Exchange::get("/?access_token=t").header("cookie", "token=t"),
    ] {
        let mut exchange = exchange;
        assert_eq!(outcome(&mut plugin, &mut exchange), "401");
    }
    let mut plugin = es256_plugin(r#""required": [], "realm": "api""#);
    let mut exchange = Exchange::get("/");
    assert_eq!(outcome(&mut plugin, &mut exchange), "401 realm=\"api\"");
    let mut plugin = es256_plugin(r#""optional": true"#);
    assert_eq!(outcome(&mut plugin, &mut Exchange::get("/")), "passed");
}

#[test]
fn the_header_goes_before_the_cookie_before_the_query() {
    let config =
        r#""required": [], "cookie": "jwt", "query": "access_token", "claims": {"sub": "user"}"#;
    let token = |user: &str| es256_token(&format!(r#"{{"sub":"{user}"}}"#));
    let (header, cookie, query) = (token("header"), token("cookie"), token("query"));
    let mut plugin = es256_plugin(config);
    let exchange = || Exchange::get(&format!("/?a=b&access_token={query}"));
    let cookies = format!("a=b; jwt={cookie}");
    for (exchange, user) in [
        (
            exchange()
                .header("cookie", &cookies)
                .header("authorization", format!("bEARER  {header}")),
            "header",
        ),
        (
            exchange()
                .header("cookie", &cookies)
                .header("authorization", "Basic YTpi"),
            "cookie",
        ),
        (exchange(), "query"),
    ] {
        let mut exchange = exchange;
        assert_eq!(outcome(&mut plugin, &mut exchange), "passed");
        assert_eq!(exchange.request().var("user").unwrap(), user);
    }
}

#[test]
fn several_tokens_are_one_too_many() {
    let mut plugin =
        es256_plugin(r#""required": [], "cookie": "jwt", "query": "t", "optional": true"#);
    let token = es256_token("{}");
    let cookie = format!("jwt={token}");
    let authorization = format!("Bearer {token}");
    let several = refused("the request has several tokens");
    for exchange in [
        bearer(&token).header("authorization", &authorization),
        bearer(&token).header("authorization", "Basic YTpi"),
        Exchange::get(&format!("/?t={token}&t={token}")),
        Exchange::get("/").header("cookie", format!("{cookie}; {cookie}")),
        Exchange::get("/").header("cookie", format!("a=b;{cookie};jwt=")),
        Exchange::get("/")
            .header("cookie", &cookie)
            .header("cookie", "c=d; jwt =x"),
    ] {
        let mut exchange = exchange;
        assert_eq!(outcome(&mut plugin, &mut exchange), several);
    }
    // Others' names are others' cookies.
    let mut exchange = Exchange::get("/")
        .header("cookie", format!("JWT=x; {cookie}; jwt2=x; xjwt=x"))
        .header("cookie", "jwt");
    assert_eq!(outcome(&mut plugin, &mut exchange), "passed");
}

#[test]
fn a_header_of_ones_own_needs_no_scheme() {
    let mut plugin = es256_plugin(r#""required": [], "header": "x-jwt", "scheme": """#);
    let mut exchange = Exchange::get("/").header("x-jwt", es256_token("{}"));
    assert_eq!(outcome(&mut plugin, &mut exchange), "passed");
}

#[test]
fn upstreams_need_not_see_the_token() {
    let config = r#""required": [], "cookie": "jwt", "query": "t", "remove": true"#;
    let token = es256_token("{}");
    let mut plugin = es256_plugin(config);
    let mut exchange = Exchange::get(&format!("/?t={token}&a=b&t2"))
        .header("authorization", format!("Bearer {token}"))
        .header("cookie", format!("a=b;jwt={token} ; jwt2=c"))
        .header("cookie", "jwt=again");
    // The header's counts, and none of them goes on.
    assert_eq!(outcome(&mut plugin, &mut exchange), "passed");
    let request = exchange.request();
    assert_eq!(request.header("authorization"), None);
    assert_eq!(
        request.header_all("cookie"),
        [HeaderValue::new("a=b; jwt2=c").unwrap()]
    );
    assert_eq!(request.query().as_deref(), Some("a=b&t2"));

    // A source that is none stays.
    let mut exchange = Exchange::get(&format!("/?t={token}"))
        .header("authorization", "Basic YTpi")
        .header("cookie", "a=b");
    assert_eq!(outcome(&mut plugin, &mut exchange), "passed");
    let request = exchange.request();
    assert_eq!(request.header("authorization").unwrap(), "Basic YTpi");
    assert_eq!(request.header("cookie").unwrap(), "a=b");
    assert_eq!(request.query(), None);
}
