//! The jwt plugin over real sockets, as its README says.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use castling_tests::origin::Origin;
use castling_tests::{Proxy, Reply, Setup, body, origin, until};
use http::{Response, StatusCode};

// Keys of the config

#[test]
fn a_valid_token_passes_with_its_claims() {
    let proxy = inline_keys();
    for token in [HS256, RS256, ES256_A] {
        let reply = with(&proxy, token);
        assert_eq!(
            (reply.status, reply.text().as_str()),
            (StatusCode::OK, "hello")
        );
        let seen = proxy.origin("app").last();
        assert_eq!(seen.header("x-user"), Some("ada"));
        assert_eq!(seen.header("authorization"), None);
    }
    assert_eq!(proxy.until_access_lines(3), ["200 ada"; 3]);
}

#[test]
fn others_are_refused_as_rfc_6750_says() {
    let proxy = inline_keys();
    let invalid = |reason: &str| {
        format!("Bearer realm=\"shop\", error=\"invalid_token\", error_description=\"{reason}\"")
    };
    let forged = format!("{}A", &ES256_A[..ES256_A.len() - 1]);
    let long = "x".repeat(17_000);
    for (token, status, challenge) in [
        (EXPIRED, 401, invalid("the token has expired")),
        (
            OTHER_AUDIENCE,
            401,
            invalid("the token is for another audience"),
        ),
        (ES256_B, 401, invalid("no key is known for the token")),
        (CONFUSED, 401, invalid("no key is known for the token")),
        (
            UNSIGNED,
            401,
            invalid("the token's algorithm is not accepted"),
        ),
        (&forged[..], 401, invalid("no key is known for the token")),
        (&long, 401, invalid("the token is too long")),
        ("garbage", 401, invalid("the token is malformed")),
        (
            NO_SCOPE,
            403,
            String::from(
                "Bearer realm=\"shop\", error=\"insufficient_scope\", \
                 error_description=\"the token's scope does not allow this\", scope=\"read\"",
            ),
        ),
    ] {
        let reply = with(&proxy, token);
        assert_eq!(reply.status.as_u16(), status, "{token}");
        assert_eq!(
            reply.header("www-authenticate"),
            Some(challenge.as_str()),
            "{token}"
        );
    }
    let reply = proxy.get_with("/", &[("x-user", "forged")]);
    assert_eq!(reply.status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        reply.header("www-authenticate"),
        Some("Bearer realm=\"shop\"")
    );
    assert_eq!(proxy.origin("app").requests(), 0);
    assert_eq!(proxy.error_lines(), [""; 0]);
}

#[test]
fn a_plugin_that_could_reach_out_and_is_not_to_is_told_so() {
    let config = INLINE.replace("grants = { upstreams = [], zones = [] }", "");
    let checked = Proxy::with_config(&config)
        .origin("app", origin::text("hello"))
        .check();
    let told = checked.outcome.expect_refusal().stderr;
    for text in [
        "jwt.wasm makes calls out, which nothing grants",
        "jwt.wasm uses a zone, which nothing grants",
    ] {
        assert!(told.contains(text), "{told}");
    }
    assert!(told.contains("where [] is for none"), "{told}");
}

#[track_caller]
fn inline_keys() -> Proxy {
    Proxy::with_config(INLINE)
        .origin("app", origin::text("hello"))
        .start()
}

