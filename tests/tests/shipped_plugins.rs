//! hmac-body, external-auth, cors, canary and ticks over real sockets, as their READMEs say.

use castling_tests::origin::Origin;
use castling_tests::{Proxy, Reply, body, origin, raw_origin, until};
use http::{Request, Response, StatusCode};

// hmac-body

/// RFC 4231 §4.3, test case 2, with the key "Jefe".
const SIGNED_BODY: &str = "what do ya want for nothing?";
const SIGNATURE: &str = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";

#[test]
fn hmac_body_lets_signed_bodies_pass() {
    let proxy = hmac_body();
    let reply = signed(&proxy, Some(SIGNATURE), SIGNED_BODY);
    assert_eq!(
        (reply.status, reply.text().as_str()),
        (StatusCode::OK, "hello")
    );
    assert_eq!(proxy.origin("app").last().body, SIGNED_BODY);
}

#[test]
fn hmac_body_refuses_others_before_the_upstream_sees_them() {
    let proxy = hmac_body();
    let long = "x".repeat(65);
    let without_prefix = SIGNATURE.trim_start_matches("sha256=");
    for (what, signature, body, expected) in [
        ("none", None, SIGNED_BODY, 401),
        ("no prefix", Some(without_prefix), SIGNED_BODY, 401),
        ("another body", Some(SIGNATURE), "what else?", 401),
        ("too long", Some(SIGNATURE), long.as_str(), 413),
        ("too long, unsigned", None, long.as_str(), 401),
    ] {
        let reply = signed(&proxy, signature, body);
        assert_eq!(reply.status.as_u16(), expected, "{what}");
    }
    assert_eq!(proxy.origin("app").requests(), 0);
    assert_eq!(proxy.error_lines(), [""; 0]);
}

#[track_caller]
fn hmac_body() -> Proxy {
    let config = r#"
        [plugins.hmac-body]
        wasm = "{plugins}/hmac_body.wasm"

        [plugins.hmac-body.config]
        header = "x-hub-signature-256"
        prefix = "sha256="
        secrets = ["the next one", "Jefe"]
        limit = 64

        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["{app}"]

        [[routes]]
        plugins = ["hmac-body"]
        upstream = "app"
    "#;
    Proxy::with_config(config)
        .origin("app", origin::text("hello"))
        .start()
}

#[track_caller]
fn signed(proxy: &Proxy, signature: Option<&str>, body: &str) -> Reply {
    let mut request = Request::post("/hook");
    if let Some(signature) = signature {
        request = request.header("x-hub-signature-256", signature);
    }
    let request = request.body(body::full(body.to_owned()));
    proxy.send(request.expect("a valid request"))
}

// external-auth

#[test]
fn external_auth_lets_a_request_pass_with_the_services_headers() {
    let proxy = external_auth(service(), "");
    let request = Request::put("/a/b?c=d")
        .header("host", "shop.example")
        .header("authorization", "Bearer good")
        .header("x-user", "forged")
        .header("x-groups", "forged")
        .body(body::full("the body"));
    let reply = proxy.send(request.unwrap());
    assert_eq!(
        (reply.status, reply.text().as_str()),
        (StatusCode::OK, "hello")
    );

    let asked = proxy.origin("auth").last();
    assert_eq!(
        (asked.method.as_str(), asked.target.as_str()),
        ("GET", "/verify")
    );
    assert_eq!(asked.body, "");
    for (name, value) in [
        ("authorization", Some("Bearer good")),
        ("x-original-method", Some("PUT")),
        ("x-original-uri", Some("/a/b?c=d")),
        ("x-original-host", Some("shop.example")),
        ("x-original-scheme", Some("http")),
        ("x-real-ip", Some("127.0.0.1")),
        ("x-user", None),
    ] {
        assert_eq!(asked.header(name), value, "{name}");
    }

    let seen = proxy.origin("app").last();
    assert_eq!(seen.body, "the body");
    let users: Vec<_> = seen.headers.get_all("x-user").iter().collect();
    assert_eq!(users, ["ada"]);
    // The service said nothing of groups, and clients have no say.
    assert_eq!(seen.header("x-groups"), None);
}

