//! access, basic-auth, concurrency and security-headers over real sockets, as their READMEs say.

use std::sync::Arc;
use std::thread;

use castling_tests::{Proxy, Setup, body, origin, until};
use http::{Response, StatusCode};
use tokio::sync::Semaphore;

fn setup(plugins: &str, list: &str) -> Setup {
    let config = r#"
        [workers]
        count = 2

        [listeners.web]
        bind = "{listen}"

        [upstreams.app]
        peers = ["{app}"]

        [zones.logins]
        kind = "kv"
        size = "1MiB"

        [zones.attempts]
        kind = "counter"
        size = "1MiB"

        [zones.under-way]
        kind = "gauge"
        size = "1MiB"

        [[routes]]
        upstream = "app"
        plugins = LIST
    "#;
    let config = config.replace("LIST", list);
    Proxy::with_config(&format!("{config}\n{plugins}"))
}

/// bcrypt's, of cost 5, of "myPassword".
const HASH: &str = "$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC";

/// `ada:myPassword`.
const RIGHT: &str = "Basic YWRhOm15UGFzc3dvcmQ=";

/// `ada:guess`.
const WRONG: &str = "Basic YWRhOmd1ZXNz";

#[test]
fn passwords_are_asked_for_kept_and_not_guessed() {
    let plugins = r#"
        [plugins.auth]
        wasm = "{plugins}/basic_auth.wasm"
        grants = { files = ["users"] }

        [plugins.auth.config]
        file = "users"
        header = "x-user"
        cache = { zone = "logins", secret = { from_file = "key" } }
        attempts = { zone = "attempts", a_minute = 4 }
    "#;
    let proxy = setup(plugins, "[\"auth\"]")
        .file("users", format!("ada:{HASH}\n"))
        .file("key", "0123456789abcdef\n")
        .origin("app", origin::text("hello"))
        .start();
    let asked = |credentials: Option<&str>| {
        let headers = credentials.map(|text| ("authorization", text));
        proxy.get_with("/", headers.as_slice())
    };
    let refused = asked(None);
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    let challenge = "Basic realm=\"restricted\", charset=\"UTF-8\"";
    assert_eq!(refused.header("www-authenticate"), Some(challenge));
    assert_eq!(asked(Some(RIGHT)).status, StatusCode::OK);
    let seen = proxy.origin("app").last();
    assert_eq!(
        (seen.header("x-user"), seen.header("authorization")),
        (Some("ada"), None)
    );
    assert_eq!(
        asked(Some(RIGHT)).status,
        StatusCode::OK,
        "it is known by the zone, in each worker, and no attempt"
    );
    for expected in [401, 401, 401, 429] {
        assert_eq!(asked(Some(WRONG)).status.as_u16(), expected);
    }
    assert_eq!(
        asked(Some(RIGHT)).status,
        StatusCode::TOO_MANY_REQUESTS,
        "whoever has guessed too often is told nothing"
    );
}

#[test]
fn a_network_or_a_password_lets_pass() {
    let plugins = |network: &str| {
        format!(
            r#"
            [plugins.access]
            wasm = "{{plugins}}/access.wasm"
            config = {{ rules = [{{ action = "allow", networks = ["{network}"] }}], satisfy = "any" }}

            [plugins.auth]
            wasm = "{{plugins}}/basic_auth.wasm"
            config = {{ users = {{ ada = "{HASH}" }}, unless = "access" }}
            "#
        )
    };
    let start = |network: &str, list: &str| {
        let setup = setup(&plugins(network), list);
        setup.origin("app", origin::text("hello")).start()
    };
    let both = "[\"access\", \"auth\"]";
    let inside = start("127.0.0.0/8", both);
    assert_eq!(inside.get("/").status, StatusCode::OK);
    let outside = start("10.0.0.0/8", both);
    assert_eq!(outside.get("/").status, StatusCode::UNAUTHORIZED);
    let known = outside.get_with("/", &[("authorization", RIGHT)]);
    assert_eq!(known.status, StatusCode::OK);
}

#[test]
fn so_many_requests_are_under_way_at_a_time_and_no_more() {
    let plugins = r#"
        [plugins.concurrency]
        wasm = "{plugins}/concurrency.wasm"
        config = { zone = "under-way", max = 2 }
    "#;
    let gate = Arc::new(Semaphore::new(0));
    let closed = Arc::clone(&gate);
    let slow = origin::serving(move |request| {
        let gate = Arc::clone(&closed);
        async move {
            if request.uri().path() == "/slow" {
                gate.acquire().await.expect("an open gate").forget();
            }
            Response::new(body::full("hello".to_owned()))
        }
    });
    let proxy = setup(plugins, "[\"concurrency\"]")
        .origin("app", slow)
        .start();
    thread::scope(|scope| {
        let waiting: Vec<_> = (0..2).map(|_| scope.spawn(|| proxy.get("/slow"))).collect();
        until("two are under way", || proxy.origin("app").requests() == 2);
        assert_eq!(proxy.get("/").status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(proxy.get("/").header("retry-after"), Some("1"));
        gate.add_permits(2);
        for waiting in waiting {
            assert_eq!(waiting.join().unwrap().status, StatusCode::OK);
        }
    });
    until("permits are back", || {
        proxy.get("/").status == StatusCode::OK
    });
}

#[test]
fn browsers_are_told_what_protects() {
    let plugins = r#"
        [plugins.headers]
        wasm = "{plugins}/security_headers.wasm"
        config = { content_security_policy = "default-src 'self'" }
    "#;
    let proxy = setup(plugins, "[\"headers\"]")
        .origin("app", origin::text("hello"))
        .start();
    let reply = proxy.get("/");
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(
        reply.header("content-security-policy"),
        Some("default-src 'self'")
    );
    assert_eq!(reply.header("strict-transport-security"), None);
}