const INLINE: &str = r#"
    [access_log]
    file = "{dir}/access.log"
    format = "$status $user"
    flush = "0s"

    [plugins.jwt]
    wasm = "{plugins}/jwt.wasm"
    grants = { upstreams = [], zones = [] }

    [plugins.jwt.config]
    issuers = ["https://idp.example"]
    audiences = ["shop"]
    scopes = ["read"]
    claims = { sub = "user" }
    headers = { sub = "x-user" }
    remove = true
    realm = "shop"

    [[plugins.jwt.config.keys]]
    secret = "0123456789abcdef0123456789abcdef"

    [[plugins.jwt.config.keys]]
    pem = """
-----BEGIN PUBLIC KEY-----
MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAofgWCuLjybRlzo0tZWJj
NiuSfb4p4fAkd/wWJcyQoTbji9k0l8W26mPddxHmfHQp+Vaw+4qPCJrcS2mJPMEz
P1Pt0Bm4d4QlL+yRT+SFd2lZS+pCgNMsD1W/YpRPEwOWvG6b32690r2jZ47soMZo
9wGzjb/7OMg0LOL+bSf63kpaSHSXndS5z5rexMdbBYUsLA9e+KXBdQOS+UTo7WTB
EMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6/I5IhlJH7aGhyxX
FvUK+DWNmoudF8NAco9/h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXp
oQIDAQAB
-----END PUBLIC KEY-----
"""

    [[plugins.jwt.config.keys]]
    jwk = { kty = "EC", crv = "P-256", x = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", y = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0" }

    [listeners.web]
    bind = "{listen}"

    [upstreams.app]
    peers = ["{app}"]

    [[routes]]
    plugins = ["jwt"]
    upstream = "app"
"#;

// Published keys

#[test]
fn published_keys_are_fetched_once_for_all_workers_and_generations() {
    let provider = Provider::new();
    let proxy = published_keys(&provider, "");
    for _ in 0..20 {
        assert_eq!(with(&proxy, ES256_A).status, StatusCode::OK);
    }
    proxy.reload().expect_success();
    for _ in 0..20 {
        assert_eq!(with(&proxy, ES256_A).status, StatusCode::OK);
    }
    assert_eq!(proxy.origin("idp").requests(), 1);
    assert_eq!(proxy.origin("idp").last().target, "/keys");
}