#[test]
fn external_auth_passes_a_refusal_on() {
    let proxy = external_auth(service(), "");
    let reply = proxy.get("/");
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        reply.header("www-authenticate"),
        Some("Bearer realm=\"shop\"")
    );
    assert_eq!(
        (reply.header("content-type"), reply.text().as_str()),
        (Some("text/x-why"), "who are you?")
    );
    assert_eq!(reply.header("x-inner"), None);
    let reply = proxy.get_with("/", &[("authorization", "Bearer known")]);
    assert_eq!(
        (reply.status, reply.text().as_str()),
        (StatusCode::FORBIDDEN, "not you")
    );
    assert_eq!(proxy.origin("app").requests(), 0);
    assert_eq!(proxy.error_lines(), [""; 0]);
}

#[test]
fn external_auth_fails_with_its_service_unless_it_is_to_fail_open() {
    let moved = || raw_origin::repeating("HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n");
    let services: [(fn() -> Origin, StatusCode); 3] = [
        (moved, StatusCode::INTERNAL_SERVER_ERROR),
        (
            || raw_origin::closing("nonsense\r\n\r\n"),
            StatusCode::BAD_GATEWAY,
        ),
        (raw_origin::stalled, StatusCode::GATEWAY_TIMEOUT),
    ];
    for (service, status) in services {
        let proxy = external_auth(service(), "");
        assert_eq!(proxy.get("/").status, status);
        assert_eq!(proxy.origin("app").requests(), 0);
        assert_eq!(proxy.error_lines().len(), 1);

        let proxy = external_auth(service(), "fail_open = true");
        let reply = proxy.get_with("/", &[("x-user", "forged")]);
        assert_eq!(reply.text(), "hello");
        assert_eq!(proxy.origin("app").last().header("x-user"), None);
        let told = proxy.until_log_has("the request passes unauthenticated");
        assert!(told.contains("WARN"), "{told}");
        assert_eq!(proxy.error_lines(), [""; 0]);
    }
}

/// Knows who is good, and who is known, but not good.
fn service() -> Origin {
    origin::answering(|seen| {
        let (status, text) = match seen.header("authorization") {
            Some("Bearer good") => (200, ""),
            Some("Bearer known") => (403, "not you"),
            _ => (401, "who are you?"),
        };
        Response::builder()
            .status(status)
            .header("x-user", "ada")
            .header("x-inner", "1")
            .header("www-authenticate", "Bearer realm=\"shop\"")
            .header("content-type", "text/x-why")
            .body(body::full(text))
            .unwrap()
    })
}

#[test]
fn external_auth_refuses_an_upstream_that_is_not_granted() {
    let config = r#"
        [plugins.external-auth]
        wasm = "{plugins}/external_auth.wasm"
        config = { upstream = "gone", path = "/verify" }
        grants = { upstreams = ["app"] }

        [listeners.web]
        bind = "127.0.0.1:1"

        [upstreams]
        app.peers = ["127.0.0.1:2"]

        [[routes]]
        plugins = ["external-auth"]
        upstream = "app"
    "#;
    let error = "{dir}/castling.toml:3:23: plugin external-auth: config.upstream: not granted; expected an upstream";
    Proxy::with_config(config).check().expect_error(error);
}

#[track_caller]
fn external_auth(service: Origin, more: &str) -> Proxy {
    let config = r#"
        [plugins.external-auth]
        wasm = "{plugins}/external_auth.wasm"
        grants = { upstreams = ["auth"] }

        [plugins.external-auth.config]
        upstream = "auth"
        path = "/verify"
        copy = ["x-user", "x-groups"]
        timeout = "200ms"
        MORE

        [listeners.web]
        bind = "{listen}"

        [upstreams]
        app.peers = ["{app}"]
        auth.peers = ["{auth}"]

        [[routes]]
        plugins = ["external-auth"]
        upstream = "app"
    "#;
    Proxy::with_config(&config.replace("MORE", more))
        .origin("app", origin::text("hello"))
        .origin("auth", service)
        .start()
}

// cors

#[test]
fn cors_answers_preflights_before_anyone_asks_who_it_is() {
    let proxy = cors();
    for origin in ["https://app.example.com", "https://a.b.example.org"] {
        let reply = preflight(&proxy, origin);
        assert_eq!(
            (reply.status, reply.text().as_str()),
            (StatusCode::NO_CONTENT, "")
        );
        for (name, value) in [
            ("access-control-allow-origin", origin),
            ("access-control-allow-methods", "GET, PUT"),
            ("access-control-allow-headers", "authorization, x-a"),
            ("access-control-allow-credentials", "true"),
            ("access-control-max-age", "3600"),
            ("vary", "Origin"),
        ] {
            assert_eq!(reply.header(name), Some(value), "{name} for {origin}");
        }
    }
    for origin in ["https://evil.example", "https://example.org", "null"] {
        let reply = preflight(&proxy, origin);
        assert_eq!(reply.status, StatusCode::FORBIDDEN, "{origin}");
        assert_eq!(reply.header("access-control-allow-origin"), None);
    }
    assert_eq!(proxy.origin("app").requests(), 0);
}

#[test]
fn cors_lets_chosen_origins_read_responses() {
    let proxy = cors();
    let get = |headers: &[(&str, &str)]| {
        let headers = [&[("authorization", "s3cret")], headers].concat();
        let reply = proxy.get_with("/", &headers);
        assert_eq!(reply.text(), "hello");
        // The value that the upstream says is replaced.
        let values = reply.headers.get_all("access-control-allow-origin");
        assert!(values.iter().all(|value| value != "*"), "{reply:?}");
        assert_eq!(reply.header("vary"), Some("Origin"));
        reply
    };
    let reply = get(&[("origin", "https://app.example.com")]);
    for (name, value) in [
        ("access-control-allow-origin", "https://app.example.com"),
        ("access-control-allow-credentials", "true"),
        ("access-control-expose-headers", "x-request-id"),
    ] {
        assert_eq!(reply.header(name), Some(value), "{name}");
    }
    // Others get the response, too: it is their browser that keeps it from them.
    let others: [&[(&str, &str)]; 2] = [&[("origin", "https://evil.example")], &[]];
    for headers in others {
        let reply = get(headers);
        assert_eq!(reply.header("access-control-allow-origin"), None);
        assert_eq!(reply.header("access-control-allow-credentials"), None);
    }
    // Also a refusal can be read.
    let reply = proxy.get_with("/", &[("origin", "https://app.example.com")]);
    assert_eq!(
        (reply.status, reply.header("access-control-allow-origin")),
        (StatusCode::UNAUTHORIZED, Some("https://app.example.com"))
    );
    // OPTIONS that is no preflight is the upstream's.
    let request = Request::options("/").header("authorization", "s3cret");
    let reply = proxy.send(request.body(body::empty()).unwrap());
    assert_eq!(reply.text(), "hello");
}

#[track_caller]
fn preflight(proxy: &Proxy, origin: &str) -> Reply {
    let request = Request::options("/")
        .header("origin", origin)
        .header("access-control-request-method", "PUT")
        .header("access-control-request-headers", "authorization");
    proxy.send(request.body(body::empty()).expect("a valid request"))
}

#[track_caller]
fn cors() -> Proxy {
    let config = r#"
        [plugins.cors]
        wasm = "{plugins}/cors.wasm"

        [plugins.cors.config]
        origins = ["https://app.example.com", "*.example.org"]
        methods = ["GET", "PUT"]
        headers = ["authorization", "x-a"]
        exposed = ["x-request-id"]
        credentials = true
        max_age = "1h"

        [plugins.auth]
        wasm = "{plugins}/token_auth.wasm"
        config = { header = "authorization", tokens = ["s3cret"] }

        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["{app}"]

        [[routes]]
        plugins = ["auth", "cors"]
        upstream = "app"
    "#;
    let app = origin::answering(|_| {
        let response = Response::builder().header("access-control-allow-origin", "*");
        response.body(body::full("hello")).unwrap()
    });
    Proxy::with_config(config).origin("app", app).start()
}

// canary

#[test]
fn canary_splits_by_weight_and_the_client_cannot_forge_it() {
    let proxy = canary("stable = 1, canary = 1");
    let tally = proxy.tally("/", 100);
    assert_eq!(tally.keys().collect::<Vec<_>>(), ["canary", "stable"]);

    let proxy = canary("stable = 1, canary = 0");
    for _ in 0..20 {
        let reply = proxy.get_with("/", &[("x-variant", "canary")]);
        assert_eq!(reply.text(), "stable");
        let seen = proxy.origin("stable").last();
        assert_eq!(seen.header("x-variant"), Some("stable"));
    }
    assert_eq!(proxy.origin("canary").requests(), 0);
}

#[test]
fn canary_gives_a_client_the_variant_it_names() {
    let proxy = canary("stable = 1, canary = 0");
    for (wanted, served) in [
        ("canary", "canary"),
        ("stable", "stable"),
        ("nothing", "stable"),
    ] {
        let reply = proxy.get_with("/", &[("x-want-variant", wanted)]);
        assert_eq!(reply.text(), served, "{wanted}");
    }
}