#[test]
fn a_new_key_is_found_and_unknown_ones_do_not_make_a_fetch_each() {
    let provider = Provider::new();
    let proxy = published_keys(&provider, "cooldown = \"1h\"");
    assert_eq!(with(&proxy, ES256_A).status, StatusCode::OK);
    for _ in 0..20 {
        assert_eq!(with(&proxy, ES256_B).status, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(proxy.origin("idp").requests(), 1);

    let proxy = published_keys(&provider, "cooldown = \"50ms\"");
    assert_eq!(with(&proxy, ES256_A).status, StatusCode::OK);
    provider.says(ROTATED);
    until("the new key is known", || {
        with(&proxy, ES256_B).status == StatusCode::OK
    });
    assert_eq!(proxy.error_lines(), [""; 0]);
}

#[test]
fn old_keys_are_used_while_the_provider_is_out_of_order() {
    let provider = Provider::new();
    let proxy = published_keys(&provider, "refresh = \"1ms\", cooldown = \"20ms\"");
    assert_eq!(with(&proxy, ES256_A).status, StatusCode::OK);
    provider.says(BROKEN);
    until("it is asked again", || {
        assert_eq!(with(&proxy, ES256_A).status, StatusCode::OK);
        proxy.log().contains("going on with keys that are")
    });
    assert_eq!(proxy.error_lines(), [""; 0]);
}

#[test]
fn without_any_keys_the_hook_fails() {
    let provider = Provider::new();
    provider.says(BROKEN);
    let proxy = published_keys(&provider, "");
    for _ in 0..3 {
        assert_eq!(
            with(&proxy, ES256_A).status,
            StatusCode::INTERNAL_SERVER_ERROR
        );
    }
    proxy.until_log_has("upstream idp answered 503 for its keys: expected 200");
    assert_eq!(proxy.origin("idp").requests(), 1);
    // Clients without a good token are told so all the same.
    assert_eq!(proxy.get("/").status, StatusCode::UNAUTHORIZED);
    assert_eq!(with(&proxy, EXPIRED).status, StatusCode::UNAUTHORIZED);
}

#[test]
fn many_requests_at_once_make_one_fetch() {
    let provider = Provider::new();
    let slow = origin::answering_after(Duration::from_millis(100), move |_| provider.answer());
    let proxy = setup("").origin("idp", slow).start();
    let request = format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {ES256_A}\r\n\r\n");
    let mut clients: Vec<_> = (0..10).map(|_| proxy.raw()).collect();
    for client in &mut clients {
        client.send(&request);
    }
    for client in &mut clients {
        assert_eq!(client.read_reply().status, StatusCode::OK);
    }
    assert_eq!(proxy.origin("idp").requests(), 1);
}

#[test]
fn a_zone_that_is_not_granted_is_told_at_load() {
    let config = PUBLISHED
        .replace("zone = \"keys\"", "zone = \"other\"")
        .replace("MORE", "");
    let checked = Proxy::with_config(&config)
        .origin("app", origin::text("hello"))
        .origin("idp", origin::text("{}"))
        .check();
    let told = checked.outcome.expect_refusal().stderr;
    assert!(
        told.contains("config.jwks.zone: not granted; expected a kv zone"),
        "{told}"
    );
}

#[track_caller]
fn published_keys(provider: &Provider, more: &str) -> Proxy {
    setup(more).origin("idp", provider.origin()).start()
}

fn setup(more: &str) -> Setup {
    let more = if more.is_empty() {
        String::new()
    } else {
        format!(", {more}")
    };
    Proxy::with_config(&PUBLISHED.replace("MORE", &more)).origin("app", origin::text("hello"))
}

const PUBLISHED: &str = r#"
    [zones.keys]
    kind = "kv"
    size = "1MiB"

    [plugins.jwt]
    wasm = "{plugins}/jwt.wasm"
    grants = { upstreams = ["idp"], zones = ["keys"] }

    [plugins.jwt.config]
    jwks = { upstream = "idp", path = "/keys", zone = "keys"MORE }

    [listeners.web]
    bind = "{listen}"

    [upstreams]
    app.peers = ["{app}"]
    idp.peers = ["{idp}"]

    [[routes]]
    plugins = ["jwt"]
    upstream = "app"
"#;

/// An identity provider.
#[derive(Clone)]
struct Provider(Arc<AtomicU8>);

const FIRST: u8 = 0;
const ROTATED: u8 = 1;
const BROKEN: u8 = 2;

impl Provider {
    fn new() -> Self {
        Self(Arc::new(AtomicU8::new(FIRST)))
    }

    fn says(&self, what: u8) {
        self.0.store(what, Ordering::Relaxed);
    }

    fn origin(&self) -> Origin {
        let provider = self.clone();
        origin::answering(move |_| provider.answer())
    }

    fn answer(&self) -> Response<body::AnyBody> {
        let (status, keys) = match self.0.load(Ordering::Relaxed) {
            FIRST => (200, vec![JWK_A]),
            ROTATED => (200, vec![JWK_A, JWK_B]),
            _ => (503, vec![]),
        };
        let set = format!("{{\"keys\": [{}]}}", keys.join(","));
        let response = Response::builder().status(status);
        response.body(body::full(set)).expect("a valid response")
    }
}

#[track_caller]
fn with(proxy: &Proxy, token: &str) -> Reply {
    proxy.get_with("/", &[("authorization", &format!("Bearer {token}"))])
}

// Tokens, signed with keys of RFC 7515, appendix A, and valid until 2100. Their claims:
// {"iss":"https://idp.example","aud":"shop","sub":"ada","scope":"read","exp":4102444800}

const HS256: &str = "eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJodHRwczovL2lkcC5leGFtcGxlIiwiYXVkIjoic2hvcCIsInN1YiI6ImFkYSIsInNjb3BlIjoicmVhZCIsImV4cCI6NDEwMjQ0NDgwMH0.HdnAICAgwnn1KvyFcZc4iER3iFaCwdLdO7TzrlmAkyM";
const RS256: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJodHRwczovL2lkcC5leGFtcGxlIiwiYXVkIjoic2hvcCIsInN1YiI6ImFkYSIsInNjb3BlIjoicmVhZCIsImV4cCI6NDEwMjQ0NDgwMH0.DDSTN3T0xNHsKDD-BNU3U9aQL8eQrmdRQLpxcVuTtqkjeW9zln7R7HXwS8iPX6fX4f2sa6-YLfhKftW9p0ilOlA18PSYdqzuNymqPs5CTXylLaNmVGyhD2SfFfLEbN0YnVInjomPfwzsgU8vrg9ONTzvei7N_0_H59yZ5Dpy1qeiVT4Xbu3aF7NUYeH-leKVvN8s9BtprKpX9xkMAv3joc8GoDQFuMFdXcYeGrr7UPy_soDPFhP-oaOHfG-NfU-7g8GAxwqQL6Neb95Eh149F8f-nwZ9yTlSV6sKTLU7QaH_he61tvLKuarjUaosMlOvY9Oe1Ei2f4ffZTIdGP2DGw";
const ES256_A: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImEifQ.eyJpc3MiOiJodHRwczovL2lkcC5leGFtcGxlIiwiYXVkIjoic2hvcCIsInN1YiI6ImFkYSIsInNjb3BlIjoicmVhZCIsImV4cCI6NDEwMjQ0NDgwMH0.2YChP_tOCq6A21-4INiQsb2Nx6Ue54d8dWUodZ9pqrg1BZmAGnX-aACkfBMx_Gd2gUawE_hdLPEju7u4mpB5BQ";
/// Token of another key.
const ES256_B: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImIifQ.eyJpc3MiOiJodHRwczovL2lkcC5leGFtcGxlIiwiYXVkIjoic2hvcCIsInN1YiI6ImFkYSIsInNjb3BlIjoicmVhZCIsImV4cCI6NDEwMjQ0NDgwMH0.VM_1dgq0YtH3yv_2XlCJD9qXbjJtw-ajjJnXgCHLsqlJB9zZF0-G99YZfQ11hckzwEuc08RmPVhud4bZBBhctg";
/// In 2023.
const EXPIRED: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImEifQ.eyJpc3MiOiJodHRwczovL2lkcC5leGFtcGxlIiwiYXVkIjoic2hvcCIsInN1YiI6ImFkYSIsInNjb3BlIjoicmVhZCIsImV4cCI6MTcwMDAwMDAwMH0.u1O9_nOPjEvED_x9bhb6NW-VmZEGxLcr_9JXxeag7ijF9GBBOUun3LWgp55H0Cpl61EspFDqx7cdJPov-dU1XQ";
const OTHER_AUDIENCE: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImEifQ.eyJpc3MiOiJodHRwczovL2lkcC5leGFtcGxlIiwiYXVkIjoib3RoZXIiLCJzdWIiOiJhZGEiLCJzY29wZSI6InJlYWQiLCJleHAiOjQxMDI0NDQ4MDB9.tp3fuoTJ4UmJmuLkxGoCwvDRKbNXAusw7UJfM6M-2QXscEmy8K5S-4T7xw3DDGoBtHQdUw5S39wH-Q7HYP915g";
const NO_SCOPE: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImEifQ.eyJpc3MiOiJodHRwczovL2lkcC5leGFtcGxlIiwiYXVkIjoic2hvcCIsInN1YiI6ImFkYSIsInNjb3BlIjoid3JpdGUiLCJleHAiOjQxMDI0NDQ4MDB9.KRs7BCZ2r-2K2nEQBdWYvdgWB1tswUK0Jkh4mDnYKQdupS7PPGrCgLg5DjI6-sTamwmIMvha9vQIL9LFSIBqMA";
/// HS256 with the public RSA key, as PEM, for a secret.
const CONFUSED: &str = "eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJodHRwczovL2lkcC5leGFtcGxlIiwiYXVkIjoic2hvcCIsInN1YiI6ImFkYSIsInNjb3BlIjoicmVhZCIsImV4cCI6NDEwMjQ0NDgwMH0.AxhASg7ktEGrE_GNEfjQLbadWY5LFxnM8Vc-N9T2YcA";
/// `alg` is `none`.
const UNSIGNED: &str = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovL2lkcC5leGFtcGxlIiwiYXVkIjoic2hvcCIsInN1YiI6ImFkYSIsInNjb3BlIjoicmVhZCIsImV4cCI6NDEwMjQ0NDgwMH0.";

const JWK_A: &str = r#"{"kty":"EC","crv":"P-256","kid":"a","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}"#;
const JWK_B: &str = r#"{"kty":"EC","crv":"P-256","kid":"b","x":"b3gggohAfpEqPtDOi8xMHgwtuaDX7hNnLdqq4PCwWMA","y":"iYf1NQZxQSeifxh3qKvCfKMVddEb6ZyrS2J-9Zi-5Fg"}"#;