#[test]
fn canary_keeps_a_client_with_its_variant() {
    let proxy = canary("stable = 1, canary = 1");
    for variant in ["stable", "canary"] {
        let cookie = format!("a=b; variant={variant}");
        for _ in 0..20 {
            let reply = proxy.get_with("/", &[("cookie", &cookie)]);
            assert_eq!(
                (reply.text().as_str(), reply.header("set-cookie")),
                (variant, None)
            );
        }
    }
    // A new client is told once.
    let reply = proxy.get("/");
    let set = format!(
        "variant={}; Path=/; Max-Age=86400; HttpOnly; SameSite=Lax",
        reply.text()
    );
    assert_eq!(reply.header("set-cookie"), Some(set.as_str()));
    // Clients leave a variant of weight 0.
    let proxy = canary("stable = 1, canary = 0");
    let reply = proxy.get_with("/", &[("cookie", "variant=canary")]);
    assert_eq!(reply.text(), "stable");
    assert!(
        reply
            .header("set-cookie")
            .unwrap_or_default()
            .starts_with("variant=stable;")
    );
}

#[test]
fn canary_looks_for_the_route_again_once() {
    let proxy = canary("stable = 1, canary = 1");
    assert_eq!(
        proxy.get_with("/", &[("x-want-variant", "canary")]).text(),
        "canary"
    );
    let [line] = proxy.until_access_lines(1).try_into().unwrap();
    let trail = line.strip_prefix("canary ").expect(&line);
    assert_eq!(trail.matches("before.rewrite").count(), 2, "{trail}");
    assert_eq!(trail.matches("before.access").count(), 1, "{trail}");
}

/// Origins that tell which variant they are; the access log has the variant and what a plugin before canary went
/// through.
#[track_caller]
fn canary(variants: &str) -> Proxy {
    let config = r#"
        [access_log]
        file = "{dir}/access.log"
        format = "$variant $trail"
        flush = "0s"

        [plugins.before]
        wasm = "{guests}/recorder.wasm"
        config = { label = "before" }

        [plugins.canary]
        wasm = "{plugins}/canary.wasm"

        [plugins.canary.config]
        variants = { VARIANTS }
        cookie = "variant"
        choose_header = "x-want-variant"

        [listeners.web]
        bind = "{listen}"
        plugins = ["before", "canary"]

        [upstreams]
        app.peers = ["{stable}"]
        app-canary.peers = ["{canary}"]

        [[routes]]
        path = "/"
        headers = { x-variant = "canary" }
        upstream = "app-canary"

        [[routes]]
        path = "/"
        upstream = "app"
    "#;
    Proxy::with_config(&config.replace("VARIANTS", variants))
        .origin("stable", origin::text("stable"))
        .origin("canary", origin::text("canary"))
        .start()
}

// ticks

#[test]
fn ticks_streams_events_until_the_client_leaves() {
    let config = r#"
        [plugins.ticks]
        wasm = "{plugins}/ticks.wasm"
        config = { every = "10ms", count = 3 }

        [plugins.endless]
        wasm = "{plugins}/ticks.wasm"
        config = { every = "10ms" }

        [listeners.web]
        bind = "{listen}"

        [[routes]]
        plugins = ["ticks"]

        [[routes]]
        path = "/endless"
        plugins = ["endless"]
    "#;
    let proxy = Proxy::with_config(config).start();
    let reply = proxy.get_with("/", &[("last-event-id", "41")]);
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
    let text = reply.text();
    let ids: Vec<&str> = text.lines().filter(|line| line.starts_with("id")).collect();
    assert_eq!(ids, ["id: 42", "id: 43", "id: 44"]);
    let mut client = proxy.raw();
    client.send("HEAD /endless HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.read_reply_to_head().status, 200);
    client.send("GET /endless HTTP/1.1\r\nHost: a\r\n\r\n");
    client.read_head().expect("a head");
    let events = client.read_exact(1000).expect("a stream");
    assert!(String::from_utf8_lossy(&events).contains("\nid: 2\n"));
    client.reset();
    let active = || proxy.status()["workers"][0]["requests_active"].as_u64();
    until("its hook has ended", || active() == Some(0));
    assert_eq!(proxy.error_lines(), [""; 0]);
}
